//! The inbound half from bytes: what each message is told to be, however the bytes are split, and
//! what waits.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::Extensions;
use proptest::prelude::*;

use super::accountant::Accountant;
use super::reader::{Event, Handlers, Likely, Limit, Plain, Reader, Replies};
use crate::error::{Code, Status};
use crate::handler::{LaneSettings, ReadFor, Registry, Request, ServerCtx, Services, Waiting};
use crate::log::Throttle;
use crate::metadata::Metadata;
use crate::runtime::SystemClock;
use crate::wire::{
    Control, Frame, SERVER_INITIATED, encode_control, encode_credit, encode_message, encode_status,
};

const ASK: &str = "test.Test.Ask";
const NOTE: &str = "test.Test.Note";

/// Messages of more than this are skipped.
const LIMIT: usize = 1_000;

const A_LIMIT: Limit = Limit {
    bytes: LIMIT,
    envelope: 0,
    setting: "a_setting",
};

/// A call of the end that accepted the stream.
const BACK: u64 = SERVER_INITIATED;

fn services() -> Services {
    let mut registry = Registry::default();
    registry.unary(ASK, |_ctx: ServerCtx, text: String| async move {
        Ok::<_, Status>(text)
    });
    registry.one_way(NOTE, |_ctx: ServerCtx, _text: String| async {});
    Services {
        registry,
        lane: Arc::new(LaneSettings {
            max_encoding: LIMIT,
            max_running: 1,
            ..LaneSettings::unbounded(Arc::new(SystemClock))
        }),
        max_decoding: LIMIT,
        max_waiting_bytes: 10_000,
        max_reply_bytes: 10_000,
        values: Extensions::new(),
        refusals: Throttle::default(),
    }
}

fn waiting(bytes: usize) -> Waiting {
    let read_for = ReadFor::Replies;
    Waiting { bytes, read_for }
}

fn message(id: u64, method: &str, text: &str) -> Bytes {
    encode_message(id, method, &Metadata::new(), &text.to_owned(), usize::MAX).expect("small")
}

fn answer(id: u64, method: &str, status: Option<&Status>, control: Control) -> Bytes {
    let mut bytes = BytesMut::new();
    encode_status(id, method, status, control, &mut bytes);
    bytes.freeze()
}

/// Everything that a reader tells of bytes that come in these chunks.
fn read(replies: Replies, handlers: Handlers<'_>, chunks: &[&[u8]]) -> Vec<String> {
    let mut reader = Reader::new(replies, A_LIMIT);
    let mut likely = Likely::default();
    let mut told = Vec::new();
    for chunk in chunks {
        reader.push(Bytes::copy_from_slice(chunk));
        loop {
            let frame = match reader.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(status) => {
                    told.push(format!("broken: {:?}", status.code()));
                    return told;
                }
            };
            if let Frame::Message(bytes) = &frame
                && let Some(plain) = reader.plain(bytes, handlers, &likely, waiting(0))
            {
                told.push(tell_plain(&plain, bytes));
                continue;
            }
            match reader.interpret(&frame, handlers, &likely, waiting(0)) {
                Ok(event) => {
                    told.push(tell(&event));
                    if let Event::Request { request, .. } = event {
                        likely.note_request(&request);
                    }
                }
                Err(status) => {
                    told.push(format!("broken: {:?}", status.code()));
                    return told;
                }
            }
        }
    }
    if !reader.is_between_messages() {
        told.push("cut".to_owned());
    }
    told
}

/// The same as of a message that is read whole.
fn tell_plain(plain: &Plain<'_>, frame: &Bytes) -> String {
    let last = |count: usize| frame.slice(frame.len() - count..);
    match plain {
        Plain::Request { id, entry, payload } => {
            format!("request {id} {} {:?}", entry.name, last(*payload))
        }
        Plain::Reply {
            id,
            method,
            payload,
        } => format!(
            "reply {id} {method} {:?} {:?}",
            None::<Code>,
            &last(*payload)[..]
        ),
    }
}

fn tell(event: &Event<'_>) -> String {
    match event {
        Event::Request { request, .. } => {
            format!(
                "request {} {} {:?}",
                request.id,
                request.called.name(),
                request.payload
            )
        }
        Event::Reply { id, envelope } => format!(
            "reply {id} {} {:?} {:?}",
            envelope.method,
            envelope.status.as_ref().map(Status::code),
            envelope.payload
        ),
        Event::Oversized { id, status } => format!("oversized {id} {:?}", status.code()),
        Event::Cancel { id } => format!("cancel {id}"),
        Event::Credit { id, bytes } => format!("credit {id} {bytes}"),
        Event::Refuse {
            id, method, status, ..
        } => {
            format!("refuse {id} {method} {:?}", status.code())
        }
        Event::GoAway => "go away".to_owned(),
        Event::NoneFollow => "none follow".to_owned(),
        Event::Received { messages } => format!("received {messages}"),
        Event::Nothing | Event::Unknown => "nothing".to_owned(),
    }
}

#[test]
fn the_bit_of_an_id_tells_requests_from_replies() {
    let services = services();
    let handlers = Handlers::These(&services);
    let bytes = [message(7, ASK, "a"), message(BACK | 9, ASK, "b")].concat();
    let text = |kind: &str, id, letter| match kind {
        "request" => format!("request {id} {ASK} b\"\\n\\x01{letter}\""),
        _ => format!("reply {id} {ASK} None {:?}", [10, 1, letter as u8]),
    };
    for (replies, kinds, ids) in [
        (Replies::WithoutBit, ["reply", "request"], [7, BACK | 9]),
        (Replies::WithBit, ["request", "reply"], [7, 9]),
        (Replies::Never, ["request", "request"], [7, BACK | 9]),
    ] {
        assert_eq!(
            read(replies, handlers, &[&bytes]),
            [text(kinds[0], ids[0], 'a'), text(kinds[1], ids[1], 'b')],
            "{replies:?}"
        );
    }
}

#[test]
fn what_is_no_message_is_told_apart() {
    let services = services();
    let failed = Status::not_found("nowhere");
    let bytes = [
        encode_control(BACK | 1, Control::Cancel),
        encode_credit(BACK | 1, u64::MAX),
        answer(BACK | 2, ASK, None, Control::End),
        // About no call, whatever the id.
        encode_control(0, Control::GoingAway),
        encode_control(BACK | 3, Control::GoingAway),
        encode_control(4, Control::NoneFollow),
        answer(3, ASK, Some(&failed), Control::Message),
    ]
    .concat();
    assert_eq!(
        read(Replies::WithoutBit, Handlers::These(&services), &[&bytes]),
        [
            format!("cancel {}", BACK | 1),
            format!("credit {} {}", BACK | 1, u64::MAX),
            "nothing".to_owned(),
            "go away".to_owned(),
            "go away".to_owned(),
            "none follow".to_owned(),
            format!("reply 3 {ASK} Some(NotFound) []"),
        ]
    );
}

#[test]
fn a_request_that_nobody_serves_is_refused_by_name() {
    let bytes = message(7, ASK, "a");
    for (handlers, expected) in [
        (Handlers::Nobody, format!("refuse 7 {ASK} Unimplemented")),
        (Handlers::Stopped, format!("refuse 7 {ASK} Unavailable")),
        (Handlers::Closed, "nothing".to_owned()),
    ] {
        assert_eq!(read(Replies::Never, handlers, &[&bytes]), [expected]);
    }
}

#[test]
fn what_is_too_large_is_skipped_and_told_to_whom_it_concerns() {
    let services = services();
    let large = "x".repeat(LIMIT);
    let bytes = [
        message(7, ASK, &large),
        message(BACK | 8, ASK, &large),
        message(9, ASK, "a"),
    ]
    .concat();
    assert_eq!(
        read(Replies::WithBit, Handlers::These(&services), &[&bytes]),
        [
            format!("refuse 7 {ASK} ResourceExhausted"),
            "oversized 8 ResourceExhausted".to_owned(),
            format!("request 9 {ASK} b\"\\n\\x01a\""),
        ]
    );
    // Nobody can be told whose it is.
    let anonymous = [&[0, 0, 1, 0, 0][..], &[0; 1 << 16]].concat();
    assert_eq!(
        read(Replies::WithBit, Handlers::These(&services), &[&anonymous]),
        ["broken: ResourceExhausted"]
    );
}

#[test]
fn bytes_that_are_no_message_break_the_stream() {
    let services = services();
    for (bytes, code) in [
        (&[1, 0, 0, 0, 0][..], Code::Unimplemented),
        (&[7, 0, 0, 0, 0], Code::Internal),
        (&[0, 0, 0, 0, 1, 0xff], Code::Internal),
    ] {
        assert_eq!(
            read(Replies::Never, Handlers::These(&services), &[bytes]),
            [format!("broken: {code:?}")]
        );
    }
}

#[test]
fn far_beyond_the_bound_requests_are_refused() {
    let services = services();
    let reader = Reader::new(Replies::Never, A_LIMIT);
    let bytes = message(7, ASK, "a").slice(crate::wire::PREFIX..);
    let frame = Frame::Message(bytes);
    let likely = Likely::default();
    let bound = services.max_waiting_bytes;
    for (read_for, bytes, refused) in [
        (ReadFor::Replies, bound, false),
        (ReadFor::Replies, 1 << 30, true),
        (ReadFor::Credit, bound - 1, false),
        (ReadFor::Credit, bound, true),
    ] {
        let waiting = Waiting { bytes, read_for };
        let event = reader.interpret(&frame, Handlers::These(&services), &likely, waiting);
        let event = event.expect("sound");
        assert_eq!(
            matches!(event, Event::Refuse { .. }),
            refused,
            "{waiting:?}"
        );
    }
}

fn request(size: usize) -> Request {
    let frame = Frame::Message(message(7, ASK, "").slice(crate::wire::PREFIX..));
    let services = services();
    let reader = Reader::new(Replies::Never, A_LIMIT);
    let likely = Likely::default();
    let event = reader.interpret(&frame, Handlers::These(&services), &likely, waiting(0));
    let Ok(Event::Request { mut request, .. }) = event else {
        panic!("a sound request");
    };
    request.size = size;
    request
}

#[test]
fn a_request_counts_with_the_chunk_that_it_keeps() {
    let mut accountant = Accountant::new(1 << 20);
    let overhead = request(0).cost();
    accountant.begin_chunk(100_000);
    accountant.count(&mut request(10));
    assert_eq!(
        accountant.waiting(),
        overhead + 10,
        "the rest may be requests"
    );
    // No request keeps these.
    accountant.begin_chunk(50_000);
    accountant.begin_chunk(50_000);
    accountant.begin_chunk(1_000);
    let mut second = request(20);
    accountant.count(&mut second);
    assert_eq!(second.size, 20 + 99_990);
    accountant.count(&mut request(30));
    assert_eq!(accountant.waiting(), 3 * overhead + 60 + 99_990);
    accountant.handed_over(77);
    assert_eq!(accountant.waiting(), 77);
}

#[test]
fn reading_pauses_at_the_bound_and_goes_on_at_half_of_it() {
    let mut accountant = Accountant::new(1_000);
    for (waiting, is_full) in [
        (999, false),
        (1_000, true),
        (501, true),
        (500, false),
        (999, false),
    ] {
        accountant.lane_has(waiting);
        assert_eq!(accountant.is_full(), is_full, "{waiting}");
        assert_eq!(accountant.is_paused(), is_full, "{waiting}");
    }
}

/// A message as a peer may send it, sound or not.
fn any_message() -> impl Strategy<Value = Bytes> {
    let id = prop_oneof![0..5u64, (0..5u64).prop_map(|id| BACK | id)];
    let method = prop_oneof![Just(ASK), Just(NOTE), Just("no.Such.Method"), Just("")];
    prop_oneof![
        8 => (id.clone(), method.clone(), 0..LIMIT + 200)
            .prop_map(|(id, method, len)| message(id, method, &"x".repeat(len))),
        2 => (id.clone(), method).prop_map(|(id, method)| {
            answer(id, method, Some(&Status::aborted("no")), Control::Message)
        }),
        1 => id.clone().prop_map(|id| encode_control(id, Control::Cancel)),
        1 => (id, any::<u64>()).prop_map(|(id, bytes)| encode_credit(id, bytes)),
        1 => proptest::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from),
    ]
}

proptest! {
    #[test]
    fn any_split_of_the_same_bytes_is_told_the_same(
        messages in proptest::collection::vec(any_message(), 1..12),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..40),
        answers in prop_oneof![
            Just(Replies::WithoutBit), Just(Replies::WithBit), Just(Replies::Never)
        ],
    ) {
        let services = services();
        let handlers = Handlers::These(&services);
        let bytes = messages.concat();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let chunks: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
        let whole = read(answers, handlers, &[&bytes]);
        prop_assert_eq!(&read(answers, handlers, &chunks), &whole);
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(&read(answers, handlers, &single), &whole);
    }
}
