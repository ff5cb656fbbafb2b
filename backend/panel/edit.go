package panel

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"walcache/backend/db"
	"walcache/backend/edit"
)

// form is the page on which a property is added or changed.
type form struct {
	ID      int64  // 0 for one to be added
	Name    string // the title that it has
	Version string
	Stale   bool // somebody else was faster
	Fields  []field
	Wrong   int // how many have an error
}

// field is a field of the form, with what there is to say about it.
type field struct {
	Name, Label, Hint string
	Value             string
	Error             string
	Lost              bool   // Entered is not what is there now
	Entered           string // by whom was not fast enough
	Focus             bool   // the first that needs a look
	Lines             bool   // more than one
	Optional          bool
	Mode              string // of the keyboard
	Max               int    // characters
	Choices           []string
}

// newForm shows a property. Reasons say what is wrong, by field; lost, if it is
// not nil, is what was entered and came too late.
func newForm(shown edit.Property, wrong edit.Invalid, lost *edit.Property) form {
	f := form{Stale: lost != nil}
	f.Fields = []field{
		{Name: "title", Label: "Title", Value: shown.Title, Max: edit.MaxTitle,
			Hint: fmt.Sprintf("%d to %d characters.", edit.MinTitle, edit.MaxTitle)},
		{Name: "description", Label: "Description", Value: shown.Description, Max: edit.MaxDescription, Lines: true, Optional: true,
			Hint: "Optional."},
		{Name: "price", Label: "Price", Value: shown.Price, Max: 16, Mode: "decimal",
			Hint: "In dollars, such as 1250 or 1250.50."},
		{Name: "location", Label: "Location", Value: shown.Location, Max: edit.MaxLocation,
			Hint: "One that is there already, or a new one."},
	}
	for i := range f.Fields {
		at := &f.Fields[i]
		for _, problem := range wrong {
			if problem.Field == at.Name {
				at.Error = at.Label + " " + problem.Reason + "."
				f.Wrong++
				at.Focus = f.Wrong == 1
			}
		}
		if lost != nil {
			at.Entered = fieldOf(*lost, at.Name)
			at.Lost = at.Entered != at.Value
		}
	}
	return f
}

func fieldOf(p edit.Property, name string) string {
	switch name {
	case "title":
		return p.Title
	case "description":
		return p.Description
	case "price":
		return p.Price
	}
	return p.Location
}

// entered is the property that a form was sent with.
func entered(r *http.Request) edit.Property {
	return edit.Property{
		Title:       r.PostForm.Get("title"),
		Description: strings.ReplaceAll(r.PostForm.Get("description"), "\r\n", "\n"),
		Price:       r.PostForm.Get("price"),
		Location:    r.PostForm.Get("location"),
	}
}

// version changes when something does that a form shows. It is a hash and not a
// number of the row's own, so that it knows of every change, whoever makes it.
func version(p edit.Property) string {
	h := sha256.New()
	for _, value := range []string{p.Title, p.Description, p.Price, p.Location} {
		fmt.Fprintf(h, "%d:%s", len(value), value)
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:16])
}

// stale says that a property is not, or no longer, what the form showed.
type stale struct{ current db.LockPropertyRow }

func (s *stale) Error() string { return "somebody else has changed the property" }

func (p *Panel) showAdd(w http.ResponseWriter, r *http.Request, v *visit) error {
	return p.formPage(w, r, v, http.StatusOK, newForm(edit.Property{}, nil, nil))
}

func (p *Panel) add(w http.ResponseWriter, r *http.Request, v *visit) error {
	property := entered(r)
	row, err := p.editor.Create(r.Context(), v.user.Name, property)
	var wrong edit.Invalid
	switch {
	case errors.As(err, &wrong):
		return p.formPage(w, r, v, http.StatusUnprocessableEntity, newForm(property, wrong, nil))
	case err != nil:
		return err
	}
	p.tell(r, v, fmt.Sprintf("“%s” was added.", row.Title))
	seeOther(w, r, home)
	return nil
}

func (p *Panel) showChange(w http.ResponseWriter, r *http.Request, v *visit) error {
	row, err := p.property(r)
	if err != nil {
		return err
	}
	return p.changePage(w, r, v, http.StatusOK, row, newForm(edit.Of(row), nil, nil))
}

// change saves what was entered, unless the property is another by now than the
// form showed.
//
// 1. Two people open a form.  2. One saves a new price.  3. The other saves a new
// title, and the form's old price with it: the new price is lost. So the version
// is compared with the row while it is locked.
func (p *Panel) change(w http.ResponseWriter, r *http.Request, v *visit) error {
	id, err := propertyID(r)
	if err != nil {
		return err
	}
	property := entered(r)
	var before db.LockPropertyRow
	row, err := p.editor.Change(r.Context(), v.user.Name, id, func(current db.LockPropertyRow) (edit.Property, error) {
		before = current
		if !shown(r, current) && !same(property, current) {
			return edit.Property{}, &stale{current}
		}
		return property, nil
	})
	var wrong edit.Invalid
	var late *stale
	switch {
	case errors.As(err, &late):
		return p.changePage(w, r, v, http.StatusConflict, late.current, newForm(edit.Of(late.current), nil, &property))
	case errors.As(err, &wrong):
		return p.changePage(w, r, v, http.StatusUnprocessableEntity, before, newForm(property, wrong, nil))
	case err != nil:
		return err
	}
	p.tell(r, v, fmt.Sprintf("“%s” was saved.", row.Title))
	seeOther(w, r, home)
	return nil
}

// shown reports whether a row is what the form showed.
func shown(r *http.Request, row db.LockPropertyRow) bool {
	return r.PostForm.Get("version") == version(edit.Of(row))
}

// same reports whether a row is already what was entered, as when a form is sent
// twice.
func same(p edit.Property, row db.LockPropertyRow) bool {
	checked, err := p.Check()
	return err == nil && checked == edit.Of(row)
}

func (p *Panel) changePage(w http.ResponseWriter, r *http.Request, v *visit, status int, row db.LockPropertyRow, f form) error {
	f.ID, f.Name, f.Version = row.ID, row.Title, version(edit.Of(row))
	return p.formPage(w, r, v, status, f)
}

func (p *Panel) formPage(w http.ResponseWriter, r *http.Request, v *visit, status int, f form) error {
	locations, err := p.query.ListLocations(r.Context())
	if err != nil {
		return fmt.Errorf("list locations: %w", err)
	}
	f.Fields[len(f.Fields)-1].Choices = locations
	title := "Add a property"
	if f.ID != 0 {
		title = "Change “" + f.Name + "”"
	}
	page := view{Title: title, Crumbs: []crumb{{"Properties", home}, {title, ""}}, Body: f}
	if f.Wrong > 0 || f.Stale {
		page.Title = "Error: " + title
	}
	return p.show(w, r, v, status, "form", page)
}

// confirmation is the page that asks before a property is deleted.
type confirmation struct {
	Property db.LockPropertyRow
	Version  string
	Stale    bool
}

func (p *Panel) showDelete(w http.ResponseWriter, r *http.Request, v *visit) error {
	row, err := p.property(r)
	if err != nil {
		return err
	}
	return p.deletePage(w, r, v, http.StatusOK, confirmation{Property: row})
}

// delete deletes a property that is still what its page showed.
func (p *Panel) delete(w http.ResponseWriter, r *http.Request, v *visit) error {
	id, err := propertyID(r)
	if err != nil {
		return err
	}
	var title string
	err = p.editor.Delete(r.Context(), v.user.Name, id, func(current db.LockPropertyRow) error {
		title = current.Title
		if !shown(r, current) {
			return &stale{current}
		}
		return nil
	})
	var late *stale
	switch {
	case errors.As(err, &late):
		return p.deletePage(w, r, v, http.StatusConflict, confirmation{Property: late.current, Stale: true})
	case err != nil:
		return err
	}
	p.tell(r, v, fmt.Sprintf("“%s” was deleted.", title))
	seeOther(w, r, home)
	return nil
}

func (p *Panel) deletePage(w http.ResponseWriter, r *http.Request, v *visit, status int, c confirmation) error {
	c.Version = version(edit.Of(c.Property))
	title := "Delete “" + c.Property.Title + "”?"
	return p.show(w, r, v, status, "delete", view{
		Title:  title,
		Crumbs: []crumb{{"Properties", home}, {c.Property.Title, propertyURL(c.Property.ID)}, {"Delete", ""}},
		Body:   c,
	})
}

func propertyURL(id int64) string { return fmt.Sprintf("%sproperties/%d/", home, id) }

// property reads the property of the path.
func (p *Panel) property(r *http.Request) (db.LockPropertyRow, error) {
	id, err := propertyID(r)
	if err != nil {
		return db.LockPropertyRow{}, err
	}
	return p.get(r.Context(), id)
}

// get reads a property, or returns edit.ErrNotFound.
func (p *Panel) get(ctx context.Context, id int64) (db.LockPropertyRow, error) {
	row, err := p.query.GetProperty(ctx, id)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return db.LockPropertyRow{}, edit.ErrNotFound
	case err != nil:
		return db.LockPropertyRow{}, fmt.Errorf("get property %d: %w", id, err)
	}
	return db.LockPropertyRow(row), nil
}

// propertyID reads the id of the path, in the one way that it is written.
func propertyID(r *http.Request) (int64, error) {
	name := r.PathValue("id")
	id, err := strconv.ParseInt(name, 10, 64)
	if err != nil || strconv.FormatInt(id, 10) != name {
		return 0, edit.ErrNotFound
	}
	return id, nil
}
