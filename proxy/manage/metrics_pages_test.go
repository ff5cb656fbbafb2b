//go:build pages

// Tests in a real browser (make test-pages): they need Chromium.
package manage

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// browsed is a proxy that people ask and that a browser looks at.
func browsed(t *testing.T) (p *proxy, m *Manager, url string) {
	t.Helper()
	p = newProxy(t)
	p.Guard.Open = true
	m = p.manager()
	mux := http.NewServeMux()
	prefix, assets := p.MetricsAssets()
	mux.Handle(prefix, assets)
	mux.Handle("/", p.front(m))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	t.Cleanup(m.monitor.stop) // before the server closes, which waits for streams
	return p, m, server.URL + "/properties/redis-metrics/"
}

// tab is one of a browser of this test's own.
type tab struct {
	t   *testing.T
	ctx context.Context
}

// newTab opens one. What the page complains of fails the test.
func newTab(t *testing.T) *tab {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.WSURLReadTimeout(patience))
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
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
			if (m.IsException() || m.Type == "error") && !strings.HasSuffix(m.URL, "/favicon.ico") {
				t.Errorf("the browser complains: %s %s", m, m.URL)
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return &tab{t, ctx}
}

// do does what is to be done in the page.
func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// becomes waits until an expression in the page is true.
func (b *tab) becomes(expression string) {
	b.t.Helper()
	_, err := chromedp.Run(b.ctx, chromedp.Poll[bool](expression, chromedp.WithPollingInterval(100*time.Millisecond), chromedp.WithPollingTimeout(patience)))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
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
	state    = `document.querySelector("#stream").textContent`
	requests = `document.querySelector("#proxy dd:nth-of-type(2)").textContent`
)

func TestPages_TheFiguresFollowWhatIsAsked(t *testing.T) {
	p, _, url := browsed(t)
	b := newTab(t)
	b.do(chromedp.Navigate(url))
	b.becomes(state + ` === "Live"`)
	for n := range 3 { // that it changes once could be the first reading
		for range 10 {
			p.get("/properties/1")
		}
		b.becomes(fmt.Sprintf(`%s === "%d"`, requests, 10*(n+1)))
	}
	b.becomes(`document.querySelector("#ratio-plot svg[role=img]").getAttribute("aria-label").includes("highest 100%")`)
	name, line := b.text(`document.querySelector("#ratio-plot svg[role=img]").getAttribute("aria-label")`), b.text(`document.querySelector("#rate-plot svg[role=img] path.line-1").getAttribute("d")`)
	if !strings.HasPrefix(name, "Hit ratio from ") || !strings.HasPrefix(line, "M") {
		t.Errorf("plot %q, line %q", name, line)
	}
	b.do(chromedp.Click("#rate-plot summary"))
	b.becomes(`document.querySelector("#rate-plot table tbody tr") !== null`)
	if head := b.text(`document.querySelector("#rate-plot table thead").textContent`); !strings.Contains(head, "hits in memory") {
		t.Errorf("table %q", head)
	}
}

func TestPages_AreWholeWithoutScripts(t *testing.T) {
	p, m, url := browsed(t)
	p.get("/properties/1")
	p.get("/properties/1")
	m.monitor.history.take(time.Now())
	b := newTab(t)
	if _, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		t.Fatal(err)
	}
	b.do(chromedp.Navigate(url))
	text := b.text(`document.querySelector("main").innerText`)
	for _, part := range []string{"Redis Cache Performance Metrics", "50.0% Hit Ratio", "Redis Version", "Used Memory", "Cache Efficiency Analysis", "Recommendations:", "What Stands Out", "/properties/{}"} {
		if !strings.Contains(text, part) {
			t.Errorf("the page lacks %q", part)
		}
	}
	if strings.Contains(text, "Pause") || strings.Contains(text, "Time of hits") {
		t.Error("it offers what needs a script")
	}
	if t.Failed() {
		t.Log(text)
	}
}

func TestPages_PauseAndResume(t *testing.T) {
	p, m, url := browsed(t)
	b := newTab(t)
	b.do(chromedp.Navigate(url))
	b.becomes(state + ` === "Live"`)
	b.do(chromedp.Focus("#pause"), chromedp.KeyEvent("\r"))
	b.becomes(state + ` === "Paused"`)
	p.get("/properties/1")
	_, _, more := m.monitor.history.After("")
	<-more
	_, _, more = m.monitor.history.After("")
	<-more // so that two were not shown
	if paused := b.text(requests); paused != "0" {
		t.Errorf("%s requests while paused", paused)
	}
	b.do(chromedp.KeyEvent("\r"))
	b.becomes(requests + ` === "1"`)
	b.becomes(state + ` === "Live"`)
}

func TestPages_SayThatTheProxyIsAway(t *testing.T) {
	_, m, url := browsed(t)
	b := newTab(t)
	b.do(chromedp.Navigate(url))
	b.becomes(state + ` === "Live"`)
	m.monitor.stop()
	b.becomes(state + `.startsWith("Not connected")`)
}
