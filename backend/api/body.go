package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"walcache/backend/edit"
)

// maxBody is the size, in bytes, of the largest body that is read. The longest
// description fits, also with every character written as \uXXXX.
const maxBody = 128 << 10

// draft is what a client says of a property: the fields that it names.
type draft map[string]string

var draftFields = []string{"title", "description", "price", "location"}

// over is the property with what the client says of it.
func (d draft) over(p edit.Property) edit.Property {
	for name, field := range map[string]*string{
		"title": &p.Title, "description": &p.Description, "price": &p.Price, "location": &p.Location,
	} {
		if value, given := d[name]; given {
			*field = value
		}
	}
	return p
}

// modify is the property with what the client says of it, as a PATCH asks.
func modify(d draft, p edit.Property) (edit.Property, error) { return d.over(p), nil }

// replace is the property that the client says, every field of it, as a PUT
// asks. That a description may be empty makes it no less a part of the whole.
func replace(d draft, _ edit.Property) (edit.Property, error) {
	p := d.over(edit.Property{})
	if _, given := d["description"]; given {
		return p, nil
	}
	var invalid edit.Invalid
	_, err := p.Check()
	errors.As(err, &invalid) // it may be the only thing that is wrong
	return p, append(invalid, edit.Problem{Field: "description", Reason: "is required"})
}

// add notes a field, or what is wrong with its name.
func (d draft) add(name, value string) (reason string) {
	_, twice := d[name]
	switch {
	case name == "id" || name == "created_at":
		return "is not for clients to say: leave it out"
	case !slices.Contains(draftFields, name):
		return "is not a field of a property: those are " + strings.Join(draftFields, ", ")
	case twice:
		return "given more than once"
	}
	d[name] = value
	return ""
}

// The types of body that are read, with the function that reads each.
var bodyTypes = []struct {
	name string
	read func(body []byte, parameters map[string]string) (draft, error)
}{
	{"application/json", readJSON},
	{"application/x-www-form-urlencoded", readForm},
	{"multipart/form-data", readMultipart},
}

// readDraft reads the body of a request. In the order of the checks, a problem
// is a 415 (a type or an encoding that is not read), a 413 (too large), a 400
// (not what its type says, or with fields that a property has not) or a 422 (a
// value of another type).
func readDraft(w http.ResponseWriter, r *http.Request) (draft, error) {
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return nil, &problem{
			status: http.StatusUnsupportedMediaType,
			reason: fmt.Sprintf("a body in Content-Encoding %s is not read: send it as it is", encoding),
			header: header("Accept-Encoding", "identity"), // RFC 9110 section 15.5.16
		}
	}
	name, parameters, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err == nil && strings.HasPrefix(name, "application/") && strings.HasSuffix(name, "+json") {
		name = "application/json"
	}
	if charset := parameters["charset"]; err != nil || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return nil, unsupported(r)
	}
	for _, t := range bodyTypes {
		if t.name == name {
			body, err := readBody(w, r)
			if err != nil {
				return nil, err
			}
			return t.read(body, parameters)
		}
	}
	return nil, unsupported(r)
}

// unsupported is the problem of a type that is not read, with those that are:
// in Accept-Post (W3C Linked Data Platform), Accept-Patch (RFC 5789), and for a
// PUT in Accept (RFC 9110 section 12.5.1).
func unsupported(r *http.Request) *problem {
	var names []string
	for _, t := range bodyTypes {
		names = append(names, t.name)
	}
	all := strings.Join(names, ", ")
	hint := map[string]string{"POST": "Accept-Post", "PATCH": "Accept-Patch"}[r.Method]
	if hint == "" {
		hint = "Accept"
	}
	given := "a body without a Content-Type"
	if t := r.Header.Get("Content-Type"); t != "" {
		given = fmt.Sprintf("a body of type %q", t)
	}
	return &problem{
		status: http.StatusUnsupportedMediaType,
		reason: given + " is not read: send one of " + all + ", in UTF-8",
		header: header(hint, all),
	}
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, &problem{status: http.StatusRequestEntityTooLarge, reason: fmt.Sprintf("a body may have %d bytes", maxBody)}
	case err != nil:
		return nil, &problem{status: http.StatusBadRequest, reason: "the body ended early"}
	}
	return body, nil
}

// readJSON reads an object of texts, in which the price may be a number, which
// is taken digit by digit.
func readJSON(body []byte, _ map[string]string) (draft, error) {
	if !utf8.Valid(body) {
		return nil, badBody("must be UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return nil, badBody("must be a JSON object")
	}
	fields := draft{}
	var unknown, mistyped edit.Invalid
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, notJSON(err)
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, notJSON(err)
		}
		value, reason := readValue(name.(string), raw)
		if r := fields.add(name.(string), value); r != "" {
			unknown = append(unknown, edit.Problem{Field: name.(string), Reason: r})
		} else if reason != "" {
			mistyped = append(mistyped, edit.Problem{Field: name.(string), Reason: reason})
		}
	}
	if _, err := d.Token(); err != nil { // the closing brace
		return nil, notJSON(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, badBody("must end after the JSON object")
	}
	if unknown != nil {
		return nil, wrongFields(http.StatusBadRequest, unknown)
	}
	if mistyped != nil {
		return nil, mistyped
	}
	return fields, nil
}

// readValue takes a value of JSON as a text, or says what it must be.
func readValue(name string, raw json.RawMessage) (value, reason string) {
	switch first := raw[0]; {
	case first == '"':
		if err := json.Unmarshal(raw, &value); err != nil {
			return "", "must be a text"
		}
		return value, ""
	case name != "price":
		return "", "must be a text"
	case first == '-' || '0' <= first && first <= '9':
		return string(raw), ""
	}
	return "", "must be a number, or a text"
}

func notJSON(err error) *problem {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return badBody("is not JSON: it ends early")
	}
	return badBody("is not JSON: " + err.Error())
}

func badBody(reason string) *problem { return wrong("body", reason) }

func readForm(body []byte, _ map[string]string) (draft, error) {
	values, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, badBody("is not a form: " + err.Error())
	}
	fields := draft{}
	var unknown edit.Invalid
	for name, all := range values {
		for _, value := range all {
			if reason := fields.add(name, value); reason != "" {
				unknown = append(unknown, edit.Problem{Field: name, Reason: reason})
				break
			}
		}
	}
	return fields.unless(unknown)
}

func readMultipart(body []byte, parameters map[string]string) (draft, error) {
	parts := multipart.NewReader(bytes.NewReader(body), parameters["boundary"])
	fields := draft{}
	var unknown edit.Invalid
	for {
		part, err := parts.NextPart()
		if err == io.EOF { // bare after the last boundary, wrapped where that is missing
			return fields.unless(unknown)
		}
		if err != nil {
			return nil, badBody("is not a form: " + err.Error())
		}
		value, err := io.ReadAll(part)
		if err != nil {
			return nil, badBody("is not a form: " + err.Error())
		}
		reason := fields.add(part.FormName(), string(value))
		if part.FileName() != "" {
			reason = "must not be a file"
		}
		if reason != "" {
			unknown = append(unknown, edit.Problem{Field: part.FormName(), Reason: reason})
		}
	}
}

// unless is the draft, or the problem of a form with fields that are not read.
func (d draft) unless(unknown edit.Invalid) (draft, error) {
	if unknown == nil {
		return d, nil
	}
	slices.SortFunc(unknown, func(a, b edit.Problem) int { return strings.Compare(a.Field, b.Field) })
	return nil, wrongFields(http.StatusBadRequest, unknown)
}
