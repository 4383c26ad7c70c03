package main

import (
	"context"
	"fmt"
	"net"
	"os"

	"google.golang.org/protobuf/protoadapt"

	"interop/internal/peer"
)

const quorumCall = "benchmark.Benchmark.QuorumCall"

// echo is benchmark.Echo. The library's own type cannot be used, since its generated code belongs to its older protocol.
type echo struct {
	Payload []byte `protobuf:"bytes,1,opt,name=payload,proto3"`
}

func (*echo) Reset()         {}
func (*echo) String() string { return "" }
func (*echo) ProtoMessage()  {}

var _ protoadapt.MessageV1 = (*echo)(nil)

// servePeer serves the present protocol on grpc-go.
func servePeer(listener net.Listener) {
	handlers := peer.NewHandlers()
	peer.Unary(handlers, quorumCall, func(_ *peer.Request, request *echo) (*echo, error) { return request, nil })
	if err := peer.NewServer(handlers, peer.Options{}).Serve(listener); err != nil {
		fmt.Fprintln(os.Stderr, "go-bench:", err)
		os.Exit(1)
	}
}

// peerCalls makes quorum calls in the present protocol, on grpc-go.
func peerCalls(addresses []string, o options) (quorumCaller, func(), error) {
	client := peer.Client{Handlers: peer.NewHandlers(), IDs: peer.NewIDs(0)}
	var config peer.Config
	for at, address := range addresses {
		node, err := client.Node(uint32(at+1), address)
		if err != nil {
			config.Close()
			return nil, nil, err
		}
		config = append(config, node)
	}
	request := &echo{Payload: make([]byte, o.payload)}
	call := func(ctx context.Context) (int, error) {
		replies, err := config.Call(ctx, quorumCall, request).Threshold(o.quorum)
		if err != nil {
			return 0, err
		}
		var first echo
		if err := replies[0].Into(&first); err != nil {
			return 0, err
		}
		return len(first.Payload), nil
	}
	return call, config.Close, nil
}
