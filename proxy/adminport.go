package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"walcache/proxy/settings"
)

// adminFlags say where to ask, and who is asking.
func adminFlags(more ...cli.Flag) []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "admin-url", Value: "http://127.0.0.1:8003", EnvVars: []string{"ADMIN_URL"}, Usage: "`URL` of the admin port"},
		&cli.StringFlag{Name: "admin-token", EnvVars: []string{"ADMIN_TOKEN"}, Usage: "`SECRET` of the admin port; prefer the variable, since ps shows flags"},
		&cli.StringFlag{Name: "admin-token-file", EnvVars: []string{"ADMIN_TOKEN_FILE"}, Usage: "`FILE` that holds the token"},
		&cli.BoolFlag{Name: "json", Usage: "print the answer as JSON, for scripts"},
	}, more...)
}

// adminPort is where operators ask.
type adminPort struct {
	base, host, token string
}

func newAdminPort(c *cli.Context) (adminPort, error) {
	base := strings.TrimSuffix(c.String("admin-url"), "/")
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return adminPort{}, usagef("--admin-url is no URL, such as http://127.0.0.1:8003")
	}
	token, err := settings.Secret(c, "admin-token")
	return adminPort{base, u.Host, token}, err
}

// ndjson is the type of an answer that tells how far it is: lines of JSON, of
// which the last is the result.
const ndjson = "application/x-ndjson"

// ask sends a request, and returns its answer as the port wrote it, also beside
// an error, which says what the port said. If during is not nil, it gets what
// the port tells meanwhile.
func (p adminPort) ask(ctx context.Context, method, target string, content any, during func(line []byte)) ([]byte, error) {
	var body io.Reader = http.NoBody
	if content != nil {
		text, err := json.Marshal(content)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, p.base+target, body)
	if err != nil {
		return nil, usageError{fmt.Errorf("--admin-url: %w", err)}
	}
	req.Header.Set("Accept", "application/json")
	if during != nil {
		req.Header.Set("Accept", ndjson+", application/json")
	}
	if content != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if p.token != "" {
		req.Header.Set("Authorization", "Bearer "+p.token)
	}
	res, err := http.DefaultClient.Do(req)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("nothing answers at %s\n  try: start the proxy, or name its admin port with --admin-url (ADMIN_URL)", p.host)
	}
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", p.host, err)
	}
	defer res.Body.Close()
	text, err := lastLine(res, during)
	if err != nil {
		return nil, fmt.Errorf("answer of %s: %w", p.host, err)
	}
	return text, p.refusal(res, text)
}

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 16 << 20

// lastLine reads an answer, or of one that is lines the last, after the others
// have been handed on.
func lastLine(res *http.Response, during func(line []byte)) ([]byte, error) {
	if res.Header.Get("Content-Type") != ndjson {
		return io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	}
	var last []byte
	scanner := bufio.NewScanner(res.Body)
	scanner.Buffer(nil, maxAnswer)
	for scanner.Scan() {
		if last != nil {
			during(last)
		}
		last = bytes.Clone(scanner.Bytes())
	}
	return last, scanner.Err()
}

// refusal is what the port says of a request that it did not do, or that did not
// go well.
func (p adminPort) refusal(res *http.Response, text []byte) error {
	var problem struct{ Error, Try, Usage string }
	isJSON := json.Unmarshal(cleaned(text), &problem) == nil
	switch {
	case isJSON && res.StatusCode == http.StatusOK:
		return nil
	case isJSON && problem.Error != "":
		return fmt.Errorf("%s: %s\n  try: %s", p.host, problem.Error, strings.TrimSpace(problem.Try+problem.Usage))
	}
	return fmt.Errorf("%s answers %s\n  try: is that the admin port? name it with --admin-url (ADMIN_URL)", p.host, clean(res.Status))
}
