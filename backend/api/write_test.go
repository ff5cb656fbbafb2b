package api

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"

	"walcache/backend/edit"
	"walcache/backend/queryset"
	"walcache/schema"

	"walcache/proxy/sandbox/sandboxtest"
)

// rows are those of properties and of changes, as text.
func (s *site) rows() string {
	s.t.Helper()
	rows, err := s.pool.Query(s.t.Context(), `
		SELECT concat_ws(' ', 'property', id, title, description, price, location) FROM properties
		UNION ALL SELECT concat_ws(' ', who, action, property_id, title, fields) FROM changes
		ORDER BY 1`)
	if err != nil {
		s.t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

var (
	bearer   = []string{"Authorization", "Bearer " + token}
	typeJSON = []string{"Content-Type", "application/json"}
	typeForm = []string{"Content-Type", "application/x-www-form-urlencoded"}
)

func headers(all ...[]string) (h []string) {
	for _, pair := range all {
		h = append(h, pair...)
	}
	return h
}

const hut = `{"title":" Hut ","description":"One\r\nroom","price":1250.5,"location":"Nairobi"}`

func TestWrites_CreateReplaceChangeDelete(t *testing.T) {
	s := newMigratedSite(t)
	byProgram := headers(bearer, typeJSON)

	w, body := s.send("POST", "/properties/", hut, byProgram...)
	if w.StatusCode != 201 || !strings.HasPrefix(body, `{"id":1,"title":"Hut","description":"One\nroom","price":"1250.50","location":"Nairobi","created_at":"`) {
		t.Fatalf("create: %d %s", w.StatusCode, body)
	}
	expectHeader(t, "create", w, "Location", "/properties/1/")
	expectHeader(t, "create", w, "Cache-Control", "no-store")
	if got, same := s.do("GET", "/properties/1/"); same != body || got.Header.Get("ETag") != w.Header.Get("ETag") {
		t.Errorf("created %s, then got %s", body, same)
	}

	w, body = s.send("PATCH", "/properties/1/", `{"price":"99"}`, byProgram...)
	if w.StatusCode != 200 || !strings.Contains(body, `"title":"Hut","description":"One\nroom","price":"99.00"`) {
		t.Errorf("change: %d %s", w.StatusCode, body)
	}
	expectHeader(t, "change", w, "Content-Location", "/properties/1/")
	if got, _ := s.do("GET", "/properties/1/"); got.Header.Get("ETag") != w.Header.Get("ETag") {
		t.Errorf("changed to %s, then got %s", w.Header.Get("ETag"), got.Header.Get("ETag"))
	}

	w, body = s.send("PUT", "/properties/1/", `{"location":"Kisumu","title":"House","description":"","price":1}`, byProgram...)
	if w.StatusCode != 200 || !strings.Contains(body, `"title":"House","description":"","price":"1.00","location":"Kisumu"`) {
		t.Errorf("replace: %d %s", w.StatusCode, body)
	}
	expectHeader(t, "replace", w, "ETag", "")

	w, body = s.send("DELETE", "/properties/1/", "", bearer...)
	if w.StatusCode != 204 || body != "" {
		t.Errorf("delete: %d %s", w.StatusCode, body)
	}
	expectHeader(t, "delete", w, "Cache-Control", "no-store")
	for _, line := range []string{"api added 1", "api changed 1", "api deleted 1"} {
		if !strings.Contains(s.rows(), line) {
			t.Errorf("changes do not say %q:\n%s", line, s.rows())
		}
	}
	if n := strings.Count(s.rows(), "\n"); n != 3 {
		t.Errorf("rows left:\n%s", s.rows())
	}
}

func TestWrites_AreReadInEveryType(t *testing.T) {
	s := newMigratedSite(t)
	const form = "title=Hut&description=a%0D%0Ab&price=5&location=Here"
	multipart := strings.ReplaceAll("--x\nContent-Disposition: form-data; name=\"title\"\n\nHut\n--x\nContent-Disposition: form-data; name=\"price\"\n\n5\n"+
		"--x\nContent-Disposition: form-data; name=\"description\"\n\na\nb\n--x\nContent-Disposition: form-data; name=\"location\"\n\nHere\n--x--\n", "\n", "\r\n")
	for _, c := range []struct{ contentType, body string }{
		{"application/json", `{"title":"Hut","description":"a\nb","price":5,"location":"Here"}`},
		{"application/json; charset=UTF-8", `{"title":"Hut","description":"a\nb","price":"5.0","location":"Here"}`},
		{"application/merge-patch+json", ` {"title":"Hut","description":"a\r\nb","price":5.00,"location":"\u0048ere"} `},
		{"application/x-www-form-urlencoded", form},
		{"application/x-www-form-urlencoded;charset=utf-8", form},
		{"multipart/form-data; boundary=x", multipart},
	} {
		w, body := s.send("POST", "/properties/", c.body, headers(bearer, []string{"Content-Type", c.contentType})...)
		if w.StatusCode != 201 || !strings.Contains(body, `"title":"Hut","description":"a\nb","price":"5.00","location":"Here"`) {
			t.Errorf("%s: %d %s", c.contentType, w.StatusCode, body)
		}
	}
}

func TestWrites_APersonIsSentToThePage(t *testing.T) {
	s := newMigratedSite(t)
	browser := headers(typeForm, []string{"Accept", "text/html,*/*;q=0.8", "Cookie", "session=ann", "Sec-Fetch-Site", "same-origin"})
	w, _ := s.send("POST", "/properties/", "title=Hut&price=5&location=Here", browser...)
	if w.StatusCode != 303 {
		t.Errorf("%d", w.StatusCode)
	}
	expectHeader(t, "create", w, "Location", "/properties/1/")
	w, page := s.send("POST", "/properties/", "title=H&price=x", browser...)
	if w.StatusCode != 422 || !strings.Contains(page, "<strong>title</strong>: must have at least 3 characters") || !strings.Contains(page, "<strong>location</strong>: is required") {
		t.Errorf("%d %s", w.StatusCode, page)
	}
	if !strings.Contains(s.rows(), "ann added 1") {
		t.Errorf("rows\n%s", s.rows())
	}
}

func TestPriceInJSON_IsTakenDigitByDigit(t *testing.T) {
	s := newMigratedSite(t)
	for in, want := range map[string]string{"99999999.99": "99999999.99", "0.01": "0.01", `"12345678.9"`: "12345678.90", "4.35": "4.35"} {
		_, body := s.send("POST", "/properties/", `{"title":"Hut","location":"Here","price":`+in+`}`, headers(bearer, typeJSON)...)
		if !strings.Contains(body, `"price":"`+want+`"`) {
			t.Errorf("%s: %s", in, body)
		}
	}
}

func TestIfMatch_LetsOneOfTwoChanges(t *testing.T) {
	s := newMigratedSite(t)
	s.exec(insertTwo)
	seen := func(accept string) string {
		w, _ := s.send("GET", "/properties/1/", "", "Accept", accept)
		return w.Header.Get("ETag")
	}
	for _, accept := range []string{"application/json", "text/html"} {
		tag := seen(accept)
		change := func(price string) (*http.Response, string) {
			return s.send("PATCH", "/properties/1/", `{"price":`+price+`}`, headers(bearer, typeJSON, []string{"Accept", accept, "If-Match", `"other", ` + tag})...)
		}
		if w, body := change("11"); w.StatusCode != 200 && w.StatusCode != 303 {
			t.Errorf("%s: the first %d %s", accept, w.StatusCode, body)
		}
		w, body := change("22")
		if w.StatusCode != 412 {
			t.Errorf("%s: the second %d %s", accept, w.StatusCode, body)
		}
		expectHeader(t, accept, w, "ETag", seen(accept))
		if !strings.Contains(s.rows(), "11.00 Nairobi") {
			t.Errorf("%s: rows\n%s", accept, s.rows())
		}
		s.exec(`UPDATE properties SET price = 5 WHERE id = 1`)
	}
	for _, c := range []struct {
		method, name, value string
		status              int
	}{
		{"PATCH", "If-Match", "*", 200},
		{"PUT", "If-Match", "*", 200},
		{"PATCH", "If-Match", "OURS", 200},
		{"PATCH", "If-Match", "W/OURS", 412},
		{"PATCH", "If-Match", `"other"`, 412},
		{"PATCH", "If-Match", "", 412},
		{"PATCH", "If-None-Match", `"other"`, 200},
		{"PATCH", "If-None-Match", "W/OURS", 412},
		{"PUT", "If-None-Match", "*", 412},
		{"DELETE", "If-Match", `"other"`, 412},
		{"PATCH", "If-Unmodified-Since", "Mon, 01 Jan 2001 00:00:00 GMT", 200},
		{"DELETE", "If-Match", "OURS", 204},
	} {
		before := s.rows()
		value := strings.ReplaceAll(c.value, "OURS", seen("application/json"))
		w, body := s.send(c.method, "/properties/1/", `{"title":"Loft","description":"","price":5,"location":"Nairobi"}`, headers(bearer, typeJSON, []string{c.name, value})...)
		if w.StatusCode != c.status {
			t.Errorf("%s %s: %s: %d %s", c.method, c.name, c.value, w.StatusCode, body)
		}
		if w.StatusCode == 412 && s.rows() != before {
			t.Errorf("%s %s: %s: rows\n%s", c.method, c.name, c.value, s.rows())
		}
	}
}

func TestWrites_WithoutATokenAreOff(t *testing.T) {
	s := newMigratedSite(t)
	handler, err := New(Config{Query: queryset.New(s.pool), Log: discard})
	if err != nil {
		t.Fatal(err)
	}
	s.serve(handler)
	for what, h := range map[string][]string{"no token": nil, "any": bearer, "an empty one": {"Authorization", "Bearer "}} {
		w, body := s.send("POST", "/properties/", hut, headers(typeJSON, h)...)
		if w.StatusCode != 403 || !strings.Contains(body, "start it with one, such as the output of: openssl rand -hex 32") {
			t.Errorf("%s: %d %s", what, w.StatusCode, body)
		}
	}
}

func TestWrongTokens_WaitAndARightOnePasses(t *testing.T) {
	s := newMigratedSite(t)
	var told atomic.Int64
	handler, err := New(Config{
		Query: queryset.New(s.pool), Edit: edit.New(s.pool), Token: token, Log: discard,
		WrongToken: func(*http.Request) time.Duration {
			if told.Add(1) > 2 {
				return 7 * time.Second
			}
			return 0
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.serve(handler)
	wrong := []string{"Authorization", "Bearer guess"}
	for i, want := range []int{401, 401, 429, 429} {
		w, body := s.send("DELETE", "/properties/1/", "", wrong...)
		if w.StatusCode != want || strings.Contains(body, token) {
			t.Errorf("number %d: %d %s", i+1, w.StatusCode, body)
		}
		if want == 429 {
			expectHeader(t, "too many", w, "Retry-After", "7")
			expectHeader(t, "too many", w, "Cache-Control", "no-store")
			if !strings.Contains(body, "too many wrong tokens from this address: wait 7 seconds") {
				t.Error(body)
			}
		}
	}
	if w, body := s.send("POST", "/properties/", hut, headers(bearer, typeJSON)...); w.StatusCode != 201 {
		t.Errorf("the right token: %d %s", w.StatusCode, body)
	}
	if n := told.Load(); n != 4 {
		t.Errorf("told of %d wrong tokens", n)
	}
}

// TestWrongWrites_ChangeNothing prints what it tried, so that it can be quoted.
func TestWrongWrites_ChangeNothing(t *testing.T) {
	s := newMigratedSite(t)
	s.exec(insertTwo)
	s.exec(`SELECT setval(pg_get_serial_sequence('properties', 'id'), 2)`)
	s.exec(`CREATE UNIQUE INDEX one_of_a_kind ON properties (title)`)
	const (
		all, one  = "/properties/", "/properties/1/"
		price     = "must be a number with at most two decimals, such as 1250 or 1250.50"
		patchable = `{"price":1}`
	)
	right := headers(bearer, typeJSON)
	form := headers(bearer, typeForm)
	ann := []string{"Cookie", "session=ann"}
	typed := func(t string) []string { return headers(bearer, []string{"Content-Type", t}) }
	file := "--x\r\nContent-Disposition: form-data; name=\"title\"; filename=\"t.txt\"\r\n\r\nHut\r\n--x--\r\n"

	var table strings.Builder
	out := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "method\tpath\twhat is wrong\tstatus\tmessage\trows before\tafter")
	for _, c := range []struct {
		what, method, path, body string
		header                   []string
		status                   int
		want                     string // part of the body
		wantHeader               string // Name: value
	}{
		{"no token", "POST", all, hut, typeJSON, 401, `the header \"Authorization: Bearer\", with the service's API_TOKEN; or sign in at /admin/`, `Www-Authenticate: Bearer realm="properties"`},
		{"another token", "POST", all, hut, headers(typeJSON, []string{"Authorization", "Bearer guess"}), 401, "the token is not the service's API_TOKEN", `Www-Authenticate: Bearer realm="properties", error="invalid_token"`},
		{"an empty token", "DELETE", one, "", []string{"Authorization", "Bearer "}, 401, "the token is not", ""},
		{"a token of another kind", "DELETE", one, "", []string{"Authorization", "Basic " + token}, 401, "send the header", ""},
		{"another token, and a session", "DELETE", one, "", headers([]string{"Authorization", "Bearer guess"}, ann), 401, "the token is not", ""},
		{"no token", "PUT", one, hut, typeJSON, 401, "send the header", ""},
		{"no token", "PATCH", one, patchable, typeJSON, 401, "send the header", ""},
		{"a session, from another site", "POST", all, hut, headers(typeJSON, ann, []string{"Sec-Fetch-Site", "cross-site"}), 403, "a page of another site may not change anything here", ""},
		{"a session, from another origin", "DELETE", one, "", headers(ann, []string{"Origin", "https://evil.example"}), 403, "a page of another site", ""},
		{"a session, from origin null", "PATCH", one, patchable, headers(typeJSON, ann, []string{"Origin", "null"}), 403, "a page of another site", ""},
		{"a form from another site", "POST", all, "title=Hut&price=1&location=x", headers(typeForm, ann, []string{"Sec-Fetch-Site", "same-site"}), 403, "a page of another site", ""},

		{"no such method", "POST", one, hut, right, 405, "use GET, HEAD, PUT, PATCH or DELETE", "Allow: GET, HEAD, PUT, PATCH, DELETE"},
		{"no such method", "DELETE", all, "", bearer, 405, "use GET, HEAD or POST", "Allow: GET, HEAD, POST"},
		{"no such method", "QUERY", all, "", bearer, 405, "use GET, HEAD or POST", ""},
		{"no such method", "POST", "/properties/no-cache/", hut, right, 405, "use GET or HEAD", ""},

		{"no such property", "PUT", "/properties/9/", hut, right, 404, "there is no property 9", ""},
		{"no such property", "PATCH", "/properties/9/", patchable, right, 404, "there is no property 9", ""},
		{"no such property", "DELETE", "/properties/9/", "", bearer, 404, "there is no property 9", ""},
		{"no such property", "DELETE", "/properties/01/", "", bearer, 404, "there is no property 01", ""},
		{"?format=xml", "DELETE", one + "?format=xml", "", bearer, 400, "must be json or html", ""},

		{"no type", "POST", all, hut, bearer, 415, "a body without a Content-Type is not read: send one of application/json, ", "Accept-Post: application/json, application/x-www-form-urlencoded, multipart/form-data"},
		{"another type", "PATCH", one, "price=1", typed("text/plain"), 415, `a body of type \"text/plain\" is not read`, "Accept-Patch: application/json, application/x-www-form-urlencoded, multipart/form-data"},
		{"another type", "PUT", one, "<p/>", typed("application/xml"), 415, "is not read", "Accept: application/json, application/x-www-form-urlencoded, multipart/form-data"},
		{"a broken type", "POST", all, hut, typed("application/json;" + strings.Repeat(";", 3) + "="), 415, "is not read", ""},
		{"another charset", "POST", all, hut, typed("application/json; charset=latin1"), 415, "in UTF-8", ""},
		{"Content-Encoding: gzip", "POST", all, hut, headers(right, []string{"Content-Encoding", "gzip"}), 415, "a body in Content-Encoding gzip is not read: send it as it is", "Accept-Encoding: identity"},
		{"131,073 bytes", "POST", all, `{"title":"` + strings.Repeat("x", 131061) + `"}`, right, 413, "a body may have 131072 bytes", ""},
		{"131,073 bytes in a form", "PATCH", one, "title=" + strings.Repeat("x", 131067), form, 413, "a body may have 131072 bytes", ""},

		{"no body", "POST", all, "", right, 400, "must be a JSON object", ""},
		{"not JSON", "PATCH", one, `{"price":1`, right, 400, "is not JSON: it ends early", ""},
		{"not JSON", "PATCH", one, `{"price":01}`, right, 400, "is not JSON: ", ""},
		{"not JSON", "PATCH", one, `{"price":NaN}`, right, 400, "is not JSON: ", ""},
		{"an array", "PUT", one, `[` + hut + `]`, right, 400, "must be a JSON object", ""},
		{"two objects", "PATCH", one, patchable + patchable, right, 400, "must end after the JSON object", ""},
		{"not UTF-8", "PATCH", one, "{\"title\":\"Lof\xff\"}", right, 400, "must be UTF-8", ""},
		{"unknown fields", "PATCH", one, `{"price":1,"colour":"red","Title":"Loft"}`, right, 400,
			`"fields":[{"field":"colour","reason":"is not a field of a property: those are title, description, price, location"},{"field":"Title",`, ""},
		{"fields not for clients", "PUT", one, `{"id":2,"title":"Hut","description":"","price":1,"location":"x","created_at":"2026-01-01"}`, right, 400,
			`"fields":[{"field":"id","reason":"is not for clients to say: leave it out"},{"field":"created_at"`, ""},
		{"a field twice", "PATCH", one, `{"price":1,"price":2}`, right, 400, `"field":"price","reason":"given more than once"`, ""},
		{"a field twice", "PATCH", one, "price=1&price=2", form, 400, `"field":"price","reason":"given more than once"`, ""},
		{"an unknown field", "PATCH", one, "price=1&colour=red", form, 400, `"field":"colour","reason":"is not a field`, ""},
		{"not a form", "PATCH", one, "price=%zz", form, 400, `"field":"body","reason":"is not a form: `, ""},
		{"a file", "PATCH", one, file, typed("multipart/form-data; boundary=x"), 400, `"field":"title","reason":"must not be a file"`, ""},
		{"not in parts", "PATCH", one, "price=1", typed("multipart/form-data; boundary=x"), 400, "is not a form: ", ""},

		{"nothing said", "POST", all, `{}`, right, 422, `"fields":[{"field":"title","reason":"is required"},{"field":"price","reason":"is required"},{"field":"location","reason":"is required"}]`, ""},
		{"all but one", "PUT", one, `{"title":"Hut","price":1,"location":"x"}`, right, 422, `"field":"description","reason":"is required"`, ""},
		{"two wrong, one missing", "PUT", one, `{"title":"H","price":0,"location":"x"}`, right, 422,
			`"fields":[{"field":"title","reason":"must have at least 3 characters"},{"field":"price","reason":"must be more than 0"},{"field":"description","reason":"is required"}]`, ""},
		{"values of other types", "PATCH", one, `{"title":5,"price":true,"location":null,"description":{}}`, right, 422,
			`"fields":[{"field":"title","reason":"must be a text"},{"field":"price","reason":"must be a number, or a text"},{"field":"location","reason":"must be a text"},{"field":"description"`, ""},
		{"an exponent", "PATCH", one, `{"price":1e3}`, right, 422, price, ""},
		{"three decimals", "PATCH", one, `{"price":1.001}`, right, 422, price, ""},
		{"below 0", "PATCH", one, `{"price":-1}`, right, 422, price, ""},
		{"too dear", "PATCH", one, `{"price":100000000}`, right, 422, "must be at most 99,999,999.99", ""},
		{"a NUL", "PATCH", one, `{"description":"a\u0000"}`, right, 422, "must not contain a NUL", ""},
		{"a NUL, not UTF-8", "PATCH", one, "title=Hut%00&description=%FF", form, 422,
			`"fields":[{"field":"title","reason":"must not contain a NUL"},{"field":"description","reason":"must be UTF-8"}]`, ""},

		{"the title of another", "POST", all, `{"title":"Loft","price":1,"location":"x"}`, right, 409, `the data in the database does not allow this: duplicate key value violates unique constraint \"one_of_a_kind\"`, ""},
		{"the title of another", "PATCH", "/properties/2/", `{"title":"Loft"}`, right, 409, "duplicate key", ""},
		{"another ETag", "PATCH", one, patchable, headers(right, []string{"If-Match", `"x"`}), 412, "get it, and decide again", ""},
		{"another ETag", "DELETE", one, "", headers(bearer, []string{"If-Match", `"x"`}), 412, "get it, and decide again", ""},
	} {
		before := s.rows()
		w, body := s.send(c.method, c.path, c.body, c.header...)
		after := s.rows()
		fmt.Fprintf(out, "%s\t%s\t%s\t%d\t%s\t%s\t%s\n", c.method, c.path, c.what, w.StatusCode, brief(body), lines(before), lines(after))
		if w.StatusCode != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s %s, %s: %d %s\nwant %d %s", c.method, c.path, c.what, w.StatusCode, body, c.status, c.want)
		}
		name, value, _ := strings.Cut(c.wantHeader, ": ")
		if name != "" {
			expectHeader(t, c.what, w, name, value)
		}
		expectHeader(t, c.what, w, "Cache-Control", "no-store")
		expectHeader(t, c.what, w, "Content-Type", "application/json")
		if before != after {
			t.Errorf("%s %s, %s: rows\n%s\nwere\n%s", c.method, c.path, c.what, after, before)
		}
	}
	out.Flush()
	t.Log("\n" + table.String())
}

// brief is what a problem says, in a line of a table.
func brief(body string) string {
	_, reason, _ := strings.Cut(body, `,"`)
	if len(reason) > 110 {
		reason = reason[:110] + "…"
	}
	return `"` + reason
}

func lines(s string) string { return fmt.Sprint(strings.Count(s, "\n") + 1) }

func TestWrites_DatabaseAwayChangesNothing(t *testing.T) {
	server := sandboxtest.OwnPostgres(t, nil)
	if err := schema.Up(t.Context(), server.DSN("postgres")); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, server.DSN("postgres"))
	s.exec(insertTwo)
	before := s.rows()
	if err := server.Crash(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.send("GET", "/properties/1/", "") // what is left of the pool's connections
	for method, path := range map[string]string{"POST": "/properties/", "PUT": "/properties/1/", "PATCH": "/properties/1/", "DELETE": "/properties/1/"} {
		w, body := s.send(method, path, hut, headers(bearer, typeJSON)...)
		if w.StatusCode != 503 || !strings.Contains(body, "try again") {
			t.Errorf("%s: %d %s", method, w.StatusCode, body)
		}
		expectHeader(t, method, w, "Retry-After", "2")
	}
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	sandboxtest.Eventually(t, waitForServer, func() error { return s.pool.Ping(t.Context()) })
	if after := s.rows(); after != before {
		t.Errorf("rows\n%s\nwere\n%s", after, before)
	}
}
