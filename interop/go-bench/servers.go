package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/relab/gorums/benchmark"
)

// servers are in this process, or in processes of their own.
type servers struct {
	addresses []string
	local     []*benchmark.Server
	children  []*child
}

func startServers(o options) (*servers, error) {
	s := &servers{}
	for range o.nodes {
		var address string
		var err error
		if o.processes {
			address, err = s.startChild(o)
		} else {
			address, err = s.startLocal()
		}
		if err != nil {
			s.stop()
			return nil, err
		}
		s.addresses = append(s.addresses, address)
	}
	return s, nil
}

func (s *servers) startLocal() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	server := benchmark.NewBenchServer()
	go func() { _ = server.Serve(listener) }()
	s.local = append(s.local, server)
	return listener.Addr().String(), nil
}

// usage is what all servers with processes of their own have used so far.
func (s *servers) usage() (usage, error) {
	var total usage
	for _, child := range s.children {
		var one usage
		line, err := child.ask("usage")
		if err == nil {
			err = json.Unmarshal([]byte(line), &one)
		}
		if err != nil {
			return usage{}, err
		}
		total.CPU += one.CPU
		total.Peak += one.Peak
	}
	return total, nil
}

func (s *servers) stop() {
	for _, server := range s.local {
		server.Stop()
	}
	for _, child := range s.children {
		_ = child.input.Close()
		_ = child.command.Wait()
	}
}

// child is a server in a process of its own: one of ours, or of gorums-bench. It answers a line on its standard input with a line
// on its standard output, and ends with the end of its standard input.
type child struct {
	command *exec.Cmd
	input   io.WriteCloser
	output  *bufio.Reader
}

func (s *servers) startChild(o options) (string, error) {
	program := o.serverProgram
	args := []string{"serve", "--child", "--listen", "127.0.0.1:0"}
	if program == "" {
		own, err := os.Executable()
		if err != nil {
			return "", fmt.Errorf("where this program is: %w", err)
		}
		program = own
		if !o.peer {
			args = append(args, "--library")
		}
	}
	command := exec.Command(program, args...)
	command.Stderr = os.Stderr
	input, err := command.StdinPipe()
	if err != nil {
		return "", err
	}
	output, err := command.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := command.Start(); err != nil {
		return "", fmt.Errorf("a server cannot be started: %w", err)
	}
	c := &child{command: command, input: input, output: bufio.NewReader(output)}
	s.children = append(s.children, c)
	line, err := c.line()
	if err != nil {
		return "", err
	}
	address, found := strings.CutPrefix(line, "listening ")
	if !found {
		return "", fmt.Errorf("a server said %q and not where it listens", line)
	}
	line, err = c.ask(fmt.Sprintf("serve %d", o.payload))
	if err == nil && line != "serving" {
		err = fmt.Errorf("a server said %q and not that it serves", line)
	}
	return address, err
}

func (c *child) ask(question string) (string, error) {
	if _, err := fmt.Fprintln(c.input, question); err != nil {
		return "", fmt.Errorf("a server has ended: %w", err)
	}
	return c.line()
}

func (c *child) line() (string, error) {
	line, err := c.output.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("a server has ended: %w", err)
	}
	return strings.TrimSpace(line), nil
}

// serve is what a child does, of this program or of gorums-bench.
func serve(args []string, input io.Reader, output io.Writer) error {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:0", "the address to listen on")
	library := flags.Bool("library", false, "serve with the Go library; without it, the present protocol by interop/go")
	flags.Bool("child", true, "do what standard input says, which is all that this can")
	flags.Int("threads", 0, "for gorums-bench, which says it; Go has as many as there are cores")
	if err := flags.Parse(args); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	fmt.Fprintln(output, "listening", listener.Addr())
	lines := bufio.NewScanner(input)
	for lines.Scan() {
		line := lines.Text()
		if line == "usage" {
			if err := json.NewEncoder(output).Encode(ownUsage()); err != nil {
				return err
			}
			continue
		}
		payload, found := strings.CutPrefix(line, "serve ")
		if _, err := strconv.Atoi(payload); !found || err != nil || listener == nil {
			return fmt.Errorf("unknown command %q", line)
		}
		if *library {
			server := benchmark.NewBenchServer()
			defer server.Stop()
			go func(listener net.Listener) { _ = server.Serve(listener) }(listener)
		} else {
			go servePeer(listener)
		}
		listener = nil
		fmt.Fprintln(output, "serving")
	}
	return lines.Err()
}
