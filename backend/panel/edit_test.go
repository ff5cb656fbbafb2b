package panel

import (
	"fmt"
	"strings"
	"testing"
)

func TestAdd_IsInTheListAndTold(t *testing.T) {
	s := newSite(t)
	ada := s.ada()
	w := ada.submit("/admin/properties/add/", "title", "  Loft & <b>more</b> ", "description", "One.\r\nTwo.", "price", "1250.5", "location", "Nairobi").expect(t, 303)
	if w.to() != "/admin/" {
		t.Errorf("sent to %q", w.to())
	}
	ada.get("/admin/").expect(t, 200, "“Loft &amp; &lt;b&gt;more&lt;/b&gt;” was added.", "$1250.50", "Nairobi", `role="status"`)
	ada.get("/admin/").expect(t, 200).without(t, "was added")
	if got := s.text(`SELECT concat_ws('|', title, description, price, location) FROM properties`); got != "Loft & <b>more</b>|One.\nTwo.|1250.50|Nairobi" {
		t.Errorf("stored %q", got)
	}
}

func TestAdd_SaysWhatIsWrongBesideTheFields(t *testing.T) {
	s := newSite(t)
	ada := s.ada()
	w := ada.submit("/admin/properties/add/", "title", "ab", "description", "\nKept <i>", "price", "-1", "location", "Nairobi")
	w.expect(t, 422, "<title>Error: Add a property</title>",
		`value="ab"`, "<textarea", "\n\nKept &lt;i&gt;</textarea>", `value="-1"`, `value="Nairobi"`,
		`required autofocus aria-invalid="true" aria-describedby="title-error title-hint"`,
		`<small class="error" id="title-error">Title must have at least 3 characters.</small>`,
		`required aria-invalid="true" aria-describedby="price-error price-hint"`,
		`<small class="error" id="price-error">Price must be a number`,
		`<a href="#price">`, `aria-describedby="location-hint"`)
	if strings.Count(w.body, "autofocus") != 1 {
		t.Error("not one field has the focus")
	}
	if n := s.text(`SELECT count(*)::text FROM properties`); n != "0" {
		t.Errorf("%s rows", n)
	}
	// Mended, it is saved: the page that said what is wrong is a whole form.
	ada.resend("/admin/properties/add/", w.body, "title", "abc", "price", "1", "location", "Nairobi").expect(t, 303)
}

func TestChange_SavesAndNotesWhatChanged(t *testing.T) {
	s := newSite(t)
	id := s.insert("Loft", "1250", "Nairobi")
	ada := s.ada()
	page := ada.get(path(id, "")).expect(t, 200, `value="Loft"`, `value="1250.00"`, ">\nBright.</textarea>", "Change “Loft”", "Save")
	ada.resend(path(id, ""), page.body, "title", "Loft", "description", "Bright.", "price", "1300", "location", "Mombasa").expect(t, 303)
	ada.get("/admin/").expect(t, 200, "“Loft” was saved.", "$1300.00", "Mombasa")
	for _, p := range []string{path(id, "history/"), "/admin/history/"} {
		ada.get(p).expect(t, 200, "Ada", "changed", "<del>1250.00</del> → <ins>1300.00</ins>", "<del>Nairobi</del> → <ins>Mombasa</ins>").
			without(t, "Title:", "Description:")
	}
}

func TestChange_WrongKeepsWhatWasEntered(t *testing.T) {
	s := newSite(t)
	id := s.insert("Loft", "1250", "Nairobi")
	ada := s.ada()
	w := ada.submit(path(id, ""), "title", "", "description", "Bright.", "price", "77", "location", "Nairobi")
	w.expect(t, 422, `value="77"`, "Title is required.", "Change “Loft”")
	ada.resend(path(id, ""), w.body, "title", "Loft", "description", "Bright.", "price", "77", "location", "Nairobi").expect(t, 303)
	if got := s.text(`SELECT price::text FROM properties`); got != "77.00" {
		t.Errorf("price %s", got)
	}
}

func TestChange_ThatCameTooLateIsNotWrittenOver(t *testing.T) {
	s := newSite(t)
	id := s.insert("Loft", "1250", "Nairobi")
	ada := s.ada()
	page := ada.get(path(id, ""))
	s.exec(`UPDATE properties SET price = 999, description = 'Sold'`)

	w := ada.resend(path(id, ""), page.body, "title", "Attic", "description", "Bright.", "price", "1250.00", "location", "Nairobi")
	w.expect(t, 409, "Somebody else has changed this property",
		`value="Loft"`, "You had entered: <q>Attic</q>",
		`value="999.00"`, "You had entered: <q>1250.00</q>",
		">\nSold</textarea>", "You had entered: <q>Bright.</q>",
		`value="Nairobi"`, `aria-describedby="price-lost price-hint"`, `aria-describedby="location-hint"`)
	if got := s.text(`SELECT concat_ws('|', title, description, price, location) FROM properties`); got != "Loft|Sold|999.00|Nairobi" {
		t.Errorf("written over: %s", got)
	}
	if n := s.text(`SELECT count(*)::text FROM changes`); n != "0" {
		t.Errorf("%s changes are noted", n)
	}
	// The page that told it knows the version that it shows.
	ada.resend(path(id, ""), w.body, "title", "Attic", "description", "Sold", "price", "999.00", "location", "Nairobi").expect(t, 303)
	if got := s.text(`SELECT concat_ws('|', title, description, price) FROM properties`); got != "Attic|Sold|999.00" {
		t.Errorf("stored %s", got)
	}
}

func TestChange_SentTwiceIsOneChange(t *testing.T) {
	s := newSite(t)
	id := s.insert("Loft", "1250", "Nairobi")
	ada := s.ada()
	page := ada.get(path(id, ""))
	for range 2 {
		ada.resend(path(id, ""), page.body, "title", "Attic", "description", "Bright.", "price", "1", "location", "Nairobi").expect(t, 303)
	}
	if n := s.text(`SELECT count(*)::text FROM changes`); n != "1" {
		t.Errorf("%s changes are noted", n)
	}
}

func TestDelete_AsksFirst(t *testing.T) {
	s := newSite(t)
	id := s.insert("Loft", "1250", "Nairobi")
	ada := s.ada()
	page := ada.get(path(id, "delete/")).expect(t, 200, "Delete “Loft”?", "Bright.", "$1250.00", "Nairobi")
	if n := s.text(`SELECT count(*)::text FROM properties`); n != "1" {
		t.Fatal("a question has deleted it")
	}
	ada.resend(path(id, "delete/"), page.body).expect(t, 303)
	ada.get("/admin/").expect(t, 200, "“Loft” was deleted.", "There are no properties yet.")
	if n := s.text(`SELECT count(*)::text FROM properties`); n != "0" {
		t.Error("it is still there")
	}
	ada.get(path(id, "")).expect(t, 404, "There is no such property")
	ada.get(path(id, "delete/")).expect(t, 404)
	ada.resend(path(id, "delete/"), page.body).expect(t, 404)
	ada.get(path(id, "history/")).expect(t, 200, "History of “Loft”", "deleted", "<del>1250.00</del>")
}

func TestDelete_OfWhatWasChangedMeanwhileAsksAgain(t *testing.T) {
	s := newSite(t)
	id := s.insert("Loft", "1250", "Nairobi")
	ada := s.ada()
	page := ada.get(path(id, "delete/"))
	s.exec(`UPDATE properties SET title = 'Palace'`)
	w := ada.resend(path(id, "delete/"), page.body).expect(t, 409, "it was not deleted", "Delete “Palace”?")
	if n := s.text(`SELECT count(*)::text FROM properties`); n != "1" {
		t.Fatal("deleted")
	}
	ada.resend(path(id, "delete/"), w.body).expect(t, 303)
}

func TestHistory_NewestFirstInPagesWithWhoAndWhat(t *testing.T) {
	s := newSite(t)
	ada := s.ada()
	ada.get("/admin/history/").expect(t, 200, "Nothing was changed here yet.")
	for i := range rowsPerPage + 1 {
		ada.submit("/admin/properties/add/", "title", fmt.Sprintf("Loft %d", i), "price", "1", "location", "Nairobi").expect(t, 303)
	}
	first := ada.get("/admin/history/").expect(t, 200, "26 changes", "Page 1 of 2", "?page=2", "added", fmt.Sprintf("<ins>Loft %d</ins>", rowsPerPage))
	first.without(t, "<ins>Loft 0</ins>")
	ada.get("/admin/history/?page=2").expect(t, 200, "<ins>Loft 0</ins>", "?page=1")
	ada.get(path(s.insert("New", "1", "x"), "history/")).expect(t, 200, "Nothing was changed here yet.")
	ada.get(path(987654, "history/")).expect(t, 404)
	ada.get(path(0, "history/")).expect(t, 404)
}

func TestExcerpts_ShowWhatDiffers(t *testing.T) {
	long := strings.Repeat("é", 500)
	was, is := long+"old"+long, long+"new"+long
	a, b := excerpts(&was, &is)
	if !strings.Contains(*a, "old") || !strings.Contains(*b, "new") || !strings.HasPrefix(*a, "…é") || !strings.HasSuffix(*b, "é…") {
		t.Errorf("%s\n%s", *a, *b)
	}
	empty := ""
	if a, b = excerpts(&was, &empty); *b != "" || len([]rune(*a)) != excerptLength+1 {
		t.Errorf("%q %q", *a, *b)
	}
	if a, b = excerpts(nil, &is); a != nil || len([]rune(*b)) != excerptLength+1 {
		t.Errorf("%v %q", a, *b)
	}
	if a, b = excerpts(&long, &was); *a == "" || !strings.Contains(*b, "old") {
		t.Errorf("%q %q", *a, *b)
	}
}
