package storage

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"interop/internal/pb"
	"interop/internal/peer"
)

// The methods that a client calls.
const (
	ReadQC  = "proto.Storage.ReadQC"
	WriteQC = "proto.Storage.WriteQC"
)

// How long an operation may take.
const patience = 5 * time.Second

// History writes and reads, and prints a line for each operation that has ended:
//
//	op write|read KEY NUMBER BEGIN END ok|failed
//
// Write n has n as its time, in seconds, and KEY=n as its value; number 0 is no value. Times are those of the clock, in
// nanoseconds. A client is the only writer of the keys that begin with its name.
func History(replicas peer.Config, names []string) {
	h := &history{replicas: replicas, names: names}
	for range 2 {
		go func() {
			for {
				h.read()
			}
		}()
	}
	for {
		h.write()
	}
}

type history struct {
	replicas peer.Config
	// Of the clients, this one's first.
	names []string
	last  atomic.Uint64
	out   sync.Mutex
}

// key is that of write n: every second one has a key of its own, which is written once, and the others share some.
func key(name string, n uint64) string {
	if n%2 == 0 {
		n %= 8
	}
	return fmt.Sprintf("%s/%d", name, n)
}

func (h *history) print(operation, key string, number uint64, begin time.Time, err error) {
	h.out.Lock()
	defer h.out.Unlock()
	outcome := "ok"
	if err != nil {
		outcome = "failed"
	}
	fmt.Printf("op %s %s %d %d %d %s\n", operation, key, number, begin.UnixNano(), time.Now().UnixNano(), outcome)
}

func (h *history) write() {
	n := h.last.Load() + 1
	key := key(h.names[0], n)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	begin := time.Now()
	request := &pb.WriteRequest{Key: key, Value: fmt.Sprintf("%s=%d", key, n), Time: &timestamppb.Timestamp{Seconds: int64(n)}}
	replies, err := h.replicas.Call(ctx, WriteQC, request).Majority()
	for _, reply := range replies {
		var response pb.WriteResponse
		if failed := reply.Into(&response); err == nil && failed != nil {
			err = failed
		} else if err == nil && !response.New {
			err = fmt.Errorf("write %d is not new", n)
		}
	}
	h.print("write", key, n, begin, err)
	h.last.Store(n)
}

func (h *history) read() {
	key := key(h.names[rand.IntN(len(h.names))], 1+rand.Uint64N(h.last.Load()+1))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	begin := time.Now()
	replies, err := h.replicas.Call(ctx, ReadQC, &pb.ReadRequest{Key: key}).Majority()
	response := new(pb.ReadResponse)
	if err == nil {
		response, err = newest(replies)
	}
	number := uint64(response.Time.GetSeconds())
	if err == nil && response.OK && response.Value != fmt.Sprintf("%s=%d", key, number) {
		// No write has such a number.
		number = 1 << 62
	}
	h.print("read", key, number, begin, err)
}
