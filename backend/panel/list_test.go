package panel

import (
	"fmt"
	"html"
	"net/url"
	"regexp"
	"slices"
	"testing"
)

// titles are those of the rows of a list.
func (a answer) titles() []string {
	var all []string
	for _, m := range regexp.MustCompile(`<th scope="row"[^>]*><a href="/admin/properties/\d+/">([^<]*)</a>`).FindAllStringSubmatch(a.body, -1) {
		all = append(all, m[1])
	}
	return all
}

func TestList_SearchLocationAndSort(t *testing.T) {
	s := newSite(t)
	ada := s.ada()
	ada.get("/admin/").expect(t, 200, "There are no properties yet.")
	s.insert("Attic", "300", "Nairobi")
	s.insert("barn", "100", "Mombasa")
	s.insert("Castle", "200", "Nairobi")
	for _, c := range []struct {
		query string
		want  []string
	}{
		{"", []string{"Castle", "barn", "Attic"}},
		{"sort=created_at", []string{"Attic", "barn", "Castle"}},
		{"sort=price", []string{"barn", "Castle", "Attic"}},
		{"sort=-price", []string{"Attic", "Castle", "barn"}},
		{"sort=title", []string{"Attic", "barn", "Castle"}},
		{"sort=-title", []string{"Castle", "barn", "Attic"}},
		{"sort=location", []string{"barn", "Castle", "Attic"}},
		{"sort=nonsense", []string{"Castle", "barn", "Attic"}},
		{"location=Nairobi", []string{"Castle", "Attic"}},
		{"location=Nairobi&sort=price", []string{"Castle", "Attic"}},
		{"location=nowhere", nil},
		{"q=AT", []string{"Attic"}},
		{"q=bright&sort=title", []string{"Attic", "barn", "Castle"}},
		{"q=a&location=Mombasa", []string{"barn"}},
		{"q=%25", nil},
		{"q=_", nil},
		{"q=%00%FF", nil},
		{"q=a%00tt", []string{"Attic"}},
		{"location=a%00", nil},
		{"q=%27%20OR%201=1", nil},
	} {
		w := ada.get("/admin/?"+c.query).expect(t, 200)
		if got := w.titles(); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.query, got, c.want)
		}
	}
	ada.get("/admin/?q=bright&location=Nairobi&sort=-price").expect(t, 200, `name="q" type="search" value="bright"`,
		`<option selected value="Nairobi">`, `<option selected value="-price">`, "2 that match", "<caption>", `scope="col"`, `scope="row"`)
	ada.get("/admin/?q=nothing").expect(t, 200, "No property matches.", "Show all")
}

func TestList_HasPages(t *testing.T) {
	s := newSite(t)
	for i := range 2*rowsPerPage + 1 {
		s.insert(fmt.Sprintf("Loft %d", i), "1", "Nairobi & more")
	}
	ada := s.ada()
	seen := map[string]bool{}
	filter := "location=" + url.QueryEscape("Nairobi & more") + "&q=Loft&sort=title"
	w := ada.get("/admin/?"+filter).expect(t, 200, "Page 1 of 3", fmt.Sprint(2*rowsPerPage+1, " that match"))
	for pages := 1; ; pages++ {
		for _, title := range w.titles() {
			seen[title] = true
		}
		next := regexp.MustCompile(`<a href="([^"]*)" rel="next">`).FindStringSubmatch(w.body)
		if next == nil {
			if pages != 3 || len(seen) != 2*rowsPerPage+1 {
				t.Errorf("%d pages with %d titles", pages, len(seen))
			}
			break
		}
		w = ada.get("/admin/"+html.UnescapeString(next[1])).expect(t, 200, `rel="prev"`)
	}
	for page, want := range map[string]string{"0": "Page 1 of 3", "-1": "Page 1 of 3", "x": "Page 1 of 3", "4": "Page 3 of 3", "9223372036854775807": "Page 3 of 3"} {
		ada.get("/admin/?page="+page).expect(t, 200, want)
	}
}
