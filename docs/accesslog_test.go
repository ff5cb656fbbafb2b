package docs

import (
	"encoding/json"
	"regexp"
	"testing"

	"walcache/proxy/accesslog"
)

// The line in monitoring.md has every field that a line can have, but for what is
// said only of an answer that broke off, and nothing else.
func TestDocs_TheLineOfTheAccessLogIsOne(t *testing.T) {
	shown := regexp.MustCompile("(?m)^```json\n(\\{\"time\".*)\n```$").FindStringSubmatch(read(t, "docs/monitoring.md"))
	if shown == nil {
		t.Fatal("docs/monitoring.md shows no line of the access log")
	}
	var line accesslog.Line
	if err := json.Unmarshal([]byte(shown[1]), &line); err != nil {
		t.Fatal(err)
	}
	written, err := json.Marshal(line)
	if err != nil || string(written) != shown[1] {
		t.Errorf("%v: it shows\n%s\nand the log would have\n%s", err, shown[1], written)
	}
}
