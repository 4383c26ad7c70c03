//! TLS as rustls has it, with certificates of its own that nobody looks at.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::certs::{Authority, Identity};

/// The certificates of an identity, and its key.
fn parts(identity: &Identity) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes());
    let chain: Vec<_> = chain.collect::<Result<_, _>>().expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes());
    (chain, key.expect("PEM"))
}

/// A client that trusts this authority, and shows this certificate whatever it is worth.
pub fn client(authority: &Authority, identity: Option<&Identity>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(authority.text().as_bytes()) {
        roots.add(root.expect("PEM")).expect("an authority");
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .expect("it has TLS 1.3")
        .with_root_certificates(roots);
    let mut client = match identity.map(parts) {
        None => config.with_no_client_auth(),
        Some((chain, key)) => config
            .with_client_auth_cert(chain, key)
            .expect("they match"),
    };
    client.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(client)
}

/// A server with this certificate, which asks nobody for one.
pub fn server(identity: &Identity) -> Arc<ServerConfig> {
    let (chain, key) = parts(identity);
    let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .expect("it has TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(chain, key);
    let mut server = server.expect("they match");
    server.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(server)
}
