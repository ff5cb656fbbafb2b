package throttle

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"walcache/backend/panel/keep"
)

// failing tries n times, and returns how often it was let through and the last
// wait.
func failing(t *testing.T, th *Throttle, n int, client, account string) (let int, wait time.Duration) {
	t.Helper()
	for range n {
		w, err := th.Try(t.Context(), netip.MustParseAddr(client), account)
		if err != nil {
			t.Fatal(err)
		}
		if w == 0 {
			let++
		}
		wait = w
	}
	return let, wait
}

func TestTry_FiveAMinuteForAnAccountFromAnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := New(&keep.Memory{})
		time.Sleep(time.Second)
		if let, wait := failing(t, th, 8, "192.0.2.1", "Ada"); let != 5 || wait != time.Minute {
			t.Errorf("%d let through, then wait %v", let, wait)
		}
		if let, _ := failing(t, th, 1, "192.0.2.1", "ADA"); let != 0 {
			t.Error("capitals make another account")
		}
		for client, account := range map[string]string{"192.0.2.2": "Ada", "192.0.2.1": "Bob"} {
			if let, _ := failing(t, th, 1, client, account); let != 1 {
				t.Errorf("%s, %s is held up by others", client, account)
			}
		}
		time.Sleep(time.Minute)
		if let, _ := failing(t, th, 8, "192.0.2.1", "Ada"); let != 5 {
			t.Errorf("%d let through a minute later", let)
		}
	})
}

func TestTry_TwentyAMinuteFromAnAddress(t *testing.T) {
	for _, c := range []struct {
		name, spread string
		let          int
	}{
		{"one IPv4 address", "192.0.2.1", 20},
		{"the same in IPv6", "::ffff:192.0.2.1", 20},
		{"one IPv6 network", "2001:db8::%d", 20},
		{"one home's IPv6 networks", "2001:db8:0:%x::1", 20},
		{"many IPv4 addresses", "192.0.2.%d", 30},
		{"many IPv6 networks", "2001:db8:0:%d00::1", 30},
	} {
		th := New(&keep.Memory{})
		let := 0
		for i := range 30 {
			client := c.spread
			if c.let == 30 || c.name == "one home's IPv6 networks" || i > 0 && c.name == "one IPv6 network" {
				client = fmt.Sprintf(c.spread, i)
			} else if c.name == "one IPv6 network" {
				client = "2001:db8::"
			}
			n, _ := failing(t, th, 1, client, fmt.Sprint("account", i))
			let += n
		}
		if let != c.let {
			t.Errorf("%s: %d let through, want %d", c.name, let, c.let)
		}
	}
}

func TestTry_AnAccountIsGuarded_AndOneAddressAloneCannotLockItOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := New(&keep.Memory{})
		for range 10 { // minutes
			failing(t, th, 30, "192.0.2.1", "Ada")
			if let, _ := failing(t, th, 1, "192.0.2.2", "Ada"); let != 1 {
				t.Error("one address locks an account out")
			}
			time.Sleep(time.Minute)
		}
		time.Sleep(10 * time.Minute)
		let := 0
		for i := range 200 {
			n, _ := failing(t, th, 1, fmt.Sprintf("198.51.100.%d", i), "Ada")
			let += n
		}
		if let != 100 {
			t.Errorf("%d guesses from 200 addresses", let)
		}
	})
}

func TestWrongToken_TwentyAMinuteFromAnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th, client := New(&keep.Memory{}), netip.MustParseAddr("192.0.2.1")
		time.Sleep(500 * time.Millisecond)
		for i := range 25 {
			wait, err := th.WrongToken(t.Context(), client)
			if err != nil || (wait > 0) != (i >= 20) || wait%time.Second != 0 || wait > time.Minute {
				t.Errorf("number %d waits %v, %v", i+1, wait, err)
			}
		}
		if let, _ := failing(t, th, 1, "192.0.2.1", "Ada"); let != 1 {
			t.Error("a program with a wrong token keeps people from logging in")
		}
		if wait, _ := th.WrongToken(t.Context(), netip.MustParseAddr("192.0.2.2")); wait != 0 {
			t.Error("another address waits")
		}
		time.Sleep(59*time.Second + time.Millisecond)
		if wait, _ := th.WrongToken(t.Context(), client); wait != time.Second {
			t.Errorf("%v, want what is left of the minute, rounded up", wait)
		}
		time.Sleep(time.Second)
		if wait, _ := th.WrongToken(t.Context(), client); wait != 0 {
			t.Errorf("waits %v a minute later", wait)
		}
	})
}

func TestRight_TakesBackItsTry(t *testing.T) {
	th, client := New(&keep.Memory{}), netip.MustParseAddr("192.0.2.1")
	for range 200 {
		if let, _ := failing(t, th, 1, "192.0.2.1", "Ada"); let != 1 {
			t.Fatal("held up by being right")
		}
		if err := th.Right(t.Context(), client, "Ada"); err != nil {
			t.Fatal(err)
		}
	}
}
