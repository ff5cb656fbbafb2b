package web

import "testing"

func TestPrefersJSON_AsAcceptRanks(t *testing.T) {
	const asked, either, html = "json", "either", "html"
	for accept, want := range map[string]string{
		"":                                  either,
		"*/*":                               either,
		"*":                                 either,
		"text/csv":                          either,
		"application/json":                  asked,
		"APPLICATION/JSON":                  asked,
		"application/json, text/plain, */*": asked, // axios
		"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": html, // a browser
		"text/html;q=0.5, */*;q=0.6":                                      asked,
		"*/*, text/html;q=0.1":                                            asked,
		"application/json;q=0, */*":                                       html,
		"text/html, application/json":                                     html,
		`text/plain;x="a, application/json", text/html`:                   html,
		"application/json;q=nan, text/html;q=0.1":                         html,
		`"\`: either,
	} {
		for _, otherwise := range []bool{true, false} {
			if got := PrefersJSON([]string{accept}, otherwise); got != (want == asked || want == either && otherwise) {
				t.Errorf("%q, otherwise %v: %v", accept, otherwise, got)
			}
		}
	}
}

func FuzzPrefersJSON(f *testing.F) {
	f.Add("text/html;q=0.5, */*;q=0.6")
	f.Add(`a/b;c="\",", d`)
	f.Fuzz(func(t *testing.T, accept string) {
		PrefersJSON([]string{accept}, true)
		for _, member := range SplitList(accept) {
			if member == "" {
				t.Errorf("an empty member in %q", accept)
			}
		}
	})
}
