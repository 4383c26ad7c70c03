package cases

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"interop/internal/pb"
	"interop/internal/peer"
	"interop/internal/secrets"
	"interop/internal/wire"
)

// The cluster that the certificates name.
const cluster = "test"

// OfTLSClient are further cases of that client, which need certificates.
var OfTLSClient = []Case{
	{"who_a_client_proves_it_is", provenIDs},
	{"strangers_are_refused_by_an_alert", strangers},
	{"a_server_of_another_authority_is_not_taken", foreignServer},
}

func (r *R) foreign() string { return filepath.Join(r.servers.Certs, "foreign") }

// provenIDs has clients claim ids at a server that takes proofs.
func provenIDs(r *R) {
	// It is node 1, and those who connect are none of its peers.
	address := r.freeAddress()
	server := r.Start("--cluster", cluster, "--id", "1", "--listen", address, "--peers", "1="+address+",9=127.0.0.1:1")
	witness := r.connect(&peer.Client{}, server)
	for _, test := range []struct {
		holder  string
		claim   string
		calls   uint32
		knownAs uint64
		refused bool
	}{
		{holder: "node-2", claim: "2", calls: 2, knownAs: 2},
		{holder: "node-3", claim: "3", calls: 3, knownAs: 3},
		{holder: "client", claim: "0", calls: wire.DynamicIDs, knownAs: wire.DynamicIDs},
		{holder: "node-3", claim: "2", refused: true},
		{holder: "client", claim: "2", refused: true},
		{holder: "node-1", claim: "1", refused: true},
		{holder: "client", claim: strconv.Itoa(wire.DynamicIDs), refused: true},
	} {
		about := fmt.Sprintf("%s, which claims %q", test.holder, test.claim)
		client := peer.Client{
			IDs: peer.NewIDs(0), NodeID: test.claim, Handlers: newCallers().Handlers,
			Secrets: secrets.InFolder(r.servers.Certs, test.holder),
		}
		config := r.connect(&client, server)
		err := config[0].RPC(r, echo, data(1), &pb.Data{})
		if test.refused {
			// That of the stream, which is the reason why the call fails.
			denied := strings.Contains(fmt.Sprint(err), "code = PermissionDenied")
			r.Check(denied, "%s: expected PermissionDenied, got %v", about, err)
		} else {
			r.Must(err, about)
			seen := r.inspect(config[0], 0)
			known := fmt.Sprintf("peer: %d", test.knownAs)
			r.Check(slices.Contains(pairs(seen.Connection), known), "%s: expected %q in %v", about, known, pairs(seen.Connection))
			var reply pb.ClientsReply
			request := &pb.ClientsRequest{Clients: 1, Release: true, Echo: data(1)}
			r.Must(config[0].RPC(r, callClients, request, &reply), about)
			r.Check(len(reply.Answers) == 1 && reply.Answers[0].Node == test.calls, "%s: called are %v", about, reply.Answers)
		}
		config.Close()
		r.eventually("the client that has left is gone", func() bool {
			var reply pb.ClientsReply
			r.Must(witness[0].RPC(r, callClients, &pb.ClientsRequest{Release: true, Echo: data(1)}, &reply), "a call that calls back")
			return len(reply.Answers) == 0
		})
	}
}

// freeAddress is one that nobody listens on.
func (r *R) freeAddress() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	r.Must(err, "a port")
	r.Must(listener.Close(), "a port")
	return listener.Addr().String()
}

// strangers have no certificate that the server takes, or speak no TLS.
func strangers(r *R) {
	server := r.Start()
	text, err := os.ReadFile(r.Secrets().CA)
	r.Must(err, "the authority")
	authorities := x509.NewCertPool()
	r.Check(authorities.AppendCertsFromPEM(text), "%s has no certificate", r.Secrets().CA)
	other := secrets.InFolder(r.foreign(), "node-1")
	foreign, err := tls.LoadX509KeyPair(other.Cert, other.Key)
	r.Must(err, "a certificate of another authority")
	// Go keeps back a certificate of an authority that the server does not ask for, unless it is told to show it.
	shown := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &foreign, nil }
	for _, test := range []struct {
		credentials credentials.TransportCredentials
		says        []string
	}{
		{credentials.NewTLS(&tls.Config{RootCAs: authorities}), []string{"certificate required"}},
		{credentials.NewTLS(&tls.Config{RootCAs: authorities, GetClientCertificate: shown}), []string{"unknown certificate authority"}},
		{credentials.NewTLS(&tls.Config{RootCAs: authorities, MaxVersion: tls.VersionTLS12}), []string{"protocol version not supported"}},
		// The alert is shorter than the head of a frame. It is lost where the server has closed before it has read all that was sent.
		{insecure.NewCredentials(), []string{"error reading server preface: unexpected EOF", "connection reset by peer"}},
	} {
		conn, err := grpc.NewClient("passthrough:///"+server.Address, grpc.WithTransportCredentials(test.credentials),
			grpc.WithDefaultCallOptions(grpc.ForceCodec(wire.Codec{})))
		r.Must(err, "a client")
		r.OnEnd(func() { _ = conn.Close() })
		stream, err := conn.NewStream(r, &wire.Stream, wire.Path)
		if err == nil {
			err = stream.RecvMsg(new(wire.Message))
		}
		says := func(words string) bool { return strings.Contains(fmt.Sprint(err), words) }
		refused := status.Code(err) == codes.Unavailable && slices.ContainsFunc(test.says, says)
		r.Check(refused, "expected Unavailable and one of %q, got %v", test.says, err)
	}
	config := r.connect(&peer.Client{}, server)
	r.echo(config[0], 1)
}

func foreignServer(r *R) {
	server := r.StartAs(secrets.InFolder(r.foreign(), "node-1"))
	config := r.connect(&peer.Client{}, server)
	err := config[0].RPC(r, echo, data(1), &pb.Data{})
	refused := status.Code(oneOf(err)) == codes.Unavailable && strings.Contains(fmt.Sprint(err), "unknown authority")
	r.Check(refused, "expected Unavailable for an unknown authority, got %v", err)
}
