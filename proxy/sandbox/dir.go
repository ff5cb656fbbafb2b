package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// lockFile marks a directory as ours, and is locked while a server runs in it.
const lockFile = "lock"

// prepareDir makes dir a private directory of the account and returns its path
// without symbolic links. It takes an empty directory or one it prepared
// before, and no other, because it changes owner and mode.
func prepareDir(dir string, as *account) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("server directory: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", fmt.Errorf("server directory: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("server directory: %w", err)
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return "", fmt.Errorf("server directory: %w", err)
	}
	if as != nil && !as.reaches(filepath.Dir(dir)) {
		return "", fmt.Errorf("the server runs as %s, who cannot reach %s\n  try: a directory below %s, or chmod o+x every directory above it",
			as, dir, os.TempDir())
	}
	return dir, claimDir(dir, as)
}

func claimDir(dir string, as *account) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("server directory: %w", err)
	}
	marker := filepath.Join(dir, lockFile)
	if _, err := os.Lstat(marker); err != nil && len(entries) > 0 {
		return fmt.Errorf("%s is not empty and was not made by this program\n  try: another directory", dir)
	}
	f, err := os.OpenFile(marker, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("server directory: %w", err)
	}
	err = errors.Join(f.Close(), as.own(marker), as.own(dir), os.Chmod(dir, 0o700))
	if err != nil {
		return fmt.Errorf("server directory: %w", err)
	}
	return nil
}

// writePrivate writes a file that only the account can read. It replaces the
// file at once, so that nobody reads half of it.
func writePrivate(path, text string, as *account) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // its mode is 0600
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Close(), as.own(f.Name()))
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// within reports whether path is dir or below it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}
