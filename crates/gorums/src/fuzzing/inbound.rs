use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::{Buf, Bytes};
use http::Extensions;
use tokio::task::yield_now;

use super::calls::Calls;
use super::input::Input;
use super::service::{LIMIT, METHODS, Service};
use crate::error::{Code, Status};
use crate::handler::ConnectionInfo;
use crate::metadata::Metadata;
use crate::stream::{Inbound, Limit, Opening, Progress, REFUSALS, Reader, Served, Source};
use crate::wire::{
    BatchBuilder, BatchSlot, Control, Decoder, Envelope, Features, Frame, PREFIX, SERVER_INITIATED,
    encode_control, encode_credit, encode_message, encode_status,
};

/// How many bytes the peer may have sent that were not read: what flow control sees to.
const WINDOW: usize = 8 * 1024;

/// What the steps of a peer and of a connection do to the inbound half of a stream, with handlers
/// that run, wait, stream and panic, and with calls that wait for replies. It breaks no bound on the
/// way, tells handlers what came and in this order, wakes whom it keeps waiting, and has nothing
/// left in the end.
pub fn inbound(input: &[u8]) {
    // No timers: what waits for them would never end, and time is this program's.
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("it needs nothing of the system");
    runtime.block_on(run(&mut Input(input)));
}

async fn run(input: &mut Input<'_>) {
    let mut stream = Stream::open(input);
    let mut end = End::HalfClosed;
    while !input.is_empty() {
        if let Some(chosen) = step(&mut stream, input).await {
            end = chosen;
            break;
        }
    }
    stream.end(end).await;
}

/// How a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The peer sends no more, and takes the answers.
    HalfClosed,
    /// The peer has gone.
    Gone,
    /// This end is stopped.
    Stopped,
}

async fn step(stream: &mut Stream, input: &mut Input<'_>) -> Option<End> {
    match input.below(18) {
        0..=3 => {
            let request = request(input);
            stream.send(&request);
        }
        4 => stream.send(&framed(input.some())),
        5 => stream.send(input.some()),
        6 => {
            let (id, control) = (id(input), control(input));
            stream.send(&encode_control(id, control));
        }
        7 => stream.send(&encode_credit(id(input), input.number())),
        8 => stream.send(&answer(input)),
        // A message that is too large, whose bytes come next.
        9 => {
            let len = u32::from_be_bytes([0, 0, input.byte(), input.byte()]);
            stream.send(&[&[0][..], &len.to_be_bytes()].concat());
        }
        10 => stream.deliver(input.byte().into()),
        11 => {
            for _ in 0..input.below(16) {
                stream.settle().await;
            }
        }
        12 => stream.service.open(input.below(4)),
        13 => {
            stream.write();
        }
        14 => stream.calls.take(input),
        15 => stream.service.clock.pass(input.duration()),
        16 => match input.below(3) {
            0 => {
                stream.inbound.ask_for_no_more();
            }
            1 => stream.inbound.say(Control::NoneFollow),
            _ => {
                if !stream.inbound.take_no_requests() {
                    stream.close();
                }
            }
        },
        _ => {
            return Some(input.one_of(&[End::HalfClosed, End::Gone, End::Stopped]));
        }
    }
    None
}

fn id(input: &mut Input<'_>) -> u64 {
    // Few, so that they meet.
    let id = u64::from(input.byte() % 24);
    if input.flag() {
        id | SERVER_INITIATED
    } else {
        id
    }
}

fn method(input: &mut Input<'_>) -> &'static str {
    let other = ["", "gorums.fuzzing.Test.NoSuch"];
    input.one_of(&[&METHODS[..], &other].concat())
}

fn request(input: &mut Input<'_>) -> Bytes {
    let (id, method) = (id(input), method(input));
    let mut metadata = Metadata::new();
    if input.flag() {
        // What cannot be sent is not.
        let _ = metadata.append(input.text(), input.text());
    }
    // Up to twice the limit.
    let text = input.text().repeat(input.one_of(&[1, 1, 1, 8]));
    encode_message(id, method, &metadata, &text, usize::MAX).expect("no limit")
}

fn answer(input: &mut Input<'_>) -> Bytes {
    let mut bytes = bytes::BytesMut::new();
    let status = input
        .flag()
        .then(|| Status::new(Code::from_number(input.byte().into()), input.text()));
    let (id, method, control) = (id(input), method(input), control(input));
    encode_status(id, method, status.as_ref(), control, &mut bytes);
    bytes.freeze()
}

fn control(input: &mut Input<'_>) -> Control {
    input.one_of(&[
        Control::Cancel,
        Control::End,
        Control::GoingAway,
        Control::NoneFollow,
        Control::Unknown,
        Control::Message,
    ])
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    let len = bytes.len() as u32;
    [&[0][..], &len.to_be_bytes(), bytes].concat()
}

/// The inbound half of a stream, and both ends of the connection around it.
struct Stream {
    inbound: Inbound,
    /// Somebody serves the requests.
    is_served: bool,
    service: Service,
    calls: Calls,
    /// Called when there may be something to do.
    woken: Arc<Woken>,
    /// What the peer has sent and the connection has not delivered.
    on_the_way: Vec<u8>,
    /// All that was delivered.
    delivered: Vec<u8>,
    /// Delivered and not read.
    unread: usize,
    /// Reading has paused.
    is_paused: bool,
    /// It reads no more.
    is_closed: bool,
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Stream {
    fn open(input: &mut Input<'_>) -> Self {
        let features = input.byte();
        let has = |bit: u8| features & 1 << bit != 0;
        let features = Features {
            cancel: has(0),
            stream_end: has(1),
            credit: has(2),
            instance: has(3),
            kind: has(4),
            going_away: has(5),
            deadline: has(6),
        };
        let service = Service::new(input);
        let calls = Calls::new(input, &service.clock, features);
        let limit = Limit {
            bytes: LIMIT,
            envelope: 0,
            setting: "a_setting",
        };
        let is_served = input.one_of(&[true, true, true, false]);
        let served = is_served.then(|| Served {
            node_id: 0,
            instance: None,
            source: Source::Held(Arc::clone(&service.services)),
            values: Extensions::new(),
        });
        let mut inbound = Inbound::new(Opening {
            reader: Reader::new(calls.replies, limit),
            served,
            info: ConnectionInfo::default(),
            callee: calls.callee(),
        });
        inbound.set_features(features);
        if input.flag() {
            inbound.start_lane();
        }
        Self {
            inbound,
            is_served,
            service,
            calls,
            woken: Arc::default(),
            on_the_way: Vec::new(),
            delivered: Vec::new(),
            unread: 0,
            is_paused: false,
            is_closed: false,
        }
    }

    fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.woken))
    }

    /// The peer sends bytes, if there is room for so many.
    fn send(&mut self, bytes: &[u8]) {
        if self.on_the_way.len() + bytes.len() <= WINDOW {
            self.on_the_way.extend_from_slice(bytes);
        }
    }

    /// What is on the way comes in chunks of this length, or in one where it is 0.
    fn deliver(&mut self, len: usize) {
        let room = WINDOW - self.unread;
        let rest = self.on_the_way.split_off(self.on_the_way.len().min(room));
        let bytes = std::mem::replace(&mut self.on_the_way, rest);
        let len = if len == 0 { bytes.len() } else { len };
        for chunk in bytes.chunks(len.max(1)) {
            if self.is_closed {
                return;
            }
            self.delivered.extend_from_slice(chunk);
            self.unread += chunk.len();
            if self.is_paused {
                self.inbound.keep(chunk);
            } else {
                self.inbound.push(Bytes::copy_from_slice(chunk));
                self.read();
            }
        }
    }

    fn read(&mut self) {
        if self.is_closed {
            return;
        }
        let read = self.inbound.read(&self.waker(), &mut None);
        self.unread -= self.inbound.take_consumed();
        self.inbound.take_answered();
        match read {
            Ok(progress) => {
                self.is_paused = progress == Progress::Paused;
                assert!(self.is_paused || self.unread == 0, "it was all read");
            }
            Err(_) => self.close(),
        }
        self.assert_bounds();
    }

    fn close(&mut self) {
        self.inbound.close();
        self.is_closed = true;
        self.is_paused = false;
    }

    /// All that can go on does, and what was waited for is read.
    async fn settle(&mut self) {
        self.inbound.register(&self.waker());
        yield_now().await;
        if self.woken.0.swap(false, Ordering::Relaxed) {
            self.read();
        }
        self.assert_bounds();
    }

    /// The connection writes a batch of answers, which is what makes room for more. True if there was
    /// one.
    fn write(&mut self) -> bool {
        let mut batch = BatchBuilder::default();
        if let Some(replies) = self.inbound.replies() {
            replies.take(&mut batch, None);
        }
        if batch.is_empty() {
            return false;
        }
        let slot = BatchSlot::default();
        let mut batch = batch.finish(&slot);
        let bytes = batch.copy_to_bytes(batch.remaining());
        for frame in frames(&bytes) {
            let Frame::Message(frame) = frame else {
                panic!("an answer is larger than any limit");
            };
            Envelope::decode_like(&frame, "").expect("our own");
        }
        // The next thing that the task of a connection does is to read.
        self.read();
        true
    }

    fn assert_bounds(&self) {
        // Reading goes on beyond them while replies are owed.
        if self.calls.are_owed() {
            return;
        }
        let waiting = self.inbound.waiting_bytes();
        let most = self.service.most_waiting() + WINDOW;
        assert!(waiting <= most, "{waiting} of {most} bytes of requests");
        let replies = self.inbound.replies().map_or(0, |replies| replies.bytes());
        let most = match self.is_served {
            true => self.service.most_replies(),
            // One refusal beyond it, with a name of a method.
            false => REFUSALS + 2 * LIMIT,
        };
        assert!(replies <= most, "{replies} of {most} bytes of answers");
        let partial = self.inbound.held_bytes(true) - waiting - replies;
        assert!(partial <= LIMIT + PREFIX, "{partial} bytes of one message");
    }

    async fn end(mut self, end: End) {
        self.deliver(0);
        self.service.open_all();
        match end {
            End::HalfClosed => self.work_off().await,
            End::Gone => {
                self.inbound.leave();
                self.calls.end();
                self.work_off_alone().await;
            }
            End::Stopped => {
                self.inbound.discard();
                self.is_closed = true;
                assert_eq!(self.inbound.waiting_bytes(), 0);
                self.work_off_alone().await;
            }
        }
        assert_eq!(self.inbound.waiting_bytes(), 0, "bytes of requests");
        // Refusals that nobody takes any more go with the stream.
        let has_taken_all = end == End::HalfClosed;
        let held = self.inbound.held_bytes(has_taken_all);
        assert_eq!(held, 0, "bytes of anything");
        self.calls.end();
        self.calls.assert_nothing_left();
        let Self {
            inbound,
            service,
            delivered,
            ..
        } = self;
        drop(inbound);
        for _ in 0..8 {
            yield_now().await;
        }
        service.assert_nothing_left();
        assert_told(&service.told(), &delivered);
    }

    /// Answers are written until there is nothing left to be handled.
    async fn work_off(&mut self) {
        let mut idle = 0;
        loop {
            if !self.is_closed && self.unread == 0 && self.on_the_way.is_empty() {
                self.close();
            }
            if self.is_closed && self.inbound.is_worked_off() && self.inbound.is_answered() {
                break;
            }
            self.deliver(0);
            // Where nothing is written and nothing else happens, somebody is not woken.
            idle = if self.write() { 0 } else { idle + 1 };
            assert!(idle < IDLE, "a stream that is to end does not");
            self.calls.take_all();
            self.settle().await;
        }
    }

    /// Nobody takes answers any more.
    async fn work_off_alone(&mut self) {
        let waker = self.waker();
        let mut cx = Context::from_waker(&waker);
        for _ in 0..IDLE {
            if self.inbound.poll_work_off(&mut cx) == Poll::Ready(()) {
                return;
            }
            yield_now().await;
        }
        panic!("a stream that nobody reads does not end");
    }
}

/// In each of these rounds every task that can go on does, and the handlers of this service end as
/// soon as they may.
const IDLE: usize = 1_000;

/// The messages in bytes that are sound.
fn frames(bytes: &Bytes) -> Vec<Frame> {
    let mut decoder = Decoder::new(usize::MAX);
    decoder.push(bytes.clone());
    let mut frames = Vec::new();
    while let Ok(Some(frame)) = decoder.next() {
        frames.push(frame);
    }
    frames
}

/// Handlers were told nothing but what came, and in this order.
fn assert_told(told: &[String], delivered: &[u8]) {
    let frames = frames(&Bytes::copy_from_slice(delivered));
    let mut sent = frames.iter().filter_map(|frame| match frame {
        Frame::Message(frame) => {
            let envelope = Envelope::decode_like(frame, "").ok()?;
            <String as prost::Message>::decode(envelope.payload).ok()
        }
        Frame::Oversized { .. } => None,
    });
    for text in told {
        assert!(
            sent.any(|sent| sent == *text),
            "a handler was told {text:?}, which was not sent then"
        );
    }
}
