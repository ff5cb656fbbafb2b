package docs

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"slices"
	"strings"
	"testing"
	"time"

	"walcache/proxy/sandbox/sandboxtest"
)

// TestOpenAPI_TheServiceAnswersAsDocumented asks for each operation of the data
// service, straight and by way of the proxy, well and in every way wrong that the
// document tells of.
func TestOpenAPI_TheServiceAnswersAsDocumented(t *testing.T) {
	env := demo(t)
	// By way of the proxy, which believes nobody's X-Forwarded-For, all come from
	// this machine: so it is there last that too many wrong tokens come from.
	for _, by := range []struct{ name, base string }{{"straight", env["BACKEND_URL"]}, {"by way of the proxy", env["PROXY_URL"]}} {
		t.Run(by.name, func(t *testing.T) {
			base := by.base
			c := readContract(t, "service.yaml", env["API_TOKEN"], map[string]string{"http://127.0.0.1:8001": base})
			before := c.count()
			t.Cleanup(func() { // the last of them
				if after := c.count(); after != before {
					t.Errorf("there were %v properties, and are %v now", before, after)
				}
			})
			s := service{c, asJSON("Cookie", signIn(t, base, env))}
			s.reads()
			s.writes()
			s.refusals()
			example := map[string]string{"id": "1", "version": "x", "name": "site.css"}
			c.otherMethods(example)
			c.withoutSlash(example)
			c.allSeen(serviceCannot)
			c.examplesHold()
		})
	}
}

// TestOpenAPI_EveryRouteOfTheServiceIsDocumented compares with the table in
// backend/api.
func TestOpenAPI_EveryRouteOfTheServiceIsDocumented(t *testing.T) {
	paths := strings.NewReplacer(`"`, "", "+", "", "listPath", "/properties/", "web.AssetPrefix", "/static/{version}/{name}", "{$}", "")
	var answered []string
	for _, route := range matches(t, source(t, "backend/api"), `(?s)\ta\.handle(?:Slashed)?\(([^,]+), methods\{(.*?)\}\)\n`) {
		for _, method := range matches(t, route[2], `"([A-Z]+)":`) {
			answered = append(answered, method[1]+" "+paths.Replace(route[1]))
		}
	}
	readContract(t, "service.yaml", "", nil).sameRoutes(answered)
}

// serviceCannot says why a status does not come from a service that is well.
func serviceCannot(op operation, status string) string {
	switch {
	case slices.Contains([]string{"500", "502", "503", "504"}, status):
		return "the service or its database would have to be broken"
	case status == "409":
		return "two writes would have to meet in the database; see backend/api"
	}
	return ""
}

// asJSON are the fields of a program's request, before others.
func asJSON(others ...string) []string {
	return append([]string{"Accept", "application/json"}, others...)
}

// part and noPart ask for some of a body, past the proxy's cache, which answers
// with all of what it has.
var (
	part   = []string{"Range", "bytes=0-9", "Cache-Control", "no-store"}
	noPart = []string{"Range", "bytes=9999999-", "Cache-Control", "no-store"}
)

func (c *contract) count() any {
	c.t.Helper()
	return c.do("listPropertiesUncached", 200, ask{query: "format=json"}).json(c.t)["count"]
}

// signIn returns the session's cookie of somebody at the panel.
func signIn(t *testing.T, base string, env map[string]string) string {
	t.Helper()
	jar, _ := cookiejar.New(nil) // it fails for a wrong list of suffixes alone, and there is none
	browser := &http.Client{Jar: jar, CheckRedirect: client.CheckRedirect}
	req, err := http.NewRequest(http.MethodPost, base+"/admin/login/", strings.NewReader(form("name", env["SUPERUSER_NAME"], "password", env["SUPERUSER_PASSWORD"], "next", "/admin/")))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	res, err := browser.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	cookies := jar.Cookies(req.URL)
	if res.StatusCode != http.StatusSeeOther || len(cookies) != 1 {
		t.Fatalf("sign in: %s, %d cookies", res.Status, len(cookies))
	}
	return cookies[0].String()
}

// service is the data service, as a document says it is.
type service struct {
	*contract
	signedIn []string // header fields of somebody at the panel
}

func (s service) reads() {
	s.t.Helper()
	s.do("home", 302, ask{})
	s.do("health", 200, ask{})
	page := string(s.do("listProperties", 200, ask{header: []string{"Accept", "text/html"}}).body)
	asset := s.asset(page, "/static/")
	s.do("getAsset", 200, ask{path: asset})
	s.do("getAsset", 206, ask{path: asset, header: part})
	s.do("getAsset", 416, ask{path: asset, header: noPart})
	s.do("getAsset", 404, ask{path: map[string]string{"version": "x", "name": "site.css"}})

	list := s.do("listProperties", 200, ask{header: asJSON()})
	s.do("listProperties", 200, ask{query: "search=a&location=Downtown&min_price=1&max_price=99999999.99&sort=-price&page=1&page_size=1&format=json"})
	s.unchanged("listProperties", nil)
	s.do("listProperties", 206, ask{header: asJSON(part...)})
	s.do("listProperties", 416, ask{header: asJSON(noPart...)})
	s.do("listProperties", 412, ask{header: asJSON("If-Match", `"another"`)})
	s.do("listProperties", 400, ask{query: "format=xml", header: asJSON()})
	s.do("listProperties", 400, ask{query: "format=json&min_price=2&max_price=1"})
	s.do("listPropertiesUncached", 200, ask{header: []string{"Accept", "text/html"}})
	s.do("listPropertiesUncached", 400, ask{query: "format=xml"})

	id := map[string]string{"id": fmt.Sprint(list.json(s.t)["properties"].([]any)[0].(map[string]any)["id"])}
	s.do("getProperty", 200, ask{path: id, header: asJSON()})
	s.do("getProperty", 200, ask{path: id, query: "format=html"})
	s.unchanged("getProperty", id)
	s.do("getProperty", 206, ask{path: id, header: asJSON(part...)})
	s.do("getProperty", 416, ask{path: id, header: asJSON(noPart...)})
	s.do("getProperty", 412, ask{path: id, header: asJSON("If-Match", `"another"`)})
	s.do("getProperty", 400, ask{path: id, query: "format=xml"})
	s.do("getProperty", 404, ask{path: map[string]string{"id": "999999999"}, header: asJSON()})
}

// unchanged asks for something once more with the ETag that it had. That of a list
// is another when the list comes from the service's cache for the first time,
// since the list says so.
func (s service) unchanged(id string, path map[string]string) {
	s.t.Helper()
	op := s.operation(id)
	sandboxtest.Eventually(s.t, time.Minute, func() error {
		tag := s.send(op, ask{path: path, header: asJSON()}).header.Get("ETag")
		if got := s.send(op, ask{path: path, header: asJSON("If-None-Match", tag)}); got.status != http.StatusNotModified {
			return fmt.Errorf("%s with the ETag that it had: %d", id, got.status)
		}
		return nil
	})
}

// create adds a property, which is deleted when the test is over, however it
// ends.
func (s service) create(a ask) (id map[string]string, created reply) {
	s.t.Helper()
	created = s.do("createProperty", 201, a)
	id = map[string]string{"id": strings.Trim(strings.TrimPrefix(created.header.Get("Location"), "/properties"), "/")}
	s.t.Cleanup(func() { s.send(s.operation("deleteProperty"), ask{path: id}) })
	return id, created
}

func (s service) writes() {
	s.t.Helper()
	for _, value := range s.requestExamples("createProperty") {
		text, _ := json.Marshal(value) // it was JSON
		s.create(ask{body: string(text)})
	}
	id, created := s.create(ask{body: `{"title": "Modern Loft", "price": 1250, "location": "Downtown"}`})
	s.do("changeProperty", 412, ask{path: id, body: `{"price": "1"}`, header: []string{"If-Match", `"another"`}})
	s.do("changeProperty", 200, ask{path: id, body: `{"price": "1300.00"}`, header: []string{"If-Match", created.header.Get("ETag")}})
	whole := `{"title": "Modern Loft", "description": "", "price": "1400", "location": "Downtown"}`
	s.do("replaceProperty", 412, ask{path: id, body: whole, header: []string{"If-Match", created.header.Get("ETag")}})
	s.do("replaceProperty", 200, ask{path: id, body: whole})

	asForm := append(slices.Clone(s.signedIn), "Accept", "text/html", "Content-Type", "application/x-www-form-urlencoded", "Authorization", "", "Sec-Fetch-Site", "same-origin")
	s.do("changeProperty", 303, ask{path: id, body: form("price", "1500"), header: asForm})
	s.do("replaceProperty", 303, ask{path: id, body: form("title", "Modern Loft", "description", "", "price", "1500", "location", "Downtown"), header: asForm})
	sent := s.do("createProperty", 303, ask{body: form("title", "Modern Loft", "price", "1500", "location", "Downtown"), header: asForm})
	s.do("deleteProperty", 204, ask{path: map[string]string{"id": strings.Split(sent.header.Get("Location"), "/")[2]}})
	s.do("deleteProperty", 412, ask{path: id, header: []string{"If-Match", `"another"`}})
	s.do("deleteProperty", 204, ask{path: id})
}

// requestExamples are what the document says to send.
func (c *contract) requestExamples(id string) (values []any) {
	c.t.Helper()
	for _, media := range c.operation(id).RequestBody.Content.FromOldest() {
		values = append(values, examplesOf(c.t, media)...)
	}
	if len(values) == 0 {
		c.t.Fatalf("%s has no example", id)
	}
	return values
}

// refusals sends what is wrong to each operation that writes. None gets so far as
// to change anything.
func (s service) refusals() {
	s.t.Helper()
	long := `{"title": "` + strings.Repeat("a", 200<<10) + `"}`
	nowhere := map[string]string{"id": "999999999"}
	for _, id := range []string{"createProperty", "replaceProperty", "changeProperty", "deleteProperty"} {
		s.do(id, 401, ask{path: nowhere, header: []string{"Authorization", ""}})
		s.do(id, 403, ask{path: nowhere, header: append(slices.Clone(s.signedIn), "Authorization", "", "Sec-Fetch-Site", "cross-site")})
		if id == "deleteProperty" {
			s.do(id, 400, ask{path: nowhere, query: "format=xml"})
			s.do(id, 404, ask{path: nowhere})
			continue
		}
		s.do(id, 400, ask{path: nowhere, body: `{"title": `})
		s.do(id, 400, ask{path: nowhere, body: `{"rooms": "2"}`})
		s.do(id, 413, ask{path: nowhere, body: long})
		s.do(id, 415, ask{path: nowhere, body: "title=a", header: []string{"Content-Type", "text/plain"}})
		s.do(id, 415, ask{path: nowhere, body: "title", header: []string{"Content-Encoding", "gzip"}})
		if id != "createProperty" {
			s.do(id, 404, ask{path: nowhere, body: `{"title": "Modern Loft", "description": "", "price": "1", "location": "Downtown"}`})
		}
	}
	s.do("createProperty", 422, ask{body: `{"title": "a", "price": "0", "location": "Downtown"}`})
	id, _ := s.create(ask{body: `{"title": "Modern Loft", "price": "1250", "location": "Downtown"}`})
	s.do("replaceProperty", 422, ask{path: id, body: `{"title": "Modern Loft", "price": "1250", "location": "Downtown"}`})
	s.do("changeProperty", 422, ask{path: id, body: `{"title": "a", "price": "0"}`})
	s.do("createProperty", 401, ask{header: []string{"Authorization", "Bearer wrong"}})
	s.tooManyTokens()
}

// tooManyTokens guesses tokens from an address of its own, so that nobody else is
// held up.
func (s service) tooManyTokens() {
	s.t.Helper()
	for _, id := range []string{"createProperty", "replaceProperty", "changeProperty", "deleteProperty"} {
		got := reply{}
		for range 50 {
			got = s.send(s.operation(id), ask{path: map[string]string{"id": "1"},
				header: []string{"Authorization", "Bearer guess", "X-Forwarded-For", "192.0.2.77"}})
			if got.status == http.StatusTooManyRequests {
				break
			}
		}
		if got.status != http.StatusTooManyRequests {
			s.t.Errorf("%s: 50 wrong tokens got a %d", id, got.status)
		}
	}
}
