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
