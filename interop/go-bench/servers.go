package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
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
			address, err = s.startChild()
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
		one, err := child.usage()
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
		child.stop()
	}
}

// child is a server in a process of its own. It answers a line on its standard input with a line on its standard output, and
// ends with the end of its standard input.
type child struct {
	command *exec.Cmd
	input   io.WriteCloser
	output  *bufio.Reader
}

func (s *servers) startChild() (string, error) {
	program, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("where this program is: %w", err)
	}
	command := exec.Command(program, "-serve")
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
	line, err := c.output.ReadString('\n')
	address, found := strings.CutPrefix(strings.TrimSpace(line), "listening ")
	if err != nil || !found {
		return "", fmt.Errorf("a server said %q and not where it listens (%v)", line, err)
	}
	return address, nil
}

func (c *child) usage() (usage, error) {
	if _, err := fmt.Fprintln(c.input, "usage"); err != nil {
		return usage{}, fmt.Errorf("a server has ended: %w", err)
	}
	line, err := c.output.ReadBytes('\n')
	if err != nil {
		return usage{}, fmt.Errorf("a server has ended: %w", err)
	}
	var u usage
	return u, json.Unmarshal(line, &u)
}

func (c *child) stop() {
	_ = c.input.Close()
	_ = c.command.Wait()
}

// serveUntilEOF is what a child does.
func serveUntilEOF(input io.Reader, output io.Writer) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := benchmark.NewBenchServer()
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()
	fmt.Fprintln(output, "listening", listener.Addr())
	lines := bufio.NewScanner(input)
	for lines.Scan() {
		if lines.Text() != "usage" {
			return fmt.Errorf("unknown command %q", lines.Text())
		}
		if err := json.NewEncoder(output).Encode(ownUsage()); err != nil {
			return err
		}
	}
	return lines.Err()
}
