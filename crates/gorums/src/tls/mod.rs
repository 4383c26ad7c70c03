//! TLS: connections that nobody else reads or writes, and that prove who the peer is. With the
//! feature `tls`.
//!
//! [`Tls`] is a transport: the same value serves clients
//! ([`ConfigurationBuilder::transport`](crate::ConfigurationBuilder::transport)) and servers
//! ([`ServerBuilder::transport`](crate::ServerBuilder::transport)). It is TLS 1.3 by [rustls], with
//! the cryptography of *ring*, and with HTTP/2 as what both ends agree on (ALPN `h2`).
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use gorums::tls::{ClientCertificates, Pem, Tls};
//! use gorums::{Configuration, Server, ServerCtx, Status};
//!
//! // `cargo xtask certs certs` has made these, to try it out.
//! let tls = Tls::builder()
//!     .trust(Pem::file("certs/ca.pem"))
//!     .identity(Pem::file("certs/node-1.pem"), Pem::file("certs/node-1.key"))
//!     .client_certificates(ClientCertificates::Required)
//!     .build()?;
//!
//! let server = Server::builder()
//!     .transport(tls.clone())
//!     .unary("demo.Who.AmI", |ctx: ServerCtx, (): ()| async move {
//!         let peer = ctx.proven::<gorums::tls::TlsPeer>();
//!         let name = peer.and_then(|peer| peer.uris().next().map(str::to_owned));
//!         name.ok_or_else(|| Status::unauthenticated("no name in the certificate"))
//!     })
//!     .bind("127.0.0.1:8443")
//!     .await?;
//! tokio::spawn(server.serve());
//!
//! let replicas = Configuration::builder()
//!     .transport(tls)
//!     .nodes(["localhost:8443"])
//!     .connect()?;
//! # drop(replicas);
//! # Ok(())
//! # }
//! ```
//!
//! # What is proven
//!
//! A client takes a server whose certificate is of a trusted authority, is valid now, may be used by
//! servers, and has the name or IP address of the node that was dialled. A server that asks for
//! certificates takes a client whose certificate is of a trusted authority, is valid now, and may be
//! used by clients; **whom** it names is for the server to look at: see [`TlsPeer`].
//!
//! A certificate proves a node's *id* where servers and clients are told how: by [`NodeUris`], given
//! to [`ServerBuilder::node_proof`](crate::ServerBuilder::node_proof) and
//! [`ConfigurationBuilder::node_proof`](crate::ConfigurationBuilder::node_proof). Without that, and
//! with [`trust_claimed_ids`](crate::ServerBuilder::trust_claimed_ids), whoever has any certificate
//! of the authority may claim any id.
//!
//! The time of day is that of [`TlsBuilder::clock`], the system's by default. A certificate that is in
//! a list of [`TlsBuilder::revocation`] is refused.
//!
//! # Rotation
//!
//! Certificates, authorities and revocation lists are exchanged while connections are made and
//! accepted: by [`Tls::reload`], by [`Tls::exchange`], or by looking at files
//! ([`TlsBuilder::reload_every`]). What cannot be used changes nothing. From then on no session is
//! resumed that was made before. Connections that stand go on, except those with peers that would be
//! refused by now: they are wound down as those that are
//! [old](crate::ServerBuilder::max_connection_age), within 5 s after the peer's certificate has expired
//! or after what was exchanged refuses it, and without the loss of a call. A client does so only where
//! the node does not call it over the same connection.
//!
//! # What fails
//!
//! What is wrong with files of one's own is an [`TlsError`] of [`TlsBuilder::build`], before anything
//! listens or connects. A handshake that fails ends the connection, and the peer is told by an alert
//! of TLS; a server logs it with the peer's address, as `a handshake failed`. The node's parts of
//! calls are [not sent](crate::Outcome::NotSent) then, with
//! [`Unavailable`](crate::Code::Unavailable) and the reason, and the next attempt follows as after
//! any other. That a server refuses the client's certificate is known to the client only when its
//! own part of the handshake is over, since TLS 1.3 is made so; nothing has been sent then either.
//!
//! # Bounds
//!
//! A file of PEM has 1 MiB at the most. A handshake counts as a connection
//! ([`max_connections`](crate::ServerBuilder::max_connections)), takes at most
//! [`stream_timeout`](crate::ServerBuilder::stream_timeout) at a server and
//! [`connect_timeout`](crate::ConfigurationBuilder::connect_timeout) at a client, and keeps at most
//! 64 KiB of what the peer has sent of it. Up to 256 sessions are kept at each end, so that who
//! connects again does so with less work; one that is resumed
//! is refused where a certificate of the peer has expired since.
//!
//! [rustls]: https://docs.rs/rustls

mod builder;
mod error;
mod exchange;
mod failure;
mod handshake;
mod material;
mod node_uris;
mod peer;
mod pem;
mod revocation;
mod sources;
mod standing;
mod stream;
mod validity;
mod watch;

#[cfg(test)]
pub(crate) use builder::RELOAD_INTERVAL;
pub use builder::TlsBuilder;
pub use error::TlsError;
pub use handshake::{Tls, TlsExchange, TlsListener};
pub use material::ClientCertificates;
pub use node_uris::NodeUris;
pub use peer::TlsPeer;
#[cfg(test)]
pub(crate) use pem::LARGEST;
pub use pem::Pem;
#[cfg(test)]
pub(crate) use standing::SPREAD;
#[cfg(test)]
pub(crate) use watch::SETTLE;
