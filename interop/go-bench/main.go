// Measures quorum calls of the Go library, with the library's own benchmark service: how many, how fast, and at what cost.
//
// It is the other side of `cargo xtask bench-compare`. The load is a bounded window: so many callers, each of which makes its
// next call when the last one has returned. One result is printed, as JSON; what goes wrong goes to standard error.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"time"
)

// options say what is measured.
type options struct {
	nodes     int
	quorum    int
	inFlight  int
	payload   int
	duration  time.Duration
	warmUp    time.Duration
	processes bool
	// The present protocol by interop/go, in place of the library.
	peer          bool
	serverProgram string
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		exit(serve(os.Args[2:], os.Stdin, os.Stdout))
	}
	var o options
	flag.IntVar(&o.nodes, "nodes", 3, "number of servers")
	flag.IntVar(&o.quorum, "quorum", 0, "replies that a call waits for (default: a majority)")
	flag.IntVar(&o.inFlight, "in-flight", 100, "calls in flight: never more, and never fewer while it measures")
	flag.IntVar(&o.payload, "payload", 0, "bytes of each request and of each reply")
	flag.DurationVar(&o.duration, "duration", 5*time.Second, "how long to measure")
	flag.DurationVar(&o.warmUp, "warm-up", time.Second, "how long to make the same calls before that")
	flag.BoolVar(&o.processes, "processes", false, "each server in a process of its own")
	flag.BoolVar(&o.peer, "peer", false, "the present protocol on grpc-go (interop/go) in place of the library, each server in a process of its own")
	flag.StringVar(&o.serverProgram, "server-program", "", "with -peer: servers of another program, gorums-bench")
	flag.Parse()
	exit(measureAndPrint(o))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "go-bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func measureAndPrint(o options) error {
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	o.processes = o.processes || o.peer
	if o.quorum == 0 {
		o.quorum = o.nodes/2 + 1
	}
	switch {
	case o.nodes < 1:
		return fmt.Errorf("-nodes must be at least 1")
	case o.quorum < 1 || o.quorum > o.nodes:
		return fmt.Errorf("-quorum must be between 1 and -nodes (%d)", o.nodes)
	case o.inFlight < 1:
		return fmt.Errorf("-in-flight must be at least 1")
	case o.serverProgram != "" && !o.peer:
		return fmt.Errorf("-server-program needs -peer: the library speaks an older protocol")
	case o.payload < 0:
		return fmt.Errorf("-payload must not be negative")
	case o.duration <= 0 || o.warmUp < 0:
		return fmt.Errorf("-duration must be positive, and -warm-up must not be negative")
	}
	result, err := measure(o)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

// versions tell what is measured.
func versions() map[string]string {
	found := map[string]string{"go": runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			switch dep.Path {
			case "github.com/relab/gorums", "google.golang.org/grpc":
				found[dep.Path] = dep.Version
			}
		}
	}
	return found
}
