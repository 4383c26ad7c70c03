package cases

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"interop/internal/pb"
	"interop/internal/peer"
	"interop/internal/secrets"
	"interop/internal/service"
)

const (
	echo    = "interop.Interop.Echo"
	echoAll = "interop.Interop.EchoAll"
	note    = "interop.Interop.Note"
	noteAll = "interop.Interop.NoteAll"
	hold    = "interop.Interop.Hold"
	open    = "interop.Interop.Open"
	fail    = "interop.Interop.Fail"
	count   = "interop.Interop.Count"
	inspect = "interop.Interop.Inspect"
)

// OfClient are the cases of the client of package peer.
var OfClient = []Case{
	{"rpc_unicast_and_multicast", rpcUnicastAndMulticast},
	{"quorum_calls", quorumCalls},
	{"a_majority_while_a_server_is_held_and_one_is_down", majorityWhileHeld},
	{"a_server_that_is_paused_slows_no_majority", pausedServer},
	{"streamed_replies_by_level", streamedByLevel},
	{"streamed_replies_may_end_with_an_error", streamedError},
	{"metadata_of_message_and_connection", metadataBothWays},
	{"errors_travel_whole", errorsTravelWhole},
	{"empty_and_1mb_payloads", payloads},
	{"ids_up_to_2_to_the_63", greatIDs},
	{"calls_in_flight_3000", inFlight},
	{"mixed_calls_start_in_order", mixedOrder},
	{"release_lets_later_handlers_start", release},
	{"a_blocked_handler_under_a_multicast_flood", blockedMulticasts},
	{"a_blocked_handler_with_3000_calls_in_flight", blockedCalls},
	{"a_client_that_cancels_its_stream", cancelledStream},
	{"a_client_that_is_killed", killedClient},
	{"a_server_that_is_killed_under_traffic", killedServer},
	{"the_server_calls_its_clients", calledBack},
	{"calls_of_the_server_have_metadata_errors_and_streams", calledBackWithAll},
	{"the_server_floods_a_client_whose_handler_is_blocked", floodedClient},
	{"who_a_client_says_it_is", claimedIDs},
}

// connect makes a client of these servers, which have the ids 1, 2 and so on.
func (r *R) connect(client *peer.Client, servers ...*Process) peer.Config {
	if client.IDs == nil {
		client.IDs = peer.NewIDs(0)
	}
	if client.Secrets == (secrets.Files{}) {
		client.Secrets = r.Secrets()
	}
	var config peer.Config
	for i, server := range servers {
		node, err := client.Node(uint32(i+1), server.Address)
		r.Must(err, "a client")
		r.ends = append(r.ends, node.Close)
		config = append(config, node)
	}
	return config
}

// three starts three servers.
func (r *R) three() ([]*Process, peer.Config) {
	servers := []*Process{r.Start(), r.Start(), r.Start()}
	return servers, r.connect(&peer.Client{}, servers...)
}

func data(number uint64) *pb.Data { return &pb.Data{Number: number} }

func (r *R) echo(node *peer.Node, number uint64) {
	var reply pb.Data
	r.Must(node.RPC(r, echo, data(number), &reply), "an echo")
	r.Check(reply.Number == number, "expected the echo of %d, got %d", number, reply.Number)
}

// inspect is what a server has seen, once it has noted so many.
func (r *R) inspect(node *peer.Node, noted uint64) *pb.Seen {
	var seen pb.Seen
	r.Must(node.RPC(r, inspect, &pb.InspectRequest{Noted: noted}, &seen), "what the server has seen")
	return &seen
}

func (r *R) noted(node *peer.Node, expected []uint64) {
	numbers := r.inspect(node, uint64(len(expected))).Numbers
	r.Check(slices.Equal(numbers, expected), "expected the numbers %s, got %s", short(expected), short(numbers))
}

func short(numbers []uint64) string {
	if len(numbers) > 20 {
		return fmt.Sprintf("%v… (%d)", numbers[:20], len(numbers))
	}
	return fmt.Sprint(numbers)
}

func upTo(count uint64) []uint64 {
	numbers := make([]uint64, count)
	for i := range numbers {
		numbers[i] = uint64(i)
	}
	return numbers
}

func rpcUnicastAndMulticast(r *R) {
	_, config := r.three()
	r.echo(config[0], 7)
	r.Must(config[0].Unicast(r, note, data(8)), "a unicast")
	r.Must(config.Multicast(r, noteAll, data(9)), "a multicast")
	r.Must(config.Multicast(r, noteAll, data(10)), "a multicast")
	r.noted(config[0], []uint64{7, 8, 9, 10})
	r.noted(config[1], []uint64{9, 10})
	r.noted(config[2], []uint64{9, 10})
}

func quorumCalls(r *R) {
	_, config := r.three()
	for number := range uint64(100) {
		for _, threshold := range []int{1, 2, 3} {
			replies, err := config.Call(r, echoAll, data(number)).Threshold(threshold)
			r.Must(err, "a quorum call")
			r.Check(len(replies) == threshold, "expected %d replies, got %d", threshold, len(replies))
			for _, reply := range replies {
				var got pb.Data
				r.Must(reply.Into(&got), "a reply")
				r.Check(got.Number == number, "expected %d, got %d", number, got.Number)
			}
		}
	}
	for _, node := range config {
		r.Check(len(r.inspect(node, 300).Numbers) == 300, "a server missed a call")
	}
}

func majorityWhileHeld(r *R) {
	servers, config := r.three()
	request := &pb.HoldRequest{Data: data(1), Release: true}
	call := config.Call(r, hold, request)
	r.Must(config[0].Unicast(r, open, data(1)), "opening")
	r.Must(config[1].Unicast(r, open, data(1)), "opening")
	replies, err := call.Majority()
	r.Must(err, "a majority")
	for _, reply := range replies {
		r.Check(reply.Node != 3, "the server that holds its answer has answered")
	}
	servers[2].Kill()
	for number := range uint64(20) {
		_, err := config.Call(r, echoAll, data(number)).Majority()
		r.Must(err, "a majority beside a server that is down")
	}
	_, err = config.Call(r, echoAll, data(100)).All()
	r.Check(status.Code(oneOf(err)) == codes.Unavailable, "all cannot answer: %v", err)
}

// oneOf finds an error of gRPC among several.
func oneOf(err error) error {
	switch err := err.(type) {
	case interface{ GRPCStatus() *status.Status }:
		return err.GRPCStatus().Err()
	case interface{ Unwrap() error }:
		return oneOf(err.Unwrap())
	case interface{ Unwrap() []error }:
		for _, err := range err.Unwrap() {
			if found := oneOf(err); found != nil {
				return found
			}
		}
	}
	return nil
}

func pausedServer(r *R) {
	servers, config := r.three()
	_, err := config.Call(r, echoAll, data(0)).All()
	r.Must(err, "all")
	r.pause(servers[1])
	for number := range uint64(1000) {
		_, err := config.Call(r, echoAll, data(number)).Majority()
		r.Must(err, "a majority beside a server that is paused")
	}
	call := config.Call(r, echoAll, data(1000))
	r.resume(servers[1])
	_, err = call.All()
	r.Must(err, "all, after it was resumed")
	r.Check(len(r.inspect(config[1], 1002).Numbers) == 1002, "the server that was paused missed a call")
}

func streamedByLevel(r *R) {
	_, config := r.three()
	levels, last, err := service.Climb(r, config, &pb.CountRequest{From: 10, Replies: 3})
	r.Must(err, "a correctable")
	r.Check(slices.Equal(levels, []uint32{1, 2, 3}), "levels %v", levels)
	r.Check(len(last) == 3, "last numbers %v", last)
	// All that a server sends comes, in order.
	call := peer.Config{config[0]}.StreamedCall(r, count, &pb.CountRequest{From: 10, Replies: 100})
	defer call.Close()
	for expected := uint64(10); expected < 110; expected++ {
		reply, err := call.Next()
		r.Must(err, "one of a hundred replies")
		var got pb.Data
		r.Must(reply.Into(&got), "one of a hundred replies")
		r.Check(got.Number == expected, "expected %d, got %d", expected, got.Number)
	}
	// And nothing more: this client does not announce that it knows the sign for the end.
	r.echo(config[0], 1)
	short, cancel := context.WithTimeout(r, time.Millisecond)
	defer cancel()
	select {
	case <-short.Done():
	case <-waitNext(call):
		r.Fail("there is more than a hundred replies")
	}
}

func waitNext(call *peer.Call) <-chan struct{} {
	came := make(chan struct{})
	go func() {
		if _, err := call.Next(); err == nil {
			close(came)
		}
	}()
	return came
}

func streamedError(r *R) {
	config := r.connect(&peer.Client{}, r.Start())
	request := &pb.CountRequest{From: 1, Replies: 3, Failure: &pb.Failure{Code: 9, Message: "no more"}}
	call := config.StreamedCall(r, count, request)
	defer call.Close()
	for expected := uint64(1); expected <= 3; expected++ {
		reply, err := call.Next()
		r.Must(err, "a reply")
		r.Must(reply.Err, "a reply")
	}
	last, err := call.Next()
	r.Must(err, "the error")
	r.Check(status.Code(last.Err) == codes.FailedPrecondition, "the end is %v", last.Err)
}

func metadataBothWays(r *R) {
	config := r.connect(&peer.Client{Metadata: []string{"from", "connection"}}, r.Start())
	var seen pb.Seen
	r.Must(config[0].RPC(r, inspect, &pb.InspectRequest{}, &seen, "trace", "a", "Size", "größe", "trace", "b"), "a call")
	got := pairs(seen.Metadata)
	r.Check(slices.Equal(got, []string{"trace: a", "size: größe", "trace: b"}), "metadata of the message: %v", got)
	r.Check(slices.Contains(pairs(seen.Connection), "from: connection"), "metadata of the connection: %v", pairs(seen.Connection))
}

func pairs(entries []*pb.Entry) []string {
	var pairs []string
	for _, entry := range entries {
		pairs = append(pairs, entry.Key+": "+entry.Value)
	}
	return pairs
}

func errorsTravelWhole(r *R) {
	config := r.connect(&peer.Client{}, r.Start())
	details := []*anypb.Any{{TypeUrl: "type.googleapis.com/x.Y", Value: []byte{1, 2, 3}}, {TypeUrl: "none"}}
	for code := int32(1); code <= 16; code++ {
		err := config[0].RPC(r, fail, &pb.Failure{Code: code, Message: "no größe", Details: details}, &pb.Data{})
		got := status.Convert(err).Proto()
		r.Check(got.GetCode() == code && got.GetMessage() == "no größe", "expected the code %d, got %v", code, got)
		r.Check(len(got.GetDetails()) == 2, "details: %v", got.GetDetails())
		for i, detail := range got.GetDetails() {
			r.Check(proto.Equal(detail, details[i]), "expected the detail %v, got %v", details[i], detail)
		}
	}
	err := config[0].RPC(r, "interop.Interop.None", data(1), &pb.Data{})
	r.Check(status.Code(err) == codes.Unimplemented, "an unknown method: %v", err)
	err = config[0].RPC(r, "/interop.Interop/Echo", data(1), &pb.Data{})
	r.Check(status.Code(err) == codes.Unimplemented, "a method with a slash: %v", err)
	// Field 1 of a Failure is a number, and of an Entry text.
	err = config[0].RPC(r, fail, &pb.Entry{Key: "text"}, &pb.Data{})
	r.Check(status.Code(err) == codes.InvalidArgument, "a payload of another type: %v", err)
	r.echo(config[0], 1)
}

func payloads(r *R) {
	config := r.connect(&peer.Client{}, r.Start())
	var reply pb.Data
	r.Must(config[0].RPC(r, echo, &pb.Data{}, &reply), "an empty payload")
	r.Check(reply.Number == 0 && len(reply.Bytes) == 0, "the echo of nothing is %v", &reply)
	large := make([]byte, 1<<20)
	for i := range large {
		large[i] = byte(i * 7)
	}
	// Several of them are more than any window.
	for number := range uint64(20) {
		request := &pb.Data{Number: number, Bytes: large}
		r.Must(config[0].RPC(r, echo, request, &reply), "1 MB")
		r.Check(reply.Number == number && bytes.Equal(reply.Bytes, large), "1 MB came back differently")
	}
	// Beyond the limit of the server: the call fails, and not the connection.
	err := config[0].RPC(r, echo, &pb.Data{Bytes: make([]byte, 5<<20)}, &reply)
	r.Check(status.Code(err) == codes.ResourceExhausted, "5 MB: %v", err)
	r.echo(config[0], 1)
	r.Check(config[0].Streams() == 1, "the connection broke")
}

func greatIDs(r *R) {
	const calls = 100
	for _, last := range []uint64{math.MaxUint32 - calls/2, math.MaxInt64 - calls, 1<<56 - calls/2} {
		servers := []*Process{r.Start(), r.Start(), r.Start()}
		config := r.connect(&peer.Client{IDs: peer.NewIDs(last)}, servers...)
		var id uint64
		for number := range uint64(calls) {
			call := config.Call(r, echoAll, data(number))
			id = call.ID
			replies, err := call.All()
			r.Must(err, fmt.Sprintf("the id %x", id))
			for _, reply := range replies {
				r.Check(reply.Message.ID == id, "expected a reply to %x, got one to %x", id, reply.Message.ID)
			}
		}
		r.Check(id == last+calls, "the last id was %x", id)
	}
}

func inFlight(r *R) {
	config := r.connect(&peer.Client{}, r.Start(), r.Start(), r.Start())
	var calls []*peer.Call
	for number := range uint64(3000) {
		calls = append(calls, config.Call(r, echoAll, data(number)))
	}
	for number, call := range calls {
		replies, err := call.All()
		r.Must(err, fmt.Sprintf("call %d", number))
		for _, reply := range replies {
			var got pb.Data
			r.Must(reply.Into(&got), "a reply")
			r.Check(got.Number == uint64(number), "call %d was answered with %d", number, got.Number)
		}
	}
	r.noted(config[0], upTo(3000))
	r.Check(config[0].Streams() == 1, "the connection broke")
}

func mixedOrder(r *R) {
	config := r.connect(&peer.Client{}, r.Start())
	var calls []*peer.Call
	for number := range uint64(1000) {
		switch number % 4 {
		case 0:
			calls = append(calls, config.Call(r, echo, data(number)))
		case 1:
			calls = append(calls, config.Call(r, echoAll, data(number)))
		case 2:
			r.Must(config[0].Unicast(r, note, data(number)), "a unicast")
		default:
			r.Must(config.Multicast(r, noteAll, data(number)), "a multicast")
		}
	}
	r.noted(config[0], upTo(1000))
	for _, call := range calls {
		_, err := call.All()
		r.Must(err, "a call")
	}
}

func release(r *R) {
	server := r.Start()
	config := r.connect(&peer.Client{}, server)
	var held []*peer.Call
	for number := range uint64(100) {
		held = append(held, config.Call(r, hold, &pb.HoldRequest{Data: data(number), Release: true}))
	}
	r.echo(config[0], 100)
	for number := range uint64(100) {
		r.Must(config[0].Unicast(r, open, data(number)), "opening")
	}
	for _, call := range held {
		_, err := call.All()
		r.Must(err, "a call that was held")
	}
	// Without release nothing starts before it ends.
	blocked := config.Call(r, hold, &pb.HoldRequest{Data: data(1000)})
	later := config.Call(r, echo, data(1001))
	other := r.connect(&peer.Client{}, server)
	seen := r.inspect(other[0], 102)
	r.Check(len(seen.Numbers) == 102, "a later handler has started beside one that has not released: %v", seen.Numbers)
	r.Must(other[0].Unicast(r, open, data(1000)), "opening")
	_, err := blocked.All()
	r.Must(err, "the call that blocked")
	_, err = later.All()
	r.Must(err, "the call behind it")
}
