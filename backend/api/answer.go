package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/dunglas/httpsfv"

	"walcache/backend/queryset"
	"walcache/proxy/coherence"
	"walcache/proxy/web"
)

// released is the tag under which every answer stands: what it looks like
// depends on the release that made it.
var released = coherence.TableTag("releases")

// cacheable says on the answer that it may be kept, what ends it, and as of when
// it is. All has been read. What an older release answers beside a newer one is
// not to be kept; whether there is a newer is asked once the position is known,
// since later ones make the answer stale.
func (a *api) cacheable(w http.ResponseWriter, reads *queryset.Reads) error {
	asOf := reads.AsOf()
	if a.current != nil && !a.current() {
		w.Header().Set("Cache-Control", "no-store")
		return nil
	}
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("CDN-Cache-Control", "max-age=900")
	return dependent(w.Header(), append(reads.Tags(), released), asOf)
}

// dependent says which tags end an answer, and as of when it is.
func dependent(h http.Header, tags []coherence.Tag, asOf string) error {
	var groups httpsfv.List
	for _, tag := range tags {
		groups = append(groups, httpsfv.NewItem(string(tag)))
	}
	header, err := httpsfv.Marshal(groups)
	if err != nil {
		return fmt.Errorf("write Cache-Groups: %w", err)
	}
	h.Set("Cache-Groups", header)
	h.Set("As-Of-LSN", asOf)
	return nil
}

// entityTag is the ETag of a body. It is strong: equal only for equal bytes.
func entityTag(body []byte) string {
	sum := sha256.Sum256(body)
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`
}

// serveBody answers 200 with a body, or 304 to a client that has it.
func serveBody(w http.ResponseWriter, r *http.Request, f format, body []byte) {
	w.Header().Set("ETag", entityTag(body))
	if f == asHTML {
		web.SetHeader(w.Header())
	} else {
		w.Header().Set("Content-Type", "application/json")
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// writeJSON answers with a body whatever the request's conditions. An error
// in writing means that the client has left, and nobody is there to be told.
func writeJSON(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body)
}
