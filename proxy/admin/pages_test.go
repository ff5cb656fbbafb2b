//go:build pages

// Tests in a real browser (make test-pages): they need Chromium.
package admin

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/fetch"
	"github.com/chromedp/chromedp"

	"walcache/proxy/coherence"
)

// tab is one of a browser of this test's own.
type tab struct {
	t   *testing.T
	ctx context.Context
}

// newTab opens one. What a page complains of fails the test, but for what it
// could not load of the paths that are expected.
func newTab(t *testing.T, expected ...string) *tab {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.WSURLReadTimeout(patience))
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 6*patience)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("Chromium: %v\n  try: apt-get install chromium", err)
	}
	messages, ended := chromedp.Console(ctx), make(chan struct{})
	go func() {
		defer close(ended)
		for m, err := range messages {
			if err != nil {
				return
			}
			known := slices.ContainsFunc(append(expected, "/favicon.ico"), func(path string) bool { return strings.Contains(m.URL, path) })
			if (m.IsException() || m.Type == "error") && !known {
				t.Errorf("the browser complains: %s %s", m, m.URL)
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return &tab{t, ctx}
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// leads does what leads to another page, and waits for that.
func (b *tab) leads(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if _, err := chromedp.RunResponse(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// becomes waits until an expression in the page is true.
func (b *tab) becomes(expression string) {
	b.t.Helper()
	_, err := chromedp.Run(b.ctx, chromedp.Poll[bool](expression, chromedp.WithPollingInterval(100*time.Millisecond), chromedp.WithPollingTimeout(patience)))
	if err != nil {
		b.t.Fatalf("%s: %v\n%s", expression, err, b.text(`document.body.innerText`))
	}
}

// text is what an expression in the page evaluates to.
func (b *tab) text(expression string) string {
	b.t.Helper()
	s, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](expression))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return s
}

const (
	verdictText = `document.querySelector("#verdict").innerText`
	isLive      = `document.querySelector("#stream").textContent === "Live"`
)

func TestPages_TheOperatorSeesWhatHappens(t *testing.T) {
	p := newCalmProxy(t)
	p.sources.History = lately{}
	s, web := served(t, p, Config{Addr: loopback})
	b := newTab(t)
	b.do(chromedp.Navigate(web.URL))
	b.becomes(isLive)
	b.becomes(verdictText + `.startsWith("Does not vouch")`)
	p.beat()
	b.becomes(verdictText + `.startsWith("Vouches")`)
	p.ask("/properties", "/properties")
	b.becomes(`document.querySelector("#keys").innerText.includes("50.0 %")`)
	watched(t, p, s)
	p.commit("properties", 1234)
	b.becomes(`[...document.querySelectorAll("#changes tr")].some((r) => r.cells[1].textContent === "properties" && r.cells[2].textContent === "1,234" && r.cells[3].textContent === "properties")`)
	b.becomes(`document.querySelector("#tables").innerText.includes("1,234")`)
	b.becomes(`document.querySelector("#plot-ratio svg[role=img]") !== null`)
	for range 2 * keptChanges {
		p.commit("users", 1)
	}
	b.becomes(`document.querySelectorAll("#changes tr").length === 100`)
}

func TestPages_WhoReadsIsNotInterrupted(t *testing.T) {
	p := newCalmProxy(t)
	p.beat()
	p.ask("/properties", "/users")
	_, web := served(t, p, Config{Addr: loopback})
	b := newTab(t)
	b.do(chromedp.Navigate(web.URL))
	b.becomes(isLive)
	b.do(chromedp.Focus("#keys a"))
	p.ask("/properties", "/properties")
	b.becomes(`document.querySelector("#answers").innerText.includes("50.0 %")`)
	if stays := b.text(`String(document.activeElement.matches("#keys a"))`); stays != "true" {
		t.Error("the focus is lost")
	}
	b.do(chromedp.Blur("#keys a"))
	b.becomes(`document.querySelector("#keys").innerText.includes("66.7 %")`)
}

func TestPages_WhatIsHostileIsShownAndNotRun(t *testing.T) {
	p := hostile(t)
	s, web := served(t, p, Config{Addr: loopback})
	watched(t, p, s)
	b := newTab(t)
	b.do(chromedp.Navigate(web.URL))
	b.becomes(isLive)
	p.commit("<img src=x onerror=alert(1)>", 1)
	b.becomes(`document.querySelector("#changes").innerText.includes("<img src=x")`)
	b.becomes(`document.querySelector("#tables").innerText.includes("<img src=x")`)
	b.do(chromedp.Navigate(web.URL + "/entries?tag=*"))
	if found := b.text(`document.querySelector("main").innerText`); !strings.Contains(found, "<script>alert('vary')</script>") {
		t.Errorf("found %s", found)
	}
	if n := b.text(`String(document.querySelectorAll("main script, main img").length)`); n != "0" {
		t.Errorf("%s of what is hostile are elements", n)
	}
}

func TestPages_AreWholeWithoutScripts(t *testing.T) {
	p := newCalmProxy(t)
	p.beat()
	s, web := served(t, p, Config{Addr: loopback})
	watched(t, p, s)
	p.ask("/properties", "/properties")
	b := newTab(t)
	if _, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		t.Fatal(err)
	}
	b.do(chromedp.Navigate(web.URL))
	text := b.text(`document.querySelector("main").innerText`)
	for _, part := range []string{"Vouches. Every hit is proven fresh.", "A snapshot of", "Age of the evidence", "50.0 %", "users", "Purge everything", "/properties"} {
		if !strings.Contains(text, part) {
			t.Errorf("the page lacks %q", part)
		}
	}
	if strings.Contains(text, "Pause") || strings.Contains(text, "Hit ratio, percent") {
		t.Error("it offers what needs a script")
	}
	if t.Failed() {
		t.Log(text)
	}
}

// givesToken answers when the browser is asked for the token.
func (b *tab) givesToken(token string) {
	b.t.Helper()
	handle := true
	if _, err := chromedp.Call(b.ctx, fetch.Enable, fetch.EnableParams{Patterns: []*fetch.RequestPattern{{URLPattern: "*/cache/*"}}, HandleAuthRequests: &handle}); err != nil {
		b.t.Fatal(err)
	}
	err := chromedp.Listen(b.ctx, func(event any) {
		switch e := event.(type) {
		case *fetch.EventRequestPaused:
			go func() {
				_, _ = chromedp.Call(b.ctx, fetch.ContinueRequest, fetch.ContinueRequestParams{RequestID: e.RequestID})
			}()
		case *fetch.EventAuthRequired:
			go func() {
				_, _ = chromedp.Call(b.ctx, fetch.ContinueWithAuth, fetch.ContinueWithAuthParams{RequestID: e.RequestID, AuthChallengeResponse: &fetch.AuthChallengeResponse{
					Response: fetch.AuthChallengeResponseResponseProvideCredentials, Username: "operator", Password: token,
				}})
			}()
		}
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

func TestPages_WhoHasTheTokenPurgesAndSwitchesOff(t *testing.T) {
	p, said, _ := operated(t)
	_, web := served(t, p, Config{Addr: loopback, Token: "a secret"})
	b := newTab(t)
	b.givesToken("a secret")
	b.do(chromedp.Navigate(web.URL), chromedp.SendKeys("#purge-tag", "properties"))
	b.leads(chromedp.Click(`form[aria-label="Purge a tag"] button`))
	if words := b.text(`document.querySelector("#said").innerText`); !strings.HasPrefix(words, "Purged every answer that depends on the tag properties. It is done on every process.") {
		t.Errorf("it says %q", words)
	}
	b.leads(chromedp.Click(`a[href="/confirm/off"]`))
	b.leads(chromedp.Click("button.danger"))
	if got := strings.Join(said.said, "; "); got != "bump properties; cache off" {
		t.Errorf("said %q", got)
	}
	p.sources.Tracker.SetCatalog(&coherence.Catalog{Off: true})
	b.becomes(verdictText + `.startsWith("Switched off")`)
	b.leads(chromedp.Click("#switch button"))
	if words := b.text(`document.querySelector("#said").innerText`); !strings.HasPrefix(words, "Caching is switched on.") {
		t.Errorf("it says %q", words)
	}
}

func TestPages_SayThatNothingIsHeard(t *testing.T) {
	p := newCalmProxy(t)
	p.beat()
	s, web := served(t, p, Config{Addr: loopback})
	b := newTab(t, "/events")
	b.do(chromedp.Navigate(web.URL))
	b.becomes(isLive)
	s.Drain()
	b.becomes(`document.querySelector("#silent").innerText.startsWith("Not known.") && document.querySelector("#verdict").hidden`)
}
