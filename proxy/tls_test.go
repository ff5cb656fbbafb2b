package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"walcache/proxy/sandbox/sandboxtest"
)

// certificateFiles are where a proxy looks for its certificate.
type certificateFiles struct {
	t         *testing.T
	cert, key string
}

func newCertificateFiles(t *testing.T) certificateFiles {
	dir := t.TempDir()
	return certificateFiles{t, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
}

// issue writes a new certificate with a serial number, and its key.
func (f certificateFiles) issue(serial int64, expires time.Time) {
	f.t.Helper()
	cert, key := newCertificate(f.t, serial, expires)
	f.write(cert, key)
}

func (f certificateFiles) write(cert, key []byte) {
	f.t.Helper()
	if err := errors.Join(os.WriteFile(f.cert, cert, 0o600), os.WriteFile(f.key, key, 0o600)); err != nil {
		f.t.Fatal(err)
	}
}

func newCertificate(t *testing.T, serial int64, expires time.Time) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: expires, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	pkcs, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs})
}

func TestTLS_WrongFilesAreWrongUsage(t *testing.T) {
	cleanEnv(t)
	good, other := newCertificateFiles(t), newCertificateFiles(t)
	good.issue(1, time.Now().Add(time.Hour))
	other.issue(2, time.Now().Add(time.Hour))
	missing := filepath.Join(t.TempDir(), "none.pem")
	for _, c := range []struct{ cert, key, says string }{
		{good.cert, "", "--tls-cert is given and --tls-key is not\n  try: give both, or neither"},
		{"", good.key, "--tls-key is given and --tls-cert is not\n  try: give both, or neither"},
		{missing, good.key, "--tls-cert: open " + missing + ": no such file or directory\n  try: name a PEM file"},
		{good.cert, missing, "--tls-key: open " + missing + ": no such file or directory\n  try: name a PEM file"},
		{good.cert, other.key, "private key does not match public key\n  try: a chain and its unencrypted key"},
		{good.key, good.cert, "--tls-cert " + good.key},
	} {
		code, _, stderr := typed(append(anyPort, "--tls-cert="+c.cert, "--tls-key="+c.key)...)
		if code != 2 || !strings.HasPrefix(stderr, "proxy: ") || !strings.Contains(stderr, c.says) || strings.Contains(stderr, "PRIVATE") {
			t.Errorf("%s, %s: exit %d\n%s\nwant\n%s", c.cert, c.key, code, stderr, c.says)
		}
	}
}

// client speaks one version of HTTP, and a new connection for each request.
func client(t *testing.T, second bool) *http.Client {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(!second)
	protocols.SetHTTP2(second)
	c := &http.Client{Transport: &http.Transport{Protocols: protocols, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func TestTLS_HitsByBothVersionsAreTheSame(t *testing.T) {
	cleanEnv(t)
	files := newCertificateFiles(t)
	files.issue(1, time.Now().Add(24*time.Hour))
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("X-Forwarded-Proto")+" "+r.Host)
	}))
	defer service.Close()
	s := serveWith(t, "--no-coherence", "--upstream", service.URL, "--tls-cert", files.cert, "--tls-key", files.key)
	host := strings.TrimPrefix(s.url, "http://")
	var last string
	for _, second := range []bool{true, false} {
		sandboxtest.Eventually(t, 10*time.Second, func() error {
			res, err := client(t, second).Get("https://" + host + "/x")
			if err != nil {
				return err
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if err != nil || string(body) != "https "+host || res.ProtoMajor == 2 != second {
				t.Fatalf("%s: %q, %v", res.Proto, body, err)
			}
			if last = res.Header.Get("Cache-Status"); !strings.Contains(last, "; hit") {
				return errors.New(last)
			}
			return nil
		})
	}
	if !strings.Contains(s.log.String(), "the certificate expires") {
		t.Errorf("nothing is said of a certificate that expires tomorrow:\n%s", s.log)
	}
}

// What is asked of this proxy by itself is asked as clients ask it.
func TestTLS_WhatIsWarmedIsWhatALoadTestHits(t *testing.T) {
	cleanEnv(t)
	files := newCertificateFiles(t)
	files.issue(1, time.Now().Add(90*24*time.Hour))
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("X-Forwarded-Proto"))
	}))
	defer service.Close()
	s := serveWith(t, "--no-coherence", "--upstream", service.URL, "--tls-cert", files.cert, "--tls-key", files.key,
		"--manage-prefix", "/manage/", "--admin-token", "a secret")
	ask := func(name, body string) (answer map[string]any) {
		req, err := http.NewRequest(http.MethodPost, s.admin+"/cache/"+name, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer a secret")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
			t.Fatal(err)
		}
		return answer
	}
	if r := ask("warm", `{"paths": ["/x"]}`); r["failed"] != 0. {
		t.Fatal(r)
	}
	r := ask("load-test", `{"paths": ["/x"], "requests": 50}`)
	if hits, _ := r["hits"].(map[string]any); r["failed"] != 0. || hits["memory"] != 50. {
		t.Error(r)
	}
}

func TestTLS_ANewCertificateIsUsedAtOnceAndABrokenOneNever(t *testing.T) {
	cleanEnv(t)
	files := newCertificateFiles(t)
	files.issue(1, time.Now().Add(time.Hour))
	s := serveWith(t, "--no-coherence", "--upstream", hello(t).URL, "--tls-cert", files.cert, "--tls-key", files.key)
	address := strings.TrimPrefix(s.url, "http://")
	serial := func() int64 {
		conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	becomes := func(want int64) {
		t.Helper()
		sandboxtest.Eventually(t, 20*time.Second, func() error {
			if got := serial(); got != want {
				return fmt.Errorf("certificate %d", got)
			}
			return nil
		})
	}
	becomes(1)
	cert, _ := newCertificate(t, 2, time.Now().Add(time.Hour))
	_, key := newCertificate(t, 3, time.Now().Add(time.Hour))
	files.write(cert, key)
	const complaint = "the certificate stays as it was"
	sandboxtest.Eventually(t, 20*time.Second, func() error {
		if !strings.Contains(s.log.String(), complaint) {
			return errors.New("nothing is said of a broken pair")
		}
		return nil
	})
	if got := serial(); got != 1 {
		t.Errorf("certificate %d", got)
	}
	files.issue(4, time.Now().Add(time.Hour))
	becomes(4)
	s.exits(0)
	if n := strings.Count(s.log.String(), complaint); n != 1 {
		t.Errorf("it is said %d times", n)
	}
	if n := strings.Count(s.log.String(), "certificate reloaded"); n != 1 {
		t.Errorf("reloaded %d times", n)
	}
}

// talk sends bytes to a port, and returns the answers' statuses.
func talk(t *testing.T, url, request string) (statuses []int) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	for r := bufio.NewReader(conn); ; {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return statuses
		}
		statuses = append(statuses, res.StatusCode)
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Fatal(err)
		}
	}
}

// Both ports are strict, and what they refuse is counted together.
func TestServe_RefusesWhatCanBeReadInTwoWays(t *testing.T) {
	cleanEnv(t)
	asked := make(chan string, 10)
	service := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.URL.Path }))
	defer service.Close()
	s := serveWith(t, "--no-coherence", "--upstream", service.URL)
	smuggling := "POST /first HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
	for _, url := range []string{s.url, s.admin} {
		if got := talk(t, url, smuggling); len(got) != 1 || got[0] != 400 {
			t.Errorf("%v", got)
		}
	}
	if got := talk(t, s.url, "GET /good HTTP/1.1\r\nHost: h\r\n\r\n"+"GET /bad HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n"); len(got) != 2 || got[0] != 200 || got[1] != 400 {
		t.Errorf("a good one and a bad one: %v", got)
	}
	if len(asked) != 1 || <-asked != "/good" {
		t.Error("the service was asked for something else")
	}
	counted := ask(t, s.admin+"/metrics").body
	for _, want := range []string{`walcache_requests_refused_total{reason="two-lengths"} 2`, `walcache_requests_refused_total{reason="folded-field"} 1`} {
		if !strings.Contains(counted, want) {
			t.Errorf("the metrics have no %s", want)
		}
	}
}

func TestServe_AnUpgradePassesRaw(t *testing.T) {
	cleanEnv(t)
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(conn, rw)
	}))
	defer service.Close()
	s := serveWith(t, "--no-coherence", "--upstream", service.URL)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const early, late = "GET / HTTP/1.1\n\n", "\x81\x05hello"
	_, err = io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"+early)
	r := bufio.NewReader(conn)
	res, err2 := http.ReadResponse(r, nil)
	if err = errors.Join(err, err2); err != nil || res.StatusCode != 101 {
		t.Fatal(res, err)
	}
	_, err = io.WriteString(conn, late)
	back := make([]byte, len(early+late))
	if _, err2 := io.ReadFull(r, back); err != nil || err2 != nil || string(back) != early+late {
		t.Errorf("%q came back, %v, %v", back, err, err2)
	}
}
