package rules

import "testing"

func TestReduceAccept_IsTheTypeThatItRanksFirst(t *testing.T) {
	types := []string{"application/json", "text/html"}
	for field, want := range map[string]string{
		"":                                  "",
		"*/*":                               "",
		"image/avif,image/webp,*/*":         "",
		"image/png":                         "",
		"application/json":                  "application/json",
		"APPLICATION/JSON":                  "application/json",
		"application/json, text/plain, */*": "application/json",
		"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8": "text/html",
		"text/html, application/json":                       "text/html",
		"text/html;q=0.5, application/json":                 "application/json",
		"application/json;q=0, */*":                         "text/html",
		"application/json;q=0, text/html;q=0":               "",
		"text/*, application/json;q=0.9":                    "text/html",
		"text/*, application/*":                             "text/html",
		"application/json;q=nothing, text/html":             "text/html",
		"application/json ; q=0.1":                          "application/json",
		"application/json; version=1":                       "",
		"application/json ; charset=utf-8;q=0.1":            "",
		"text/html;level=1, text/html":                      "",
		"application/json;version=1;q=0.1, text/html;q=0.2": "text/html",
	} {
		if got := ReduceAccept([]string{field}, types); got != want {
			t.Errorf("%q is reduced to %q, not %q", field, got, want)
		}
	}
	if got := ReduceAccept([]string{"text/html;q=0.1", "application/json"}, types); got != "application/json" {
		t.Errorf("of two lines %q counts", got)
	}
	field := []string{"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"}
	if n := testing.AllocsPerRun(100, func() { ReduceAccept(field, types) }); n != 0 {
		t.Errorf("it allocates %v times", n)
	}
}
