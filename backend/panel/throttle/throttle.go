// Package throttle limits how often somebody may try to log in, or to guess a
// token.
//
// Counted are failures, and tries that have not ended yet: a try counts before
// its password is looked at and is taken back when it was right, so that a
// hundred sent at once are not all looked at. A try past a limit is refused
// whatever its password, and counts towards no further limit.
//
// Of tokens the wrong ones alone are counted, by address, when they have been
// looked at: a right one is not held up by others, nor by a hundred of its own at
// once.
package throttle

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net/netip"
	"strings"
	"time"
)

// The limits. The first two stop one guesser. The third stops many that guess
// the password of one account from many addresses; it is so high that one
// address alone, at 5 a minute, never reaches it and so cannot lock anybody out.
var (
	perAddress = limit{most: 20, within: time.Minute}
	perPair    = limit{most: 5, within: time.Minute} // of account and address
	perAccount = limit{most: 100, within: 10 * time.Minute}

	wrongTokens = limit{most: 20, within: time.Minute} // of an address
)

type limit struct {
	most   int64
	within time.Duration
}

// Counter counts what happened under a key within a time (package keep).
type Counter interface {
	Count(ctx context.Context, key string, within time.Duration) (n int64, left time.Duration, err error)
	Uncount(ctx context.Context, key string) error
}

// Throttle counts tries. It may be used concurrently.
type Throttle struct{ counter Counter }

// New returns a throttle that counts there.
func New(counter Counter) *Throttle { return &Throttle{counter} }

// Try counts a try of a client to log in to an account, of which the name is
// known, whether there is one or not. If it is one too many, wait is how long the
// client has to, in whole seconds.
func (t *Throttle) Try(ctx context.Context, client netip.Addr, account string) (wait time.Duration, err error) {
	return t.count(ctx, counts(client, account)...)
}

// WrongToken counts a wrong token of a client. If it is one too many, wait is how
// long the client has to, in whole seconds.
func (t *Throttle) WrongToken(ctx context.Context, client netip.Addr) (wait time.Duration, err error) {
	return t.count(ctx, counted{"token:address:" + network(client), wrongTokens})
}

// count counts one more under each key, until there is one too many under one.
func (t *Throttle) count(ctx context.Context, all ...counted) (wait time.Duration, err error) {
	for _, c := range all {
		n, left, err := t.counter.Count(ctx, c.key, c.within)
		if err != nil {
			return 0, err
		}
		if n > c.most {
			return max(left+time.Second-1, time.Second).Truncate(time.Second), nil
		}
	}
	return 0, nil
}

// Right takes back a try whose password was right.
func (t *Throttle) Right(ctx context.Context, client netip.Addr, account string) error {
	for _, c := range counts(client, account) {
		if err := t.counter.Uncount(ctx, c.key); err != nil {
			return err
		}
	}
	return nil
}

type counted struct {
	key string
	limit
}

func counts(client netip.Addr, account string) []counted {
	from, to := network(client), digest(account)
	return []counted{
		{"login:address:" + from, perAddress},
		{"login:pair:" + from + ":" + to, perPair},
		{"login:account:" + to, perAccount},
	}
}

// network is what one client can choose its addresses from: under IPv6 a /56, as
// homes get.
func network(client netip.Addr) string {
	client = client.Unmap().WithZone("")
	if client.Is6() {
		p, _ := client.Prefix(56) // no address has fewer bits
		return p.Addr().String()
	}
	return client.String()
}

// digest stands for the name of an account, which may be of any length, and may
// be a password that was typed into the wrong field.
func digest(account string) string {
	sum := sha256.Sum256([]byte(strings.ToLower(account)))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}
