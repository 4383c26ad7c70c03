package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/summerwind/h2spec/spec"
)

const page = `# A page

| case | what becomes of it | why |
|---|---|---|
| h2spec a/1/1 | fails | it is wrong |
| h2spec a/1/2 | is skipped | it has nothing to ask |
| h2spec a/1/3 | passes or fails | a race |
| R8-001 | another | table |
`

func TestCasesAreJudgedByTheTable(t *testing.T) {
	expected, err := readExpected(page)
	if err != nil {
		t.Fatal(err)
	}
	wrong := &spec.TestError{Expected: []string{"DATA frame"}, Actual: "Timeout"}
	reset := &spec.TestError{
		Expected: []string{"GOAWAY Frame", spec.ConnectionClosedEvent{}.String()},
		Actual:   "Error: read tcp: connection reset by peer",
	}
	for _, test := range []struct {
		id    string
		found error
		says  string
	}{
		{"a/1/0", nil, ""},
		{"a/1/0", reset, ""},
		{"a/1/0", wrong, "it fails (expected: DATA frame; actual: Timeout), and should pass"},
		{"a/1/0", errors.New("no server"), "it fails (no server), and should pass"},
		{"a/1/0", spec.ErrSkipped, "it is skipped, and should pass"},
		{"a/1/1", wrong, ""},
		{"a/1/1", nil, "it passes, and the table says that it fails"},
		{"a/1/1", spec.ErrSkipped, "it is skipped, and the table says that it fails"},
		{"a/1/2", spec.ErrSkipped, ""},
		{"a/1/2", nil, "it passes, and the table says that it is skipped"},
		{"a/1/3", nil, ""},
		{"a/1/3", wrong, ""},
		{"a/1/3", spec.ErrSkipped, "it is skipped, and the table says that it passes or fails"},
	} {
		got := expected.judge(&numbered{id: test.id, TestCase: &spec.TestCase{}}, test.found)
		if test.says == "" && got != "" || !strings.Contains(got, test.says) {
			t.Errorf("%s with %v: %q", test.id, test.found, got)
		}
	}
}

func TestMistakesInTheTableAreNamed(t *testing.T) {
	for row, says := range map[string]string{
		"| h2spec a/1/1 | fails |":                "three cells",
		"| h2spec a/1/1 | broken | because |":     "none of",
		"| h2spec a/1/1 | fails |  |":             "does not say why",
		"| h2spec a/1/3 | fails | another one |":  "twice",
		"| h2spec a/1/1 | fails | one | of two |": "three cells",
	} {
		_, err := readExpected(page + row + "\n")
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", row, err)
		}
	}
}

func TestEachRowIsOfACaseThatExists(t *testing.T) {
	count := 0
	names := make(map[string]bool)
	for _, chapter := range chapters() {
		for _, test := range chapter.all {
			names[test.id] = true
			count++
		}
	}
	if len(names) != count {
		t.Errorf("%d cases have %d names", count, len(names))
	}
	if err := (expected{"http2/5.1/1": failed}).check(chapters()); err != nil {
		t.Error(err)
	}
	if (expected{"http2/5.1/999": failed}).check(chapters()) == nil {
		t.Error("a case that does not exist was taken")
	}
	t.Logf("%d cases", count)
}
