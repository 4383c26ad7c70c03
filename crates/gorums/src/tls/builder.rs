use std::fmt;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::server::{NoClientAuth, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{
    ClientConfig, Error as RustlsError, InconsistentKeys, RootCertStore, ServerConfig,
};

use super::error::TlsError;
use super::handshake::{Tls, server_name};
use super::pem::Pem;
use super::validity::{self, Invalid};
use crate::runtime::{Sockets, Transport};

/// What both ends agree on to speak: HTTP/2.
pub(super) const H2: &[u8] = b"h2";

/// Whether a server asks its clients for certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ClientCertificates {
    /// It does not: it knows nothing of who connects.
    #[default]
    None,
    /// It does, and takes those who have none as well. A certificate that is shown has to be a good
    /// one.
    Optional,
    /// It does, and refuses those who have none. Known as mutual TLS.
    Required,
}

/// Describes a [`Tls`].
#[must_use = "nothing happens before `build`"]
pub struct TlsBuilder {
    below: Arc<dyn Transport>,
    identity: Option<(Pem, Pem)>,
    roots: Vec<Pem>,
    client_certificates: ClientCertificates,
    server_name: Option<String>,
}

impl TlsBuilder {
    pub(super) fn new() -> Self {
        Self {
            below: Arc::new(Sockets),
            identity: None,
            roots: Vec::new(),
            client_certificates: ClientCertificates::default(),
            server_name: None,
        }
    }

    /// The certificate of this process and its private key. A server needs it, and a client shows it
    /// to servers that ask for one.
    ///
    /// The certificates are the process' own one, and behind it those of the authorities between it
    /// and the one that peers trust, where there are any. The key is PKCS #8, PKCS #1 or SEC 1, and
    /// not encrypted.
    pub fn identity(mut self, certificates: Pem, key: Pem) -> Self {
        self.identity = Some((certificates, key));
        self
    }

    /// Trusts the authorities with these certificates: those of servers that this process connects
    /// to, and of clients that it asks for certificates, are to be made by one of them. May be
    /// called again for others. No authority is trusted that is not given here, those of the system
    /// neither.
    pub fn trust(mut self, roots: Pem) -> Self {
        self.roots.push(roots);
        self
    }

    /// Whether servers ask their clients for certificates. Default: [`ClientCertificates::None`].
    /// Peers of a replicated system want [`Required`](ClientCertificates::Required): otherwise
    /// whoever can connect is served.
    pub fn client_certificates(mut self, wanted: ClientCertificates) -> Self {
        self.client_certificates = wanted;
        self
    }

    /// The name that the certificates of all nodes are to have, and that servers are asked for.
    /// Default: for each node the host name or the IP address that it is dialled by.
    ///
    /// Nodes with addresses that are in no certificate need this: unix sockets, and hosts whose
    /// addresses change. All nodes need a certificate with the one name then, and a client cannot
    /// tell one node from another.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// The connections below, with whose addresses nodes are dialled and servers listen. Default:
    /// [`Sockets`].
    pub fn over(mut self, transport: impl Transport) -> Self {
        self.below = Arc::new(transport);
        self
    }

    /// Reads the files, and checks what is in them. This blocks the thread while files are read: a
    /// program does it when it begins. What changes in a file later is not noticed.
    ///
    /// # Errors
    /// A file cannot be read, has not in it what it should, or nobody could connect with what is in
    /// it: see [`TlsError`].
    pub fn build(self) -> Result<Tls, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let name = self.server_name.map(checked_name).transpose()?;
        let roots = roots(&self.roots)?;
        let identity = self
            .identity
            .map(|(certificates, key)| identity(&certificates, &key, &provider))
            .transpose()?
            .map(|key| Arc::new(SingleCertAndKey::from(key)));
        let asks = self.client_certificates != ClientCertificates::None;
        if identity.is_none() && roots.is_none() {
            return Err(TlsError::NothingGiven);
        }
        if asks && roots.is_none() {
            return Err(TlsError::NoRoots);
        }
        let client = roots.as_ref().map(|roots| {
            let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[&TLS13])
                .expect("the provider has suites of TLS 1.3")
                .with_root_certificates(Arc::clone(roots));
            let mut config = match &identity {
                Some(identity) => config.with_client_cert_resolver(identity.clone()),
                None => config.with_no_client_auth(),
            };
            config.alpn_protocols = vec![H2.to_vec()];
            Arc::new(config)
        });
        let server = identity.map(|identity| {
            let verifier = match roots.filter(|_| asks) {
                None => Arc::new(NoClientAuth) as _,
                Some(roots) => {
                    let verifier =
                        WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
                    let verifier = match self.client_certificates {
                        ClientCertificates::Optional => verifier.allow_unauthenticated(),
                        ClientCertificates::None | ClientCertificates::Required => verifier,
                    };
                    verifier.build().expect("there are roots")
                }
            };
            let mut config = ServerConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&TLS13])
                .expect("the provider has suites of TLS 1.3")
                .with_client_cert_verifier(verifier)
                .with_cert_resolver(identity);
            config.alpn_protocols = vec![H2.to_vec()];
            Arc::new(config)
        });
        Ok(Tls::new(self.below, client, server, name))
    }
}

impl fmt::Debug for TlsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsBuilder")
            .field("identity", &self.identity)
            .field("roots", &self.roots)
            .field("client_certificates", &self.client_certificates)
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

fn checked_name(name: String) -> Result<ServerName<'static>, TlsError> {
    server_name(&name).ok_or(TlsError::BadServerName { name })
}

/// The trusted authorities, where there are any.
fn roots(given: &[Pem]) -> Result<Option<Arc<RootCertStore>>, TlsError> {
    let mut roots = RootCertStore::empty();
    for pem in given {
        for certificate in pem.certificates()? {
            roots
                .add(certificate)
                .map_err(|error| TlsError::BadCertificate {
                    place: pem.place(),
                    reason: error.to_string(),
                })?;
        }
    }
    Ok(Some(Arc::new(roots)).filter(|roots| !roots.is_empty()))
}

/// The certificate of this process with its key, which peers can take.
fn identity(
    certificates: &Pem,
    key: &Pem,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let chain = certificates.certificates()?;
    // Of those of authorities behind it peers may need none.
    if let Some(own) = chain.first() {
        check(own, certificates)?;
    }
    let loaded = provider.key_provider.load_private_key(key.key()?);
    let signing = loaded.map_err(|error| TlsError::BadKey {
        place: key.place(),
        reason: error.to_string(),
    })?;
    let identity = CertifiedKey::new(chain, signing);
    match identity.keys_match() {
        // Of a key that does not tell, peers will.
        Ok(()) | Err(RustlsError::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(identity),
        Err(RustlsError::InconsistentKeys(_)) => Err(TlsError::KeyMismatch {
            certificate: certificates.place(),
            key: key.place(),
        }),
        Err(error) => Err(TlsError::BadCertificate {
            place: certificates.place(),
            reason: error.to_string(),
        }),
    }
}

fn check(certificate: &CertificateDer<'_>, pem: &Pem) -> Result<(), TlsError> {
    validity::check(certificate).map_err(|invalid| match invalid {
        Invalid::Expired { since } => TlsError::Expired {
            certificate: pem.place(),
            since,
        },
        Invalid::NotYet { from } => TlsError::NotYetValid {
            certificate: pem.place(),
            from,
        },
        Invalid::Unreadable { reason } => TlsError::BadCertificate {
            place: pem.place(),
            reason,
        },
    })
}
