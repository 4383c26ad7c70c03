package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	"github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"

	"interop/internal/cases"
)

const (
	// The method that they call. Their calls have no message, so it answers by headers alone.
	path = "/interop.Interop/Echo"
	// What those call that wait for a body: it answers by some hundred bytes.
	pathOfBytes = "/bytes"
	// So long may an answer take that one of them waits for, and so long nothing may come that is not to come.
	patience = 2 * time.Second
	// So long may one of them take, whatever it waits for.
	longest = 20 * time.Second
	// So many run at once: most of what they do is to wait.
	atOnce = 8
	// The longest header field that they send, and that of the case whose frame is to be larger than any that the server takes: it
	// sends five of them, and takes for granted that a server takes no more than 16 KiB. Ours takes a mebibyte.
	longestField = 4000
	largeHeaders = "http2/4.2/3"
	largeField   = 300_000
)

// ofBytes are the cases that wait for a body, or for a call that stays open since there is no window for its body.
var ofBytes = map[string]bool{
	"generic/2/2":   true,
	"generic/2/3":   true,
	"http2/5.1.2/1": true,
	"http2/6.5.3/1": true,
	"http2/6.9.1/1": true,
	"http2/6.9.2/1": true,
	"http2/6.9.2/2": true,
}

// chapter is a part of h2spec, which is shown as one case.
type chapter struct {
	name string
	all  []*numbered
}

// numbered is a case of h2spec and its name there: http2/5.1/3 is the third of section 5.1.
type numbered struct {
	id string
	*spec.TestCase
}

// chapters are all that h2spec has for servers, those included that it calls strict.
func chapters() []chapter {
	var chapters []chapter
	for _, root := range []*spec.TestGroup{generic.Spec(), http2.Spec(), hpack.Spec()} {
		for _, group := range root.Groups {
			chapters = append(chapters, chapter{name: group.ID(), all: of(group)})
		}
	}
	return chapters
}

func of(group *spec.TestGroup) []*numbered {
	var all []*numbered
	for i, test := range append(append([]*spec.TestCase{}, group.Tests...), group.StrictTests...) {
		all = append(all, &numbered{id: fmt.Sprintf("%s/%d", group.ID(), i+1), TestCase: test})
	}
	for _, part := range group.Groups {
		all = append(all, of(part)...)
	}
	return all
}

// run runs all of a chapter, each on a connection of its own to one server of ours.
func (c chapter) run(r *cases.R) {
	host, port, err := net.SplitHostPort(r.Start().Address)
	r.Must(err, "the server's address")
	number, err := strconv.Atoi(port)
	r.Must(err, "the server's port")
	secrets := r.Secrets()
	config := &config.Config{
		Host: host, Port: number, Path: path, Timeout: patience, MaxHeaderLen: longestField, Strict: true,
		// The certificate's names are none of what is tested here.
		TLS: secrets.Cert != "", Insecure: true, CertFile: secrets.Cert, CertKeyFile: secrets.Key,
	}
	outcomes := make([]error, len(c.all))
	var running sync.WaitGroup
	places := make(chan struct{}, atOnce)
	for i, test := range c.all {
		running.Add(1)
		go func() {
			defer running.Done()
			places <- struct{}{}
			outcomes[i] = test.do(r, config)
			<-places
		}()
	}
	running.Wait()
	var wrong []string
	for i, test := range c.all {
		if complaint := complaint(outcomes[i]); complaint != "" {
			wrong = append(wrong, fmt.Sprintf("h2spec %s, %s: %s", test.id, test.Desc, complaint))
		}
	}
	r.Check(len(wrong) == 0, "%d of %d cases:\n%s", len(wrong), len(c.all), strings.Join(wrong, "\n"))
}

// do runs one of them, and returns what it found.
func (n *numbered) do(ctx context.Context, config *config.Config) error {
	// A case may change what it is given.
	own := *config
	if n.id == largeHeaders {
		own.MaxHeaderLen = largeField
	}
	if ofBytes[n.id] {
		own.Path = pathOfBytes
	}
	conn, err := spec.Dial(&own)
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	limit, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	found := make(chan error, 1)
	go func() {
		defer func() {
			if value := recover(); value != nil {
				found <- fmt.Errorf("h2spec panics: %v", value)
			}
		}()
		found <- n.Run(&own, conn)
	}()
	defer func() { _ = conn.Close() }()
	select {
	case err := <-found:
		return err
	case <-limit.Done():
		return errors.New("it has not ended in time")
	}
}
