package service

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"interop/internal/pb"
	"interop/internal/peer"
	"interop/internal/wire"
)

// Interop is the service of that name, and what it tells of itself.
type Interop struct {
	*state
	// Reads all, and never answers.
	Silent bool
	// Says how many of HTTP/2's pings came, where somebody counts them.
	Pings func() uint64

	facts facts
}

// facts show that a case has tried what it means to.
type facts struct {
	mu sync.Mutex
	// How many messages had what the protocol does not have, and how many went out.
	strange, sent uint64
	// How the other side answered what nobody had asked here.
	answers []string
	// How many numbers were noted while the headers were held.
	beforeHeaders string
	// Whether the headers are held, and what has to come after them.
	holding bool
	held    []func() error
}

// NewInterop is a service that has seen nothing. The headers of its server's streams wait for SendHeaders if they are held.
func NewInterop(holdHeaders bool) *Interop {
	return &Interop{state: newState(), facts: facts{beforeHeaders: "None", holding: holdHeaders}}
}

// Prepare is for a server that has to hold its headers and to count what goes out.
func (s *Interop) Prepare(link *peer.Link) {
	link.Filter(func(message any, send func(any) error) error {
		s.facts.mu.Lock()
		holding := s.facts.holding
		if holding {
			s.facts.held = append(s.facts.held, func() error { return send(message) })
		}
		s.facts.sent++
		s.facts.mu.Unlock()
		if holding {
			return nil
		}
		return send(message)
	})
}

// Register adds the handlers of Interop.
func (s *Interop) Register(h *peer.Handlers) {
	h.Observe = s.observe
	echo := func(_ *peer.Request, data *pb.Data) (*pb.Data, error) {
		s.note(data.Number)
		return data, nil
	}
	note := func(_ *peer.Request, data *pb.Data) { s.note(data.Number) }
	peer.Unary(h, "interop.Interop.Echo", echo)
	peer.Unary(h, "interop.Interop.EchoAll", echo)
	peer.OneWay(h, "interop.Interop.Note", note)
	peer.OneWay(h, "interop.Interop.NoteAll", note)
	peer.Streaming(h, "interop.Interop.Count", count)
	peer.Unary(h, "interop.Interop.Fail", func(_ *peer.Request, failure *pb.Failure) (*pb.Data, error) {
		return &pb.Data{}, asError(failure)
	})
	peer.Unary(h, "interop.Interop.Hold", s.hold)
	peer.OneWay(h, "interop.Interop.Open", func(_ *peer.Request, data *pb.Data) {
		s.change(func() { s.opened[data.Number] = true })
	})
	peer.Unary(h, "interop.Interop.Inspect", s.inspect)
}

// RegisterPeer adds the handlers of Peer, which are for servers.
func (s *Interop) RegisterPeer(h *peer.Handlers) {
	peer.OneWay(h, "interop.Peer.EndStream", func(r *peer.Request, failure *pb.Failure) { r.Link.End(asError(failure)) })
	peer.OneWay(h, "interop.Peer.SendFrames", func(r *peer.Request, frames *pb.Frames) {
		for _, frame := range frames.Frames {
			if err := r.Link.Write(frame); err != nil {
				return
			}
		}
	})
	peer.OneWay(h, "interop.Peer.SendHeaders", func(r *peer.Request, _ *pb.Empty) {
		noted := len(s.numbers())
		s.facts.mu.Lock()
		defer s.facts.mu.Unlock()
		if !s.facts.holding {
			return
		}
		s.facts.beforeHeaders = strconv.Itoa(noted)
		err := r.Link.SendHeader()
		for _, send := range s.facts.held {
			err = errors.Join(err, send())
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "what was held cannot be sent: %v\n", err)
		}
		s.facts.holding, s.facts.held = false, nil
	})
}

// observe notes what the protocol does not have, and answers to what nobody has asked.
func (s *Interop) observe(link *peer.Link, message *wire.Message) bool {
	fromServer := message.ID&wire.ServerBit != 0
	s.facts.mu.Lock()
	defer s.facts.mu.Unlock()
	isAnswer := link.IsServer() && fromServer
	if len(message.XXX_unrecognized) > 0 || message.ID == 0 || link.IsServer() && message.Status != nil && !isAnswer {
		s.facts.strange++
		fmt.Fprintf(os.Stderr, "strange, with the unknown bytes %x: %v\n", message.XXX_unrecognized, message)
	}
	if isAnswer && !link.Expects(message.ID) && message.Status != nil {
		answer := fmt.Sprintf("%x %s %d", message.ID, message.Method, message.Status.GetCode())
		s.facts.answers = append(s.facts.answers, answer)
		return false
	}
	return !s.Silent
}

func count(r *peer.Request, request *pb.CountRequest) error {
	for i := range request.Replies {
		if err := r.Reply(&pb.Data{Number: request.From + i}); err != nil {
			return err
		}
	}
	if request.Failure != nil {
		return asError(request.Failure)
	}
	return nil
}

func (s *Interop) hold(r *peer.Request, request *pb.HoldRequest) (*pb.Data, error) {
	data := request.Data
	if data == nil {
		data = &pb.Data{}
	}
	s.note(data.Number)
	if request.Release {
		r.Release()
	}
	return data, s.until(r, func() bool { return s.opened[data.Number] })
}

func (s *Interop) inspect(r *peer.Request, request *pb.InspectRequest) (*pb.Seen, error) {
	r.Release()
	if err := s.until(r, func() bool { return uint64(len(s.noted)) >= request.Noted }); err != nil {
		return nil, err
	}
	seen := &pb.Seen{Numbers: s.numbers(), Metadata: fromWire(r.Metadata), Connection: fromWire(r.Link.Header)}
	s.facts.mu.Lock()
	defer s.facts.mu.Unlock()
	fact := func(key string, value any) {
		seen.Connection = append(seen.Connection, &pb.Entry{Key: key, Value: fmt.Sprint(value)})
	}
	fact("strange", s.facts.strange)
	fact("id", r.ID)
	fact("sent", s.facts.sent)
	fact("before-headers", s.facts.beforeHeaders)
	fact("peer", r.Link.Peer)
	if s.Pings != nil {
		fact("pings", s.Pings())
	}
	for _, answer := range s.facts.answers {
		fact("answer", answer)
	}
	return seen, nil
}

func asError(failure *pb.Failure) error {
	if failure == nil {
		return nil
	}
	return status.ErrorProto(&spb.Status{Code: failure.Code, Message: failure.Message, Details: failure.Details})
}

func asFailure(err error) *pb.Failure {
	status := status.Convert(err).Proto()
	return &pb.Failure{Code: status.GetCode(), Message: status.GetMessage(), Details: status.GetDetails()}
}

func fromWire(entries []*wire.Entry) []*pb.Entry {
	var result []*pb.Entry
	for _, entry := range entries {
		result = append(result, &pb.Entry{Key: entry.Key, Value: entry.Value})
	}
	return result
}

// UntilEOF waits until whoever started this process has ended.
func UntilEOF() {
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// notFound says which node there is none of.
func notFound(id uint32) error {
	return status.Errorf(codes.NotFound, "node %d is not connected", id)
}
