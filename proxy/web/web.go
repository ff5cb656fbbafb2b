// Package web is what all pages share: the layout, the style sheets, and how a
// template becomes an answer.
//
// A package that has pages embeds their templates, each of which defines "main",
// and perhaps "head", "home", "nav" and "footer", and gets them back as Pages.
// Pages work without JavaScript, and most have none: the content security policy
// allows style sheets of our own, and scripts only where a page is kept up to
// date while it is looked at (WriteLive, assets/live.js).
package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io/fs"
	"maps"
	"net/http"
	"path"
	"strconv"
	"strings"
)

var (
	//go:embed layout.html
	layout string
	//go:embed assets
	assets embed.FS
)

// Pages are templates by the name of their file, without ".html". They may be
// used concurrently.
type Pages map[string]*template.Template

// Parse reads the templates of a package: each file is a page, but those whose
// names begin with "_", which are common to all. funcs may be nil; with an
// "asset" (AssetBelow) the pages get theirs from elsewhere than AssetPrefix.
func Parse(files fs.FS, funcs template.FuncMap) (Pages, error) {
	all := template.FuncMap{"asset": Asset}
	maps.Copy(all, funcs)
	common, err := template.New("layout").Funcs(all).Parse(layout)
	if err != nil {
		return nil, fmt.Errorf("layout: %w", err)
	}
	names, err := fs.Glob(files, "*.html")
	if err != nil {
		return nil, err
	}
	pages := Pages{}
	for _, shared := range []bool{true, false} { // the common ones first
		for _, name := range names {
			if strings.HasPrefix(name, "_") != shared {
				continue
			}
			t := common
			if !shared {
				if t, err = common.Clone(); err != nil {
					return nil, fmt.Errorf("%s: %w", name, err)
				}
				pages[strings.TrimSuffix(name, ".html")] = t
			}
			if _, err := t.ParseFS(files, name); err != nil {
				return nil, err
			}
		}
	}
	return pages, nil
}

// Render makes a page's HTML. data has a field or method Title.
func (p Pages) Render(name string, data any) ([]byte, error) {
	t, ok := p[name]
	if !ok {
		return nil, fmt.Errorf("there is no page %q", name)
	}
	var b bytes.Buffer
	if err := t.ExecuteTemplate(&b, "layout", data); err != nil {
		return nil, fmt.Errorf("page %s: %w", name, err)
	}
	return b.Bytes(), nil
}

// policy keeps whatever slips into a page from doing anything. A page that is
// kept up to date runs scripts of our own, which speak with nobody but us.
const (
	policy     = "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
	livePolicy = policy + "; script-src 'self'; connect-src 'self'"
)

// SetHeader says what a page is and what a browser may do with it.
func SetHeader(h http.Header) {
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin")
}

// Write answers with a page. An error in writing means that the client has left.
func Write(w http.ResponseWriter, status int, page []byte) { write(w, status, page, policy) }

// WriteLive answers with a page that runs scripts, and that nobody may store.
func WriteLive(w http.ResponseWriter, status int, page []byte) {
	w.Header().Set("Cache-Control", "no-store")
	write(w, status, page, livePolicy)
}

func write(w http.ResponseWriter, status int, page []byte, policy string) {
	SetHeader(w.Header())
	w.Header().Set("Content-Security-Policy", policy)
	w.Header().Set("Content-Length", strconv.Itoa(len(page)))
	w.WriteHeader(status)
	_, _ = w.Write(page)
}

// AssetPrefix is where Assets answers.
const AssetPrefix = "/static/"

// versions has a part of each asset's hash, by name. It is in the URL, so that
// what a URL brings never changes.
var versions = func() map[string]string {
	all := map[string]string{}
	entries, err := assets.ReadDir("assets")
	if err != nil {
		panic(err) // they are embedded
	}
	for _, e := range entries {
		content, err := assets.ReadFile("assets/" + e.Name())
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(content)
		all[e.Name()] = base64.RawURLEncoding.EncodeToString(sum[:9])
	}
	return all
}()

// Asset is the URL of an asset, or an error that stops the page.
func Asset(name string) (string, error) { return AssetBelow(AssetPrefix)(name) }

// AssetBelow is Asset where AssetsBelow answers below the same prefix.
func AssetBelow(prefix string) func(name string) (string, error) {
	return func(name string) (string, error) {
		v, ok := versions[name]
		if !ok {
			return "", fmt.Errorf("there is no asset %q", name)
		}
		return prefix + v + "/" + name, nil
	}
}

// Assets serves style sheets and scripts, below AssetPrefix. What it answers
// holds for ever (RFC 8246).
func Assets() http.Handler { return AssetsBelow(AssetPrefix) }

// AssetsBelow serves them below another prefix. A program that answers some paths
// of another's site has its own there: the two may be of different builds, and
// neither has the other's versions.
func AssetsBelow(prefix string) http.Handler {
	asset := AssetBelow(prefix)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := path.Base(r.URL.Path)
		if url, err := asset(name); err != nil || url != r.URL.Path {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		http.ServeFileFS(w, r, assets, "assets/"+name)
	})
}
