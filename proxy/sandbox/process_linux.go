package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

func setDeathSignal(attr *syscall.SysProcAttr, orphaned syscall.Signal) { attr.Pdeathsig = orphaned }

// serverProcesses lists the processes of the program that work in dir or below
// it. The working directory finds them all: a PostgreSQL backend is a session of
// its own, so no process group holds them together, and once the postmaster is
// dead they are no longer its children either. The name keeps a shell that
// somebody opened there out of it.
func serverProcesses(program, dir string) ([]runningProcess, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var found []runningProcess
	for _, path := range stats {
		// A process that ended meanwhile, or that is not ours to look at, is
		// not one of the server's.
		cwd, err := os.Readlink(filepath.Join(filepath.Dir(path), "cwd"))
		if err != nil || !within(strings.TrimSuffix(cwd, " (deleted)"), dir) {
			continue
		}
		stat, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if p, name, ok := parseStat(string(stat)); ok && strings.Contains(name, program) {
			found = append(found, p)
		}
	}
	return found, nil
}

// parseStat reads "pid (name) state ..." (proc(5)); the name may itself contain
// spaces and parentheses.
func parseStat(stat string) (p runningProcess, name string, ok bool) {
	id, rest, ok := strings.Cut(stat, " (")
	end := strings.LastIndex(rest, ") ")
	if !ok || end < 0 || len(rest) < end+3 {
		return p, "", false
	}
	pid, err := strconv.Atoi(id)
	state := rest[end+2]
	return runningProcess{pid: pid, stopped: state == 'T' || state == 'Z' || state == 'X'}, rest[:end], err == nil
}
