package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/summerwind/h2spec/spec"
)

// complaint says what is wrong with what became of a case. Nothing is where it has passed, and nothing else is excused: not that it
// found nothing to ask, and not that it could not connect, has panicked or has not ended.
func complaint(found error) string {
	var mismatch *spec.TestError
	switch {
	case found == nil:
		return ""
	case errors.Is(found, spec.ErrSkipped):
		return "it is skipped"
	case errors.As(found, &mismatch) && isClosed(mismatch):
		return ""
	case errors.As(found, &mismatch):
		return fmt.Sprintf("it expected %s, and had %s", strings.Join(mismatch.Expected, ", or "), mismatch.Actual)
	default:
		return found.Error()
	}
}

// isClosed is whether a connection that was to be closed was reset, which is one way of closing it: that of a system that is closed
// upon what it has not read. h2spec knows it by an error that Go has wrapped in another one since.
func isClosed(mismatch *spec.TestError) bool {
	closed := spec.ConnectionClosedEvent{}.String()
	return slices.Contains(mismatch.Expected, closed) && strings.Contains(mismatch.Actual, syscall.ECONNRESET.Error())
}
