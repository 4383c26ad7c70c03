use super::error::TlsError;
use super::pem::Pem;

/// Where certificates, keys and revocation lists come from.
#[derive(Debug, Clone, Default)]
pub(super) struct Sources {
    /// The certificate of this process with those behind it, and its key.
    pub(super) identity: Option<(Pem, Pem)>,
    pub(super) roots: Vec<Pem>,
    pub(super) revocation: Vec<Pem>,
}

/// What is in the sources, byte by byte.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) identity: Option<(Vec<u8>, Vec<u8>)>,
    pub(super) roots: Vec<Vec<u8>>,
    pub(super) revocation: Vec<Vec<u8>>,
}

impl Sources {
    /// Reads all of them, which blocks the thread where they are files.
    pub(super) fn read(&self) -> Result<Contents, TlsError> {
        let all = |pems: &[Pem], wanted| -> Result<Vec<_>, _> {
            pems.iter().map(|pem| pem.read(wanted)).collect()
        };
        let identity = self.identity.as_ref().map(|(certificates, key)| {
            Ok::<_, TlsError>((certificates.read("certificates")?, key.read("private key")?))
        });
        Ok(Contents {
            identity: identity.transpose()?,
            roots: all(&self.roots, "certificates")?,
            revocation: all(&self.revocation, "revocation lists")?,
        })
    }
}
