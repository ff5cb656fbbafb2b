package coherence

import "sync/atomic"

// nameSlots is how many tags are remembered at a time.
const nameSlots = 1 << 14

// Names remembers tags by their hash, so that people can be told which tags a
// record moved. It has a fixed size and forgets: a tag that comes to the slot of
// another takes its place. All methods may be called concurrently, and none takes
// a lock.
type Names struct {
	slots [nameSlots]atomic.Pointer[Tag]
}

// Remember remembers tags, and those of their tables.
func (n *Names) Remember(tags []Tag) {
	for _, tag := range tags {
		n.remember(tag)
		if table := tag.Table(); table != tag {
			n.remember(table)
		}
	}
}

func (n *Names) remember(tag Tag) {
	slot := &n.slots[tag.Hash()%nameSlots]
	if was := slot.Load(); was == nil || *was != tag {
		slot.Store(&tag)
	}
}

// Of is the tag that a hash is of, if it is remembered.
func (n *Names) Of(h Hash) (Tag, bool) {
	tag := n.slots[h%nameSlots].Load()
	if tag == nil || tag.Hash() != h {
		return "", false
	}
	return *tag, true
}
