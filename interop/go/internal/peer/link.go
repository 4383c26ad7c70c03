// Package peer speaks the protocol of docs/wire.md: clients and servers, calls and handlers in both directions.
//
// It is written from that description and knows nothing of the Rust library, so that a mistake there is not repeated here.
package peer

import (
	"context"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"interop/internal/wire"
)

// Link is one end of a stream, which carries calls in both directions.
type Link struct {
	// The stream's, which is cancelled when it ends.
	ctx  context.Context
	recv func(any) error
	// What the metadata of the connection is.
	Header []*wire.Entry
	// The id of the client at the other end, where this is a server's end and the client can be called.
	Peer uint32
	// Whether ids with the server bit are calls of this end. At a client's end they are those of the other.
	server bool
	// At a server's end: ends the stream with this status, or sends the headers that else go with the first message.
	End        func(error)
	SendHeader func() error
	// Whether the other end can be called: else an id with the bit is a request like any other.
	callable bool
	handlers *Handlers

	// One message at a time is written.
	writing sync.Mutex
	send    func(any) error

	mu      sync.Mutex
	pending map[uint64]*entry
	ended   error
}

// entry is a call that waits for replies on this link.
type entry struct {
	node    uint32
	stream  bool
	ctx     context.Context
	replies chan<- Reply
}

func newLink(ctx context.Context, send, recv func(any) error, handlers *Handlers) *Link {
	return &Link{ctx: ctx, send: send, recv: recv, handlers: handlers, pending: make(map[uint64]*entry)}
}

// Filter puts a function between what is written and the stream, before anything is.
func (l *Link) Filter(filter func(message any, send func(any) error) error) {
	send := l.send
	l.send = func(message any) error { return filter(message, send) }
}

// Write writes an envelope, or bytes that need not be one, and waits as long as flow control wants.
func (l *Link) Write(message any) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	// grpc may still take it: handlers that are cancelled with the stream would answer behind its end.
	if err := context.Cause(l.ctx); err != nil {
		return err
	}
	return l.send(message)
}

// call registers a call and writes its request. A nil entry is a one-way message.
func (l *Link) call(message *wire.Message, waits *entry) error {
	if waits != nil {
		l.mu.Lock()
		if l.ended != nil {
			defer l.mu.Unlock()
			return l.ended
		}
		l.pending[message.ID] = waits
		l.mu.Unlock()
	}
	err := l.Write(message)
	if err != nil {
		err = status.Errorf(codes.Unavailable, "stream is down: %v", err)
		if waits != nil && !l.forget(message.ID) {
			// Whoever ended the link has told the call.
			return nil
		}
	}
	return err
}

// forget takes a call out. Whether it was still there.
func (l *Link) forget(id uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, found := l.pending[id]
	delete(l.pending, id)
	return found
}

// run reads until the stream ends, and tells the calls that wait.
//
// It reads on when the handler of a request has released its turn, as the Go library does: then the next handler starts.
// So a handler that calls back over the stream that its request came on has to release first.
func (l *Link) run() error {
	err := l.read()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = status.Errorf(codes.Unavailable, "stream is down: %v", err)
	for id, waits := range l.pending {
		go waits.deliver(Reply{Node: waits.node, Err: l.ended})
		delete(l.pending, id)
	}
	return err
}

func (l *Link) read() error {
	for {
		message := new(wire.Message)
		if err := l.recv(message); err != nil {
			return err
		}
		if l.handlers.Observe != nil && !l.handlers.Observe(l, message) {
			continue
		}
		if l.isReply(message) {
			l.deliver(message)
		} else {
			l.handlers.start(l, message)
		}
	}
}

// IsServer is whether this is a server's end.
func (l *Link) IsServer() bool { return l.server }

// Expects is whether a call of this end waits for replies with this id.
func (l *Link) Expects(id uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pending[id] != nil
}

func (l *Link) isReply(message *wire.Message) bool {
	fromServer := message.ID&wire.ServerBit != 0
	if l.server {
		return fromServer && l.callable
	}
	return !fromServer
}

func (l *Link) deliver(message *wire.Message) {
	l.mu.Lock()
	waits := l.pending[message.ID]
	if waits != nil && (!waits.stream || message.Status.GetCode() != 0) {
		delete(l.pending, message.ID)
	}
	l.mu.Unlock()
	if waits != nil {
		waits.deliver(Reply{Node: waits.node, Message: message, Err: status.ErrorProto(message.Status)})
	}
}

// deliver hands a reply over, unless nobody takes it any more.
func (e *entry) deliver(reply Reply) {
	select {
	case e.replies <- reply:
		return
	default:
	}
	select {
	case e.replies <- reply:
	case <-e.ctx.Done():
	}
}
