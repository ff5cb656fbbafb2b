package admin

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"walcache/proxy/coherence"
)

// Change is a record of the change stream, for people.
type Change struct {
	// ID grows by one from each to the next, and from one process to the next.
	ID       uint64      `json:"id"`
	At       time.Time   `json:"at"` // when this process knew of it
	Position string      `json:"position"`
	Tables   []TableRows `json:"tables"`
	// Tags that it moved, without the one that every change moves, and floors. Those
	// of rows and values have a name where a stored answer depended on them lately.
	Tags    []string `json:"tags"`
	Unnamed int      `json:"unnamed"` // how many more it moved
	// Delay is from the commit until At, null where it is not known, and where it
	// is below 0, since the clocks of two machines differ.
	Delay *float64 `json:"delay_ms"`
}

// TableRows is how many rows of a table changed.
type TableRows struct {
	Table string `json:"table"`
	Rows  int    `json:"rows"`
}

// keptChanges is how many are kept for whoever opens the page.
const keptChanges = 100

// changes are the last changes. One goroutine adds, any number read.
//
// Invariant: who adds never waits for who reads, and keeps keptChanges at most.
// A reader asks for what came after the one it had last, and finds by the IDs
// that some are missing. Kept by add and after, which hold mu for as long as
// they copy; see TestChanges_WhoIsSlowMissesSomeAndHoldsUpNobody.
type changes struct {
	mu          sync.Mutex // guards the following
	first, last uint64     // IDs: the first change has first + 1
	kept        [keptChanges]Change
	more        chan struct{} // closed when there is another; nil while nobody waits
}

// start gives the first change a number above all that a process before had,
// unless that saw more than a million changes a second.
func (c *changes) start(now time.Time) {
	c.first = uint64(now.UnixMicro())
	c.last = c.first
}

func (c *changes) add(change Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	change.ID = c.last
	c.kept[c.last%keptChanges] = change
	if c.more != nil {
		close(c.more)
		c.more = nil
	}
}

// after returns those kept that are newer than the one of an ID, oldest first,
// all of them if there was never such an ID, and a channel that is closed once
// there are more.
func (c *changes) after(id uint64) ([]Change, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.more == nil {
		c.more = make(chan struct{})
	}
	if id > c.last {
		id = 0
	}
	some := []Change{}
	for id = max(id, c.first, c.last-keptChanges) + 1; id <= c.last; id++ {
		some = append(some, c.kept[id%keptChanges])
	}
	return some, c.more
}

// Run remembers what changes, for whoever opens the page, until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	if s.sources.Tracker == nil {
		<-ctx.Done()
		return nil
	}
	n := namer{sources: s.sources}
	for seen := range s.sources.Tracker.Watch(ctx) {
		s.changes.add(n.describe(seen))
	}
	return nil
}

// namer puts records into words. It is used by one goroutine.
type namer struct {
	sources Sources
	catalog *coherence.Catalog        // that the following is of
	tables  map[coherence.Hash]string // names of tables and of their floors
	columns map[coherence.Hash]column // by their floors
}

type column struct{ table, column string }

func (n *namer) describe(seen coherence.Seen) Change {
	c := Change{At: seen.Known.UTC(), Position: seen.To.String(), Tables: make([]TableRows, len(seen.Tables))}
	for i, t := range seen.Tables {
		c.Tables[i] = TableRows{t.Table, t.Rows}
	}
	c.Tags, c.Unnamed = n.names(seen)
	if delay := seen.Known.Sub(seen.Committed); !seen.Committed.IsZero() && delay >= 0 {
		ms := float64(delay.Microseconds()) / 1000
		c.Delay = &ms
	}
	return c
}

// names are those of what a record moved: rows and values, then tables, then
// floors. One of several commits may move something twice.
func (n *namer) names(seen coherence.Seen) (names []string, unnamed int) {
	n.learn()
	unnamed = seen.More
	told, columns := map[coherence.Hash]bool{coherence.Any.Hash(): true}, map[string][]string{}
	for _, h := range seen.Hashes {
		if told[h] {
			continue
		}
		told[h] = true
		if c, ok := n.columns[h]; ok {
			columns[c.table] = append(columns[c.table], c.column)
		} else if name, ok := n.name(h); ok {
			names = append(names, name)
		} else {
			unnamed++
		}
	}
	for table, of := range columns { // a change that keeps its old row to itself raises all
		slices.Sort(of)
		names = append(names, "floor "+table+"/{"+strings.Join(of, ", ")+"}")
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a, b))
	})
	return append([]string{}, names...), unnamed
}

// rank sorts what says much before what says little.
func rank(name string) int {
	switch {
	case strings.HasPrefix(name, "floor "):
		return 2
	case strings.Contains(name, "/"):
		return 0
	}
	return 1
}

func (n *namer) name(h coherence.Hash) (string, bool) {
	if name, ok := n.tables[h]; ok {
		return name, true
	}
	if n.sources.Cache == nil {
		return "", false
	}
	tag, ok := n.sources.Cache.TagOf(h)
	return string(tag), ok
}

// learn spells out what needs no answer that names it: tables, and the floors of
// tables and columns, when there is another catalog.
func (n *namer) learn() {
	catalog := n.sources.Tracker.Catalog()
	if n.tables != nil && catalog == n.catalog {
		return
	}
	n.catalog = catalog
	n.tables = map[coherence.Hash]string{coherence.TableFloor(coherence.Everything): "floor *"}
	n.columns = map[coherence.Hash]column{}
	if catalog == nil {
		return
	}
	for table, of := range catalog.Tables {
		n.tables[coherence.TableTag(table).Hash()] = table
		n.tables[coherence.TableFloor(table)] = "floor " + table
		for name := range of.Columns {
			n.columns[coherence.ColumnFloor(table, name)] = column{table, name}
		}
	}
}
