package replication

import (
	"math/rand/v2"
	"slices"
	"testing"

	"walcache/proxy/coherence"
)

func TestSnapshot_SeesWhatHasEnded(t *testing.T) {
	s, err := parseSnapshot("100:110:100,105")
	if err != nil {
		t.Fatal(err)
	}
	for xid, want := range map[uint32]bool{1: true, 99: true, 100: false, 101: true, 105: false, 109: true, 110: false, 111: false} {
		if s.sees(xid) != want {
			t.Errorf("xid %d: %t", xid, !want)
		}
	}
	if s, err := parseSnapshot("7:7:"); err != nil || s.sees(7) || !s.sees(6) || len(s.running) > 0 {
		t.Errorf("nothing running: %+v, %v", s, err)
	}
	for _, text := range []string{"", "1:2", "a:2:", "1:b:", "1:2:x", "1:2:1,,2"} {
		if s, err := parseSnapshot(text); err == nil {
			t.Errorf("%q is read as %+v", text, s)
		}
	}
}

// The stream has 32 bits of a transaction's 64.
func TestSnapshot_SeesAcrossWraparound(t *testing.T) {
	s, err := parseSnapshot("8589934590:8589934600:8589934591,8589934597") // 2^33-2 : 2^33+8
	if err != nil {
		t.Fatal(err)
	}
	for full, want := range map[uint64]bool{
		1<<33 - 3: true, 1<<33 - 2: true, 1<<33 - 1: false, 1 << 33: true,
		1<<33 + 4: true, 1<<33 + 5: false, 1<<33 + 7: true, 1<<33 + 8: false, 1<<33 + 100: false, 1<<33 - 1<<30: true,
	} {
		if s.sees(uint32(full)) != want {
			t.Errorf("xid %d: %t", full, !want)
		}
	}
}

// Transactions become visible in any order. Visible moves past one only when it
// and every one before it are.
func TestBarrier_WaitsForEveryTransaction(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		var b barrier
		b.advance(5)
		ends := map[uint64]coherence.LSN{}
		var hidden []uint64
		next, end := uint64(1000), coherence.LSN(10)
		for range 200 {
			switch random.IntN(3) {
			case 0: // a commit is decoded
				ends[next], hidden = end, append(hidden, next)
				b.add(uint32(next), end)
				next, end = next+1, end+10
			case 1: // one becomes visible
				if len(hidden) > 0 {
					i := random.IntN(len(hidden))
					hidden = slices.Delete(hidden, i, i+1)
				}
			case 2:
				b.advance(end - 1)
			}
			s := snapshot{xmin: 1000, xmax: next, running: map[uint64]bool{}}
			for _, xid := range hidden {
				s.running[xid] = true
			}
			visible, waiting := b.pass(s)
			for _, xid := range hidden {
				if ends[xid] <= visible {
					t.Fatalf("seed %d: visible is %d, and the commit at %d is not seen", seed, visible, ends[xid])
				}
			}
			if len(hidden) == 0 && (waiting > 0 || visible < end-10) {
				t.Fatalf("seed %d: all is seen up to %d, visible is %d with %d waiting", seed, end-10, visible, waiting)
			}
		}
	}
}

func TestBarrier_KeepalivesDoNotPassWaitingCommits(t *testing.T) {
	var b barrier
	b.add(10, 100)
	if v := b.advance(200); v != 0 {
		t.Errorf("visible is %d past a commit that waits", v)
	}
	if v, waiting := b.pass(snapshot{xmin: 11, xmax: 11}); v != 200 || waiting != 0 {
		t.Errorf("visible %d, %d waiting", v, waiting)
	}
	b.add(0, 300) // no transaction: nothing to wait for
	if v, _ := b.pass(snapshot{}); v != 300 {
		t.Errorf("visible %d", v)
	}
}
