// Package session remembers who has logged in.
//
// A session has an id of 256 random bits, which only its browser has, in a
// cookie. What is kept is under an HMAC of the id: who can read Redis sees who is
// logged in, and cannot log in.
//
// A session ends
//   - when it was not used for 12 hours,
//   - 2 weeks after it began, however much it is used,
//   - at logout,
//   - when its user is deactivated, gets another password, or is gone.
//
// The keys begin with "session:", apart from those of cached data, so that a
// cleared cache logs nobody out. A Redis that loses or evicts them does.
package session

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"walcache/backend/db"
	"walcache/backend/panel/keep"
)

const (
	// Idle is how long a session lasts that nobody uses.
	Idle = 12 * time.Hour
	// Longest is how long any session lasts.
	Longest = 14 * 24 * time.Hour
)

// ErrNone says that there is no such session, or none any more.
var ErrNone = errors.New("there is no such session")

// Keeper keeps the values of sessions (package keep).
type Keeper interface {
	Get(ctx context.Context, key string, ttl time.Duration) (string, error)
	Set(ctx context.Context, key, value string, ttl time.Duration) error
	Replace(ctx context.Context, key, value string, ttl time.Duration) error
	Delete(ctx context.Context, key string) error
}

// Session is what is remembered.
type Session struct {
	ID      string    `json:"-"`
	User    int64     `json:"user"`
	Began   time.Time `json:"began"`
	Proof   string    `json:"proof"`             // of the password that the user had then
	Message string    `json:"message,omitempty"` // for the next page
}

// Sessions begins, finds and ends sessions. It may be used concurrently.
type Sessions struct {
	keeper Keeper
	secret []byte
}

// New returns the sessions of a keeper. With another secret they are others.
func New(keeper Keeper, secret string) *Sessions {
	return &Sessions{keeper, []byte(secret)}
}

// idBytes is how much of an id nobody can guess.
const idBytes = 32

// Begin starts a session, under an id that was never used before.
func (s *Sessions) Begin(ctx context.Context, user db.User) (Session, error) {
	id := make([]byte, idBytes)
	rand.Read(id) // never fails
	session := Session{
		ID:    base64.RawURLEncoding.EncodeToString(id),
		User:  user.ID,
		Began: time.Now(),
		Proof: s.proof(user),
	}
	value, err := session.value()
	if err != nil {
		return session, err
	}
	return session, s.keeper.Set(ctx, s.key(session.ID), value, Idle)
}

// Find returns a session, which is used by that, or ErrNone. What it returns is
// the user's only as long as Holds says so.
func (s *Sessions) Find(ctx context.Context, id string) (Session, error) {
	session := Session{ID: id}
	if len(id) != base64.RawURLEncoding.EncodedLen(idBytes) {
		return session, ErrNone
	}
	value, err := s.keeper.Get(ctx, s.key(id), Idle)
	switch {
	case errors.Is(err, keep.ErrNone):
		return session, ErrNone
	case err != nil:
		return session, err
	}
	if json.Unmarshal([]byte(value), &session) != nil {
		return session, ErrNone // no value of ours
	}
	if time.Since(session.Began) >= Longest {
		return session, errors.Join(ErrNone, s.End(ctx, id))
	}
	return session, nil
}

// Holds reports whether a session is still its user's, whose row was read just
// now.
func (s *Sessions) Holds(session Session, user db.User) bool {
	return user.Active && session.User == user.ID && hmac.Equal([]byte(session.Proof), []byte(s.proof(user)))
}

// Tell leaves a message for the next page of a session; "" takes it away.
//
// 1. A page reads the session.  2. Another ends it.  3. The page writes it back:
// logged out, and in again. So it is written only where there still is one.
func (s *Sessions) Tell(ctx context.Context, session Session, message string) error {
	session.Message = message
	value, err := session.value()
	if err != nil {
		return err
	}
	if err := s.keeper.Replace(ctx, s.key(session.ID), value, Idle); !errors.Is(err, keep.ErrNone) {
		return err
	}
	return nil
}

// End forgets a session, if there is one.
func (s *Sessions) End(ctx context.Context, id string) error {
	return s.keeper.Delete(ctx, s.key(id))
}

// Token is what the forms of a session carry, so that no other site can send
// them.
func (s *Sessions) Token(id string) string { return s.mac("token", id) }

func (s *Sessions) key(id string) string { return "session:" + s.mac("key", id) }

// proof changes when the password does. It is of no use to who reads it.
func (s *Sessions) proof(user db.User) string { return s.mac("password", user.Password) }

// mac is an HMAC (RFC 2104) of the value for one purpose: what is said for one
// proves nothing for another.
func (s *Sessions) mac(purpose, value string) string {
	h := hmac.New(sha256.New, s.secret)
	h.Write([]byte(purpose + "\x00" + value))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

func (s Session) value() (string, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return "", fmt.Errorf("write a session: %w", err)
	}
	return string(b), nil
}
