package docs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/config"
	"github.com/pb33f/libopenapi-validator/content"
	validation "github.com/pb33f/libopenapi-validator/errors"
	"github.com/pb33f/libopenapi-validator/schema_validation"
	v3 "github.com/pb33f/libopenapi/datamodel/high/v3"
)

// contract is one of the documents in docs/openapi, held against servers that
// run. Every request names the operation that it is of, so that an answer is
// looked up where a reader of the document would.
type contract struct {
	t     *testing.T
	doc   *v3.Document
	check validator.Validator
	bases map[string]string // where each server of the document is, for this test
	token string            // that every request has, unless it says otherwise
	seen  map[string]bool   // "operation status"
	said  map[int][]any     // bodies of JSON by status
}

// free is what may have names that no document can know: headers and cookies, and
// the objects of which the document says what they hold by name
// (additionalProperties), which the validator's strict mode takes no notice of.
var free = func() (paths []string) {
	for _, object := range []string{"hits", "misses", "stale", "leases", "bypassed", "refused", "hits_turned_into_misses", "misses_by_reason", "dropped",
		"statuses", "varied", "keyspace_info", "parts"} {
		paths = append(paths, "$.body.**."+object+".*", "$.body."+object+".*", "$.body[*].**."+object+".*", "$.body[*]."+object+".*")
	}
	return append(paths, "$.headers.**", "$.cookies.**")
}()

// readContract reads a document, which has to be valid.
func readContract(t *testing.T, name, token string, bases map[string]string) *contract {
	t.Helper()
	doc, err := libopenapi.NewDocument([]byte(read(t, "docs/openapi/"+name)))
	if err != nil {
		t.Fatal(err)
	}
	// Strict is for the test alone: an answer may not have a field that the
	// document does not name, while clients are to expect that there will be more.
	check, errs := validator.NewValidator(doc, config.WithStrictMode(), config.WithStrictIgnorePaths(free...), config.WithFormatAssertions(),
		config.WithBodyDecoder("application/x-ndjson", content.DecoderFunc(readLines)),
		config.WithBodyDecoder("text/event-stream", content.DecoderFunc(readEvents)))
	if errs != nil {
		t.Fatal(errs)
	}
	if valid, errs := check.ValidateDocument(); !valid {
		t.Fatalf("%s: %s", name, inWords(errs))
	}
	model, err := doc.BuildV3Model()
	if err != nil {
		t.Fatal(err)
	}
	return &contract{t, &model.Model, check, bases, token, map[string]bool{}, map[int][]any{}}
}

// operation is one of a document.
type operation struct {
	*v3.Operation
	method, path string
	base         string // of the document's server
}

// operations are all of the document.
func (c *contract) operations() (all []operation) {
	for path, item := range c.doc.Paths.PathItems.FromOldest() {
		servers := item.Servers
		if len(servers) == 0 {
			servers = c.doc.Servers
		}
		for method, op := range item.GetOperations().FromOldest() {
			all = append(all, operation{op, strings.ToUpper(method), path, c.bases[servers[0].URL]})
		}
	}
	return all
}

func (c *contract) operation(id string) operation {
	c.t.Helper()
	all := c.operations()
	i := slices.IndexFunc(all, func(op operation) bool { return op.OperationId == id })
	if i < 0 {
		c.t.Fatalf("the document has no operation %s", id)
	}
	return all[i]
}

// ask is what a request has beside its operation.
type ask struct {
	path   map[string]string // parameters
	query  string
	header []string // names and values; an empty value leaves out what would be there
	body   string
	method string // another than the operation's
	events int    // how many to read of an answer without end
}

// reply is an answer.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// json reads the body.
func (r reply) json(t *testing.T) (object map[string]any) {
	t.Helper()
	if err := json.Unmarshal(r.body, &object); err != nil {
		t.Fatalf("%s: %v", r.body, err)
	}
	return object
}

// client follows no redirect: it is what is looked at.
var client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// do sends a request of an operation, wants a status, and holds the answer
// against the document; and the request too, unless it was to be wrong.
func (c *contract) do(id string, status int, a ask) reply {
	c.t.Helper()
	got := c.send(c.operation(id), a)
	if got.status != status {
		c.t.Errorf("%s (%+v): %d, want %d\n%.300s", id, a, got.status, status, got.body)
	}
	return got
}

// send sends a request of an operation, whatever comes of it.
func (c *contract) send(op operation, a ask) reply {
	c.t.Helper()
	req := c.request(op, a)
	sent, err := client.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer sent.Body.Close()
	got := reply{status: sent.StatusCode, header: sent.Header}
	if got.body, err = readSome(sent.Body, a.events); err != nil {
		c.t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	c.note(op, got)
	asked := c.request(op, a)
	asked.Method = op.method
	if sent.StatusCode < 400 {
		c.valid(op, a)(c.check.ValidateHttpRequestSync(asked))
	}
	c.valid(op, a)(c.check.ValidateHttpResponse(asked, &http.Response{StatusCode: got.status, Header: got.header, Body: io.NopCloser(bytes.NewReader(got.body))}))
	return got
}

// valid reports what is not as the document says.
func (c *contract) valid(op operation, a ask) func(bool, []*validation.ValidationError) {
	return func(valid bool, errs []*validation.ValidationError) {
		c.t.Helper()
		if !valid {
			c.t.Errorf("%s (%+v): %s", op.OperationId, a, inWords(errs))
		}
	}
}

// note remembers what was seen.
func (c *contract) note(op operation, got reply) {
	c.seen[op.OperationId+" "+strconv.Itoa(got.status)] = true
	var body any
	if json.Unmarshal(got.body, &body) == nil {
		c.said[got.status] = append(c.said[got.status], body)
	}
}

func (c *contract) request(op operation, a ask) *http.Request {
	c.t.Helper()
	target, method := op.base+op.path, op.method
	for name, value := range a.path {
		target = strings.ReplaceAll(target, "{"+name+"}", value)
	}
	if a.query != "" {
		target += "?" + a.query
	}
	if a.method != "" {
		method = a.method
	}
	req, err := http.NewRequest(method, target, strings.NewReader(a.body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	if a.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for name, value := range pairs(a.header) {
		switch {
		case name == "Host":
			req.Host = value
		case value == "":
			req.Header.Del(name)
		default:
			req.Header.Set(name, value)
		}
	}
	return req
}

// pairs reads names and values that follow each other.
func pairs(list []string) map[string]string {
	m := map[string]string{}
	for i := 0; i+1 < len(list); i += 2 {
		m[list[i]] = list[i+1]
	}
	return m
}

// readSome reads a body to its end, or so many events of it.
func readSome(body io.Reader, events int) (text []byte, err error) {
	if events == 0 {
		return io.ReadAll(body)
	}
	var one [1]byte
	for ended := 0; ended < events; {
		if _, err := io.ReadFull(body, one[:]); err != nil {
			return text, fmt.Errorf("after %d of %d events: %w", ended, events, err)
		}
		text = append(text, one[0])
		if bytes.HasSuffix(text, []byte("\n\n")) {
			ended++
		}
	}
	return text, nil
}

// readLines reads lines of JSON as an array.
func readLines(in *content.DecodeInput) (any, error) {
	all := []any{}
	for d := json.NewDecoder(in.Body); ; {
		var line any
		if err := d.Decode(&line); err == io.EOF {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, line)
	}
}

// readEvents reads server-sent events as an array of objects of their fields.
// Comments are none.
func readEvents(in *content.DecodeInput) (any, error) {
	text, err := io.ReadAll(in.Body)
	all := []any{}
	for block := range strings.SplitSeq(string(text), "\n\n") {
		event := map[string]any{}
		for line := range strings.Lines(block) {
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			var data any
			switch {
			case strings.HasPrefix(line, ":"):
			case name == "data" && json.Unmarshal([]byte(value), &data) == nil:
				event[name] = data
			default:
				event[name] = value
			}
		}
		if len(event) > 0 {
			all = append(all, event)
		}
	}
	return all, err
}

// inWords says what the validator found.
func inWords(errs []*validation.ValidationError) string {
	var b strings.Builder
	for _, e := range errs {
		fmt.Fprintf(&b, "\n  %s: %s", e.Message, e.Reason)
		for _, s := range e.SchemaValidationErrors {
			fmt.Fprintf(&b, "\n    %s: %s", s.FieldPath, s.Reason)
		}
	}
	return b.String()
}

// otherMethods asks of each path what it allows, which has to be the methods of
// the document and no others. Where the document has no 405, none is sent.
func (c *contract) otherMethods(example map[string]string) {
	c.t.Helper()
	methods := map[string][]string{}
	for _, op := range c.operations() {
		methods[op.path] = append(methods[op.path], op.method)
		if op.method == http.MethodGet {
			methods[op.path] = append(methods[op.path], http.MethodHead)
		}
	}
	for _, op := range c.operations() {
		got := c.send(op, ask{method: http.MethodOptions, path: example})
		if op.Responses.Codes.GetOrZero("405") == nil {
			continue
		}
		allow := strings.Split(got.header.Get("Allow"), ", ")
		slices.Sort(allow)
		slices.Sort(methods[op.path])
		if got.status != http.StatusMethodNotAllowed || !slices.Equal(allow, methods[op.path]) {
			c.t.Errorf("OPTIONS %s: %d, Allow %q; the document has %q", op.path, got.status, allow, methods[op.path])
		}
	}
}

// withoutSlash asks for each path whose last slash is missing, and wants to be
// sent to where it is, as what the request was.
func (c *contract) withoutSlash(example map[string]string) {
	c.t.Helper()
	for _, op := range c.operations() {
		short, ok := strings.CutSuffix(op.path, "/")
		if !ok || short == "" {
			continue
		}
		req := c.request(operation{op.Operation, op.method, short, op.base}, ask{path: example, query: "format=json"})
		got, err := client.Do(req)
		if err != nil {
			c.t.Fatal(err)
		}
		got.Body.Close()
		status := map[bool]int{true: http.StatusMovedPermanently, false: http.StatusPermanentRedirect}[op.method == http.MethodGet]
		if want := req.URL.Path + "/?format=json"; got.StatusCode != status || got.Header.Get("Location") != want {
			c.t.Errorf("%s %s: %d to %q, want %d to %q", op.method, req.URL.Path, got.StatusCode, got.Header.Get("Location"), status, want)
		}
	}
}

// allSeen wants each status of each operation to have come at least once, but
// those that cannot come here, for a reason.
func (c *contract) allSeen(cannot func(op operation, status string) (why string)) {
	c.t.Helper()
	for _, op := range c.operations() {
		for status := range op.Responses.Codes.FromOldest() {
			seen, why := c.seen[op.OperationId+" "+status], cannot(op, status)
			switch {
			case !seen && why == "":
				c.t.Errorf("%s: no request got a %s", op.OperationId, status)
			case seen && why != "":
				c.t.Errorf("%s: a request got a %s, which cannot be: %s", op.OperationId, status, why)
			}
		}
	}
}

// examplesHold wants every example to be what its schema says, and one of an
// error to be what a server has answered.
func (c *contract) examplesHold() {
	c.t.Helper()
	check := schema_validation.NewSchemaValidator()
	for _, op := range c.operations() {
		if op.RequestBody != nil {
			for _, media := range op.RequestBody.Content.FromOldest() {
				for _, value := range examplesOf(c.t, media) {
					c.valid(op, ask{})(check.ValidateSchemaObject(media.Schema.Schema(), value))
				}
			}
		}
		for status, response := range op.Responses.Codes.FromOldest() {
			for _, media := range response.Content.FromOldest() {
				for _, value := range examplesOf(c.t, media) {
					c.valid(op, ask{})(check.ValidateSchemaObject(media.Schema.Schema(), value))
					code, _ := strconv.Atoi(status)
					same := func(body any) bool { return reflect.DeepEqual(body, value) }
					if code >= 400 && !slices.ContainsFunc(c.said[code], same) {
						c.t.Errorf("%s: no server has answered the example of %s: %v", op.OperationId, status, value)
					}
				}
			}
		}
	}
}

// examplesOf are those of a body, as JSON has them.
func examplesOf(t *testing.T, media *v3.MediaType) (values []any) {
	t.Helper()
	nodes := slices.Collect(maps.Values(maps.Collect(media.Examples.FromOldest())))
	add := func(decode func(any) error) {
		var value any
		err := decode(&value)
		text, marshalErr := json.Marshal(value) // YAML's integers become JSON's
		if err != nil || marshalErr != nil || json.Unmarshal(text, &value) != nil {
			t.Fatalf("an example cannot be read: %v, %v", err, marshalErr)
		}
		values = append(values, value)
	}
	if media.Example != nil {
		add(media.Example.Decode)
	}
	for _, example := range nodes {
		add(example.Value.Decode)
	}
	return values
}

// routes are the operations of the document, as "GET /path".
func (c *contract) routes() (all []string) {
	for _, op := range c.operations() {
		all = append(all, op.method+" "+op.path)
	}
	return all
}

// sameRoutes holds the document against what the source says is answered.
func (c *contract) sameRoutes(answered []string) {
	c.t.Helper()
	documented := c.routes()
	for _, route := range answered {
		if !slices.Contains(documented, route) {
			c.t.Errorf("%s is answered and not documented", route)
		}
	}
	for _, route := range documented {
		if !slices.Contains(answered, route) {
			c.t.Errorf("%s is documented and not answered", route)
		}
	}
}

// source is the Go code of a package, without its tests.
func source(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %d files, %v", dir, len(files), err)
	}
	var all strings.Builder
	for _, name := range files {
		if !strings.HasSuffix(name, "_test.go") {
			all.WriteString(read(t, strings.TrimPrefix(name, "../")))
		}
	}
	return all.String()
}

// matches are the groups of each match of an expression, at least one.
func matches(t *testing.T, text, expression string) [][]string {
	t.Helper()
	found := regexp.MustCompile(expression).FindAllStringSubmatch(text, -1)
	if len(found) == 0 {
		t.Fatalf("nothing in the source is as %s", expression)
	}
	return found
}

// asset is where a page has its style sheet from.
func (c *contract) asset(page, below string) map[string]string {
	c.t.Helper()
	style := matches(c.t, page, `href="`+below+`([^/"]+)/(site\.css)"`)[0]
	return map[string]string{"version": style[1], "name": style[2]}
}

// form writes a body of fields.
func form(fields ...string) string {
	values := url.Values{}
	for name, value := range pairs(fields) {
		values.Set(name, value)
	}
	return values.Encode()
}
