//! A session whose connection was lost, until another one carries it or it is given up.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;

use crate::bounds::Bound;
use crate::channel::Channel;
use crate::error::{Outcome, Status};
use crate::log;
use crate::stream::{Session, Writes};
use crate::wire::{SessionAnswer, SessionId, SessionRequest};

pub(super) struct Suspended {
    session: Box<Session>,
    /// How many replies were read.
    received: u64,
    /// When the calls have waited long enough.
    until: Instant,
    limit: Duration,
}

impl Suspended {
    /// The connection is lost on which so many replies were read.
    pub(super) fn new(session: Box<Session>, received: u64, channel: &Channel) -> Self {
        let pool = channel.pool();
        let limit = pool.settings.sessions.unwrap_or_default();
        Self {
            session,
            received,
            until: pool.clock.now() + limit,
            limit,
        }
    }

    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// How many replies were read.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// The node has answered. Returns the session, and how many replies of it have come, where it goes
    /// on; otherwise what was written in it has failed.
    pub(super) fn resume(
        mut self,
        answer: Option<SessionAnswer>,
        channel: &Arc<Channel>,
    ) -> Option<(Box<Session>, u64)> {
        let why = match answer {
            Some(SessionAnswer::Resumed { received }) => {
                if self.session.resume(received, self.received) {
                    tracing::debug!(
                        target: log::CLIENT,
                        node = channel.id().get(),
                        address = %channel.address(),
                        calls = channel.pending(),
                        "the session goes on"
                    );
                    return Some((self.session, self.received));
                }
                "the node has another part of the session than this client has written"
            }
            Some(SessionAnswer::Begun) => {
                "the node does not have the session any more: it was started anew, or has kept the \
                 session as long as it keeps one (ServerBuilder::session_timeout)"
            }
            None => "the node that has answered knows no sessions",
        };
        self.lose(why, channel);
        None
    }

    /// The calls have waited as long as they may.
    pub(super) fn expire(self, channel: &Arc<Channel>) {
        let why = format!(
            "no connection has taken the place of the one that broke within {:?} \
             (ConfigurationBuilder::sessions)",
            self.limit
        );
        channel.pool().reached.add(Bound::Session);
        self.lose(&why, channel);
    }

    /// What was written in the session and not answered has failed.
    pub(super) fn lose(self, why: &str, channel: &Arc<Channel>) {
        let admission = channel.admit_event();
        log::event!(
            admission.is_told => warn or debug,
            target: log::CLIENT,
            node = channel.id().get(),
            address = %channel.address(),
            calls = channel.pending(),
            reason = why,
            left_out = admission.left_out,
            "a session is over: what has become of its calls is unknown"
        );
        let status = Status::unavailable(format!("the session is over: {why}"));
        channel.fail_written(Outcome::Unknown, &status);
    }
}

/// What the sessions of a node are called, one after the other: the node forgets the one before when the
/// next one begins, so that nothing of it comes behind what is newer.
#[derive(Default)]
pub(super) struct Names {
    id: Option<SessionId>,
    /// How many streams have asked for one by this name.
    streams: u64,
}

impl Names {
    /// What is left of the session goes on beside the next one, on a stream that winds down.
    pub(super) fn renew(&mut self) {
        *self = Self::default();
    }

    /// Asks for a session by the headers of the next stream: for the one that is suspended, or for one
    /// that begins. None where there are none.
    pub(super) fn ask(
        &mut self,
        channel: &Channel,
        suspended: Option<&Suspended>,
        headers: &mut HeaderMap,
    ) -> Option<Box<Session>> {
        let pool = channel.pool();
        // Nothing breaks within a process.
        if pool.settings.sessions.is_none() || channel.in_process().is_some() {
            return None;
        }
        let new_id = || SessionId::new(pool.clock.random(), pool.clock.random());
        let id = self.id.or_else(new_id)?;
        self.id = Some(id);
        self.streams += 1;
        let request = SessionRequest {
            id,
            stream: self.streams,
            received: suspended.map(Suspended::received),
        };
        request.write(headers);
        if let Some(client) = pool.client {
            client.write(headers);
        }
        Some(Box::new(Session::new(
            Writes::Messages,
            pool.settings.outbox_bytes,
        )))
    }
}
