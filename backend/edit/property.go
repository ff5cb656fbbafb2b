package edit

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"walcache/backend/db"
)

// The limits of a property, in characters. Title and location are those of
// their columns; a description is bounded so that a list of them stays a page.
const (
	MinTitle       = 3
	MaxTitle       = 255
	MaxDescription = 10_000
	MaxLocation    = 255
)

// MaxPrice is the largest price that the column holds.
const MaxPrice = "99999999.99"

// Property is what people may say of a property. The price is decimal, as
// "1250.00".
type Property struct{ Title, Description, Price, Location string }

// Of is the part of a row that people may change.
func Of(row db.LockPropertyRow) Property {
	return Property{Title: row.Title, Description: row.Description, Price: row.Price, Location: row.Location}
}

// Problem is what is wrong with one field, in words that follow its name.
type Problem struct{ Field, Reason string }

// Invalid names every field that is wrong, each once.
type Invalid []Problem

func (i Invalid) Error() string {
	said := make([]string, len(i))
	for n, p := range i {
		said[n] = p.Field + " " + p.Reason
	}
	return strings.Join(said, "; ")
}

// Check returns the property as it is stored: title and location without the
// spaces around them, the price with two decimals, and lines that end in LF,
// where a browser's form sends CR LF. If fields are wrong it returns Invalid.
func (p Property) Check() (Property, error) {
	var wrong Invalid
	note := func(field, reason string) {
		if reason != "" {
			wrong = append(wrong, Problem{field, reason})
		}
	}
	p.Title = strings.TrimSpace(p.Title)
	p.Location = strings.TrimSpace(p.Location)
	p.Description = strings.ReplaceAll(p.Description, "\r\n", "\n")
	price, priceReason := checkPrice(p.Price)

	note("title", checkText(p.Title, MinTitle, MaxTitle))
	note("description", checkText(p.Description, 0, MaxDescription))
	note("price", priceReason)
	note("location", checkText(p.Location, 1, MaxLocation))
	if wrong != nil {
		return p, wrong
	}
	p.Price = price
	return p, nil
}

// checkText says what is wrong with a text, or nothing.
func checkText(s string, least, most int) string {
	n := utf8.RuneCountInString(s)
	switch {
	case !utf8.ValidString(s):
		return "must be UTF-8"
	case strings.ContainsRune(s, 0):
		return "must not contain a NUL"
	case n == 0 && least > 0:
		return "is required"
	case n < least:
		return fmt.Sprintf("must have at least %d characters", least)
	case n > most:
		return fmt.Sprintf("must have at most %d characters, and has %d", most, n)
	}
	return ""
}

// checkPrice returns the price with two decimals, or what is wrong with it.
func checkPrice(s string) (price, reason string) {
	if strings.TrimSpace(s) == "" {
		return "", "is required"
	}
	if price, reason = Amount(s); price == "0.00" {
		return "", "must be more than 0"
	}
	return price, reason
}

// Amount reads an amount of money, 0 to MaxPrice, with at most two decimals and
// nothing else: no sign, no exponent, no separator of thousands. It returns it as
// PostgreSQL prints it, "1250.00", or what is wrong with it. It computes with
// text, since a float would forget the cents.
func Amount(s string) (amount, reason string) {
	const form = "must be a number with at most two decimals, such as 1250 or 1250.50"
	whole, cents, point := strings.Cut(strings.TrimSpace(s), ".")
	if !digits(whole) || point && !digits(cents) || len(cents) > 2 {
		return "", form
	}
	whole = strings.TrimLeft(whole, "0")
	if len(whole) > len("99999999") {
		return "", "must be at most 99,999,999.99"
	}
	if whole == "" {
		whole = "0"
	}
	return whole + "." + (cents + "00")[:2], ""
}

// digits reports whether s is one or more decimal digits of ASCII.
func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
