//! When certificates are valid.

use std::time::{SystemTime, UNIX_EPOCH};

use x509_parser::prelude::{FromDer, X509Certificate};

/// A certificate that is not valid at present.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Invalid {
    Expired { since: String },
    NotYet { from: String },
    Unreadable { reason: String },
}

/// Whether the certificate, as DER, is valid now.
pub(super) fn check(certificate: &[u8]) -> Result<(), Invalid> {
    let validity = match X509Certificate::from_der(certificate) {
        Ok((_, certificate)) => certificate.validity().clone(),
        Err(error) => {
            return Err(Invalid::Unreadable {
                reason: error.to_string(),
            });
        }
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    // Before 1970 nothing has begun.
    let now = now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    if validity.not_after.timestamp() < now {
        Err(Invalid::Expired {
            since: validity.not_after.to_string(),
        })
    } else if validity.not_before.timestamp() > now {
        Err(Invalid::NotYet {
            from: validity.not_before.to_string(),
        })
    } else {
        Ok(())
    }
}
