//! Lists of certificates that their authorities have revoked.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::SystemTime;

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::error::TlsError;
use super::pem::Pem;
use super::validity::seconds;

/// A list that can be used.
pub(super) struct RevocationList {
    pub(super) place: String,
    pub(super) der: CertificateRevocationListDer<'static>,
    /// The authority that has made it.
    pub(super) authority: String,
    /// How many certificates it has.
    pub(super) revoked: usize,
    /// When it was made, in seconds since 1970.
    made: i64,
    /// When there should be another one, in the same seconds and as text.
    next: Option<(i64, String)>,
}

impl RevocationList {
    /// Since when there should be a newer one, where there should be.
    pub(super) fn outdated_since(&self, now: SystemTime) -> Option<&str> {
        let (next, text) = self.next.as_ref()?;
        (*next < seconds(now)).then_some(text)
    }
}

/// The lists that are in these places, the newest first: of several of one authority the first one
/// is looked at.
pub(super) fn lists(
    given: &[Pem],
    contents: &[Vec<u8>],
    roots: &Arc<RootCertStore>,
    authorities: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> Result<Vec<RevocationList>, TlsError> {
    let mut lists = Vec::new();
    for (pem, bytes) in given.iter().zip(contents) {
        for der in pem.revocation_lists(bytes)? {
            let read = read(pem, der, authorities);
            let list = read.and_then(|list| {
                // Whether rustls can use it: by itself, so that it is known which one it is.
                WebPkiServerVerifier::builder_with_provider(
                    Arc::clone(roots),
                    Arc::clone(provider),
                )
                .with_crls([list.der.clone()])
                .build()
                .map_err(|error| error.to_string())?;
                Ok(list)
            });
            lists.push(list.map_err(|reason| TlsError::BadRevocationList {
                place: pem.place(),
                reason,
            })?);
        }
    }
    lists.sort_by_key(|list| Reverse(list.made));
    Ok(lists)
}

/// Reads a list, whose signature is to be right where its authority is known here. It could not be
/// verified later: rustls would refuse every certificate of the authority then.
fn read(
    pem: &Pem,
    der: CertificateRevocationListDer<'static>,
    authorities: &[CertificateDer<'static>],
) -> Result<RevocationList, String> {
    let (_, parsed) =
        CertificateRevocationList::from_der(&der).map_err(|error| error.to_string())?;
    let (mut named, mut verified) = (0, 0);
    for authority in authorities {
        let Ok((_, authority)) = X509Certificate::from_der(authority) else {
            continue;
        };
        if authority.subject().as_raw() == parsed.issuer().as_raw() {
            named += 1;
            verified += usize::from(parsed.verify_signature(authority.public_key()).is_ok());
        }
    }
    if verified < named {
        let authority = parsed.issuer();
        return Err(match verified {
            0 => format!("its signature is not that of the authority that it names, {authority}"),
            _ => format!(
                "{named} authorities are trusted that have the name {authority}, and not all of \
                 them have signed it: give authorities names of their own"
            ),
        });
    }
    let next = parsed.next_update();
    Ok(RevocationList {
        place: pem.place(),
        authority: parsed.issuer().to_string(),
        revoked: parsed.iter_revoked_certificates().count(),
        made: parsed.last_update().timestamp(),
        next: next.map(|next| (next.timestamp(), next.to_string())),
        der,
    })
}
