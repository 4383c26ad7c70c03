// Package service has the handlers of interop/proto/interop.proto.
package service

import (
	"context"
	"slices"
	"sync"

	"google.golang.org/grpc/status"
)

// state is what a process has seen.
type state struct {
	mu        sync.Mutex
	changed   chan struct{}
	noted     []uint64
	cancelled []uint64
	opened    map[uint64]bool
}

func newState() *state {
	return &state{changed: make(chan struct{}), opened: make(map[uint64]bool)}
}

func (s *state) change(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *state) note(number uint64) {
	s.change(func() { s.noted = append(s.noted, number) })
}

// until waits until the condition holds, which is asked under the lock.
func (s *state) until(ctx context.Context, holds func() bool) error {
	for {
		s.mu.Lock()
		held, changed := holds(), s.changed
		s.mu.Unlock()
		if held {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

func (s *state) numbers() []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.noted)
}
