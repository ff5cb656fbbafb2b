package wire

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
)

// BenchmarkServer is net/http with this package before it and without, for a
// client that keeps its connection.
func BenchmarkServer(b *testing.B) {
	answer := make([]byte, 2<<10)
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = []string{"text/plain"}
		_, _ = w.Write(answer)
	})
	for name, run := range map[string]func(*http.Server, net.Listener) error{
		"strict": func(s *http.Server, l net.Listener) error { return Serve(s, l, Config{}) },
		"plain":  (*http.Server).Serve,
		"hits":   func(s *http.Server, l net.Listener) error { return Serve(s, l, Config{Hits: ready{answer}}) },
	} {
		b.Run(name, func(b *testing.B) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			must(b, err)
			s := &http.Server{Handler: h}
			go func() { _ = run(s, l) }()
			defer s.Close()
			b.ReportAllocs()
			before := processorTime(b)
			b.RunParallel(func(pb *testing.PB) {
				conn, err := net.Dial("tcp", l.Addr().String())
				must(b, err)
				defer conn.Close()
				r := bufio.NewReader(conn)
				for pb.Next() {
					_, err := io.WriteString(conn, browser)
					must(b, err)
					res, err := http.ReadResponse(r, nil)
					must(b, err)
					_, err = io.Copy(io.Discard, res.Body)
					must(b, err)
				}
			})
			b.ReportMetric(float64(processorTime(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// processorTime is what this process has used, client and server: unlike the time
// that passes, it says the same on a busy machine.
func processorTime(b *testing.B) int64 {
	var used syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return used.Utime.Nano() + used.Stime.Nano()
}

// ready answers everything.
type ready struct{ body []byte }

func (a ready) Answer(_ *http.Request, buf []byte) (head, body []byte, ok bool) {
	return append(buf, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2048\r\n\r\n"...), a.body, true
}
