// Package doctor examines whether a database, a Redis and a service are fit for
// this proxy, before anybody depends on it.
//
//	PostgreSQL   server.go       version, settings, what is free
//	             rights.go       connections, the role, what it may do
//	             tables.go       the tables: publication.go, identity.go, values.go
//	             unseen.go       what no change stream carries
//	             slot.go         the slot, who holds it, and who holds things up
//	Redis        redis.go        role, memory, eviction, the way there
//	             commands.go     what its user may send
//	the service  upstream.go     whether it answers
//	             print.go        for people, scripts and psql
//
// Its promises:
//
//   - It changes nothing: its transactions are read-only, its replication
//     connection streams nothing, and what it tries in Redis is discarded.
//   - It always ends: every connection and every question has a deadline. A
//     server that is away is a finding, and the other checks go on.
//   - No secret is in a finding: neither passwords nor the text of anybody's
//     queries.
package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"walcache/proxy/replication"
)

// Config says what to examine.
type Config struct {
	// Listener is what the listener will be told. DatabaseURL, Slot and
	// Publication are needed.
	Listener replication.Config
	RedisURL string // "" if there is none
	Prefix   string // of every key in Redis
	Upstream string // URL of the service; "" leaves it alone
	limits   limits // the usual ones if zero
}

// Status is how a finding is to be taken.
type Status string

const (
	OK      Status = "ok"      // nothing has to be done; if there is a Fix, it is advice
	Warning Status = "warning" // the proxy works, and something of value is at risk
	Error   Status = "error"   // the proxy does not work, or hardly caches, or harms
)

// Finding is what one check found. The names in JSON are for scripts, and stay.
type Finding struct {
	Check  string `json:"check"` // such as postgres.wal_level
	Where  string `json:"where"` // the server
	Status Status `json:"status"`
	What   string `json:"what"`
	Why    string `json:"why,omitempty"` // why it matters
	Fix    string `json:"fix,omitempty"` // what to do about it
	// SQL is for an owner of the database to run, one statement or comment each.
	SQL []string `json:"sql,omitempty"`

	unknown bool // what it is about, and may be SQL, could not be asked
}

// Report is what was found, in the order of asking.
type Report []Finding

// Count returns how many findings have the status.
func (r Report) Count(s Status) (n int) {
	for _, f := range r {
		if f.Status == s {
			n++
		}
	}
	return n
}

// NeedsAction reports whether somebody has to do something.
func (r Report) NeedsAction() bool { return r.Count(OK) < len(r) }

// Incomplete says why the SQL of the findings may not be all that is needed, or
// "" if it is.
func (r Report) Incomplete() string {
	for _, f := range r {
		if f.unknown {
			return f.name() + ": " + f.What
		}
	}
	return ""
}

// limits are what a check compares with. Tests choose others.
type limits struct {
	patience    time.Duration // bounds connecting, and each question
	total       time.Duration // bounds all questions to one server
	transaction time.Duration // a transaction open for longer than this is told
	roundTrip   time.Duration // of Redis
}

var usual = limits{patience: 5 * time.Second, total: time.Minute, transaction: time.Minute, roundTrip: 20 * time.Millisecond}

// Examine asks everything. It takes a few round trips where all is well, and a
// few minutes at the very most. Ending ctx ends it early, with what is known.
func Examine(ctx context.Context, config Config) (r Report) {
	if config.limits == (limits{}) {
		config.limits = usual
	}
	for _, server := range []func(context.Context, Config) Report{examinePostgres, examineRedis, examineUpstream} {
		ctx, cancel := context.WithTimeout(ctx, config.limits.total)
		r = append(r, server(ctx, config)...)
		cancel()
	}
	return r
}

// notes collects what is found at one server.
type notes struct {
	config Config
	server string // the first part of a check's name
	where  string
	report Report
}

func (n *notes) add(check string, f Finding) {
	f.Check, f.Where = n.server+"."+check, n.where
	n.report = append(n.report, f)
}

func (n *notes) ok(check, format string, args ...any) {
	n.add(check, Finding{Status: OK, What: fmt.Sprintf(format, args...)})
}

// unasked notes a question that got no answer.
func (n *notes) unasked(check string, err error) {
	n.add(check, Finding{unknown: n.server == "postgres", Status: Warning, What: "not told: " + oneLine(err.Error()),
		Why: "what could not be asked may be wrong", Fix: "ask again once the reason it names is gone"})
}

// check is one question, or a few that belong together.
type check struct {
	name string
	ask  func(context.Context) error
}

// run asks one thing after another; alive says whether there is somebody left
// to ask.
func (n *notes) run(ctx context.Context, checks []check, alive func() bool) {
	for _, c := range checks {
		within, cancel := context.WithTimeout(ctx, 2*n.config.limits.patience) // the server itself gives up after one
		err := c.ask(within)
		cancel()
		if err != nil {
			n.unasked(c.name, err)
		}
		if !alive() {
			return
		}
	}
}

// oneLine writes what servers and drivers say in several lines as one.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// names lists a few names, and how many more there are.
func names(all []string) string {
	const most = 8
	if len(all) <= most {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:most], ", "), len(all)-most)
}

// count writes a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
