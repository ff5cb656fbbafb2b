package doctor

import (
	"context"
	"errors"
	"net/http"
	"net/url"
)

// examineUpstream sends one GET to the service.
func examineUpstream(ctx context.Context, config Config) Report {
	if config.Upstream == "" {
		return nil
	}
	n := &notes{config: config, server: "upstream", where: "the service"}
	u, err := url.Parse(config.Upstream)
	if err == nil {
		n.where = "the service at " + u.Redacted()
		u.Path = "/"
		err = n.get(ctx, u)
	}
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) { // without the URL
			err = wrapped.Err
		}
		n.add("reachable", Finding{Status: Error, What: oneLine(err.Error()), Why: "the proxy answers from it what it has not stored", Fix: "start the service, or correct UPSTREAM (--upstream)"})
	}
	return n.report
}

func (n *notes) get(ctx context.Context, u *url.URL) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", applicationName)
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		Timeout:       2 * n.config.limits.patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode >= 500 {
		n.add("reachable", Finding{Status: Warning, What: "GET / answers " + response.Status, Why: "failures are not stored", Fix: "look at the service's log"})
	} else {
		n.ok("reachable", "GET / answers %s", response.Status)
	}
	n.date(response.Header)
	n.contract(response.Header)
	return nil
}

func (n *notes) date(h http.Header) {
	if _, err := http.ParseTime(h.Get("Date")); err != nil {
		n.ok("date", "it states none; the proxy counts from when an answer came")
		return
	}
	n.ok("date", "it states one")
}

// contract says whether the service tells what its answers depend on.
func (n *notes) contract(h http.Header) {
	position, groups := h.Get("As-Of-LSN") != "", h.Get("Cache-Groups") != ""
	switch {
	case position && groups:
		n.ok("tags", "it states As-Of-LSN and Cache-Groups")
	case groups:
		n.ok("tags", "it states Cache-Groups and no As-Of-LSN: they narrow what an answer depends on only with --tags=trust")
	default:
		n.ok("tags", "it states no Cache-Groups on /: such an answer depends on the whole database")
	}
}
