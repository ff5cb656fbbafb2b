package replication

import (
	"slices"
	"strings"
	"testing"

	"walcache/proxy/coherence"
	"walcache/proxy/sandbox/sandboxtest"
)

func TestUninstall_LeavesNothingBehind(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties)
	config := Config{DatabaseURL: dsn, Slot: "walcache_" + randomName(), Publication: "it's"}
	tracker := coherence.NewTracker(1<<10, bound)
	l, stop := launch(t, config, remember(tracker))
	settled(t, l, tracker, "properties")
	left := func() int {
		return query[int](t, db, "SELECT (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_replication_slots WHERE database = current_database())")
	}

	if _, err := Uninstall(t.Context(), config, false); err == nil || !strings.Contains(err.Error(), "held") {
		t.Errorf("while the slot is held: %v", err)
	}
	plan, err := Uninstall(t.Context(), config, true)
	if err != nil || len(plan) != 3 || left() != 3 {
		t.Fatalf("dry run: %q, %v; %d left", plan, err, left())
	}
	stop()
	eventually(t, "the slot to be free", func() bool {
		return query[int](t, db, "SELECT count(*) FROM pg_replication_slots WHERE active AND database = current_database()") == 0
	})
	done, err := Uninstall(t.Context(), config, false)
	if err != nil || !slices.Equal(done, plan) || left() != 0 {
		t.Errorf("ran %q, %v; %d left", done, err, left())
	}
	if again, err := Uninstall(t.Context(), config, false); err != nil || len(again) != 0 {
		t.Errorf("again: %q, %v", again, err)
	}
}
