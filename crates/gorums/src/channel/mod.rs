//! Calls in flight to one node: what its callers and the task of its stream share.
//!
//! ```text
//!  a call ──► Outbox ──────────► the task of the node's stream ──────► node
//!    │       (bounded)                                                  │
//!    └──► Table ◄────── deliver: a reply meets its call ◄───────────────┘
//!           ▲ calls whose deadline has passed
//!         sweeper (pool)
//! ```
//!
//! * [`Channel`] stands for one node, whatever the state of its connection.
//! * [`call`] is one call in flight, shared by its handle and the channels of its nodes.
//! * [`outbox`] and [`table`] are the two bounded queues: requests that are not written, calls that
//!   are not answered.
//! * [`attachment`] has the calls to a node that opens the stream itself go over that stream.
//! * [`pool`] is what all nodes of a pool share, and the sweeper that ends calls at their deadlines.

mod attachment;
pub(crate) mod call;
mod deliver;
pub(crate) mod outbox;
pub(crate) mod pool;
mod settings;
mod state;
pub(crate) mod table;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

pub(crate) use attachment::Attachment;
pub use call::Overflow;
pub(crate) use call::{Call, Early, Event, Interest, Kind, Unread, What};
pub(crate) use deliver::{deliver, skipped};
pub(crate) use outbox::{Carrier, OutMessage, Outbox, Rejected, Ticket};
pub(crate) use pool::Pool;
pub(crate) use settings::{Pairs, Settings};
pub use state::{NodeState, WhileDisconnected};
use tokio::sync::Notify;

use crate::error::{NodeError, Outcome, Status};
use crate::node_id::NodeId;
use crate::runtime::Door;
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use crate::sync::{AtomicWaker, Mutex, MutexGuard};
use crate::wire::Features;
// Statistics decide nothing: these are always `std`'s.
use crate::wire::Side;

/// One node's connection, whatever its state.
pub(crate) struct Channel {
    id: NodeId,
    address: Arc<str>,
    pool: Arc<Pool>,
    side: Side,
    outbox: Mutex<Outbox>,
    /// Wakes the I/O task: something is queued, or the channel is to close.
    io: AtomicWaker,
    state: AtomicU8,
    /// The last handle was dropped.
    closing: AtomicBool,
    /// Two-way requests that are queued or written and not answered, in calls that still want them.
    pending: AtomicUsize,
    /// The I/O task reads no more until somebody waits for a reply, which may be behind what it does
    /// not read: whoever does wakes it.
    reading_paused: AtomicBool,
    /// Nanoseconds; 0 before the first reply.
    latency: AtomicU64,
    latencies: Latencies,
    last_error: Mutex<Option<Status>>,
    peer: Mutex<Peer>,
    /// Where the node is this process' own server, the way to it.
    door: Mutex<Option<Door>>,
    /// How often the way to the node has changed.
    ways: AtomicUsize,
    /// Held while a stream that the node opened begins or ceases to carry its calls.
    switch: Mutex<()>,
    /// The last handle was dropped, or a stream ceased to carry calls.
    let_go: Notify,
}

/// What is known of the peer on the present connection.
#[derive(Default)]
struct Peer {
    /// None before its headers have come, which a Go server sends with its first reply.
    features: Option<Features>,
    /// Requests that were written and then given up, of which the peer was not told yet.
    cancels: Vec<u64>,
}

/// How many cancellations may wait to be written. Those beyond are not told.
const CANCELS: usize = 4096;

/// A node's last latencies, from which quantiles are taken.
const LATENCIES: usize = 256;

/// The weight of a new sample in the moving average of the latency, as in the Go library: 1/5.
const LATENCY_WEIGHT: u64 = 5;

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
                let outbox = Outbox::without_carrier(messages, bytes, fails_fast);
                (outbox, NodeState::Disconnected)
            }
        };
        Self {
            id,
            address,
            pool,
            side,
            outbox: Mutex::new(outbox),
            io: AtomicWaker::new(),
            state: AtomicU8::new(state as u8),
            closing: AtomicBool::new(false),
            pending: AtomicUsize::new(0),
            reading_paused: AtomicBool::new(false),
            latency: AtomicU64::new(0),
            latencies: Latencies::default(),
            last_error: Mutex::new(None),
            peer: Mutex::default(),
            door: Mutex::default(),
            ways: AtomicUsize::new(0),
            switch: Mutex::default(),
            let_go: Notify::new(),
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.id
    }

    pub(crate) fn address(&self) -> &Arc<str> {
        &self.address
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    pub(crate) fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock()
    }

    /// Queues a message, or says at once why not. Never blocks.
    pub(crate) fn queue(&self, message: OutMessage) -> Result<(), Status> {
        let was_empty = {
            let mut outbox = self.outbox();
            let was_empty = outbox.is_empty();
            let queued = outbox.push(message);
            queued.map_err(|rejected| self.rejection(rejected))?;
            was_empty
        };
        // Whoever made it non-empty has woken the I/O task, which empties it as soon as it can.
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
            Rejected::Full => Status::resource_exhausted(
                "the node's outbox is full (see ConfigurationBuilder::outbox)",
            ),
            Rejected::Closed => Status::unavailable("the connection is closed"),
            Rejected::Away => Status::unavailable(format!(
                "node {} is not connected, and it is the one of the pair that connects (see \
                 ConfigurationBuilder::one_stream_per_pair)",
                self.id
            )),
        }
    }

    /// Tells the peer that nobody waits for this reply any more, if it would understand.
    pub(crate) fn send_cancel(&self, id: u64) {
        let mut peer = self.peer();
        // A peer that has not said what it understands may still do so. One that lets so many pile up
        // has worse to do than to hear of a cancellation.
        if peer.features.is_none_or(|features| features.cancel) && peer.cancels.len() < CANCELS {
            peer.cancels.push(id);
            drop(peer);
            self.io.wake();
        }
    }

    /// Whether the peer is known to be of this library.
    pub(crate) fn understands_us(&self) -> bool {
        self.peer()
            .features
            .is_some_and(|features| features != Features::default())
    }

    /// The requests that were given up, if the peer is to be told now.
    pub(crate) fn take_cancels(&self) -> Vec<u64> {
        let mut peer = self.peer();
        if peer.features.is_some_and(|features| features.cancel) {
            std::mem::take(&mut peer.cancels)
        } else {
            Vec::new()
        }
    }

    /// The peer has said what it understands; none when there is no connection any more.
    pub(crate) fn set_features(&self, features: Option<Features>) {
        let mut peer = self.peer();
        peer.features = features;
        if !features.is_some_and(|features| features.cancel) {
            peer.cancels = Vec::new();
        }
    }

    fn peer(&self) -> MutexGuard<'_, Peer> {
        self.peer.lock()
    }

    pub(crate) fn io(&self) -> &AtomicWaker {
        &self.io
    }

    pub(crate) fn state(&self) -> NodeState {
        NodeState::from_number(self.state.load(Ordering::SeqCst))
    }

    pub(crate) fn set_state(&self, state: NodeState) {
        if self.state.swap(state as u8, Ordering::SeqCst) != state as u8 {
            self.pool.state_changed.notify_waiters();
        }
    }

    /// The node is this process' own server from now on: the present connection ends, and the next
    /// goes this way.
    pub(crate) fn set_door(&self, door: Door) {
        *self.lock_door() = Some(door);
        self.connect_anew();
    }

    pub(crate) fn door(&self) -> Option<Door> {
        self.lock_door().clone()
    }

    /// What this process tells the node of itself has changed: the present connection ends, and the
    /// next says so.
    pub(crate) fn connect_anew(&self) {
        self.ways.fetch_add(1, Ordering::SeqCst);
        self.io.wake();
    }

    /// Changes when the way to the node does.
    pub(crate) fn ways(&self) -> usize {
        self.ways.load(Ordering::SeqCst)
    }

    fn lock_door(&self) -> MutexGuard<'_, Option<Door>> {
        self.door.lock()
    }

    /// The last handle is gone: what is queued is written, for a while, and then the connection ends.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.io.wake();
        self.let_go.notify_one();
    }

    /// For the one task that waits until the last handle is dropped, or a stream has ceased to carry
    /// calls.
    pub(crate) fn let_go(&self) -> &Notify {
        &self.let_go
    }

    /// Streams begin and cease to carry calls one after the other.
    pub(crate) fn switch(&self) -> MutexGuard<'_, ()> {
        self.switch.lock()
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    pub(crate) fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    pub(crate) fn add_pending(&self) {
        // Before it is looked at whether reading is paused.
        self.pending.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether reading may pause because nobody waits for a reply. The I/O task is woken when a call is
    /// queued, and asks again.
    pub(crate) fn may_pause_reading(&self) -> bool {
        self.reading_paused.store(true, Ordering::SeqCst);
        self.pending.load(Ordering::SeqCst) == 0
    }

    pub(crate) fn remove_pending(&self) {
        self.pending.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn latency(&self) -> Option<Duration> {
        let nanos = self.latency.load(Ordering::Relaxed);
        (nanos > 0).then(|| Duration::from_nanos(nanos))
    }

    /// Only the I/O task calls this.
    pub(crate) fn record_latency(&self, sample: Duration) {
        let sample = u64::try_from(sample.as_nanos()).unwrap_or(u64::MAX).max(1);
        let old = self.latency.load(Ordering::Relaxed);
        let new = if old == 0 {
            sample
        } else {
            (old - old / LATENCY_WEIGHT).saturating_add(sample / LATENCY_WEIGHT)
        };
        self.latency.store(new.max(1), Ordering::Relaxed);
        self.latencies.push(sample);
    }

    pub(crate) fn latency_quantile(&self, q: f64) -> Option<Duration> {
        self.latencies.quantile(q).map(Duration::from_nanos)
    }

    pub(crate) fn last_error(&self) -> Option<Status> {
        self.lock_error().clone()
    }

    pub(crate) fn has_error(&self) -> bool {
        self.lock_error().is_some()
    }

    pub(crate) fn set_last_error(&self, error: Option<Status>) {
        *self.lock_error() = error;
    }

    fn lock_error(&self) -> MutexGuard<'_, Option<Status>> {
        self.last_error.lock()
    }

    pub(crate) fn error(&self, outcome: Outcome, status: Status) -> NodeError {
        NodeError::new(self.id, Arc::clone(&self.address), outcome, status)
    }

    /// The connection broke: the requests that were written on it will have no answer.
    pub(crate) fn fail_written(self: &Arc<Self>, status: &Status) {
        self.fail_written_as(Outcome::Unknown, status);
    }

    /// The same, where this is known of them.
    pub(crate) fn fail_written_as(self: &Arc<Self>, outcome: Outcome, status: &Status) {
        for call in self.pool.calls.all() {
            if let Some(part) = call.targets().position_of(self) {
                call.lost(part, outcome, status);
            }
        }
    }

    /// These requests will not be written.
    pub(crate) fn fail_unwritten(messages: Vec<OutMessage>, status: &Status) {
        Self::fail_unwritten_as(messages, Outcome::NotSent, status);
    }

    /// The same, where the node may have said why.
    pub(crate) fn fail_unwritten_as(messages: Vec<OutMessage>, outcome: Outcome, status: &Status) {
        for message in messages {
            if let Some(ticket) = message.ticket {
                ticket.call.not_written(ticket.part, outcome, status);
            }
        }
    }

    /// Which end of its streams this process is.
    pub(crate) fn side(&self) -> Side {
        self.side
    }

    /// The peer has gone for good: nothing more is written, and nothing more will be answered.
    pub(crate) fn end(self: &Arc<Self>, status: &Status) {
        self.set_last_error(Some(status.clone()));
        self.set_state(NodeState::Closed);
        let unwritten = self.outbox().close();
        Self::fail_unwritten(unwritten, status);
        self.fail_written(status);
    }
}

/// A ring of the last samples, in nanoseconds; a place that holds 0 has none. One task writes, and
/// whoever reads may see some samples newer than others: they are all recent.
struct Latencies {
    samples: Box<[AtomicU64]>,
    /// How many there have been.
    count: AtomicUsize,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            samples: (0..LATENCIES).map(|_| AtomicU64::new(0)).collect(),
            count: AtomicUsize::new(0),
        }
    }
}

impl Latencies {
    fn push(&self, sample: u64) {
        // Loaded and stored, and not added to: there is one writer.
        let count = self.count.load(Ordering::Relaxed);
        self.samples[count % LATENCIES].store(sample, Ordering::Relaxed);
        self.count.store(count.wrapping_add(1), Ordering::Relaxed);
    }

    /// The least sample that at least this part of all samples does not exceed.
    fn quantile(&self, q: f64) -> Option<u64> {
        let mut samples: Vec<u64> = self
            .samples
            .iter()
            .map(|sample| sample.load(Ordering::Relaxed))
            .filter(|sample| *sample > 0)
            .collect();
        let q = if q.is_nan() { 0.0 } else { q.clamp(0.0, 1.0) };
        let rank = ((q * samples.len() as f64).ceil() as usize).max(1);
        let index = rank.min(samples.len()).checked_sub(1)?;
        Some(*samples.select_nth_unstable(index).1)
    }
}

/// The nodes that a call is for, by position.
pub(crate) struct Targets {
    channels: Box<[Arc<Channel>]>,
    /// Ids with their positions, sorted, for configurations too large to look through.
    by_id: Box<[(NodeId, usize)]>,
    /// One channel of each pool.
    pools: Box<[Arc<Pool>]>,
}

impl Targets {
    pub(crate) fn new(channels: impl IntoIterator<Item = Arc<Channel>>) -> Arc<Self> {
        let channels: Box<[_]> = channels.into_iter().collect();
        let mut by_id: Box<[_]> = channels
            .iter()
            .enumerate()
            .map(|(position, channel)| (channel.id(), position))
            .collect();
        by_id.sort_unstable();
        let mut pools: Vec<Arc<Pool>> = Vec::new();
        for channel in &channels {
            if !pools.iter().any(|pool| Arc::ptr_eq(pool, channel.pool())) {
                pools.push(Arc::clone(channel.pool()));
            }
        }
        Arc::new(Self {
            channels,
            by_id,
            pools: pools.into(),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.channels.len()
    }

    pub(crate) fn channels(&self) -> &[Arc<Channel>] {
        &self.channels
    }

    /// The pools that the channels belong to; more than one after a union across pools.
    pub(crate) fn pools(&self) -> &[Arc<Pool>] {
        &self.pools
    }

    pub(crate) fn position(&self, id: NodeId) -> Option<usize> {
        if self.channels.len() <= 8 {
            return self.channels.iter().position(|channel| channel.id() == id);
        }
        let index = self.by_id.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(self.by_id[index].1)
    }

    /// The position of this very channel, and not of another one with its id.
    pub(crate) fn position_of(&self, channel: &Arc<Channel>) -> Option<usize> {
        self.position(channel.id())
            .filter(|position| Arc::ptr_eq(&self.channels[*position], channel))
    }
}
