package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"walcache/proxy/changelog"
	"walcache/proxy/coherence"
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

func (s *Server) controls(mux *http.ServeMux, g guard) {
	for path, line := range map[string]string{"POST /cache/off": "cache off", "POST /cache/on": "cache on"} {
		mux.Handle(path, g.changes(s.announce(func(*http.Request) (string, error) { return line, nil })))
	}
	mux.Handle("POST /cache/purge", g.changes(s.announce(purgeLine)))
}

// announce answers once what a request asks for has been done here, or with
// ?wait=all on every process.
func (s *Server) announce(line func(*http.Request) (string, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := line(r)
		if err != nil {
			writeJSON(w, http.StatusBadRequest, problem(err.Error(), `send JSON: {"url": "https://host/path"}, {"tag": "books/id=42"} or {"all": true}`))
			return
		}
		if s.sources.Announcer == nil || s.sources.Log == nil {
			writeJSON(w, http.StatusServiceUnavailable, problem("this process has no database to tell the others through",
				"ask a process that was given --database-url (DATABASE_URL)"))
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), controlWait)
		defer cancel()
		done, err := s.do(ctx, text, r.URL.Query().Get("wait") == "all")
		if err != nil {
			writeJSON(w, http.StatusServiceUnavailable, problem(err.Error(), "see /status for what the listener says, and ask again"))
			return
		}
		writeJSON(w, http.StatusOK, done)
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

// pageURL writes a URL as the cache keys its pages: the host in lower case and
// without the scheme's own port, path and query byte for byte.
func pageURL(text string) (string, error) {
	if err := plain("url", text); err != nil {
		return "", err
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.Fragment != "" || u.User != nil {
		return "", fmt.Errorf("url: %q is not what a client asks for, such as https://host/path?query", text)
	}
	_, rest, _ := strings.Cut(text, "://")
	target := rest[len(u.Host):]
	if target == "" || target[0] == '?' {
		target = "/" + target
	}
	host := strings.ToLower(u.Host)
	host = strings.TrimSuffix(host, map[string]string{"http": ":80", "https": ":443"}[u.Scheme])
	return u.Scheme + "://" + host + target, nil
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
