package manage

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// managed are the paths below the prefix, with a slash at the end and without.
// They are filled in by init, since operations itself leads here.
var managed = map[string]bool{}

func init() {
	for _, op := range operations {
		if op.name != "" {
			managed[op.name], managed[op.name+"/"] = true, true
		}
	}
}

// manages reports whether a path of the proxy's port is one of ours.
func (m *Manager) manages(path string) bool {
	rest, ok := strings.CutPrefix(path, m.Prefix)
	return m.Prefix != "" && ok && managed[rest]
}

// isFront reports whether an operation was asked for on the proxy's own port,
// where their paths end with a slash, as none does on the admin port. The prefix
// alone does not tell: it may be / or /cache/.
func (m *Manager) isFront(r *http.Request) bool {
	return m.manages(r.URL.Path) && strings.HasSuffix(r.URL.Path, "/")
}

// hostOf is the Host to ask this proxy under: the one that is asked for, else
// the one that the operator uses, who may have come to the admin port, where it
// says nothing of what clients use; then it is the port's own address.
func (m *Manager) hostOf(r *http.Request, wanted string) (string, error) {
	switch {
	case wanted != "":
		return wanted, checkHost(wanted)
	case m.isFront(r):
		return r.Host, nil
	}
	return m.Addr, nil
}

func checkHost(host string) error {
	u, err := url.Parse("http://" + host + "/")
	if err != nil || u.Host != host || !printable(host) || !isPort(u) {
		return fmt.Errorf("host is %.60q, and has to be a name or an address, with a port or without", host)
	}
	return nil
}

// isPort reports whether a URL names a port that there can be, or none.
func isPort(u *url.URL) bool {
	n, err := strconv.ParseUint(u.Port(), 10, 16)
	return err == nil && n > 0 || u.Port() == "" && !strings.HasSuffix(u.Host, ":")
}

// checkPath says why a path, with a query perhaps, is none that may be asked of
// this proxy and of nobody else: what is written there goes into a request line.
func (m *Manager) checkPath(path string) error {
	const longest = 4 << 10
	problem := ""
	switch u, err := url.ParseRequestURI(path); {
	case !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//"):
		problem = "it has to begin with one slash, and names no other server"
	case len(path) > longest:
		problem = "it is longer than 4 KiB"
	case !printable(path) || strings.Contains(path, "#") || err != nil:
		problem = "it has characters that have to be percent-encoded"
	case m.manages(u.Path):
		problem = "it is where operators ask, not clients"
	}
	if problem != "" {
		return fmt.Errorf("path %.100q: %s", path, problem)
	}
	return nil
}

// printable reports whether a text is visible ASCII.
func printable(text string) bool {
	for _, c := range []byte(text) {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}

// way is how an answer came about, as our member of Cache-Status says it (RFC
// 9211).
type way struct {
	hit         bool
	fwd, detail string
}

func readWay(member string) (w way) {
	for part := range strings.SplitSeq(member, ";") {
		switch name, value, _ := strings.Cut(strings.TrimSpace(part), "="); name {
		case "hit":
			w.hit = true
		case "fwd":
			w.fwd = value
		case "detail":
			w.detail = value
		}
	}
	return w
}

// String is for people: hit, or why it is none.
func (w way) String() string {
	switch {
	case w.hit:
		return "hit"
	case w.fwd == "" && w.detail == "":
		return "unknown"
	case w.fwd == "" || w.detail == "":
		return w.fwd + w.detail
	}
	return w.fwd + ": " + w.detail
}

// reason is why it is no hit, in words of which there are few.
func (w way) reason() string {
	if w.fwd == "stale" || w.fwd == "bypass" || w.fwd == "request" || w.fwd == "" {
		return w.String()
	}
	return w.fwd
}

var errNoCache = errors.New("this process answers no requests")
