use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::pki_types::ServerName;

use super::error::TlsError;
use super::exchange::Exchange;
use super::handshake::{Tls, server_name};
use super::material::{ClientCertificates, Rules};
use super::pem::Pem;
use super::sources::Sources;
use super::watch;
use crate::runtime::{Clock, Sockets, SystemClock, Transport, paced};

/// How often files are looked at where nobody says otherwise.
pub(crate) const RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// Describes a [`Tls`].
#[must_use = "nothing happens before `build`"]
pub struct TlsBuilder {
    below: Arc<dyn Transport>,
    sources: Sources,
    client_certificates: ClientCertificates,
    server_name: Option<String>,
    reload_every: Option<Duration>,
    clock: Arc<dyn Clock>,
}

impl TlsBuilder {
    pub(super) fn new() -> Self {
        Self {
            below: Arc::new(Sockets),
            sources: Sources::default(),
            client_certificates: ClientCertificates::default(),
            server_name: None,
            reload_every: None,
            clock: Arc::new(SystemClock),
        }
    }

    /// The certificate of this process and its private key. A server needs it, and a client shows it
    /// to servers that ask for one.
    ///
    /// The certificates are the process' own one, and behind it those of the authorities between it
    /// and the one that peers trust, where there are any. The key is PKCS #8, PKCS #1 or SEC 1, and
    /// not encrypted.
    pub fn identity(mut self, certificates: Pem, key: Pem) -> Self {
        self.sources.identity = Some((certificates, key));
        self
    }

    /// Trusts the authorities with these certificates: those of servers that this process connects
    /// to, and of clients that it asks for certificates, are to be made by one of them. May be
    /// called again for others. No authority is trusted that is not given here, those of the system
    /// neither.
    pub fn trust(mut self, roots: Pem) -> Self {
        self.sources.roots.push(roots);
        self
    }

    /// Whether servers ask their clients for certificates. Default: [`ClientCertificates::None`].
    /// Peers of a replicated system want [`Required`](ClientCertificates::Required): otherwise
    /// whoever can connect is served.
    pub fn client_certificates(mut self, wanted: ClientCertificates) -> Self {
        self.client_certificates = wanted;
        self
    }

    /// The name that the certificates of all nodes are to have, and that servers are asked for.
    /// Default: for each node the host name or the IP address that it is dialled by.
    ///
    /// Nodes with addresses that are in no certificate need this: unix sockets, and hosts whose
    /// addresses change. All nodes need a certificate with the one name then, and a client cannot
    /// tell one node from another.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// The connections below, with whose addresses nodes are dialled and servers listen. Default:
    /// [`Sockets`].
    pub fn over(mut self, transport: impl Transport) -> Self {
        self.below = Arc::new(transport);
        self
    }

    /// Refuses the certificates that are in these lists (X.509 CRL v2, as PEM; there may be several),
    /// of nodes as well as of clients, and those that are made by an authority that is in one. May be
    /// called again for others. Needs [`trust`](Self::trust).
    ///
    /// An authority of which there is no list has revoked nothing. Of several lists of one authority
    /// the newest counts. One that is out of date, by its own word, is used on, and that is logged as a
    /// warning when it is read and every hour while files are [looked at](Self::reload_every): what it
    /// has stays revoked, and a cluster does not end because nobody has made a new list. A list of an
    /// authority that is not trusted refuses nobody. What was issued for a part of an authority's
    /// certificates, or lists changes only, is not supported.
    ///
    /// ```no_run
    /// # fn run() -> Result<(), gorums::tls::TlsError> {
    /// use gorums::tls::{Pem, Tls};
    ///
    /// let tls = Tls::builder()
    ///     .trust(Pem::file("certs/ca.pem"))
    ///     .revocation(Pem::file("certs/revoked.pem"))
    ///     .watch_files()
    ///     .build()?;
    /// # drop(tls);
    /// # Ok(())
    /// # }
    /// ```
    pub fn revocation(mut self, lists: Pem) -> Self {
        self.sources.revocation.push(lists);
        self
    }

    /// Looks at the files again every so often, and takes over what has changed, as
    /// [`Tls::reload`] does. Default: they are read once. A millisecond at the least.
    ///
    /// Their contents are compared, so a link that leads elsewhere is noticed too, as Kubernetes
    /// exchanges what it mounts. What has changed is read again a second later, or after the interval
    /// where that is shorter, and taken over when it has not changed since: a file that is being
    /// written, or a certificate whose key has yet to be, is waited for. What cannot be used is not
    /// taken over; it is logged as a warning, again every hour, and tried again each time.
    ///
    /// Files are read on a thread for blocking work. The task that has it done begins with the first use
    /// within a tokio runtime, [`build`](Self::build) included, and ends with the last clone of the
    /// [`Tls`], and of what listens by it. Where its runtime ends before, it begins anew with the next
    /// use in another one.
    ///
    /// Pauses are those of [`clock`](Self::clock). In a simulation, give values and
    /// [exchange](Tls::exchange) them: the thread of files knows no simulated time.
    pub fn reload_every(mut self, interval: Duration) -> Self {
        self.reload_every = Some(paced(interval));
        self
    }

    /// [`reload_every`](Self::reload_every) 10 s.
    pub fn watch_files(self) -> Self {
        self.reload_every(RELOAD_INTERVAL)
    }

    /// By which time of day certificates are valid or not, and by which time files are looked at and
    /// connections end that are not to last. Default: [`SystemClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Reads the files, and checks what is in them. This blocks the thread while files are read: a
    /// program does it when it begins. What changes in a file later is noticed where that is
    /// [asked for](Self::reload_every).
    ///
    /// # Errors
    /// A file cannot be read, has not in it what it should, or nobody could connect with what is in
    /// it: see [`TlsError`].
    pub fn build(self) -> Result<Tls, TlsError> {
        let name = self.server_name.map(checked_name).transpose()?;
        let rules = Rules {
            client_certificates: self.client_certificates,
            clock: self.clock,
        };
        let mut exchange = Exchange::new(self.sources, rules)?;
        if let Some(interval) = self.reload_every {
            exchange = exchange.watched(move |watched| Box::pin(watch::run(watched, interval)));
        }
        let exchange = Arc::new(exchange);
        exchange.keep_watch();
        Ok(Tls::new(self.below, exchange, name))
    }
}

impl fmt::Debug for TlsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsBuilder")
            .field("identity", &self.sources.identity)
            .field("roots", &self.sources.roots)
            .field("revocation", &self.sources.revocation)
            .field("client_certificates", &self.client_certificates)
            .field("server_name", &self.server_name)
            .field("reload_every", &self.reload_every)
            .finish_non_exhaustive()
    }
}

fn checked_name(name: String) -> Result<ServerName<'static>, TlsError> {
    server_name(&name).ok_or(TlsError::BadServerName { name })
}
