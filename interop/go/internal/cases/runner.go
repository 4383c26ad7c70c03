// Package cases runs cases against servers of ours, and has those of a Go client.
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

	"interop/internal/secrets"
)

// So long may a case take.
const deadline = 60 * time.Second

// Case is one case. It fails by failing the run that it is given.
type Case struct {
	Name string
	Do   func(*R)
}

// Servers are those that cases start.
type Servers struct {
	// Our program.
	Program string
	// The folder with their certificates and the client's, which `cargo xtask certs` made; empty without TLS.
	Certs string
}

// Run runs the cases of a group whose name has one of the parts in it, against servers of ours. Whether all passed.
func Run(group string, cases []Case, servers Servers, list bool, parts []string) bool {
	ran, passed := 0, true
	for _, c := range cases {
		name := group + "/" + c.Name
		if !chosen(name, parts) {
			continue
		}
		ran++
		if list {
			fmt.Println(name)
			continue
		}
		start := time.Now()
		err := runOne(servers, c)
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

func runOne(servers Servers, c Case) error {
	// A case that hangs says where, and ends this program: those that did not run have failed.
	watchdog := time.AfterFunc(deadline, func() {
		stacks := make([]byte, 1<<20)
		fmt.Fprintf(os.Stderr, "%s takes more than %v:\n%s\n", c.Name, deadline, stacks[:runtime.Stack(stacks, true)])
		os.Exit(1)
	})
	defer watchdog.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), deadline/2)
	defer cancel()
	r := &R{Context: ctx, servers: servers}
	defer r.end()
	return r.protect(c.Do)
}

// R is one case that runs. What it starts ends with it.
type R struct {
	context.Context
	servers Servers
	ends    []func()
}

// failure is what a case fails with.
type failure struct{ error }

func (r *R) protect(do func(*R)) (err error) {
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

// OnEnd is done when the case has ended, the last first.
func (r *R) OnEnd(do func()) { r.ends = append(r.ends, do) }

func (r *R) end() {
	for i := len(r.ends) - 1; i >= 0; i-- {
		r.ends[i]()
	}
}

// Fail ends the case.
func (r *R) Fail(format string, args ...any) {
	panic(failure{fmt.Errorf(format, args...)})
}

// Must ends the case with an error, if there is one.
func (r *R) Must(err error, what string) {
	if err != nil {
		r.Fail("%s: %w", what, err)
	}
}

// Check ends the case unless something holds.
func (r *R) Check(holds bool, format string, args ...any) {
	if !holds {
		r.Fail(format, args...)
	}
}

// Process is a server of ours.
type Process struct {
	command *exec.Cmd
	input   io.Closer
	Address string
}

// Start starts a server with these arguments, which has the certificate of node 1 where there are any.
func (r *R) Start(args ...string) *Process {
	return r.StartAs(r.NodeSecrets(), args...)
}

// StartAs starts one with these certificates.
func (r *R) StartAs(files secrets.Files, args ...string) *Process {
	args = append(files.Args(), args...)
	return r.startProgram(r.servers.Program, append([]string{"serve"}, args...)...)
}

// NodeSecrets are those of a server that has no other ones.
func (r *R) NodeSecrets() secrets.Files { return secrets.InFolder(r.servers.Certs, "node-1") }

// Secrets are those of the client.
func (r *R) Secrets() secrets.Files { return secrets.InFolder(r.servers.Certs, "client") }

func (r *R) startProgram(program string, args ...string) *Process {
	command := exec.Command(program, args...)
	command.Stderr = os.Stderr
	input, err := command.StdinPipe()
	r.Must(err, "a pipe")
	output, err := command.StdoutPipe()
	r.Must(err, "a pipe")
	r.Must(command.Start(), "starting a server")
	p := &Process{command: command, input: input}
	r.ends = append(r.ends, p.Kill)
	line, err := bufio.NewReader(output).ReadString('\n')
	address, found := strings.CutPrefix(strings.TrimSpace(line), "listening ")
	r.Check(err == nil && found, "%s does not say where it listens: %q (%v)", program, line, err)
	p.Address = address
	return p
}

// Kill ends it without a word.
func (p *Process) Kill() {
	_ = p.command.Process.Kill()
	// Killed, or it had ended before.
	var ended *exec.ExitError
	if err := p.command.Wait(); err != nil && !errors.As(err, &ended) {
		return
	}
}

// pause stops it, until it is told to go on.
func (r *R) pause(p *Process) {
	r.Must(p.command.Process.Signal(syscall.SIGSTOP), "pausing a server")
}

func (r *R) resume(p *Process) {
	r.Must(p.command.Process.Signal(syscall.SIGCONT), "resuming a server")
}
