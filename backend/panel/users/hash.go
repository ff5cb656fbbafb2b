package users

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// parameters of argon2id (RFC 9106 section 3.1).
type parameters struct {
	memory  uint32 // KiB
	passes  uint32
	threads uint8
}

// current is what new hashes are made with: the first choice of OWASP's Password
// Storage Cheat Sheet (2024) for argon2id. A hash made with others is replaced
// when its user next logs in.
var current = parameters{memory: 19 << 10, passes: 2, threads: 1}

const (
	saltBytes = 16
	hashBytes = 32
)

// The most that a stored hash may ask for: it comes from the database, and must
// not be what exhausts the memory.
var most = parameters{memory: 256 << 10, passes: 16, threads: 16}

// turns lets so many hashes be computed at a time, so that a flood of logins
// waits and does not take the memory: 4 of 19 MiB.
var turns = make(chan struct{}, 4)

// derived is a hash with what it was made with.
type derived struct {
	parameters
	salt, hash []byte
}

// derive computes a hash when its turn comes. The error is that of ctx.
func derive(ctx context.Context, password string, p parameters, salt []byte) (derived, error) {
	select {
	case turns <- struct{}{}:
	case <-ctx.Done():
		return derived{}, fmt.Errorf("wait for a turn to hash a password: %w", ctx.Err())
	}
	defer func() { <-turns }()
	hash := argon2.IDKey([]byte(password), salt, p.passes, p.memory, p.threads, hashBytes)
	return derived{p, salt, hash}, nil
}

// newHash hashes a password as it is stored.
func newHash(ctx context.Context, password string) (string, error) {
	salt := make([]byte, saltBytes)
	rand.Read(salt) // never fails
	d, err := derive(ctx, password, current, salt)
	return d.String(), err
}

// decoy is compared where there is no user, so that finding none takes as long
// as finding one. No password matches it.
var decoy = derived{current, make([]byte, saltBytes), nil}

// matches reports whether d is of the password.
func (d derived) matches(ctx context.Context, password string) (bool, error) {
	got, err := derive(ctx, password, d.parameters, d.salt)
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(got.hash, d.hash) == 1, nil
}

var base = base64.RawStdEncoding.Strict()

// String is the hash in the PHC string format
// (github.com/P-H-C/phc-string-format).
func (d derived) String() string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version,
		d.memory, d.passes, d.threads, base.EncodeToString(d.salt), base.EncodeToString(d.hash))
}

// parse reads what String has written, here or elsewhere.
func parse(phc string) (derived, error) {
	wrong := errors.New("not an argon2id hash in PHC string format")
	part := strings.Split(phc, "$")
	if len(part) != 6 || part[0] != "" || part[1] != "argon2id" || part[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return derived{}, wrong
	}
	var d derived
	var rest string
	n, _ := fmt.Sscanf(part[3]+" ", "m=%d,t=%d,p=%d%s", &d.memory, &d.passes, &d.threads, &rest)
	if n != 3 || d.memory > most.memory || d.passes > most.passes || d.threads > most.threads ||
		d.passes == 0 || d.threads == 0 {
		return derived{}, wrong
	}
	var err error
	if d.salt, err = base.DecodeString(part[4]); err != nil {
		return derived{}, wrong
	}
	if d.hash, err = base.DecodeString(part[5]); err != nil || len(d.hash) != hashBytes {
		return derived{}, wrong
	}
	return d, nil
}
