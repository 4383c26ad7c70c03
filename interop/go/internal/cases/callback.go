package cases

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"interop/internal/pb"
	"interop/internal/peer"
	"interop/internal/service"
	"interop/internal/wire"
)

const callClients = "interop.Cluster.CallClients"

func calledBack(r *R) {
	server := r.Start()
	var clients []*callers
	var configs []peer.Config
	for range 3 {
		callers := newCallers()
		clients = append(clients, callers)
		configs = append(configs, r.connect(&peer.Client{Handlers: callers.Handlers, NodeID: "0"}, server))
	}
	// With and without release: the reply to a handler's own caller never waits for the handler.
	for number := range uint64(100) {
		request := &pb.ClientsRequest{Clients: 3, Release: number%2 == 0, Echo: &pb.Data{Number: number, Bytes: make([]byte, 3000)}}
		for _, config := range configs {
			var reply pb.ClientsReply
			r.Must(config[0].RPC(r, callClients, request, &reply), "a call that calls back")
			r.Check(len(reply.Answers) == 3, "expected 3 answers, got %d", len(reply.Answers))
			for i, answer := range reply.Answers {
				r.Check(answer.Failure == nil && len(answer.Data) == 1, "client %d answered with %v", answer.Node, answer.Failure)
				r.Check(answer.Node == wire.DynamicIDs+uint32(i), "client %d has the id %d", i, answer.Node)
				same := answer.Data[0].Number == number && bytes.Equal(answer.Data[0].Bytes, request.Echo.Bytes)
				r.Check(same, "client %d answered %d with %d", answer.Node, number, answer.Data[0].Number)
			}
		}
	}
	request := &pb.ClientsRequest{Clients: 3, Note: &pb.NoteRange{Count: 1000}}
	r.Must(configs[0][0].RPC(r, callClients, request, &pb.ClientsReply{}), "multicasts to the clients")
	for _, client := range clients {
		noted := client.has(r, 1000)
		r.Check(slices.Equal(noted, upTo(1000)), "the multicasts came as %s", short(noted))
	}
	// One that has left is gone, and its id with it.
	configs[2].Close()
	r.eventually("the client that has left is gone", func() bool {
		var reply pb.ClientsReply
		r.Must(configs[0][0].RPC(r, callClients, &pb.ClientsRequest{Clients: 2, Echo: data(1)}, &reply), "a call that calls back")
		return len(reply.Answers) == 2
	})
	again := r.connect(&peer.Client{Handlers: newCallers().Handlers, NodeID: "0"}, server)
	var reply pb.ClientsReply
	r.Must(again[0].RPC(r, callClients, &pb.ClientsRequest{Clients: 3, Echo: data(1)}, &reply), "a call that calls back")
	r.Check(len(reply.Answers) == 3 && reply.Answers[2].Node == wire.DynamicIDs+3, "an id was given twice: %v", reply.Answers)
}

// eventually asks until something holds, or the case's time is over.
func (r *R) eventually(what string, holds func() bool) {
	for !holds() {
		if r.Err() != nil {
			r.Fail("%s: it never came true", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func calledBackWithAll(r *R) {
	handlers := peer.NewHandlers()
	service.NewInterop(false).Register(handlers)
	config := r.connect(&peer.Client{Handlers: handlers, NodeID: "0", Metadata: []string{"from", "connection"}}, r.Start())
	ask := func(request *pb.ClientsRequest) *pb.ClientAnswer {
		request.Clients = 1
		request.Release = true
		var reply pb.ClientsReply
		r.Must(config[0].RPC(r, callClients, request, &reply), "a call that calls back")
		r.Check(len(reply.Answers) == 1, "expected one answer, got %d", len(reply.Answers))
		return reply.Answers[0]
	}
	entries := []*pb.Entry{{Key: "trace", Value: "größe"}}
	seen := ask(&pb.ClientsRequest{Inspect: &pb.InspectRequest{}, Metadata: entries}).Seen
	r.Check(seen != nil && slices.Equal(pairs(seen.Metadata), []string{"trace: größe"}), "metadata of the server: %v", seen)
	details := []*anypb.Any{{TypeUrl: "type.googleapis.com/x.Y", Value: []byte{1, 2, 3}}}
	for code := int32(1); code <= 16; code++ {
		failure := ask(&pb.ClientsRequest{Fail: &pb.Failure{Code: code, Message: "größe", Details: details}}).Failure
		r.Check(failure != nil && failure.Code == code && failure.Message == "größe", "expected the code %d, got %v", code, failure)
		same := len(failure.Details) == 1 && bytes.Equal(failure.Details[0].Value, details[0].Value)
		r.Check(same && failure.Details[0].TypeUrl == details[0].TypeUrl, "details: %v", failure.Details)
	}
	counted := ask(&pb.ClientsRequest{Count: &pb.CountRequest{From: 5, Replies: 50, Failure: &pb.Failure{Code: 9}}})
	r.Check(len(counted.Data) == 50 && counted.Failure != nil && counted.Failure.Code == 9, "streamed replies: %d, %v", len(counted.Data), counted.Failure)
	for i, data := range counted.Data {
		r.Check(data.Number == uint64(5+i), "streamed reply %d is %d", i, data.Number)
	}
	large := ask(&pb.ClientsRequest{Echo: &pb.Data{Number: 1, Bytes: make([]byte, 1<<20)}})
	r.Check(len(large.Data) == 1 && len(large.Data[0].Bytes) == 1<<20, "1 MB came back differently")
	empty := ask(&pb.ClientsRequest{Echo: &pb.Data{}})
	r.Check(len(empty.Data) == 1 && len(empty.Data[0].Bytes) == 0, "nothing came back differently")
}

func floodedClient(r *R) {
	server := r.Start()
	witness := r.connect(&peer.Client{}, server)
	client := newCallers()
	client.blocked = make(chan struct{})
	config := r.connect(&peer.Client{Handlers: client.Handlers, NodeID: "0"}, server)
	// The answers that the client waits for are behind the flood: it reads on when its handler does.
	flooding := make(chan error, 1)
	go func() {
		request := &pb.ClientsRequest{Clients: 1, Release: true, Note: &pb.NoteRange{Count: flood / 4}}
		flooding <- witness[0].RPC(r, callClients, request, &pb.ClientsReply{})
	}()
	r.echo(witness[0], 1)
	time.Sleep(300 * time.Millisecond)
	r.Check(len(client.has(r, 0)) == 0, "the handler is not blocked")
	r.echo(witness[0], 2)
	close(client.blocked)
	r.Must(<-flooding, "the flood")
	noted := client.has(r, flood/4)
	r.Check(slices.Equal(noted, upTo(flood/4)), "the flood came as %s", short(noted))
	r.echo(config[0], 3)
	r.Check(config[0].Streams() == 1, "the connection broke")
}

func claimedIDs(r *R) {
	const last = wire.DynamicIDs - 1
	for _, test := range []struct {
		claim   string
		trust   bool
		calls   uint32
		knownAs uint64
	}{
		{claim: "", trust: true},
		{claim: "0", trust: true, calls: wire.DynamicIDs},
		{claim: "0", trust: false, calls: wire.DynamicIDs},
		{claim: "abc", trust: true, calls: wire.DynamicIDs},
		{claim: "-1", trust: true, calls: wire.DynamicIDs},
		{claim: "4294967296", trust: true, calls: wire.DynamicIDs},
		{claim: "7", trust: true, calls: 7, knownAs: 7},
		{claim: "7", trust: false},
		{claim: strconv.Itoa(last), trust: true, calls: last, knownAs: last},
		{claim: strconv.Itoa(wire.DynamicIDs), trust: true},
		{claim: fmt.Sprint(uint32(math.MaxUint32)), trust: true},
	} {
		args := []string{}
		if test.trust {
			args = append(args, "--trust")
		}
		client := peer.Client{NodeID: test.claim}
		if test.claim != "" {
			client.Handlers = newCallers().Handlers
		}
		config := r.connect(&client, r.Start(args...))
		r.echo(config[0], 1)
		var reply pb.ClientsReply
		err := config[0].RPC(r, callClients, &pb.ClientsRequest{Echo: data(1)}, &reply)
		r.Must(err, fmt.Sprintf("the claim %q", test.claim))
		var called uint32
		for _, answer := range reply.Answers {
			called = answer.Node
		}
		r.Check(called == test.calls, "with the claim %q, trusted %v: called as %d, expected %d", test.claim, test.trust, called, test.calls)
		known := fmt.Sprintf("peer: %d", test.knownAs)
		if test.calls >= wire.DynamicIDs {
			known = fmt.Sprintf("peer: %d", test.calls)
		}
		seen := r.inspect(config[0], 1)
		r.Check(slices.Contains(pairs(seen.Connection), known), "with the claim %q: expected %q in %v", test.claim, known, pairs(seen.Connection))
	}
}
