package docs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	"walcache/proxy/sandbox/sandboxtest"
)

// TestOpenAPI_TheProxyAnswersAsDocumented asks for each operation at its place,
// well and in every way wrong that the document tells of.
func TestOpenAPI_TheProxyAnswersAsDocumented(t *testing.T) {
	env := demo(t)
	c := readContract(t, "proxy.yaml", env["ADMIN_TOKEN"], map[string]string{
		"http://127.0.0.1:8001": env["PROXY_URL"], "http://127.0.0.1:8003": env["ADMIN_URL"],
	})
	if res, err := http.Get(env["PROXY_URL"] + "/properties/"); err != nil {
		t.Fatal(err)
	} else {
		res.Body.Close() // so that there is something to look at
	}
	p := operator{c, env["PROXY_URL"]}
	p.process()
	p.pages()
	p.changes()
	for _, where := range []map[string]string{
		{"status": "cacheStatus", "clear": "cacheClear", "test": "cacheTest", "signals": "testSignals", "load": "cacheLoadTest", "metrics": "redisMetrics"},
		{"status": "adminCacheStatus", "clear": "adminCacheClear", "test": "adminCacheTest", "signals": "adminTestSignals", "load": "adminCacheLoadTest", "metrics": "adminRedisMetrics"},
	} {
		p.manages(where)
	}
	p.do("adminTestSignals", 200, ask{body: `{"probe": true}`})
	p.streams()
	p.refusals()
	c.otherMethods(exampleOfAdmin)
	c.withoutSlash(nil)
	c.allSeen(proxyCannot)
	c.examplesHold()
}

// TestOpenAPI_EveryRouteOfTheProxyIsDocumented compares with the tables in
// proxy/manage and proxy/admin.
func TestOpenAPI_EveryRouteOfTheProxyIsDocumented(t *testing.T) {
	var answered []string
	for _, op := range matches(t, source(t, "proxy/manage"), `\t\{"([^"]*)", "(/[^"]+)", http\.Method(\w+), (?:true|false), "to `) {
		method := strings.ToUpper(op[3])
		answered = append(answered, method+" "+op[2])
		if op[1] != "" {
			answered = append(answered, method+" /properties/"+op[1]+"/")
		}
	}
	for range matches(t, source(t, "proxy/manage"), `:= m\.MetricsAssets\(\)`) {
		answered = append(answered, "GET /properties/redis-metrics/static/{version}/{name}")
	}
	paths := strings.NewReplacer("{$}", "", "/static/", "/static/{version}/{name}")
	for _, route := range matches(t, source(t, "proxy/admin"), `"([A-Z]+ /[^" ]*)"`) {
		answered = append(answered, paths.Replace(route[1]))
	}
	readContract(t, "proxy.yaml", "", nil).sameRoutes(answered)
}

// exampleOfAdmin fills in the paths of the admin port.
var exampleOfAdmin = map[string]string{"what": "off", "version": "x", "name": "site.css"}

// proxyCannot says why a status does not come from a demo that is well.
func proxyCannot(op operation, status string) string {
	onAdmin := !strings.HasPrefix(op.path, "/properties/")
	switch {
	case status == "500" || status == "502" || status == "503":
		return "Redis, the service, the listener or the program would have to be broken"
	case status == "401" && onAdmin && op.method == http.MethodGet:
		return "the admin port of the demo is on loopback, where everybody may read; see proxy/guard"
	case status == "403" && op.method == http.MethodGet:
		return "the demo has a token; see proxy/guard"
	case status == "404" && op.OperationId == "entries":
		return "the process would have to keep no answers; see proxy/admin"
	}
	return ""
}

// operator is the proxy, as a document says it is.
type operator struct {
	*contract
	proxy string // its URL
}

func (p operator) process() {
	p.t.Helper()
	for _, id := range []string{"healthz", "readyz", "metrics", "status"} {
		p.do(id, 200, ask{header: []string{"Authorization", ""}})
	}
	p.do("status", 200, ask{header: []string{"Authorization", "Basic bm9ib2R5OndoYXRldmVy"}}) // reading needs none here
	for _, query := range []string{"tag=*", "tag=properties", "url=" + p.proxy + "/properties/"} {
		p.do("entries", 200, ask{query: query + "&format=json"})
	}
	p.do("entries", 200, ask{query: "tag=*", header: []string{"Accept", "text/html"}})
	p.do("entries", 400, ask{query: "format=json"})
	p.do("entries", 400, ask{query: "url=nothing"})
}

func (p operator) pages() {
	p.t.Helper()
	page := string(p.do("operatorPage", 200, ask{}).body)
	for _, what := range []string{"off", "all", "clear"} {
		p.do("confirmPage", 200, ask{path: map[string]string{"what": what}})
	}
	p.do("confirmPage", 404, ask{path: map[string]string{"what": "nothing"}})
	metrics := string(p.do("redisMetrics", 200, ask{header: []string{"Accept", "text/html"}}).body)
	files := map[string]map[string]string{
		"operatorStyle": nil, "operatorScript": nil, "getAsset": p.asset(page, "/static/"),
		"redisMetricsAsset": p.asset(metrics, "/properties/redis-metrics/static/"),
	}
	for id, path := range files {
		p.do(id, 200, ask{path: path})
		p.do(id, 206, ask{path: path, header: []string{"Range", "bytes=0-9"}})
		p.do(id, 416, ask{path: path, header: []string{"Range", "bytes=9999999-"}})
	}
	p.do("getAsset", 404, ask{path: exampleOfAdmin})
	p.do("redisMetricsAsset", 404, ask{path: exampleOfAdmin})
}

// asForm are the fields of a browser's form.
var asForm = []string{"Content-Type", "application/x-www-form-urlencoded", "Accept", "text/html", "Sec-Fetch-Site", "same-origin"}

// changes has everything done that is done by a message. Caching is on again when
// the test is over, however it ends.
func (p operator) changes() {
	p.t.Helper()
	p.t.Cleanup(func() { p.do("cacheOn", 200, ask{query: "wait=all"}) })
	for _, id := range []string{"cacheOff", "cacheOn"} {
		p.do(id, 303, ask{header: asForm})
		done := p.do(id, 200, ask{query: "wait=all"}).json(p.t)
		if done["all"] != true {
			p.t.Errorf("%s: %v", id, done)
		}
	}
	for _, value := range p.requestExamples("cachePurge") {
		text, _ := json.Marshal(value) // it was JSON
		p.do("cachePurge", 200, ask{body: string(text)})
	}
	p.do("cachePurge", 303, ask{body: form("tag", "properties/id=1"), header: asForm})
	p.do("cachePurge", 400, ask{body: "{}"})
	p.do("cachePurge", 400, ask{body: form("url", "nothing"), header: asForm})
	p.do("adminCacheClear", 303, ask{header: asForm})

	for _, value := range p.requestExamples("cacheWarm") {
		text, _ := json.Marshal(value)
		p.do("cacheWarm", 200, ask{body: string(text)})
		p.do("cacheWarm", 200, ask{body: string(text), header: []string{"Accept", "application/x-ndjson"}})
	}
	p.do("cacheWarm", 200, ask{})
	p.do("cacheWarm", 400, ask{body: `{"paths": ["//elsewhere/"]}`})
}

// manages asks for what answers at two places, at one of them.
func (p operator) manages(id map[string]string) {
	p.t.Helper()
	p.do(id["status"], 200, ask{})
	p.do(id["status"], 200, ask{query: "url=" + p.proxy + "/properties/1/"})
	p.do(id["status"], 400, ask{query: "url=nothing"})
	p.do(id["clear"], 200, ask{})
	p.do(id["clear"], 200, ask{query: "wait=all"})
	p.atOnce(id["test"], ask{}, ask{})
	p.do(id["signals"], 400, ask{body: `{"rows": 1}`})
	p.atOnce(id["signals"], ask{body: `{"probe": true}`}, ask{})
	for _, value := range p.requestExamples(id["load"]) {
		text, _ := json.Marshal(value) // it was JSON
		p.do(id["load"], 200, ask{body: string(text)})
		p.do(id["load"], 200, ask{body: string(text), header: []string{"Accept", "application/x-ndjson"}})
	}
	p.do(id["load"], 400, ask{body: `{"requests": 10001}`})
	p.atOnce(id["load"], ask{body: `{"requests": 10000, "connections": 1}`}, ask{body: `{"requests": 1}`})
	p.do(id["metrics"], 200, ask{header: []string{"Accept", "application/json"}})
	p.do(id["metrics"], 200, ask{header: []string{"Accept", "text/html"}})
	p.do(id["metrics"], 400, ask{query: "format=xml"})
}

// atOnce asks for something that one at a time may, and meanwhile once more, until
// the second is told so. The first ends with the client that asked; when it has,
// there is room again.
func (p operator) atOnce(id string, long, short ask) {
	p.t.Helper()
	op := p.operation(id)
	refused := func() error {
		ctx, leave := context.WithCancel(p.t.Context())
		defer leave()
		sent, written := context.WithCancel(ctx)
		ended := make(chan struct{})
		trace := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { written() }})
		go func() {
			defer close(ended)
			defer written()
			if res, err := client.Do(p.request(op, long).WithContext(trace)); err == nil {
				res.Body.Close()
			}
		}()
		<-sent.Done()
		for {
			if p.send(op, short).status == http.StatusConflict {
				return nil
			}
			select {
			case <-ended:
				return errors.New("nobody was told that another is at it")
			default:
			}
		}
	}
	sandboxtest.Eventually(p.t, time.Minute, refused)
	sandboxtest.Eventually(p.t, time.Minute, func() error {
		if got := p.send(op, short); got.status != http.StatusOK {
			return fmt.Errorf("%s: %d after the other had left", id, got.status)
		}
		return nil
	})
}

func (p operator) streams() {
	p.t.Helper()
	p.do("statusEvents", 200, ask{events: 2})
	p.do("changeEvents", 200, ask{events: 1, query: "after=0"}) // there were purges
	p.do("redisMetricsEvents", 200, ask{events: 3})
	p.do("adminRedisMetricsEvents", 200, ask{events: 3})
}

// refusals asks for each operation under a foreign name, without a token from
// somewhere else, and from another site's page.
func (p operator) refusals() {
	p.t.Helper()
	for _, op := range p.operations() {
		documented := func(status string) bool {
			return op.Responses.Codes.GetOrZero(status) != nil && proxyCannot(op, status) == ""
		}
		if documented("421") {
			p.do(op.OperationId, 421, ask{path: exampleOfAdmin, header: []string{"Host", "elsewhere.example"}})
		}
		if documented("401") {
			p.do(op.OperationId, 401, ask{path: exampleOfAdmin, header: []string{"Authorization", "", "X-Forwarded-For", "192.0.2.1"}})
		}
		if documented("403") {
			p.do(op.OperationId, 403, ask{path: exampleOfAdmin, header: []string{"Sec-Fetch-Site", "cross-site"}})
		}
	}
}
