package service

import (
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"walcache/backend/db"
	"walcache/proxy/coherence"
)

// release says whether this is the newest release that has answered requests.
//
// A release is a row: every answer depends on the table, so that the first start
// of a new one makes all older answers stale, in the ordinary way. That leaves
// those of an older process that goes on beside the new one:
//
//  1. A new release starts, and what the old one has answered is stale.
//  2. The old one, which is still to be stopped, answers a request.
//  3. The answer is stored, and stays when the old one is gone.
//
// So an answer may be stored only while the newest release is the one that made
// it, as far as is known; see TestRelease_AnOlderOneIsNotStored. Who follows the
// change log knows at once; who follows nothing, or has lost it, looks ten times a
// second, and what it stores between 1 and its look is ended by a second
// announcement, which comes once everybody has looked, if there is anybody.
//
// A release that was announced and runs no more, because it was tried and taken
// back, or came back for a moment during a roll-out, gives way to one that runs;
// see TestRelease_OneThatRunsNoMoreGivesWay.
type release struct {
	name  string
	pool  *pgxpool.Pool
	truth *coherence.Tracker // nil where nothing is followed
	seen  atomic.Pointer[newest]

	// The rest is run's.
	announced time.Time // zero until then
	repeat    bool      // it is to be announced a second time
	idle      int       // looks in a row at which nobody of the newest release was there
}

// newest is what the table said, as of a position and a time.
type newest struct {
	name string
	asOf coherence.Position
	at   time.Time
}

const (
	releaseEvery = 100 * time.Millisecond
	// lookHolds is how long a look counts where no change would be heard of.
	lookHolds = time.Second
	// repeatAfter is when everybody has looked, or counts on its look no more.
	repeatAfter = 3 * time.Second
	// idleLooks is how often nobody of the newest release is there before it gives
	// way.
	idleLooks = 20
)

// run announces the release, and looks again whenever another was.
func (r *release) run(ctx context.Context, log *slog.Logger) error {
	every := time.NewTicker(releaseEvery)
	defer every.Stop()
	troubled := false
	for {
		err := r.step(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !troubled:
			log.Warn("the release cannot be announced; it is tried again", "release", r.name, "error", err)
		case err == nil && troubled:
			log.Info("the release is announced", "release", r.name)
		}
		troubled = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
	}
}

func (r *release) step(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	q := db.New(r.pool)
	if r.announced.IsZero() {
		if err := r.announce(ctx, q); err != nil {
			return err
		}
	}
	if r.repeat && time.Since(r.announced) > repeatAfter {
		if err := q.AnnounceReleaseAgain(ctx, r.name); err != nil {
			return err
		}
		r.repeat = false
	}
	if !r.holds() {
		if err := r.look(ctx, q); err != nil {
			return err
		}
	}
	return r.giveWay(ctx, q)
}

func (r *release) announce(ctx context.Context, q *db.Queries) error {
	others, err := r.connected(ctx, "<> $1 AND application_name LIKE 'backend %'", r.name)
	if err != nil {
		return err
	}
	changed, err := q.AnnounceRelease(ctx, r.name)
	if err == nil {
		r.announced, r.repeat, r.idle = time.Now(), changed > 0 && others, 0
	}
	return err
}

// connected reports whether a release, or any other than that, has a connection.
// What this role may not see is NULL, and may be one.
func (r *release) connected(ctx context.Context, which, name string) (found bool, err error) {
	err = r.pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND (application_name "+which+" OR application_name IS NULL))",
		connectionName(name)).Scan(&found)
	return found, err
}

func (r *release) look(ctx context.Context, q *db.Queries) error {
	asOf, at := coherence.Position{}, time.Now() // before it is read
	if r.truth != nil {
		asOf = r.truth.Stamp()
	}
	name, err := q.NewestRelease(ctx)
	if err == nil {
		r.seen.Store(&newest{name, asOf, at})
	}
	return err
}

// giveWay has this release announced again where the newest runs no more.
func (r *release) giveWay(ctx context.Context, q *db.Queries) error {
	s := r.seen.Load()
	if s.name == r.name {
		r.idle = 0
		return nil
	}
	runs, err := r.connected(ctx, "= $1", s.name)
	if err != nil {
		return err
	}
	if r.idle++; runs {
		r.idle = 0
	}
	if r.idle < idleLooks {
		return nil
	}
	return r.announce(ctx, q)
}

// releases is what knowing the newest depends on.
var releases = coherence.Dependencies{coherence.TableFloor("releases"), coherence.Tag("releases").Hash(), coherence.TableFloor(coherence.Everything)}

func (r *release) judge(s *newest) coherence.Verdict {
	if r.truth == nil {
		return coherence.Unproven
	}
	return r.truth.Judge(s.asOf, releases, time.Now())
}

// holds reports whether nothing has changed since the last look, by what the
// change log says.
func (r *release) holds() bool {
	s := r.seen.Load()
	return s != nil && r.judge(s) == coherence.Fresh
}

// isNewest reports whether an answer made now may be stored.
func (r *release) isNewest() bool {
	s := r.seen.Load()
	if s == nil || s.name != r.name {
		return false
	}
	switch r.judge(s) {
	case coherence.Fresh:
		return true
	case coherence.Unproven:
		return time.Since(s.at) < lookHolds
	}
	return false
}

// connectionName is the application_name of a release's connections.
func connectionName(release string) string {
	const longest = 63 // PostgreSQL documentation, "application_name"
	name := "backend " + release
	return name[:min(len(name), longest)]
}

// buildID tells builds apart where nobody has named them: by the revision, or
// by the program itself where that says nothing.
func buildID() (string, error) {
	if info, ok := debug.ReadBuildInfo(); ok {
		if revision, clean := vcs(info); clean {
			return revision, nil
		}
	}
	path, err := os.Executable()
	if err != nil {
		return "", err
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", errors.Join(errors.New("read the program"), err)
	}
	return hex.EncodeToString(sum.Sum(nil)[:10]), nil
}

// vcs is the revision that a program was built from, and whether it was built
// from nothing else.
func vcs(info *buildinfo.BuildInfo) (revision string, clean bool) {
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value
		case "vcs.modified":
			clean = s.Value == "false"
		}
	}
	return revision, clean && revision != ""
}
