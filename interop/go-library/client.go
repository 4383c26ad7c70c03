package main

import (
	"bytes"
	"context"
	"flag"
	"net"
	"os"
	"slices"

	"github.com/relab/gorums"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"interop/internal/cases"
	"interop/internal/pb"
)

const (
	echo    = "interop.Interop.Echo"
	echoAll = "interop.Interop.EchoAll"
	note    = "interop.Interop.Note"
	noteAll = "interop.Interop.NoteAll"
	hold    = "interop.Interop.Hold"
	open    = "interop.Interop.Open"
)

var ofClient = []cases.Case{
	{Name: "rpc_unicast_and_multicast", Do: rpcUnicastAndMulticast},
	{Name: "quorum_calls", Do: quorumCalls},
	{Name: "streamed_replies_and_correctables", Do: streamed},
	{Name: "metadata_of_message_and_connection", Do: metadataBothWays},
	{Name: "errors_travel_whole", Do: errorsTravelWhole},
	{Name: "empty_and_1mb_payloads", Do: payloads},
	{Name: "calls_in_flight_3000", Do: inFlight},
	{Name: "mixed_calls_start_in_order", Do: mixedOrder},
	{Name: "a_server_that_is_down_leaves_a_majority", Do: serverDown},
}

func client(args []string) error {
	flags := flag.NewFlagSet("client", flag.ExitOnError)
	server := flags.String("server", "", "the program of our server")
	folder := flags.String("proto", "interop/proto", "the folder of interop.proto")
	certs := flags.String("certs", "", "over mutual TLS, with the certificates in this folder")
	list := flags.Bool("list", false, "print the names of the cases")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := register(*folder); err != nil {
		return err
	}
	group := "library-client"
	if *certs != "" {
		group = "library-client-tls"
	}
	if !cases.Run(group, ofClient, cases.Servers{Program: *server, Certs: *certs}, *list, flags.Args()) {
		os.Exit(1)
	}
	return nil
}

// three starts three servers of ours, and a client of the library that reaches each through an adapter.
func three(r *cases.R) ([]*cases.Process, gorums.Configuration) {
	var servers []*cases.Process
	var addresses []string
	for range 3 {
		server := r.Start()
		servers = append(servers, server)
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		r.Must(err, "a port")
		r.OnEnd(func() { _ = listener.Close() })
		adapter := &adapter{from: former, to: present, target: server.Address, secrets: r.NodeSecrets()}
		go func() { _ = adapter.serve(listener) }()
		addresses = append(addresses, listener.Addr().String())
	}
	credentials, err := r.Secrets().OfClient(1)
	r.Must(err, "the credentials of the client")
	manager := gorums.NewManager(
		gorums.WithDialOptions(grpc.WithTransportCredentials(credentials), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20))),
		gorums.WithMetadata(metadata.Pairs("from", "connection")),
	)
	r.OnEnd(func() { _ = manager.Close() })
	config, err := gorums.NewConfiguration(manager, gorums.WithNodeList(addresses))
	r.Must(err, "a configuration of the library")
	return servers, config
}

func data(number uint64) *pb.Data { return &pb.Data{Number: number} }

// request is a message of the type that the method has in the library's registry.
func request(r *cases.R, name string, message pb.Message) proto.Message {
	method, err := method(name)
	r.Must(err, "a method")
	made, err := toLibrary(message, method.Input())
	r.Must(err, "a request")
	return made
}

func number(r *cases.R, message proto.Message) uint64 {
	var data pb.Data
	r.Must(fromLibrary(message, &data), "a reply")
	return data.Number
}

func rpc(r *cases.R, node *gorums.Node, name string, message, reply pb.Message) error {
	got, err := gorums.RPCCall(node.Context(r), request(r, name, message), name)
	if err != nil {
		return err
	}
	return fromLibrary(got, reply)
}

func quorumCall(r *cases.R, config gorums.Configuration, name string, message pb.Message) *gorums.Responses[proto.Message] {
	return gorums.QuorumCall[proto.Message, proto.Message](config.Context(r), request(r, name, message), name)
}

func noted(r *cases.R, node *gorums.Node, expected []uint64) {
	var seen pb.Seen
	r.Must(rpc(r, node, "interop.Interop.Inspect", &pb.InspectRequest{Noted: uint64(len(expected))}, &seen), "what the server has seen")
	r.Check(slices.Equal(seen.Numbers, expected), "expected %d numbers, got %d: %v", len(expected), len(seen.Numbers), seen.Numbers)
}

func rpcUnicastAndMulticast(r *cases.R) {
	_, config := three(r)
	var reply pb.Data
	r.Must(rpc(r, config[0], echo, data(7), &reply), "an echo")
	r.Check(reply.Number == 7, "the echo of 7 is %d", reply.Number)
	r.Must(gorums.Unicast(config[0].Context(r), request(r, note, data(8)), note), "a unicast")
	r.Must(gorums.Multicast(config.Context(r), request(r, noteAll, data(9)), noteAll), "a multicast")
	r.Must(gorums.Multicast(config.Context(r), request(r, noteAll, data(10)), noteAll, gorums.IgnoreErrors()), "a multicast")
	noted(r, config[0], []uint64{7, 8, 9, 10})
	noted(r, config[1], []uint64{9, 10})
	noted(r, config[2], []uint64{9, 10})
}

func quorumCalls(r *cases.R) {
	_, config := three(r)
	for n := range uint64(100) {
		for threshold := 1; threshold <= 3; threshold++ {
			reply, err := quorumCall(r, config, echoAll, data(n)).Threshold(threshold)
			r.Must(err, "a quorum call")
			r.Check(number(r, reply) == n, "the echo of %d is %d", n, number(r, reply))
		}
	}
}

func streamed(r *cases.R) {
	_, config := three(r)
	const name = "interop.Interop.Count"
	message := request(r, name, &pb.CountRequest{From: 10, Replies: 3})
	ctx, cancel := context.WithCancel(r)
	defer cancel()
	last := make(map[uint32]uint64)
	replies := 0
	for response := range gorums.QuorumCallStream[proto.Message, proto.Message](config.Context(ctx), message, name).Seq() {
		r.Must(response.Err, "a streamed reply")
		got, expected := number(r, response.Value), max(last[response.NodeID]+1, 10)
		r.Check(got == expected, "node %d sent %d, expected %d", response.NodeID, got, expected)
		last[response.NodeID] = got
		if replies++; replies == 9 {
			break
		}
	}
	// The library's levels count messages.
	again := gorums.QuorumCallStream[proto.Message, proto.Message](config.Context(ctx), message, name).Correctable(9)
	select {
	case <-again.Done():
	case <-r.Done():
		r.Fail("the correctable is not done")
	}
	_, level, err := again.Get()
	r.Must(err, "a correctable")
	r.Check(level == 9, "level %d", level)
}

func metadataBothWays(r *cases.R) {
	_, config := three(r)
	const name = "interop.Interop.Inspect"
	ctx := metadata.AppendToOutgoingContext(r, "trace", "a", "size", "größe", "trace", "b")
	got, err := gorums.RPCCall(config[0].Context(ctx), request(r, name, &pb.InspectRequest{}), name)
	r.Must(err, "a call")
	var seen pb.Seen
	r.Must(fromLibrary(got, &seen), "a reply")
	values := func(entries []*pb.Entry, key string) (values []string) {
		for _, entry := range entries {
			if entry.Key == key {
				values = append(values, entry.Value)
			}
		}
		return values
	}
	r.Check(slices.Equal(values(seen.Metadata, "trace"), []string{"a", "b"}), "metadata of the message: %v", seen.Metadata)
	r.Check(slices.Equal(values(seen.Metadata, "size"), []string{"größe"}), "metadata of the message: %v", seen.Metadata)
	r.Check(slices.Equal(values(seen.Connection, "from"), []string{"connection"}), "metadata of the connection: %v", seen.Connection)
}

func errorsTravelWhole(r *cases.R) {
	_, config := three(r)
	detail := &anypb.Any{TypeUrl: "type.googleapis.com/x.Y", Value: []byte{1, 2, 3}}
	for code := int32(1); code <= 16; code++ {
		err := rpc(r, config[0], "interop.Interop.Fail", &pb.Failure{Code: code, Message: "größe", Details: []*anypb.Any{detail}}, &pb.Data{})
		got := status.Convert(err).Proto()
		r.Check(got.GetCode() == code && got.GetMessage() == "größe", "expected the code %d, got %v", code, got)
		r.Check(len(got.GetDetails()) == 1 && proto.Equal(got.GetDetails()[0], detail), "details: %v", got.GetDetails())
	}
	// This service has no such handler at a server of ours.
	err := rpc(r, config[0], "interop.Peer.SendHeaders", &pb.Empty{}, &pb.Empty{})
	r.Check(status.Code(err) == codes.Unimplemented, "an unknown method: %v", err)
}

func payloads(r *cases.R) {
	_, config := three(r)
	var reply pb.Data
	r.Must(rpc(r, config[0], echo, &pb.Data{}, &reply), "an empty payload")
	r.Check(reply.Number == 0 && len(reply.Bytes) == 0, "the echo of nothing is %d", reply.Number)
	large := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for n := range uint64(5) {
		r.Must(rpc(r, config[0], echo, &pb.Data{Number: n, Bytes: large}, &reply), "1 MB")
		r.Check(reply.Number == n && bytes.Equal(reply.Bytes, large), "1 MB came back differently")
	}
}

func inFlight(r *cases.R) {
	_, config := three(r)
	var calls []*gorums.Async[proto.Message]
	for n := range uint64(3000) {
		calls = append(calls, quorumCall(r, config, echoAll, data(n)).AsyncAll())
	}
	for n, call := range calls {
		reply, err := call.Get()
		r.Must(err, "a call")
		r.Check(number(r, reply) == uint64(n), "the echo of %d is %d", n, number(r, reply))
	}
}

func mixedOrder(r *cases.R) {
	_, config := three(r)
	var calls []*gorums.Async[proto.Message]
	var expected []uint64
	for n := range uint64(1000) {
		expected = append(expected, n)
		switch n % 3 {
		case 0:
			calls = append(calls, quorumCall(r, config, echoAll, data(n)).AsyncMajority())
		case 1:
			r.Must(gorums.Multicast(config.Context(r), request(r, noteAll, data(n)), noteAll), "a multicast")
		default:
			r.Must(gorums.Multicast(config.Context(r), request(r, noteAll, data(n)), noteAll, gorums.IgnoreErrors()), "a multicast")
		}
	}
	for _, call := range calls {
		_, err := call.Get()
		r.Must(err, "a call")
	}
	for _, node := range config {
		noted(r, node, expected)
	}
}

func serverDown(r *cases.R) {
	servers, config := three(r)
	_, err := quorumCall(r, config, echoAll, data(0)).All()
	r.Must(err, "all")
	// One handler holds its answer and lets later ones start, and then its server is gone.
	held := quorumCall(r, config, hold, &pb.HoldRequest{Data: data(1), Release: true}).AsyncMajority()
	r.Must(gorums.Unicast(config[0].Context(r), request(r, open, data(1)), open), "opening")
	r.Must(gorums.Unicast(config[1].Context(r), request(r, open, data(1)), open), "opening")
	_, err = held.Get()
	r.Must(err, "a majority")
	servers[2].Kill()
	for n := range uint64(20) {
		_, err := quorumCall(r, config, echoAll, data(n)).Majority()
		r.Must(err, "a majority beside a server that is down")
	}
}
