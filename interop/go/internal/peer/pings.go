package peer

import (
	"net"
	"sync/atomic"
)

// CountPings counts the pings of HTTP/2 that come over the connections of a listener, answers excepted.
func CountPings(listener net.Listener) (net.Listener, func() uint64) {
	counting := &counting{Listener: listener}
	return counting, counting.pings.Load
}

type counting struct {
	net.Listener
	pings atomic.Uint64
}

func (c *counting) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &scanned{Conn: conn, pings: &c.pings, skip: preface}, nil
}

const (
	// What a client sends before its first frame.
	preface = len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	header  = 9
	ping    = 6
	ack     = 1
)

// scanned looks at the headers of the frames that are read.
type scanned struct {
	net.Conn
	pings *atomic.Uint64
	// So many bytes come before the next header, of which these are known.
	skip  int
	known []byte
}

func (s *scanned) Read(bytes []byte) (int, error) {
	n, err := s.Conn.Read(bytes)
	s.scan(bytes[:n])
	return n, err
}

func (s *scanned) scan(bytes []byte) {
	for len(bytes) > 0 {
		if s.skip > 0 {
			skipped := min(s.skip, len(bytes))
			s.skip -= skipped
			bytes = bytes[skipped:]
			continue
		}
		taken := min(header-len(s.known), len(bytes))
		s.known = append(s.known, bytes[:taken]...)
		bytes = bytes[taken:]
		if len(s.known) == header {
			if s.known[3] == ping && s.known[4]&ack == 0 {
				s.pings.Add(1)
			}
			s.skip = int(s.known[0])<<16 | int(s.known[1])<<8 | int(s.known[2])
			s.known = s.known[:0]
		}
	}
}
