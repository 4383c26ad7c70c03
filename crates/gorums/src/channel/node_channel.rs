use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::task::Waker;

use tokio::sync::Notify;

use super::kept::KeptTotal;
use super::latency::Latencies;
use super::owed::Owed;
use super::pauses::Pauses;
use super::servers::Found;
use super::{NodeState, OutMessage, Outbox, Pool, Rejected, StreamId, WhileDisconnected};
use crate::bounds::Bound;
use crate::error::{NodeError, Outcome, Status};
use crate::log::{self, Admission, Throttle};
use crate::node_id::NodeId;
use crate::runtime::{BoxFuture, InProcess};
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{AtomicWaker, Mutex, MutexGuard};
use crate::wire::{Features, Side};

/// One node's connection, whatever its state.
pub(crate) struct Channel {
    id: NodeId,
    address: Arc<str>,
    pool: Arc<Pool>,
    side: Side,
    /// Who listed the node has chosen its id, as the others do who list it.
    is_named: AtomicBool,
    outbox: Mutex<Outbox>,
    /// Wakes the I/O task: something is queued, or the channel is to close.
    io: AtomicWaker,
    state: AtomicU8,
    /// The last handle was dropped.
    closing: AtomicBool,
    /// The node is not called under this address any more, for this reason.
    retired: OnceLock<Status>,
    /// Two-way requests that are queued or written and not answered, of calls that somebody waits
    /// for.
    pending: AtomicUsize,
    /// How much is kept of requests that may be written again.
    kept: KeptTotal,
    /// The I/O task has paused reading because nobody waits for a reply. Whoever queues a call
    /// wakes it: the reply may be behind what it has not read.
    reading_paused: AtomicBool,
    latencies: Latencies,
    owed: Owed,
    pauses: Pauses,
    last_error: Mutex<Option<Status>>,
    found: Mutex<Found<Self>>,
    peer: Mutex<Peer>,
    /// Leads to this process' own server, where that is the node.
    in_process: Mutex<Option<InProcess>>,
    /// Changes when a connection that was dialled before is to be replaced.
    dial_epoch: AtomicUsize,
    /// How much of the bound of unread replies streamed calls have reserved.
    reserved: AtomicU64,
    /// Held while a stream that the node opened begins or ceases to carry its calls, so that
    /// streams do so one after the other.
    attach_lock: Mutex<()>,
    /// Of what the node does to its connections.
    throttle: Throttle,
    /// Notified when the last handle is dropped, and when a stream ceases to carry calls.
    detached: Notify,
    /// Wakes those who serve streams that carry the calls no more, when no other one does.
    abandoned: Arc<Notify>,
}

/// What is known of the peer on the present connection.
#[derive(Default)]
pub(super) struct Peer {
    /// None before its headers have come. A Go server sends them with its first reply.
    pub(super) features: Option<Features>,
    /// What the peer was not told yet.
    pub(super) notices: Notices,
    /// The streams on which the peer takes no further requests, or is sent none.
    pub(super) winding_down: Vec<WindingDown>,
    /// The stream that the peer has opened and is to open anew. It carries the calls until then.
    pub(super) going_away: Option<StreamId>,
}

/// A stream of a node that takes no further requests, beside which another one may begin.
pub(super) struct WindingDown {
    pub(super) stream: StreamId,
    pub(super) features: Features,
    /// The calls that were written on it, by id, in order.
    pub(super) calls: Vec<u64>,
    /// What the node is still to be told of them.
    pub(super) notices: Notices,
    /// Whoever tells it, where that is another task than the one of the present stream.
    pub(super) teller: Option<Waker>,
}

impl WindingDown {
    /// There is something to tell the node.
    fn wake(&mut self) {
        if let Some(teller) = self.teller.take() {
            teller.wake();
        }
    }

    /// Whether this call was written on the stream.
    pub(super) fn has(&self, id: u64) -> bool {
        self.calls.binary_search(&id).is_ok()
    }
}

impl Peer {
    /// The stream that winds down and has this call, if it is not on the present one.
    pub(super) fn winding_down_with(&mut self, id: u64) -> Option<&mut WindingDown> {
        self.winding_down.iter_mut().find(|stream| stream.has(id))
    }
}

/// How many cancellations may wait to be written. The peer is not told of further ones.
const CANCELS: usize = 4096;

/// What is to be told of calls whose requests were written.
#[derive(Default)]
pub(crate) struct Notices {
    /// The ids of those that were given up.
    pub(crate) cancels: Vec<u64>,
    /// The ids of streamed calls, and what more the caller takes of the replies.
    pub(crate) credits: BTreeMap<u64, u64>,
}

impl Notices {
    /// A call was given up. False where too many have been already.
    fn cancel(&mut self, id: u64, limit: usize) -> bool {
        self.credits.remove(&id);
        let has_room = self.cancels.len() < limit;
        if has_room {
            self.cancels.push(id);
        }
        has_room
    }
}

impl Channel {
    pub(crate) fn new(id: NodeId, address: Arc<str>, pool: Arc<Pool>, side: Side) -> Self {
        let settings = &pool.settings;
        let (messages, bytes) = (settings.outbox_messages, settings.outbox_bytes);
        let (outbox, state) = match side {
            Side::Client => (Outbox::new(messages, bytes), NodeState::Connecting),
            Side::Server => {
                let fails_fast = settings
                    .pairs
                    .is_some_and(|pairs| pairs.meanwhile == WhileDisconnected::FailFast);
                let outbox = Outbox::without_stream(messages, bytes, fails_fast);
                (outbox, NodeState::Disconnected)
            }
        };
        Self {
            id,
            address,
            pool,
            side,
            is_named: AtomicBool::new(false),
            outbox: Mutex::new(outbox),
            io: AtomicWaker::new(),
            state: AtomicU8::new(state as u8),
            closing: AtomicBool::new(false),
            retired: OnceLock::new(),
            pending: AtomicUsize::new(0),
            kept: KeptTotal::default(),
            reading_paused: AtomicBool::new(false),
            latencies: Latencies::default(),
            owed: Owed::default(),
            pauses: Pauses::default(),
            last_error: Mutex::new(None),
            found: Mutex::default(),
            peer: Mutex::default(),
            in_process: Mutex::default(),
            dial_epoch: AtomicUsize::new(0),
            reserved: AtomicU64::new(0),
            attach_lock: Mutex::default(),
            throttle: Throttle::default(),
            detached: Notify::new(),
            abandoned: Arc::default(),
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.id
    }

    /// Whether the server may be asked to be the node of this id.
    pub(crate) fn is_named(&self) -> bool {
        self.is_named.load(Ordering::Relaxed)
    }

    /// Before its task begins.
    pub(crate) fn set_named(&self, is_named: bool) {
        self.is_named.store(is_named, Ordering::Relaxed);
    }

    pub(crate) fn address(&self) -> &Arc<str> {
        &self.address
    }

    /// Whether its calls are made in a session, should the node keep one. On a stream that the node
    /// has opened they are not.
    pub(crate) fn has_session(&self) -> bool {
        self.side == Side::Client && self.pool.settings.sessions.is_some()
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Something happens at the node's will, which is told or not.
    pub(crate) fn admit_event(&self) -> Admission {
        self.throttle.admit(self.pool.clock.now())
    }

    pub(crate) fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock()
    }

    /// Queues a message, or says at once why not. Never blocks.
    pub(crate) fn queue(&self, message: OutMessage) -> Result<(), Status> {
        let (was_empty, queued) = {
            let mut outbox = self.outbox();
            (outbox.is_empty(), outbox.push(message))
        };
        queued.map_err(|rejected| self.rejection(rejected))?;
        // Where the outbox was not empty, the I/O task was woken before, and empties it.
        let reading_paused = self.reading_paused.load(Ordering::SeqCst);
        if was_empty || reading_paused {
            self.reading_paused.store(false, Ordering::SeqCst);
            self.io.wake();
        }
        Ok(())
    }

    /// Queues a marker, whatever the bound.
    pub(crate) fn queue_marker(&self, marker: OutMessage) -> Result<(), Status> {
        let queued = self.outbox().push_marker(marker);
        self.io.wake();
        queued.map_err(|rejected| self.rejection(rejected))
    }

    fn rejection(&self, rejected: Rejected) -> Status {
        match rejected {
            Rejected::Full => {
                self.pool.reached.add(Bound::Outbox);
                let admission = self.admit_event();
                log::event!(
                    admission.is_told => warn or debug,
                    target: log::CLIENT,
                    node = self.id.get(),
                    address = %self.address,
                    left_out = admission.left_out,
                    "the outbox is full"
                );
                Status::resource_exhausted(
                    "the node's outbox is full (see ConfigurationBuilder::outbox)",
                )
            }
            Rejected::Closed => {
                let retired = self.retired.get().cloned();
                retired.unwrap_or_else(|| Status::unavailable("the connection is closed"))
            }
            Rejected::SameServer => {
                let found = self.found();
                let refusal = found.refusal().cloned();
                // It may be over by now.
                refusal.unwrap_or_else(|| Status::unavailable("the node was another one"))
            }
            Rejected::Away => Status::unavailable(format!(
                "node {} is not connected, and it is the one of the pair that connects (see \
                 ConfigurationBuilder::one_stream_per_pair)",
                self.id
            )),
        }
    }

    /// Tells the peer that nobody waits for this reply any more, if it would understand.
    ///
    /// A handler that is not told goes on for nothing, but one that waits for credit would go on
    /// for ever. So of streamed calls as many cancellations may wait as there may be calls.
    pub(crate) fn send_cancel(&self, id: u64, is_streamed: bool) {
        if self.note_cancel(id, is_streamed) {
            self.io.wake();
        }
    }

    /// The same, without waking the I/O task: true where it has to be.
    pub(super) fn note_cancel(&self, id: u64, is_streamed: bool) -> bool {
        let limit = if is_streamed {
            self.pool.settings.max_calls.max(CANCELS)
        } else {
            CANCELS
        };
        let mut peer = self.peer.lock();
        // A peer that has not said what it understands may still do so. One that goes away may have
        // the request: whoever does not know it takes no notice.
        let is_understood = peer.features.is_none_or(|features| features.cancel);
        let mut is_told = peer
            .notices
            .cancel(id, if is_understood { limit } else { 0 });
        if is_understood && !is_told {
            self.pool.reached.add(Bound::Cancellations);
        }
        for stream in &mut peer.winding_down {
            let limit = if stream.features.cancel { limit } else { 0 };
            let tells = stream.notices.cancel(id, limit);
            is_told |= tells;
            // Also where the node is not told: it may have been the last call that the stream waits
            // for, which ends then.
            if tells || stream.has(id) {
                stream.wake();
            }
        }
        is_told
    }

    /// Tells the peer how much more the caller takes of a streamed reply, if it would understand
    /// and the call is `open`.
    ///
    /// Credit is never lost: there is an entry for each open call at most, which adds up what is
    /// not written yet.
    pub(super) fn send_credit(&self, id: u64, credit: u64, open: impl FnOnce() -> bool) {
        if self.note_credit(id, credit, open) {
            self.io.wake();
        }
    }

    /// The same, without waking the I/O task: true where it has to be.
    pub(super) fn note_credit(&self, id: u64, credit: u64, open: impl FnOnce() -> bool) -> bool {
        let mut peer = self.peer.lock();
        // Looked at under the lock, as the end of a call takes it to remove the entry.
        if credit == 0 || !open() {
            return false;
        }
        let is_understood = peer.features.is_none_or(|features| features.credit);
        let notices = match peer.winding_down_with(id) {
            Some(stream) if stream.features.credit => {
                stream.wake();
                &mut stream.notices
            }
            Some(_) => return false,
            None if is_understood => &mut peer.notices,
            None => return false,
        };
        let entry = notices.credits.entry(id).or_default();
        *entry = entry.saturating_add(credit);
        true
    }

    /// A streamed call is over, and gives back what it had reserved.
    pub(crate) fn end_streamed(&self, id: u64, reserved: u64) {
        let mut peer = self.peer.lock();
        peer.notices.credits.remove(&id);
        if let Some(stream) = peer.winding_down_with(id) {
            stream.notices.credits.remove(&id);
        }
        drop(peer);
        self.reserved.fetch_sub(reserved, Ordering::Relaxed);
    }

    /// Takes up to so many bytes, and no more than a quarter of what is left, from the bound of
    /// unread replies: calls that are many get less each, and the first do not leave the later ones
    /// with nothing.
    pub(crate) fn reserve_unread(&self, bytes: u64) -> u64 {
        let limit = self.pool.settings.unread_replies;
        let take = |reserved: u64| bytes.min(limit.saturating_sub(reserved) / 4);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        let before = self
            .reserved
            .fetch_update(set, fetch, |reserved| Some(reserved + take(reserved)));
        before.map_or(0, take)
    }

    pub(super) fn peer(&self) -> MutexGuard<'_, Peer> {
        self.peer.lock()
    }

    /// What the peer is known to understand.
    pub(crate) fn features(&self) -> Features {
        self.peer.lock().features.unwrap_or_default()
    }

    /// What is to be told of requests that were written, once it is known what the peer
    /// understands.
    pub(crate) fn take_notices(&self) -> Notices {
        let mut peer = self.peer.lock();
        if peer.features.is_none() {
            return Notices::default();
        }
        std::mem::take(&mut peer.notices)
    }

    /// Notes what the peer understands; none when there is no connection any more.
    pub(crate) fn set_features(&self, features: Option<Features>) {
        match features {
            Some(_) => self.owed.lost(),
            None => self.suspend(),
        }
        let mut peer = self.peer.lock();
        peer.features = features;
        if !features.is_some_and(|features| features.cancel) {
            peer.notices.cancels = Vec::new();
        }
        if !features.is_some_and(|features| features.credit) {
            peer.notices.credits = BTreeMap::new();
        }
    }

    /// There is no connection, and what the peer is to be told is told on the next one.
    pub(crate) fn suspend(&self) {
        self.owed.lost();
        self.peer.lock().features = None;
        self.found().is_current = false;
    }

    pub(crate) fn io(&self) -> &AtomicWaker {
        &self.io
    }

    pub(crate) fn state(&self) -> NodeState {
        NodeState::from_number(self.state.load(Ordering::SeqCst))
    }

    /// Notes what the connection does. What is closed stays so.
    pub(crate) fn set_state(&self, state: NodeState) {
        let changed = self
            .state
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| {
                let is_final = now == NodeState::Closed as u8;
                (!is_final && now != state as u8).then_some(state as u8)
            });
        if changed.is_ok() {
            self.pool.state_changed.notify_waiters();
        }
    }

    /// The node is this process' own server from now on: the present connection ends, and the next
    /// one goes through this pipe.
    pub(crate) fn set_in_process(&self, in_process: InProcess) {
        *self.in_process.lock() = Some(in_process);
        self.connect_anew();
    }

    pub(crate) fn in_process(&self) -> Option<InProcess> {
        self.in_process.lock().clone()
    }

    /// Ends the present connection. The next one tells the node what has changed in this process.
    pub(crate) fn connect_anew(&self) {
        self.dial_epoch.fetch_add(1, Ordering::SeqCst);
        self.io.wake();
    }

    /// A connection that was dialled at another epoch is to be replaced.
    pub(crate) fn dial_epoch(&self) -> usize {
        self.dial_epoch.load(Ordering::SeqCst)
    }

    /// The last handle is gone: queued messages are written for a while, and then the connection
    /// ends.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.io.wake();
        self.detached.notify_one();
    }

    /// The node is not called under this address any more: the channel ends at once, whoever holds
    /// it, and calls fail for this reason.
    pub(crate) fn retire(self: &Arc<Self>, status: Status) {
        let status = self.retired.get_or_init(|| status);
        self.set_last_error(Some(status.clone()));
        self.end(status);
        self.close();
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.get().is_some()
    }

    /// Wakes those who wait [until](Self::until_abandoned) no stream carries the calls.
    pub(crate) fn abandoned(&self) -> &Notify {
        &self.abandoned
    }

    /// Waits until no stream carries the calls of this node, which opens its streams itself.
    pub(crate) fn until_abandoned(self: &Arc<Self>) -> BoxFuture<'static, ()> {
        let channel = Arc::clone(self);
        // Hears of it from now on.
        let abandoned = Arc::clone(&self.abandoned).notified_owned();
        Box::pin(async move {
            if channel.outbox().is_carried() {
                abandoned.await;
            }
        })
    }

    /// Wakes the channel's task when the last handle is dropped or a stream ceases to carry calls.
    /// One task waits for this.
    pub(crate) fn detached(&self) -> &Notify {
        &self.detached
    }

    pub(crate) fn attach_lock(&self) -> MutexGuard<'_, ()> {
        self.attach_lock.lock()
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    pub(crate) fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    pub(crate) fn add_pending(&self) {
        // Sequentially consistent, as in `may_pause_reading`: one of the two sees the other.
        self.pending.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether reading may pause because nobody waits for a reply. The I/O task is woken when a
    /// call is queued, and asks again.
    pub(crate) fn may_pause_reading(&self) -> bool {
        self.reading_paused.store(true, Ordering::SeqCst);
        self.pending.load(Ordering::SeqCst) == 0
    }

    pub(crate) fn remove_pending(&self) {
        self.pending.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn kept_total(&self) -> &KeptTotal {
        &self.kept
    }

    pub(crate) fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    pub(super) fn owed(&self) -> &Owed {
        &self.owed
    }

    pub(super) fn pauses(&self) -> &Pauses {
        &self.pauses
    }

    pub(crate) fn last_error(&self) -> Option<Status> {
        self.last_error.lock().clone()
    }

    /// What is known of the server that the node is.
    pub(super) fn found(&self) -> MutexGuard<'_, Found<Self>> {
        self.found.lock()
    }

    /// Whether calls are refused because the node is the same server as another one.
    pub(crate) fn is_refused(&self) -> bool {
        self.found().refusal().is_some()
    }

    /// The other node that is the same server.
    pub(crate) fn same_server_as(&self) -> Option<NodeId> {
        self.twin().map(|twin| twin.id())
    }

    pub(crate) fn has_error(&self) -> bool {
        self.last_error.lock().is_some()
    }

    pub(crate) fn set_last_error(&self, error: Option<Status>) {
        // What a connection does that is about to end says nothing of a node that has left it.
        let error = self.retired.get().cloned().or(error);
        *self.last_error.lock() = error;
    }

    pub(crate) fn error(&self, outcome: Outcome, status: Status) -> NodeError {
        NodeError::new(self.id, Arc::clone(&self.address), outcome, status)
    }

    /// Fails requests that will not be written. The outcome is refused where the node has said why.
    pub(crate) fn fail_unwritten(messages: Vec<OutMessage>, outcome: Outcome, status: &Status) {
        for message in messages {
            if let Some(ticket) = message.ticket {
                ticket.call.not_written(ticket.part, outcome, status);
            }
        }
    }

    /// Which end of the node's streams this process is.
    pub(crate) fn side(&self) -> Side {
        self.side
    }

    /// The channel is closed for good: nothing more is written, and nothing more will be answered.
    /// Where an error is known already, it tells more than this one, and stays the last.
    pub(crate) fn end(self: &Arc<Self>, status: &Status) {
        self.last_error.lock().get_or_insert_with(|| status.clone());
        self.set_state(NodeState::Closed);
        self.release_server();
        let unwritten = self.outbox().close();
        Self::fail_unwritten(unwritten, Outcome::NotSent, status);
        self.forget_winding_down();
        self.fail_written(Outcome::Unknown, status);
    }

    /// Ends the channel when what is returned is dropped. It belongs to the channel's task, which
    /// may be dropped with its runtime, even before it has begun.
    pub(crate) fn end_on_drop(self: &Arc<Self>) -> impl Drop + Send + use<> {
        struct EndOnDrop(Arc<Channel>);

        impl Drop for EndOnDrop {
            fn drop(&mut self) {
                self.0.end(&Status::unavailable("the connection is closed"));
            }
        }

        EndOnDrop(Arc::clone(self))
    }
}
