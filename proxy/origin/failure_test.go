package origin

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestOutage_IsLoggedOnceInAWhileAndAtItsEnd(t *testing.T) {
	var log bytes.Buffer
	synctest.Test(t, func(*testing.T) {
		o := outage{log: slog.New(slog.NewTextHandler(&log, nil))}
		o.end("upstream")
		for range 25 {
			o.count("upstream", errors.New("refused"))
			time.Sleep(time.Second)
		}
		o.end("upstream")
		o.end("upstream")
	})
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 4 {
		t.Fatalf("%d lines, want three of failures and one of the end:\n%s", len(lines), log.String())
	}
	for i, want := range []string{"failed=1 ", "failed=11 ", "failed=21 ", "for=25s"} {
		if !strings.Contains(lines[i], want) {
			t.Errorf("line %d is %q, want %q in it", i, lines[i], want)
		}
	}
}
