//! Lists of certificates that their authorities have revoked.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::SystemTime;

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, SignatureVerificationAlgorithm,
};
use x509_parser::asn1_rs::Any;
use x509_parser::oid_registry::OID_X509_EXT_ISSUER_DISTRIBUTION_POINT;
use x509_parser::prelude::{
    CertificateRevocationList, FromDer, SubjectPublicKeyInfo, X509Certificate,
};

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
            let read = read(pem, der, authorities, provider);
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

/// Reads a list, whose signature is to be right where its authority is known here, and of an
/// algorithm that rustls knows. If it could not be verified later, rustls would refuse every
/// certificate of the authority.
fn read(
    pem: &Pem,
    der: CertificateRevocationListDer<'static>,
    authorities: &[CertificateDer<'static>],
    provider: &CryptoProvider,
) -> Result<RevocationList, String> {
    let (_, parsed) =
        CertificateRevocationList::from_der(&der).map_err(|error| error.to_string())?;
    let mut extensions = parsed.extensions().iter();
    if extensions.any(|extension| extension.oid == OID_X509_EXT_ISSUER_DISTRIBUTION_POINT) {
        // It would be consulted for those certificates only that name the same point, and the others
        // would be taken for ones that nobody has revoked.
        return Err(
            "it has an issuing distribution point (the extension 2.5.29.28), by which it is of some \
             certificates of its authority only; leave that out"
                .to_owned(),
        );
    }
    let signature = Signature::of(&der, &parsed, provider)?;
    let (mut named, mut verified) = (0, 0);
    for authority in authorities {
        let Ok((_, authority)) = X509Certificate::from_der(authority) else {
            continue;
        };
        if authority.subject().as_raw() == parsed.issuer().as_raw() {
            named += 1;
            verified += usize::from(signature.is_of(authority.public_key()));
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

/// The signature of a list, which is verified as rustls does it later.
struct Signature<'a> {
    /// Those that verify signatures of this algorithm, each of them for keys of one kind.
    algorithms: Vec<&'static dyn SignatureVerificationAlgorithm>,
    signed: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Signature<'a> {
    fn of(
        der: &[u8],
        parsed: &'a CertificateRevocationList<'_>,
        provider: &CryptoProvider,
    ) -> Result<Self, String> {
        // What was signed, and then by which algorithm, as it is written: these bytes are compared.
        let used = (|| {
            let (_, list) = Any::from_der(der).ok()?;
            let (behind, _) = Any::from_der(list.data).ok()?;
            let (_, algorithm) = Any::from_der(behind).ok()?;
            Some(algorithm.data)
        })();
        let known = provider.signature_verification_algorithms.all.iter();
        let algorithms: Vec<_> = known
            .copied()
            .filter(|known| used == Some(known.signature_alg_id().as_ref()))
            .collect();
        if algorithms.is_empty() {
            return Err(format!(
                "its signature is of an algorithm that is not supported, {}: ECDSA, Ed25519 and RSA \
                 are, with SHA-256 or better",
                parsed.signature_algorithm.algorithm.to_id_string()
            ));
        }
        Ok(Self {
            algorithms,
            signed: parsed.tbs_cert_list.as_ref(),
            signature: &parsed.signature_value.data,
        })
    }

    /// Whether this key has made it.
    fn is_of(&self, key: &SubjectPublicKeyInfo<'_>) -> bool {
        let kind = (|| {
            let (_, info) = Any::from_der(key.raw).ok()?;
            let (_, kind) = Any::from_der(info.data).ok()?;
            Some(kind.data)
        })();
        self.algorithms.iter().any(|known| {
            kind == Some(known.public_key_alg_id().as_ref())
                && known
                    .verify_signature(&key.subject_public_key.data, self.signed, self.signature)
                    .is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer,
        KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
        PKCS_ED25519, SerialNumber, SignatureAlgorithm,
    };
    use tokio_rustls::rustls::crypto::ring;

    use super::*;

    /// An authority whose key is of this kind, and a list that it has signed.
    fn authority(kind: &'static SignatureAlgorithm) -> (CertificateDer<'static>, Vec<u8>) {
        let key = KeyPair::generate_for(kind).expect("there is randomness");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).expect("sound").der().clone();
        let now = SystemTime::now();
        let list = CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (now + std::time::Duration::from_secs(60)).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&Issuer::new(params, key)).expect("sound");
        (certificate, list.der().to_vec())
    }

    fn read_of(authority: &CertificateDer<'static>, list: Vec<u8>) -> Result<(), String> {
        let pem = Pem::value("");
        let authorities = [authority.clone()];
        let provider = ring::default_provider();
        read(&pem, list.into(), &authorities, &provider).map(|_| ())
    }

    #[test]
    fn the_signature_is_that_of_the_key_of_the_authority() {
        for kind in [
            &PKCS_ECDSA_P256_SHA256,
            &PKCS_ECDSA_P384_SHA384,
            &PKCS_ED25519,
        ] {
            let (certificate, list) = authority(kind);
            assert_eq!(read_of(&certificate, list), Ok(()));
        }
        let all = [
            authority(&PKCS_ECDSA_P256_SHA256),
            authority(&PKCS_ECDSA_P256_SHA256),
            authority(&PKCS_ED25519),
        ];
        for (at, (_, list)) in all.iter().enumerate() {
            let (other, _) = &all[(at + 1) % all.len()];
            let error = read_of(other, list.clone()).expect_err("it is of another key");
            assert!(error.contains("not that of the authority"), "{error}");
        }
    }

    #[test]
    fn an_algorithm_that_is_not_supported_is_told_apart() {
        let (certificate, mut list) = authority(&PKCS_ECDSA_P256_SHA256);
        // ECDSA with SHA-256, and with SHA-224, as they are written.
        let (sha_256, sha_224) = (
            [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02],
            [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x01],
        );
        let mut at = 0;
        while let Some(found) = list[at..].windows(8).position(|bytes| bytes == sha_256) {
            at += found;
            list[at..at + 8].copy_from_slice(&sha_224);
        }
        let error = read_of(&certificate, list.clone()).expect_err("nobody could verify it");
        assert!(
            error.contains("not supported, 1.2.840.10045.4.3.1: ECDSA"),
            "{error}"
        );
        // Whoever has made it.
        let (other, _) = authority(&PKCS_ED25519);
        read_of(&other, list).expect_err("nobody could verify it");
    }
}
