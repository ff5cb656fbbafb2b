package docs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// place is where an address of the documents is in the demo.
func place(env map[string]string, url string) (string, bool) {
	for port, name := range map[string]string{"8001": "PROXY_URL", "8002": "BACKEND_URL", "8003": "ADMIN_URL"} {
		for _, host := range []string{"localhost", "127.0.0.1"} {
			if rest, ok := strings.CutPrefix(url, "http://"+host+":"+port); ok && (rest == "" || strings.Contains("/?", rest[:1])) {
				return env[name] + rest, true
			}
		}
	}
	return "", false
}

// curl is a command line of that program, as far as the documents use it.
type curl struct {
	method, url, body string
	header            http.Header
	stream            bool // it goes on for ever
}

func parseCurl(words []string) (c curl, err error) {
	c.header = http.Header{"User-Agent": {"curl/8"}, "Accept": {"*/*"}}
	for i := 1; i < len(words); i++ {
		next := func() string {
			if i++; i < len(words) {
				return words[i]
			}
			return ""
		}
		switch word := words[i]; {
		case word == "-i" || word == "-s":
		case word == "-N":
			c.stream = true
		case word == "-X":
			c.method = next()
		case word == "-d":
			c.body = next()
		case word == "-H":
			name, value, _ := strings.Cut(next(), ": ")
			c.header.Set(name, value)
		case strings.HasPrefix(word, "-") || c.url != "":
			return c, fmt.Errorf("what is %q?", word)
		default:
			c.url = word
		}
	}
	if c.body != "" && c.header.Get("Content-Type") == "" {
		c.header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if c.method == "" {
		c.method = map[bool]string{true: http.MethodPost, false: http.MethodGet}[c.body != ""]
	}
	return c, nil
}

// send returns the answer's status, header, and, unless it goes on for ever, body.
func (c curl) send(t *testing.T) (int, http.Header, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), c.method, c.url, strings.NewReader(c.body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = c.header
	if host := c.header.Get("Host"); host != "" {
		req.Host = host
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, Timeout: time.Minute}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var body bytes.Buffer
	if !c.stream {
		if _, err := body.ReadFrom(res.Body); err != nil {
			t.Fatal(err)
		}
	}
	return res.StatusCode, res.Header, body.Bytes()
}

// Every curl line answers with one of the 200s, or with the status that the
// comment behind it begins with. ID is the one that the last Location has.
func TestDocs_CurlLinesAnswerAsTheySay(t *testing.T) {
	env, sent := demo(t), 0
	value := func(name string) string {
		if env[name] == "" {
			t.Errorf("$%s: the demo knows of no such variable", name)
		}
		return env[name]
	}
	env["ID"], env["OWNER_URL"] = "none", "none"
	for _, p := range documents(t) {
		p.typed(value, func(where string, words []string, comment string) {
			if words[0] != "curl" {
				return
			}
			c, err := parseCurl(words)
			at, ours := place(env, c.url)
			if err != nil || !ours {
				t.Errorf("%s: %s: not to be sent: %v", where, strings.Join(words, " "), err)
				return
			}
			said := c.url
			c.url = at
			status, header, body := c.send(t)
			if want := statusSaid(comment); status != want && (want != 0 || status/100 != 2) {
				t.Errorf("%s: %s %s: %d, want %d: %.300s", where, c.method, said, status, want, body)
			}
			if id := path.Base(header.Get("Location")); status == http.StatusCreated {
				env["ID"] = id
			}
			sent++
		})
	}
	if sent < 40 {
		t.Errorf("%d lines were sent", sent)
	}
}

// statusSaid is 0 where a comment says nothing of a status.
func statusSaid(comment string) int {
	word, _, _ := strings.Cut(comment, " ")
	status, _ := strconv.Atoi(strings.TrimRight(word, ":;,"))
	return status
}

func TestDocs_AddressesOfThisMachineAnswer(t *testing.T) {
	env := demo(t)
	for _, p := range documents(t) {
		for _, url := range regexp.MustCompile("http://(?:localhost|127\\.0\\.0\\.1):800[0-9][^\\s|)`\"]*").FindAllString(p.prose, -1) {
			at, ours := place(env, strings.TrimRight(url, ".,;"))
			if !ours {
				t.Errorf("%s: %s is no port of ours", p.name, url)
				continue
			}
			c := curl{method: http.MethodGet, url: at, header: http.Header{"Authorization": {"Bearer " + env["ADMIN_TOKEN"]}, "Accept": {"text/html"}}}
			if status, _, _ := c.send(t); status >= 400 {
				t.Errorf("%s: %s: %d", p.name, url, status)
			}
		}
	}
}

// named are objects whose keys are names of whatever there is.
var named = []string{"hits", "misses", "misses_by_reason", "statuses", "dropped", "varied", "keyspace_info"}

// differs says where an example has other keys, or values of another kind, than an
// answer, "" if nowhere. Nothing is known of what is null or empty in either.
func differs(where string, example, answer any) string {
	if example == nil || answer == nil {
		return ""
	}
	switch e := example.(type) {
	case map[string]any:
		a, ok := answer.(map[string]any)
		if !ok {
			return where + " is no object"
		}
		return differsIn(where, e, a)
	case []any:
		a, ok := answer.([]any)
		if !ok {
			return where + " is no list"
		}
		for _, one := range e {
			if len(a) == 0 {
				break
			}
			if what := differs(where+"[]", one, a[0]); what != "" {
				return what
			}
		}
	default:
		if fmt.Sprintf("%T", example) != fmt.Sprintf("%T", answer) {
			return fmt.Sprintf("%s is a %T, and not a %T", where, answer, example)
		}
	}
	return ""
}

func differsIn(where string, example, answer map[string]any) string {
	if slices.Contains(named, where[strings.LastIndex(where, ".")+1:]) {
		return ""
	}
	has, have := slices.Sorted(maps.Keys(example)), slices.Sorted(maps.Keys(answer))
	if !slices.Equal(has, have) {
		return fmt.Sprintf("%s has the keys\n%s, and not\n%s", where, have, has)
	}
	for name := range example {
		if what := differs(where+"."+name, example[name], answer[name]); what != "" {
			return what
		}
	}
	return ""
}

// An example of an answer has the keys that the answer has, no more and no fewer.
func TestDocs_ExamplesHaveTheKeysOfTheAnswers(t *testing.T) {
	env, examples := demo(t), 0
	for _, page := range []string{"/properties/?format=json", "/properties/?format=json", "/properties/", "/properties/1/?format=json"} {
		curl{method: http.MethodGet, url: env["PROXY_URL"] + page}.send(t) // so that there is something to tell of
	}
	for _, p := range documents(t) {
		for _, b := range p.blocks {
			request, ok := strings.CutPrefix(b.info, "json ")
			if !ok {
				continue
			}
			examples++
			words := append(strings.SplitN(request, " ", 3), "")
			c := curl{method: words[0], url: env["PROXY_URL"] + words[1], body: words[2], header: http.Header{"Authorization": {"Bearer " + env["ADMIN_TOKEN"]}}}
			status, _, body := c.send(t)
			var example, answer any
			if err := json.Unmarshal([]byte(b.text), &example); err != nil {
				t.Errorf("%s is no JSON: %v", b.where, err)
				continue
			}
			if err := json.Unmarshal(body, &answer); err != nil || status != http.StatusOK {
				t.Errorf("%s: %d, %v: %.300s", b.where, status, err, body)
				continue
			}
			if what := differs("the answer", example, answer); what != "" {
				t.Errorf("%s: %s: %s", b.where, request, what)
			}
		}
	}
	if examples < 6 {
		t.Errorf("%d examples were compared", examples)
	}
}
