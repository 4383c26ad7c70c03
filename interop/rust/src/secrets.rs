//! The certificates of a process, as options name them.

use std::path::Path;

use anyhow::{Context, Result};
use gorums::tls::{ClientCertificates, NodeUris, Pem, Tls};
use gorums::{Configuration, ConfigurationBuilder, Server, ServerBuilder};

/// The cluster that the certificates of `cargo xtask certs` name.
pub(crate) const CLUSTER: &str = "test";

/// Those of one process. Without any, its connections are plain.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Secrets {
    /// Over mutual TLS, with those whose certificates these authorities have made
    #[arg(long, value_name = "FILE", requires_all = ["cert", "key"])]
    ca: Option<String>,

    /// The certificate of this process
    #[arg(long, value_name = "FILE", requires = "ca")]
    cert: Option<String>,

    /// Its key
    #[arg(long, value_name = "FILE", requires = "ca")]
    key: Option<String>,

    /// Have each node prove its id, by the URI gorums://NAME/node/ID in its certificate
    #[arg(long, value_name = "NAME", requires = "ca")]
    cluster: Option<String>,
}

impl Secrets {
    /// Those of one for whom `cargo xtask certs` has made some in this folder: `node-3`, `client`.
    pub(crate) fn in_folder(folder: &Path, name: &str) -> Self {
        let file = |file: String| Some(folder.join(file).display().to_string());
        Self {
            ca: file("ca.pem".to_owned()),
            cert: file(format!("{name}.pem")),
            key: file(format!("{name}.key")),
            cluster: None,
        }
    }

    /// With nodes that prove their ids.
    pub(crate) fn of_cluster(mut self) -> Self {
        self.cluster = Some(CLUSTER.to_owned());
        self
    }

    /// Whether nodes prove their ids.
    pub(crate) fn prove_ids(&self) -> bool {
        self.cluster.is_some()
    }

    /// As options of a program.
    pub(crate) fn args(&self) -> Vec<String> {
        let options = [
            ("--ca", &self.ca),
            ("--cert", &self.cert),
            ("--key", &self.key),
            ("--cluster", &self.cluster),
        ];
        given(&options)
    }

    /// The same three files as options of another program, which call them so. None where there are no
    /// such files.
    pub(crate) fn as_options(&self, [ca, cert, key]: [&str; 3]) -> Vec<String> {
        let options = [(ca, &self.ca), (cert, &self.cert), (key, &self.key)];
        given(&options)
    }

    pub(crate) fn server(&self) -> Result<ServerBuilder> {
        let mut server = Server::builder();
        if let Some(tls) = self.tls()? {
            server = server.transport(tls);
        }
        if let Some(cluster) = &self.cluster {
            server = server.node_proof(NodeUris::of(cluster));
        }
        Ok(server)
    }

    pub(crate) fn configuration(&self) -> Result<ConfigurationBuilder> {
        let mut nodes = Configuration::builder();
        if let Some(tls) = self.tls()? {
            nodes = nodes.transport(tls);
        }
        if let Some(cluster) = &self.cluster {
            nodes = nodes.node_proof(NodeUris::of(cluster));
        }
        Ok(nodes)
    }

    fn tls(&self) -> Result<Option<Tls>> {
        let Some(ca) = &self.ca else { return Ok(None) };
        let mut tls = Tls::builder()
            .trust(Pem::file(ca))
            .client_certificates(ClientCertificates::Required);
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            tls = tls.identity(Pem::file(cert), Pem::file(key));
        }
        tls.build().map(Some).context("the certificates")
    }

    /// The same with those authorities that another one takes.
    pub(crate) fn trusting(mut self, other: &Self) -> Self {
        self.ca.clone_from(&other.ca);
        self
    }

    /// The same without a certificate of one's own.
    pub(crate) fn anonymous(mut self) -> Self {
        self.cert = None;
        self.key = None;
        self
    }
}

/// The options that have a value, each followed by it.
fn given(options: &[(&str, &Option<String>)]) -> Vec<String> {
    let given = options
        .iter()
        .filter_map(|(option, value)| Some([(*option).to_owned(), (*value).clone()?]));
    given.flatten().collect()
}
