package main

import (
	"errors"
	"fmt"
	"testing"

	"github.com/summerwind/h2spec/spec"
)

func TestOnlyWhatPassesIsRight(t *testing.T) {
	closed := spec.ConnectionClosedEvent{}.String()
	reset := "Error: read tcp: connection reset by peer"
	for _, test := range []struct {
		found error
		says  string
	}{
		{nil, ""},
		{&spec.TestError{Expected: []string{"GOAWAY Frame", closed}, Actual: reset}, ""},
		{&spec.TestError{Expected: []string{"GOAWAY Frame"}, Actual: reset}, "it expected GOAWAY Frame, and had " + reset},
		{&spec.TestError{Expected: []string{"DATA frame", closed}, Actual: "Timeout"}, "it expected DATA frame, or " + closed + ", and had Timeout"},
		{spec.ErrSkipped, "it is skipped"},
		{fmt.Errorf("connecting: %w", errors.New("no server")), "connecting: no server"},
	} {
		if got := complaint(test.found); got != test.says {
			t.Errorf("%v: %q", test.found, got)
		}
	}
}

func TestEachCaseHasANameOfItsOwn(t *testing.T) {
	count := 0
	names := make(map[string]bool)
	for _, chapter := range chapters() {
		for _, test := range chapter.all {
			names[test.id] = true
			count++
		}
	}
	if len(names) != count || count != 147 {
		t.Errorf("%d cases have %d names, and docs/conformance.md tells of 147", count, len(names))
	}
	for name := range ofBytes {
		if !names[name] {
			t.Errorf("there is no case %s", name)
		}
	}
	if !names[largeHeaders] {
		t.Errorf("there is no case %s", largeHeaders)
	}
}
