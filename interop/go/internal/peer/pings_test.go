package peer

import (
	"sync/atomic"
	"testing"
)

func TestPingsAreCountedHoweverTheBytesCome(t *testing.T) {
	bytes := make([]byte, preface)
	frame := func(length, kind, flags byte) {
		bytes = append(bytes, 0, 0, length, kind, flags, 0, 0, 0, 0)
		// All that could be taken for a ping's header.
		for range length {
			bytes = append(bytes, ping)
		}
	}
	frame(8, ping, 0)
	frame(30, 0, 0)
	frame(8, ping, ack)
	frame(0, 4, 0)
	frame(8, ping, 0)
	for size := 1; size <= len(bytes); size++ {
		pings := new(atomic.Uint64)
		scanned := scanned{pings: pings, skip: preface}
		for rest := bytes; len(rest) > 0; {
			taken := min(size, len(rest))
			scanned.scan(rest[:taken])
			rest = rest[taken:]
		}
		if pings.Load() != 2 {
			t.Fatalf("in pieces of %d bytes: got %d pings, expected 2", size, pings.Load())
		}
	}
}
