package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"walcache/proxy/cache"
	"walcache/proxy/changelog"
	"walcache/proxy/coherence"
	"walcache/proxy/guard"
)

// Announcer puts lines into the change stream, and returns a position after
// them.
type Announcer interface {
	Announce(ctx context.Context, lines ...string) (coherence.LSN, error)
}

// Done is the answer to what an operator had done: a message in the change
// stream, which has a position and an order like any commit, so that every
// process comes by it, and a fetch under way when it was sent is no exception.
type Done struct {
	Did      string   `json:"did"`
	Position string   `json:"position"`
	Applied  bool     `json:"applied"`   // on this process
	All      bool     `json:"all"`       // on every process that is alive
	Behind   []string `json:"behind"`    // those on which it is not yet
	Took     float64  `json:"took_secs"` // from the message to this answer
}

// controlWait bounds how long an operator waits until it is done everywhere.
const controlWait = 10 * time.Second

func (s *Server) controls(mux *http.ServeMux, g guard.Guard) {
	for path, line := range map[string]string{"POST /cache/off": "cache off", "POST /cache/on": "cache on"} {
		mux.Handle(path, g.Changes(s.announce(func(*http.Request) (string, error) { return line, nil })))
	}
	mux.Handle("POST /cache/purge", g.Changes(s.announce(purgeLine)))
}

// announce answers once what a request asks for has been done here, or with
// ?wait=all on every process.
func (s *Server) announce(line func(*http.Request) (string, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := line(r)
		if err != nil {
			guard.WriteJSON(w, http.StatusBadRequest, guard.Problem(err.Error(), `send JSON: {"url": "https://host/path"}, {"tag": "books/id=42"} or {"all": true}`))
			return
		}
		if s.sources.Announcer == nil || s.sources.Log == nil {
			guard.WriteJSON(w, http.StatusServiceUnavailable, guard.Problem("this process has no database to tell the others through",
				"ask a process that was given --database-url (DATABASE_URL)"))
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), controlWait)
		defer cancel()
		done, err := s.do(ctx, text, r.URL.Query().Get("wait") == "all")
		if err != nil {
			guard.WriteJSON(w, http.StatusServiceUnavailable, guard.Problem(err.Error(), "see /status for what the listener says, and ask again"))
			return
		}
		guard.WriteJSON(w, http.StatusOK, done)
	})
}

func (s *Server) do(ctx context.Context, line string, everywhere bool) (Done, error) {
	began := time.Now()
	at, err := s.sources.Announcer.Announce(ctx, line)
	if err != nil {
		return Done{}, fmt.Errorf("%s: not sent: %w", line, err)
	}
	if err := s.sources.Log.Wait(ctx, at); err != nil {
		return Done{}, fmt.Errorf("%s: sent, and not yet known to this process: %w", line, err)
	}
	done := Done{Did: line, Position: at.String(), Applied: true, Behind: []string{}}
	if everywhere {
		behind, err := s.sources.Log.WaitAll(ctx, at)
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return Done{}, fmt.Errorf("%s: done here; whether elsewhere is not known: %w", line, err)
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

// maxPurge bounds what is read of a request, in bytes.
const maxPurge = 16 << 10

// purgeLine reads what is to be purged.
func purgeLine(r *http.Request) (string, error) {
	var ask struct {
		URL string
		Tag string
		All bool
	}
	body := json.NewDecoder(io.LimitReader(r.Body, maxPurge))
	body.DisallowUnknownFields()
	if err := body.Decode(&ask); err != nil {
		return "", fmt.Errorf("the request is no JSON object of url, tag or all: %w", err)
	}
	switch {
	case ask.URL != "" && ask.Tag == "" && !ask.All:
		page, err := pageURL(ask.URL)
		return "purge " + page, err
	case ask.Tag != "" && ask.URL == "" && !ask.All:
		return "bump " + ask.Tag, plain("tag", ask.Tag)
	case ask.All && ask.URL == "" && ask.Tag == "":
		return "floor " + coherence.Everything, nil
	}
	return "", errors.New("exactly one of url, tag and all has to be given")
}

// pageURL writes a URL as pages are purged by.
func pageURL(text string) (string, error) {
	if err := plain("url", text); err != nil {
		return "", err
	}
	key, err := cache.ParseKey(text)
	if err != nil {
		return "", fmt.Errorf("%q: %w", text, err)
	}
	return key.URL(), nil
}

// plain refuses what would be another line of the message, or is no text that a
// header or a request line can hold.
func plain(name, text string) error {
	for _, c := range []byte(text) {
		if c <= ' ' || c >= 0x7f {
			return fmt.Errorf("%s: %q has characters that have to be percent-encoded", name, text)
		}
	}
	return nil
}
