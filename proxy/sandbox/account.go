package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is whom servers run as when we are root, which PostgreSQL refuses to
// run as. Nil means: as ourselves.
type account struct {
	name     string
	uid, gid uint32
}

func (a *account) String() string {
	if a == nil {
		return "we"
	}
	return "user " + a.name
}

func (a *account) credential() *syscall.Credential {
	return &syscall.Credential{Uid: a.uid, Gid: a.gid}
}

// chooseAccount returns nil unless we are root; then the owner of dir if it
// holds a server already, else postgres, else nobody.
func chooseAccount(dir string) (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	if info, err := os.Lstat(filepath.Join(dir, lockFile)); err == nil {
		if owner := info.Sys().(*syscall.Stat_t); owner.Uid != 0 {
			return &account{fmt.Sprintf("%d", owner.Uid), owner.Uid, owner.Gid}, nil
		}
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			uid, errUID := strconv.ParseUint(u.Uid, 10, 32)
			gid, errGID := strconv.ParseUint(u.Gid, 10, 32)
			if err := errors.Join(errUID, errGID); err != nil {
				return nil, fmt.Errorf("look up user %s: %w", name, err)
			}
			return &account{name, uint32(uid), uint32(gid)}, nil
		}
	}
	return nil, errors.New("we are root, and there is no user postgres or nobody to run a server as\n  try: useradd --system postgres")
}

// own makes path the account's. A symbolic link is not followed: the account can
// put one where we write as root.
func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	return os.Lchown(path, int(a.uid), int(a.gid))
}

// command is a program to run as the account.
func (a *account) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = environment()
	cmd.Dir = "/"
	if a != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: a.credential()}
	}
	return cmd
}

// reaches reports whether the account may use path: run it, or look into it.
// The kernel is asked, since access lists and mounts have a say too.
func (a *account) reaches(path string) bool {
	return a.command("/bin/sh", "-c", `test -x "$1"`, "sh", path).Run() == nil
}

// environment of a server: ours may carry PGDATA, PGOPTIONS, LD_PRELOAD and a
// language that error messages would come in.
func environment() []string {
	env := []string{"LC_ALL=C", "TZ=UTC", "PATH=" + os.Getenv("PATH")}
	if libraries, ok := os.LookupEnv("LD_LIBRARY_PATH"); ok {
		env = append(env, "LD_LIBRARY_PATH="+libraries)
	}
	return env
}
