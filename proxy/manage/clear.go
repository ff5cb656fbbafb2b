package manage

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"walcache/proxy/changelog"
	"walcache/proxy/coherence"
	"walcache/proxy/guard"
	"walcache/proxy/querysets"
	"walcache/proxy/redisurl"
)

// Done says that a message in the change stream has taken effect. It has a
// position and an order like any commit, so that every process comes by it, and a
// fetch under way when it was sent is no exception.
type Done struct {
	Did      string   `json:"did"`
	Position string   `json:"position"`
	Applied  bool     `json:"applied"`   // on this process
	All      bool     `json:"all"`       // on every process that is alive; false where nobody asked
	Behind   []string `json:"behind"`    // those on which it is not yet
	Took     float64  `json:"took_secs"` // from the message to this answer
}

// doneWithin bounds how long an operator waits until something is done
// everywhere.
const doneWithin = 10 * time.Second

// Do puts a line into the change stream, and returns once it is known here, and
// if everywhere, on every process; at the latest ten seconds later. Who is behind
// then is no error. There have to be an announcer and records.
func (s Sources) Do(ctx context.Context, line string, everywhere bool) (Done, error) {
	ctx, cancel := context.WithTimeout(ctx, doneWithin)
	defer cancel()
	began := time.Now()
	at, err := s.announce(ctx, line)
	if err != nil {
		return Done{}, err
	}
	return s.spread(ctx, line, at, began, everywhere)
}

// announce returns once a line is known here.
func (s Sources) announce(ctx context.Context, line string) (coherence.LSN, error) {
	at, err := s.Announcer.Announce(ctx, line)
	if err != nil {
		return 0, fmt.Errorf("%s: not sent: %w", line, err)
	}
	if err := s.Records.Wait(ctx, at); err != nil {
		return 0, fmt.Errorf("%s: sent, and not yet known to this process: %w", line, err)
	}
	return at, nil
}

// spread waits for the other processes, if everywhere, and says where a line that
// is known here has been done.
func (s Sources) spread(ctx context.Context, line string, at coherence.LSN, began time.Time, everywhere bool) (Done, error) {
	done := Done{Did: line, Position: at.String(), Applied: true, Behind: []string{}}
	if everywhere {
		behind, err := s.Records.WaitAll(ctx, at)
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return done, fmt.Errorf("%s: done here; whether elsewhere is not known: %w", line, err)
		}
		done.All, done.Behind = err == nil, names(behind)
	}
	done.Took = time.Since(began).Seconds()
	return done, nil
}

func names(members []changelog.Member) []string {
	list := []string{}
	for _, m := range members {
		list = append(list, m.Name)
	}
	return list
}

// Cleared is what cache-clear answers.
type Cleared struct {
	Success   bool           `json:"success"`
	Message   string         `json:"message"`
	Details   ClearedDetails `json:"details"`
	Timestamp string         `json:"timestamp"`

	Done
	Stale Stored `json:"pages_made_stale"` // about; in memory those of this process
	Error string `json:"error,omitempty"`
	Try   string `json:"try,omitempty"`
}

// ClearedDetails says of each queryset that people ask for whether it was there.
type ClearedDetails struct {
	Success bool           `json:"success"`
	Caches  []ClearedCache `json:"cleared_caches"`
	Errors  []string       `json:"errors"`
	Total   int            `json:"total_cleared"`
}

// ClearedCache is a queryset.
type ClearedCache struct {
	Name    string `json:"name"`
	Key     string `json:"key"`
	Cleared *bool  `json:"cleared"` // it was there; null if that is not known
}

// clear makes everything stale that is kept, on every process, by a message in
// the change stream: what is being fetched meanwhile is stale from birth. The
// memory is given back afterwards.
//
// An ordinary cache cannot do that. It would remove what this process has, and
// an answer on its way would be stored a moment later, as those of other
// processes would in Redis: it would say that all is cleared, and serve what was
// there before for as long as its time lasts. So it says what does help.
func (m *Manager) clear(w http.ResponseWriter, r *http.Request) {
	if m.Announcer == nil || m.Records == nil {
		guard.WriteJSON(w, http.StatusServiceUnavailable, guard.Problem(
			"this process has no database to tell the others through, and what is being fetched now would outlive a clear", m.instead()))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), doneWithin)
	defer cancel()
	began := time.Now()
	c := Cleared{Timestamp: began.UTC().Format(stamp), Done: Done{Behind: []string{}}}
	c.Details, c.Stale = m.there(ctx), m.stored(ctx) // as of before
	at, err := m.announce(ctx, "floor "+coherence.Everything)
	if err != nil {
		c.undone()
	} else {
		m.free(at)
		c.Done, err = m.spread(ctx, "floor "+coherence.Everything, at, began, r.URL.Query().Get("wait") == "all")
	}
	if err != nil {
		c.Details.Errors = append([]string{err.Error()}, c.Details.Errors...)
		c.Try = "see /status on the admin port for what the listener says, and ask again"
	} else if len(c.Details.Errors) > 0 {
		c.Try = "all that is kept is stale since " + c.Position + "; ask again when Redis answers, to have its memory back"
	}
	c.answer(w)
}

// undone takes back what would have been cleared: that is not known.
func (c *Cleared) undone() {
	c.Stale, c.Details.Total = Stored{}, 0
	for i := range c.Details.Caches {
		c.Details.Caches[i].Cleared = nil
	}
}

// instead is what helps where nothing can be announced.
func (m *Manager) instead() string {
	switch {
	case m.Tracker != nil:
		return "ask a process that was given --database-url (DATABASE_URL)"
	case m.RedisURL != "":
		return "give it --database-url (DATABASE_URL), or stop every process, remove " + m.RedisPrefix + "page:* from Redis, and start them again"
	}
	return "give it --database-url (DATABASE_URL), or restart it"
}

// there says which of the known querysets are kept.
func (m *Manager) there(ctx context.Context) ClearedDetails {
	d := ClearedDetails{Caches: []ClearedCache{}, Errors: []string{}}
	for _, name := range querysets.Known {
		c := ClearedCache{Name: strings.ToUpper(name), Key: name}
		if len(d.Errors) == 0 {
			n, err := m.exists(ctx, m.RedisPrefix+"qs:"+name)
			if err != nil {
				d.Errors = append(d.Errors, m.away(err))
			} else {
				c.Cleared = new(n > 0)
			}
			d.Total += int(n)
		}
		d.Caches = append(d.Caches, c)
	}
	return d
}

// exists is how many keys of a name there are: one or none.
func (m *Manager) exists(ctx context.Context, key string) (int64, error) {
	if m.redis == nil {
		return 0, nil
	}
	return m.redis.Exists(ctx, key).Result()
}

// away says that Redis does not answer.
func (m *Manager) away(err error) string {
	return "Redis at " + redisurl.Address(m.RedisURL) + ": " + err.Error()
}

// answer answers with an error if there was one: that of the announcement, or else
// that of Redis.
func (c *Cleared) answer(w http.ResponseWriter) {
	status := http.StatusOK
	c.Success, c.Message = true, "Property cache cleared successfully"
	if len(c.Details.Errors) > 0 {
		status, c.Success, c.Message, c.Error = http.StatusServiceUnavailable, false, "Errors occurred while clearing cache", c.Details.Errors[0]
	}
	c.Details.Success = c.Success
	guard.WriteJSON(w, status, c)
}

// LastClear is how far the memory is free that the last clear gives back.
type LastClear struct {
	At       string `json:"at"`
	Position string `json:"position"`
	Freed    Freed  `json:"freed"`
	Done     bool   `json:"done"`
	Error    string `json:"error,omitempty"` // why it is not all
}

// Freed is memory that was given back: pages and bytes of this process, keys of
// pages and of querysets that all share.
type Freed struct {
	Pages uint64 `json:"memory_pages"`
	Bytes uint64 `json:"memory_bytes"`
	Keys  int64  `json:"redis_keys"`
}

// freeing gives memory back, for one clear at a time.
type freeing struct {
	ended   sync.WaitGroup // of the one that runs
	mu      sync.Mutex     // guards the following
	running bool
	last    *LastClear // that of the last clear, nil before the first
}

// free gives memory back in the background. It ends by itself, at the latest when
// the connections to Redis are closed.
//
// Who asks while another is at it starts no second one: the first goes on until
// there is no clear that it has not begun after.
func (m *Manager) free(at coherence.LSN) {
	f := &m.freeing
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = &LastClear{At: time.Now().UTC().Format(stamp), Position: at.String()}
	if !f.running {
		f.running = true
		f.ended.Go(func() { m.keepFreeing(f) })
	}
}

func (m *Manager) keepFreeing(f *freeing) {
	for {
		f.mu.Lock()
		l := f.last
		if l.Done {
			f.running = false
			f.mu.Unlock()
			return
		}
		f.mu.Unlock()
		m.freeOnce(f, l)
	}
}

// freeOnce gives back what can be of no use since a clear.
func (m *Manager) freeOnce(f *freeing, l *LastClear) {
	var freed Freed
	if m.Cache != nil {
		pages, bytes := m.Cache.Free()
		freed.Pages, freed.Bytes = uint64(pages), bytes
	}
	f.change(func() { l.Freed = freed })
	var problem string
	if m.redis != nil {
		kinds := []querysets.Kind{querysets.Querysets}
		if m.Cache == nil || !m.Cache.ServesChanged() {
			kinds = append(kinds, querysets.Pages)
		}
		removed, err := querysets.Clear(context.Background(), m.redis, m.RedisPrefix, kinds...)
		freed.Keys = removed[querysets.Querysets] + removed[querysets.Pages]
		if err != nil {
			problem = m.away(err)
		}
	}
	f.change(func() { l.Freed, l.Error, l.Done = freed, problem, true })
	if problem != "" {
		m.Log.Warn("memory of a clear stays in Redis", "position", l.Position, "error", problem)
	}
	m.Log.Info("cleared", "position", l.Position, "memory_pages", freed.Pages, "memory_bytes", freed.Bytes, "redis_keys", freed.Keys)
}

func (f *freeing) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

// lastClear is a copy.
func (m *Manager) lastClear() *LastClear {
	f := &m.freeing
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.last == nil {
		return nil
	}
	l := *f.last
	return &l
}
