package service

import (
	"context"
	"debug/buildinfo"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"

	"crypto/sha256"

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
// it, as far as is known; see TestRelease_AnOlderOneIsNotStored.
type release struct {
	name  string
	pool  *pgxpool.Pool
	truth *coherence.Tracker // nil where nothing is followed
	seen  atomic.Pointer[newest]
}

// newest is what the table said, as of a position.
type newest struct {
	name string
	asOf coherence.Position
}

const releaseEvery = 50 * time.Millisecond

// run announces the release, and looks again whenever another was.
func (r *release) run(ctx context.Context, log *slog.Logger) error {
	every := time.NewTicker(releaseEvery)
	defer every.Stop()
	announced, troubled := false, false
	for {
		err := r.step(ctx, &announced)
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

func (r *release) step(ctx context.Context, announced *bool) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	q := db.New(r.pool)
	if !*announced {
		if _, err := q.AnnounceRelease(ctx, r.name); err != nil {
			return err
		}
		*announced = true
	}
	if r.holds() {
		return nil
	}
	asOf := r.stamp() // before it is read
	name, err := q.NewestRelease(ctx)
	if err == nil {
		r.seen.Store(&newest{name, asOf})
	}
	return err
}

func (r *release) stamp() coherence.Position {
	if r.truth == nil {
		return coherence.Position{}
	}
	return r.truth.Stamp()
}

// releases is what knowing the newest depends on.
var releases = coherence.Dependencies{coherence.TableFloor("releases"), coherence.Tag("releases").Hash(), coherence.TableFloor(coherence.Everything)}

// holds reports whether nothing is known to have changed since the table was
// read.
func (r *release) holds() bool {
	s := r.seen.Load()
	if s == nil {
		return false
	}
	if r.truth == nil {
		return true
	}
	verdict := r.truth.Judge(s.asOf, releases, time.Now())
	return verdict == coherence.Fresh || verdict == coherence.Unproven
}

// isNewest reports whether an answer made now may be stored.
func (r *release) isNewest() bool {
	s := r.seen.Load()
	return s != nil && s.name == r.name && r.holds()
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
