//! How often bounds were reached: what a program watches to see which of them is too low, or who
//! does too much.
//!
//! A configuration counts for the nodes of its pool ([`Configuration::reached`]), a server for all
//! its connections ([`Server::reached`]). What each bound is, how it is set and what is seen at it is
//! in [the page on limits](https://github.com/gorums/gorums-rs/blob/main/docs/limits.md).
//!
//! [`Configuration::reached`]: crate::Configuration::reached
//! [`Server::reached`]: crate::Server::reached

use std::fmt;
use std::sync::Arc;
// Statistics decide nothing, so these are `std`'s also where every order is explored.
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! bounds {
    (
        $(#[$about:meta])*
        pub enum Bound {
            $($(#[$doc:meta])* $bound:ident = $name:literal,)*
        }
    ) => {
        $(#[$about])*
        pub enum Bound {
            $($(#[$doc])* $bound,)*
        }

        impl Bound {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$bound,)*];

            /// A name for metrics: lower case, with underscores.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$bound => $name,)*
                }
            }
        }
    };
}

bounds! {
    /// A bound that was reached, or a time that was over, and what became of it: something was
    /// refused, dropped, cut off or held back.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    pub enum Bound {
        // ---- of a client, and of a server that calls
        /// A node's outbox was full: its part of a call was not sent.
        Outbox = "outbox",
        /// Too many calls waited for replies: a call was not made.
        Calls = "calls",
        /// A request was too large to be sent, or had too much metadata.
        RequestSent = "request_sent",
        /// A reply was too large to be read, or had too much metadata.
        ReplyReceived = "reply_received",
        /// A node sent more of a streamed reply than may wait, and its part failed.
        UnreadReplies = "unread_replies",
        /// Replies to a correctable that nobody took made room for newer ones; each is counted.
        DroppedReplies = "dropped_replies",
        /// A request that may be sent again is not kept for that.
        Kept = "kept",
        /// A node is not told that a call was given up.
        Cancellations = "cancellations",
        /// An attempt to connect took too long.
        ConnectTimeout = "connect_timeout",
        /// A peer did not answer a keep-alive ping, and the connection ended.
        KeepAlive = "keep_alive",
        /// A connection that wound down ended since there were too many of its node, or it took too
        /// long.
        WindingDown = "winding_down",
        /// No connection took in time the place of one that carried a session: the session was over.
        Session = "session",
        /// A node had as many calls as it can be expected to do: its part of a call was not sent.
        AdaptiveLimit = "adaptive_limit",
        /// A call was not sent to a node that had asked for a pause.
        Pause = "pause",

        // ---- of a server, and of a client that serves
        /// There were as many connections as there may be, in all or of one origin: one was refused,
        /// or made room for another.
        Connections = "connections",
        /// All connections together held too much: the largest was ended.
        BufferedBytes = "buffered_bytes",
        /// A handshake, HTTP/2 or the first stream took too long.
        StreamTimeout = "stream_timeout",
        /// A client sent no message in time.
        FirstMessage = "first_message",
        /// A client of a session did not say what it has of the answers: the oldest are not kept.
        KeptAnswers = "kept_answers",
        /// Sessions of clients without a connection were too many: one was over.
        ParkedSessions = "parked_sessions",
        /// A session without a connection was over, since none had come in time.
        SessionTimeout = "session_timeout",
        /// A client did not go on with a message that it had begun.
        SlowSender = "slow_sender",
        /// A client did not take what was to be written to it.
        SlowReader = "slow_reader",
        /// What winds down while the server goes on took too long, and was cut off.
        ConnectionGrace = "connection_grace",
        /// The requests of a connection that waited were too many: reading paused.
        WaitingBytes = "waiting_bytes",
        /// Requests were refused since too many waited and reading could not pause.
        WaitingRefused = "waiting_refused",
        /// A connection had as many released handlers as it may: a request waited for that.
        RunningHandlers = "running_handlers",
        /// The replies of a connection that were not written were too many: a request waited for that.
        ReplyBytes = "reply_bytes",
        /// A request was too large to be read, or had too much metadata.
        RequestReceived = "request_received",
        /// A reply was too large to be sent.
        ReplySent = "reply_sent",
        /// A connection opened a stream while those before had too much left to do.
        UnfinishedStreams = "unfinished_streams",
        /// Calls of an ordinary gRPC client were too many, or held too much.
        OrdinaryCalls = "ordinary_calls",
        /// A request was not run, since its deadline had passed before its turn.
        Deadline = "deadline",
        /// A request was shed, since the server was overloaded.
        Shed = "shed",
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How often each bound was reached, since there is what has it. Clones are the same, and go on to
/// count.
///
/// ```
/// # use gorums::Configuration;
/// # fn export(all: &Configuration) {
/// for (bound, count) in all.reached().iter() {
///     println!("gorums_bound_reached_total{{bound=\"{bound}\"}} {count}");
/// }
/// # }
/// ```
#[derive(Clone)]
pub struct Reached(Vec<Arc<Counts>>);

impl Reached {
    pub(crate) fn of(counts: impl IntoIterator<Item = Arc<Counts>>) -> Self {
        Self(counts.into_iter().collect())
    }

    /// How often this one was.
    #[must_use]
    pub fn count(&self, bound: Bound) -> u64 {
        self.0.iter().map(|counts| counts.get(bound)).sum()
    }

    /// Each bound, and how often it was.
    pub fn iter(&self) -> impl Iterator<Item = (Bound, u64)> + '_ {
        Bound::ALL.iter().map(|bound| (*bound, self.count(*bound)))
    }
}

impl fmt::Debug for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reached = self.iter().filter(|(_, count)| *count > 0);
        f.debug_map()
            .entries(reached.map(|(bound, count)| (bound.name(), count)))
            .finish()
    }
}

/// The counts of one pool, or of one server.
pub(crate) struct Counts([AtomicU64; Bound::ALL.len()]);

impl Default for Counts {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Counts {
    /// It was reached once more.
    pub(crate) fn add(&self, bound: Bound) {
        self.add_all(bound, 1);
    }

    /// It was reached so many times more.
    pub(crate) fn add_all(&self, bound: Bound, times: u64) {
        self.0[bound as usize].fetch_add(times, Ordering::Relaxed);
    }

    fn get(&self, bound: Bound) -> u64 {
        self.0[bound as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_bound_counts_by_itself_and_has_a_name_of_its_own() {
        let counts = [Arc::new(Counts::default()), Arc::default()];
        let reached = Reached::of(counts.clone());
        for (times, bound) in Bound::ALL.iter().enumerate() {
            for time in 0..times {
                counts[time % 2].add(*bound);
            }
        }
        for (times, bound) in Bound::ALL.iter().enumerate() {
            assert_eq!(reached.count(*bound), times as u64, "{bound}");
        }
        let names: BTreeSet<_> = Bound::ALL.iter().map(|bound| bound.name()).collect();
        assert_eq!(names.len(), Bound::ALL.len());
    }
}
