package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
)

// As many lists as there may be are under way, and none of them ends.
func TestUnpaged_ListsWithoutPagesAreBounded(t *testing.T) {
	w := make(unpaged, 2)
	var ends []func()
	for range 2 {
		end, err := w.begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, end)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := w.begin(gone)
	var p *problem
	if !errors.As(err, &p) || p.status != http.StatusServiceUnavailable || !strings.Contains(p.reason, "page_size") {
		t.Errorf("one too many: %v", err)
	}
	ends[0]()
	if _, err := w.begin(t.Context()); err != nil {
		t.Error(err)
	}
}
