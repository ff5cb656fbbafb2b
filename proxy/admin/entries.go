package admin

import (
	"net/http"
	"slices"
	"strings"

	"walcache/proxy/cache"
	"walcache/proxy/coherence"
	"walcache/proxy/guard"
	"walcache/proxy/web"
)

// maxEntries is how many answers a search by tag returns.
const maxEntries = 100

// Found is what a search found. By URL that is all that is stored under it, in
// memory and in Redis; by tag it is the first of what is in the memory of this
// process.
type Found struct {
	URL     string          `json:"url,omitempty"`
	Tag     string          `json:"tag,omitempty"`
	Total   int             `json:"total"`
	Entries []cache.Variant `json:"entries"`
}

// entries answers /entries?url=… and /entries?tag=…, as a page or as JSON.
func (s *Server) entries(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Vary", "Accept")
	query := r.URL.Query()
	ask := Found{URL: strings.TrimSpace(query.Get("url")), Tag: strings.TrimSpace(query.Get("tag")), Entries: []cache.Variant{}}
	status, what, next := http.StatusOK, "", ""
	switch {
	case s.sources.Cache == nil:
		status, what, next = http.StatusNotFound, "this process keeps no answers", "ask the admin port of a process that serves"
	case (ask.URL == "") == (ask.Tag == ""):
		status, what, next = http.StatusBadRequest, "exactly one of url and tag has to be given", "/entries?url=https://host/path or /entries?tag=books/id=42"
	case ask.URL != "":
		found, err := s.sources.Cache.Inspect(r.Context(), ask.URL)
		if err != nil {
			status, what, next = http.StatusBadRequest, err.Error(), "give it with scheme and host, byte for byte"
			break
		}
		ask.Entries, ask.Total = append(ask.Entries, found...), len(found)
	default:
		found, total, err := s.sources.Cache.Search(r.Context(), hasTag(ask.Tag), maxEntries)
		if err != nil {
			return // nobody waits for an answer
		}
		ask.Entries, ask.Total = append(ask.Entries, found...), total
	}
	if query.Get("format") == "json" || web.PrefersJSON(r.Header["Accept"], false) {
		if what != "" {
			guard.WriteJSON(w, status, guard.Problem(what, next))
		} else {
			guard.WriteJSON(w, status, ask)
		}
		return
	}
	s.answer(w, status, "entries", view{Title: "Stored answers", Body: entriesView{ask, what, next}})
}

// entriesView is the page of a search: what was found, or why nothing could be
// looked for.
type entriesView struct {
	Found
	Error, Try string
}

// hasTag matches answers with a tag; that of a table matches with those of its
// rows and values, and the one of everything matches all.
func hasTag(text string) func(string, []coherence.Tag) bool {
	tag := coherence.Tag(text)
	return func(_ string, tags []coherence.Tag) bool {
		return tag == coherence.Any || slices.ContainsFunc(tags, func(t coherence.Tag) bool { return t == tag || t.Table() == tag })
	}
}
