package queryset

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"walcache/proxy/coherence"
)

func TestReads_NoteEachTagOnceInOrder(t *testing.T) {
	ctx, reads := Collect(t.Context())
	var wg sync.WaitGroup
	for _, table := range []string{"b", "a", "b"} {
		wg.Go(func() { note(ctx, coherence.TableTag(table)) })
	}
	wg.Wait()
	if got := reads.Tags(); !slices.Equal(got, []coherence.Tag{"a", "b"}) {
		t.Errorf("tags %q", got)
	}
}

func TestReads_TooManyTagsBecomeTheirTables(t *testing.T) {
	ctx, reads := Collect(t.Context())
	for i := range coherence.MaxTags {
		note(ctx, coherence.RowTag("properties", "id", fmt.Sprint(i)))
	}
	if got := reads.Tags(); len(got) != coherence.MaxTags {
		t.Errorf("%d tags, want all %d", len(got), coherence.MaxTags)
	}
	note(ctx, coherence.TableTag("regions"))
	if got := reads.Tags(); !slices.Equal(got, []coherence.Tag{"properties", "regions"}) {
		t.Errorf("tags %q, want the tables", got)
	}
	for i := range coherence.MaxTags {
		note(ctx, coherence.TableTag(fmt.Sprint("table", i)))
	}
	if got := reads.Tags(); !slices.Equal(got, []coherence.Tag{coherence.Any}) {
		t.Errorf("tags %q, want any", got)
	}
}

func TestNote_OutsideOfARequestDoesNothing(t *testing.T) {
	note(t.Context(), coherence.TableTag("properties"))
}

// note notes a read with some tags.
func note(ctx context.Context, tags ...coherence.Tag) {
	readsOf(ctx).note(reading{tags: tags, direct: true})
}
