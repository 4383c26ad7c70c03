// Package secrets has the certificates of a process: mutual TLS, and node ids that are bound to certificates.
package secrets

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// Files are those of one process, as `cargo xtask certs` makes them. Without any, its connections are plain.
type Files struct {
	// The authorities whose certificates it takes, its own certificate, and the key of that.
	CA, Cert, Key string
	// Where it is not empty, nodes prove their ids: the certificate of node 3 has the URI gorums://CLUSTER/node/3.
	Cluster string
}

// InFolder are the files of one of those for whom the folder has certificates: node-3, say, or client. There are none where
// there is no folder.
func InFolder(folder, name string) Files {
	if folder == "" {
		return Files{}
	}
	file := func(name string) string { return filepath.Join(folder, name) }
	return Files{CA: file("ca.pem"), Cert: file(name + ".pem"), Key: file(name + ".key")}
}

// AddTo adds the options of a program that say where the files are.
func (f *Files) AddTo(flags *flag.FlagSet) {
	flags.StringVar(&f.CA, "ca", "", "over TLS, with those whose certificates these authorities have made")
	flags.StringVar(&f.Cert, "cert", "", "this process' certificate")
	flags.StringVar(&f.Key, "key", "", "its key")
	flags.StringVar(&f.Cluster, "cluster", "", "have each node prove its id, by the URI gorums://CLUSTER/node/ID")
}

// Args are the options that name these files.
func (f Files) Args() []string {
	var args []string
	for _, option := range [][2]string{{"--ca", f.CA}, {"--cert", f.Cert}, {"--key", f.Key}, {"--cluster", f.Cluster}} {
		if option[1] != "" {
			args = append(args, option[0], option[1])
		}
	}
	return args
}

// read is nil where there are no files.
func (f Files) read() (*tls.Config, error) {
	if f.CA == "" && f.Cert == "" && f.Key == "" && f.Cluster == "" {
		return nil, nil
	}
	if f.CA == "" || f.Cert == "" || f.Key == "" {
		return nil, errors.New("--ca, --cert and --key go together, and --cluster needs them")
	}
	text, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, err
	}
	authorities := x509.NewCertPool()
	if !authorities.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificate", f.CA)
	}
	own, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates: []tls.Certificate{own},
		RootCAs:      authorities,
		ClientCAs:    authorities,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		MinVersion:   tls.VersionTLS13,
	}, nil
}

// OfServer are the credentials of a server, which takes nobody without a certificate.
func (f Files) OfServer() (credentials.TransportCredentials, error) {
	config, err := f.read()
	if err != nil || config == nil {
		return insecure.NewCredentials(), err
	}
	return credentials.NewTLS(config), nil
}

// OfClient are the credentials by which this process connects to a node, and nobody else is taken for that.
func (f Files) OfClient(node uint32) (credentials.TransportCredentials, error) {
	config, err := f.read()
	if err != nil || config == nil {
		return insecure.NewCredentials(), err
	}
	if f.Cluster != "" {
		config.VerifyConnection = func(state tls.ConnectionState) error {
			return f.proves(state.PeerCertificates, node)
		}
	}
	return credentials.NewTLS(config), nil
}

// CheckClaim fails unless the client of a call has proved that it is this node, where nodes prove who they are.
func (f Files) CheckClaim(ctx context.Context, node uint32) error {
	if f.Cluster == "" {
		return nil
	}
	client, _ := peer.FromContext(ctx)
	proven, is := client.AuthInfo.(credentials.TLSInfo)
	if !is {
		return status.Error(codes.Internal, "a client without TLS was let in")
	}
	if err := f.proves(proven.State.PeerCertificates, node); err != nil {
		return status.Error(codes.PermissionDenied, err.Error())
	}
	return nil
}

func (f Files) proves(certificates []*x509.Certificate, node uint32) error {
	if len(certificates) == 0 {
		return errors.New("the peer has no certificate")
	}
	uri := fmt.Sprintf("gorums://%s/node/%d", f.Cluster, node)
	for _, has := range certificates[0].URIs {
		if has.String() == uri {
			return nil
		}
	}
	return fmt.Errorf("the certificate has no URI %s, but %v", uri, certificates[0].URIs)
}
