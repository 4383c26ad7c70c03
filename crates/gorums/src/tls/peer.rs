use std::fmt;
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Who the peer of a TLS connection has proved to be, by a certificate of a trusted authority.
///
/// A handler or an interceptor finds it with [`ServerCtx::proven`](crate::ServerCtx::proven), and the
/// connect callback with [`ConnectRequest::proven`](crate::server::ConnectRequest::proven). There is
/// none where a client has shown no certificate, since none was
/// [asked for](super::ClientCertificates), and none for the process' own node. A clone shares what
/// it has.
#[derive(Clone)]
pub struct TlsPeer(Arc<Inner>);

struct Inner {
    certificates: Vec<CertificateDer<'static>>,
    uris: Vec<String>,
    dns_names: Vec<String>,
}

impl TlsPeer {
    /// Of a chain that has been verified. An error says why its first certificate cannot be read.
    pub(super) fn of(certificates: Vec<CertificateDer<'static>>) -> Result<Self, String> {
        let first = certificates.first().ok_or("there is no certificate")?;
        let (_, parsed) = X509Certificate::from_der(first).map_err(|error| error.to_string())?;
        let names = parsed
            .subject_alternative_name()
            .map_err(|error| error.to_string())?;
        let mut uris = Vec::new();
        let mut dns_names = Vec::new();
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                GeneralName::DNSName(name) => dns_names.push((*name).to_owned()),
                _ => {}
            }
        }
        Ok(Self(Arc::new(Inner {
            certificates,
            uris,
            dns_names,
        })))
    }

    /// Who the peer of a TLS connection that is none of [`Tls`](super::Tls) has proved to be: that of the
    /// server around a mounted one, by the chain of certificates that it has verified, as DER, the peer's
    /// own first. [`tower::PeerInfo`](crate::tower::PeerInfo) hands it on, and
    /// [`NodeUris`](super::NodeUris) goes by it.
    ///
    /// Nothing is verified here.
    ///
    /// # Errors
    /// There is no certificate, or the first one cannot be read.
    #[cfg(feature = "tower")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
    pub fn of_verified<D: AsRef<[u8]>>(
        chain: impl IntoIterator<Item = D>,
    ) -> Result<Self, super::TlsError> {
        let owned = |der: D| CertificateDer::from(der.as_ref().to_vec());
        let certificates = chain.into_iter().map(owned).collect();
        Self::of(certificates).map_err(|reason| super::TlsError::BadCertificate {
            place: "the chain of the peer".to_owned(),
            reason,
        })
    }

    /// The certificates that the peer has sent, as DER: its own, and those of the authorities
    /// between it and the trusted one.
    pub fn certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.0.certificates.iter().map(|der| &der[..])
    }

    /// The URIs that the peer's own certificate has as alternative names of its subject, such as
    /// `gorums://cluster/node/3`, in their order there.
    pub fn uris(&self) -> impl Iterator<Item = &str> {
        self.0.uris.iter().map(String::as_str)
    }

    /// The host names that it has so. One may begin with `*.`, for all hosts of a domain.
    pub fn dns_names(&self) -> impl Iterator<Item = &str> {
        self.0.dns_names.iter().map(String::as_str)
    }
}

impl fmt::Debug for TlsPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsPeer")
            .field("certificates", &self.0.certificates.len())
            .field("uris", &self.0.uris)
            .field("dns_names", &self.0.dns_names)
            .finish()
    }
}
