package panel

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
)

// minSecret is how many characters a secret key must have.
const minSecret = 32

// wellKnown are parts of keys that stand in examples, spelled without case,
// spaces, "-" and "_". No random key has one by chance.
var wellKnown = []string{
	"yoursecret", "secretkey", "djangoinsecure", "changeme", "changethis", "replaceme", "replacethis",
	"password", "example", "insecure", "topsecret", "notasecret",
}

// CheckSecret says what is wrong with a secret key, and how to make one. A key
// that others can guess lets them log in as anybody who can write to Redis. In
// debug anything will do, nothing too: New makes one then. The error does not
// repeat the key.
func CheckSecret(key string, debug bool) error {
	if debug {
		return nil
	}
	plain := strings.NewReplacer("-", "", "_", "", " ", "").Replace(strings.ToLower(key))
	wrong := ""
	switch {
	case strings.TrimSpace(key) == "":
		wrong = "is not set"
	case len(key) < minSecret:
		wrong = fmt.Sprintf("has %d characters, and needs at least %d", len(key), minSecret)
	case containsAny(plain, wellKnown):
		wrong = "is a key out of an example, which everybody knows"
	case distinct(key) < 8:
		wrong = "repeats itself, and can be guessed"
	default:
		return nil
	}
	return errors.New("SECRET_KEY " + wrong +
		"\n  try: set it to what `openssl rand -base64 48` prints, the same in every process, or DEBUG=1 on a machine of your own")
}

func containsAny(s string, parts []string) bool {
	for _, part := range parts {
		if strings.Contains(s, part) {
			return true
		}
	}
	return false
}

// distinct is how many different bytes a string has.
func distinct(s string) int {
	seen := map[byte]bool{}
	for i := range len(s) {
		seen[s[i]] = true
	}
	return len(seen)
}

// randomSecret has 256 random bits.
func randomSecret() string { return rand.Text() + rand.Text() }
