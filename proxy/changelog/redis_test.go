package changelog

import (
	"errors"
	"testing"

	"walcache/proxy/coherence"
)

// The script decides as the model does, on every kind of Redis.
func replacesACheckpoint(t *testing.T, url, prefix string) {
	client, ctx := connect(t, url), t.Context()
	remote := open(t, url, prefix).remote
	there := head{epoch: "b", base: "a", by: "leader", term: 100, edition: 5, known: 1000, cursor: "1-1"}
	for _, c := range []struct {
		what    string
		value   string // instead of there
		found   string
		h       head
		replace bool
	}{
		{"nothing", "", "", head{epoch: "x", by: "y"}, true},
		{"something else", "something else", "", head{epoch: "x", by: "y"}, true},
		{"another version", "walcache0 b a leader\n", "", head{epoch: "x", by: "y"}, true},
		{"a damaged line", "walcache1 b a\n", "", head{epoch: "b", base: "a", by: "leader"}, false},
		{"a damaged line that was found", "walcache1 b a\n", "walcache1 b a\n", head{epoch: "x", by: "y"}, true},
		{"a later one of the same leader", "", "", head{epoch: "b", base: "a", by: "leader", term: 100, edition: 5, known: 1001}, true},
		{"the same again", "", "", head{epoch: "b", base: "a", by: "leader", term: 100, edition: 5, known: 1000}, true},
		{"an earlier one of the same leader", "", "", head{epoch: "b", base: "a", by: "leader", term: 100, edition: 5, known: 999}, false},
		{"earlier news of the same leader", "", "", head{epoch: "b", base: "a", by: "leader", term: 100, edition: 4, known: 2000}, false},
		{"one of a later leader that knows less", "", "", head{epoch: "b", base: "a", by: "other", term: 101, edition: 1, known: 10}, true},
		{"one of an earlier leader", "", "", head{epoch: "b", base: "a", by: "other", term: 99, edition: 9, known: 2000}, false},
		{"one of an earlier leader that found it", "", there.line(), head{epoch: "b", base: "a", by: "other", term: 99, known: 2000}, true},
		{"an epoch that begins upon it", "", "", head{epoch: "c", base: "b", by: "other", term: 100, known: 1}, true},
		{"an epoch of an earlier leader that begins upon it", "", "", head{epoch: "c", base: "b", by: "other", term: 99, known: 1}, false},
		{"an epoch that begins upon another", "", "", head{epoch: "c", base: "a", by: "other", term: 200, known: 3000}, false},
		{"an epoch that begins upon nothing", "", "", head{epoch: "c", by: "other", term: 200, known: 3000}, false},
		{"the epoch before", "", "", head{epoch: "a", by: "other", term: 200, known: 3000}, false},
	} {
		c.h.cursor = "2-2"
		value := c.value
		if c.value == "" && c.what != "nothing" {
			value = string(checkpointOf(there, news{}, 16, nil))
		}
		must(t, client.Del(ctx, prefix+"checkpoint").Err())
		if value != "" {
			must(t, client.Set(ctx, prefix+"checkpoint", value, 0).Err())
		}
		mine := checkpointOf(c.h, news{}, 16, []coherence.Change{{Hash: 3, At: 7}})
		err := remote.save(ctx, c.found, c.h, mine)
		if err != nil && !errors.Is(err, errSuperseded) {
			t.Fatal(err)
		}
		now, err2 := client.Get(ctx, prefix+"checkpoint").Result()
		must(t, err2)
		if replaced := now == string(mine); replaced != c.replace || replaced != (err == nil) {
			t.Errorf("%s: replaced %t, %v", c.what, replaced, err)
		}
		if model := replaces(lineOf(value), c.found, c.h); model != c.replace {
			t.Errorf("%s: the model says %t", c.what, model)
		}
	}
}

func findsDamage(t *testing.T, url, prefix string) {
	client, ctx := connect(t, url), t.Context()
	remote := open(t, url, prefix).remote
	var ids []string
	for range 3 {
		id, err := remote.append(ctx, []byte("x"))
		must(t, err)
		ids = append(ids, id)
	}
	if last, err := remote.last(ctx); err != nil || last != ids[2] {
		t.Fatalf("the last of %v is %s, %v", ids, last, err)
	}
	h := head{epoch: "e", by: "x", known: 5, cursor: ids[0]}
	must(t, remote.save(ctx, "", h, checkpointOf(h, news{}, 16, nil)))
	intact := func(what string, want bool, h head, ids ...string) {
		t.Helper()
		if got, err := remote.intact(ctx, h, ids...); err != nil || got != want {
			t.Errorf("%s: intact %t, %v", what, got, err)
		}
	}
	intact("at first", true, h, ids[0], ids[2])
	other := h
	other.known++
	intact("another checkpoint", false, other)
	must(t, remote.trim(ctx, ids[1]))
	must(t, client.XTrimMinID(ctx, prefix+"log", ids[1]).Err()) // exactly
	intact("trimmed", false, h, ids[0], ids[2])
	intact("trimmed before", true, h, ids[1], ids[2])
	must(t, client.Del(ctx, prefix+"log").Err())
	intact("without a log", false, h, ids[2])
	intact("with a log that was empty", true, h)
	if last, err := remote.last(ctx); err != nil || last != fromTheStart {
		t.Errorf("the last of none is %s, %v", last, err)
	}
	must(t, client.Set(ctx, prefix+"log", "x", 0).Err())
	intact("with another key", false, h, ids[2])
	if last, err := remote.last(ctx); err != nil || last != fromTheStart {
		t.Errorf("the last of another key is %s, %v", last, err)
	}
	if _, err := remote.append(ctx, []byte("x")); err != nil {
		t.Errorf("after another key: %v", err)
	}
}

func TestCompareIDs(t *testing.T) {
	inOrder := []string{"", fromTheStart, "0-1", "1-0", "1-9", "1-10", "2", "10-0", "1700000000000-0"}
	for i := range inOrder {
		for j := range inOrder {
			got, want := compareIDs(inOrder[i], inOrder[j]), i-j
			if i+j <= 1 { // what is no ID is as fromTheStart
				want = 0
			}
			if got < 0 != (want < 0) || got > 0 != (want > 0) {
				t.Errorf("%s and %s: %d", inOrder[i], inOrder[j], got)
			}
		}
	}
}
