package rules

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestFieldValue(t *testing.T) {
	for _, test := range []struct {
		name  string // with the section of RFC 9111
		field string
		lines []string
		want  string
	}{
		{"4.1 absent", "Foo", nil, ""},
		{"4.1 as it is", "Foo", []string{"1"}, "1"},
		{"4.1 case counts", "Foo", []string{"aBc"}, "aBc"},
		{"4.1 white space around", "Foo", []string{" \t1 "}, "1"},
		{"4.1 white space within", "Foo", []string{"a  b"}, "a  b"},
		{"4.1 white space around commas", "Accept", []string{"1 ,\t2"}, "1,2"},
		{"4.1 no white space around commas", "Accept", []string{"1,2"}, "1,2"},
		{"4.1 several lines", "Accept", []string{"1", "2"}, "1,2"},
		{"4.1 several lines of several", "Accept", []string{" 1, 2", "3 "}, "1,2,3"},
		{"4.1 order counts", "Accept", []string{"2, 1"}, "2,1"},
		{"4.1 empty members", "Accept", []string{",1, ,2,"}, "1,2"},
		{"4.1 an empty line", "Accept", []string{"", "1"}, "1"},
		{"4.1 only commas", "Accept", []string{", ,"}, ""},
		{"4.1 commas within quotes", "Accept", []string{`"a , b" , c`}, `"a , b",c`},
		{"4.1 an escape within quotes", "Accept", []string{`"a\" , b" , c`}, `"a\" , b",c`},
		{"4.1 quotes that do not end", "Accept", []string{`"a , b`}, `"a,b`},
		{"4.1 in an unknown field every byte counts", "Foo", []string{"1 ,\t2,,3,"}, "1 ,\t2,,3,"},
		{"4.1 an unknown field of several lines", "Foo", []string{" 1", "2 "}, "1, 2"},
		{"4.1 in a cookie every byte counts", "Cookie", []string{"a=1 , 2"}, "a=1 , 2"},
		{"4.1 in a token every byte counts", "Authorization", []string{"Digest a , b"}, "Digest a , b"},
		{"4.1 in a user agent every byte counts", "User-Agent", []string{"Mozilla/5.0 (KHTML, like Gecko)"}, "Mozilla/5.0 (KHTML, like Gecko)"},
		{"4.1 languages", "Accept-Language", []string{"en-US,en;q=0.5"}, "en-US,en;q=0.5"},
		{"4.1 languages, white space", "Accept-Language", []string{"en-US , en; q = 0.5"}, "en-US,en;q=0.5"},
		{"4.1 languages, case", "Accept-Language", []string{"EN-us,En;Q=0.5"}, "en-US,en;q=0.5"},
		{"4.1 languages, on two lines", "Accept-Language", []string{"en-US", "en;q=0.5"}, "en-US,en;q=0.5"},
		{"4.1 languages, order may be preference", "Accept-Language", []string{"de, en"}, "de,en"},
		{"4.1 languages, scripts", "Accept-Language", []string{"ZH-hant-tw, *"}, "zh-hant-TW,*"},
		{"4.1 languages, a region of digits", "Accept-Language", []string{"es-419"}, "es-419"},
		{"4.1 codings", "Accept-Encoding", []string{"br, gzip"}, "br"},
		{"4.1 media types, reduced", "Accept", []string{"text/html, */*;q=0.1"}, "text/html"},
		{"4.1 media types, others", "Accept", []string{"image/png , image/*"}, "image/png,image/*"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := http.Header{test.field: test.lines}
			if got := FieldValue(h, test.field, []string{"text/html", "application/json"}); got != test.want {
				t.Errorf("%q is %q", test.lines, got)
			}
		})
	}
}

func TestFieldNames(t *testing.T) {
	for _, test := range []struct {
		name  string // with the section of RFC 9110
		lines []string
		want  []string
	}{
		{"12.5.5 none", nil, nil},
		{"12.5.5 one", []string{"accept-language"}, []string{"Accept-Language"}},
		{"12.5.5 several, on several lines", []string{"A , b", "c"}, []string{"A", "B", "C"}},
		{"12.5.5 empty members", []string{",A,, ,", ""}, []string{"A"}},
		{"5.6.3 no white space but spaces and tabs", []string{"\t A,\u00a0B,\u0085C\u2003"}, []string{"A", "\u00a0B", "\u0085C\u2003"}},
		{"12.5.5 a star", []string{"A, *"}, []string{"A", "*"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := FieldNames(test.lines); !slices.Equal(got, test.want) {
				t.Errorf("%q gives %q", test.lines, got)
			}
		})
	}
}

func FuzzVaryValue(f *testing.F) {
	for _, seed := range []string{"1, 2", `"a , b", c`, `"a, b`, "EN-us;q=0.1, *", ",,", "a\\,b", "x-a-bc"} {
		f.Add(seed, "Foo")
		f.Add(seed, "Accept-Language")
	}
	f.Fuzz(func(t *testing.T, value, name string) {
		switch name {
		case "Foo", "Accept-Language", "Cookie":
		default:
			name = "Foo"
		}
		normal := FieldValue(http.Header{name: {value}}, name, nil)
		if again := FieldValue(http.Header{name: {normal}}, name, nil); again != normal {
			t.Errorf("%q is %q, and that is %q", value, normal, again)
		}
		// Two values are taken for one only if they differ in white space and empty
		// members, and those of Accept-Language in case.
		strip := strings.NewReplacer(" ", "", "\t", "", ",", "")
		if got, want := strip.Replace(normal), strip.Replace(value); got != want && (name != "Accept-Language" || !strings.EqualFold(got, want)) {
			t.Errorf("%q is %q", value, normal)
		}
		if name == "Cookie" && normal != strings.Trim(value, " \t") {
			t.Errorf("the cookie %q is %q", value, normal)
		}
	})
}
