//! Why a handshake failed, as people read it.

use std::error::Error;
use std::{fmt, io};

use tokio_rustls::rustls::{
    AlertDescription, CertificateError, Error as RustlsError, InvalidMessage,
};

/// How many characters of an error are shown: it may list all names that a certificate has.
const LONGEST: usize = 512;

/// An error of rustls, with what to do about it.
#[derive(Debug)]
struct Failure {
    text: String,
    source: RustlsError,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

/// This end refuses the peer.
pub(super) fn refused(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("TLS: {text}"))
}

/// What a handshake failed with, explained where it is of TLS.
pub(super) fn explained(error: io::Error) -> io::Error {
    let of_tls = error.get_ref().and_then(|error| error.downcast_ref());
    let Some(of_tls): Option<&RustlsError> = of_tls else {
        return match error.kind() {
            kind @ io::ErrorKind::UnexpectedEof => {
                io::Error::new(kind, "TLS: the peer closed the connection in the handshake")
            }
            _ => error,
        };
    };
    let what: String = of_tls.to_string().chars().take(LONGEST).collect();
    let text = match hint(of_tls) {
        Some(hint) => format!("TLS: {what}: {hint}"),
        None => format!("TLS: {what}"),
    };
    let source = of_tls.clone();
    io::Error::new(error.kind(), Failure { text, source })
}

/// What it comes from, and what to do.
fn hint(error: &RustlsError) -> Option<&'static str> {
    Some(match error {
        RustlsError::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the peer does not seem to speak TLS"
        }
        RustlsError::NoCertificatesPresented => {
            "the peer has to show one, by TlsBuilder::identity if it is of this library"
        }
        RustlsError::NoApplicationProtocol => "HTTP/2 is spoken here, which is h2 in ALPN",
        RustlsError::PeerIncompatible(_) => "TLS 1.3 is spoken here, and no older version",
        RustlsError::InvalidCertificate(error) => of_certificate(error)?,
        RustlsError::AlertReceived(alert) => of_alert(*alert)?,
        _ => return None,
    })
}

fn of_certificate(error: &CertificateError) -> Option<&'static str> {
    use CertificateError as Bad;

    Some(match error {
        Bad::UnknownIssuer | Bad::BadSignature => {
            "no authority that is trusted here has made it; TlsBuilder::trust takes others"
        }
        Bad::Revoked => "a revocation list that was given to TlsBuilder::revocation has it",
        Bad::Expired | Bad::ExpiredContext { .. } => {
            "have it renewed, or check the clock of this machine"
        }
        Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
            "check the clock of this machine, and of the one that made it"
        }
        Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
            "dial the node by a name that its certificate has, or give TlsBuilder::server_name"
        }
        Bad::InvalidPurpose | Bad::InvalidPurposeContext { .. } => {
            "a server's certificate needs the extended key usage serverAuth, and a client's needs \
             clientAuth"
        }
        _ => return None,
    })
}

fn of_alert(alert: AlertDescription) -> Option<&'static str> {
    use AlertDescription as Alert;

    Some(match alert {
        Alert::UnknownCA => {
            "the peer does not trust the authority that made the certificate of this process"
        }
        Alert::CertificateExpired => {
            "by the peer's clock, the certificate of this process is not valid now"
        }
        Alert::DecryptError => {
            "the certificate of this process is not signed by the authority that the peer knows by \
             that name"
        }
        Alert::CertificateRevoked => {
            "the certificate of this process has been revoked: have another one made"
        }
        Alert::CertificateRequired => {
            "the peer asks for a certificate; give TlsBuilder::identity one"
        }
        Alert::UnsupportedCertificate => {
            "the certificate of this process may not be used for this end, by its extended key \
             usage"
        }
        Alert::BadCertificate | Alert::CertificateUnknown => {
            "the peer does not take the certificate of this process, for its name perhaps"
        }
        Alert::ProtocolVersion => "the peer does not speak TLS 1.3",
        Alert::NoApplicationProtocol => "the peer does not speak HTTP/2",
        _ => return None,
    })
}
