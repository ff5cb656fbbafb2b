// Package users says who may edit: it makes users, and tells whether a name and
// a password are those of one.
//
// Passwords are stored as argon2id, in PHC string format, so that the parameters
// travel with each. Somebody who asks learns nothing about which names exist: a
// name that is nobody's takes the same time and gets the same answer as a wrong
// password, and so does a user who is not active.
package users

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"walcache/backend/db"
)

const (
	maxName     = 150  // characters
	minPassword = 8    // characters
	maxPassword = 1024 // bytes
)

var (
	// ErrTaken says that there is a user of that name.
	ErrTaken = errors.New("there is a user of that name")
	// ErrUnknown says that there is no user of that name.
	ErrUnknown = errors.New("there is no user of that name")
	// ErrRefused says that name and password are not those of an active user,
	// and not which of them is wrong.
	ErrRefused = errors.New("name and password are not those of an active user")
)

// CheckName says what is wrong with the name of a user to be.
func CheckName(name string) error {
	switch n := utf8.RuneCountInString(name); {
	case n == 0:
		return errors.New("the name must not be empty")
	case n > maxName:
		return fmt.Errorf("the name must have at most %d characters, and has %d", maxName, n)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return errors.New("the name must be of printable characters")
	case strings.TrimSpace(name) != name:
		return errors.New("the name must not begin or end with a space")
	}
	return nil
}

// CheckPassword says what is wrong with the password that the user of that name
// is to have.
func CheckPassword(name, password string) error {
	switch {
	case utf8.RuneCountInString(password) < minPassword:
		return fmt.Errorf("the password must have at least %d characters", minPassword)
	case len(password) > maxPassword:
		return fmt.Errorf("the password must have at most %d bytes", maxPassword)
	case strings.EqualFold(name, password):
		return errors.New("the password must not be the name")
	}
	return nil
}

// Create makes an active user. The errors are those of CheckName and
// CheckPassword, ErrTaken, where the name may differ in case, and those of the
// database. conn is a pool or a connection.
func Create(ctx context.Context, conn db.DBTX, name, password string) error {
	if err := errors.Join(CheckName(name), CheckPassword(name, password)); err != nil {
		return err
	}
	hash, err := newHash(ctx, password)
	if err != nil {
		return err
	}
	_, err = db.New(conn).CreateUser(ctx, db.CreateUserParams{Name: name, Password: hash})
	var answer *pgconn.PgError
	switch {
	case errors.As(err, &answer) && answer.ConstraintName == "users_name":
		return fmt.Errorf("%w: %q (capitals make no difference)", ErrTaken, name)
	case err != nil:
		return fmt.Errorf("create user %q: %w", name, err)
	}
	return nil
}

// SetPassword gives a user another password, which ends the user's sessions. The
// errors are those of CheckPassword, ErrUnknown and those of the database.
func SetPassword(ctx context.Context, conn db.DBTX, name, password string) error {
	if err := CheckPassword(name, password); err != nil {
		return err
	}
	q := db.New(conn)
	user, err := q.GetUserByName(ctx, name)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("%w: %q", ErrUnknown, name)
	case err != nil:
		return fmt.Errorf("get user %q: %w", name, err)
	}
	hash, err := newHash(ctx, password)
	if err != nil {
		return err
	}
	if _, err := q.SetPassword(ctx, db.SetPasswordParams{ID: user.ID, Password: hash}); err != nil {
		return fmt.Errorf("set the password of user %q: %w", name, err)
	}
	return nil
}

// ChangePassword gives a user, whose row was read just now, another password,
// which ends the user's sessions, and returns the row with it. It returns
// ErrRefused if current is not the password that the user has, also if that was
// changed meanwhile; else the errors are those of CheckPassword and of the
// database.
func ChangePassword(ctx context.Context, conn db.DBTX, user db.User, current, password string) (db.User, error) {
	if err := CheckPassword(user.Name, password); err != nil {
		return user, err
	}
	stored, err := parse(user.Password)
	if err != nil {
		return user, ErrRefused
	}
	right, err := stored.matches(ctx, current)
	switch {
	case err != nil:
		return user, err
	case !right:
		return user, ErrRefused
	}
	user.Password, err = replace(ctx, db.New(conn), user, password)
	return user, err
}

// LogIn returns the active user of a name and a password, or ErrRefused, or an
// error of the database. It notes the login, and stores the password anew if it
// was hashed with other parameters than passwords are now.
func LogIn(ctx context.Context, conn db.DBTX, name, password string) (db.User, error) {
	q := db.New(conn)
	user, stored, err := find(ctx, q, name)
	if err != nil {
		return db.User{}, err
	}
	right, err := stored.matches(ctx, password)
	switch {
	case err != nil:
		return db.User{}, err
	case !right || !user.Active:
		return db.User{}, ErrRefused
	}
	if stored.parameters != current {
		if user.Password, err = replace(ctx, q, user, password); err != nil {
			return db.User{}, err
		}
	}
	if err := q.NoteLogin(ctx, user.ID); err != nil {
		return db.User{}, fmt.Errorf("note the login of user %d: %w", user.ID, err)
	}
	return user, nil
}

// find returns a user and the hash of the password. Where there is no user, or no
// hash that can be read, it is the decoy.
func find(ctx context.Context, q *db.Queries, name string) (db.User, derived, error) {
	if CheckName(name) != nil {
		return db.User{}, decoy, nil // no name of anybody; one with a NUL is none that can be asked for
	}
	user, err := q.GetUserByName(ctx, name)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return db.User{}, decoy, nil
	case err != nil:
		return db.User{}, decoy, fmt.Errorf("get user: %w", err)
	}
	stored, err := parse(user.Password)
	if err != nil {
		return user, decoy, nil
	}
	return user, stored, nil
}

// replace stores a password, the old one under the current parameters or another,
// and returns the hash that the user has then.
//
// 1. A login reads the old hash.  2. Somebody sets another password.  3. The login
// stores the old password anew: the new one is lost. So it replaces only the hash
// that it has read; the other way round the login is refused.
func replace(ctx context.Context, q *db.Queries, user db.User, password string) (string, error) {
	hash, err := newHash(ctx, password)
	if err != nil {
		return "", err
	}
	n, err := q.UpgradePassword(ctx, db.UpgradePasswordParams{ID: user.ID, Password: hash, Was: user.Password})
	switch {
	case err != nil:
		return "", fmt.Errorf("store the password of user %d: %w", user.ID, err)
	case n == 0:
		return "", ErrRefused
	}
	return hash, nil
}
