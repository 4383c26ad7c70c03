//! Whether docs/wire.md shows the bytes that the code writes and reads.

use bytes::BytesMut;

use super::{Side, *};
use crate::error::{Code, Status};
use crate::metadata::Metadata;

const LIMIT: usize = 1 << 20;
const READ: &str = "proto.Storage.ReadRPC";

/// The bytes in the last cell of the row that begins with this.
fn stated(what: &str) -> Vec<u8> {
    let page = include_str!("../../../../docs/wire.md");
    let row = page
        .lines()
        .find(|line| line.starts_with(&format!("| {what} |")))
        .unwrap_or_else(|| panic!("the page has no row {what:?}"));
    let cell = row.trim_end_matches(" |").rsplit(" | ").next();
    let hex = cell.expect("a row has cells").trim_matches('`');
    hex.split(' ')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap_or_else(|_| panic!("{what}: {byte:?}")))
        .collect()
}

/// As the page writes bytes, so that a failure shows what belongs there.
fn hex(bytes: &[u8]) -> String {
    let bytes: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(" ")
}

#[track_caller]
fn is_stated(what: &str, frame: &[u8]) {
    assert_eq!(hex(&stated(what)), hex(frame), "{what}");
}

#[test]
fn requests() {
    let request = "nosuchkey".to_owned();
    let frame = encode_message(1, READ, &Metadata::new(), &request, LIMIT).expect("small");
    is_stated("request 1", &frame);
    let mut metadata = Metadata::new();
    metadata.append("a", "1").expect("legal");
    let frame = encode_message(2, READ, &metadata, &(), LIMIT).expect("small");
    is_stated("request 2 with metadata `a: 1`", &frame);
    let id = Side::Server.id_on_the_wire(1);
    let frame = encode_message(id, READ, &Metadata::new(), &request, LIMIT).expect("small");
    is_stated("request 1 of a server to its client", &frame);
}

#[test]
fn replies() {
    let mut frame = BytesMut::new();
    encode_reply(1, READ, 2, LIMIT, &mut frame).expect("small");
    frame.extend_from_slice(&[8, 1]);
    is_stated("success, of payload `08 01`", &frame);
    let mut frame = BytesMut::new();
    let status = Status::not_found("abc");
    encode_status(1, READ, Some(&status), Control::Message, &mut frame);
    is_stated("error 5, `abc`", &frame);
}

#[test]
fn what_is_added() {
    let page = include_str!("../../../../docs/wire.md");
    let head = request_head("localhost:1", &Metadata::new(), None).expect("legal");
    for feature in head.headers()["gorums-features"]
        .to_str()
        .expect("ASCII")
        .split(',')
    {
        let row = format!("| `{feature}` | ");
        assert!(page.contains(&row), "the page does not explain {feature:?}");
    }
    is_stated("`cancel`", &encode_control(7, Control::Cancel));
    is_stated("`stream-end`", &encode_control(7, Control::End));
    is_stated("`credit`", &encode_credit(7, 1000));
    is_stated("`going-away`", &encode_control(0, Control::GoingAway));
    is_stated("its answer", &encode_control(0, Control::NoneFollow));
    is_stated("`received`", &encode_received(64));
    let request = "nosuchkey".to_owned();
    let frame = encode_message(1, READ, &Metadata::new(), &request, LIMIT).expect("small");
    is_stated("request 1 with a second left", &timed(&frame, 1_000_000));
    is_stated("request 1 that was sent before", &with(&frame, None, true));
}

/// The frame as it is written with so many microseconds left.
fn timed(frame: &[u8], time_left: u64) -> Vec<u8> {
    with(frame, Some(time_left), false)
}

/// The frame as it is written with this.
fn with(frame: &[u8], time_left: Option<u64>, is_resent: bool) -> Vec<u8> {
    let added = Added {
        time_left,
        is_resent,
    };
    let (start, len) = start_with(frame, added).expect("small");
    [&start[..len], &frame[PREFIX..]].concat()
}

#[test]
fn a_request_to_which_something_is_added_is_the_same_request() {
    for size in [0, 1, 1_000, 100_000] {
        let request = "k".repeat(size);
        let frame = encode_message(7, READ, &Metadata::new(), &request, LIMIT).expect("small");
        let times = [1, 127, 128, 1_000_000, u64::MAX];
        for (time_left, is_resent) in times
            .into_iter()
            .flat_map(|left| [(left, false), (left, true)])
        {
            let bytes = with(&frame, Some(time_left), is_resent);
            assert!(bytes.len() <= frame.len() + 13);
            let mut decoder = Decoder::new(LIMIT);
            decoder.push(bytes.into());
            let Some(Frame::Message(message)) = decoder.next().expect("legal") else {
                panic!("it is whole");
            };
            assert!(decoder.is_between_messages());
            let envelope = Envelope::decode(&message).expect("legal");
            assert_eq!((envelope.id, envelope.method), (7, READ));
            assert_eq!(envelope.time_left, time_left);
            assert_eq!(envelope.is_resent, is_resent);
            let plain = Envelope::decode(&frame[PREFIX..]).expect("legal");
            assert_eq!((envelope.payload, plain.time_left), (plain.payload, 0));
        }
    }
    let added = Added {
        time_left: Some(1),
        is_resent: true,
    };
    assert!(start_with(&[], added).is_none(), "a marker");
    assert!(start_with(&[0; 9], Added::default()).is_none(), "nothing");
}

#[test]
fn the_bytes_are_read_as_the_page_says() {
    for (what, id, method, control) in [
        ("request 1", 1, READ, Control::Message),
        ("success, of payload `08 01`", 1, READ, Control::Message),
        ("error 5, `abc`", 1, READ, Control::Message),
        ("`cancel`", 7, "", Control::Cancel),
        ("`stream-end`", 7, "", Control::End),
        ("`credit`", 7, "", Control::Credit),
        ("`going-away`", 0, "", Control::GoingAway),
        ("its answer", 0, "", Control::NoneFollow),
        ("`received`", 0, "", Control::Received),
        ("request 1 with a second left", 1, READ, Control::Message),
        ("request 1 that was sent before", 1, READ, Control::Message),
    ] {
        let mut decoder = Decoder::new(LIMIT);
        decoder.push(stated(what).into());
        let Some(Frame::Message(frame)) = decoder.next().expect("legal") else {
            panic!("{what} is no message");
        };
        let envelope = Envelope::decode(&frame).expect("legal");
        assert_eq!((envelope.id, envelope.method), (id, method), "{what}");
        assert_eq!(envelope.control, control, "{what}");
        let credit = match control {
            Control::Credit => 1000,
            Control::Received => 64,
            _ => 0,
        };
        assert_eq!(envelope.credit, credit, "{what}");
        let is_timed = what.ends_with("left");
        assert_eq!(envelope.time_left, if is_timed { 1_000_000 } else { 0 });
        assert_eq!(envelope.is_resent, what.ends_with("before"), "{what}");
        let code = envelope.status.map(|status| status.code());
        let expected = what.starts_with("error").then_some(Code::NotFound);
        assert_eq!(code, expected, "{what}");
    }
}
