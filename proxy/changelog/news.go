package changelog

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"sync"

	"walcache/proxy/coherence"
)

// news is what a leader tells beside records: what caches may believe of
// tables, and what the next leader has to know.
type news struct {
	catalog *coherence.Catalog
	state   []byte
	edition uint64
}

// order puts news in order: by the leader that they are of, and by its count of
// them.
//
// 1. A leader sends a catalog, and freezes before it has arrived. 2. Another
// takes over; a table is altered, and it sends a catalog without it. 3. The
// first goes on, and its catalog comes last. It must not count, nor must one of
// the same leader that comes late, after a timeout.
type order struct {
	term    coherence.LSN
	edition uint64
}

func (n news) order() order {
	if n.catalog == nil {
		return order{0, n.edition}
	}
	return order{n.catalog.Term, n.edition}
}

func (o order) before(other order) bool {
	return o.term < other.term || o.term == other.term && o.edition < other.edition
}

func (n news) append(b []byte) []byte {
	b = binary.AppendUvarint(b, n.edition)
	return appendText(appendText(b, packCatalog(n.catalog)), n.state)
}

func (d *decoder) news() *news {
	n := &news{edition: d.uvarint()}
	packed := d.bytes(d.uvarint())
	n.state = bytes.Clone(d.bytes(d.uvarint())) // and not all that it came in
	if d.err == nil {
		n.catalog, d.err = unpackCatalog(packed)
	}
	return n
}

func packCatalog(c *coherence.Catalog) []byte {
	if c == nil {
		return nil
	}
	text, err := json.Marshal(c)
	if err != nil {
		panic(fmt.Sprintf("changelog: a catalog that has no JSON: %v", err)) // maps of strings and numbers
	}
	var b bytes.Buffer
	w := compressors.Get().(*flate.Writer)
	defer compressors.Put(w)
	w.Reset(&b)
	_, _ = w.Write(text) // a buffer takes everything
	_ = w.Close()
	return b.Bytes()
}

// compressors are large.
var compressors = sync.Pool{New: func() any {
	w, _ := flate.NewWriter(nil, flate.BestSpeed) // fails for an unknown level only
	return w
}}

// maxCatalog bounds what a catalog is unpacked to, in bytes: some 100,000
// tables.
const maxCatalog = 64 << 20

func unpackCatalog(packed []byte) (*coherence.Catalog, error) {
	if len(packed) == 0 {
		return nil, nil
	}
	text, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(packed)), maxCatalog))
	if err != nil {
		return nil, errForeign
	}
	c := &coherence.Catalog{}
	if err := json.Unmarshal(text, c); err != nil {
		return nil, errForeign
	}
	return c, nil
}
