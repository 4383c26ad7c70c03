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

/// Whether the certificate, as DER, is valid at this time.
pub(super) fn check(certificate: &[u8], now: SystemTime) -> Result<(), Invalid> {
    let validity = match X509Certificate::from_der(certificate) {
        Ok((_, certificate)) => certificate.validity().clone(),
        Err(error) => {
            return Err(Invalid::Unreadable {
                reason: error.to_string(),
            });
        }
    };
    let now = seconds(now);
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

/// The last seconds in which these certificates, as DER, are valid, since 1970.
pub(super) fn ends<'a>(certificates: impl IntoIterator<Item = &'a [u8]>) -> Vec<i64> {
    let ends = certificates.into_iter().filter_map(|der| {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        Some(certificate.validity().not_after.timestamp())
    });
    ends.collect()
}

/// As certificates count, since 1970. Before that nothing has begun.
pub(super) fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}
