package manage

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/url"
	"time"

	"walcache/proxy/cache"
)

// answer is what the proxy answered.
type answer struct {
	status int
	header http.Header
	bytes  int
	body   []byte // as far as it was wanted
	took   time.Duration
}

// how is our member of Cache-Status.
func (a answer) how() string {
	lines := a.header["Cache-Status"]
	if len(lines) == 0 {
		return ""
	}
	return lines[len(lines)-1]
}

// ask has the proxy answer a GET as if a client of this machine had sent it,
// without a connection. Of the body up to limit bytes are kept. The error is
// about the URL, or ctx has ended, or the answer broke off.
func (m *Manager) ask(ctx context.Context, text string, limit int, header http.Header) (got answer, err error) {
	// How httputil.ReverseProxy says that a body broke off. Beside a request nobody
	// else would recover from it.
	defer func() {
		switch v := recover(); v {
		case nil:
		case http.ErrAbortHandler:
			err = errors.New("the service's answer broke off")
		default:
			panic(v)
		}
	}()
	key, err := cache.ParseKey(text)
	if err != nil {
		return answer{}, err
	}
	if m.Cache == nil {
		return answer{}, errors.New("this process answers no requests")
	}
	r := &http.Request{
		Method: http.MethodGet, Host: key.Host, RequestURI: key.Target, RemoteAddr: "127.0.0.1:0",
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: header.Clone(), Body: http.NoBody,
	}
	if r.Header == nil {
		r.Header = http.Header{}
	}
	if r.URL, err = url.ParseRequestURI(key.Target); err != nil {
		return answer{}, err
	}
	if key.Scheme == "https" {
		r.TLS = &tls.ConnectionState{}
	}
	began := time.Now()
	w := &recorder{answer: answer{header: http.Header{}}, limit: limit}
	m.Cache.ServeHTTP(w, r.WithContext(ctx))
	w.took = time.Since(began)
	return w.answer, ctx.Err()
}

// recorder takes an answer in. Informational answers count for nothing.
type recorder struct {
	answer
	limit int
}

func (w *recorder) Header() http.Header { return w.header }

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
}

func (w *recorder) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	w.bytes += len(p)
	if room := w.limit - len(w.body); room > 0 {
		w.body = append(w.body, p[:min(room, len(p))]...)
	}
	return len(p), nil
}
