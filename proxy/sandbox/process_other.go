//go:build unix && !linux

package sandbox

import (
	"bufio"
	"bytes"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// setDeathSignal does nothing: only Linux has such a signal. Elsewhere a server
// outlives a parent that was killed with SIGKILL.
func setDeathSignal(*syscall.SysProcAttr, syscall.Signal) {}

// serverProcesses lists the processes of the named program that were started
// on dir or below it, and their children.
func serverProcesses(program, dir string) ([]runningProcess, error) {
	out, err := exec.Command("ps", "-axo", "pid=,ppid=,state=,args=").Output()
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var found []runningProcess
	main := map[string]bool{}
	for range 2 { // first the servers, then the children of each
		found = found[:0]
		for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
			fields := strings.Fields(lines.Text())
			if len(fields) < 4 {
				continue
			}
			args := strings.Join(fields[3:], " ")
			if strings.Contains(fields[3], program) && strings.Contains(args, dir) {
				main[fields[0]] = true
			}
			if !main[fields[0]] && !main[fields[1]] {
				continue
			}
			pid, err := strconv.Atoi(fields[0])
			if err != nil {
				return nil, fmt.Errorf("list processes: %w", err)
			}
			found = append(found, runningProcess{pid: pid, stopped: strings.ContainsAny(fields[2][:1], "TZ")})
		}
	}
	return found, nil
}
