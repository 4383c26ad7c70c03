package peer

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"interop/internal/secrets"
	"interop/internal/wire"
)

// How many requests may wait to be written to a node.
const queueSize = 1 << 14

// IDs gives ids to calls. The calls of one process never have the same.
type IDs struct{ last atomic.Uint64 }

// NewIDs begins after this one.
func NewIDs(last uint64) *IDs {
	ids := new(IDs)
	ids.last.Store(last)
	return ids
}

func (i *IDs) next() uint64 { return i.last.Add(1) &^ wire.ServerBit }

// Node is another process, or this one, that can be called.
type Node struct {
	ID  uint32
	ids *IDs
	// Where a stream comes from: it is made for each request that finds none.
	open  func() (*Link, error)
	queue chan *queued
	done  chan struct{}
	close func()
	// How many streams there were, where this process makes them.
	streams atomic.Int64
}

// queued is a request that waits to be written.
type queued struct {
	ctx     context.Context
	message *wire.Message
	waits   *entry
	// Told what came of the writing, where somebody asks.
	written chan<- Reply
}

func newNode(id uint32, ids *IDs, open func() (*Link, error), closed func()) *Node {
	node := &Node{ID: id, ids: ids, open: open, queue: make(chan *queued, queueSize), done: make(chan struct{})}
	node.close = sync.OnceFunc(func() {
		close(node.done)
		closed()
	})
	go node.write()
	return node
}

// Close ends the connection, as a Go client does: by cancelling its stream.
func (n *Node) Close() { n.close() }

// Streams is how many streams were opened to the node: one, unless one broke.
func (n *Node) Streams() int64 { return n.streams.Load() }

func (n *Node) enqueue(request *queued) {
	select {
	case n.queue <- request:
	default:
		n.refuse(request, status.Error(codes.ResourceExhausted, "send queue is full"))
	}
}

func (n *Node) refuse(request *queued, err error) {
	if request.waits != nil {
		request.waits.deliver(Reply{Node: n.ID, Err: err})
	}
	if request.written != nil {
		request.written <- Reply{Node: n.ID, Err: err}
	}
}

// write is the one task that writes requests to the node.
func (n *Node) write() {
	for {
		select {
		case <-n.done:
			return
		case request := <-n.queue:
			if err := request.ctx.Err(); err != nil {
				n.refuse(request, status.FromContextError(err).Err())
				continue
			}
			link, err := n.open()
			if err == nil {
				if link.server {
					request.message.ID |= wire.ServerBit
				}
				err = link.call(request.message, request.waits)
			}
			if err != nil {
				n.refuse(request, err)
			} else if request.written != nil {
				request.written <- Reply{Node: n.ID}
			}
		}
	}
}

// Client is how nodes are called.
type Client struct {
	// Serve calls of the nodes, where there are any: then the header says that this client can be called.
	Handlers *Handlers
	// What the header says: the id of a server, or that of nobody.
	NodeID string
	// Goes with each stream.
	Metadata []string
	IDs      *IDs
	// How its connections are secured.
	Secrets secrets.Files
}

// Node connects to a node, now and whenever it is needed.
func (c *Client) Node(id uint32, address string) (*Node, error) {
	credentials, err := c.Secrets.OfClient(id)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(credentials),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(wire.Codec{}), grpc.MaxCallRecvMsgSize(64<<20)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, MaxDelay: time.Second},
			MinConnectTimeout: 5 * time.Second,
		}))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	d := &dialed{client: c, conn: conn}
	node := newNode(id, c.IDs, d.open, func() { _ = conn.Close() })
	d.opened = func() { node.streams.Add(1) }
	go d.keep(node.done)
	return node, nil
}

// keep connects before the first call, and again whenever the stream has ended: a peer that is not called may call.
func (d *dialed) keep(done <-chan struct{}) {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		if link, err := d.open(); err == nil {
			pause = 50 * time.Millisecond
			select {
			case <-link.ctx.Done():
			case <-done:
				return
			}
		}
		select {
		case <-time.After(pause):
		case <-done:
			return
		}
	}
}

// dialed is a connection that this process made.
type dialed struct {
	client *Client
	conn   *grpc.ClientConn
	opened func()
	mu     sync.Mutex
	link   *Link
}

func (d *dialed) open() (*Link, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.link != nil && d.link.ctx.Err() == nil {
		return d.link, nil
	}
	pairs := append([]string{}, d.client.Metadata...)
	handlers := d.client.Handlers
	if handlers != nil {
		pairs = append(pairs, wire.NodeID, d.client.NodeID)
	} else {
		handlers = NewHandlers()
	}
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(context.Background(), pairs...))
	stream, err := d.conn.NewStream(ctx, &wire.Stream, wire.Path)
	if err != nil {
		cancel()
		return nil, err
	}
	link := newLink(ctx, stream.SendMsg, stream.RecvMsg, handlers)
	d.link = link
	d.opened()
	go func() {
		_ = link.run()
		cancel()
	}()
	return link, nil
}

// inbound is a node that a client's stream stands for.
type inbound struct {
	mu   sync.Mutex
	link *Link
}

func (i *inbound) open() (*Link, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.link == nil || i.link.ctx.Err() != nil {
		return nil, status.Error(codes.Unavailable, "stream is down: the client is not connected")
	}
	return i.link, nil
}

func (i *inbound) attach(link *Link) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.link = link
}

// detach leaves a stream alone that took the place of this one. Whether there was none.
func (i *inbound) detach(link *Link) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.link != link {
		return false
	}
	i.link = nil
	return true
}

// local is this process' own node: a stream whose ends are both here.
func local(handlers *Handlers) func() (*Link, error) {
	return sync.OnceValues(func() (*Link, error) {
		ctx := context.Background()
		there, back := make(chan []byte), make(chan []byte)
		near := newLink(ctx, sender(there), receiver(back), NewHandlers())
		far := newLink(ctx, sender(back), receiver(there), handlers)
		far.server = true
		go func() { _ = near.run() }()
		go func() { _ = far.run() }()
		return near, nil
	})
}

func sender(to chan<- []byte) func(any) error {
	return func(message any) error {
		bytes, err := wire.Codec{}.Marshal(message)
		if err == nil {
			to <- bytes
		}
		return err
	}
}

func receiver(from <-chan []byte) func(any) error {
	return func(message any) error { return wire.Codec{}.Unmarshal(<-from, message) }
}

// entries are metadata as they go with a request. Keys are lower-case.
func entries(pairs []string) []*wire.Entry {
	var entries []*wire.Entry
	for i := 0; i+1 < len(pairs); i += 2 {
		entries = append(entries, &wire.Entry{Key: strings.ToLower(pairs[i]), Value: pairs[i+1]})
	}
	return entries
}
