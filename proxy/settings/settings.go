// Package settings reads what both programs are told in the same way, and makes
// their loggers.
//
//	flag  ──►  environment  ──►  .env  ──►  default      the first that says something counts
//
// Load reads .env into the environment, below what is there, and looks at the
// variables of the command's flags. Secret is a flag or a file, and NewLogger
// logs what --log-level lets through, for each component by its own level.
//
// An empty variable says nothing but that: REDIS_URL= stands for the default,
// and takes back what .env says. No message repeats a value of .env or of a
// secret.
package settings

import (
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
)

// Error is a setting that cannot be meant: wrong usage, and no failure.
type Error struct{ what string }

func (e *Error) Error() string { return e.what }

func errorf(format string, args ...any) error { return &Error{fmt.Sprintf(format, args...)} }

// Secret is the flag of a name, or the content of the file that its -file twin
// names, without space around it; "" if neither is given.
func Secret(c *cli.Context, name string) (string, error) {
	file := c.String(name + "-file")
	switch {
	case file == "":
		return c.String(name), nil
	case c.String(name) != "":
		return "", errorf("--%s and --%s-file (or their variables) are both set", name, name)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("--%s-file: %w", name, err)
	}
	secret := strings.TrimSpace(string(content))
	if secret == "" {
		return "", fmt.Errorf("--%s-file: %s is empty", name, file)
	}
	return secret, nil
}

// ParseNetwork reads a network, such as 10.0.0.0/8, or an address, which is a
// network of one.
func ParseNetwork(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return addr.Prefix(addr.BitLen())
	}
	return netip.ParsePrefix(text)
}
