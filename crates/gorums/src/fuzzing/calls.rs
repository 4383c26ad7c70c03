use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::input::Input;
use super::service::{METHODS, Time};
use crate::channel::{
    Call, Channel, Early, EventKind, Keep, Kind, Pool, Settings, StreamId, Targets, Unread,
};
use crate::metadata::Metadata;
use crate::node_id::NodeId;
use crate::runtime::{BoxFuture, BoxIo, Listener, Transport};
use crate::stream::Replies;
use crate::wire::{Features, MethodKind, SERVER_INITIATED, Side, reply_cost};

/// Calls of this end that the peer may answer, or none.
pub(super) struct Calls {
    pub(super) replies: Replies,
    channel: Option<Arc<Channel>>,
    calls: Vec<Arc<Call>>,
}

/// What calls of a node may hold that nobody takes.
const UNREAD: u64 = 20_000;

impl Calls {
    pub(super) fn new(input: &mut Input<'_>, clock: &Arc<Time>, features: Features) -> Self {
        let replies = input.one_of(&[Replies::Never, Replies::WithBit, Replies::WithoutBit]);
        let mut calls = Self {
            replies,
            channel: None,
            calls: Vec::new(),
        };
        if replies == Replies::Never {
            return calls;
        }
        let settings = Settings {
            outbox_messages: 16,
            max_calls: 64,
            unread_replies: UNREAD,
            ..Settings::default()
        };
        let clock = Arc::<Time>::clone(clock);
        let pool = Pool::new(settings, Metadata::new(), clock, Arc::new(Nowhere));
        // Of either end, so that its outbox is written to.
        let channel = Channel::new(NodeId::from(1), "node".into(), pool, Side::Client);
        channel.set_features(Some(features));
        let channel = Arc::new(channel);
        for number in 1..=input.below(6) as u64 {
            calls.calls.push(call(number, input, &channel));
        }
        calls.channel = Some(channel);
        calls
    }

    pub(super) fn callee(&self) -> Option<Arc<Channel>> {
        self.channel.clone()
    }

    /// Whether a reply is owed, for which reading goes on.
    pub(super) fn are_owed(&self) -> bool {
        let pending = self.channel.as_ref().map(|channel| channel.pending());
        pending.is_some_and(|pending| pending > 0)
    }

    /// A caller takes what has come.
    pub(super) fn take(&mut self, input: &mut Input<'_>) {
        if self.calls.is_empty() {
            return;
        }
        let at = input.below(self.calls.len());
        take(&self.calls[at]);
        // It has what it wanted, or its caller gave up: nobody takes what comes now.
        match input.below(8) {
            1 => self.calls.swap_remove(at).complete(),
            2 => {
                self.calls.swap_remove(at).forget();
            }
            _ => {}
        }
    }

    pub(super) fn take_all(&mut self) {
        self.calls.iter().for_each(|call| take(call));
    }

    /// Nobody waits any more.
    pub(super) fn end(&mut self) {
        for call in self.calls.drain(..) {
            call.end_early(Early::Cancelled);
            take(&call);
            assert!(call.is_over());
        }
    }

    pub(super) fn assert_nothing_left(&self) {
        let Some(channel) = &self.channel else {
            return;
        };
        assert_eq!(channel.pending(), 0, "calls");
        // A quarter of what is left is given.
        assert_eq!(channel.reserve_unread(u64::MAX), UNREAD / 4, "replies");
    }
}

/// A call, of which some are written, so that they can be answered.
fn call(number: u64, input: &mut Input<'_>, channel: &Arc<Channel>) -> Arc<Call> {
    let unread = Unread {
        window: u64::from(input.byte()) * 16,
        keep: input.one_of(&[Keep::All, Keep::Newest]),
    };
    let kind = input.one_of(&[Kind::Unary, Kind::Streamed(unread), Kind::OneWay]);
    let id = kind.of_method().id(number);
    debug_assert!(MethodKind::of_id(id).is_some() && id & SERVER_INITIATED == 0);
    let method = input.one_of(&METHODS);
    let targets = Targets::new([Arc::clone(channel)]);
    let began = channel.pool().clock.now();
    let call = Arc::new(Call::new(id, method, kind, targets, 1, began));
    let registered = channel.pool().register(&call, None);
    assert_eq!(registered, Ok(true), "the table is large enough");
    call.queue(0, Bytes::from_static(b"frame"));
    if input.below(4) != 1 {
        channel.outbox().pop(StreamId::DIALLED);
    }
    call
}

/// Takes all that has come: no more than there may be.
fn take(call: &Call) {
    let mut replies = 0;
    let mut cost = 0;
    let mut ends = 0;
    while let Some(event) = call.try_event() {
        assert_eq!(ends, 0, "something comes behind the end");
        match event.kind {
            EventKind::Reply(payload) => {
                replies += 1;
                cost += reply_cost(payload.len());
            }
            EventKind::Ended | EventKind::Failed(_) => ends += 1,
        }
    }
    if call.is_streamed() {
        // One reply is let in where anything is left.
        assert!(cost <= UNREAD + reply_cost(super::service::LIMIT), "{cost}");
    } else {
        assert!(replies + ends <= 1, "{replies} replies to one call");
    }
}

/// Leads nowhere.
struct Nowhere;

impl Transport for Nowhere {
    fn connect<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(std::future::pending())
    }

    fn listen<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(std::future::pending())
    }
}
