//! Authorities and certificates, good ones and bad ones.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::time::{Duration, SystemTime};

use gorums::tls::Pem;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
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
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("there is randomness");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
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
        change(&mut params);
        let signed = params.signed_by(&key, &self.issuer).expect("sound");
        Identity {
            certificate: signed.pem(),
            key: key.serialize_pem(),
        }
    }

    pub fn node(&self, node: u32) -> Identity {
        self.issue(node, |_| {})
    }
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
