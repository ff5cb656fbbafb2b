package panel

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
	"unicode/utf8"

	"walcache/backend/db"
	"walcache/backend/edit"
)

// history is a page of changes.
type history struct {
	Changes []change
	Count   int64
	One     bool // of one property
	Pager   pager
}

// change is what somebody did to a property.
type change struct {
	At     time.Time
	Who    string
	Action string
	Title  string
	URL    string // of the property's history
	Fields []difference
}

// difference is what became of a field. Was is nil where the property was added,
// Is where it was deleted.
type difference struct {
	Label   string
	Was, Is *string
}

func (p *Panel) allHistory(w http.ResponseWriter, r *http.Request, v *visit) error {
	h, err := p.changes(r, 0)
	if err != nil {
		return err
	}
	return p.show(w, r, v, http.StatusOK, "history", view{
		Title: "History", Crumbs: []crumb{{"Properties", home}, {"History", ""}}, Body: h,
	})
}

// history shows the changes of one property, which may be gone: they are not.
func (p *Panel) history(w http.ResponseWriter, r *http.Request, v *visit) error {
	id, err := propertyID(r)
	if err != nil || id == 0 { // 0 would be all
		return edit.ErrNotFound
	}
	h, err := p.changes(r, id)
	if err != nil {
		return err
	}
	row, err := p.get(r.Context(), id)
	here := crumb{row.Title, propertyURL(id)}
	switch {
	case errors.Is(err, edit.ErrNotFound) && len(h.Changes) > 0:
		here = crumb{h.Changes[0].Title, ""}
	case err != nil:
		return err
	}
	h.One = true
	return p.show(w, r, v, http.StatusOK, "history", view{
		Title:  "History of “" + here.Name + "”",
		Crumbs: []crumb{{"Properties", home}, here, {"History", ""}},
		Body:   h,
	})
}

// changes reads the page that is asked for of the changes of a property, or of
// all if id is 0.
func (p *Panel) changes(r *http.Request, id int64) (history, error) {
	var h history
	var err error
	if h.Count, err = p.query.CountChanges(r.Context(), id); err != nil {
		return h, fmt.Errorf("count changes: %w", err)
	}
	h.Pager = newPager(r, h.Count)
	rows, err := p.query.ListChanges(r.Context(), db.ListChangesParams{PropertyID: id, Skip: h.Pager.skip(), Take: rowsPerPage})
	if err != nil {
		return h, fmt.Errorf("list changes: %w", err)
	}
	for _, row := range rows {
		fields, err := differences(row.Fields)
		if err != nil {
			return h, fmt.Errorf("read change %d: %w", row.ID, err)
		}
		h.Changes = append(h.Changes, change{
			At: row.At, Who: row.Who, Action: row.Action, Title: row.Title,
			URL: propertyURL(row.PropertyID) + "history/", Fields: fields,
		})
	}
	return h, nil
}

// differences reads what became of the fields, in the order of the form.
func differences(stored []byte) ([]difference, error) {
	var fields map[string][2]*string
	if err := json.Unmarshal(stored, &fields); err != nil {
		return nil, err
	}
	var all []difference
	for _, f := range newForm(edit.Property{}, nil, nil).Fields {
		if values, ok := fields[f.Name]; ok {
			was, is := excerpts(values[0], values[1])
			all = append(all, difference{f.Label, was, is})
		}
	}
	return all, nil
}

const (
	// excerptLength is how much of a text a difference shows, in characters.
	excerptLength = 120
	// excerptBefore is how much of it stands before the first character that
	// differs.
	excerptBefore = 30
)

// excerpts shortens two texts so that what differs is still there.
func excerpts(was, is *string) (*string, *string) {
	begin := 0
	if was != nil && is != nil {
		begin = max(0, commonRunes(*was, *is)-excerptBefore)
	}
	return excerpt(was, begin), excerpt(is, begin)
}

// excerpt is what of a text there is from a character on.
func excerpt(s *string, begin int) *string {
	if s == nil || utf8.RuneCountInString(*s) <= excerptLength {
		return s
	}
	runes := []rune(*s)
	end := min(begin+excerptLength, len(runes))
	short := string(runes[begin:end])
	if begin > 0 {
		short = "…" + short
	}
	if end < len(runes) {
		short += "…"
	}
	return &short
}

// commonRunes is how many characters two texts begin with alike.
func commonRunes(a, b string) int {
	x, y := []rune(a), []rune(b)
	n := 0
	for n < len(x) && n < len(y) && x[n] == y[n] {
		n++
	}
	return n
}
