package cache

import (
	"fmt"
	"testing"
)

func TestMarks_AreBounded(t *testing.T) {
	m := newMarks()
	for i := range maxMarks + 1000 {
		m.set(Key{Target: fmt.Sprint(i)})
	}
	if n := len(m.until); n > maxMarks {
		t.Errorf("%d marks, at most %d wanted", n, maxMarks)
	}
	if last := (Key{Target: fmt.Sprint(maxMarks + 999)}); !m.has(last) {
		t.Error("the last one is not there")
	}
}
