package faults

import (
	"flag"
	"math/rand/v2"
	"regexp"
	"slices"
	"sync"
	"testing"
)

var (
	runsFlag   = flag.Int("faults.runs", 0, "runs of each kind; 0 is a short choice of kinds, one run of each")
	kindFlag   = flag.String("faults.kind", "", "regular expression of the kinds to run")
	seedFlag   = flag.Uint64("faults.seed", 0, "seed of the one run of each kind, to see it again; 0 picks some")
	atOnceFlag = flag.Int("faults.parallel", 1, "kinds that run at the same time, each on a system of its own, for machines with cores to spare")
	reportFlag = flag.String("faults.report", "", "file to write the table to, in Markdown")
)

// fault is one kind of it.
type fault struct {
	name   string
	strike func(*run) // breaks something, lasts, and heals it; what it leaves is to heal by itself

	settings map[string]string // of PostgreSQL
	flags    []string          // of the proxies
	sentinel bool              // Redis is one with Sentinels
	cluster  bool              // Redis is a cluster
	apart    bool              // listeners are processes of their own
	short    bool              // runs where nothing is asked for
}

// special reports whether the fault needs a system of its own.
func (f fault) special() bool {
	return len(f.settings)+len(f.flags) > 0 || f.sentinel || f.cluster || f.apart
}

// kinds are all faults.
func kinds() []fault {
	return slices.Concat(processFaults(), postgresFaults(), redisFaults(), logFaults(), severalFaults())
}

// chosen says how often a kind is to run.
func chosen(t *testing.T, f fault) int {
	t.Helper()
	kind, err := regexp.Compile(*kindFlag)
	if err != nil {
		t.Fatalf("-faults.kind: %v", err)
	}
	switch {
	case !kind.MatchString(f.name):
		return 0
	case *seedFlag != 0, *runsFlag == 0 && *kindFlag != "":
		return 1
	case *runsFlag == 0 && !f.short:
		return 0
	}
	return max(1, *runsFlag)
}

func TestFaults(t *testing.T) {
	programs, table := built(t), &report{kinds: map[string][]figures{}}
	next := make(chan fault)
	var group sync.WaitGroup
	for range *atOnceFlag {
		group.Go(func() {
			s := &suite{programs: programs, report: table}
			defer s.discard(t)
			for f := range next {
				t.Run(f.name, func(t *testing.T) { s.runAll(t, f, chosen(t, f)) })
				if err := table.write(*reportFlag); err != nil { // each time, since the whole takes hours
					t.Error(err)
				}
			}
		})
	}
	for _, f := range kinds() {
		if chosen(t, f) > 0 {
			next <- f
		}
	}
	close(next)
	group.Wait()
	t.Logf("\n%s", table)
}

// TestFaults_AreSeen lets proxies go on time alone, and wants that to be found
// out.
func TestFaults_AreSeen(t *testing.T) {
	f := fault{name: "no-coherence", strike: func(r *run) { r.strike("nothing") }, flags: []string{"--no-coherence"}}
	s := startSystem(t, built(t), f)
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	r := s.newRun(t, f, rand.Uint64())
	if figures := r.play(); figures.violations == 0 || figures.lost == 0 || figures.longest <= bound {
		t.Errorf("not seen: %s\n%s", figures, r.story())
	}
}

// suite is a system for one run after the other, until one has failed on it.
type suite struct {
	programs
	report *report
	system *system // nil if there is none yet
}

// runAll runs one kind.
func (s *suite) runAll(t *testing.T, f fault, runs int) {
	if f.special() {
		s.discard(t)
		defer s.discard(t)
	}
	for range runs {
		seed := *seedFlag
		if seed == 0 {
			seed = rand.Uint64()
		}
		if s.system == nil {
			s.system = startSystem(t, s.programs, f)
		}
		well := t.Run("", func(t *testing.T) {
			r := s.system.newRun(t, f, seed)
			figures := r.play()
			r.tell(figures)
			s.report.add(f.name, figures)
		})
		if !well {
			s.discard(t)
		}
	}
}

// discard ends the system, if there is one.
func (s *suite) discard(t *testing.T) {
	if s.system != nil {
		if err := s.system.close(); err != nil {
			t.Error(err)
		}
		s.system = nil
	}
}
