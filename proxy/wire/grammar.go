package wire

import "bytes"

// What a byte may be part of.
const (
	inToken  = 1 << iota // RFC 9110, section 5.6.2
	inTarget             // of a request line: see validTarget
	inValue              // of a field: all but control characters (RFC 9110, section 5.5)
	inHost               // a name or an IPv4 address (RFC 3986, section 3.2.2)
	inHex
	inDigit
)

var classes = func() (t [256]uint8) {
	mark := func(bytes string, class uint8) {
		for i := range len(bytes) {
			t[bytes[i]] |= class
		}
	}
	const digits, letters = "0123456789", "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	mark(digits, inDigit)
	mark(digits+"abcdefABCDEF", inHex)
	mark(digits+letters+"!#$%&'*+-.^_`|~", inToken)
	mark(digits+letters+"-._~!$&'()*+,;=%", inHost)
	for c := range 256 {
		if c > ' ' && c < 0x7f && c != '#' {
			t[c] |= inTarget
		}
		if c >= ' ' && c != 0x7f || c == '\t' {
			t[c] |= inValue
		}
	}
	return t
}()

// all reports whether b has only bytes of a class.
func all(b []byte, class uint8) bool {
	for _, c := range b {
		if classes[c]&class == 0 {
			return false
		}
	}
	return true
}

// is reports whether a name is one in lower case. The name has been found to be
// a token, so that only letters differ by the bit that is set here.
func is(name []byte, lower string) bool {
	if len(name) != len(lower) {
		return false
	}
	for i, c := range name {
		if c != lower[i] && c|0x20 != lower[i] {
			return false
		}
	}
	return true
}

// trim says where b begins and ends without the spaces and tabs around it (RFC
// 9110, section 5.6.3).
func trim(b []byte) (from, to int) {
	for to = len(b); to > 0 && (b[to-1] == ' ' || b[to-1] == '\t'); {
		to--
	}
	for from < to && (b[from] == ' ' || b[from] == '\t') {
		from++
	}
	return from, to
}

// checkTarget looks at the target of a request (RFC 9112, section 3.2). A
// fragment is none of a request's, and non-ASCII bytes have to be
// percent-encoded: there are services that take some of them for spaces, and the
// rest of the target for the version. The others that a URL may not have, such as
// { or |, mean nothing to any reader, and browsers send them: they pass.
//
// An absolute URL has two hosts, that of the line and that of Host, and which one
// counts differs between readers. The RFC would have servers accept it, for
// clients of forward proxies; none has reason to come here.
func checkTarget(method, target []byte) Reason {
	switch {
	case string(method) == "CONNECT":
		return Connect
	case !all(target, inTarget) || len(target) == 0:
		return Target
	case target[0] == '/':
		path, _, _ := bytes.Cut(target, []byte{'?'})
		return checkEncoding(path)
	case string(target) == "*" && string(method) == "OPTIONS":
		return allowed
	case bytes.Contains(target, []byte("://")):
		return AbsoluteForm
	}
	return Target
}

// checkEncoding wants two hexadecimal digits behind each percent sign.
func checkEncoding(path []byte) Reason {
	for {
		i := bytes.IndexByte(path, '%')
		if i < 0 {
			return allowed
		}
		if path = path[i+1:]; len(path) < 2 || !all(path[:2], inHex) {
			return Target
		}
	}
}

// validHost reports whether a Host field is host[:port], where the host is not
// empty: an http URL always has one (RFC 9110, section 4.2.1).
func validHost(host []byte) bool {
	name, port := host, []byte(nil)
	if len(host) > 0 && host[0] == '[' {
		end := bytes.IndexByte(host, ']')
		if end < 3 || bytes.IndexByte(host[:end], ':') < 0 {
			return false
		}
		for _, c := range host[1:end] {
			if classes[c]&inHex == 0 && c != ':' && c != '.' {
				return false
			}
		}
		name, port = host[1:end], host[end+1:]
	} else {
		if i := bytes.IndexByte(host, ':'); i >= 0 {
			name, port = host[:i], host[i:]
		}
		if !all(name, inHost) || checkEncoding(name) != allowed {
			return false
		}
	}
	return len(name) > 0 && (len(port) == 0 || port[0] == ':' && len(port) <= 6 && all(port[1:], inDigit))
}

// maxLengthDigits keeps a length in an int64.
const maxLengthDigits = 18

// length reads a Content-Length: digits and nothing else (RFC 9110, section 8.6).
func length(value []byte) (n int64, ok bool) {
	if len(value) == 0 || len(value) > maxLengthDigits || !all(value, inDigit) {
		return 0, false
	}
	for _, c := range value {
		n = 10*n + int64(c-'0')
	}
	return n, true
}

// maxChunkDigits keeps the size of a chunk in an int64.
const maxChunkDigits = 15

// maxExtension is the most that may stand behind the size of a chunk, in bytes.
const maxExtension = 256

// chunkSize reads the line before a chunk, without its end (RFC 9112, section
// 7.1). Extensions are skipped by whoever reads the body.
func chunkSize(line []byte) (n int64, ok bool) {
	digits := 0
	for digits < len(line) && classes[line[digits]]&inHex != 0 {
		c := line[digits] | 0x20 // which leaves digits as they are
		if c >= 'a' {
			c -= 'a' - 10 - '0'
		}
		n = n<<4 | int64(c-'0')
		digits++
	}
	extension := line[digits:]
	return n, digits > 0 && digits <= maxChunkDigits && len(extension) <= maxExtension &&
		(len(extension) == 0 || extension[0] == ';' && all(extension, inValue))
}
