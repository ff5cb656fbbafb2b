package manage

import (
	"net/http"
	"testing"
)

func TestStreams_AreForAFewAndForNobodyAlone(t *testing.T) {
	var s Streams
	enter := func(from string) (func(), error) { return s.Enter(&http.Request{RemoteAddr: from}) }
	var leaves []func()
	for i := range MaxStreams {
		leave, err := enter(address(i/MaxOfOne) + ":5000")
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		leaves = append(leaves, leave)
		if i == MaxOfOne-1 {
			if _, err := enter(address(0) + ":5001"); err == nil {
				t.Error("one has more than one may have")
			}
		}
	}
	if _, err := enter("[::1]:5000"); err == nil || s.Open() != MaxStreams {
		t.Errorf("%d are open: %v", s.Open(), err)
	}
	for _, leave := range leaves {
		leave()
	}
	if s.Open() != 0 || len(s.byIP) != 0 {
		t.Errorf("%d are counted after their end: %v", s.Open(), s.byIP)
	}
}
