package peer

import (
	"net"
	"sync/atomic"

	"google.golang.org/grpc/credentials"
)

// CountPings counts the pings of HTTP/2 that come over the connections of a server with these credentials, answers excepted.
func CountPings(credentials credentials.TransportCredentials) (credentials.TransportCredentials, func() uint64) {
	pings := new(atomic.Uint64)
	return counting{credentials, pings}, pings.Load
}

type counting struct {
	credentials.TransportCredentials
	pings *atomic.Uint64
}

func (c counting) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	return &scanned{Conn: conn, pings: c.pings, skip: preface}, info, nil
}

func (c counting) Clone() credentials.TransportCredentials {
	return counting{c.TransportCredentials.Clone(), c.pings}
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
