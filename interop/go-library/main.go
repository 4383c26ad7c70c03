// Command library puts the Go library, in its last published version, and ours together: an adapter between them carries each
// message from the form that the protocol had then to the present one. `cargo xtask interop` builds and runs it.
package main

import (
	"flag"
	"fmt"
	"io"
	"net"
	"os"

	"interop/internal/secrets"
)

const usage = `The Go library v0.11.0 behind an adapter: see cargo xtask interop

  library serve      a server of the library; prints "listening HOST:PORT", and ends when its standard input does
  library client     the cases of a client of the library against our server

Each has --help.
`

func main() {
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	jobs := map[string]func([]string) error{"serve": serve, "client": client}
	job := jobs[os.Args[1]]
	if job == nil {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err := job(os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(1)
	}
}

func serve(args []string) error {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	proto := flags.String("proto", "interop/proto", "the folder of interop.proto")
	listen := flags.String("listen", "127.0.0.1:0", "where to listen")
	var files secrets.Files
	files.AddTo(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := register(*proto); err != nil {
		return err
	}
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	outer, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	credentials, err := files.OfServer()
	if err != nil {
		return err
	}
	adapter := &adapter{from: present, to: former, target: inner.Addr().String(), secrets: files}
	service := newService(adapter.strange.Load, credentials)
	failed := make(chan error, 2)
	go func() { failed <- service.server.Serve(inner) }()
	go func() { failed <- adapter.serve(outer) }()
	go func() {
		_, err := io.Copy(io.Discard, os.Stdin)
		failed <- err
	}()
	fmt.Printf("listening %s\n", outer.Addr())
	return <-failed
}
