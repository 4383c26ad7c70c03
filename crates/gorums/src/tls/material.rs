//! What connections are made and accepted with, once it has been read and checked.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::ServerCertVerifier;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoClientAuth, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::time_provider::TimeProvider;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{
    ClientConfig, Error as RustlsError, InconsistentKeys, RootCertStore, ServerConfig,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::error::TlsError;
use super::pem::Pem;
use super::revocation::{self, RevocationList};
use super::sources::{Contents, Sources};
use super::validity::{self, Invalid, seconds};
use crate::runtime::Clock;

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

/// What is not exchanged together with the certificates.
pub(super) struct Rules {
    pub(super) client_certificates: ClientCertificates,
    pub(super) clock: Arc<dyn Clock>,
}

/// One state of everything that may be exchanged.
pub(super) struct Material {
    /// Where authorities are trusted.
    pub(super) client: Option<Arc<ClientConfig>>,
    /// Where there is a certificate.
    pub(super) server: Option<Arc<ServerConfig>>,
    /// Says whose certificates a client takes, where it takes any.
    nodes: Option<Arc<WebPkiServerVerifier>>,
    /// Says whose certificates a server takes, where it asks for some.
    clients: Option<Arc<dyn ClientCertVerifier>>,
    identity: Option<Own>,
    authorities: usize,
    lists: Vec<RevocationList>,
}

/// The certificate of this process, as the log names it.
struct Own {
    text: String,
    /// Its last second, since 1970.
    end: i64,
}

impl Material {
    /// What is in the contents of these sources, checked. Where the certificate of this process is the
    /// one that is in use, it may have expired: what comes with it, such as newer revocation lists, is
    /// taken over all the same.
    pub(super) fn of(
        sources: &Sources,
        contents: &Contents,
        in_use: Option<&Contents>,
        rules: &Rules,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let is_new = in_use.is_none_or(|in_use| in_use.identity != contents.identity);
        let valid_at = is_new.then(|| rules.clock.wall_clock());
        let (authorities, roots) = roots(&sources.roots, &contents.roots)?;
        let identity = match (&sources.identity, &contents.identity) {
            (Some(pems), Some(bytes)) => Some(identity(pems, bytes, valid_at, &provider)?),
            _ => None,
        };
        let asks = rules.client_certificates != ClientCertificates::None;
        let lists = match &roots {
            _ if sources.revocation.is_empty() => Vec::new(),
            None => return Err(TlsError::RevocationWithoutRoots),
            Some(roots) => revocation::lists(
                &sources.revocation,
                &contents.revocation,
                roots,
                &authorities,
                &provider,
            )?,
        };
        if identity.is_none() && roots.is_none() {
            return Err(TlsError::NothingGiven);
        }
        if asks && roots.is_none() {
            return Err(TlsError::NoRoots);
        }
        let revoked = || lists.iter().map(|list| list.der.clone());
        let own = identity.as_ref().map(Own::of);
        let key = identity.map(|identity| Arc::new(SingleCertAndKey::from(identity)));
        let time = Arc::new(TimeOf(Arc::clone(&rules.clock)));
        let nodes = roots.as_ref().map(|roots| {
            WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(&provider))
                .with_crls(revoked())
                .allow_unknown_revocation_status()
                .build()
                .expect("there are roots, and each list was tried")
        });
        let client = nodes.clone().map(|verifier| {
            let config = ClientConfig::builder_with_details(
                Arc::clone(&provider),
                Arc::<TimeOf>::clone(&time),
            )
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has suites of TLS 1.3")
            .with_webpki_verifier(verifier);
            let mut config = match &key {
                Some(key) => config.with_client_cert_resolver(key.clone()),
                None => config.with_no_client_auth(),
            };
            config.alpn_protocols = vec![H2.to_vec()];
            Arc::new(config)
        });
        let clients = roots.filter(|_| asks).map(|roots| {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
                    .with_crls(revoked())
                    .allow_unknown_revocation_status();
            let verifier = match rules.client_certificates {
                ClientCertificates::Optional => verifier.allow_unauthenticated(),
                ClientCertificates::None | ClientCertificates::Required => verifier,
            };
            verifier
                .build()
                .expect("there are roots, and each list was tried")
        });
        let server = key.map(|key| {
            let verifier = clients.clone().unwrap_or_else(|| Arc::new(NoClientAuth));
            let mut config = ServerConfig::builder_with_details(provider, time)
                .with_protocol_versions(&[&TLS13])
                .expect("the provider has suites of TLS 1.3")
                .with_client_cert_verifier(verifier)
                .with_cert_resolver(key);
            config.alpn_protocols = vec![H2.to_vec()];
            Arc::new(config)
        });
        Ok(Self {
            client,
            server,
            nodes,
            clients,
            identity: own,
            authorities: authorities.len(),
            lists,
        })
    }

    /// Whether a server would take a client with this chain of certificates now.
    pub(super) fn takes_client(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> bool {
        match (&self.clients, chain.split_first()) {
            (Some(clients), Some((own, behind))) => {
                let verified = clients.verify_client_cert(own, behind, unix(now));
                verified.is_ok()
            }
            // Nobody was asked for one.
            _ => true,
        }
    }

    /// Whether a client would take a node of this name with this chain of certificates now.
    pub(super) fn takes_node(
        &self,
        name: &ServerName<'_>,
        chain: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> bool {
        match (&self.nodes, chain.split_first()) {
            (Some(nodes), Some((own, behind))) => {
                let verified = nodes.verify_server_cert(own, behind, name, &[], unix(now));
                verified.is_ok()
            }
            _ => false,
        }
    }

    /// The certificate of this process, as the log names it.
    pub(super) fn identity(&self) -> Option<&str> {
        self.identity.as_ref().map(|own| own.text.as_str())
    }

    /// Whether that has expired.
    pub(super) fn has_expired(&self, now: SystemTime) -> bool {
        let own = self.identity.as_ref();
        own.is_some_and(|own| own.end < seconds(now))
    }

    /// How many authorities are trusted.
    pub(super) fn authorities(&self) -> usize {
        self.authorities
    }

    pub(super) fn lists(&self) -> &[RevocationList] {
        &self.lists
    }
}

impl Own {
    fn of(identity: &CertifiedKey) -> Self {
        let parsed = identity
            .cert
            .first()
            .map(|der| X509Certificate::from_der(der));
        match parsed {
            Some(Ok((_, own))) => Self {
                text: format!(
                    "{}, serial {}, valid until {}",
                    own.subject(),
                    own.raw_serial_as_string(),
                    own.validity().not_after
                ),
                end: own.validity().not_after.timestamp(),
            },
            // It was read before, so this does not come about.
            _ => Self {
                text: "unknown".to_owned(),
                end: i64::MAX,
            },
        }
    }
}

/// The time by which rustls goes.
struct TimeOf(Arc<dyn Clock>);

impl TimeProvider for TimeOf {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix(self.0.wall_clock()))
    }
}

impl fmt::Debug for TimeOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TimeOf")
    }
}

fn unix(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// The trusted authorities, where there are any.
#[allow(clippy::type_complexity, reason = "a pair that is taken apart at once")]
fn roots(
    given: &[Pem],
    contents: &[Vec<u8>],
) -> Result<(Vec<CertificateDer<'static>>, Option<Arc<RootCertStore>>), TlsError> {
    let mut roots = RootCertStore::empty();
    let mut authorities = Vec::new();
    for (pem, bytes) in given.iter().zip(contents) {
        for certificate in pem.certificates(bytes)? {
            authorities.push(certificate.clone());
            roots
                .add(certificate)
                .map_err(|error| TlsError::BadCertificate {
                    place: pem.place(),
                    reason: error.to_string(),
                })?;
        }
    }
    let roots = (!roots.is_empty()).then(|| Arc::new(roots));
    Ok((authorities, roots))
}

/// The certificate of this process with its key, which peers can take at this time, where one is
/// given.
fn identity(
    (certificates, key): &(Pem, Pem),
    (chain, secret): &(Vec<u8>, Vec<u8>),
    valid_at: Option<SystemTime>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let chain = certificates.certificates(chain)?;
    // Of those of authorities behind it peers may need none.
    if let (Some(own), Some(now)) = (chain.first(), valid_at) {
        check(own, certificates, now)?;
    }
    let loaded = provider.key_provider.load_private_key(key.key(secret)?);
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

fn check(certificate: &CertificateDer<'_>, pem: &Pem, now: SystemTime) -> Result<(), TlsError> {
    validity::check(certificate, now).map_err(|invalid| match invalid {
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
