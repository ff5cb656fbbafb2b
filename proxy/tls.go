package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v2"
)

// certificate is what --tls-cert and --tls-key name, read anew when the files
// change.
type certificate struct {
	certFile, keyFile string
	current           atomic.Pointer[tls.Certificate]
	pair              pair // that current was made of
}

// pair is what the two files hold.
type pair struct{ cert, key []byte }

func (p pair) equal(q pair) bool { return bytes.Equal(p.cert, q.cert) && bytes.Equal(p.key, q.key) }

// tlsOptions reads the certificate, or none.
func (o *options) tlsOptions(c *cli.Context) error {
	certFile, keyFile := c.String("tls-cert"), c.String("tls-key")
	switch {
	case certFile == "" && keyFile == "":
		return nil
	case keyFile == "":
		return usagef("--tls-cert is given and --tls-key is not\n  try: give both, or neither")
	case certFile == "":
		return usagef("--tls-key is given and --tls-cert is not\n  try: give both, or neither")
	}
	o.tls = &certificate{certFile: certFile, keyFile: keyFile}
	p, err := o.tls.read()
	if err == nil {
		err = o.tls.use(p)
	}
	if err != nil {
		return usageError{err}
	}
	return nil
}

// read reads the files.
func (c *certificate) read() (p pair, err error) {
	for _, f := range []struct {
		flag, name string
		to         *[]byte
	}{{"tls-cert", c.certFile, &p.cert}, {"tls-key", c.keyFile, &p.key}} {
		if *f.to, err = os.ReadFile(f.name); err != nil {
			return p, fmt.Errorf("--%s: %w\n  try: name a PEM file that this user may read", f.flag, err)
		}
	}
	return p, nil
}

// use makes a pair the one that new connections get.
func (c *certificate) use(p pair) error {
	loaded, err := tls.X509KeyPair(p.cert, p.key)
	if err != nil { // which says nothing of what is in the key
		return fmt.Errorf("--tls-cert %s with --tls-key %s: %w\n  try: a chain and its unencrypted key, both as PEM; openssl x509 -noout -pubkey -in CERT and openssl pkey -pubout -in KEY have to print the same",
			c.certFile, c.keyFile, err)
	}
	c.pair = p
	c.current.Store(&loaded)
	return nil
}

// get is for tls.Config.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.current.Load(), nil
}

const (
	certificateCheck = time.Second
	// expirySoon is when an operator should have renewed a certificate.
	expirySoon = 14 * 24 * time.Hour
)

// keep reads the files once a second until ctx ends. Connections go on as they
// began; new ones get the new certificate. What cannot be used is logged once, and
// changes nothing.
func (c *certificate) keep(ctx context.Context, log *slog.Logger) error {
	seen, warned := c.pair, c.warn(false, log)
	var failed string // what was logged last
	for tick := time.NewTicker(certificateCheck); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return nil
		case <-tick.C:
		}
		now, err := c.read()
		settled := now.equal(seen) // or one file may have been written and the other not yet
		seen = now
		if err == nil && settled && !now.equal(c.pair) {
			if err = c.use(now); err == nil {
				log.Info("certificate reloaded", "file", c.certFile, "expires", c.current.Load().Leaf.NotAfter)
				warned = false
			}
		}
		switch {
		case err != nil && settled && failed != err.Error():
			failed = err.Error()
			log.Error("the certificate stays as it was", "err", err)
		case err == nil && now.equal(c.pair):
			failed = ""
		}
		warned = c.warn(warned, log)
	}
}

// warn says once that the certificate expires soon, or that it has.
func (c *certificate) warn(warned bool, log *slog.Logger) bool {
	expires := c.current.Load().Leaf.NotAfter
	if !warned && time.Until(expires) < expirySoon {
		log.Warn("the certificate expires; renew it, and the new one is used at once", "file", c.certFile, "expires", expires)
		return true
	}
	return warned
}
