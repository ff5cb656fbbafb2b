package session

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"walcache/backend/db"
	"walcache/backend/panel/keep"
)

var ada = db.User{ID: 7, Name: "Ada", Password: "$argon2id$hash", Active: true}

// seen is a keeper that notes every key and value.
type seen struct {
	keep.Memory
	all strings.Builder
}

func (s *seen) Set(ctx context.Context, key, value string, ttl time.Duration) error {
	s.all.WriteString(key + " " + value + "\n")
	return s.Memory.Set(ctx, key, value, ttl)
}

func TestSession_WhoReadsTheKeeperCannotLogIn(t *testing.T) {
	kept := &seen{}
	sessions := New(kept, "secret")
	s, err := sessions.Begin(t.Context(), ada)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.ID) != 43 {
		t.Errorf("the id %q is not of 256 bits", s.ID)
	}
	key, _, _ := strings.Cut(kept.all.String(), " ")
	for _, hidden := range []string{s.ID, sessions.Token(s.ID), ada.Password, "secret"} {
		if strings.Contains(kept.all.String(), hidden) {
			t.Errorf("%q is kept:\n%s", hidden, kept.all.String())
		}
	}
	if _, err := sessions.Find(t.Context(), strings.TrimPrefix(key, "session:")); !errors.Is(err, ErrNone) {
		t.Errorf("a key opens a session: %v", err)
	}
	if _, err := New(kept, "another").Find(t.Context(), s.ID); !errors.Is(err, ErrNone) {
		t.Errorf("another secret finds it: %v", err)
	}
	if found, err := New(kept, "secret").Find(t.Context(), s.ID); err != nil || found.User != 7 {
		t.Errorf("another process does not find it: %v", err)
	}
}

func TestSession_EndsWhenIdleAndAfterTwoWeeks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sessions := New(&keep.Memory{}, "secret")
		idle, err := sessions.Begin(t.Context(), ada)
		if err != nil {
			t.Fatal(err)
		}
		used, err := sessions.Begin(t.Context(), ada)
		if err != nil {
			t.Fatal(err)
		}
		for lasted := time.Duration(0); lasted < Longest; lasted += Idle / 2 {
			if _, err := sessions.Find(t.Context(), used.ID); err != nil {
				t.Fatalf("ended after %v, though it was used: %v", lasted, err)
			}
			time.Sleep(Idle / 2)
		}
		for _, id := range []string{idle.ID, used.ID} {
			if _, err := sessions.Find(t.Context(), id); !errors.Is(err, ErrNone) {
				t.Errorf("there is a session still: %v", err)
			}
		}
	})
}

func TestSession_HoldsOnlyForTheUserAsThen(t *testing.T) {
	sessions := New(&keep.Memory{}, "secret")
	s, err := sessions.Begin(t.Context(), ada)
	if err != nil {
		t.Fatal(err)
	}
	if !sessions.Holds(s, ada) {
		t.Error("it does not hold")
	}
	other, inactive, changed := ada, ada, ada
	other.ID, inactive.Active, changed.Password = 8, false, "$argon2id$new"
	for _, user := range []db.User{other, inactive, changed, {}} {
		if sessions.Holds(s, user) {
			t.Errorf("it holds for %+v", user)
		}
	}
}

func TestTell_DoesNotBringBackWhatHasEnded(t *testing.T) {
	sessions := New(&keep.Memory{}, "secret")
	s, err := sessions.Begin(t.Context(), ada)
	if err != nil {
		t.Fatal(err)
	}
	if err := sessions.Tell(t.Context(), s, "saved"); err != nil {
		t.Fatal(err)
	}
	if s, err = sessions.Find(t.Context(), s.ID); s.Message != "saved" || err != nil {
		t.Errorf("%q, %v", s.Message, err)
	}
	if err := sessions.End(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
	if err := sessions.Tell(t.Context(), s, "again"); err != nil {
		t.Fatal(err)
	}
	if _, err := sessions.Find(t.Context(), s.ID); !errors.Is(err, ErrNone) {
		t.Errorf("it is back: %v", err)
	}
}
