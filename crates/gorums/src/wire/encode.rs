//! How the frame of an envelope is written: length prefix, envelope, message.

use std::cell::RefCell;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use prost_types::Any;

use super::PREFIX;
use super::envelope::{
    CONTROL, CREDIT, Control, ENTRY, ID, METHOD, PAYLOAD, RESENT, STATUS, TIME_LEFT,
};
use crate::error::Status;
use crate::metadata::Metadata;

#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

fn bytes_field_len(len: usize) -> usize {
    // All our field numbers are below 16: a key is one byte.
    1 + encoded_len_varint(len as u64) + len
}

fn put_bytes_header(number: u32, len: usize, buf: &mut BytesMut) {
    encode_key(number, WireType::LengthDelimited, buf);
    encode_varint(len as u64, buf);
}

fn put_bytes(number: u32, bytes: &[u8], buf: &mut BytesMut) {
    put_bytes_header(number, bytes.len(), buf);
    buf.put_slice(bytes);
}

/// All of a frame but its payload, where that is an id and a method of ordinary length.
struct Start {
    bytes: [u8; START],
    len: usize,
}

const START: usize = 128;

/// A method of this length fits into a [`Start`], beside the prefix, three keys, and a number and
/// two lengths of at most ten bytes each.
const SHORT_METHOD: usize = START - PREFIX - 3 * (1 + 10);

impl Default for Start {
    fn default() -> Self {
        Self {
            bytes: [0; START],
            len: 0,
        }
    }
}

impl Start {
    /// All our field numbers are below 16: a key is one byte.
    fn put_key(&mut self, number: u32, wire_type: WireType) {
        self.put((number << 3) as u8 | wire_type as u8);
    }

    fn put_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put(value as u8 | 0x80);
            value >>= 7;
        }
        self.put(value as u8);
    }

    fn put_slice(&mut self, bytes: &[u8]) {
        self.bytes[self.len..][..bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn put(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The fields of an envelope except the payload.
struct Head<'a> {
    id: u64,
    method: &'a str,
    status: Option<RpcStatus>,
    metadata: Option<&'a Metadata>,
    control: Control,
}

impl<'a> Head<'a> {
    fn new(id: u64, method: &'a str) -> Self {
        Self {
            id,
            method,
            status: None,
            metadata: None,
            control: Control::Message,
        }
    }

    fn len(&self) -> usize {
        let mut len = 0;
        if self.id != 0 {
            len += 1 + encoded_len_varint(self.id);
        }
        if !self.method.is_empty() {
            len += bytes_field_len(self.method.len());
        }
        if let Some(status) = &self.status {
            len += bytes_field_len(status.encoded_len());
        }
        for (key, value) in self.metadata.iter().flat_map(|m| m.iter()) {
            len += bytes_field_len(bytes_field_len(key.len()) + bytes_field_len(value.len()));
        }
        if self.control != Control::Message {
            len += 1 + encoded_len_varint(self.control.number());
        }
        len
    }

    fn put(&self, buf: &mut BytesMut) {
        if self.id != 0 {
            encode_key(ID, WireType::Varint, buf);
            encode_varint(self.id, buf);
        }
        if !self.method.is_empty() {
            put_bytes(METHOD, self.method.as_bytes(), buf);
        }
        if let Some(status) = &self.status {
            put_bytes_header(STATUS, status.encoded_len(), buf);
            status.encode_raw(buf);
        }
        for (key, value) in self.metadata.iter().flat_map(|m| m.iter()) {
            put_bytes_header(
                ENTRY,
                bytes_field_len(key.len()) + bytes_field_len(value.len()),
                buf,
            );
            put_bytes(1, key.as_bytes(), buf);
            put_bytes(2, value.as_bytes(), buf);
        }
        if self.control != Control::Message {
            encode_key(CONTROL, WireType::Varint, buf);
            encode_varint(self.control.number(), buf);
        }
    }

    /// Does the work of [`put_frame`](Self::put_frame) for almost every frame, which has no status,
    /// no metadata and no control. Writes nothing for any other, and returns false.
    #[inline]
    fn put_plain(&self, payload: usize, limit: usize, buf: &mut BytesMut) -> bool {
        let is_plain = self.status.is_none()
            && self.metadata.is_none_or(Metadata::is_empty)
            && self.control == Control::Message
            && self.method.len() <= SHORT_METHOD;
        if !is_plain {
            return false;
        }
        // Put together first, since each addition to a buffer costs more than the bytes.
        let mut start = Start {
            len: PREFIX,
            ..Start::default()
        };
        if self.id != 0 {
            start.put_key(ID, WireType::Varint);
            start.put_varint(self.id);
        }
        if !self.method.is_empty() {
            start.put_key(METHOD, WireType::LengthDelimited);
            start.put_varint(self.method.len() as u64);
            start.put_slice(self.method.as_bytes());
        }
        if payload > 0 {
            start.put_key(PAYLOAD, WireType::LengthDelimited);
            start.put_varint(payload as u64);
        }
        let len = start.len - PREFIX + payload;
        let Some(prefix) = u32::try_from(len).ok().filter(|_| len <= limit) else {
            return false;
        };
        start.bytes[1..PREFIX].copy_from_slice(&prefix.to_be_bytes());
        buf.reserve(PREFIX + len);
        buf.put_slice(start.bytes());
        true
    }

    /// Writes prefix and envelope, and the header of a payload of this length, which the caller
    /// puts behind it. Nothing is written where the whole would exceed the limit.
    fn put_frame(&self, payload: usize, limit: usize, buf: &mut BytesMut) -> Result<(), Status> {
        if self.put_plain(payload, limit, buf) {
            return Ok(());
        }
        let mut len = self.len();
        if payload > 0 {
            len += bytes_field_len(payload);
        }
        let prefix_len = u32::try_from(len).ok().filter(|_| len <= limit).ok_or_else(|| {
            Status::resource_exhausted(format!(
                "{}: a message of {len} bytes exceeds the limit of {limit} (max_encoding_message_size)",
                self.method
            ))
        })?;
        buf.reserve(PREFIX + len);
        let [a, b, c, d] = prefix_len.to_be_bytes();
        buf.put_slice(&[0, a, b, c, d]);
        self.put(buf);
        if payload > 0 {
            put_bytes_header(PAYLOAD, payload, buf);
        }
        Ok(())
    }
}

/// A whole frame of a request: length prefix, envelope, message.
pub(crate) fn encode_message<M: Message>(
    id: u64,
    method: &str,
    metadata: &Metadata,
    message: &M,
    limit: usize,
) -> Result<Bytes, Status> {
    let head = Head {
        metadata: Some(metadata),
        ..Head::new(id, method)
    };
    let len = message.encoded_len();
    let put = |buf: &mut BytesMut| {
        head.put_frame(len, limit, buf)?;
        message.encode_raw(buf);
        Ok(buf.split().freeze())
    };
    if len > SMALL || head.method.len() > SMALL || !metadata.is_empty() {
        return put(&mut BytesMut::new());
    }
    // The thread may be ending, or the message itself may make a call.
    let page = PAGE.try_with(RefCell::take).unwrap_or_default();
    let mut page = if page.capacity() < SMALLEST_PAGE_LEFT {
        BytesMut::with_capacity(FRAME_PAGE)
    } else {
        page
    };
    let frame = put(&mut page)?;
    let _ = PAGE.try_with(|last| last.replace(page));
    Ok(frame)
}

thread_local! {
    /// Where the next small frames of this thread are written, side by side: a block of the heap for
    /// each would cost more than to write it. It is empty while a frame is written.
    static PAGE: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// How many bytes a page has. A frame that waits keeps its whole page.
pub(crate) const FRAME_PAGE: usize = 2048;

/// The largest payload, and the longest method, of a frame that shares a page.
const SMALL: usize = 256;

/// A small frame fits: prefix, three keys, three numbers of at most ten bytes, method and payload.
const SMALLEST_PAGE_LEFT: usize = PREFIX + 3 * (1 + 10) + 2 * SMALL;

/// Appends the frame of a reply, without the payload, which the caller puts behind it.
pub(crate) fn encode_reply(
    id: u64,
    method: &str,
    payload: usize,
    limit: usize,
    buf: &mut BytesMut,
) -> Result<(), Status> {
    Head::new(id, method).put_frame(payload, limit, buf)
}

/// Appends the frame of an error reply, or of the end of a streamed reply.
pub(crate) fn encode_status(
    id: u64,
    method: &str,
    status: Option<&Status>,
    control: Control,
    buf: &mut BytesMut,
) {
    let head = Head {
        // A status with the code of success would arrive as an empty reply.
        status: status.map(Status::as_error).map(|status| RpcStatus {
            code: status.code().number(),
            message: status.message().to_owned(),
            details: status.details().to_vec(),
        }),
        control,
        ..Head::new(id, method)
    };
    if head.put_frame(0, MAX_STATUS, buf).is_err() {
        // Details of that size are a mistake of the handler's; the caller still learns the code.
        let short = Head {
            status: head.status.map(|status| RpcStatus {
                message: "the status was too large to send: its message and details are left out"
                    .to_owned(),
                details: Vec::new(),
                ..status
            }),
            ..head
        };
        // The peer chose the method, so what is left is no larger than what was read from it.
        let _ = short.put_frame(0, usize::MAX, buf);
    }
}

/// The largest error reply, with message and details.
const MAX_STATUS: usize = 1 << 20;

/// What is put before a request as it is written, and not when it is encoded: that is once for all
/// nodes, and long before where a node is away.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Added {
    /// How many more microseconds its caller waits, where it has a deadline.
    pub(crate) time_left: Option<u64>,
    /// It was written before, and not answered.
    pub(crate) is_resent: bool,
}

/// How the frame of a request begins to which this is added: the rest of it comes behind this, from
/// [`PREFIX`] on. None for a frame to which nothing is added, or that would be too long with it.
pub(crate) fn start_with(frame: &[u8], added: Added) -> Option<([u8; STARTED], usize)> {
    let mut start = [0; STARTED];
    let mut len = PREFIX;
    let mut put = |byte| {
        start[len] = byte;
        len += 1;
    };
    if added.is_resent {
        put((RESENT << 3) as u8 | WireType::Varint as u8);
        put(1);
    }
    if let Some(mut value) = added.time_left {
        put((TIME_LEFT << 3) as u8 | WireType::Varint as u8);
        while value >= 0x80 {
            put(value as u8 | 0x80);
            value >>= 7;
        }
        put(value as u8);
    }
    if len == PREFIX {
        return None;
    }
    let rest = frame.len().checked_sub(PREFIX)?;
    let prefix = u32::try_from(len - PREFIX + rest).ok()?;
    start[1..PREFIX].copy_from_slice(&prefix.to_be_bytes());
    Some((start, len))
}

/// Prefix, two keys, a byte, and a number of at most ten bytes.
const STARTED: usize = PREFIX + 1 + 1 + 1 + 10;

/// A frame that only says something about another one.
pub(crate) fn encode_control(id: u64, control: Control) -> Bytes {
    let mut buf = BytesMut::new();
    encode_status(id, "", None, control, &mut buf);
    buf.freeze()
}

/// A frame by which the caller takes so many more bytes of the streamed reply to this call.
pub(crate) fn encode_credit(id: u64, credit: u64) -> Bytes {
    encode_number(id, Control::Credit, credit)
}

/// A frame by which this end says that it has so many messages of the session.
pub(crate) fn encode_received(messages: u64) -> Bytes {
    encode_number(0, Control::Received, messages)
}

fn encode_number(id: u64, control: Control, number: u64) -> Bytes {
    let mut buf = BytesMut::new();
    buf.put_bytes(0, PREFIX);
    if id != 0 {
        encode_key(ID, WireType::Varint, &mut buf);
        encode_varint(id, &mut buf);
    }
    encode_key(CREDIT, WireType::Varint, &mut buf);
    encode_varint(number, &mut buf);
    encode_key(CONTROL, WireType::Varint, &mut buf);
    encode_varint(control.number(), &mut buf);
    let len = buf.len() - PREFIX;
    // Three numbers of ten bytes each at most.
    buf[PREFIX - 1] = len as u8;
    buf.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::wire::Envelope;

    #[test]
    fn frames_are_the_same_however_long_the_method_is() {
        for len in [0, 1, SHORT_METHOD, SHORT_METHOD + 1, 300] {
            let method = "m".repeat(len);
            for (id, payload) in [(0, 0), (7, 1), (u64::MAX, 5_000)] {
                let mut buf = BytesMut::new();
                encode_reply(id, &method, payload, usize::MAX, &mut buf).expect("no limit");
                buf.put_bytes(7, payload);
                assert_eq!(buf[0], 0);
                let len = (buf.len() - PREFIX) as u32;
                assert_eq!(buf[1..PREFIX], len.to_be_bytes());
                let envelope = Envelope::decode(&buf[PREFIX..]).expect("our own");
                assert_eq!((envelope.id, envelope.method), (id, &*method));
                assert_eq!(envelope.payload, vec![7; payload]);
            }
        }
    }

    #[test]
    fn a_frame_is_the_same_in_a_page_of_its_own_and_beside_others() {
        let key = |len| "k".repeat(len);
        let metadata = Metadata::new();
        // Several times, so that pages end in between.
        for round in 0..50 {
            for len in [0, 1, SMALL - 3, SMALL - 2, SMALL, 5_000] {
                for method in [0, 1, SMALL, SMALL + 1] {
                    let (request, method) = (ReadRequest { key: key(len) }, "m".repeat(method));
                    let frame = encode_message(round, &method, &metadata, &request, usize::MAX)
                        .expect("no limit");
                    let mut alone = BytesMut::new();
                    let payload = request.encode_to_vec();
                    encode_reply(round, &method, payload.len(), usize::MAX, &mut alone)
                        .expect("no limit");
                    alone.put_slice(&payload);
                    assert_eq!(frame, alone, "{len} {}", method.len());
                }
            }
        }
    }

    #[test]
    fn small_frames_share_a_page_and_large_ones_do_not() {
        let frame = |len| {
            let request = ReadRequest {
                key: "k".repeat(len),
            };
            encode_message(7, "m", &Metadata::new(), &request, usize::MAX).expect("no limit")
        };
        let place = |frame: &Bytes| frame.as_ptr() as usize;
        let together = (0..20).map(|_| frame(10)).collect::<Vec<_>>();
        let beside = together
            .windows(2)
            .filter(|pair| place(&pair[1]) == place(&pair[0]) + pair[0].len());
        assert!(beside.count() >= 18, "one page may have ended");
        let (small, large) = (frame(10), frame(1_000));
        assert_ne!(place(&large), place(&small) + small.len());
        // One that is too large leaves nothing behind.
        let request = ReadRequest {
            key: "k".repeat(50),
        };
        encode_message(7, "m", &Metadata::new(), &request, 20).expect_err("above the limit");
        assert_eq!(
            Envelope::decode(&frame(10)[PREFIX..]).expect("our own").id,
            7
        );
    }

    /// Makes a frame of another message while it is encoded, and panics where it is told to.
    #[derive(Debug, Default)]
    struct Odd {
        panics: bool,
    }

    impl Message for Odd {
        fn encode_raw(&self, buf: &mut impl BufMut) {
            let inner = ReadRequest { key: "in".into() };
            let frame = encode_message(1, "m", &Metadata::new(), &inner, usize::MAX);
            assert_eq!(
                Envelope::decode(&frame.expect("no limit")[PREFIX..])
                    .expect("our own")
                    .id,
                1
            );
            buf.put_slice(&[0x0a, 0]);
            assert!(!self.panics, "as it was told to");
        }

        fn merge_field(
            &mut self,
            _tag: u32,
            _wire_type: WireType,
            _buf: &mut impl bytes::Buf,
            _ctx: prost::encoding::DecodeContext,
        ) -> Result<(), prost::DecodeError> {
            Ok(())
        }

        fn encoded_len(&self) -> usize {
            2
        }

        fn clear(&mut self) {}
    }

    #[test]
    fn a_message_that_makes_calls_or_panics_spoils_no_other_frame() {
        let encode = |panics| {
            encode_message(2, "m", &Metadata::new(), &Odd { panics }, usize::MAX).expect("no limit")
        };
        for panics in [false, true, false] {
            let frame = std::panic::catch_unwind(|| encode(panics));
            assert_eq!(frame.is_err(), panics);
            if let Ok(frame) = frame {
                let envelope = Envelope::decode(&frame[PREFIX..]).expect("our own");
                assert_eq!((envelope.id, envelope.payload), (2, &[0x0a, 0][..]));
            }
        }
    }

    #[derive(Clone, PartialEq, Message)]
    struct ReadRequest {
        #[prost(string, tag = "1")]
        key: String,
    }

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&text[i..i + 2], 16).expect("hex"))
            .collect()
    }

    #[test]
    fn a_request_has_the_bytes_of_the_go_library() {
        let request = ReadRequest {
            key: "nosuchkey".into(),
        };
        let frame = encode_message(
            1,
            "proto.Storage.ReadRPC",
            &Metadata::new(),
            &request,
            1 << 20,
        )
        .expect("small");
        let expected =
            unhex("0801121570726f746f2e53746f726167652e526561645250432a0b0a096e6f737563686b6579");
        assert_eq!(frame[..PREFIX], [0, 0, 0, 0, expected.len() as u8]);
        assert_eq!(frame[PREFIX..], expected);
        let envelope = Envelope::decode(&frame[PREFIX..]).expect("our own bytes");
        assert_eq!((envelope.id, envelope.method), (1, "proto.Storage.ReadRPC"));
        assert_eq!(
            ReadRequest::decode(envelope.payload).expect("ours"),
            request
        );
    }

    #[test]
    fn an_error_reply_has_the_bytes_of_the_go_library() {
        let mut buf = BytesMut::new();
        let status = Status::not_found("abc");
        encode_status(
            9,
            "proto.Storage.ReadRPC",
            Some(&status),
            Control::Message,
            &mut buf,
        );
        let expected =
            unhex("0809121570726f746f2e53746f726167652e526561645250431a0708051203616263");
        assert_eq!(buf[PREFIX..], expected);
        let envelope = Envelope::decode(&buf[PREFIX..]).expect("our own bytes");
        let status = envelope.status.expect("an error");
        assert_eq!((status.code(), status.message()), (Code::NotFound, "abc"));
    }

    #[test]
    fn metadata_and_details_survive() {
        let mut metadata = Metadata::new();
        metadata.append("a", "1").expect("legal");
        metadata.append("a", "zwei").expect("legal");
        let frame = encode_message(7, "m", &metadata, &(), 1 << 20).expect("small");
        let envelope = Envelope::decode(&frame[PREFIX..]).expect("ours");
        assert_eq!(envelope.metadata, [("a", "1"), ("a", "zwei")]);
        assert!(envelope.payload.is_empty());

        let detail = Any {
            type_url: "t".into(),
            value: vec![1, 2, 3],
        };
        let mut buf = BytesMut::new();
        let status = Status::aborted("x").with_details([detail.clone()]);
        encode_status(7, "m", Some(&status), Control::End, &mut buf);
        let envelope = Envelope::decode(&buf[PREFIX..]).expect("ours");
        assert_eq!(envelope.control, Control::End);
        assert_eq!(envelope.status.expect("an error").details(), [detail]);
    }

    #[test]
    fn a_message_above_the_limit_is_refused_before_it_is_encoded() {
        let request = "k".repeat(100);
        let error =
            encode_message(1, "a.B.C", &Metadata::new(), &request, 50).expect_err("too large");
        assert_eq!(error.code(), Code::ResourceExhausted);
        assert!(error.message().contains("limit of 50"), "{error}");
    }
}
