package api

import "net/http"

// health says that the process serves, and which release it is. It does not ask
// the database: a hiccup there must not take every process out of rotation.
func (a *api) health(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Cache-Control", "no-store")
	b := []byte(`{"status":"ok"`)
	if a.release != "" {
		b = appendString(append(b, `,"release":`...), a.release)
	}
	writeJSON(w, http.StatusOK, append(b, '}'))
	return nil
}
