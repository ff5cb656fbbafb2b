package cache_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"walcache/proxy/cache"
)

func TestPrivate_NobodySeesAnothersBody(t *testing.T) {
	for _, test := range []struct {
		name string
		mark string // the field by which the upstream tells clients apart
		says []string
	}{
		{"said by the origin", "X-Who", []string{"Cache-Control: private"}},
		{"by cookie, and the origin says nothing", "Cookie", nil},
		{"by token, and the origin says nothing", "Authorization", nil},
		{"by a private header, and the origin says nothing", "X-Api-Key", nil},
		{"by a private header as CGI spells it, and the origin says nothing", "X_api_key", nil},
		{"by a private header in a spelling between the two, and the origin says nothing", "X-Api_Key", nil},
		{"by token, with a lifetime that is not for them", "Authorization", []string{"Cache-Control: max-age=60"}},
		{"by a cookie that it sets", "X-Who", []string{"Set-Cookie: id=1"}},
		{"by a Vary that it sends", "Cookie", []string{"Vary: Cookie", "Cache-Control: max-age=60"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
				text(r.Header.Get(test.mark), test.says...)(rw, r)
			})
			for range 3 {
				replies := w.together(200, "/me", func(i int) []string { return []string{fmt.Sprintf("%s: user%d", test.mark, i)} })
				for i, r := range replies {
					if want := fmt.Sprintf("user%d", i); r.body != want {
						t.Fatalf("%s got the answer of %q (%s)", want, r.body, r.says())
					}
				}
			}
		})
	}
}

// What is stored for everyone may not be what a user would get, unless the
// origin says that it is.
func TestPrivate_ARequestWithCredentialsGetsOnlyWhatTheOriginSaidIsForAll(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/explicit") {
			rw.Header().Set("Cache-Control", "public, max-age=60")
		}
		fmt.Fprint(rw, "hello "+r.Header.Get("Cookie"))
	})
	w.get("/implicit")
	r := w.get("/implicit", "Cookie: id=1")
	w.wantSays(r, "fwd=request", "detail=credentials")
	if r.body != "hello id=1" {
		t.Errorf("got %q", r.body)
	}
	w.wantHit(w.get("/implicit"), "hello ")
	w.get("/explicit")
	w.wantHit(w.get("/explicit", "Cookie: id=1"), "hello ")
	w.wantHit(w.get("/explicit", "Authorization: Bearer x"), "hello ")
}

func TestIgnoreCookies_LeavesOnlyTheOthersPrivate(t *testing.T) {
	w := newWorld(t, text("x"), func(c *cache.Config) { c.IgnoreCookies = []string{"_ga*", "theme"} })
	w.get("/a", "Cookie: _ga=1; _ga_X=2; theme=dark")
	w.wantHit(w.get("/a", "Cookie: _gat=7"), "x")
	w.wantSays(w.get("/a", "Cookie: _ga=1; id=5"), "fwd=request")
}
