//! TLS on the connections of a measurement, with a certificate that is made for it.

use std::sync::OnceLock;

use anyhow::{Context, Result};
use gorums::tls::{Pem, Tls};
use gorums::{Configuration, ConfigurationBuilder};
use rcgen::{CertificateParams, KeyPair};

use crate::args::Plan;

/// Where a server's process finds the certificate and the key of the program that started it.
const VARIABLE: &str = "GORUMS_BENCH_TLS";

/// What all connections of this process have; nothing where they are plain.
static SECURE: OnceLock<Secure> = OnceLock::new();

struct Secure {
    tls: Tls,
    pem: String,
}

impl Secure {
    fn of(pem: String) -> Result<Self> {
        let tls = Tls::builder()
            .trust(Pem::value(pem.clone()))
            .identity(Pem::value(pem.clone()), Pem::value(pem.clone()))
            .build()
            .context("TLS")?;
        Ok(Self { tls, pem })
    }
}

/// Has all connections from now on speak TLS, where that is to be measured.
pub(crate) fn begin(plan: &Plan) -> Result<()> {
    if !plan.tls {
        return Ok(());
    }
    let key = KeyPair::generate().context("a key")?;
    let params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    let certificate = params.self_signed(&key).context("a certificate")?;
    let secure = Secure::of(certificate.pem() + &key.serialize_pem())?;
    // A program has one plan.
    let _ = SECURE.set(secure);
    Ok(())
}

/// The same, where the program that has started this one does.
pub(crate) fn as_parent() -> Result<()> {
    if let Ok(pem) = std::env::var(VARIABLE) {
        let _ = SECURE.set(Secure::of(pem)?);
    }
    Ok(())
}

/// What tells a server's process to do as this one does.
pub(crate) fn for_child() -> Option<(&'static str, &'static str)> {
    SECURE.get().map(|secure| (VARIABLE, &*secure.pem))
}

pub(crate) fn tls() -> Option<&'static Tls> {
    SECURE.get().map(|secure| &secure.tls)
}

/// How a connection with TLS begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handshakes {
    /// Nothing is known of the server.
    Whole,
    /// With a session that an earlier connection has left, where there is one.
    Resumed,
}

/// Describes nodes to which a new connection is made, and not by what others have left unless asked.
pub(crate) fn new_connection(handshakes: Handshakes) -> Result<ConfigurationBuilder> {
    let builder = configuration();
    Ok(match (SECURE.get(), handshakes) {
        (Some(secure), Handshakes::Whole) => builder.transport(Secure::of(secure.pem.clone())?.tls),
        _ => builder,
    })
}

/// Describes nodes that are connected to as all connections are.
pub(crate) fn configuration() -> ConfigurationBuilder {
    let builder = Configuration::builder();
    match tls() {
        None => builder,
        Some(tls) => builder.transport(tls.clone()),
    }
}
