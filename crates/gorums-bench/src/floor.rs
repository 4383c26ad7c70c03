//! The floor: quorum calls over plain TCP, with nothing but a length before each message, and with
//! the batching of the library.
//!
//! A message is its length (4 bytes), a number (8 bytes) and the payload; what comes back is the
//! same. There is no HTTP/2, no Protocol Buffers, no order of handlers, no deadline, and no failure
//! that is survived. What remains is what any library must do for such a call: write three
//! messages, read three, and wake who waits.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use atomic_waker::AtomicWaker;
use gorums::runtime::{BoxIo, Listener, Tcp, TcpAcceptor, Transport};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinSet;

use crate::load::{CallError, Caller, Work};

/// The length of what follows it.
const LENGTH: usize = 4;
/// The number of a message.
const NUMBER: usize = 8;
const HEADER: usize = LENGTH + NUMBER;
/// What is read at once.
const READ: usize = 256 * 1024;
/// How often in a row a connection reads before it lets others run.
const READS: usize = 16;
/// Replies that wait to be written; at the bound no more requests are read.
const WAITING: usize = 4 * 1024 * 1024;
/// No message is longer; a peer that says so does not speak this protocol.
const LONGEST: usize = 64 * 1024 * 1024;
/// Low bits of a message's number that say which caller made it; the rest counts its calls.
const CALLER_BITS: u32 = 24;

/// Sends back what comes, on every connection, for ever.
pub(crate) async fn serve(mut listener: TcpAcceptor) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // A client that leaves is how a connection ends.
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((io, _)) => {
                    connections.spawn(echo(Wire::new(io)));
                }
                Err(error) => {
                    eprintln!("gorums-bench: the floor's server accepts no more: {error}");
                    return;
                }
            }
        }
    }
}

async fn echo(mut wire: Wire) -> io::Result<()> {
    let mut replies = Vec::new();
    poll_fn(|cx| {
        loop {
            let mut more = true;
            let mut reads = 0;
            while replies.len() < WAITING && reads < READS {
                let read =
                    wire.poll_read(cx, |number, payload| push(&mut replies, number, payload));
                if read.is_pending() {
                    more = false;
                    break;
                }
                ready!(read)?;
                reads += 1;
            }
            loop {
                ready!(wire.poll_write(cx))?;
                if replies.is_empty() {
                    break;
                }
                wire.write(&mut replies);
            }
            if !more {
                return Poll::Pending;
            }
        }
    })
    .await
}

/// Connections to servers, and the calls that wait for their replies. They end when this and all
/// callers are dropped.
pub(crate) struct Floor {
    shared: Arc<Shared>,
    quorum: usize,
    payload: usize,
    _connections: JoinSet<()>,
}

struct Shared {
    outboxes: Vec<Outbox>,
    slots: Vec<Mutex<Slot>>,
}

/// What waits to be written to a server.
#[derive(Default)]
struct Outbox {
    queue: Mutex<Queue>,
    writer: AtomicWaker,
    /// Messages that are queued, or were written and not answered.
    unanswered: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    messages: usize,
}

/// The call of one caller.
#[derive(Default)]
struct Slot {
    /// How many calls it has made; replies to earlier ones are late.
    call: u64,
    replies: usize,
    /// What the first reply brought.
    payload: Vec<u8>,
    waker: Option<Waker>,
    error: Option<String>,
}

impl Floor {
    /// Connects to servers, for so many callers.
    pub(crate) async fn connect(
        addresses: &[String],
        quorum: usize,
        payload: usize,
        callers: usize,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            outboxes: addresses.iter().map(|_| Outbox::default()).collect(),
            slots: (0..callers).map(|_| Mutex::default()).collect(),
        });
        let mut connections = JoinSet::new();
        for (node, address) in addresses.iter().enumerate() {
            let wire = Wire::new(Tcp.connect(address).await?);
            let shared = Arc::clone(&shared);
            connections.spawn(async move {
                let error = shared.carry(node, wire, quorum).await;
                shared.fail(&error);
            });
        }
        Ok(Self {
            shared,
            quorum,
            payload,
            _connections: connections,
        })
    }
}

impl Work for Floor {
    type Caller = FloorCaller;

    fn caller(&self, number: usize) -> FloorCaller {
        FloorCaller {
            shared: Arc::clone(&self.shared),
            number,
            quorum: self.quorum,
            payload: vec![0; self.payload],
        }
    }
}

pub(crate) struct FloorCaller {
    shared: Arc<Shared>,
    number: usize,
    quorum: usize,
    payload: Vec<u8>,
}

impl Caller for FloorCaller {
    async fn call(&mut self) -> Result<(), CallError> {
        let slot = &self.shared.slots[self.number];
        let call = {
            let mut slot = lock(slot);
            slot.call += 1;
            slot.replies = 0;
            slot.call
        };
        let number = call << CALLER_BITS | self.number as u64;
        for outbox in &self.shared.outboxes {
            outbox.push(number, &self.payload);
        }
        poll_fn(|cx| {
            let mut slot = lock(slot);
            if let Some(error) = &slot.error {
                return Poll::Ready(Err(CallError(error.clone())));
            }
            if slot.replies < self.quorum {
                match &mut slot.waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
                return Poll::Pending;
            }
            if slot.payload.len() != self.payload.len() {
                let text = format!("{} bytes came back", slot.payload.len());
                return Poll::Ready(Err(CallError(text)));
            }
            Poll::Ready(Ok(()))
        })
        .await
    }
}

impl Shared {
    /// Does what is to be read and written on the connection to a node, until it fails.
    async fn carry(&self, node: usize, mut wire: Wire, quorum: usize) -> io::Error {
        let outbox = &self.outboxes[node];
        let mut yielded = false;
        let ended: io::Result<std::convert::Infallible> = poll_fn(|cx| {
            outbox.writer.register(cx.waker());
            for read in 1.. {
                let reading = wire.poll_read(cx, |number, payload| {
                    outbox.unanswered.fetch_sub(1, Ordering::Relaxed);
                    self.deliver(number, payload, quorum);
                });
                if reading.is_pending() {
                    break;
                }
                ready!(reading)?;
                if read == READS {
                    cx.waker().wake_by_ref();
                    break;
                }
            }
            loop {
                ready!(wire.poll_write(cx))?;
                let mut queue = lock(&outbox.queue);
                if queue.messages == 0 {
                    return Poll::Pending;
                }
                // More calls than these are under way: others may be about to queue theirs, so that
                // one write takes them all.
                if !yielded && queue.messages < outbox.unanswered.load(Ordering::Relaxed) {
                    yielded = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                yielded = false;
                queue.messages = 0;
                wire.write(&mut queue.bytes);
            }
        })
        .await;
        match ended {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    fn deliver(&self, number: u64, payload: &[u8], quorum: usize) {
        let caller = number & ((1 << CALLER_BITS) - 1);
        let Some(slot) = usize::try_from(caller)
            .ok()
            .and_then(|at| self.slots.get(at))
        else {
            return;
        };
        let mut slot = lock(slot);
        if slot.call != number >> CALLER_BITS {
            return;
        }
        slot.replies += 1;
        if slot.replies == 1 {
            slot.payload.clear();
            slot.payload.extend_from_slice(payload);
        }
        if slot.replies == quorum
            && let Some(waker) = slot.waker.take()
        {
            drop(slot);
            waker.wake();
        }
    }

    fn fail(&self, error: &io::Error) {
        for slot in &self.slots {
            let mut slot = lock(slot);
            slot.error = Some(error.to_string());
            if let Some(waker) = slot.waker.take() {
                waker.wake();
            }
        }
    }
}

impl Outbox {
    fn push(&self, number: u64, payload: &[u8]) {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
        let first = {
            let mut queue = lock(&self.queue);
            queue.messages += 1;
            push(&mut queue.bytes, number, payload);
            queue.messages == 1
        };
        if first {
            self.writer.wake();
        }
    }
}

/// Adds a message to those in the buffer.
fn push(buffer: &mut Vec<u8>, number: u64, payload: &[u8]) {
    let length = u32::try_from(NUMBER + payload.len()).expect("payloads are below 4 GiB");
    buffer.extend_from_slice(&length.to_be_bytes());
    buffer.extend_from_slice(&number.to_be_bytes());
    buffer.extend_from_slice(payload);
}

/// A connection: what was read and is not yet a whole message, and what is being written.
struct Wire {
    io: BoxIo,
    input: Vec<u8>,
    /// Where in `input` the bytes are that were read.
    start: usize,
    end: usize,
    output: Vec<u8>,
    written: usize,
}

impl Wire {
    fn new(io: BoxIo) -> Self {
        Self {
            io,
            input: vec![0; READ],
            start: 0,
            end: 0,
            output: Vec::new(),
            written: 0,
        }
    }

    /// Reads once, and hands on the messages that are whole then.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        mut message: impl FnMut(u64, &[u8]),
    ) -> Poll<io::Result<()>> {
        if self.end == self.input.len() {
            self.make_room();
        }
        let mut free = ReadBuf::new(&mut self.input[self.end..]);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut free))?;
        let count = free.filled().len();
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.end += count;
        while let Some(length) = self.next_length() {
            if !(NUMBER..=LONGEST).contains(&length) {
                let text = format!("a message of {length} bytes");
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
            }
            let from = self.start + LENGTH;
            let to = from + length;
            if to > self.end {
                break;
            }
            let (number, payload) = self.input[from..to].split_at(NUMBER);
            let number = number.try_into().expect("split after so many bytes");
            message(u64::from_be_bytes(number), payload);
            self.start = to;
        }
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        Poll::Ready(Ok(()))
    }

    /// The length of the message that comes next, where that much of it was read.
    fn next_length(&self) -> Option<usize> {
        let bytes = self.input[self.start..self.end].first_chunk::<LENGTH>()?;
        usize::try_from(u32::from_be_bytes(*bytes)).ok()
    }

    fn make_room(&mut self) {
        self.input.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.end == self.input.len() {
            let needed = self.next_length().map_or(0, |length| HEADER + length);
            self.input.resize((2 * self.end).max(needed), 0);
        }
    }

    /// Takes what is to be written next, which must be when everything before is written.
    fn write(&mut self, bytes: &mut Vec<u8>) {
        self.output.clear();
        self.written = 0;
        std::mem::swap(&mut self.output, bytes);
    }

    /// Writes, and is ready when everything is written.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.output.len() {
            let rest = &self.output[self.written..];
            self.written += ready!(Pin::new(&mut self.io).poll_write(cx, rest))?;
        }
        Poll::Ready(Ok(()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::load::Load;
    use crate::servers::{Place, Role, Servers};

    #[tokio::test]
    async fn every_call_gets_its_payload_from_a_quorum() {
        // The last is longer than what is read at once.
        for payload in [0, 1, 1024, 3 * READ] {
            let servers = Servers::start(&Place::Here, Role::Floor, 3, payload).await;
            let servers = servers.expect("servers start");
            let floor = Floor::connect(servers.addresses(), 2, payload, 8).await;
            let floor = floor.expect("connects");
            let load = Load::Closed { in_flight: 8 };
            let outcome = load.run(&floor, Duration::from_millis(50)).await;
            let calls = outcome.expect("no call fails").calls;
            let made: u64 = floor.shared.slots.iter().map(|slot| lock(slot).call).sum();
            assert!(calls >= 8, "{calls} calls");
            assert_eq!(calls, made, "with {payload} bytes");
        }
    }

    #[tokio::test]
    async fn a_call_waits_for_its_quorum() {
        let servers = Servers::start(&Place::Here, Role::Floor, 2, 0).await;
        let servers = servers.expect("servers start");
        // The third takes connections and never answers.
        let silent = TcpAcceptor::bind("127.0.0.1:0").await.expect("listens");
        let mut addresses = servers.addresses().to_vec();
        addresses.push(silent.local_addr().expect("it has one").to_string());
        for (quorum, answered) in [(2, true), (3, false)] {
            let floor = Floor::connect(&addresses, quorum, 0, 1)
                .await
                .expect("connects");
            let mut caller = floor.caller(0);
            let mut call = std::pin::pin!(caller.call());
            // All replies that come have come when the two servers have answered.
            let call = async {
                loop {
                    let done = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
                    if let Poll::Ready(result) = done {
                        break result.is_ok();
                    }
                    if lock(&floor.shared.slots[0]).replies == 2 && quorum == 3 {
                        break false;
                    }
                    tokio::task::yield_now().await;
                }
            };
            assert_eq!(call.await, answered, "with a quorum of {quorum}");
        }
    }

    #[tokio::test]
    async fn calls_fail_when_a_server_goes() {
        let mut servers = Servers::start(&Place::Here, Role::Floor, 1, 0)
            .await
            .expect("starts");
        let floor = Floor::connect(servers.addresses(), 1, 0, 1)
            .await
            .expect("connects");
        let mut caller = floor.caller(0);
        caller.call().await.expect("the server is there");
        servers.kill(0).await.expect("it can be ended");
        let mut call = caller.call().await;
        while call.is_ok() {
            call = caller.call().await;
        }
        assert!(call.is_err());
    }
}
