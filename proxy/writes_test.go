package main

import (
	"context"
	"flag"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"walcache/backend/panel/users"
	"walcache/proxy/sandbox/sandboxtest"
)

var (
	writesCount = flag.Int("writes.count", 100, "writes through the proxy, each followed by reads")
	writesWait  = flag.Duration("writes.wait", 10*time.Second, "how long the answer to a write may wait until all that it changed is known")
)

// TestWrites_AreReadAtOnce changes rows through the proxy, in turns by the API and
// in the panel, and wants what it reads on the same proxy after that to have the
// change, page and queryset. It reports what a write costs by way of the proxy.
func TestWrites_AreReadAtOnce(t *testing.T) {
	const rows = 50
	share := sharing(t)
	s := start(t, sandboxtest.Postgres(t), func(o *options) { share(o); o.cache.WriteWait = *writesWait })
	s.rows(rows)
	s.caughtUp()
	e := s.logIn()
	var direct, proxied, panel []time.Duration
	old := 0
	for n := range *writesCount {
		id, price := 1+n%rows, fmt.Sprintf("%d.50", 1000+n)
		s.warm(row(id))
		if n%10 == 0 {
			direct = append(direct, s.patch(s.direct, id, "999.00"))
			s.caughtUp()
		}
		if n%2 == 0 {
			proxied = append(proxied, s.patch(s.url, id, price))
		} else {
			panel = append(panel, e.change(id, price))
		}
		for _, path := range []string{row(id), "/properties/"} {
			if r := s.get(path); !strings.Contains(r.body, `"price":"`+price+`"`) {
				old++
				t.Errorf("%s after a write: %s (%s)", path, r.body, r.header.Get("Cache-Status"))
			}
		}
	}
	t.Logf("%d writes, %d old answers of %d; PATCH straight p50 %s p99 %s, by way of the proxy p50 %s p99 %s, in the panel p50 %s p99 %s; %d waits timed out",
		*writesCount, old, 2**writesCount, quantile(direct, .5), quantile(direct, .99), quantile(proxied, .5), quantile(proxied, .99),
		quantile(panel, .5), quantile(panel, .99), s.cache.Stats().WriteWaitsTimedOut)
}

// patch changes a row's price by the API.
func (s *system) patch(at string, id int, price string) time.Duration {
	s.t.Helper()
	req, err := http.NewRequest(http.MethodPatch, at+row(id), strings.NewReader(`{"price":"`+price+`"}`))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+apiToken)
	req.Header.Set("Content-Type", "application/json")
	began := time.Now()
	res, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		s.t.Fatalf("PATCH %s: %s %s, %v", row(id), res.Status, body, err)
	}
	return time.Since(began)
}

// editor is somebody who has logged in to the panel, by way of the proxy.
type editor struct {
	*system
	browser *http.Client
}

func (s *system) logIn() *editor {
	s.t.Helper()
	if err := users.Create(context.Background(), s.db, "ada", "a long password"); err != nil {
		s.t.Fatal(err)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	e := &editor{s, &http.Client{Jar: jar}}
	if _, page := e.submit("/admin/login/", "name", "ada", "password", "a long password"); !strings.Contains(page, "ada") {
		s.t.Fatalf("logged in, and the page is\n%s", page)
	}
	return e
}

// change changes a row's price in the panel.
func (e *editor) change(id int, price string) time.Duration {
	e.t.Helper()
	took, _ := e.submit(fmt.Sprintf("/admin/properties/%d/", id), "price", price)
	return took
}

var (
	hiddenFields = regexp.MustCompile(`<input type="hidden" name="([a-z]+)" value="([^"]*)">`)
	textFields   = regexp.MustCompile(`<input id="([a-z]+)" name="[a-z]+" value="([^"]*)"`)
	textAreas    = regexp.MustCompile(`(?s)<textarea id="([a-z]+)"[^>]*>(.*?)</textarea>`)
)

// submit loads a page and sends its form with some fields changed, and returns
// how long sending took, and the page that it led to.
func (e *editor) submit(path string, fields ...string) (time.Duration, string) {
	e.t.Helper()
	res, err := e.browser.Get(e.url + path)
	page := e.read(res, err)
	form := url.Values{}
	for _, pattern := range []*regexp.Regexp{textFields, textAreas, hiddenFields} {
		for _, m := range pattern.FindAllStringSubmatch(page, -1) {
			form.Set(m[1], html.UnescapeString(m[2]))
		}
	}
	for i := 0; i < len(fields); i += 2 {
		form.Set(fields[i], fields[i+1])
	}
	began := time.Now()
	res, err = e.browser.PostForm(e.url+path, form)
	page = e.read(res, err)
	return time.Since(began), page
}

func (e *editor) read(res *http.Response, err error) string {
	e.t.Helper()
	if err != nil {
		e.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		e.t.Fatalf("%s: %s %s, %v", res.Request.URL, res.Status, body, err)
	}
	if stored := res.Header.Get("Cache-Status"); strings.Contains(stored, "stored") || strings.Contains(stored, "; hit") {
		e.t.Errorf("%s: %s", res.Request.URL, stored)
	}
	return string(body)
}
