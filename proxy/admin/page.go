package admin

import (
	"bytes"
	"cmp"
	"context"
	"embed"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"time"

	"walcache/proxy/cache"
	"walcache/proxy/changelog"
	"walcache/proxy/web"
)

// view is what every page is made of.
type view struct {
	Title string
	Body  any // of the page itself
}

// operator is the body of the operator's page.
type operator struct {
	standing
	Said    *outcome
	Changes []Change // the latest first
	Last    uint64   // ID of the latest
}

// standing is how things stand, and what is renewed while the page is looked at.
type standing struct {
	At time.Time
	Status
	Verdict verdict
	Caches  bool // it answers requests
	Missed  uint64
	Members []member
	Hits    times
	Misses  times
	Hottest []cache.Requested
	Routes  []cache.RouteStats
	Done    []outcome
}

// verdict says in one sentence whether answers can be relied on.
type verdict struct {
	Kind     string // well, warned or ill: the colour, which the words do without
	Word     string
	Sentence string
}

// times are how long requests took, since the process began.
type times struct {
	Total    uint64
	P50, P99 time.Duration
}

// member is a process of the cluster.
type member struct {
	changelog.Member
	ID      string
	This    bool
	Behind  uint64 // bytes of WAL that this process knows of and it does not
	Current bool   // it is of the same epoch
}

const (
	hottest = 50
	// memberTimeout bounds how long the page waits for Redis to say who else is
	// there.
	memberTimeout = 300 * time.Millisecond
)

// partNames are the templates, and the elements, that are renewed.
var partNames = []string{"verdict", "switch", "figures", "answers", "keys", "routes", "tables", "done"}

func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	body := operator{standing: s.stand(r.Context())}
	_, body.Said = s.said.read(r.URL.Query().Get("said"))
	body.Changes, _ = s.changes.after(0)
	slices.Reverse(body.Changes)
	if len(body.Changes) > 0 {
		body.Last = body.Changes[0].ID
	}
	html, err := s.pages.Render("operator", view{Title: body.Verdict.Word + " · cache operator", Body: body})
	if err != nil {
		s.broken(w, err)
		return
	}
	web.WriteLive(w, http.StatusOK, html)
}

// renderParts renders what is renewed, by the id of its element.
func (s *Server) renderParts() (map[string]string, error) {
	now, parts := s.stand(s.serving), map[string]string{}
	for _, name := range partNames {
		var b bytes.Buffer
		if err := s.pages["operator"].ExecuteTemplate(&b, name, now); err != nil {
			return nil, fmt.Errorf("part %s: %w", name, err)
		}
		parts[name] = b.String()
	}
	return parts, nil
}

func (s *Server) stand(ctx context.Context) standing {
	now := standing{At: time.Now().UTC(), Status: s.read(), Caches: s.sources.Cache != nil}
	now.Verdict = s.verdict(now.Status)
	now.Members = s.members(ctx)
	now.Done, _ = s.said.read("")
	if s.sources.Tracker != nil {
		now.Missed = s.sources.Tracker.Missed()
	}
	if c := s.sources.Cache; c != nil {
		hits, misses := c.Times()
		now.Hits, now.Misses = summary(hits), summary(misses)
		now.Hottest, now.Routes = c.Hottest(hottest), c.Routes()
	}
	return now
}

func summary(h cache.Histogram) times {
	return times{h.Total(), h.Quantile(0.5), h.Quantile(0.99)}
}

// verdict is the first of what matters most.
func (s *Server) verdict(st Status) verdict {
	switch c := st.Coherence; {
	case s.draining():
		return verdict{"warned", "Stopping", "This process is about to stop, and takes no new requests."}
	case c == nil:
		return verdict{"warned", "Ordinary cache", "It follows no database and vouches for nothing: an answer may be as old as its lifetime."}
	case c.Off:
		return verdict{"warned", "Switched off", "Every request passes through to the service, until caching is switched on again."}
	case !c.Vouches && s.sources.Cache == nil:
		return verdict{"ill", "Without proof", "This process cannot prove that it knows of every change. It keeps no answers; those who do decide for themselves."}
	case !c.Vouches:
		return verdict{"ill", "Does not vouch", "Nothing stored is proven fresh, so every request goes to the service until there is proof again."}
	case s.sources.Cache == nil:
		return verdict{"well", "Listening", "This process follows the database and tells the others. It keeps no answers itself."}
	case len(c.Blind) > 0:
		return verdict{"warned", "Vouches in part", "Hits are proven fresh, and answers that may depend on the blind tables below are not stored."}
	}
	return verdict{"well", "Vouches", "Every hit is proven fresh."}
}

// members are the processes of the cluster, the leader first; none where there is
// no Redis, or it does not say.
func (s *Server) members(ctx context.Context) []member {
	if s.sources.Records == nil || !s.sources.Records.Shared() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, memberTimeout)
	defer cancel()
	reports, err := s.sources.Records.Members(ctx)
	if err != nil {
		return nil
	}
	me, known := s.sources.Records.Status().Process, s.sources.Tracker.Known()
	var all []member
	for id, m := range reports {
		one := member{Member: m, ID: id, This: id == me, Current: m.Epoch == known.Epoch}
		if one.Current && m.Known < known.LSN {
			one.Behind = uint64(known.LSN - m.Known)
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b member) int {
		return cmp.Or(cmp.Compare(truth(b.Leads), truth(a.Leads)), strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID))
	})
	return all
}

//go:embed all:templates
var files embed.FS

// parsePages reads the templates, which are embedded: one that is wrong stops the
// tests.
func parsePages() web.Pages {
	templates, err := fs.Sub(files, "templates")
	if err != nil {
		panic(err)
	}
	pages, err := web.Parse(templates, funcs)
	if err != nil {
		panic(err)
	}
	return pages
}

// own serves one of the page's own files.
func own(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-cache") // another build may have another
		http.ServeFileFS(w, r, files, "templates/"+name)
	})
}
