package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"walcache/backend/panel/users"
	"walcache/proxy/settings"
)

func userFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "username", EnvVars: []string{"SUPERUSER_NAME"}, Usage: "`NAME` to log in with"},
		&cli.StringFlag{Name: "password", EnvVars: []string{"SUPERUSER_PASSWORD"}, Usage: "`PASSWORD` to log in with; prefer the variable, since ps shows flags"},
		&cli.StringFlag{Name: "password-file", EnvVars: []string{"SUPERUSER_PASSWORD_FILE"}, Usage: "`FILE` that holds the password"},
	}
}

// createUser asks at the terminal for what flags and environment do not say.
func createUser(c *cli.Context) (err error) {
	if c.Args().Present() {
		return usagef("createsuperuser takes no %q", c.Args().First())
	}
	dsn, err := databaseURL(c)
	if err != nil {
		return err
	}
	password, err := settings.Secret(c, "password")
	if err != nil {
		return err
	}
	name := c.String("username")
	if name == "" || password == "" {
		if name, password, err = ask(c.App.Writer, name, password); err != nil {
			return err
		}
	}
	db, err := pgx.Connect(c.Context, dsn)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close(c.Context)) }()
	if err := users.Create(c.Context, db, name, password); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.App.Writer, "Superuser %s created: log in at /admin/\n", name)
	return err
}

// ask prompts for a name and a password. Without a terminal it says what to set
// instead: a script would wait for ever.
func ask(out io.Writer, name, password string) (string, string, error) {
	in := int(os.Stdin.Fd())
	if !term.IsTerminal(in) {
		return "", "", usagef("createsuperuser has no terminal to ask at\n  try: --username and SUPERUSER_PASSWORD (or --password-file)")
	}
	if name == "" {
		fmt.Fprint(out, "Username: ")
		line, err := bufio.NewReader(os.Stdin).ReadString('\n')
		if err != nil {
			return "", "", fmt.Errorf("read the username: %w", err)
		}
		name = strings.TrimSpace(line)
	}
	for password == "" {
		first, err := hidden(out, in, "Password: ")
		if err != nil {
			return "", "", err
		}
		again, err := hidden(out, in, "Password (again): ")
		if err != nil {
			return "", "", err
		}
		if first != again {
			fmt.Fprintln(out, "They differ; once more.")
			continue
		}
		if first == "" {
			return "", "", usagef("a password must not be empty")
		}
		password = first
	}
	return name, password, nil
}

// hidden reads a line that is not shown.
func hidden(out io.Writer, in int, prompt string) (string, error) {
	fmt.Fprint(out, prompt)
	line, err := term.ReadPassword(in)
	fmt.Fprintln(out)
	if err != nil {
		return "", fmt.Errorf("read the password: %w", err)
	}
	return string(line), nil
}
