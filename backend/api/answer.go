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
)

// cacheable says on the answer that it may be kept, and what ends it.
func cacheable(w http.ResponseWriter, reads *queryset.Reads) error {
	var groups httpsfv.List
	for _, tag := range reads.Tags() {
		groups = append(groups, httpsfv.NewItem(string(tag)))
	}
	header, err := httpsfv.Marshal(groups)
	if err != nil {
		return fmt.Errorf("write Cache-Groups: %w", err)
	}
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("CDN-Cache-Control", "max-age=900")
	w.Header().Set("Cache-Groups", header)
	return nil
}

// serveBody answers 200 with a JSON body, or 304 to a client that has it. The
// ETag is strong: equal only for equal bytes.
func serveBody(w http.ResponseWriter, r *http.Request, body []byte) {
	sum := sha256.Sum256(body)
	w.Header().Set("ETag", `"`+base64.RawURLEncoding.EncodeToString(sum[:16])+`"`)
	w.Header().Set("Content-Type", "application/json")
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
