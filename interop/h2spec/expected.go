package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/summerwind/h2spec/spec"
)

// What may become of a case.
const (
	passed  = "passes"
	failed  = "fails"
	skipped = "is skipped"
	// It depends on which of two is quicker.
	either = "passes or fails"
)

// expected are the cases that do not pass, by their names there, and what becomes of them.
type expected map[string]string

// readExpected reads the rows `| h2spec NAME | fails | why |` out of a page.
func readExpected(page string) (expected, error) {
	found := make(expected)
	for number, line := range strings.Split(page, "\n") {
		row, is := strings.CutPrefix(line, "| h2spec ")
		if !is {
			continue
		}
		cells := strings.Split(strings.TrimSuffix(strings.TrimSpace(row), "|"), "|")
		if len(cells) != 3 {
			return nil, fmt.Errorf("line %d has not the three cells: case, what becomes of it, and why", number+1)
		}
		name, outcome, why := strings.TrimSpace(cells[0]), strings.TrimSpace(cells[1]), strings.TrimSpace(cells[2])
		if outcome != failed && outcome != skipped && outcome != either {
			return nil, fmt.Errorf("line %d: what becomes of %s is %q, which is none of %q, %q and %q", number+1, name, outcome, failed, skipped, either)
		}
		if why == "" {
			return nil, fmt.Errorf("line %d: it does not say why %s is not passed", number+1, name)
		}
		if found[name] != "" {
			return nil, fmt.Errorf("line %d: %s is there twice", number+1, name)
		}
		found[name] = outcome
	}
	return found, nil
}

// check fails where a case is expected that does not exist.
func (e expected) check(chapters []chapter) error {
	known := make(map[string]bool)
	for _, chapter := range chapters {
		for _, test := range chapter.all {
			known[test.id] = true
		}
	}
	for name := range e {
		if !known[name] {
			return fmt.Errorf("h2spec has no case %s", name)
		}
	}
	return nil
}

// isClosed is whether a connection that was to be closed was reset, which is one way of closing it: that of a system that is closed
// upon what it has not read. h2spec knows it by an error that Go has wrapped in another one since.
func isClosed(mismatch *spec.TestError) bool {
	closed := spec.ConnectionClosedEvent{}.String()
	return slices.Contains(mismatch.Expected, closed) && strings.Contains(mismatch.Actual, syscall.ECONNRESET.Error())
}

// judge says what is wrong with what became of a case; nothing, where it is what the table says.
func (e expected) judge(test *numbered, found error) string {
	outcome, detail := passed, ""
	var mismatch *spec.TestError
	switch {
	case errors.Is(found, spec.ErrSkipped):
		outcome = skipped
	case errors.As(found, &mismatch) && isClosed(mismatch):
	case errors.As(found, &mismatch):
		outcome = failed
		detail = fmt.Sprintf(" (expected: %s; actual: %s)", strings.Join(mismatch.Expected, ", or "), mismatch.Actual)
	case found != nil:
		outcome, detail = failed, fmt.Sprintf(" (%v)", found)
	}
	want := e[test.id]
	if want == "" {
		want = passed
	}
	if outcome == want || want == either && outcome != skipped {
		return ""
	}
	about := fmt.Sprintf("h2spec %s, %s: it %s%s", test.id, test.Desc, outcome, detail)
	if want == passed {
		return about + ", and should pass, or be in the table with a reason"
	}
	return about + ", and the table says that it " + want
}
