package faults

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// figures are what one run has shown.
type figures struct {
	longest    time.Duration // staleness of any answer
	violations int
	errors     int           // that clients of proxies saw that were no victims
	cut        int           // and clients of victims
	back       time.Duration // from the fault until proxies that were no victims had hits again; if all were, until all had
	before     float64
	after      float64
	lost       int
	takeOver   time.Duration // 0 if nobody had to
}

// sum judges what was seen.
func (r *run) sum(before, after map[*proxy]float64, lost int) figures {
	f := figures{before: mean(before), after: mean(after), lost: lost}
	for _, s := range r.suspects {
		if why := r.sentence(s); why != "" {
			f.violations++
			r.complain(why)
		}
	}
	f.longest = r.longest
	for _, p := range r.proxies {
		failed := 0
		why := tally{}
		for _, a := range r.answers[p] {
			if a.err != nil {
				failed++
				why[a.err.Error()]++
			}
		}
		if r.victims[p] {
			f.cut += failed
		} else {
			f.errors += failed
		}
		if failed > 0 {
			r.note("%d errors at %s: %s", failed, p.name, why)
		}
		if !r.victims[p] || len(r.victims) == len(r.proxies) {
			f.back = max(f.back, r.back(p, before[p]/2))
		}
	}
	f.takeOver = r.tookOver()
	if err := r.broken(); err != nil {
		r.complain(err.Error())
	}
	return f
}

// tell says what came of a run; what is wrong fails it.
func (r *run) tell(f figures) {
	const told = 10
	for i, what := range r.wrong {
		if i == told {
			r.Errorf("and %d more", len(r.wrong)-told)
			break
		}
		r.Error(what)
	}
	r.note("%d commits, %d transactions refused, %d answers", r.commits.Load(), r.refused.Load(), r.count())
	if len(r.wrong) > 0 {
		r.Log(r.story())
	}
	r.Logf("%s, seed %d: %s\n%s", r.fault.name, r.seed, f, strings.Join(r.schedule, "\n"))
}

func (f figures) String() string {
	return fmt.Sprintf("longest staleness %s, %d violations, %d errors (%d at victims), hits back after %s, hit ratio %.0f%% / %.0f%%, lost %d, take-over %s",
		f.longest.Round(time.Millisecond), f.violations, f.errors, f.cut, f.back.Round(10*time.Millisecond), 100*f.before, 100*f.after, f.lost, f.takeOver.Round(10*time.Millisecond))
}

// count is how many answers there were.
func (r *run) count() (n int) {
	for _, answers := range r.answers {
		n += len(answers)
	}
	return n
}

// binWidth is how long the time is over which a hit ratio is taken to see when
// hits are back.
const binWidth = 250 * time.Millisecond

type bin struct{ asked, hits int }

func (b bin) atLeast(ratio float64) bool {
	return b.asked > 0 && float64(b.hits) >= ratio*float64(b.asked)
}

// bins are a proxy's answers by the time that they were asked for, from the
// run's beginning to some moment.
func (r *run) bins(p *proxy, until time.Time) []bin {
	r.mu.Lock()
	defer r.mu.Unlock()
	bins := make([]bin, until.Sub(r.began)/binWidth)
	for _, a := range r.answers[p] {
		if i := int(a.sent.Sub(r.began) / binWidth); i < len(bins) {
			bins[i].asked++
			if a.hit() {
				bins[i].hits++
			}
		}
	}
	return bins
}

// awaitHits waits until each proxy answers from what it has stored, for a while
// without a break.
func (r *run) awaitHits(when string, ratio func(*proxy) float64) {
	r.Helper()
	first := int(time.Since(r.began) / binWidth)
	told, giveUp := time.Now(), time.Now().Add(patience)
	for _, p := range r.proxies {
		for !r.warm(p, first, ratio(p)) {
			if time.Since(told) > 2*time.Second {
				told = time.Now()
				r.note("%s has no hits yet: %s", p.name, r.reasons(p, told.Add(-time.Second)))
			}
			if time.Now().After(giveUp) {
				r.must(fmt.Errorf("%s: hits of %s do not come back", when, p.name))
			}
			time.Sleep(binWidth / 5)
		}
	}
}

// warm reports whether the last bins, from the first on, had that many hits.
func (r *run) warm(p *proxy, first int, ratio float64) bool {
	const good = 3
	bins := r.bins(p, time.Now().Add(-binWidth/2))
	return len(bins) >= first+good &&
		!slices.ContainsFunc(bins[len(bins)-good:], func(b bin) bool { return !b.atLeast(ratio) })
}

// reasons counts why answers since a moment were no hits.
func (r *run) reasons(p *proxy, from time.Time) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	count := tally{}
	for _, a := range r.answers[p] {
		switch {
		case a.sent.Before(from) || a.hit():
		case a.err != nil:
			count[a.err.Error()]++
		default:
			count[a.cacheStatus]++
		}
	}
	return count.String()
}

// tally counts things by name.
type tally map[string]int

// String is what there is most of.
func (t tally) String() string {
	names := slices.SortedFunc(maps.Keys(t), func(a, b string) int { return cmp.Or(t[b]-t[a], cmp.Compare(a, b)) })
	var b strings.Builder
	for _, name := range names[:min(3, len(names))] {
		fmt.Fprintf(&b, " %d × %s;", t[name], name)
	}
	return strings.Trim(b.String(), " ;")
}

// back is the end of the last bin since the fault that had fewer hits than that.
func (r *run) back(p *proxy, ratio float64) (back time.Duration) {
	struck := r.struck.Sub(r.began)
	for i, b := range r.bins(p, time.Now()) {
		if end := time.Duration(i+1) * binWidth; end > struck && b.asked > 0 && !b.atLeast(ratio) {
			back = end - struck
		}
	}
	return back
}

// tookOver is the longest time from when a leader was hit until another led; 0
// if that never came to pass.
func (r *run) tookOver() (longest time.Duration) {
	for p, at := range r.hit {
		if next := r.takenOver(p, at); r.led(p, at) && !next.IsZero() {
			longest = max(longest, next.Sub(at))
		}
	}
	return longest
}

// led reports whether a proxy was the leader at some moment.
func (r *run) led(p *proxy, at time.Time) bool {
	var leader *proxy
	for _, t := range r.tenures {
		if t.from.Before(at) {
			leader = t.proxy
		}
	}
	return leader == p
}

// ratio of hits since a moment.
func (r *run) ratio(p *proxy, from time.Time) float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	asked, hits := 0, 0
	for _, a := range r.answers[p] {
		if a.sent.After(from) {
			asked++
			if a.hit() {
				hits++
			}
		}
	}
	return float64(hits) / float64(max(1, asked))
}

func mean(of map[*proxy]float64) (sum float64) {
	for _, v := range of {
		sum += v / float64(len(of))
	}
	return sum
}

func percents(proxies []*proxy, of map[*proxy]float64) string {
	var b strings.Builder
	for _, p := range proxies {
		fmt.Fprintf(&b, " %s %.0f%%", p.name, 100*of[p])
	}
	return strings.TrimSpace(b.String())
}

// report is the table of all kinds.
type report struct {
	writing sync.Mutex // held while the file is written

	mu    sync.Mutex // guards the following
	kinds map[string][]figures
}

func (t *report) add(kind string, f figures) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kinds[kind] = append(t.kinds[kind], f)
}

// String is the table in Markdown.
func (t *report) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	b.WriteString("| fault | runs | longest staleness | violations | client errors, p50 / max | at the proxies hit, max | hits back, p50 / max | hit ratio before / after | lost changes | take-over, p50 / max |\n")
	b.WriteString("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, f := range kinds() {
		if runs := t.kinds[f.name]; len(runs) > 0 {
			b.WriteString(line(f.name, runs))
		}
	}
	return b.String()
}

func line(name string, runs []figures) string {
	takeOver := "–"
	takeOvers := slices.DeleteFunc(each(runs, func(f figures) time.Duration { return f.takeOver }), func(d time.Duration) bool { return d == 0 })
	if len(takeOvers) > 0 {
		takeOver = fmt.Sprintf("%s / %s (%d runs)", seconds(middle(takeOvers)), seconds(most(takeOvers)), len(takeOvers))
	}
	sum := func(what func(figures) int) (n int) {
		for _, f := range runs {
			n += what(f)
		}
		return n
	}
	errors, back := each(runs, func(f figures) int { return f.errors }), each(runs, func(f figures) time.Duration { return f.back })
	return fmt.Sprintf("| %s | %d | %s | %d | %d / %d | %d | %s / %s | %.0f%% / %.0f%% | %d | %s |\n", name, len(runs),
		seconds(most(each(runs, func(f figures) time.Duration { return f.longest }))),
		sum(func(f figures) int { return f.violations }), middle(errors), most(errors),
		most(each(runs, func(f figures) int { return f.cut })), seconds(middle(back)), seconds(most(back)),
		100*middle(each(runs, func(f figures) float64 { return f.before })), 100*middle(each(runs, func(f figures) float64 { return f.after })),
		sum(func(f figures) int { return f.lost }), takeOver)
}

func each[T any](runs []figures, what func(figures) T) []T {
	values := make([]T, len(runs))
	for i, f := range runs {
		values[i] = what(f)
	}
	return values
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

// write keeps what there is so far in a file, if one was asked for.
func (t *report) write(path string) error {
	if path == "" {
		return nil
	}
	t.writing.Lock()
	defer t.writing.Unlock()
	return os.WriteFile(path, []byte(t.String()), 0o644)
}
