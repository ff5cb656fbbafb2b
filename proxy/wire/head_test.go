package wire

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

// malformed are requests by what is wrong with them, each with the section of RFC
// 9112 or 9110 that says so.
var malformed = []struct {
	why     Reason
	request string
}{
	// Request line: RFC 9112, section 3.
	{RequestLine, "GET  / HTTP/1.1\r\n" + host + "\r\n"},
	{RequestLine, "GET /  HTTP/1.1\r\n" + host + "\r\n"},
	{RequestLine, " GET / HTTP/1.1\r\n" + host + "\r\n"},
	{RequestLine, "GET / HTTP/1.1 \r\n" + host + "\r\n"},
	{RequestLine, "GET /a b HTTP/1.1\r\n" + host + "\r\n"},
	{RequestLine, "GET\t/\tHTTP/1.1\r\n" + host + "\r\n"},
	{RequestLine, "GET /\r\n" + host + "\r\n"},
	{RequestLine, "GET\r\n\r\n"},
	{RequestLine, "/ HTTP/1.1\r\n\r\n"},
	{RequestLine, "G(T / HTTP/1.1\r\n" + host + "\r\n"},
	{RequestLine, "GET / http/1.1\r\n" + host + "\r\n"},
	{RequestLine, "GET / HTTP/1.10\r\n" + host + "\r\n"},
	{RequestLine, "GET / HTTP/+1.1\r\n" + host + "\r\n"},
	{RequestLine, "GET / HTTP/1,1\r\n" + host + "\r\n"},
	{RequestLine, "\x16\x03\x01\x02\x00\x01"},
	{RequestLine, "\r\n\r\n" + get("/")},
	{RequestLine, "\n" + get("/")},
	{RequestLine, "\x00" + get("/")},
	{RequestLine, ": x\r\n"},
	{Version, "GET / HTTP/2.0\r\n" + host + "\r\n"},
	{Version, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
	{Version, "GET / HTTP/1.2\r\n" + host + "\r\n"},
	{Version, "GET / HTTP/0.9\r\n\r\n"},
	// Target: RFC 9112, section 3.2.
	{Target, get("x")},
	{Target, get("*")},
	{Target, "OPTIONS ** HTTP/1.1\r\n" + host + "\r\n"},
	{Target, get("/a#b")},
	{Target, get("/\x00")},
	{Target, get("/\x7f")},
	{Target, get("/a\tb")},
	{Target, get("/\xc3\xbc")},
	{Target, get("/\xa0x")},
	{Target, get("/%zz")},
	{Target, get("/%2")},
	{Target, get("/%")},
	{Target, get("?x")},
	{Target, get("example.com/x")},
	{Target, get("example.com:80")},
	{AbsoluteForm, get("http://h/")},
	{AbsoluteForm, get("https://other/x")},
	{AbsoluteForm, get("ftp://h/")},
	{Connect, "CONNECT h:443 HTTP/1.1\r\n" + host + "\r\n"},
	{Connect, "CONNECT / HTTP/1.1\r\n" + host + "\r\n"},
	// Lines: RFC 9112, section 2.2.
	{LineEnding, "GET / HTTP/1.1\n" + host + "\r\n"},
	{LineEnding, "GET / HTTP/1.1\r\nHost: h\n\r\n"},
	{LineEnding, "GET / HTTP/1.1\r\nHost: h\r\n\n"},
	{LineEnding, "GET / HTTP/1.1\r\nHost: h\r\nA: b\rC: d\r\n\r\n"},
	{LineEnding, "GET / HTTP/1.1\r\nHost: h\r\r\n\r\n"},
	{LineEnding, "GET /\rx HTTP/1.1\r\nHost: h\r\n\r\n"},
	// Fields: RFC 9112, section 5, and RFC 9110, section 5.
	{Folded, get("/", "A: b", " c")},
	{Folded, get("/", "A: b", "\tc: d")},
	{Folded, "GET / HTTP/1.1\r\n Host: h\r\n\r\n"},
	{FieldName, get("/", "A : b")},
	{FieldName, get("/", "A\t: b")},
	{FieldName, get("/", ": b")},
	{FieldName, get("/", "A")},
	{FieldName, get("/", "A B: c")},
	{FieldName, get("/", "\xc3\xbc: c")},
	{FieldName, get("/", "A\x00: c")},
	{FieldName, get("/", "Transfer-Encoding : chunked")},
	{FieldName, get("/", "Content-Length\x00: 5")},
	{FieldName, get("/", "(A): c")},
	{FieldValue, get("/", "A: \x00")},
	{FieldValue, get("/", "A: b\x0bc")},
	{FieldValue, get("/", "A: \x7f")},
	{FieldValue, get("/", "Transfer-Encoding: \x0bchunked")},
	// Host: RFC 9112, section 3.2; RFC 9110, sections 4.2.1 and 7.2.
	{Host, "GET / HTTP/1.1\r\n\r\n"},
	{Host, get("/", "Host: h")},
	{Host, get("/", "host: other")},
	{Host, "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"},
	{Host, "GET / HTTP/1.1\r\nHost:\r\n\r\n"},
	{Host, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"},
	{Host, "GET / HTTP/1.1\r\nHost: user@h\r\n\r\n"},
	{Host, "GET / HTTP/1.1\r\nHost: h/x\r\n\r\n"},
	{Host, "GET / HTTP/1.1\r\nHost: http://h\r\n\r\n"},
	{Host, "GET / HTTP/1.1\r\nHost: h:80:80\r\n\r\n"},
	{Host, "GET / HTTP/1.1\r\nHost: h:x\r\n\r\n"},
	{Host, "GET / HTTP/1.1\r\nHost: h:123456\r\n\r\n"},
	{Host, "GET / HTTP/1.1\r\nHost: :80\r\n\r\n"},
	{Host, "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"},
	{Host, "GET / HTTP/1.1\r\nHost: []\r\n\r\n"},
	{Host, "GET / HTTP/1.1\r\nHost: [h]\r\n\r\n"},
	{Host, "GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n"},
	{Host, "GET / HTTP/1.1\r\nHost: h%zz\r\n\r\n"},
	{Host, "GET / HTTP/1.1\r\nHost: \xc3\xbc\r\n\r\n"},
	// Framing: RFC 9112, section 6; RFC 9110, section 8.6.
	{ContentLength, post("Content-Length: 1\r\nContent-Length: 1", "x")},
	{ContentLength, post("Content-Length: 1\r\nContent-Length: 2", "x")},
	{ContentLength, post("Content-Length: 1, 1", "x")},
	{ContentLength, post("Content-Length: 1,1", "x")},
	{ContentLength, post("Content-Length: +1", "x")},
	{ContentLength, post("Content-Length: -1", "x")},
	{ContentLength, post("Content-Length: 0x1", "x")},
	{ContentLength, post("Content-Length: 1 1", "x")},
	{ContentLength, post("Content-Length: 1_0", "x")},
	{ContentLength, post("Content-Length: ", "x")},
	{ContentLength, post("Content-Length: \"1\"", "x")},
	{ContentLength, post("Content-Length: 1e1", "x")},
	{ContentLength, post("Content-Length: 9999999999999999999", "x")},
	{ContentLength, post("Content-Length: 18446744073709551617", "x")},
	{ContentLength, post("Content-Length: \xd9\xa1", "x")},
	{TwoLengths, post("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n")},
	{TwoLengths, post("Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n")},
	{TwoLengths, post("transfer-encoding: chunked\r\ncontent-length: 0", "0\r\n\r\n")},
	{TransferEncoding, post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n")},
	{TransferEncoding, "POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{UnknownCoding, post("Transfer-Encoding: gzip, chunked", "")},
	{UnknownCoding, post("Transfer-Encoding: chunked, chunked", "")},
	{UnknownCoding, post("Transfer-Encoding: chunked, identity", "")},
	{UnknownCoding, post("Transfer-Encoding: identity", "")},
	{UnknownCoding, post("Transfer-Encoding: xchunked", "")},
	{UnknownCoding, post("Transfer-Encoding: chunked;q=1", "")},
	{UnknownCoding, post("Transfer-Encoding: \"chunked\"", "")},
	{UnknownCoding, post("Transfer-Encoding:", "")},
	{Trailer, post("Transfer-Encoding: chunked\r\nTrailer: X, Content-Length", "")},
	// Limits.
	{LineTooLong, get("/" + strings.Repeat("x", 8<<10))},
	{LineTooLong, strings.Repeat("x", 9<<10)},
	{HeadTooLarge, get("/", "A: "+strings.Repeat("x", 16<<10))},
	{HeadTooLarge, get("/", manyFields(100, 1)...)},
	{HeadTooLarge, get("/", manyFields(50, 2000)...)},
}

func post(fields, body string) string {
	return "POST / HTTP/1.1\r\n" + host + fields + "\r\n\r\n" + body
}

func manyFields(n, size int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf("A%d: %s", i, strings.Repeat("x", size)))
	}
	return all
}

func TestConn_AnswersWhatIsMalformedAndEnds(t *testing.T) {
	for _, test := range malformed {
		t.Run(test.why.String(), func(t *testing.T) {
			t.Parallel()
			s := serve(t, Limits{}, echo)
			c := s.dial()
			c.send(test.request)
			method, _, _ := strings.Cut(test.request, " ")
			res, body := c.answer(method)
			if res.StatusCode != refusals[test.why].status || !strings.Contains(body, refusals[test.why].text) || !res.Close {
				t.Errorf("%q: %d %q", test.request, res.StatusCode, body)
			}
			c.ends()
			if got := s.count.Refused(); len(got) != 1 || got[test.why.String()] != 1 {
				t.Errorf("%q: counted %v", test.request, got)
			}
		})
	}
}

// The reason does not depend on how the bytes arrive.
func TestConn_RefusesAByteAtATimeToo(t *testing.T) {
	for _, test := range malformed {
		c := newConn(newTape(test.request, 1), Limits{})
		got, err := io.ReadAll(c)
		if err != nil || len(got) > 0 || c.refused != test.why {
			t.Errorf("%.80q: %v, refused for %q, want %q", test.request, err, refusals[c.refused].name, test.why)
		}
	}
}

func TestReason_EachHasANameAndWords(t *testing.T) {
	names := map[string]bool{}
	for r := allowed + 1; r < reasons; r++ {
		if names[r.String()] || r.String() == "" || refusals[r].text == "" {
			t.Errorf("reason %d is %q: %q", r, r, refusals[r].text)
		}
		names[r.String()] = true
	}
}

func TestHead_SaysWhatWasSent(t *testing.T) {
	c := newConn(newTape("PATCH /a?b HTTP/1.1\r\nhOST:  h:80 \r\nEmpty:\r\nA: b c\t\r\nContent-Length: 3\r\n\r\nxyz"), Limits{})
	_, err := c.Read(make([]byte, 1))
	must(t, err)
	h := c.Head()
	var fields []string
	for i := range h.Fields() {
		name, value := h.Field(i)
		fields = append(fields, string(name)+"="+string(value))
	}
	got := fmt.Sprintf("%s %s %s %d %d %q", h.Method(), h.Target(), h.Host(), h.Minor(), h.Length(), fields)
	if want := `PATCH /a?b h:80 1 3 ["hOST=h:80" "Empty=" "A=b c" "Content-Length=3"]`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// endless is a client that sends the same request for ever.
type endless struct {
	tape
	request []byte
}

func (e *endless) Read(p []byte) (int, error) { return copy(p, e.request), nil }

func TestConn_AllocatesNothing(t *testing.T) {
	e := &endless{request: []byte(browser)}
	c := newConn(e, Limits{})
	p := make([]byte, 4<<10)
	if n := testing.AllocsPerRun(100, func() {
		if n, err := c.Read(p); n != len(browser) || err != nil {
			t.Fatal(n, err)
		}
		c.answering = false
	}); n > 0 {
		t.Errorf("%v allocations a request", n)
	}
}

// browser is a request as browsers send it.
var browser = get("/properties/?page=2&format=json",
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "Accept-Language: en-US,en;q=0.5",
	"Accept-Encoding: gzip, deflate, br, zstd", "Connection: keep-alive", "Upgrade-Insecure-Requests: 1",
	"Sec-Fetch-Dest: document", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Site: none", "Priority: u=0, i")

func BenchmarkHead(b *testing.B) {
	e := &endless{request: []byte(browser)}
	c := newConn(e, Limits{})
	p := make([]byte, 4<<10)
	b.SetBytes(int64(len(browser)))
	for b.Loop() {
		_, _ = c.Read(p)
		c.answering = false
	}
}
