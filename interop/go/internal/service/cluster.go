package service

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"interop/internal/pb"
	"interop/internal/peer"
)

// How long a nested call may take.
const nested = 20 * time.Second

// Cluster is the service of that name.
type Cluster struct {
	Server *peer.Server
	// By which this server appears in answers.
	Name string
}

// Register adds the handlers.
func (c *Cluster) Register(h *peer.Handlers) {
	peer.Unary(h, "interop.Cluster.Relay", c.relay)
	peer.Unary(h, "interop.Cluster.Gather", c.gather)
	peer.Unary(h, "interop.Cluster.Spread", c.spread)
	peer.Unary(h, "interop.Cluster.Climb", c.climb)
	peer.Unary(h, "interop.Cluster.CallClients", c.callClients)
}

func (c *Cluster) peers(via uint32) peer.Config {
	if via == pb.ViaOwn {
		return c.Server.Own()
	}
	return c.Server.Peers()
}

func (c *Cluster) relay(r *peer.Request, request *pb.RelayRequest) (*pb.RelayReply, error) {
	if len(request.Path) == 0 {
		return &pb.RelayReply{Names: []string{c.Name}, Data: request.Data, Metadata: fromWire(r.Metadata)}, nil
	}
	r.Release()
	ctx, cancel := context.WithTimeout(r, nested)
	defer cancel()
	next := c.peers(request.Via).Node(request.Path[0])
	if next == nil {
		return nil, notFound(request.Path[0])
	}
	metadata := []string{"hop", c.Name}
	for _, entry := range r.Metadata {
		metadata = append(metadata, entry.Key, entry.Value)
	}
	rest := &pb.RelayRequest{Path: request.Path[1:], Data: request.Data, Via: request.Via}
	var reply pb.RelayReply
	if err := next.RPC(ctx, r.Method, rest, &reply, metadata...); err != nil {
		return nil, err
	}
	reply.Names = append(reply.Names, c.Name)
	return &reply, nil
}

func (c *Cluster) gather(r *peer.Request, request *pb.GatherRequest) (*pb.Gathered, error) {
	if request.Depth == 0 {
		return &pb.Gathered{Names: []string{c.Name}}, nil
	}
	r.Release()
	ctx, cancel := context.WithTimeout(r, nested)
	defer cancel()
	peers := c.peers(request.Via)
	deeper := &pb.GatherRequest{Depth: request.Depth - 1, Via: request.Via}
	if _, err := peers.Call(ctx, r.Method, deeper).Majority(); err != nil {
		return nil, err
	}
	replies, err := peers.Call(ctx, r.Method, deeper).All()
	if err != nil {
		return nil, err
	}
	gathered := new(pb.Gathered)
	for _, reply := range replies {
		var names pb.Gathered
		if err := reply.Into(&names); err != nil {
			return nil, err
		}
		gathered.Names = append(gathered.Names, names.Names...)
	}
	return gathered, nil
}

func (c *Cluster) spread(r *peer.Request, data *pb.Data) (*pb.Empty, error) {
	r.Release()
	return &pb.Empty{}, c.Server.Peers().Multicast(r, "interop.Interop.NoteAll", data)
}

func (c *Cluster) climb(r *peer.Request, request *pb.CountRequest) (*pb.Levels, error) {
	r.Release()
	ctx, cancel := context.WithTimeout(r, nested)
	defer cancel()
	levels, _, err := Climb(ctx, c.Server.Peers(), request)
	return &pb.Levels{Levels: levels}, err
}

// Climb follows a correctable: its level is the number of nodes that have answered, and it is done when all have. Returned are
// the levels that it passed, and the last number of each node.
func Climb(ctx context.Context, nodes peer.Config, request *pb.CountRequest) ([]uint32, map[uint32]uint64, error) {
	call := nodes.StreamedCall(ctx, "interop.Interop.Count", request)
	defer call.Close()
	last := make(map[uint32]uint64)
	var levels []uint32
	for len(last) < len(nodes) {
		reply, err := call.Next()
		if err != nil {
			return levels, last, fmt.Errorf("at level %d of %d: %w", len(last), len(nodes), err)
		}
		var data pb.Data
		if err := reply.Into(&data); err != nil {
			return levels, last, err
		}
		before := len(last)
		last[reply.Node] = data.Number
		if len(last) > before {
			levels = append(levels, uint32(len(last)))
		}
	}
	return levels, last, nil
}

func (c *Cluster) callClients(r *peer.Request, request *pb.ClientsRequest) (*pb.ClientsReply, error) {
	if request.Release {
		r.Release()
	} else if request.Clients > 0 {
		// The replies come behind whatever this handler holds up: it can only call others than its caller, which is not
		// known here.
		return nil, status.Error(codes.FailedPrecondition, "a Go handler that calls back has to release before")
	}
	ctx, cancel := context.WithTimeout(r, nested)
	defer cancel()
	clients, err := c.Server.WaitFor(ctx, int(request.Clients), c.Server.Clients)
	if err != nil {
		return nil, err
	}
	var metadata []string
	for _, entry := range request.Metadata {
		metadata = append(metadata, entry.Key, entry.Value)
	}
	var call *peer.Call
	switch {
	case request.Note != nil:
		for i := range request.Note.Count {
			data := &pb.Data{Number: request.Note.From + i}
			if err := clients.Multicast(ctx, "interop.Interop.NoteAll", data, metadata...); err != nil {
				return nil, err
			}
		}
		return &pb.ClientsReply{}, nil
	case request.Count != nil:
		return countClients(ctx, clients, request.Count)
	case request.Echo != nil:
		call = clients.Call(ctx, "interop.Interop.EchoAll", request.Echo, metadata...)
	case request.Fail != nil:
		call = clients.Call(ctx, "interop.Interop.Fail", request.Fail, metadata...)
	case request.Inspect != nil:
		call = clients.Call(ctx, "interop.Interop.Inspect", request.Inspect, metadata...)
	default:
		return nil, status.Error(codes.InvalidArgument, "nothing is asked of the clients")
	}
	defer call.Close()
	answers := new(pb.ClientsReply)
	for range clients {
		reply, err := call.Next()
		if err != nil {
			return nil, err
		}
		answer := &pb.ClientAnswer{Node: reply.Node}
		answers.Answers = append(answers.Answers, answer)
		var data pb.Data
		var seen pb.Seen
		switch {
		case reply.Err != nil:
			answer.Failure = asFailure(reply.Err)
		case request.Inspect != nil:
			err = reply.Into(&seen)
			answer.Seen = &seen
		default:
			err = reply.Into(&data)
			answer.Data = []*pb.Data{&data}
		}
		if err != nil {
			return nil, err
		}
	}
	return answers, nil
}

// countClients takes all replies of each client, and the error that ends them where there is to be one.
func countClients(ctx context.Context, clients peer.Config, request *pb.CountRequest) (*pb.ClientsReply, error) {
	expected := int(request.Replies)
	if request.Failure != nil {
		expected++
	}
	call := clients.StreamedCall(ctx, "interop.Interop.Count", request)
	defer call.Close()
	byNode := make(map[uint32]*pb.ClientAnswer)
	answers := new(pb.ClientsReply)
	for _, client := range clients {
		byNode[client.ID] = &pb.ClientAnswer{Node: client.ID}
		answers.Answers = append(answers.Answers, byNode[client.ID])
	}
	for range expected * len(clients) {
		reply, err := call.Next()
		if err != nil {
			return nil, err
		}
		answer := byNode[reply.Node]
		if reply.Err != nil {
			answer.Failure = asFailure(reply.Err)
			continue
		}
		var data pb.Data
		if err := reply.Into(&data); err != nil {
			return nil, err
		}
		answer.Data = append(answer.Data, &data)
	}
	return answers, nil
}
