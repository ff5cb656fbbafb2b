package api

import "net/http"

// health says that the process serves. It does not ask the database: a hiccup
// there must not take every process out of rotation.
func health(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, []byte(`{"status":"ok"}`))
	return nil
}
