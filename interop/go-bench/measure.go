package main

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/relab/gorums"
	"github.com/relab/gorums/benchmark"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// The longest latency that is told apart from longer ones.
const longest = int64(time.Hour)

// result is what was measured. The names and units are those of gorums-bench.
type result struct {
	Calls          uint64  `json:"calls"`
	Seconds        float64 `json:"seconds"`
	CallsPerSecond float64 `json:"calls_per_second"`
	Latency        latency `json:"latency_us"`
	// Microseconds of the processor for each call: of everything, and where servers have processes of their own, of either side.
	CPU       float64  `json:"cpu_us_per_call"`
	ClientCPU *float64 `json:"client_cpu_us_per_call"`
	ServerCPU *float64 `json:"server_cpu_us_per_call"`
	// What this process allocated for each call: the client, and the servers where they are in it.
	Allocations    float64 `json:"allocations_per_call"`
	AllocatedBytes float64 `json:"allocated_bytes_per_call"`
	ClientPeak     uint64  `json:"client_peak_bytes"`
	ServerPeak     *uint64 `json:"server_peak_bytes"`
	// The part of the machine that others used meanwhile, where that is known, and whether it was too much.
	Others   *float64          `json:"others_cpu"`
	Busy     bool              `json:"busy"`
	Versions map[string]string `json:"versions"`
}

// latency has microseconds.
type latency struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99_9"`
	Max  float64 `json:"max"`
}

func measure(o options) (*result, error) {
	servers, err := startServers(o)
	if err != nil {
		return nil, err
	}
	defer servers.stop()

	connect := libraryCalls
	if o.peer {
		connect = peerCalls
	}
	call, disconnect, err := connect(servers.addresses, o)
	if err != nil {
		return nil, fmt.Errorf("the configuration: %w", err)
	}
	defer disconnect()
	callers := newCallers(call, o)
	if _, err := callers.run(o.warmUp); err != nil {
		return nil, fmt.Errorf("while warming up: %w", err)
	}

	runtime.GC()
	var before, after runtime.MemStats
	serversBefore, err := servers.usage()
	if err != nil {
		return nil, err
	}
	runtime.ReadMemStats(&before)
	machineBefore := machineActivity()
	clientBefore := ownUsage()
	run, err := callers.run(o.duration)
	if err != nil {
		return nil, err
	}
	clientAfter := ownUsage()
	machineAfter := machineActivity()
	runtime.ReadMemStats(&after)
	serversAfter, err := servers.usage()
	if err != nil {
		return nil, err
	}
	if run.histogram.TotalCount() == 0 {
		return nil, fmt.Errorf("no call returned within %v", o.duration)
	}

	calls := float64(run.histogram.TotalCount())
	micros := func(nanos int64) float64 { return float64(nanos) / 1e3 }
	client := micros(clientAfter.CPU-clientBefore.CPU) / calls
	r := &result{
		Calls:          uint64(calls),
		Seconds:        run.elapsed.Seconds(),
		CallsPerSecond: calls / run.elapsed.Seconds(),
		Latency: latency{
			Mean: run.histogram.Mean() / 1e3,
			P50:  micros(run.histogram.ValueAtPercentile(50)),
			P90:  micros(run.histogram.ValueAtPercentile(90)),
			P99:  micros(run.histogram.ValueAtPercentile(99)),
			P999: micros(run.histogram.ValueAtPercentile(99.9)),
			Max:  micros(run.histogram.Max()),
		},
		CPU:            client,
		Allocations:    float64(after.Mallocs-before.Mallocs) / calls,
		AllocatedBytes: float64(after.TotalAlloc-before.TotalAlloc) / calls,
		ClientPeak:     clientAfter.Peak,
		Versions:       versions(),
	}
	r.Others = machineAfter.others(machineBefore, clientAfter.CPU-clientBefore.CPU+serversAfter.CPU-serversBefore.CPU)
	r.Busy = r.Others != nil && *r.Others > busy
	if o.processes {
		server := micros(serversAfter.CPU-serversBefore.CPU) / calls
		r.CPU += server
		r.ClientCPU, r.ServerCPU = &client, &server
		r.ServerPeak = &serversAfter.Peak
	}
	return r, nil
}

// quorumCaller makes a quorum call, and returns how many bytes the first reply has.
type quorumCaller func(context.Context) (int, error)

// libraryCalls makes quorum calls of the Go library.
func libraryCalls(addresses []string, o options) (quorumCaller, func(), error) {
	manager := benchmark.NewManager(gorums.WithDialOptions(grpc.WithTransportCredentials(insecure.NewCredentials())))
	disconnect := func() { _ = manager.Close() }
	config, err := benchmark.NewConfiguration(manager, gorums.WithNodeList(addresses))
	if err != nil {
		disconnect()
		return nil, nil, err
	}
	request := benchmark.Echo_builder{Payload: make([]byte, o.payload)}.Build()
	call := func(ctx context.Context) (int, error) {
		reply, err := benchmark.QuorumCall(config.Context(ctx), request).Threshold(o.quorum)
		return len(reply.GetPayload()), err
	}
	return call, disconnect, nil
}

// callers make the calls: each makes its next one when the last has returned, so that their number bounds what is in flight.
type callers struct {
	quorumCall quorumCaller
	options    options
	// One for each caller, so that none waits for another.
	histograms []*hdrhistogram.Histogram
}

type run struct {
	histogram *hdrhistogram.Histogram
	elapsed   time.Duration
}

func newCallers(call quorumCaller, o options) *callers {
	c := &callers{quorumCall: call, options: o}
	for range o.inFlight {
		c.histograms = append(c.histograms, hdrhistogram.New(1, longest, 3))
	}
	return c
}

// run makes calls for so long. Those that have begun then are waited for, and count.
func (c *callers) run(duration time.Duration) (*run, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var all sync.WaitGroup
	var once sync.Once
	var failure error
	start := time.Now()
	end := start.Add(duration)
	for _, histogram := range c.histograms {
		histogram.Reset()
		all.Add(1)
		go func() {
			defer all.Done()
			if err := c.call(ctx, end, histogram); err != nil {
				once.Do(func() { failure = err })
				cancel()
			}
		}()
	}
	all.Wait()
	elapsed := time.Since(start)
	if failure != nil {
		return nil, fmt.Errorf("a call failed: %w", failure)
	}
	total := hdrhistogram.New(1, longest, 3)
	for _, histogram := range c.histograms {
		if dropped := total.Merge(histogram); dropped > 0 {
			return nil, fmt.Errorf("%d calls took longer than %v", dropped, time.Duration(longest))
		}
	}
	return &run{histogram: total, elapsed: elapsed}, nil
}

func (c *callers) call(ctx context.Context, end time.Time, histogram *hdrhistogram.Histogram) error {
	for now := time.Now(); now.Before(end); {
		size, err := c.quorumCall(ctx)
		if err != nil {
			return err
		}
		if size != c.options.payload {
			return fmt.Errorf("%d bytes came back of %d", size, c.options.payload)
		}
		done := time.Now()
		if err := histogram.RecordValue(max(1, done.Sub(now).Nanoseconds())); err != nil {
			return err
		}
		now = done
	}
	return nil
}
