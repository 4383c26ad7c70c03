package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"interop/internal/secrets"
	"interop/internal/wire"
)

// Options are how a server behaves.
type Options struct {
	// Its own id and the addresses of all peers, where it has any.
	ID    uint32
	Peers map[uint32]string
	// The path that it serves, if it is not that of the protocol.
	Path string
	// Wraps a link before anything is sent or read.
	Prepare func(*Link)
	// The id before that of its first call.
	LastID uint64
	// Keeps it from reading more than that ahead of its handlers.
	Window int32
	// How its connections are secured, and what of that its listener does: none, where it is not said.
	Secrets     secrets.Files
	Credentials credentials.TransportCredentials
}

// Server serves, and calls its peers and clients.
type Server struct {
	options  Options
	handlers *Handlers
	ids      *IDs
	own      Config

	mu sync.Mutex
	// Peers by their streams, and clients that have ids from here.
	peers     map[uint32]*inbound
	peerNodes map[uint32]*Node
	clients   map[uint32]*Node
	dynamic   uint32
	changed   chan struct{}
}

// NewServer has handlers that can be added until it serves.
func NewServer(handlers *Handlers, options Options) *Server {
	return &Server{
		options:   options,
		handlers:  handlers,
		ids:       NewIDs(options.LastID),
		peers:     make(map[uint32]*inbound),
		peerNodes: make(map[uint32]*Node),
		clients:   make(map[uint32]*Node),
		dynamic:   wire.DynamicIDs,
		changed:   make(chan struct{}),
	}
}

// connect makes a node of each peer, which is connected to at once.
func (s *Server) connect() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	options, handlers := s.options, s.handlers
	client := Client{Handlers: handlers, NodeID: strconv.FormatUint(uint64(options.ID), 10), IDs: s.ids, Secrets: options.Secrets}
	var own []*Node
	for id, address := range options.Peers {
		if id == options.ID {
			itself := newNode(id, s.ids, local(handlers), func() {})
			s.peerNodes[id] = itself
			own = append(own, itself)
			continue
		}
		node, err := client.Node(id, address)
		if err != nil {
			return err
		}
		own = append(own, node)
		s.peers[id] = new(inbound)
		s.peerNodes[id] = newNode(id, s.ids, s.peers[id].open, func() {})
	}
	s.own = sorted(own)
	return nil
}

// Serve connects to the peers, and serves until the listener fails.
func (s *Server) Serve(listener net.Listener) error {
	path := strings.TrimPrefix(wire.Path, "/")
	if s.options.Path != "" {
		path = s.options.Path
	}
	service, method, found := strings.Cut(path, "/")
	if !found {
		return fmt.Errorf("%q is no path: it has no /", path)
	}
	desc := wire.Stream
	desc.StreamName = method
	desc.Handler = func(_ any, stream grpc.ServerStream) error { return s.stream(stream) }
	options := []grpc.ServerOption{grpc.ForceServerCodec(wire.Codec{}), grpc.MaxRecvMsgSize(64 << 20)}
	if s.options.Credentials != nil {
		options = append(options, grpc.Creds(s.options.Credentials))
	}
	if s.options.Window > 0 {
		options = append(options, grpc.InitialWindowSize(s.options.Window), grpc.InitialConnWindowSize(s.options.Window))
	}
	if err := s.connect(); err != nil {
		return err
	}
	server := grpc.NewServer(options...)
	server.RegisterService(&grpc.ServiceDesc{ServiceName: service, Streams: []grpc.StreamDesc{desc}}, nil)
	return server.Serve(listener)
}

func (s *Server) stream(stream grpc.ServerStream) error {
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	headers, _ := metadata.FromIncomingContext(ctx)
	link := newLink(ctx, stream.SendMsg, stream.RecvMsg, s.handlers)
	link.server = true
	link.End = func(err error) { cancel(ending{err}) }
	link.SendHeader = func() error { return stream.SendHeader(nil) }
	for key, values := range headers {
		for _, value := range values {
			link.Header = append(link.Header, &wire.Entry{Key: key, Value: value})
		}
	}
	if s.options.Prepare != nil {
		s.options.Prepare(link)
	}
	leave, err := s.classify(link, headers.Get(wire.NodeID))
	if err != nil {
		return err
	}
	defer leave()
	read := make(chan error, 1)
	go func() { read <- link.run() }()
	select {
	case err = <-read:
		return err
	case <-ctx.Done():
		var ending ending
		if errors.As(context.Cause(ctx), &ending) {
			return ending.status
		}
		return context.Cause(ctx)
	}
}

// ending is why this end has had enough of a stream.
type ending struct{ status error }

func (ending) Error() string { return "ended by the server" }

// classify finds out who a client is, by the first value of its header.
func (s *Server) classify(link *Link, claims []string) (func(), error) {
	if len(claims) == 0 {
		return func() {}, nil
	}
	link.callable = true
	id, err := strconv.ParseUint(claims[0], 10, 32)
	if err != nil || id == 0 {
		return s.addClient(link)
	}
	s.mu.Lock()
	peer := s.peers[uint32(id)]
	s.mu.Unlock()
	if peer == nil {
		// Anonymous: it is served, and never called.
		return func() {}, nil
	}
	if err := s.options.Secrets.CheckClaim(link.ctx, uint32(id)); err != nil {
		return nil, err
	}
	link.Peer = uint32(id)
	peer.attach(link)
	s.change()
	return func() {
		if peer.detach(link) {
			s.change()
		}
	}, nil
}

func (s *Server) addClient(link *Link) (func(), error) {
	s.mu.Lock()
	id := s.dynamic
	if id == 0 {
		s.mu.Unlock()
		return nil, status.Error(codes.ResourceExhausted, "all ids for clients were given")
	}
	s.dynamic++
	link.Peer = id
	node := newNode(id, s.ids, func() (*Link, error) { return link, nil }, func() {})
	s.clients[id] = node
	s.mu.Unlock()
	s.change()
	return func() {
		s.mu.Lock()
		delete(s.clients, id)
		s.mu.Unlock()
		node.Close()
		s.change()
	}, nil
}

func (s *Server) change() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

// Own are all peers, over the connections that this server made.
func (s *Server) Own() Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.own
}

// Peers are the peers that are connected, over the streams that they opened, and the server itself.
func (s *Server) Peers() Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	var nodes []*Node
	for id, node := range s.peerNodes {
		if peer := s.peers[id]; peer != nil {
			if _, err := peer.open(); err != nil {
				continue
			}
		}
		nodes = append(nodes, node)
	}
	return sorted(nodes)
}

// Clients are the clients that are connected and can be called.
func (s *Server) Clients() Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	var nodes []*Node
	for _, node := range s.clients {
		nodes = append(nodes, node)
	}
	return sorted(nodes)
}

// WaitFor waits until so many are there.
func (s *Server) WaitFor(ctx context.Context, count int, config func() Config) (Config, error) {
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		if now := config(); len(now) >= count {
			return now, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
}

// ParsePeers reads 1=host:port,2=host:port.
func ParsePeers(text string) (map[uint32]string, error) {
	peers := make(map[uint32]string)
	if text == "" {
		return peers, nil
	}
	for _, peer := range strings.Split(text, ",") {
		number, address, found := strings.Cut(peer, "=")
		id, err := strconv.ParseUint(number, 10, 32)
		if !found || err != nil || id == 0 {
			return nil, fmt.Errorf("%q is no peer: write 1=host:port,2=host:port", peer)
		}
		if peers[uint32(id)] != "" {
			return nil, fmt.Errorf("there are two peers %d", id)
		}
		peers[uint32(id)] = address
	}
	return peers, nil
}
