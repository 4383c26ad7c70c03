package main

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/relab/gorums"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"interop/internal/pb"
)

// service is interop.Interop on the library's own server.
type service struct {
	server *gorums.Server
	// How many requests were strange.
	strange func() uint64

	mu      sync.Mutex
	changed chan struct{}
	noted   []uint64
	opened  map[uint64]bool
}

func newService(strange func() uint64, credentials credentials.TransportCredentials) *service {
	s := &service{
		server:  gorums.NewServer(gorums.WithGRPCServerOptions(grpc.Creds(credentials))),
		strange: strange,
		changed: make(chan struct{}),
		opened:  make(map[uint64]bool),
	}
	echo := func(_ gorums.ServerCtx, data *pb.Data) (*pb.Data, error) {
		s.change(func() { s.noted = append(s.noted, data.Number) })
		return data, nil
	}
	note := func(_ gorums.ServerCtx, data *pb.Data) {
		s.change(func() { s.noted = append(s.noted, data.Number) })
	}
	unary(s, "Echo", echo)
	unary(s, "EchoAll", echo)
	oneWay(s, "Note", note)
	oneWay(s, "NoteAll", note)
	unary(s, "Fail", func(_ gorums.ServerCtx, failure *pb.Failure) (*pb.Data, error) {
		return &pb.Data{}, asError(failure)
	})
	unary(s, "Hold", s.hold)
	oneWay(s, "Open", func(_ gorums.ServerCtx, data *pb.Data) { s.change(func() { s.opened[data.Number] = true }) })
	unary(s, "Inspect", s.inspect)
	handle(s, "Count", func(ctx gorums.ServerCtx, in *gorums.Message, request *pb.CountRequest) (pb.Message, error) {
		for i := range request.Replies {
			if err := s.send(ctx, in, &pb.Data{Number: request.From + i}); err != nil {
				return nil, err
			}
		}
		return nil, asError(request.Failure)
	})
	return s
}

// handle registers a handler as the library's generated code does. No reply and no error: nothing is sent.
func handle[Req any, P interface {
	*Req
	pb.Message
}](s *service, name string, handler func(gorums.ServerCtx, *gorums.Message, P) (pb.Message, error)) {
	s.server.RegisterHandler("interop.Interop."+name, func(ctx gorums.ServerCtx, in *gorums.Message) (*gorums.Message, error) {
		request := P(new(Req))
		if err := fromLibrary(in.GetProtoMessage(), request); err != nil {
			return nil, err
		}
		reply, err := handler(ctx, in, request)
		if err != nil || reply == nil {
			return nil, err
		}
		return response(in, reply)
	})
}

func unary[Req any, P interface {
	*Req
	pb.Message
}, Resp pb.Message](s *service, name string, handler func(gorums.ServerCtx, P) (Resp, error)) {
	handle(s, name, func(ctx gorums.ServerCtx, _ *gorums.Message, request P) (pb.Message, error) {
		return handler(ctx, request)
	})
}

func oneWay[Req any, P interface {
	*Req
	pb.Message
}](s *service, name string, handler func(gorums.ServerCtx, P)) {
	handle(s, name, func(ctx gorums.ServerCtx, _ *gorums.Message, request P) (pb.Message, error) {
		handler(ctx, request)
		return nil, nil
	})
}

func response(in *gorums.Message, reply pb.Message) (*gorums.Message, error) {
	method, err := method(in.GetMethod())
	if err != nil {
		return nil, err
	}
	made, err := toLibrary(reply, method.Output())
	if err != nil {
		return nil, err
	}
	return gorums.NewResponseMessage(in.GetMetadata(), made), nil
}

func (s *service) send(ctx gorums.ServerCtx, in *gorums.Message, reply pb.Message) error {
	method, err := method(in.GetMethod())
	if err != nil {
		return err
	}
	made, err := toLibrary(reply, method.Output())
	if err != nil {
		return err
	}
	// The library writes into the metadata of the request when the handler has ended, and sends later: each reply needs its own.
	return ctx.SendMessage(gorums.NewResponseMessage(proto.CloneOf(in.GetMetadata()), made))
}

func (s *service) change(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *service) until(ctx context.Context, holds func() bool) error {
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

func (s *service) hold(ctx gorums.ServerCtx, request *pb.HoldRequest) (*pb.Data, error) {
	data := request.Data
	if data == nil {
		data = &pb.Data{}
	}
	s.change(func() { s.noted = append(s.noted, data.Number) })
	if request.Release {
		ctx.Release()
	}
	return data, s.until(ctx, func() bool { return s.opened[data.Number] })
}

func (s *service) inspect(ctx gorums.ServerCtx, request *pb.InspectRequest) (*pb.Seen, error) {
	ctx.Release()
	if err := s.until(ctx, func() bool { return uint64(len(s.noted)) >= request.Noted }); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := &pb.Seen{Numbers: slices.Clone(s.noted)}
	// The library adds what comes with a message to what came with the connection.
	incoming, _ := metadata.FromIncomingContext(ctx)
	for key, values := range incoming {
		for _, value := range values {
			seen.Metadata = append(seen.Metadata, &pb.Entry{Key: key, Value: value})
		}
	}
	seen.Connection = []*pb.Entry{{Key: "strange", Value: fmt.Sprint(s.strange())}}
	return seen, nil
}

func asError(failure *pb.Failure) error {
	if failure == nil {
		return nil
	}
	return status.ErrorProto(&spb.Status{Code: failure.Code, Message: failure.Message, Details: failure.Details})
}
