use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::thrifty::Thrifty;
use crate::channel::{Early, WhilePaused};
use crate::configuration::Interceptors;
use crate::error::Status;
use crate::handler::{Running, ServerCtx};
use crate::metadata::Metadata;

/// The settings that all four call types share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    pub(crate) timeout: Option<Duration>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) metadata: Metadata,
    /// Why the metadata cannot be sent. The call fails with it.
    pub(crate) error: Option<Status>,
    pub(crate) max_encoding: Option<usize>,
    pub(crate) max_decoding: Option<usize>,
    pub(crate) cancellation: Option<CancellationToken>,
    pub(crate) interceptors: Interceptors,
    /// In bytes; none for the default.
    pub(crate) unread: Option<u64>,
    /// A node may handle the request twice.
    pub(crate) is_idempotent: bool,
    pub(crate) while_paused: WhilePaused,
    pub(crate) inherits: Inherits,
    pub(crate) thrift: Thrift,
}

/// Whether a quorum call asks a quorum in place of all nodes.
#[derive(Debug, Clone, Default)]
pub(crate) enum Thrift {
    #[default]
    Never,
    /// Where it may: by a client's default.
    WhereItMay(Thrifty),
    /// Or it is refused.
    Always(Thrifty),
}

/// From which request a call takes deadline and cancellation, beside its own.
#[derive(Debug, Clone, Default)]
pub(crate) enum Inherits {
    /// From the one whose handler the nodes are of, if any.
    #[default]
    Unsaid,
    /// The same, once it is known: as long as the handler runs.
    Handler(Running),
    /// From this one, whether or not its handler runs.
    Request(ServerCtx),
    Nothing,
}

impl Options {
    /// With the request whose handler the nodes are of, where nothing else was said.
    #[inline]
    pub(crate) fn called_by(mut self, caller: Option<&Running>) -> Self {
        if let (Inherits::Unsaid, Some(caller)) = (&self.inherits, caller) {
            self.inherits = Inherits::Handler(caller.clone());
        }
        self
    }

    /// The request from which the call inherits. A one-way message does where that was asked for:
    /// nobody would hear of one that was withdrawn.
    #[inline]
    pub(crate) fn caller(&self, is_one_way: bool) -> Option<ServerCtx> {
        match &self.inherits {
            Inherits::Unsaid | Inherits::Nothing => None,
            Inherits::Handler(running) if !is_one_way => running.awaited(),
            Inherits::Handler(_) => None,
            Inherits::Request(ctx) => Some(ctx.clone()),
        }
    }

    /// When the call ends: the earlier of timeout and deadline.
    pub(crate) fn ends(&self, now: Instant) -> Option<Instant> {
        // A timeout too large for the clock is none.
        let timeout = self.timeout.and_then(|timeout| now.checked_add(timeout));
        match (timeout, self.deadline) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Why a call that begins now has ended already.
    pub(crate) fn early(
        &self,
        deadline: Option<Instant>,
        caller: Option<&ServerCtx>,
        now: Instant,
    ) -> Option<Early> {
        let cancelled = self.cancellation.as_ref();
        if cancelled.is_some_and(CancellationToken::is_cancelled)
            || caller.is_some_and(ServerCtx::is_cancelled)
        {
            Some(Early::Cancelled)
        } else if deadline.is_some_and(|deadline| deadline <= now) {
            Some(Early::Deadline)
        } else {
            None
        }
    }

    pub(crate) fn append(&mut self, key: &str, value: String) {
        if let Err(error) = self.metadata.append(key, value) {
            self.error.get_or_insert(error);
        }
    }
}

/// The methods that all builders have.
macro_rules! options {
    () => {
        /// Ends the call this long after its terminal was called, in place of the client's default.
        /// What is not written then is withdrawn, and the others' outcome is unknown. Without a
        /// timeout or deadline a call waits for as long as a node is silent.
        ///
        /// Nodes that know deadlines are told how much time is left, and do not run a request whose time
        /// has passed before its turn. Of one-way messages they are not: the timeout of those is for
        /// handing them over. A [`deadline`](Self::deadline) is told of these, too.
        pub fn timeout(mut self, timeout: std::time::Duration) -> Self {
            self.options.timeout = Some(timeout);
            self
        }

        /// Ends the call at this time; where there is a timeout too, at the earlier of both.
        pub fn deadline(mut self, deadline: impl Into<tokio::time::Instant>) -> Self {
            self.options.deadline = Some(deadline.into());
            self
        }

        /// Sends a name and a value with the request; several with one name are all sent. With a
        /// key that [`Metadata`](crate::Metadata) does not take the call fails, and nothing is
        /// sent.
        pub fn metadata(mut self, key: impl AsRef<str>, value: impl Into<String>) -> Self {
            self.options.append(key.as_ref(), value.into());
            self
        }

        /// Ends the call when the token is cancelled, as its deadline would: what is not written is
        /// withdrawn, and the others' outcome is unknown. Takes effect where the call is awaited;
        /// detached messages look at the token once, before they are queued. The token is given by
        /// value or by reference. Dropping a call cancels it too, and tells nobody.
        pub fn cancelled_by(
            mut self,
            token: impl std::borrow::Borrow<tokio_util::sync::CancellationToken>,
        ) -> Self {
            self.options.cancellation = Some(token.borrow().clone());
            self
        }

        /// Makes the call on behalf of this request: it ends at the request's
        /// [deadline](crate::ServerCtx::deadline), where its own is not earlier, and is cancelled
        /// where the request [is](crate::ServerCtx::is_cancelled). Calls that have replies do so
        /// by themselves on [`ServerCtx::config`](crate::ServerCtx::config); one-way messages only
        /// where this says so.
        pub fn within(mut self, ctx: &crate::ServerCtx) -> Self {
            self.options.inherits = $crate::call::options::Inherits::Request(ctx.clone());
            self
        }

        /// Inherits nothing from the request whose handler makes the call: neither deadline nor
        /// cancellation. See [`ServerCtx::config`](crate::ServerCtx::config).
        pub fn independent(mut self) -> Self {
            self.options.inherits = $crate::call::options::Inherits::Nothing;
            self
        }
    };
}

/// The methods of builders whose calls are answered.
macro_rules! answered_options {
    () => {
        /// Says that a node may handle the request twice, as well as once: a read, or a write that
        /// changes nothing the second time. Generated clients say so of methods whose
        /// `idempotency_level` in the `.proto` file is `NO_SIDE_EFFECTS` or `IDEMPOTENT`; `false`
        /// takes it back for this call. Default: `false`.
        ///
        /// Where a node's stream breaks after the request was written and before it was answered,
        /// the request is then sent again on the next stream, before anything newer and in the order
        /// of all that is sent again; otherwise that node's part fails with an *unknown outcome*.
        /// This goes on until the deadline of the call, or three times where it has none, of which
        /// each failed attempt to connect is one. What fails after that has an unknown outcome and
        /// says the last error. A call that was dropped, was cancelled or has what it wanted is not
        /// sent again.
        ///
        /// The request may start once more *behind newer ones* which the node took from the stream
        /// that broke: a write that has to stand behind them needs a version or a time by which the
        /// node tells that it is old.
        ///
        /// A streamed call is sent again only where no reply has come of that node. To a node that
        /// opens the stream itself (`one_stream_per_pair`, clients of a server) no streamed call is,
        /// and no call without a deadline; nor what is written on a stream of a node that goes away.
        /// Of a node's requests 16,384 and 16 MiB are kept for it, as much as its outbox may hold
        /// ([`ConfigurationBuilder::outbox`](crate::ConfigurationBuilder::outbox)): what was written
        /// beyond that is not sent again.
        pub fn idempotent(mut self, is_idempotent: bool) -> Self {
            self.options.is_idempotent = is_idempotent;
            self
        }

        /// What becomes of the call at a node that is overloaded and has asked for a pause of its
        /// method ([`ServerBuilder::shed`](crate::ServerBuilder::shed)): it fails there at once, or
        /// waits. Default: [`WhilePaused::Fail`](crate::call::WhilePaused::Fail), so that a quorum
        /// call goes on with the other nodes.
        pub fn while_paused(mut self, while_paused: $crate::channel::WhilePaused) -> Self {
            self.options.while_paused = while_paused;
            self
        }
    };
}

pub(crate) use answered_options;
pub(crate) use options;
