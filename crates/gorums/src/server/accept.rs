//! Accepting connections, and winding them down.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::admission::{Admission, Displaced, Entered};
use super::builder::{Parts, ServerBuilder};
use super::clients::Clients;
use super::connection::{self, Admitted, Origin};
use super::peers::ConnectedPeers;
use crate::bounds::{Bound, Reached};
use crate::handler::RunningHandlers;
use crate::log::{self, Throttle};
use crate::runtime::{
    Address, BoxFuture, BoxIo, Clock, Handshake, Listener, bounded, concerns_one_connection,
};

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
    local_addr: Address,
    parts: Parts,
}

impl Server {
    /// Describes a server.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::new()
    }

    pub(super) fn new(listener: Box<dyn Listener>, local_addr: Address, parts: Parts) -> Self {
        Self {
            listener,
            local_addr,
            parts,
        }
    }

    /// The address that it listens on, with the port that the system chose for port 0. See
    /// [`Address::socket_addr`] and [`Address::port`]; a unix socket has neither.
    #[must_use]
    pub fn local_addr(&self) -> Address {
        self.local_addr.clone()
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

    /// How often the bounds of this server were reached.
    #[must_use]
    pub fn reached(&self) -> Reached {
        Reached::of([Arc::clone(self.parts.connection.reached())])
    }

    /// The handlers that run, and which of them has run for longest.
    #[must_use]
    pub fn running_handlers(&self) -> RunningHandlers {
        RunningHandlers::of(Arc::clone(&self.parts.connection.services.lane))
    }

    /// Serves for ever. Dropping the future stops the server at once: connections end, and requests
    /// that have not started never do.
    pub async fn serve(self) {
        self.serve_with_shutdown(std::future::pending(), Duration::ZERO)
            .await;
    }

    /// Serves until the signal, then shuts down: it stops to listen, tells all clients to send no
    /// more requests, lets the handlers of those that were sent finish, and writes their replies,
    /// all within the grace period; what is left then is cut off. Idle clients do not hold it up.
    /// What clients and peers reply to handlers that call them is read meanwhile.
    ///
    /// Clients know at once that the server goes away. What they have sent by then is handled,
    /// one-way messages too; whatever else they call fails as
    /// [not sent](crate::Outcome::NotSent), or goes to the next server under the address. Clients of
    /// the Go library cannot be told: what they send from the signal on is dropped, and their calls
    /// end with the stream. So does what a client sends that has not stopped within a second.
    pub async fn serve_with_shutdown(self, signal: impl Future<Output = ()>, grace: Duration) {
        let Self {
            mut listener,
            mut parts,
            local_addr,
        } = self;
        let clock = Arc::clone(&parts.connection.clock);
        parts.connection.clients.start();
        // Tells connections in the order in which they came, as `Clients` does.
        let shutdown = Arc::new(Notify::new());
        let mut arrivals = parts.arrivals.take();
        let mut visitors = Visitors {
            parts: &parts,
            admission: Admission::new(parts.limits),
            connections: JoinSet::new(),
            refusals: JoinSet::new(),
        };
        // There are as many as this process has nodes of its own, and they take nobody's place.
        let mut own_connections = JoinSet::new();
        let mut signal = std::pin::pin!(signal);
        let mut pause = Pause::default();
        let serve = |io: BoxIo, origin, admitted| {
            // Hears of it from now on.
            let asked = Box::pin(Arc::clone(&shutdown).notified_owned());
            connection::serve(io, origin, admitted, Arc::clone(&parts.connection), asked)
        };
        loop {
            tokio::select! {
                biased;
                () = &mut signal => break,
                Some(ended) = visitors.connections.join_next() => report(ended),
                Some(ended) = own_connections.join_next() => report(ended),
                Some(ended) = visitors.refusals.join_next() => report(ended),
                Some(io) = arrival(&mut arrivals) => {
                    let admitted = Admitted::default();
                    own_connections.spawn(serve(Box::new(io), Origin::Inside, admitted));
                }
                () = pause.over(), if pause.lasts() => {}
                accepted = listener.accept(), if !pause.lasts() => {
                    match accepted {
                        Ok((io, peer)) => visitors.admit(io, peer, serve),
                        Err(error) if concerns_one_connection(&error) => {
                            tracing::debug!(
                                target: log::SERVER,
                                %error,
                                "a connection was gone before it was accepted"
                            );
                            // A listener may have no end of these, and none that it waits for.
                            tokio::task::yield_now().await;
                        }
                        Err(error) => {
                            let admission = pause.begin(&*clock);
                            log::event!(
                                admission.is_told => warn or debug,
                                target: log::SERVER,
                                %error,
                                left_out = admission.left_out,
                                "cannot accept a connection"
                            );
                        }
                    }
                }
            }
        }
        drop((listener, arrivals));
        let mut connections = visitors.connections;
        parts.connection.stopping.cancel();
        parts.connection.clients.stop();
        if let Some(health) = &parts.health {
            health.stop();
        }
        let began = clock.now();
        tracing::info!(
            target: log::SERVER,
            address = %local_addr,
            connections = connections.len() + own_connections.len(),
            grace_ms = log::millis(grace),
            "shutting down"
        );
        shutdown.notify_waiters();
        let limit = clock.sleep_until(began + bounded(grace));
        let wind_down = async {
            tokio::join!(drain(&mut connections), drain(&mut own_connections));
        };
        let is_drained = tokio::select! {
            biased;
            () = wind_down => true,
            () = limit => false,
        };
        if is_drained {
            let took = clock.now().saturating_duration_since(began);
            tracing::info!(
                target: log::SERVER,
                address = %local_addr,
                took_ms = log::millis(took),
                "drained"
            );
        } else {
            tracing::warn!(
                target: log::SERVER,
                address = %local_addr,
                connections = connections.len() + own_connections.len(),
                "handlers did not finish within the grace period"
            );
        }
    }
}

/// The connections of others than this process itself.
struct Visitors<'a> {
    parts: &'a Parts,
    admission: Arc<Admission>,
    /// Those that are served.
    connections: JoinSet<()>,
    /// Those that are being told that there are too many.
    refusals: JoinSet<()>,
}

impl Visitors<'_> {
    /// Has a connection served by this, or refused.
    fn admit<F>(
        &mut self,
        io: BoxIo,
        peer: Option<SocketAddr>,
        serve: impl FnOnce(BoxIo, Origin, Admitted) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let settings = &self.parts.connection;
        let now = settings.clock.now();
        let origin = Origin::Outside(peer);
        let entered = self.admission.enter(peer, Handshake::is_one(&io), now);
        let Entered { seat, displaced } = match entered {
            Ok(entered) => entered,
            Err(full) => {
                settings.reached().add(Bound::Connections);
                connection::tell_full(origin.peer(), full, &settings.log.full, now);
                if self.refusals.len() < self.parts.refusals {
                    let clock = Arc::clone(&settings.clock);
                    self.refusals
                        .spawn(connection::refuse(io, full.status(), clock));
                }
                return;
            }
        };
        if let Some(displaced) = displaced {
            settings.reached().add(Bound::Connections);
            tell_displaced(displaced, &settings.log.displaced, now);
        }
        let place = self.parts.spread.place();
        let runtime = place.as_ref().map(|place| place.runtime.clone());
        let number = seat.number();
        let seat = Some(seat);
        let serving = serve(io, origin, Admitted { place, seat });
        let task = match runtime {
            None => self.connections.spawn(serving),
            Some(runtime) => self.connections.spawn_on(serving, &runtime),
        };
        self.admission.began(number, task);
    }
}

/// A connection has made room for another one.
fn tell_displaced(displaced: Displaced, warnings: &Throttle, now: Instant) {
    let admission = warnings.admit(now);
    log::event!(
        admission.is_told => warn or debug,
        target: log::SERVER,
        from = displaced.from.map(tracing::field::display),
        left_out = admission.left_out,
        "a connection was ended that had said nothing, since another one needed its place"
    );
}

/// The time in which nothing is accepted, after the system refused to.
#[derive(Default)]
struct Pause {
    sleep: Option<BoxFuture<'static, ()>>,
    warnings: Throttle,
}

impl Pause {
    fn lasts(&self) -> bool {
        self.sleep.is_some()
    }

    /// Begins, and tells whether somebody is to be warned.
    fn begin(&mut self, clock: &dyn Clock) -> log::Admission {
        let now = clock.now();
        self.sleep = Some(clock.sleep_until(now + ACCEPT_PAUSE));
        self.warnings.admit(now)
    }

    /// Waits for its end.
    async fn over(&mut self) {
        if let Some(sleep) = &mut self.sleep {
            sleep.await;
        }
        self.sleep = None;
    }
}

/// The next connection of this process to itself.
async fn arrival(arrivals: &mut Option<mpsc::Receiver<DuplexStream>>) -> Option<DuplexStream> {
    arrivals.as_mut()?.recv().await
}

/// Waits until all of them have ended.
async fn drain(connections: &mut JoinSet<()>) {
    while let Some(ended) = connections.join_next().await {
        report(ended);
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    // One that has made room for another was ended on purpose, and that was told.
    if let Err(error) = ended
        && !error.is_cancelled()
    {
        tracing::error!(
            target: log::SERVER,
            error = %log::text(error),
            "a connection's task failed"
        );
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::SystemClock;

    #[tokio::test(start_paused = true)]
    async fn a_pause_lasts_and_its_reason_is_told_a_few_times() {
        let mut pause = Pause::default();
        let begin = Instant::now();
        let mut told = 0;
        for _ in 0..41 {
            told += u32::from(pause.begin(&SystemClock).is_told);
            assert!(pause.lasts());
            pause.over().await;
            assert!(!pause.lasts());
        }
        assert_eq!(told, 10);
        assert_eq!(begin.elapsed(), 41 * ACCEPT_PAUSE);
    }
}
