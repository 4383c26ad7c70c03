//! TLS, as the options ask for it.

use std::time::Duration;

use gorums::tls::{ClientCertificates, NodeUris, Pem, Tls, TlsError};
use gorums::{ConfigurationBuilder, ServerBuilder};

use crate::args::TlsFiles;

/// How long a connection with TLS lasts at the most.
const OLD: Duration = Duration::from_secs(60 * 60);

/// How the connections of a program are secured; not at all, where the options say nothing of it.
pub(super) struct Security {
    tls: Option<Tls>,
    nodes: Option<NodeUris>,
}

impl Security {
    /// Reads the files.
    pub(super) fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let (Some(ca), Some(cert), Some(key)) = (&files.ca, &files.cert, &files.key) else {
            return Ok(Self {
                tls: None,
                nodes: None,
            });
        };
        let mut tls = Tls::builder()
            .trust(Pem::file(ca))
            .identity(Pem::file(cert), Pem::file(key))
            .client_certificates(ClientCertificates::Required)
            .watch_files();
        if let Some(revoked) = &files.revoked {
            tls = tls.revocation(Pem::file(revoked));
        }
        let tls = tls.build()?;
        Ok(Self {
            tls: Some(tls),
            nodes: files.cluster.as_ref().map(NodeUris::of),
        })
    }

    pub(super) fn of_server(&self, mut server: ServerBuilder) -> ServerBuilder {
        if let Some(tls) = &self.tls {
            server = server.transport(tls.clone()).max_connection_age(OLD);
        }
        if let Some(nodes) = &self.nodes {
            server = server.node_proof(nodes.clone());
        }
        server
    }

    pub(super) fn of_client(&self, mut nodes: ConfigurationBuilder) -> ConfigurationBuilder {
        if let Some(tls) = &self.tls {
            nodes = nodes.transport(tls.clone());
        }
        if let Some(uris) = &self.nodes {
            nodes = nodes.node_proof(uris.clone());
        }
        nodes
    }
}
