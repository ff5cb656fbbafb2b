package cache

import (
	"walcache/proxy/coherence"
	"walcache/proxy/rules"
)

// Why an answer is not stored, beside the reasons of rules.Policy.
const (
	refusedUnproven = "unproven" // nobody knows as of when it is
	refusedBlind    = "blind"    // it may depend on a table whose changes are not seen
	refusedOff      = "off"
	refusedBroken   = "broken" // its body came to no end
)

// provenance is what an answer was made from: as of when, and what it depends
// on.
type provenance struct {
	asOf  coherence.Position
	deps  coherence.Dependencies
	tags  []coherence.Tag
	whole bool
	own   bool // everything was read after the fetch began
}

// prove derives an answer's provenance from the stamp that was read before its
// fetch began and from what its source states. refusal says why it cannot be
// stored, or is "".
//
// The catalog is the one of now, at the end of the fetch, and not the one of
// its beginning: 1. A fetch begins; every table is published. 2. A table is
// made whose updates do not reach the change stream. 3. The fetch reads from
// it. Judged by the earlier catalog the answer would be stored, and no change
// to that table would ever make it stale.
func (c *Cache) prove(key Key, stamp coherence.Position, said contract) (p provenance, refusal string) {
	if stamp == (coherence.Position{}) {
		return p, refusedUnproven
	}
	asOf, valid := c.truth.AsOf(stamp, said.asOf)
	if asOf == (coherence.Position{}) {
		return p, refusedUnproven // read before the fetch, and nobody knows when
	}
	p = provenance{asOf: asOf, tags: parseTags(said.tags), own: said.asOf == "" || said.asOf == coherence.AsOfRequest}
	catalog := c.truth.Catalog()
	if catalog != nil && catalog.Off {
		return p, refusedOff
	}
	if valid || c.trustTags {
		p.deps, p.whole = catalog.Narrow(p.tags)
	} else {
		p.deps, p.whole = coherence.WholeDatabase(), true
	}
	if p.whole && (catalog == nil || len(catalog.Blind) > 0) {
		return p, refusedBlind
	}
	if p.whole {
		// They narrow nothing, and are still names to purge by.
		for _, tag := range p.tags[:min(len(p.tags), coherence.MaxTags)] {
			p.deps = append(p.deps, tag.Hash())
		}
	}
	for _, tag := range p.tags[:min(len(p.tags), maxGroups)] {
		p.deps = append(p.deps, key.group(string(tag)))
	}
	p.deps = append(p.deps, key.hash())
	return p, ""
}

// parseTags reads the groups of an answer as tags. To the database a group is the part
// of it that it names, if it names one, and to whoever invalidates groups no more
// than a name (RFC 9875): so an answer depends on each in two ways.
func parseTags(lines []string) []coherence.Tag {
	var tags []coherence.Tag
	for _, group := range rules.Groups(lines) {
		tags = append(tags, coherence.Tag(group))
	}
	return tags
}
