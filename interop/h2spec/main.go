// Command h2spec runs the cases of h2spec, which test servers of HTTP/2, against our server: see cargo xtask interop.
//
// They are those of the package github.com/summerwind/h2spec, built with one change: what they request is a call of gRPC, so a POST
// with gRPC's content type, where they have a GET, which no server of gRPC takes.
package main

import (
	"flag"
	"fmt"
	"os"

	"interop/internal/cases"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	server := flag.String("server", "", "the program of our server")
	table := flag.String("expected", "docs/conformance.md", "the file with the table of the cases that do not pass")
	group := flag.String("group", "h2spec", "what the cases are called, before a slash")
	list := flag.Bool("list", false, "print the names of the cases")
	certs := flag.String("certs", "", "over mutual TLS, with the certificates in this folder")
	flag.Parse()
	text, err := os.ReadFile(*table)
	if err != nil {
		return err
	}
	expected, err := readExpected(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", *table, err)
	}
	chapters := chapters()
	if err := expected.check(chapters); err != nil {
		return fmt.Errorf("%s: %w", *table, err)
	}
	var all []cases.Case
	for _, chapter := range chapters {
		all = append(all, cases.Case{Name: chapter.name, Do: func(r *cases.R) { chapter.run(r, expected) }})
	}
	if !cases.Run(*group, all, cases.Servers{Program: *server, Certs: *certs}, *list, flag.Args()) {
		os.Exit(1)
	}
	return nil
}
