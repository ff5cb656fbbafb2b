package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walcache/proxy/coherence"
	"walcache/proxy/replication"
	"walcache/proxy/sandbox/sandboxtest"
)

// at finds a value in nested objects: "coherence.slot.name".
func at(t *testing.T, m map[string]any, path string) any {
	t.Helper()
	var v any = m
	for _, name := range strings.Split(path, ".") {
		object, ok := v.(map[string]any)
		if ok {
			v, ok = object[name]
		}
		if !ok {
			t.Errorf("there is no %s", path)
			return nil
		}
	}
	return v
}

func status(t *testing.T, p *proxy) map[string]any {
	t.Helper()
	w := send(New(Config{Addr: loopback}, p.sources), "GET", "/status")
	if w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return object(t, w)
}

func TestStatus_SaysWhatIsKnownAndHeldAndWhatItCost(t *testing.T) {
	p := newProxy(t)
	p.beat()
	p.ask("/properties", "/properties", "/properties") // a miss, two hits
	p.ask("/users")
	for range 2 {
		p.commit("properties", 3)
		if how := p.ask("/properties"); !strings.Contains(how, "changed") {
			t.Fatalf("after a change: %s", how)
		}
	}
	p.commit("users", 7)
	p.ask("/users")
	m := status(t, p)
	for path, want := range map[string]any{
		"coherence.epoch":                          epoch,
		"coherence.known":                          "0/82",
		"coherence.visible":                        "0/82",
		"coherence.confirmed":                      "0/0",
		"coherence.vouches":                        true,
		"coherence.state":                          "connecting",
		"coherence.slot":                           nil,
		"coherence.tracker_slots":                  4096.,
		"coherence.tracker_slots_used":             3.,
		"coherence.messages_not_understood":        0.,
		"memory.pages":                             2.,
		"cache.hits.memory":                        2.,
		"cache.hit_bytes":                          10.,
		"cache.misses.uri-miss":                    2.,
		"cache.misses.changed":                     3.,
		"cache.coalesced":                          0.,
		"cache.waiting":                            0.,
		"cache.stored":                             5.,
		"cache.failed":                             0.,
		"cache.fetches.total":                      5.,
		"cache.fetches.now":                        0.,
		"cache.fetches.peak":                       1.,
		"cache.fetches.refused":                    0.,
		"cache.writes.total":                       0.,
		"cache.write_waits_timed_out":              0.,
		"cache.hits_turned_into_misses.properties": 2.,
		"worst_table":                              "properties",
	} {
		if got := at(t, m, path); got != want {
			t.Errorf("%s is %v, want %v", path, got, want)
		}
	}
	if bytes, ok := at(t, m, "memory.bytes").(float64); !ok || bytes < 1000 {
		t.Errorf("memory.bytes is %v", bytes)
	}
	if age, ok := at(t, m, "coherence.fresh_as_of_age_seconds").(float64); !ok || age < 0 || age > 60 {
		t.Errorf("age of the evidence is %v", age)
	}
	want := `[{"hits_turned_into_misses":2,"name":"properties","rows_changed":6},{"hits_turned_into_misses":1,"name":"users","rows_changed":7}]`
	if tables, err := json.Marshal(m["tables"]); err != nil || string(tables) != want {
		t.Errorf("tables are %s, want %s (%v)", tables, want, err)
	}
}

func TestStatus_CountsByReason(t *testing.T) {
	p := newProxy(t)
	p.ask("/properties", "/properties") // nothing is known yet, so nothing is stored
	m := status(t, p)
	if n := at(t, m, "cache.misses.uri-miss"); n != 2. {
		t.Errorf("misses: %v", n)
	}
	if refused := at(t, m, "cache.refused").(map[string]any); len(refused) == 0 {
		t.Error("no reason why nothing was stored")
	}
}

func TestStatus_WithoutEvidenceItHasNoAge(t *testing.T) {
	m := status(t, newProxy(t))
	if age := at(t, m, "coherence.fresh_as_of_age_seconds"); age != nil {
		t.Errorf("age is %v", age)
	}
	if v := at(t, m, "coherence.vouches"); v != false {
		t.Errorf("vouches is %v", v)
	}
}

func TestStatus_EmptyListsAreLists(t *testing.T) {
	for name, p := range map[string]*proxy{"coherent": newProxy(t), "ordinary": ordinary(t)} {
		body := send(New(Config{Addr: loopback}, p.sources), "GET", "/status").Body.String()
		for _, list := range []string{`"blind_tables": []`, `"unlogged_tables": []`, `"tables": []`} {
			if !strings.Contains(body, list) && (name == "coherent" || list == `"tables": []`) {
				t.Errorf("%s: no %s in %s", name, list, body)
			}
		}
		for _, empty := range []string{"misses", "stale", "bypassed", "refused"} {
			if !strings.Contains(body, `"`+empty+`": {}`) {
				t.Errorf("%s: %s is no empty object in %s", name, empty, body)
			}
		}
	}
}

func TestStatus_AnOrdinaryCacheHasNoCoherence(t *testing.T) {
	p := ordinary(t)
	p.ask("/a", "/a")
	m := status(t, p)
	if at(t, m, "coherence") != nil || at(t, m, "cache.hits.memory") != 1. {
		t.Errorf("status %v", m)
	}
}

// follow lets a listener of a test's own database run beside the parts.
func follow(t *testing.T, p *proxy, dsn string) {
	t.Helper()
	name := "admin_" + dsn[strings.LastIndex(dsn, "/")+1:strings.LastIndex(dsn, "?")]
	p.sources.Listener = replication.New(replication.Config{
		DatabaseURL: dsn, Slot: name, Publication: name, MaxRetainedWAL: 1 << 30, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}, p.sources.Records)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- p.sources.Listener.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestStatus_ShowsTheSlotAndTheTablesThatCannotBeSeen(t *testing.T) {
	dsn := sandboxtest.Postgres(t)
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), `CREATE TABLE keyless (n int); CREATE UNLOGGED TABLE forgetful (n int PRIMARY KEY)`); err != nil {
		t.Fatal(err)
	}
	p := newProxy(t)
	follow(t, p, dsn)
	sandboxtest.Eventually(t, 30*time.Second, func() error {
		m := status(t, p)
		if state := at(t, m, "coherence.state"); state != "streaming" || at(t, m, "coherence.slot") == nil {
			return fmt.Errorf("state %v, reason %v", state, m["coherence"].(map[string]any)["reason"])
		}
		return nil
	})
	m := status(t, p)
	for path, ok := range map[string]func(any) bool{
		"coherence.slot.name":               func(v any) bool { return strings.HasPrefix(v.(string), "admin_") },
		"coherence.slot.active_pid":         func(v any) bool { return v.(float64) > 0 },
		"coherence.slot.wal_status":         func(v any) bool { return v == "reserved" },
		"coherence.slot.retained_wal_bytes": func(v any) bool { return v.(float64) >= 0 },
		"coherence.epoch":                   func(v any) bool { return len(v.(string)) == 16 },
		"coherence.epoch_reason":            func(v any) bool { return v == "process started" },
		"coherence.epochs":                  func(v any) bool { return v == 1. },
		"coherence.known":                   isLSN,
		"coherence.visible":                 isLSN,
		"coherence.confirmed":               isLSN,
		"coherence.vouches":                 func(v any) bool { return v == true },
		"coherence.blind_tables":            func(v any) bool { return slices.Equal(v.([]any), []any{"keyless"}) },
		"coherence.unlogged_tables":         func(v any) bool { return slices.Equal(v.([]any), []any{"forgetful"}) },
	} {
		if v := at(t, m, path); !ok(v) {
			t.Errorf("%s is %v", path, v)
		}
	}
}

func isLSN(v any) bool {
	lsn, err := coherence.ParseLSN(v.(string))
	return err == nil && lsn > 0
}
