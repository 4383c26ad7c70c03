package main

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestAsManyCallsAreInFlightAsAskedAndNoMore(t *testing.T) {
	var now, most atomic.Int64
	all := make(chan struct{})
	call := func(context.Context) (int, error) {
		count := now.Add(1)
		defer now.Add(-1)
		if most.Load() < count {
			most.Store(count)
		}
		if count == 7 {
			select {
			case <-all:
			default:
				close(all)
			}
		}
		<-all
		return 0, nil
	}
	run, err := newCallers(call, options{inFlight: 7}).run(50 * time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if most.Load() != 7 || run.histogram.TotalCount() < 7 {
		t.Errorf("%d in flight, %d calls", most.Load(), run.histogram.TotalCount())
	}
}

func TestACallThatFailsEndsTheRun(t *testing.T) {
	call := func(context.Context) (int, error) { return 0, errors.New("no") }
	_, err := newCallers(call, options{inFlight: 3}).run(time.Hour)
	if err == nil || !strings.Contains(err.Error(), "no") {
		t.Error(err)
	}
}

func TestAReplyOfAnotherLengthIsAFailure(t *testing.T) {
	call := func(context.Context) (int, error) { return 3, nil }
	_, err := newCallers(call, options{inFlight: 1, payload: 4}).run(time.Hour)
	if err == nil || !strings.Contains(err.Error(), "3 bytes came back of 4") {
		t.Error(err)
	}
}

func TestTheLibraryCallsItsServers(t *testing.T) {
	for _, payload := range []int{0, 100} {
		o := options{nodes: 3, quorum: 2, inFlight: 4, payload: payload, duration: 50 * time.Millisecond}
		result, err := measure(o)
		if err != nil {
			t.Fatal(err)
		}
		if result.Calls < 4 || result.Latency.P50 <= 0 || result.Latency.Max < result.Latency.P99 {
			t.Errorf("%+v", result)
		}
	}
}

func TestWhatIsLeftOfWhatRanIsThatOfOthers(t *testing.T) {
	start := time.Now()
	before := &activity{at: start, running: time.Second}
	after := &activity{at: start.Add(time.Second), running: 2 * time.Second}
	others := after.others(before, int64(time.Second))
	if others == nil || *others != 0 {
		t.Error("all of it was our own", others)
	}
	if others = after.others(before, 0); others == nil || *others <= 0 {
		t.Error("none of it was our own", others)
	}
	if after.others(nil, 0) != nil {
		t.Error("nobody knows what was before")
	}
}

func TestWrongOptionsAreNamed(t *testing.T) {
	right := options{nodes: 3, quorum: 2, inFlight: 1, duration: time.Second}
	for part, change := range map[string]func(*options){
		"-nodes":          func(o *options) { o.nodes = 0 },
		"-quorum":         func(o *options) { o.quorum = 4 },
		"-in-flight":      func(o *options) { o.inFlight = 0 },
		"-payload":        func(o *options) { o.payload = -1 },
		"-duration":       func(o *options) { o.duration = 0 },
		"-server-program": func(o *options) { o.serverProgram = "x" },
	} {
		wrong := right
		change(&wrong)
		if err := measureAndPrint(wrong); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %v", part, err)
		}
	}
}

func TestAServerDoesWhatItIsToldAndRefusesTheRest(t *testing.T) {
	for _, kind := range []string{"--library", "--child"} {
		var output strings.Builder
		err := serve([]string{kind}, strings.NewReader("serve 0\nusage\n"), &output)
		lines := strings.Split(output.String(), "\n")
		if err != nil || !strings.HasPrefix(lines[0], "listening ") || lines[1] != "serving" || !strings.Contains(lines[2], "cpu_ns") {
			t.Errorf("%s: %v %q", kind, err, lines)
		}
		if err := serve([]string{kind}, strings.NewReader("sing\n"), &output); err == nil {
			t.Error("it sang")
		}
	}
}
