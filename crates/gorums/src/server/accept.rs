//! Accepting connections, and winding them down.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::builder::{Parts, ServerBuilder};
use super::clients::Clients;
use super::connection::{self, Origin};
use super::peers::ConnectedPeers;
use crate::runtime::{BoxIo, Listener, bounded};

/// The pause after the system refused to accept a connection (too many open files, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A server that listens and serves once it is told to.
///
/// ```no_run
/// # async fn run() -> Result<(), gorums::ServerError> {
/// use gorums::{Server, ServerCtx, Status};
///
/// Server::builder()
///     .unary("demo.Echo.Say", |ctx: ServerCtx, text: String| async move {
///         Ok::<_, Status>(format!("{text}, said {:?}", ctx.peer_addr()))
///     })
///     .serve("0.0.0.0:8080")
///     .await
/// # }
/// ```
pub struct Server {
    listener: Box<dyn Listener>,
    local_addr: SocketAddr,
    parts: Parts,
}

impl Server {
    /// Describes a server.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::new()
    }

    pub(super) fn new(listener: Box<dyn Listener>, local_addr: SocketAddr, parts: Parts) -> Self {
        Self {
            listener,
            local_addr,
            parts,
        }
    }

    /// The address that it listens on, with the port that the system chose for port 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The clients that can be called back.
    #[must_use]
    pub fn clients(&self) -> Clients {
        self.parts.connection.clients.clone()
    }

    /// The peers that are connected; none where the server was not told to be a
    /// [peer](ServerBuilder::peers).
    #[must_use]
    pub fn peers(&self) -> Option<ConnectedPeers> {
        let connection = &self.parts.connection;
        let (_, membership) = connection.peers.as_ref()?;
        Some(ConnectedPeers::new(
            membership.clone(),
            connection.clients.clone(),
        ))
    }

    /// Serves for ever. Dropping the future stops the server at once: connections end, and requests
    /// that have not started never do.
    pub async fn serve(self) {
        self.serve_with_shutdown(std::future::pending(), Duration::ZERO)
            .await;
    }

    /// Serves until the signal, then shuts down: it stops to listen and to take requests, lets the
    /// handlers of all requests that were read finish, and writes their replies, all within the grace
    /// period; what is left then is cut off. Idle clients do not hold it up. What clients and peers
    /// reply to handlers that call them is read meanwhile.
    pub async fn serve_with_shutdown(self, signal: impl Future<Output = ()>, grace: Duration) {
        let Self {
            mut listener,
            mut parts,
            ..
        } = self;
        let clock = Arc::clone(&parts.connection.clock);
        parts.connection.clients.start();
        let (shutdown, asked) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut signal = std::pin::pin!(signal);
        let serve = |io: BoxIo, origin| {
            let mut asked = asked.clone();
            let asked = Box::pin(async move {
                // An error is as good: the server is gone.
                let _ = asked.wait_for(|asked| *asked).await;
            });
            connection::serve(io, origin, Arc::clone(&parts.connection), asked)
        };
        loop {
            tokio::select! {
                biased;
                () = &mut signal => break,
                Some(ended) = connections.join_next() => report(ended),
                // Beyond the bound as well: there are as many as this process has nodes of its own.
                Some(io) = arrival(&mut parts.arrivals) => {
                    connections.spawn(serve(Box::new(io), Origin::Inside));
                }
                accepted = listener.accept(), if connections.len() < parts.max_connections => {
                    match accepted {
                        Ok((io, peer)) => {
                            connections.spawn(serve(io, Origin::Outside(peer)));
                        }
                        Err(error) => {
                            tracing::warn!(%error, "cannot accept a connection");
                            clock.sleep_until(clock.now() + ACCEPT_PAUSE).await;
                        }
                    }
                }
            }
        }
        drop((listener, parts.arrivals.take()));
        shutdown.send_replace(true);
        let limit = clock.sleep_until(clock.now() + bounded(grace));
        let wind_down = async {
            while let Some(ended) = connections.join_next().await {
                report(ended);
            }
        };
        tokio::select! {
            biased;
            () = wind_down => {}
            () = limit => tracing::warn!("handlers did not finish within the grace period"),
        }
    }
}

/// The next connection of this process to itself.
async fn arrival(arrivals: &mut Option<mpsc::Receiver<DuplexStream>>) -> Option<DuplexStream> {
    arrivals.as_mut()?.recv().await
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task failed");
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.connection.clients.stop();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("local_addr", &self.local_addr)
            .finish_non_exhaustive()
    }
}
