package peer

import (
	"context"
	"fmt"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"interop/internal/pb"
	"interop/internal/wire"
)

// Request is what a handler is told.
type Request struct {
	// Ends with the stream.
	context.Context
	Link     *Link
	ID       uint64
	Method   string
	Metadata []*wire.Entry
	payload  []byte
	release  func()
}

// Release lets the next handler of the stream start. Returning does, too, after the reply was written.
func (r *Request) Release() { r.release() }

// Reply sends one of several replies.
func (r *Request) Reply(reply pb.Message) error {
	payload, err := pb.Marshal(reply)
	if err != nil {
		return err
	}
	return r.Link.Write(&wire.Message{ID: r.ID, Method: r.Method, Payload: payload})
}

// Handlers answer requests, by the full names of their methods. They are complete before anything is served.
type Handlers struct {
	byMethod map[string]func(*Request) error
	// Sees every envelope that comes, where it is set, and says whether to go on with it.
	Observe func(link *Link, message *wire.Message) bool
}

// NewHandlers has none.
func NewHandlers() *Handlers {
	return &Handlers{byMethod: make(map[string]func(*Request) error)}
}

// Unary registers a handler that has one reply.
func Unary[Req any, Resp any, P interface {
	*Req
	pb.Message
}, Q interface {
	*Resp
	pb.Message
}](h *Handlers, method string, handler func(*Request, P) (Q, error)) {
	h.byMethod[method] = func(r *Request) error {
		request := P(new(Req))
		if err := r.decode(request); err != nil {
			return err
		}
		reply, err := handler(r, request)
		if err != nil {
			return err
		}
		return r.Reply(reply)
	}
}

// Streaming registers a handler that replies as often as it likes. The protocol has no sign for the end, but an error is one.
func Streaming[Req any, P interface {
	*Req
	pb.Message
}](h *Handlers, method string, handler func(*Request, P) error) {
	h.byMethod[method] = func(r *Request) error {
		request := P(new(Req))
		if err := r.decode(request); err != nil {
			return err
		}
		return handler(r, request)
	}
}

// OneWay registers a handler that has no reply.
func OneWay[Req any, P interface {
	*Req
	pb.Message
}](h *Handlers, method string, handler func(*Request, P)) {
	Streaming(h, method, func(r *Request, request P) error {
		handler(r, request)
		return nil
	})
}

func (r *Request) decode(request pb.Message) error {
	if err := pb.Unmarshal(r.payload, request); err != nil {
		return fmt.Errorf("could not unmarshal request: %w", err)
	}
	return nil
}

// start runs the handler of a request, and returns when it has released its turn or the stream has ended.
func (h *Handlers) start(link *Link, message *wire.Message) {
	released := make(chan struct{})
	request := &Request{
		Context:  link.ctx,
		Link:     link,
		ID:       message.ID,
		Method:   message.Method,
		Metadata: message.Entry,
		payload:  message.Payload,
		release:  sync.OnceFunc(func() { close(released) }),
	}
	go func() {
		defer request.Release()
		handler := h.byMethod[message.Method]
		err := status.Errorf(codes.Unimplemented, "no handler registered for method %s", message.Method)
		if handler != nil {
			err = handler(request)
		}
		if err != nil {
			// A failed write means that the stream has ended, and nobody waits.
			_ = link.Write(&wire.Message{ID: message.ID, Method: message.Method, Status: status.Convert(err).Proto()})
		}
	}()
	select {
	case <-released:
	case <-link.ctx.Done():
	}
}
