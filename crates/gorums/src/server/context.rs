//! Whom the handlers of a server can call, and by which clock they go.

use std::sync::{Arc, Weak};
use std::time::Duration;

use http::Extensions;

use super::clients::Clients;
use crate::configuration::{Configuration, Membership};
use crate::handler::{ServerCtx, Services};
use crate::runtime::{Clock, SystemClock};

/// Whom handlers can call.
#[derive(Debug, Clone)]
pub(crate) enum Peers {
    Known {
        peers: Option<Membership>,
        clients: Option<Clients>,
    },
    /// Those of this server. A connection that held them itself would never end, where it is
    /// theirs.
    OfServer(Weak<Services>),
}

/// By which clock handlers go.
#[derive(Clone)]
pub(crate) struct HandlerClock(pub(crate) Arc<dyn Clock>);

impl Peers {
    fn config(&self) -> Option<Configuration> {
        match self {
            Self::Known { peers, .. } => peers.as_ref().map(Membership::config),
            Self::OfServer(server) => Self::of(&server.upgrade()?.values)?.config(),
        }
    }

    fn client_config(&self) -> Option<Configuration> {
        match self {
            Self::Known { clients, .. } => clients.as_ref().map(Clients::config),
            Self::OfServer(server) => Self::of(&server.upgrade()?.values)?.client_config(),
        }
    }

    /// What was set for a connection.
    fn of(values: &Extensions) -> Option<&Self> {
        values.get()
    }
}

impl ServerCtx {
    /// The server's peers, its own node among them: the configuration that
    /// [`ServerBuilder::peers`](crate::ServerBuilder::peers) was given, all of it, connected or
    /// not, so that a majority of it is a majority of the system. Where that was a
    /// [`Membership`](crate::membership::Membership): what it is at the moment. Empty where it was
    /// given none, and calls on it fail at once.
    ///
    /// A handler may make any call on it. Replies never wait for a handler, so that other nodes
    /// answer whether or not it holds its turn. Its own node is called like the others, and its
    /// requests there have a turn of their own. So only a handler whose request came through the
    /// process' own node (or any handler, under
    /// [`HandlerOrder::PerServer`](crate::server::HandlerOrder::PerServer)) could wait for itself:
    /// while it holds the turn, its calls to its own node that have a reply fail there at once,
    /// with [`FailedPrecondition`](crate::Code::FailedPrecondition). It calls
    /// [`release`](Self::release) first. This is known of calls that the handler's own future
    /// makes, and not of those of tasks that it spawns and waits for.
    ///
    /// What is not noticed is a circle of calls among several nodes whose handlers each hold a turn
    /// that the next one's request waits for: release the turn, or set a
    /// [timeout](crate::call::QuorumCall::timeout), where handlers call handlers that call.
    ///
    /// Calls on it, and on configurations that are made from it, inherit from the request as long as
    /// its handler runs, unless they say otherwise
    /// ([`independent`](Configuration::independent)): one that has replies ends at the request's
    /// [deadline](Self::deadline), where its own is not earlier, and is cancelled where the
    /// request [is](Self::is_cancelled). One-way messages inherit nothing, since nobody would hear
    /// of one that was withdrawn; nor do calls that begin after the handler has ended, in a task
    /// that it has left behind. A [`Node`](crate::Node) knows nothing of the request: a client that
    /// is made of one inherits by [`within`](crate::call::Rpc::within), as any other does.
    ///
    /// The request's metadata does not go on to such a call by itself.
    #[must_use]
    pub fn config(&self) -> Configuration {
        let peers = Peers::of(self.connection_values()).and_then(Peers::config);
        peers.map_or_else(Configuration::empty, |peers| peers.called_by(self))
    }

    /// The clients of this server that are connected now and can be called back, by their ids. A
    /// handler may make any call on them, with or without release, as on [`config`](Self::config);
    /// the client that sent the request is the node [`peer_id`](Self::peer_id). Empty where there
    /// are none, and calls on it fail at once. Calls inherit from the request as they do there. See
    /// [`Clients`].
    #[must_use]
    pub fn client_config(&self) -> Configuration {
        let clients = Peers::of(self.connection_values()).and_then(Peers::client_config);
        clients.map_or_else(Configuration::empty, |clients| clients.called_by(self))
    }

    /// The time that is left until the [deadline](Self::deadline): zero where it has passed, and none
    /// where there is none.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        let deadline = self.deadline()?;
        Some(deadline.saturating_duration_since(self.clock().now()))
    }

    /// The clock of the server, or of the client that serves: the one that
    /// [`ServerBuilder::clock`](crate::ServerBuilder::clock) was given, or else [`SystemClock`].
    /// Time and random numbers that a handler takes from here are virtual in a simulation.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        let clock = self.connection_values().get::<HandlerClock>();
        clock.map_or_else(|| Arc::new(SystemClock) as _, |clock| Arc::clone(&clock.0))
    }
}
