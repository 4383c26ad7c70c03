//! Authorities and certificates, good ones and bad ones.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use gorums::tls::Pem;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
    CrlIssuingDistributionPoint, CrlScope, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate with its key.
#[derive(Clone)]
pub struct Identity {
    pub certificate: String,
    pub key: String,
    pub serial: u64,
}

/// Counts the certificates of all authorities.
static SERIAL: AtomicU64 = AtomicU64::new(1);

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("there is randomness");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).expect("sound").pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    pub fn pem(&self) -> Pem {
        Pem::value(self.pem.clone())
    }

    pub fn text(&self) -> &str {
        &self.pem
    }

    /// Of a node of the cluster `test`, for loopback; changed as asked.
    pub fn issue(&self, node: u32, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let key = KeyPair::generate().expect("there is randomness");
        let names = ["localhost", "127.0.0.1", "::1", "a", "b"].map(str::to_owned);
        let mut params = CertificateParams::new(names).expect("legal names");
        let uri = uri(node).try_into().expect("ASCII");
        params.subject_alt_names.push(SanType::URI(uri));
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        params.serial_number = Some(SerialNumber::from(serial));
        change(&mut params);
        let signed = params.signed_by(&key, &self.issuer).expect("sound");
        Identity {
            certificate: signed.pem(),
            key: key.serialize_pem(),
            serial,
        }
    }

    /// Its list of these revoked certificates, made so many days ago, until when there should be
    /// another one a day later.
    pub fn revoked(&self, identities: &[&Identity], days_ago: u32) -> String {
        self.revoked_of(identities, days_ago, None)
    }

    /// A list that is of those certificates only that name this place, where nothing is revoked.
    pub fn revoked_for(&self, uri: &str, scope: Option<CrlScope>) -> String {
        let point = CrlIssuingDistributionPoint {
            distribution_point: CrlDistributionPoint {
                uris: vec![uri.to_owned()],
            },
            scope,
        };
        self.revoked_of(&[], 0, Some(point))
    }

    fn revoked_of(
        &self,
        identities: &[&Identity],
        days_ago: u32,
        point: Option<CrlIssuingDistributionPoint>,
    ) -> String {
        let made = SystemTime::now() - DAY * days_ago;
        let revoked = identities.iter().map(|identity| RevokedCertParams {
            serial_number: SerialNumber::from(identity.serial),
            revocation_time: made.into(),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: made.into(),
            next_update: (made + DAY).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: point,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("it may sign lists");
        list.pem().expect("sound")
    }

    pub fn node(&self, node: u32) -> Identity {
        self.issue(node, |_| {})
    }
}

/// Of a client, which is no node.
pub fn client(authority: &Authority) -> Identity {
    authority.issue(0, |params| {
        let is_uri = |name: &SanType| matches!(name, SanType::URI(_));
        params.subject_alt_names.retain(|name| !is_uri(name));
    })
}

pub fn uri(node: u32) -> String {
    format!("gorums://test/node/{node}")
}

impl Identity {
    pub fn pems(&self) -> (Pem, Pem) {
        let certificate = Pem::value(self.certificate.clone());
        (certificate, Pem::value(self.key.clone()))
    }
}

// What makes a certificate a bad one.

pub fn expired(params: &mut CertificateParams) {
    params.not_before = (SystemTime::now() - 2 * DAY).into();
    params.not_after = (SystemTime::now() - DAY).into();
}

pub fn not_yet_valid(params: &mut CertificateParams) {
    params.not_before = (SystemTime::now() + DAY).into();
    params.not_after = (SystemTime::now() + 2 * DAY).into();
}

pub fn of_another_host(params: &mut CertificateParams) {
    let name = "elsewhere.example".try_into().expect("ASCII");
    params.subject_alt_names = vec![SanType::DnsName(name)];
}

pub fn for_servers_only(params: &mut CertificateParams) {
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
}

pub fn for_clients_only(params: &mut CertificateParams) {
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
}
