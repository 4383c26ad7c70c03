package cases

import (
	"context"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"interop/internal/pb"
	"interop/internal/peer"
)

// What a flood has: more than all windows and bounds hold.
const flood = 60_000

// block has a handler of the server hold its turn, and returns what ends that.
func (r *R) block(config peer.Config, server *Process) (unblock func()) {
	blocked := config.Call(r, hold, &pb.HoldRequest{Data: data(0)})
	other := r.connect(&peer.Client{}, server)
	r.inspect(other[0], 1)
	return func() {
		r.Must(other[0].Unicast(r, open, data(0)), "opening")
		_, err := blocked.All()
		r.Must(err, "the call that blocked")
	}
}

func blockedMulticasts(r *R) {
	server := r.Start()
	config := r.connect(&peer.Client{}, server)
	unblock := r.block(config, server)
	var written atomic.Int64
	done := make(chan error, 1)
	go func() {
		for number := range uint64(flood) {
			if err := config.Multicast(r, noteAll, &pb.Data{Number: number + 1, Bytes: make([]byte, 200)}); err != nil {
				done <- err
				return
			}
			written.Add(1)
		}
		done <- nil
	}()
	// Flow control holds the flood up, or it is all on its way.
	for before := int64(-1); before != written.Load(); time.Sleep(200 * time.Millisecond) {
		before = written.Load()
	}
	r.Check(written.Load() < flood, "a blocked handler holds up nobody")
	unblock()
	r.Must(<-done, "the flood")
	r.noted(config[0], upTo(flood+1))
	r.Check(config[0].Streams() == 1, "the connection broke")
}

func blockedCalls(r *R) {
	server := r.Start()
	config := r.connect(&peer.Client{}, server)
	unblock := r.block(config, server)
	var calls []*peer.Call
	for number := range uint64(3000) {
		calls = append(calls, config.Call(r, echo, data(number+1)))
	}
	unblock()
	for _, call := range calls {
		_, err := call.All()
		r.Must(err, "one of the calls in flight")
	}
	r.noted(config[0], upTo(3001))
	r.Check(config[0].Streams() == 1, "the connection broke")
}

func cancelledStream(r *R) {
	server := r.Start()
	witness := r.connect(&peer.Client{}, server)
	for round := range uint64(5) {
		// The client ends with RST_STREAM(CANCEL), while the server owes it answers.
		config := r.connect(&peer.Client{}, server)
		for i := range uint64(10) {
			config.Call(r, hold, &pb.HoldRequest{Data: data(round*10 + i), Release: true})
		}
		r.inspect(witness[0], (round+1)*10)
		config.Close()
		var seen pb.Seen
		request := &pb.InspectRequest{Cancelled: (round + 1) * 10}
		r.Must(witness[0].RPC(r, inspect, request, &seen), "what the server has seen")
		r.echoBeside(witness[0], round)
	}
	r.Check(witness[0].Streams() == 1, "the connection of another client broke")
}

// echoBeside calls without a note that a case would have to count: the method is unknown.
func (r *R) echoBeside(node *peer.Node, number uint64) {
	err := node.RPC(r, "interop.Interop.None", data(number), &pb.Data{})
	r.Check(status.Code(err) == codes.Unimplemented, "the server does not go on: %v", err)
}

func killedClient(r *R) {
	server := r.Start()
	witness := r.connect(&peer.Client{}, server)
	itself, err := os.Executable()
	r.Must(err, "this program")
	for range 5 {
		before := uint64(len(r.inspect(witness[0], 0).Numbers))
		client := r.startProgram(itself, append([]string{"flood", "--server", server.Address}, r.Secrets().Args()...)...)
		r.inspect(witness[0], before+500)
		client.Kill()
		r.echo(witness[0], 0)
	}
	r.Check(witness[0].Streams() == 1, "the connection of another client broke")
}

func killedServer(r *R) {
	servers, config := r.three()
	ctx, cancel := context.WithCancel(r)
	var traffic sync.WaitGroup
	var majorities, all, lost atomic.Int64
	wrong := make(chan error, 8)
	for worker := range uint64(4) {
		traffic.Add(1)
		go func() {
			defer traffic.Done()
			for number := worker << 32; ctx.Err() == nil; number++ {
				replies, err := config.Call(r, echoAll, data(number)).Majority()
				if err != nil {
					wrong <- err
					return
				}
				majorities.Add(1)
				for _, reply := range replies {
					var got pb.Data
					if err := reply.Into(&got); err != nil || got.Number != number {
						wrong <- status.Errorf(codes.Internal, "expected %d, got %d (%v)", number, got.Number, err)
						return
					}
				}
				if _, err := config.Call(r, echoAll, data(number)).All(); err != nil {
					lost.Add(1)
				} else {
					all.Add(1)
				}
			}
		}()
	}
	reaches := func(counter *atomic.Int64, more int64, what string) {
		for target := counter.Load() + more; counter.Load() < target; time.Sleep(time.Millisecond) {
			select {
			case err := <-wrong:
				r.Must(err, what)
			case <-r.Done():
				r.Fail("%s: it takes too long", what)
			default:
			}
		}
	}
	for i, server := range servers {
		reaches(&all, 100, "all servers answer")
		server.Kill()
		reaches(&lost, 5, "calls of all fail while one is down")
		reaches(&majorities, 100, "majorities go on while one is down")
		servers[i] = r.Start("--listen", server.Address)
	}
	reaches(&all, 100, "all servers answer again")
	cancel()
	traffic.Wait()
	r.Check(len(wrong) == 0, "a majority failed")
	for _, node := range config {
		r.Check(node.Streams() > 1, "there was no second stream to a server that was restarted")
	}
}

// callers is this client as a server sees it.
type callers struct {
	*peer.Handlers
	mu      sync.Mutex
	noted   []uint64
	blocked chan struct{}
	changed chan struct{}
}

func (c *callers) note(number uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.noted = append(c.noted, number)
	close(c.changed)
	c.changed = make(chan struct{})
}

// has waits until so many were noted, and returns them.
func (c *callers) has(r *R, count int) []uint64 {
	for {
		c.mu.Lock()
		noted, changed := slices.Clone(c.noted), c.changed
		c.mu.Unlock()
		if len(noted) >= count {
			return noted
		}
		select {
		case <-changed:
		case <-r.Done():
			r.Fail("%d of %d notes of the server came", len(noted), count)
		}
	}
}

func newCallers() *callers {
	c := &callers{Handlers: peer.NewHandlers(), blocked: make(chan struct{}), changed: make(chan struct{})}
	close(c.blocked)
	peer.Unary(c.Handlers, echoAll, func(_ *peer.Request, request *pb.Data) (*pb.Data, error) { return request, nil })
	peer.OneWay(c.Handlers, noteAll, func(_ *peer.Request, request *pb.Data) {
		<-c.blocked
		c.note(request.Number)
	})
	return c
}
