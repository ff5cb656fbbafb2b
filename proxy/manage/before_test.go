package manage

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"walcache/proxy/guard"
)

// A browser that was asked for the token at one of our paths sends it along with
// whatever it asks for below: it does not go on to the service.
func TestBefore_TheTokenStaysHere(t *testing.T) {
	m := newProxy(t).manager()
	m.Prefix, m.Guard = "/properties/", guard.Guard{Token: "a secret"}
	var got []string
	front := m.Before(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header["Authorization"] }))
	for _, c := range []struct {
		user, password, bearer string
		stays                  bool
	}{
		{user: "anybody", password: "a secret", stays: true},
		{user: "somebody", password: "of the service"},
		{bearer: "a secret"}, // meant for the service: no browser sends it unasked
		{bearer: "of the service"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/properties/1/", nil)
		if c.bearer != "" {
			r.Header.Set("Authorization", "Bearer "+c.bearer)
		} else {
			r.SetBasicAuth(c.user, c.password)
		}
		got = nil
		front.ServeHTTP(httptest.NewRecorder(), r)
		if (got == nil) != c.stays {
			t.Errorf("%+v: the service gets %q", c, got)
		}
	}
}

// What Before answers or alters is not answered by anybody before it.
func TestBefore_SaysWhatConcernsIt(t *testing.T) {
	m := newProxy(t).manager()
	m.Prefix, m.Guard = "/properties/", guard.Guard{Token: "a secret"}
	passed := false
	front := m.Before(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { passed = r.Header["Authorization"] == nil }))
	paths := []string{"/properties/redis-metrics/static/app.css", "/properties/", "/properties/1/", "/other/", "/properties", "/other/cache-status/"}
	for _, op := range operations {
		if op.name != "" {
			paths = append(paths, m.Prefix+op.name, m.Prefix+op.name+"/")
		}
	}
	concerned := 0
	for _, path := range paths {
		r := httptest.NewRequest(http.MethodOptions, path, nil) // which no operation is asked by
		concerns := m.Concerns(r)
		passed = false
		if front.ServeHTTP(httptest.NewRecorder(), r); passed == concerns {
			t.Errorf("%s passes: %t, and concerns: %t", path, passed, concerns)
		}
		if concerns {
			concerned++
		}
	}
	if concerned != len(paths)-5 {
		t.Errorf("%d of %q", concerned, paths)
	}
	r := httptest.NewRequest(http.MethodGet, "/other/", nil)
	r.SetBasicAuth("anybody", "a secret")
	if !m.Concerns(r) {
		t.Error("the token may go on")
	}
}
