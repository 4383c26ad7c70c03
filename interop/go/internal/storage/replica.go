package storage

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"interop/internal/pb"
	"interop/internal/peer"
)

// How long a nested call may take.
const nested = 10 * time.Second

// Replica is the service proto.Storage.
type Replica struct {
	Server *peer.Server

	mu     sync.Mutex
	newest map[string]*pb.WriteRequest
	log    *file
}

// Open has what was written to the file before. Without a path, nothing is kept.
func Open(path string) (*Replica, error) {
	r := &Replica{newest: make(map[string]*pb.WriteRequest)}
	if path == "" {
		return r, nil
	}
	log, err := openFile(path, func(request *pb.WriteRequest) {
		if r.isNew(request) {
			r.newest[request.Key] = request
		}
	})
	r.log = log
	return r, err
}

// Register adds the handlers.
func (r *Replica) Register(h *peer.Handlers) {
	read := func(_ *peer.Request, request *pb.ReadRequest) (*pb.ReadResponse, error) { return r.read(request), nil }
	write := func(_ *peer.Request, request *pb.WriteRequest) (*pb.WriteResponse, error) {
		return r.write(request), nil
	}
	oneWay := func(_ *peer.Request, request *pb.WriteRequest) { r.write(request) }
	peer.Unary(h, "proto.Storage.ReadRPC", read)
	peer.Unary(h, "proto.Storage.WriteRPC", write)
	peer.OneWay(h, "proto.Storage.WriteUnicast", oneWay)
	peer.OneWay(h, "proto.Storage.WriteMulticast", oneWay)
	peer.Unary(h, ReadQC, read)
	peer.Unary(h, WriteQC, write)
	peer.Streaming(h, "proto.Storage.ReadCorrectable", func(q *peer.Request, request *pb.ReadRequest) error {
		return q.Reply(r.read(request))
	})
	peer.Unary(h, "proto.Storage.ReadNestedQC", r.readNested)
	peer.Unary(h, "proto.Storage.WriteNestedMulticast", r.writeNested)
}

// isNew is asked under the lock.
func (r *Replica) isNew(request *pb.WriteRequest) bool {
	known := r.newest[request.Key]
	return known == nil || known.Time.AsTime().Before(request.Time.AsTime())
}

func (r *Replica) read(request *pb.ReadRequest) *pb.ReadResponse {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.newest[request.Key]
	if known == nil {
		return &pb.ReadResponse{}
	}
	return &pb.ReadResponse{OK: true, Value: known.Value, Time: known.Time}
}

// write holds the lock until the write is on disk, so nobody reads what is not.
func (r *Replica) write(request *pb.WriteRequest) *pb.WriteResponse {
	r.mu.Lock()
	defer r.mu.Unlock()
	if request.Time == nil {
		request.Time = new(timestamppb.Timestamp)
	}
	if !r.isNew(request) {
		return &pb.WriteResponse{}
	}
	if r.log != nil {
		if err := r.log.append(request); err != nil {
			// What is on disk is not known any more.
			fmt.Fprintf(os.Stderr, "error: the file cannot be written: %v\n", err)
			os.Exit(1)
		}
	}
	r.newest[request.Key] = request
	return &pb.WriteResponse{New: true}
}

func (r *Replica) readNested(q *peer.Request, request *pb.ReadRequest) (*pb.ReadResponse, error) {
	q.Release()
	ctx, cancel := context.WithTimeout(q, nested)
	defer cancel()
	// All replicas, whether or not they are connected: a majority of fewer would be none.
	replies, err := r.Server.Own().Call(ctx, ReadQC, request).Majority()
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return newest(replies)
}

func (r *Replica) writeNested(q *peer.Request, request *pb.WriteRequest) (*pb.WriteResponse, error) {
	response := r.write(request)
	q.Release()
	if err := r.Server.Own().Multicast(q, "proto.Storage.WriteMulticast", request); err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return response, nil
}

// newest is the newest value of some replies.
func newest(replies []peer.Reply) (*pb.ReadResponse, error) {
	newest := new(pb.ReadResponse)
	for _, reply := range replies {
		response := new(pb.ReadResponse)
		if err := reply.Into(response); err != nil {
			return nil, err
		}
		if response.OK && (!newest.OK || newest.Time.AsTime().Before(response.Time.AsTime())) {
			newest = response
		}
	}
	return newest, nil
}
