// Package cases has the cases of a Go client against servers of ours.
package cases

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// So long may a case take.
const deadline = 60 * time.Second

// testCase is one case. It fails with an error, or by failing the run that it is given.
type testCase struct {
	name string
	run  func(*run)
}

// Run runs the cases whose name has one of the parts in it, against the program of ours. Whether all passed.
func Run(server string, list bool, parts []string) bool {
	ran, passed := 0, true
	for _, c := range all {
		name := "go-client/" + c.name
		if !chosen(name, parts) {
			continue
		}
		ran++
		if list {
			fmt.Println(name)
			continue
		}
		start := time.Now()
		err := runOne(server, c)
		millis := time.Since(start).Milliseconds()
		if err == nil {
			fmt.Printf("case %s ok %d\n", name, millis)
		} else {
			passed = false
			fmt.Printf("case %s FAILED %d %s\n", name, millis, strings.ReplaceAll(err.Error(), "\n", "\\n"))
		}
	}
	return list || ran > 0 && passed
}

func chosen(name string, parts []string) bool {
	for _, part := range parts {
		if strings.Contains(name, part) {
			return true
		}
	}
	return len(parts) == 0
}

func runOne(server string, c testCase) error {
	// A case that hangs says where, and ends this program: those that did not run have failed.
	watchdog := time.AfterFunc(deadline, func() {
		stacks := make([]byte, 1<<20)
		fmt.Fprintf(os.Stderr, "%s takes more than %v:\n%s\n", c.name, deadline, stacks[:runtime.Stack(stacks, true)])
		os.Exit(1)
	})
	defer watchdog.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), deadline/2)
	defer cancel()
	r := &run{Context: ctx, program: server}
	defer r.end()
	return r.protect(c.run)
}

// run is one case that runs. What it starts ends with it.
type run struct {
	context.Context
	program string
	ends    []func()
}

// failure is what a case fails with.
type failure struct{ error }

func (r *run) protect(do func(*run)) (err error) {
	defer func() {
		if value := recover(); value != nil {
			failed, ok := value.(failure)
			if !ok {
				panic(value)
			}
			err = failed.error
		}
	}()
	do(r)
	return nil
}

func (r *run) end() {
	for i := len(r.ends) - 1; i >= 0; i-- {
		r.ends[i]()
	}
}

// fail ends the case.
func (r *run) fail(format string, args ...any) {
	panic(failure{fmt.Errorf(format, args...)})
}

// must ends the case with an error, if there is one.
func (r *run) must(err error, what string) {
	if err != nil {
		r.fail("%s: %w", what, err)
	}
}

// check ends the case unless something holds.
func (r *run) check(holds bool, format string, args ...any) {
	if !holds {
		r.fail(format, args...)
	}
}

// process is a server of ours.
type process struct {
	command *exec.Cmd
	input   io.Closer
	address string
}

// start starts a server with these arguments.
func (r *run) start(args ...string) *process {
	return r.startProgram(r.program, append([]string{"serve"}, args...)...)
}

func (r *run) startProgram(program string, args ...string) *process {
	command := exec.Command(program, args...)
	command.Stderr = os.Stderr
	input, err := command.StdinPipe()
	r.must(err, "a pipe")
	output, err := command.StdoutPipe()
	r.must(err, "a pipe")
	r.must(command.Start(), "starting a server")
	p := &process{command: command, input: input}
	r.ends = append(r.ends, p.kill)
	line, err := bufio.NewReader(output).ReadString('\n')
	address, found := strings.CutPrefix(strings.TrimSpace(line), "listening ")
	r.check(err == nil && found, "%s does not say where it listens: %q (%v)", program, line, err)
	p.address = address
	return p
}

// kill ends it without a word.
func (p *process) kill() {
	_ = p.command.Process.Kill()
	// Killed, or it had ended before.
	var ended *exec.ExitError
	if err := p.command.Wait(); err != nil && !errors.As(err, &ended) {
		return
	}
}

// pause stops it, until it is told to go on.
func (r *run) pause(p *process) {
	r.must(p.command.Process.Signal(syscall.SIGSTOP), "pausing a server")
}

func (r *run) resume(p *process) {
	r.must(p.command.Process.Signal(syscall.SIGCONT), "resuming a server")
}
