// Command interop is the Go side of the interoperability tests: `cargo xtask interop` builds and runs it.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"

	"interop/internal/cases"
	"interop/internal/pb"
	"interop/internal/peer"
	"interop/internal/secrets"
	"interop/internal/service"
	"interop/internal/storage"
)

const usage = `The Go side of the interoperability tests: see cargo xtask interop

  interop serve      serves, prints "listening HOST:PORT", and ends when its standard input does
  interop client     runs the cases of a Go client against our server
  interop flood      calls a server until it is killed
  interop storage    a replica of the store that keeps what it acknowledged in a file
  interop history    writes and reads the store, and prints what it did

Each has --help.
`

func main() {
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	jobs := map[string]func([]string) error{
		"serve":   serve,
		"client":  client,
		"flood":   flood,
		"storage": replica,
		"history": history,
	}
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

// serve serves interop.Interop, Peer and Cluster.
func serve(args []string) error {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	listen := flags.String("listen", "127.0.0.1:0", "where to listen")
	id := flags.Uint("id", 0, "which of the peers this is")
	peers := flags.String("peers", "", "all peers, as 1=host:port,2=host:port")
	lastID := flags.Uint64("last-id", 0, "the id before that of the first call that this server makes")
	window := flags.Int("window", 0, "HTTP/2's windows, in bytes (default: grpc-go's)")
	holdHeaders := flags.Bool("hold-headers", false, "send nothing before SendHeaders comes")
	silent := flags.Bool("silent", false, "read all, and never send anything")
	path := flags.String("path", "", "what to serve, as package.Service/Method")
	var files secrets.Files
	files.AddTo(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	addresses, err := peer.ParsePeers(*peers)
	if err != nil {
		return err
	}
	credentials, err := files.OfServer()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	credentials, pings := peer.CountPings(credentials)
	interop := service.NewInterop(*holdHeaders)
	interop.Silent = *silent
	interop.Pings = pings
	handlers := peer.NewHandlers()
	server := peer.NewServer(handlers, peer.Options{
		ID:          uint32(*id),
		Peers:       addresses,
		Path:        *path,
		Prepare:     interop.Prepare,
		LastID:      *lastID,
		Window:      int32(*window),
		Secrets:     files,
		Credentials: credentials,
	})
	cluster := &service.Cluster{Server: server, Name: fmt.Sprintf("go-%d", *id)}
	interop.Register(handlers)
	interop.RegisterPeer(handlers)
	cluster.Register(handlers)
	go func() {
		service.UntilEOF()
		os.Exit(0)
	}()
	fmt.Printf("listening %s\n", listener.Addr())
	return server.Serve(listener)
}

// client runs the cases of a client.
func client(args []string) error {
	flags := flag.NewFlagSet("client", flag.ExitOnError)
	server := flags.String("server", "", "the program of our server")
	certs := flags.String("certs", "", "over mutual TLS, with the certificates in this folder")
	list := flags.Bool("list", false, "print the names of the cases")
	if err := flags.Parse(args); err != nil {
		return err
	}
	group, all := "go-client", cases.OfClient
	if *certs != "" {
		group, all = "go-client-tls", append(append([]cases.Case{}, all...), cases.OfTLSClient...)
	}
	if !cases.Run(group, all, cases.Servers{Program: *server, Certs: *certs}, *list, flags.Args()) {
		os.Exit(1)
	}
	return nil
}

// flood calls a server as fast as it can, until it is killed.
func flood(args []string) error {
	flags := flag.NewFlagSet("flood", flag.ExitOnError)
	server := flags.String("server", "", "where the server listens")
	var files secrets.Files
	files.AddTo(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	client := peer.Client{IDs: peer.NewIDs(0), Secrets: files}
	node, err := client.Node(1, *server)
	if err != nil {
		return err
	}
	fmt.Printf("listening %s\n", "nowhere")
	ctx := context.Background()
	for number := uint64(0); ; number++ {
		call := peer.Config{node}.Call(ctx, "interop.Interop.EchoAll", &pb.Data{Number: number, Bytes: make([]byte, 1000)})
		if err := node.Unicast(ctx, "interop.Interop.Note", &pb.Data{Number: number}); err != nil {
			return err
		}
		if number%100 == 0 {
			if _, err := call.All(); err != nil {
				return err
			}
		}
	}
}

// replica serves the store.
func replica(args []string) error {
	flags := flag.NewFlagSet("storage", flag.ExitOnError)
	listen := flags.String("listen", "127.0.0.1:0", "where to listen")
	id := flags.Uint("id", 0, "which of the replicas this is")
	peers := flags.String("peers", "", "all replicas, as 1=host:port,2=host:port")
	data := flags.String("data", "", "the file that keeps what is written: each write is on disk before it is answered")
	var files secrets.Files
	files.AddTo(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	addresses, err := peer.ParsePeers(*peers)
	if err != nil {
		return err
	}
	replica, err := storage.Open(*data)
	if err != nil {
		return err
	}
	handlers := peer.NewHandlers()
	credentials, err := files.OfServer()
	if err != nil {
		return err
	}
	replica.Server = peer.NewServer(handlers, peer.Options{
		ID: uint32(*id), Peers: addresses, Secrets: files, Credentials: credentials,
	})
	replica.Register(handlers)
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	go func() {
		service.UntilEOF()
		os.Exit(0)
	}()
	fmt.Printf("listening %s\n", listener.Addr())
	return replica.Server.Serve(listener)
}

// history uses the store until its standard input ends.
func history(args []string) error {
	flags := flag.NewFlagSet("history", flag.ExitOnError)
	replicas := flags.String("replicas", "", "the replicas, as 1=host:port,2=host:port")
	names := flags.String("names", "go", "the clients that write, this one first, with commas")
	var files secrets.Files
	files.AddTo(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	addresses, err := peer.ParsePeers(*replicas)
	if err != nil {
		return err
	}
	client := peer.Client{IDs: peer.NewIDs(0), Secrets: files}
	var config peer.Config
	for id, address := range addresses {
		node, err := client.Node(id, address)
		if err != nil {
			return err
		}
		config = append(config, node)
	}
	fmt.Printf("listening %s\n", "nowhere")
	go storage.History(config, strings.Split(*names, ","))
	service.UntilEOF()
	return nil
}
