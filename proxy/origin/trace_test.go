package origin

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	validTrace  = "4bf92f3577b34da6a3ce929d0e0e4736"
	validParent = "00-" + validTrace + "-00f067aa0ba902b7-01"
)

func TestTrace_OnlyAValidParentIsFollowed(t *testing.T) {
	for said, want := range map[string]string{
		validParent: "01",
		"00-" + validTrace + "-00f067aa0ba902b7-00":       "00",
		"00-" + validTrace + "-00f067aa0ba902b7-03":       "03",
		"01-" + validTrace + "-00f067aa0ba902b7-03":       "01",
		"cc-" + validTrace + "-00f067aa0ba902b7-0e-later": "00",
		"": "",
		"00-" + validTrace + "-00f067aa0ba902b7-0":                   "",
		"00-" + validTrace + "-00f067aa0ba902b7-01-":                 "",
		"00-" + validTrace + "-00f067aa0ba902b7-01 ":                 "",
		"01-" + validTrace + "-00f067aa0ba902b7-01later":             "",
		"ff-" + validTrace + "-00f067aa0ba902b7-01":                  "",
		"0g-" + validTrace + "-00f067aa0ba902b7-01":                  "",
		"00-" + strings.ToUpper(validTrace) + "-00f067aa0ba902b7-01": "",
		"00-" + strings.Repeat("0", 32) + "-00f067aa0ba902b7-01":     "",
		"00-" + validTrace + "-0000000000000000-01":                  "",
		"00-" + validTrace + "_00f067aa0ba902b7-01":                  "",
	} {
		h := http.Header{traceParent: {said}, traceState: {"a=b"}}
		_, id := Identify(h)
		switch {
		case want == "":
			if id == validTrace || h[traceState] != nil || !strings.HasSuffix(h.Get(traceParent), "-00") {
				t.Errorf("%q was followed: %v", said, h)
			}
			continue
		case id != validTrace, h.Get(traceParent) != said, h.Get(traceState) != "a=b":
			t.Errorf("%q was not followed: %v", said, h)
		}
		if tr, _ := traceOf(h); tr.flags != want {
			t.Errorf("%q: flags %s, want %s", said, tr.flags, want)
		}
	}
	if _, id := Identify(http.Header{traceParent: {validParent, validParent}}); id == validTrace {
		t.Error("two parents were followed")
	}
}

func TestRequestID_OnlyAValidOneIsKept(t *testing.T) {
	for said, valid := range map[string]bool{
		"a": true, "AZaz09._~+/=-": true, strings.Repeat("x", 128): true,
		"": false, strings.Repeat("x", 129): false, "a b": false, "a\tb": false, "a,b": false, `a"b`: false, "ü": false, "a\x00": false, "a{}": false,
	} {
		id, _ := Identify(http.Header{RequestID: {said}})
		if (id == said) != valid || !isRequestID(id) {
			t.Errorf("%q became %q", said, id)
		}
	}
	if id, _ := Identify(http.Header{RequestID: {"a", "b"}}); id == "a" || id == "b" {
		t.Error("one of two was kept")
	}
	one, _ := Identify(http.Header{})
	two, _ := Identify(http.Header{})
	if one == two {
		t.Errorf("twice %s", one)
	}
}

// traced is an upstream that notes what it got, between a proxy and its client.
// Like many services it answers with its own idea of the names, and hints early.
func traced(t *testing.T, answer http.HandlerFunc) (get func(lines ...string) *http.Response, got func() http.Header) {
	t.Helper()
	seen := make(chan http.Header, 1)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Header.Clone()
		answer(w, r)
	}))
	t.Cleanup(upstream.Close)
	o, err := New(Config{Upstream: upstream.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, _ := o.View(r)
		o.Forward(w, r, v, &Exchange{
			Response: func(res *http.Response) error {
				for _, name := range []string{RequestID, traceParent, traceState, traceResponse} {
					if res.Header[name] != nil {
						t.Errorf("whoever looks at the response sees %s", name)
					}
				}
				return nil
			},
			Failed: func(w http.ResponseWriter, err error) { http.Error(w, err.Error(), http.StatusBadGateway) },
		})
	}))
	t.Cleanup(proxy.Close)
	get = func(lines ...string) *http.Response {
		t.Helper()
		r, _ := http.NewRequest(http.MethodGet, proxy.URL, nil)
		for _, line := range lines {
			name, value, _ := strings.Cut(line, ": ")
			r.Header[name] = append(r.Header[name], value)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		return res
	}
	return get, func() http.Header { return <-seen }
}

func TestForward_NamesTheRequestForTheServiceAndForItsClient(t *testing.T) {
	get, got := traced(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set(RequestID, "of-the-service")
		w.Header().Set(traceResponse, validParent)
	})
	for _, c := range []struct {
		what  string
		lines []string
		id    string // "" if it has to be a new one
		trace string
		state []string
	}{
		{"nothing sent", nil, "", "", nil},
		{"all valid", []string{"X-Request-Id: mine-1", "Traceparent: " + validParent, "Tracestate: a=b", "Tracestate: c=d"}, "mine-1", validTrace, []string{"a=b", "c=d"}},
		{"invalid", []string{"X-Request-Id: <script>", "Traceparent: x", "Tracestate: a=b"}, "", "", nil},
		{"state alone", []string{"Tracestate: a=b"}, "", "", nil},
		{"named by Connection", []string{"Connection: x-request-id, traceparent", "X-Request-Id: mine-2", "Traceparent: " + validParent}, "mine-2", validTrace, nil},
		{"in CGI's spelling", []string{"X_Request_Id: evil", "X_request_id: evil"}, "", "", nil},
	} {
		res, h := get(c.lines...), got()
		id, parent := h.Get(RequestID), h.Get(traceParent)
		if len(h[RequestID]) != 1 || !isRequestID(id) || c.id != "" && id != c.id {
			t.Errorf("%s: the service got %q", c.what, h[RequestID])
		}
		if answered := res.Header[RequestID]; len(answered) != 1 || answered[0] != id {
			t.Errorf("%s: the client got %q, the service %q", c.what, answered, id)
		}
		if _, ok := parseTrace(parent); !ok || parent == validParent || len(h[traceParent]) != 1 || c.trace != "" && parent[3:35] != c.trace {
			t.Errorf("%s: the service got traceparent %q", c.what, h[traceParent])
		}
		if want := parent[53:]; c.trace == "" && want != "00" || c.trace != "" && want != "01" {
			t.Errorf("%s: flags %s", c.what, want)
		}
		if !slices.Equal(h[traceState], c.state) {
			t.Errorf("%s: the service got tracestate %q", c.what, h[traceState])
		}
		if res.Header.Get(traceResponse) != validParent {
			t.Errorf("%s: the client got traceresponse %q", c.what, res.Header.Get(traceResponse))
		}
		for name := range h {
			if strings.Contains(name, "_") {
				t.Errorf("%s: the service got %s", c.what, name)
			}
		}
	}
}

func TestForward_NamesAFailedRequest(t *testing.T) {
	get, got := traced(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_ = conn.Close()
		}
	})
	res := get("X-Request-Id: mine")
	if res.StatusCode != http.StatusBadGateway || !slices.Equal(res.Header[RequestID], []string{"mine"}) {
		t.Errorf("%s %v", res.Status, res.Header)
	}
	got()
}

func TestForward_TheOperatorsTokenStaysHere(t *testing.T) {
	get, got := traced(t, func(http.ResponseWriter, *http.Request) {})
	get("X-Walcache-Token: secret", "X_Walcache_Token: secret", "x-walcache_token: secret")
	if h := got(); strings.Contains(fmt.Sprint(h), "secret") {
		t.Errorf("%v", h)
	}
}

func TestUpgrade_CarriesTheIDOfItsRequest(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: test\r\nX-Request-Id: other\r\n\r\n")
		_ = conn.Close()
	}))
	defer upstream.Close()
	o, err := New(Config{Upstream: upstream.URL})
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, _ := o.View(r)
		o.Forward(w, r, v, &Exchange{Response: func(*http.Response) error { return nil }, Failed: func(http.ResponseWriter, error) {}})
	}))
	defer proxy.Close()
	conn, err := net.Dial("tcp", proxy.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: test\r\nX-Request-Id: mine\r\n\r\n")
	answer, _ := io.ReadAll(conn)
	if ids := regexp.MustCompile(`(?i)x-request-id: (\S+)`).FindAllSubmatch(answer, -1); len(ids) != 1 || string(ids[0][1]) != "mine" {
		t.Errorf("%s", answer)
	}
}

// Whatever is sent, what goes on is valid, and stays as it is from then on.
func FuzzIdentify(f *testing.F) {
	f.Add("mine", validParent)
	f.Add("", "01-"+validTrace+"-00f067aa0ba902b7-ff-later")
	f.Fuzz(func(t *testing.T, id, parent string) {
		h := http.Header{RequestID: {id}, traceParent: {parent}, traceState: {"a=b"}}
		named, trace := Identify(h)
		if !isRequestID(named) || h.Get(RequestID) != named || strings.Trim(trace, "0123456789abcdef") != "" || len(trace) != 32 {
			t.Errorf("%q %q: %q %q", id, parent, named, trace)
		}
		if again, same := Identify(h); again != named || same != trace {
			t.Errorf("%q %q became %q %q", named, trace, again, same)
		}
	})
}
