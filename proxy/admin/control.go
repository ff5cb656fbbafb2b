package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"walcache/proxy/coherence"
	"walcache/proxy/guard"
)

func (s *Server) controls(mux *http.ServeMux, g guard.Guard) {
	for path, line := range map[string]string{"POST /cache/off": "cache off", "POST /cache/on": "cache on"} {
		mux.Handle(path, g.Changes(s.announce(func(*http.Request) (string, error) { return line, nil })))
	}
	mux.Handle("POST /cache/purge", g.Changes(s.announce(s.purgeLine)))
}

// announce answers once what a request asks for has been done here, or with
// ?wait=all on every process.
func (s *Server) announce(line func(*http.Request) (string, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := line(r)
		if err != nil {
			guard.WriteJSON(w, http.StatusBadRequest, guard.Problem(err.Error(), howToAsk(r)))
			return
		}
		if s.sources.Announcer == nil || s.sources.Records == nil {
			guard.WriteJSON(w, http.StatusServiceUnavailable, guard.Problem("this process has no database to tell the others through",
				"ask a process that was given --database-url (DATABASE_URL)"))
			return
		}
		done, err := s.sources.Do(r.Context(), text, r.URL.Query().Get("wait") == "all")
		if err != nil {
			guard.WriteJSON(w, http.StatusServiceUnavailable, guard.Problem(err.Error(), "see /status for what the listener says, and ask again"))
			return
		}
		guard.WriteJSON(w, http.StatusOK, done)
	})
}

// maxPurge bounds what is read of a request, in bytes.
const maxPurge = 16 << 10

// purge is what is to be purged: one of these.
type purge struct {
	URL string
	Tag string
	All bool
}

// purgeLine reads what is to be purged, of JSON or a form.
func (s *Server) purgeLine(r *http.Request) (string, error) {
	ask, err := readPurge(r)
	switch {
	case err != nil:
		return "", err
	case ask.URL != "" && ask.Tag == "" && !ask.All:
		page, err := s.pageURL(ask.URL)
		return "purge " + page, err
	case ask.Tag != "" && ask.URL == "" && !ask.All:
		return "bump " + ask.Tag, plain("tag", ask.Tag)
	case ask.All && ask.URL == "" && ask.Tag == "":
		return "floor " + coherence.Everything, nil
	}
	return "", errors.New("exactly one of url, tag and all has to be given")
}

// readPurge takes JSON for what it is, whatever it is called: curl -d calls
// everything a form.
func readPurge(r *http.Request) (ask purge, err error) {
	text, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxPurge))
	if err != nil {
		return ask, fmt.Errorf("the request cannot be read: %w", err)
	}
	if isForm(r) && !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		fields, err := url.ParseQuery(string(text))
		if err != nil {
			return ask, fmt.Errorf("the request is no form: %w", err)
		}
		// Around what somebody pasted there may be blanks.
		return purge{strings.TrimSpace(fields.Get("url")), strings.TrimSpace(fields.Get("tag")), fields.Get("all") == "true"}, nil
	}
	body := json.NewDecoder(bytes.NewReader(text))
	body.DisallowUnknownFields()
	if err := body.Decode(&ask); err != nil {
		return ask, fmt.Errorf("the request is no JSON object of url, tag or all: %w", err)
	}
	return ask, nil
}

// howToAsk is the next step for who asked for a purge of nothing.
func howToAsk(r *http.Request) string {
	if wantsWords(r) {
		return "give a URL as clients ask for it, such as https://host/path, or a tag, such as books/id=42"
	}
	return `send JSON: {"url": "https://host/path"}, {"tag": "books/id=42"} or {"all": true}`
}

// pageURL writes a URL as pages are purged by.
func (s *Server) pageURL(text string) (string, error) {
	if err := plain("url", text); err != nil {
		return "", err
	}
	key, err := s.sources.Cache.KeyOf(text)
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
