package main

import (
	"fmt"
	"net"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"

	"interop/internal/secrets"
	"interop/internal/wire"
)

// form is one of the two forms that the protocol has had: the same messages on another path, framed in another way.
type form struct {
	path  string
	codec encoding.Codec
}

var (
	// What this library speaks, and the Go library since the release after v0.11.0 was begun.
	present = form{wire.Path, wire.Codec{}}
	// What v0.11.0 speaks.
	former = form{"/ordering.Gorums/NodeStream", formerCodec{}}
)

// formerCodec writes the envelope without the payload and then the payload, each behind its length.
type formerCodec struct{}

func (formerCodec) Name() string { return "gorums" }

func (formerCodec) Marshal(value any) ([]byte, error) {
	message, ok := value.(*wire.Message)
	if !ok {
		return nil, fmt.Errorf("a %T is no envelope", value)
	}
	head, err := wire.Codec{}.Marshal(&wire.Message{ID: message.ID, Method: message.Method, Status: message.Status, Entry: message.Entry})
	return protowire.AppendBytes(protowire.AppendBytes(nil, head), message.Payload), err
}

func (formerCodec) Unmarshal(bytes []byte, value any) error {
	message, ok := value.(*wire.Message)
	if !ok {
		return fmt.Errorf("a %T is no envelope", value)
	}
	head, length := protowire.ConsumeBytes(bytes)
	if err := protowire.ParseError(length); err != nil {
		return err
	}
	payload, rest := protowire.ConsumeBytes(bytes[length:])
	if err := protowire.ParseError(rest); err != nil {
		return err
	}
	if err := (wire.Codec{}).Unmarshal(head, message); err != nil {
		return err
	}
	// The buffer is gRPC's.
	message.Payload = append([]byte(nil), payload...)
	return nil
}

// adapter serves one form of the protocol, and passes all on to a server of the other.
type adapter struct {
	from, to form
	target   string
	// How the connections to it and from it are secured.
	secrets secrets.Files
	// How many requests had what the former protocol does not have.
	strange atomic.Uint64
}

// serve serves until the listener fails.
func (a *adapter) serve(listener net.Listener) error {
	toTarget, err := a.secrets.OfClient(1)
	if err != nil {
		return err
	}
	toClients, err := a.secrets.OfServer()
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient("passthrough:///"+a.target,
		grpc.WithTransportCredentials(toTarget),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(a.to.codec), grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		return err
	}
	service, method, _ := strings.Cut(strings.TrimPrefix(a.from.path, "/"), "/")
	desc := wire.Stream
	desc.StreamName = method
	desc.Handler = func(_ any, stream grpc.ServerStream) error { return a.pass(stream, conn) }
	server := grpc.NewServer(grpc.Creds(toClients), grpc.ForceServerCodec(a.from.codec), grpc.MaxRecvMsgSize(64<<20))
	server.RegisterService(&grpc.ServiceDesc{ServiceName: service, Streams: []grpc.StreamDesc{desc}}, nil)
	return server.Serve(listener)
}

// pass carries messages both ways, until the target ends its stream or the client its own.
func (a *adapter) pass(client grpc.ServerStream, conn *grpc.ClientConn) error {
	ctx := client.Context()
	headers, _ := metadata.FromIncomingContext(ctx)
	passed := metadata.MD{}
	for key, values := range headers {
		// These are gRPC's own.
		if !strings.HasPrefix(key, ":") && key != "content-type" && key != "user-agent" && !strings.HasPrefix(key, "grpc-") {
			passed[key] = values
		}
	}
	// It is cancelled with the client's.
	target, err := conn.NewStream(metadata.NewOutgoingContext(ctx, passed), &wire.Stream, a.to.path)
	if err != nil {
		return err
	}
	go func() {
		for {
			request := new(wire.Message)
			if client.RecvMsg(request) != nil {
				return
			}
			if len(request.XXX_unrecognized) > 0 {
				a.strange.Add(1)
			}
			if target.SendMsg(request) != nil {
				return
			}
		}
	}()
	for {
		reply := new(wire.Message)
		if err := target.RecvMsg(reply); err != nil {
			return err
		}
		if err := client.SendMsg(reply); err != nil {
			return err
		}
	}
}
