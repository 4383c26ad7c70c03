use std::error::Error;
use std::path::PathBuf;
use std::{fmt, io};

/// What is wrong with certificates, keys and settings of one's own.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsError {
    /// A file is missing, is not to be read by this process, is no regular file (a pipe, a folder, a
    /// device), or is larger than 1 MiB.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What was to be in it.
        wanted: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// PEM that cannot be read as such.
    Malformed {
        /// The file, or that it was a value.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no certificate where there should be some.
    NoCertificate {
        /// The file, or that it was a value.
        place: String,
        /// There is a private key in it.
        has_key: bool,
    },
    /// There is no private key where there should be one.
    NoKey {
        /// The file, or that it was a value.
        place: String,
        /// There is one that is encrypted.
        is_encrypted: bool,
    },
    /// There are several private keys where there should be one.
    SeveralKeys {
        /// The file, or that it was a value.
        place: String,
        /// How many there are.
        keys: usize,
    },
    /// A private key of a kind that is not supported, or that is damaged.
    BadKey {
        /// The file, or that it was a value.
        place: String,
        /// What rustls says.
        reason: String,
    },
    /// A certificate that cannot be read, or is of a form that nobody could check.
    BadCertificate {
        /// The file, or that it was a value.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The private key is not that of the certificate.
    KeyMismatch {
        /// Where the certificate is.
        certificate: String,
        /// Where the key is.
        key: String,
    },
    /// The certificate of this process has expired: every peer would refuse it. One that has expired
    /// since it was taken keeps nothing else from being exchanged, and is warned of.
    Expired {
        /// Where the certificate is.
        certificate: String,
        /// When it did, as text.
        since: String,
    },
    /// The certificate of this process is not valid yet: every peer would refuse it.
    NotYetValid {
        /// Where the certificate is.
        certificate: String,
        /// When it will be, as text.
        from: String,
    },
    /// There is no revocation list where there should be some.
    NoRevocationList {
        /// The file, or that it was a value.
        place: String,
    },
    /// A revocation list that cannot be read, is of a kind that is not supported (of changes only, or
    /// of some of its authority's certificates only), is signed by an algorithm that is not, or was not
    /// signed by the authority that it names.
    BadRevocationList {
        /// The file, or that it was a value.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There are revocation lists, and no authority is trusted whose certificates they could be of.
    RevocationWithoutRoots,
    /// Clients are to show certificates, and no authority is trusted to have made them.
    NoRoots,
    /// There is no certificate of this process, which is to listen.
    NoIdentity,
    /// There is neither an identity nor a trusted authority: nobody could listen or connect so.
    NothingGiven,
    /// The server name is neither a host name nor an IP address.
    BadServerName {
        /// As it was given.
        name: String,
    },
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable {
                path,
                wanted,
                source,
            } => {
                let path = path.display();
                write!(f, "cannot read the {wanted} in {path}: {source}")?;
                match source.kind() {
                    io::ErrorKind::NotFound => f.write_str(
                        "; check the path, which is relative to the folder that the program was \
                         started in",
                    ),
                    io::ErrorKind::PermissionDenied => {
                        f.write_str("; let the user read it whom the program runs as")
                    }
                    _ => Ok(()),
                }
            }
            Self::Malformed { place, reason } => {
                write!(f, "{place} is not PEM: {reason}; write it anew")
            }
            Self::NoCertificate { place, has_key } => {
                write!(f, "there is no certificate in {place}")?;
                match has_key {
                    true => f.write_str(", but a private key: give the two in their order"),
                    false => f.write_str(": it should have a section BEGIN CERTIFICATE, as PEM"),
                }
            }
            Self::NoKey {
                place,
                is_encrypted,
            } => {
                write!(f, "there is no private key in {place}")?;
                match is_encrypted {
                    true => f.write_str(
                        " that is not encrypted: decrypt it, by `openssl pkey -in … -out …`",
                    ),
                    false => f.write_str(": it should have a section BEGIN PRIVATE KEY, as PEM"),
                }
            }
            Self::SeveralKeys { place, keys } => write!(
                f,
                "there are {keys} private keys in {place}: leave the one of the certificate"
            ),
            Self::BadKey { place, reason } => write!(
                f,
                "cannot use the private key in {place}: {reason}; RSA, ECDSA (P-256, P-384) and \
                 Ed25519 keys can be used"
            ),
            Self::BadCertificate { place, reason } => write!(
                f,
                "cannot use a certificate in {place}: {reason}; have it made anew, as X.509 v3"
            ),
            Self::KeyMismatch { certificate, key } => write!(
                f,
                "the private key in {key} is not that of the certificate in {certificate}: give \
                 the two that were made together, with the certificate of this process first in \
                 its file"
            ),
            Self::Expired { certificate, since } => write!(
                f,
                "the certificate in {certificate} has expired ({since}): have it renewed"
            ),
            Self::NotYetValid { certificate, from } => write!(
                f,
                "the certificate in {certificate} is not valid yet (from {from}): check the clock \
                 of this machine, and of the one that made it"
            ),
            Self::NoRevocationList { place } => write!(
                f,
                "there is no revocation list in {place}: it should have a section BEGIN X509 CRL, as \
                 PEM, also where nothing is revoked"
            ),
            Self::BadRevocationList { place, reason } => write!(
                f,
                "cannot use a revocation list in {place}: {reason}; have its authority make it anew, \
                 as a whole X.509 CRL v2"
            ),
            Self::RevocationWithoutRoots => f.write_str(
                "there is a revocation list, and no authority is trusted whose certificates it could \
                 be of: give its certificate to TlsBuilder::trust",
            ),
            Self::NoRoots => f.write_str(
                "clients are to show certificates, and no authority is trusted: give its \
                 certificate to TlsBuilder::trust",
            ),
            Self::NoIdentity => f.write_str(
                "a server needs a certificate and its private key: give them to \
                 TlsBuilder::identity",
            ),
            Self::NothingGiven => f.write_str(
                "there is no certificate and no trusted authority: give TlsBuilder::identity to \
                 serve, and TlsBuilder::trust to connect",
            ),
            Self::BadServerName { name } => write!(
                f,
                "the server name {name:?} is neither a host name nor an IP address: give it \
                 without a port"
            ),
        }
    }
}

impl Error for TlsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            _ => None,
        }
    }
}
