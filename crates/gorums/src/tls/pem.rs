use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
};

use super::error::TlsError;

/// How many bytes a file has at most: no chain and no set of roots comes near, and a revocation list
/// has room for some 25,000 certificates.
pub(crate) const LARGEST: u64 = 1 << 20;

/// Certificates, a private key or revocation lists as PEM, in a file or in memory.
///
/// What it shows of itself ([`Debug`](fmt::Debug), and in errors) is where it is, and never what is
/// in it.
#[derive(Clone)]
pub struct Pem(From);

#[derive(Clone)]
enum From {
    File(PathBuf),
    Value(Vec<u8>),
}

impl Pem {
    /// What is in this file when [`TlsBuilder::build`](super::TlsBuilder::build) reads it, and when
    /// it is [read again](super::Tls::reload); 1 MiB at the most, in a regular file or behind a link
    /// to one.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(From::File(path.into()))
    }

    /// These bytes.
    pub fn value(bytes: impl Into<Vec<u8>>) -> Self {
        Self(From::Value(bytes.into()))
    }

    /// The bytes, read now where they are in a file: this blocks.
    pub(super) fn read(&self, wanted: &'static str) -> Result<Vec<u8>, TlsError> {
        match &self.0 {
            From::Value(bytes) => Ok(bytes.clone()),
            From::File(path) => read(path).map_err(|source| TlsError::Unreadable {
                path: path.clone(),
                wanted,
                source,
            }),
        }
    }

    /// The certificates that were read, of which there is one at least.
    pub(super) fn certificates(
        &self,
        bytes: &[u8],
    ) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
        let found = found.map_err(|error| self.malformed(&error))?;
        if found.is_empty() {
            return Err(TlsError::NoCertificate {
                place: self.place(),
                has_key: contains(bytes, b"PRIVATE KEY-----"),
            });
        }
        Ok(found)
    }

    /// The revocation lists that were read, of which there is one at least.
    pub(super) fn revocation_lists(
        &self,
        bytes: &[u8],
    ) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
        let found: Result<Vec<_>, _> =
            CertificateRevocationListDer::pem_slice_iter(bytes).collect();
        let found = found.map_err(|error| self.malformed(&error))?;
        if found.is_empty() {
            return Err(TlsError::NoRevocationList {
                place: self.place(),
            });
        }
        Ok(found)
    }

    /// The private key that was read, of which there is one.
    pub(super) fn key(&self, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
        let found: Result<Vec<_>, _> = PrivateKeyDer::pem_slice_iter(bytes).collect();
        let mut found = found.map_err(|error| self.malformed(&error))?;
        match (found.pop(), found.len()) {
            (Some(key), 0) => Ok(key),
            (Some(_), others) => Err(TlsError::SeveralKeys {
                place: self.place(),
                keys: others + 1,
            }),
            (None, _) => Err(TlsError::NoKey {
                place: self.place(),
                is_encrypted: contains(bytes, b"-----BEGIN ENCRYPTED PRIVATE KEY-----"),
            }),
        }
    }

    /// Where it is, as errors name it.
    pub(super) fn place(&self) -> String {
        match &self.0 {
            From::File(path) => path.display().to_string(),
            From::Value(_) => "the PEM value".to_owned(),
        }
    }

    fn malformed(&self, error: &pem::Error) -> TlsError {
        TlsError::Malformed {
            place: self.place(),
            reason: match error {
                // The library shows the lines as numbers, and they may be of a key.
                pem::Error::MissingSectionEnd { .. } => "a section has no END line".to_owned(),
                pem::Error::IllegalSectionStart { .. } => "a BEGIN line is malformed".to_owned(),
                other => other.to_string(),
            },
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // To open a pipe blocks until somebody writes to it, and what was read of it is gone.
    if !std::fs::metadata(path)?.is_file() {
        let text = "it is no regular file, but a folder, a pipe or a device: write it to a file, or \
                    give what is in it as a value (Pem::value)";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(LARGEST + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        let text = "the file has more than 1 MiB, and is not read";
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            From::File(path) => f.debug_tuple("Pem::file").field(path).finish(),
            From::Value(bytes) => write!(f, "Pem::value({} bytes)", bytes.len()),
        }
    }
}
