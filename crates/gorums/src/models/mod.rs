//! Models of what several threads share: small programs of two to five threads on the library's own
//! types, of which loom runs every order of steps (and every value that a weakly ordered load may
//! see). Run them by `cargo xtask loom`, which also says how far.
//!
//! * [`parts`]: who moves a call's part from one state to the next, and who hears of it.
//! * [`outbox`]: a node's outbox and the I/O task that empties it; [`streams`] that the node opens
//!   one after the other.
//! * [`poll_flag`]: whether a connection has to be polled.
//! * [`table`]: the calls that wait for replies; [`sweeper`] ends them at their deadlines.
//! * [`turn`], [`lane`], [`reply_queue`]: the server's side; [`monitor`] watches over lanes that
//!   block.
//!
//! A lost wake-up is a deadlock here: a task is polled only when it was woken, and loom reports
//! threads that all wait. Every model must do the same in each run except for the order (fixed ids,
//! a clock of its own), and must end.

mod credit;
mod lane;
mod monitor;
mod outbox;
mod parts;
mod poll_flag;
mod reply_queue;
mod streams;
mod sweeper;
mod table;
mod turn;

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};
use std::{fmt, io};

use bytes::{Buf, Bytes};
use loom::thread::{self, JoinHandle};
use tokio::time::Instant;

use crate::channel::{
    Call, Channel, Early, Event, EventKind, Kind, OutMessage, Pool, Settings, StreamId, Targets,
    WakeAfter,
};
use crate::error::{Outcome, Status};
use crate::metadata::Metadata;
use crate::node_id::NodeId;
use crate::runtime::{BoxFuture, BoxIo, Clock, Listener, Transport};
use crate::stream::Outbound;
use crate::sync::{Mutex, block_on};
use crate::wire::{Batch, Control, Envelope, Features, PREFIX, Side};

/// How often a thread is taken off the processor in the midst of its work, where
/// `LOOM_MAX_PREEMPTIONS` does not say otherwise. Nearly all races need one or two.
const PREEMPTIONS: usize = 2;

/// Runs a model in every order, and says how many there were.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    // The lane asks which runtime it is on; none of its tasks run there.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime without drivers");
    let _entered = runtime.enter();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(PREEMPTIONS);
    builder.max_branches = 100_000;
    let (limit, start) = (builder.max_duration, Instant::now());
    let orders = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&orders);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let more = match limit {
        Some(limit) if start.elapsed() >= limit => ", and there are more",
        _ => "",
    };
    // `cargo xtask loom` reads this line.
    println!("explored {} orders{more}", orders.load(Ordering::Relaxed));
}

/// When every model begins.
fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

/// A time after the deadline of every call.
fn late() -> Instant {
    epoch() + Duration::from_secs(1)
}

/// A clock that stands still.
#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now(&self) -> Instant {
        epoch()
    }

    fn sleep_until(&self, _: Instant) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }

    fn wall_clock(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    fn random(&self) -> u64 {
        0
    }
}

/// Leads nowhere.
struct NoTransport;

impl Transport for NoTransport {
    fn connect<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(std::future::pending())
    }

    fn listen<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(std::future::pending())
    }
}

fn pool(clock: impl Clock, outbox_messages: usize) -> Arc<Pool> {
    let settings = Settings {
        outbox_messages,
        max_calls: 4,
        ..Settings::default()
    };
    Pool::new(
        settings,
        Metadata::new(),
        Arc::new(clock),
        Arc::new(NoTransport),
    )
}

/// Nodes of one pool, whose outboxes take `outbox_messages` each.
fn nodes(count: u32, outbox_messages: usize) -> Vec<Arc<Channel>> {
    let pool = pool(Still, outbox_messages);
    (1..=count).map(|id| node(id, &pool)).collect()
}

fn node(id: u32, pool: &Arc<Pool>) -> Arc<Channel> {
    let channel = Channel::new(
        NodeId::from(id),
        "node".into(),
        Arc::clone(pool),
        Side::Client,
    );
    channel.set_features(Some(FEATURES));
    Arc::new(channel)
}

/// What every node understands.
const FEATURES: Features = Features {
    cancel: true,
    stream_end: true,
    credit: true,
    instance: true,
    // The ids of the models say nothing.
    kind: false,
    going_away: true,
    deadline: false,
};

/// A call on these nodes that is in the table, with a deadline, and not queued yet.
fn call(id: u64, kind: Kind, nodes: &[Arc<Channel>]) -> Arc<Call> {
    let targets = Targets::new(nodes.iter().cloned());
    let call = Arc::new(Call::new(id, "m", kind, targets, nodes.len(), epoch()));
    let deadline = epoch() + Duration::from_millis(1);
    let registered = nodes[0].pool().register(&call, Some(deadline));
    assert_eq!(registered, Ok(true), "the table is empty");
    call
}

/// A request that is told from others by one letter.
fn frame(letter: u8) -> Bytes {
    Bytes::copy_from_slice(&[letter])
}

/// Takes what is queued out, as for writing; true if there was something.
fn take(channel: &Channel) -> bool {
    channel.outbox().pop(StreamId::DIALLED).is_some()
}

/// A reply to this call comes from the node; true if it counted.
fn reply(channel: &Arc<Channel>, id: u64) -> bool {
    let Some(call) = channel.pool().calls.get(id) else {
        return false;
    };
    let part = call
        .targets()
        .position_of(channel)
        .expect("one of its nodes");
    call.replied(part, Bytes::new(), epoch())
}

/// The deadline of every call in the table has passed.
fn expire(pool: &Pool) {
    for call in pool.calls.expire(late()).0 {
        call.end_early(Early::Deadline);
    }
}

/// Waits for all that happens to a call.
fn events(call: &Call) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(event) = block_on(poll_fn(|cx| call.poll_event(cx, WakeAfter::ANY))) {
        events.push(event);
    }
    events
}

/// What is known of the request of a part that failed.
fn outcome(event: &Event) -> Option<Outcome> {
    match &event.kind {
        EventKind::Failed(error) => Some(error.outcome()),
        EventKind::Reply(_) | EventKind::Ended => None,
    }
}

fn lost() -> Status {
    Status::unavailable("the connection broke")
}

/// What a node's I/O task has written, without HTTP/2: each batch is written at once.
#[derive(Default)]
struct Written {
    writer: Outbound,
    /// The letters of the requests.
    requests: Vec<u8>,
    /// The ids of the calls that the node was told to give up.
    cancelled: Vec<u64>,
}

impl Written {
    /// Writes all that is queued.
    fn write(&mut self, channel: &Channel) {
        self.write_on(channel, StreamId::DIALLED);
    }

    /// Writes all that is queued for this stream.
    fn write_on(&mut self, channel: &Channel, stream: StreamId) {
        let mut markers = Vec::new();
        loop {
            self.writer.push_messages(channel, stream, None);
            let Some(batch) = self.writer.next() else {
                return;
            };
            self.read(batch);
            self.writer.settle(&mut markers);
        }
    }

    /// Takes what is queued for a stream that breaks before a byte is written.
    fn break_off(&mut self, channel: &Channel) {
        self.writer.push_messages(channel, StreamId::DIALLED, None);
        drop(self.writer.next());
        self.writer.give_back(channel, StreamId::DIALLED);
    }

    fn read(&mut self, mut batch: Batch) {
        while batch.has_remaining() {
            if batch.chunk()[0] != 0 {
                self.requests.push(batch.get_u8());
                continue;
            }
            let (id, control) = read_envelope(&mut batch);
            assert_eq!(control, Control::Cancel);
            self.cancelled.push(id);
        }
    }
}

/// Reads a message: its id, and what it is.
fn read_envelope(batch: &mut Batch) -> (u64, Control) {
    let mut prefix = batch.copy_to_bytes(PREFIX);
    prefix.advance(1);
    let frame = batch.copy_to_bytes(prefix.get_u32() as usize);
    let envelope = Envelope::decode(&frame).expect("our own");
    (envelope.id, envelope.control)
}

/// Something that threads wait for.
#[derive(Clone, Default)]
struct Gate(Arc<Mutex<(bool, Option<Waker>)>>);

impl Gate {
    fn open(&self) {
        let waker = {
            let mut state = self.0.lock();
            state.0 = true;
            state.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn is_open(&self) -> bool {
        self.0.lock().0
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.0 {
            return Poll::Ready(());
        }
        state.1 = Some(cx.waker().clone());
        Poll::Pending
    }

    async fn opened(&self) {
        poll_fn(|cx| self.poll(cx)).await;
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

fn spawn<T: 'static>(thread: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    thread::spawn(thread)
}

fn join<T>(thread: JoinHandle<T>) -> T {
    thread.join().expect("the thread did not panic")
}

/// A message that is nobody's.
fn message() -> OutMessage {
    OutMessage::new(frame(b'z'), None)
}
