package manage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// asked is what a request asks for, by name: in its query, or in its body, which
// is a form or a JSON object. The methods read one value each; what is wrong with
// the first that is wrong is in err.
type asked struct {
	values map[string][]string
	err    error
}

// readAsked reads a request that may name these things and no others, in a body
// of up to limit bytes. The error is the client's mistake.
func readAsked(r *http.Request, limit int64, names ...string) (*asked, error) {
	a := &asked{values: map[string][]string{}}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("the query is broken: %w", err)
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("the body broke off: %w", err)
	case int64(len(body)) > limit:
		return nil, fmt.Errorf("the body is longer than %d bytes", limit)
	}
	said, err := readBody(r.Header.Get("Content-Type"), body)
	if err != nil {
		return nil, err
	}
	delete(query, "format") // there is but one
	for _, values := range []map[string][]string{query, said} {
		for name, list := range values {
			if !slices.Contains(names, name) {
				return nil, fmt.Errorf("%.40q is nothing that can be asked for: that is %s", name, strings.Join(names, ", "))
			}
			a.values[name] = append(a.values[name], list...)
		}
	}
	return a, nil
}

// readBody reads a form or a JSON object. What begins like JSON is JSON, since
// curl -d calls everything a form.
func readBody(contentType string, body []byte) (map[string][]string, error) {
	text := strings.TrimSpace(string(body))
	kind, _, _ := mime.ParseMediaType(contentType)
	switch {
	case text == "":
		return nil, nil
	case kind == "application/x-www-form-urlencoded" && text[0] != '{':
		form, err := url.ParseQuery(text)
		if err != nil {
			return nil, fmt.Errorf("the body is no form: %w", err)
		}
		return form, nil
	}
	var object map[string]any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&object); err != nil || object == nil {
		return nil, errors.Join(errors.New("the body is no JSON object"), err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("the body goes on after its JSON object")
	}
	said := map[string][]string{}
	for name, value := range object {
		list, ok := value.([]any)
		if !ok {
			list = []any{value}
		}
		for _, v := range list {
			switch v.(type) {
			case string, json.Number, bool:
				said[name] = append(said[name], fmt.Sprint(v))
			default:
				return nil, fmt.Errorf("%s: a text, a number, true, false or a list of them was expected", name)
			}
		}
	}
	return said, nil
}

// wrong notes what is wrong with a value, unless something was before.
func (a *asked) wrong(format string, args ...any) {
	if a.err == nil {
		a.err = fmt.Errorf(format, args...)
	}
}

// text is a value that is given at most once.
func (a *asked) text(name string) string {
	switch list := a.values[name]; len(list) {
	case 0:
		return ""
	case 1:
		return list[0]
	}
	a.wrong("%s is given more than once", name)
	return ""
}

// whole is a number from 1 to most, and otherwise what it is if nobody says.
func (a *asked) whole(name string, otherwise, most int) int {
	text := a.text(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		a.wrong("%s is %.20s, and has to be a whole number from 1 to %d", name, text, most)
	}
	return n
}

// yes reports whether a thing is wanted.
func (a *asked) yes(name string) bool {
	text := a.text(name)
	if text == "" {
		return false
	}
	wanted, err := strconv.ParseBool(text)
	if err != nil {
		a.wrong("%s is %.20q, and has to be true or false", name, text)
	}
	return wanted
}

// list is all values, at most so many.
func (a *asked) list(name string, most int) []string {
	list := a.values[name]
	if len(list) > most {
		a.wrong("%s has %d entries, and may have %d", name, len(list), most)
	}
	return list
}
