package admin

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"time"

	"walcache/proxy/cache"
	"walcache/proxy/changelog"
	"walcache/proxy/guard"
	"walcache/proxy/replication"
	"walcache/proxy/store"
)

// Status is what /status answers. Positions are LSNs as PostgreSQL writes them,
// durations seconds, sizes bytes.
type Status struct {
	Uptime    float64           `json:"uptime_seconds"`
	Coherence *Coherence        `json:"coherence"`  // null for an ordinary cache
	Log       *changelog.Status `json:"change_log"` // null for a process that shares none
	Memory    MemoryStatus      `json:"memory"`
	Pages     *store.RedisStats `json:"redis_pages"` // null without Redis
	Cache     cache.Stats       `json:"cache"`
	Refused   map[string]uint64 `json:"requests_refused"` // before anything was asked, by reason
	Tables    []Table           `json:"tables"`           // by hits turned into misses, worst first
	Worst     string            `json:"worst_table,omitempty"`
}

// Coherence is what the proxy knows of the database.
type Coherence struct {
	State        string   `json:"state"`
	Reason       string   `json:"reason,omitempty"`
	Vouches      bool     `json:"vouches"`
	Off          bool     `json:"off"`                     // switched off by an operator
	FreshAge     *float64 `json:"fresh_as_of_age_seconds"` // null before the first proof
	Epoch        string   `json:"epoch"`
	EpochReason  string   `json:"epoch_reason"`
	Epochs       int      `json:"epochs"`
	Known        string   `json:"known"`
	Visible      string   `json:"visible"`
	Confirmed    string   `json:"confirmed"`
	Slot         *Slot    `json:"slot"`
	TrackerSlots int      `json:"tracker_slots"`
	TrackerUsed  int      `json:"tracker_slots_used"`
	Blind        []string `json:"blind_tables"`
	Unlogged     []string `json:"unlogged_tables"`
	Widened      uint64   `json:"messages_not_understood"`
}

// Slot is the replication slot.
type Slot struct {
	Name        string `json:"name"`
	ActivePID   int32  `json:"active_pid"`
	WALStatus   string `json:"wal_status"`
	RetainedWAL int64  `json:"retained_wal_bytes"`
}

// MemoryStatus is the store in this process.
type MemoryStatus struct {
	Pages int    `json:"pages"`
	Bytes uint64 `json:"bytes"`
}

// Table is what a table's changes cost.
type Table struct {
	Name   string `json:"name"`
	Rows   uint64 `json:"rows_changed"`
	Misses uint64 `json:"hits_turned_into_misses"`
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	guard.WriteJSON(w, http.StatusOK, s.read())
}

func (s *Server) read() Status {
	st := Status{Uptime: time.Since(s.began).Seconds(), Refused: map[string]uint64{}, Tables: []Table{}}
	if s.sources.Refused != nil {
		st.Refused = s.sources.Refused.Refused()
	}
	if s.sources.Cache != nil {
		st.Cache = s.sources.Cache.Stats()
		st.Memory = MemoryStatus{Pages: s.sources.Memory.Pages(), Bytes: s.sources.Memory.Bytes()}
	}
	if s.sources.Pages != nil {
		stats := s.sources.Pages.Stats()
		st.Pages = &stats
	}
	if s.sources.Tracker == nil {
		return st
	}
	if s.sources.Records != nil && s.sources.Records.Shared() {
		status := s.sources.Records.Status()
		st.Log = &status
	}
	st.Coherence = s.coherence()
	rows := s.sources.Tracker.Progress(time.Now()).Rows
	names := maps.Clone(rows)
	maps.Copy(names, st.Cache.Turned)
	for name := range names {
		st.Tables = append(st.Tables, Table{Name: name, Rows: rows[name], Misses: st.Cache.Turned[name]})
	}
	slices.SortFunc(st.Tables, func(a, b Table) int {
		return cmp.Or(cmp.Compare(b.Misses, a.Misses), cmp.Compare(b.Rows, a.Rows), cmp.Compare(a.Name, b.Name))
	})
	if len(st.Tables) > 0 && st.Tables[0].Misses > 0 {
		st.Worst = st.Tables[0].Name
	}
	return st
}

func (s *Server) coherence() *Coherence {
	now := time.Now()
	p, l := s.sources.Tracker.Progress(now), replication.Status{State: "following"}
	if s.sources.Listener != nil {
		l = s.sources.Listener.Status()
	} else if catalog := s.sources.Tracker.Catalog(); catalog != nil {
		l.Blind = catalog.Blind
	}
	c := &Coherence{
		State: l.State, Reason: l.Reason, Vouches: s.vouches(), Off: s.off(),
		Epoch: p.Epoch, EpochReason: l.Began, Epochs: l.Epochs,
		Known: p.Known.String(), Visible: p.Visible.String(), Confirmed: l.Confirmed.String(),
		TrackerSlots: p.Slots, TrackerUsed: p.Used,
		Blind: list(l.Blind), Unlogged: list(l.Unlogged), Widened: l.Widened,
	}
	if p.FreshAge >= 0 {
		age := p.FreshAge.Seconds()
		c.FreshAge = &age
	}
	if l.Slot != nil {
		// Before the first confirmation of this process there is the one that
		// the slot began with.
		c.Confirmed = max(l.Confirmed, l.Slot.Confirmed).String()
		c.Slot = &Slot{Name: l.Slot.Name, ActivePID: l.Slot.ActivePID, WALStatus: l.Slot.WALStatus, RetainedWAL: l.Slot.Retained}
	}
	return c
}

// off reports whether an operator has switched caching off.
func (s *Server) off() bool {
	catalog := s.sources.Tracker.Catalog()
	return catalog != nil && catalog.Off
}

// list makes JSON write none as [] and not as null.
func list(names []string) []string { return append([]string{}, names...) }
