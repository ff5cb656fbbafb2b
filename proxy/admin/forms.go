package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"walcache/proxy/guard"
	"walcache/proxy/manage"
	"walcache/proxy/web"
)

// isForm reports whether a request has the fields of a form.
func isForm(r *http.Request) bool {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && r.Method == http.MethodPost && kind == "application/x-www-form-urlencoded"
}

// wantsWords reports whether a browser sent a form: a script that calls its body
// one, as curl does, says nothing of HTML and gets JSON.
func wantsWords(r *http.Request) bool {
	return isForm(r) && !web.PrefersJSON(r.Header["Accept"], true)
}

// inForms are the operations that the page has forms for.
var inForms = []string{"/cache/off", "/cache/on", "/cache/purge", "/cache/clear"}

// forms lets a browser's form ask for what a script asks for with JSON. The same
// handler answers, and lets in who may; what it says is put into words, on the
// page that the form came from. A browser that is asked for the token asks who
// sits before it, and sends the form again.
func (s *Server) forms(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !wantsWords(r) || !slices.Contains(inForms, r.URL.Path) {
			next.ServeHTTP(w, r)
			return
		}
		a := taken{header: http.Header{}, status: http.StatusOK}
		next.ServeHTTP(&a, r)
		if a.status != http.StatusOK {
			maps.Copy(w.Header(), a.header) // how to get in, or when to ask again
			s.problem(w, a.status, a.body.Bytes())
			return
		}
		id := s.said.add(words(a.body.Bytes()))
		// Always our own page: nobody can have a form lead elsewhere.
		http.Redirect(w, r, "/?said="+strconv.Itoa(id)+"#said", http.StatusSeeOther)
	})
}

// taken is an answer that is not sent: its body is to be put into words.
type taken struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (t *taken) Header() http.Header         { return t.header }
func (t *taken) WriteHeader(status int)      { t.status = status }
func (t *taken) Write(p []byte) (int, error) { return t.body.Write(p) }

// words says what has been done, and where.
func words(answer []byte) string {
	var a struct {
		manage.Done
		Message string // of a clear alone
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return "Done."
	}
	did, where := inWords(a.Did), "It is done on every process."
	if a.Message != "" {
		did = "Cleared the cache; the memory is being given back."
	}
	if !a.All {
		where = "It is done on this process, and not yet on " + strings.Join(a.Behind, ", ") +
			"; a process that knows of no changes calls nothing fresh."
	}
	return fmt.Sprintf("%s %s Position %s in the change stream, after %s.", did, where, a.Position, seconds(a.Took))
}

// inWords says what a line in the change stream did.
func inWords(line string) string {
	verb, name, _ := strings.Cut(line, " ")
	switch {
	case line == "cache off":
		return "Caching is switched off: every request goes to the service."
	case line == "cache on":
		return "Caching is switched on."
	case verb == "purge":
		return "Purged " + name + "."
	case verb == "bump":
		return "Purged every answer that depends on the tag " + name + "."
	}
	return "Purged every stored answer."
}

// problem answers a form that was refused, with the status and the header that
// say why, and its text in words.
func (s *Server) problem(w http.ResponseWriter, status int, answer []byte) {
	var p struct{ Error, Try string }
	if err := json.Unmarshal(answer, &p); err != nil {
		p.Error, p.Try = http.StatusText(status), "go back to the page and ask again"
	}
	s.answer(w, status, "problem", view{Title: "Not done", Body: p})
}

// question asks once more, before something that touches everything.
type question struct {
	Title, What, Button, Action string
	All                         bool // of a purge
}

var questions = map[string]question{
	"off": {"Switch caching off?", "Every process passes every request through to the service, which will have all the load, until caching is switched on again. What is stored stays.",
		"Switch caching off", "/cache/off?wait=all", false},
	"all": {"Purge everything?", "On every process each stored answer becomes stale at once. The next request for each goes to the service.",
		"Purge everything", "/cache/purge?wait=all", true},
	"clear": {"Clear the cache?", "On every process each stored answer becomes stale at once, and memory is freed. The next request for each goes to the service.",
		"Clear the cache", "/cache/clear?wait=all", false},
}

func (s *Server) confirm(w http.ResponseWriter, r *http.Request) {
	q, ok := questions[r.PathValue("what")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	s.answer(w, http.StatusOK, "confirm", view{Title: q.Title, Body: q})
}

// outcome is something that was done for somebody at the page.
type outcome struct {
	ID    int
	At    time.Time
	Words string
}

// keptOutcomes is how many are kept.
const keptOutcomes = 20

// outcomes are what was done, the latest last. A page names them by number, so
// that no link can put words into its mouth.
type outcomes struct {
	mu   sync.Mutex // guards the following
	kept []outcome
	next int
}

func (o *outcomes) add(words string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.next++
	o.kept = append(o.kept, outcome{o.next, time.Now().UTC(), words})
	if len(o.kept) > keptOutcomes {
		o.kept = slices.Delete(o.kept, 0, 1)
	}
	return o.next
}

// read returns them, the latest first, and the one of an ID, nil if there is none.
func (o *outcomes) read(id string) (all []outcome, said *outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, one := range slices.Backward(o.kept) {
		all = append(all, one)
		if strconv.Itoa(one.ID) == id {
			said = &one
		}
	}
	return all, said
}

// answer answers with a page that has no script.
func (s *Server) answer(w http.ResponseWriter, status int, name string, v view) {
	html, err := s.pages.Render(name, v)
	if err != nil {
		s.broken(w, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	web.Write(w, status, html)
}

// broken answers for a page that could not be made.
func (s *Server) broken(w http.ResponseWriter, err error) {
	guard.WriteJSON(w, http.StatusInternalServerError, guard.Problem("the page could not be made: "+err.Error(), "ask for /status, and report this"))
}
