package peer

import (
	"context"
	"errors"
	"fmt"
	"sort"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"interop/internal/pb"
	"interop/internal/wire"
)

// Config is a set of nodes, by their ids.
type Config []*Node

// Reply is what came from one node.
type Reply struct {
	Node    uint32
	Message *wire.Message
	Err     error
}

// Into decodes the reply.
func (r Reply) Into(message pb.Message) error {
	if r.Err != nil {
		return r.Err
	}
	return pb.Unmarshal(r.Message.Payload, message)
}

// Call is a two-way call that was sent.
type Call struct {
	ctx     context.Context
	cancel  context.CancelFunc
	size    int
	stream  bool
	replies chan Reply
	ID      uint64
}

func sorted(nodes []*Node) Config {
	sort.Slice(nodes, func(a, b int) bool { return nodes[a].ID < nodes[b].ID })
	return nodes
}

// Node finds one by its id.
func (c Config) Node(id uint32) *Node {
	for _, node := range c {
		if node.ID == id {
			return node
		}
	}
	return nil
}

// Close closes all.
func (c Config) Close() {
	for _, node := range c {
		node.Close()
	}
}

// Call sends a request to all nodes before it returns, and replies can be taken from what it returns. The metadata are keys
// and values in turn.
func (c Config) Call(ctx context.Context, method string, request pb.Message, metadata ...string) *Call {
	return c.call(ctx, false, method, request, metadata)
}

// StreamedCall is the same, for a method with any number of replies.
func (c Config) StreamedCall(ctx context.Context, method string, request pb.Message, metadata ...string) *Call {
	return c.call(ctx, true, method, request, metadata)
}

func (c Config) call(ctx context.Context, stream bool, method string, request pb.Message, metadata []string) *Call {
	// Who has enough replies waits for no more; what is queued is sent all the same.
	waiting, cancel := context.WithCancel(ctx)
	call := &Call{ctx: waiting, cancel: cancel, size: len(c), stream: stream, replies: make(chan Reply, 10*len(c))}
	payload, err := pb.Marshal(request)
	if len(c) > 0 {
		call.ID = c[0].ids.next()
	}
	for _, node := range c {
		waits := &entry{node: node.ID, stream: stream, ctx: waiting, replies: call.replies}
		if err != nil {
			waits.deliver(Reply{Node: node.ID, Err: err})
			continue
		}
		message := &wire.Message{ID: call.ID, Method: method, Entry: entries(metadata), Payload: payload}
		node.enqueue(&queued{ctx: ctx, message: message, waits: waits})
	}
	return call
}

// Next is the next reply, whatever it says. An error means that the context has ended.
func (c *Call) Next() (Reply, error) {
	select {
	case reply := <-c.replies:
		return reply, nil
	case <-c.ctx.Done():
		return Reply{}, status.FromContextError(c.ctx.Err()).Err()
	}
}

// Close says that nobody waits for further replies.
func (c *Call) Close() { c.cancel() }

// Threshold waits for so many replies without an error, from different nodes, and returns them as they came.
func (c *Call) Threshold(threshold int) ([]Reply, error) {
	defer c.Close()
	var good []Reply
	var failures []error
	answered := make(map[uint32]bool)
	for len(good) < threshold {
		if len(answered) == c.size {
			return good, fmt.Errorf("incomplete call: %w", errors.Join(failures...))
		}
		reply, err := c.Next()
		if err != nil {
			return good, fmt.Errorf("incomplete call: %w", errors.Join(append(failures, err)...))
		}
		if answered[reply.Node] && reply.Err == nil {
			continue
		}
		answered[reply.Node] = true
		if reply.Err != nil {
			failures = append(failures, fmt.Errorf("node %d: %w", reply.Node, reply.Err))
		} else {
			good = append(good, reply)
		}
	}
	return good, nil
}

// Majority is more than half.
func (c *Call) Majority() ([]Reply, error) { return c.Threshold(c.size/2 + 1) }

// All are all.
func (c *Call) All() ([]Reply, error) { return c.Threshold(c.size) }

// Multicast sends a one-way message to all, and waits until it is written to each connection.
func (c Config) Multicast(ctx context.Context, method string, request pb.Message, metadata ...string) error {
	payload, err := pb.Marshal(request)
	if err != nil || len(c) == 0 {
		return err
	}
	id := c[0].ids.next()
	written := make(chan Reply, len(c))
	for _, node := range c {
		message := &wire.Message{ID: id, Method: method, Entry: entries(metadata), Payload: payload}
		node.enqueue(&queued{ctx: ctx, message: message, written: written})
	}
	var failures []error
	for range c {
		select {
		case reply := <-written:
			if reply.Err != nil {
				failures = append(failures, fmt.Errorf("node %d: %w", reply.Node, reply.Err))
			}
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
	return errors.Join(failures...)
}

// RPC calls one node.
func (n *Node) RPC(ctx context.Context, method string, request, reply pb.Message, metadata ...string) error {
	call := Config{n}.Call(ctx, method, request, metadata...)
	defer call.Close()
	got, err := call.Next()
	if err != nil {
		return err
	}
	if got.Err == nil && got.Message.Method != method {
		return status.Errorf(codes.Internal, "the reply is one of %s", got.Message.Method)
	}
	return got.Into(reply)
}

// Unicast sends a one-way message to one node, and waits until it is written to its connection.
func (n *Node) Unicast(ctx context.Context, method string, request pb.Message, metadata ...string) error {
	return Config{n}.Multicast(ctx, method, request, metadata...)
}
