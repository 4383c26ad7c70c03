// Command h2spec runs the cases of h2spec, which test servers of HTTP/2, against our server: see cargo xtask interop.
//
// They are those of the package github.com/summerwind/h2spec, built with one change: what they request is a call of gRPC, so a POST
// with gRPC's content type, where they have a GET, which no server of gRPC takes.
package main

import (
	"flag"
	"os"

	"interop/internal/cases"
)

func main() {
	server := flag.String("server", "", "the program of our server")
	group := flag.String("group", "h2spec", "what the cases are called, before a slash")
	list := flag.Bool("list", false, "print the names of the cases")
	certs := flag.String("certs", "", "over mutual TLS, with the certificates in this folder")
	flag.Parse()
	var all []cases.Case
	for _, chapter := range chapters() {
		all = append(all, cases.Case{Name: chapter.name, Do: chapter.run})
	}
	if !cases.Run(*group, all, cases.Servers{Program: *server, Certs: *certs}, *list, flag.Args()) {
		os.Exit(1)
	}
}
