package manage

import (
	"fmt"
	"net"
	"net/http"
	"sync"
)

// MaxStreams is how many streams of events go on at a time, and MaxOfOne how many
// of them go to one address: who opens more and more, and reads none, leaves room
// for others.
const (
	MaxStreams = 32
	MaxOfOne   = 8
)

// Streams counts streams of events. The zero value is ready for use; its methods
// may be called concurrently.
type Streams struct {
	mu   sync.Mutex // guards the following
	all  int
	byIP map[string]int // none of them 0
}

// Enter counts one more for the client of a request, until leave is called, once.
// The error says that there is no room.
func (s *Streams) Enter(r *http.Request) (leave func(), err error) {
	ip, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		ip = r.RemoteAddr
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.all >= MaxStreams:
		return nil, fmt.Errorf("%d streams of events go on already", MaxStreams)
	case s.byIP[ip] >= MaxOfOne:
		return nil, fmt.Errorf("%d streams of events go to this address already", MaxOfOne)
	}
	if s.byIP == nil {
		s.byIP = map[string]int{}
	}
	s.all++
	s.byIP[ip]++
	return func() { s.leave(ip) }, nil
}

func (s *Streams) leave(ip string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.byIP[ip]--; s.byIP[ip] == 0 {
		delete(s.byIP, ip)
	}
}

// Open is how many there are.
func (s *Streams) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all
}
