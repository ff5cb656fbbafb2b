package docs

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// collection is a Postman collection, as far as these tests look
// (https://schema.postman.com, v2.1.0).
type collection struct {
	Info struct{ Schema string }
	Item []struct {
		Name string
		Item []postmanRequest
	}
	Variable []struct{ Key, Value string }
}

type postmanRequest struct {
	Name  string
	Event []struct {
		Listen string
		Script struct{ Exec []string }
	}
	Request struct {
		Method string
		URL    struct{ Raw string }
	}
}

func readCollection(t *testing.T) (c collection) {
	t.Helper()
	if err := json.Unmarshal([]byte(read(t, "docs/postman/walcache.postman_collection.json")), &c); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(c.Info.Schema, "/v2.1.0/") {
		t.Errorf("the collection is of schema %s", c.Info.Schema)
	}
	return c
}

// TestPostman_EveryRequestIsOfADocumentedOperationAndAssertsAStatus holds the
// collection against docs/openapi; `make test-postman` runs it.
func TestPostman_EveryRequestIsOfADocumentedOperationAndAssertsAStatus(t *testing.T) {
	service, proxy := readContract(t, "service.yaml", "", nil), readContract(t, "proxy.yaml", "", nil)
	documented := slices.Concat(service.routes(), proxy.routes())
	parameter := regexp.MustCompile(`\{\w+\}`)
	for i := range documented {
		documented[i] = parameter.ReplaceAllString(documented[i], "*")
	}
	value := regexp.MustCompile(`/(\{\{\w+\}\}|999999999)/`)
	for _, folder := range readCollection(t).Item {
		for _, r := range folder.Item {
			_, path, _ := strings.Cut(r.Request.URL.Raw, "}}")
			path, _, _ = strings.Cut(path, "?")
			route := r.Request.Method + " " + value.ReplaceAllString(path, "/*/")
			if !slices.Contains(documented, route) && !strings.HasPrefix(folder.Name, "4 Wrong") {
				t.Errorf("%s, %s: there is no %s", folder.Name, r.Name, route)
			}
			asserts := false
			for _, e := range r.Event {
				script := strings.Join(e.Script.Exec, "\n")
				asserts = asserts || e.Listen == "test" && (strings.Contains(script, "h.status(pm, ") || strings.Contains(script, "pm.test("))
			}
			if !asserts {
				t.Errorf("%s, %s: nothing is asserted", folder.Name, r.Name)
			}
		}
	}
}

// TestPostman_VariablesAreTheOnesThatTheDemoWrites wants the addresses to be
// those that programs have by default, and no secret in the file.
func TestPostman_VariablesAreTheOnesThatTheDemoWrites(t *testing.T) {
	want := map[string]string{"BASE_URL": "http://127.0.0.1:8001", "ADMIN_URL": "http://127.0.0.1:8003", "ADMIN_TOKEN": "", "API_TOKEN": ""}
	for _, v := range readCollection(t).Variable {
		if value, ok := want[v.Key]; !ok || value != v.Value {
			t.Errorf("%s is %q", v.Key, v.Value)
		}
		delete(want, v.Key)
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
	if info, err := os.Stat("postman/run.sh"); err != nil || info.Mode()&0o111 == 0 {
		t.Errorf("run.sh is no program: %v, %v", info, err)
	}
}
