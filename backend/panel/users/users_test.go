package users

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"walcache/backend/db"
	"walcache/proxy/sandbox/sandboxtest"
	"walcache/schema"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

const right = "correct horse battery"

// database is migrated and has one user, Ada.
func database(t *testing.T) *pgxpool.Pool {
	t.Helper()
	dsn := sandboxtest.Postgres(t)
	if err := schema.Up(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if err := Create(t.Context(), pool, "Ada", right); err != nil {
		t.Fatal(err)
	}
	return pool
}

func TestCreate_SaysWhatIsWrong(t *testing.T) {
	pool := database(t)
	for _, c := range []struct{ name, password, want string }{
		{"", right, "must not be empty"},
		{strings.Repeat("é", 151), right, "at most 150 characters, and has 151"},
		{"a\x00b", right, "printable"},
		{"a\xff", right, "printable"},
		{"a\u202eb", right, "printable"},
		{" ada", right, "begin or end with a space"},
		{"bob", "1234567", "at least 8 characters"},
		{"bob", strings.Repeat("x", 1025), "at most 1024 bytes"},
		{"bobbobbob", "BobBobBob", "must not be the name"},
		{"Ada", right, `there is a user of that name: "Ada"`},
		{"aDA", right, `there is a user of that name: "aDA"`},
	} {
		err := Create(t.Context(), pool, c.name, c.password)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.20q, %.20q: %v, want %q", c.name, c.password, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), c.password) && c.name != "bobbobbob" {
			t.Errorf("the error tells the password: %v", err)
		}
	}
	if err := Create(t.Context(), pool, "ADA", right); !errors.Is(err, ErrTaken) {
		t.Errorf("%v, want ErrTaken", err)
	}
	if err := Create(t.Context(), pool, strings.Repeat("é", 150), strings.Repeat("x", 1024)); err != nil {
		t.Error(err)
	}
}

func TestLogIn_OnlyTheRightPasswordOfAnActiveUser(t *testing.T) {
	pool := database(t)
	for _, name := range []string{"Ada", "ada"} {
		user, err := LogIn(t.Context(), pool, name, right)
		if err != nil || user.Name != "Ada" {
			t.Errorf("%s: %q, %v", name, user.Name, err)
		}
	}
	user, err := db.New(pool).GetUserByName(t.Context(), "ada")
	if err != nil || !user.LastLoginAt.Valid {
		t.Errorf("the login is not noted: %v", err)
	}
	refused := func(name, password string) {
		t.Helper()
		if _, err := LogIn(t.Context(), pool, name, password); !errors.Is(err, ErrRefused) {
			t.Errorf("%q, %q: %v, want ErrRefused", name, password, err)
		}
	}
	refused("Ada", right+" ")
	refused("Ada", "")
	refused("Bob", right)
	refused("", "")
	refused("a\x00", right)
	if _, err := pool.Exec(t.Context(), `UPDATE users SET active = false`); err != nil {
		t.Fatal(err)
	}
	refused("Ada", right)
	if _, err := pool.Exec(t.Context(), `UPDATE users SET active = true, password = 'secret'`); err != nil {
		t.Fatal(err)
	}
	refused("Ada", "secret")
}

func TestSetPassword_TheOldOneIsRefused(t *testing.T) {
	pool := database(t)
	if err := SetPassword(t.Context(), pool, "ada", "another password"); err != nil {
		t.Fatal(err)
	}
	if _, err := LogIn(t.Context(), pool, "Ada", right); !errors.Is(err, ErrRefused) {
		t.Errorf("the old password: %v", err)
	}
	if _, err := LogIn(t.Context(), pool, "Ada", "another password"); err != nil {
		t.Errorf("the new password: %v", err)
	}
	if err := SetPassword(t.Context(), pool, "Bob", right); !errors.Is(err, ErrUnknown) {
		t.Errorf("of nobody: %v", err)
	}
}

// storeOld stores Ada's password under other parameters than the current.
func storeOld(t *testing.T, pool *pgxpool.Pool) db.User {
	t.Helper()
	old, err := derive(t.Context(), right, parameters{memory: 64, passes: 1, threads: 2}, []byte("salt and pepper!"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), `UPDATE users SET password = $1`, old.String()); err != nil {
		t.Fatal(err)
	}
	user, err := db.New(pool).GetUserByName(t.Context(), "Ada")
	if err != nil {
		t.Fatal(err)
	}
	return user
}

func TestLogIn_StoresAnOldHashAnew(t *testing.T) {
	pool := database(t)
	storeOld(t, pool)
	returned, err := LogIn(t.Context(), pool, "Ada", right)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := db.New(pool).GetUserByName(t.Context(), "Ada")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(stored.Password, "$argon2id$v=19$m=19456,t=2,p=1$") || stored.Password != returned.Password {
		t.Errorf("stored %s, returned %s", stored.Password, returned.Password)
	}
	if _, err := LogIn(t.Context(), pool, "Ada", right); err != nil {
		t.Error(err)
	}
}

func TestLogIn_AnUpgradeNeverUndoesAnotherPassword(t *testing.T) {
	pool := database(t)
	read := storeOld(t, pool)
	if err := SetPassword(t.Context(), pool, "Ada", "another password"); err != nil {
		t.Fatal(err)
	}
	if _, err := replace(t.Context(), db.New(pool), read, right); !errors.Is(err, ErrRefused) {
		t.Errorf("%v, want ErrRefused", err)
	}
	if _, err := LogIn(t.Context(), pool, "Ada", "another password"); err != nil {
		t.Error(err)
	}
}

func TestChangePassword_TakesTheCurrentOneAndNoOther(t *testing.T) {
	pool := database(t)
	read, err := db.New(pool).GetUserByName(t.Context(), "Ada")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ current, password, want string }{
		{"wrong password", "another password", ErrRefused.Error()},
		{"", "another password", ErrRefused.Error()},
		{right, "short", "at least 8 characters"},
		{right, "ADA", "at least 8 characters"},
		{right, strings.Repeat("x", 1025), "at most 1024 bytes"},
	} {
		if _, err := ChangePassword(t.Context(), pool, read, c.current, c.password); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q to %.20q: %v, want %q", c.current, c.password, err, c.want)
		}
	}
	after, err := ChangePassword(t.Context(), pool, read, right, "another password")
	if err != nil {
		t.Fatal(err)
	}
	if now, err := LogIn(t.Context(), pool, "Ada", "another password"); err != nil || now.Password != after.Password {
		t.Errorf("%v: %s, and it said %s", err, now.Password, after.Password)
	}
	// By who had read the row before, and somebody else changed it.
	if _, err := ChangePassword(t.Context(), pool, read, right, "a third password"); !errors.Is(err, ErrRefused) {
		t.Errorf("%v, want ErrRefused", err)
	}
	if _, err := LogIn(t.Context(), pool, "Ada", right); !errors.Is(err, ErrRefused) {
		t.Errorf("the old password: %v", err)
	}
}

func TestHash_PHCStringFormat(t *testing.T) {
	// From the reference implementation: echo -n password | argon2 somesalt -id -t 2 -k 65536 -p 1
	const known = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	d, err := parse(known)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := d.matches(t.Context(), "password"); !ok || err != nil {
		t.Errorf("the reference's own hash does not match: %v", err)
	}
	if d.String() != known {
		t.Errorf("written %s", d)
	}
	for _, wrong := range []string{
		"", "password", "$argon2id$", strings.Replace(known, "argon2id", "argon2i", 1),
		strings.Replace(known, "v=19", "v=16", 1), strings.Replace(known, "m=65536", "m=4294967295", 1),
		strings.Replace(known, "t=2", "t=0", 1), strings.Replace(known, "p=1", "p=0", 1),
		strings.Replace(known, "p=1", "p=1,x", 1), strings.Replace(known, "t=2", "t=-2", 1),
		known + "=", known[:len(known)-4], known + "$",
	} {
		if d, err := parse(wrong); err == nil {
			t.Errorf("%s is read as %s", wrong, d)
		}
	}
}

// FuzzParse: what is read is written the same way, and asks for no more than it may.
func FuzzParse(f *testing.F) {
	f.Add("$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
	f.Add("$argon2id$v=19$m= 1,t=+2,p=01$$")
	f.Fuzz(func(t *testing.T, phc string) {
		d, err := parse(phc)
		if err != nil {
			return
		}
		if d.memory > most.memory || d.passes > most.passes || d.threads > most.threads {
			t.Errorf("%q asks for %+v", phc, d.parameters)
		}
		if again, err := parse(d.String()); err != nil || fmt.Sprint(again) != fmt.Sprint(d) {
			t.Errorf("%q is read as %s, and that as %s, %v", phc, d, again, err)
		}
	})
}

func TestDerive_OnlyAFewAtATime(t *testing.T) {
	for range cap(turns) {
		turns <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	for range 3 {
		waiting.Go(func() {
			if _, err := newHash(ctx, right); !errors.Is(err, context.Canceled) {
				t.Errorf("a hash out of turn: %v", err)
			}
		})
	}
	cancel()
	waiting.Wait()
	for range cap(turns) {
		<-turns
	}
	if _, err := newHash(t.Context(), right); err != nil {
		t.Error(err)
	}
}
