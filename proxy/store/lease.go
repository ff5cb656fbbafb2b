package store

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// swap changes what a lease says, unless it says something that its caller does
// not expect. More of it than any lease has is not read.
//
// KEYS[1] is the lease. ARGV[1] is what it is expected to say beside nothing,
// ARGV[2] what it is to say, and ARGV[3] for how long, in ms. It returns what
// the lease says then: ARGV[2] if that is done.
var swap = redis.NewScript(`
local says = redis.call('GETRANGE', KEYS[1], 0, 255)
if says ~= '' and says ~= ARGV[1] then return says end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return ARGV[2]
`)

// Lease has the lease of a name, PREFIXlease:NAME, say something for a time, if
// it says from or nothing, and returns what it says then. ok is false if Redis
// refused, gave no answer within the budget of a Get, or is not asked: because it
// does not answer, or because no page would be written there.
func (r *Redis) Lease(name, from, to string, d time.Duration) (says string, ok bool) {
	if r.breaker.isOpen() || r.watch.full() {
		return "", false
	}
	ctx, cancel := context.WithTimeout(context.Background(), r.budget)
	defer cancel()
	key := r.leases + name
	says, err := swap.Run(ctx, r.client, []string{key}, from, to, d.Milliseconds()).Text()
	var refusal redis.Error
	switch {
	case err == nil:
		r.breaker.succeeded()
		return says, true
	case !errors.As(err, &refusal): // else it answers: out of memory, or of another type
		r.breaker.failed(key, err)
	}
	return "", false
}
