//! `stream.Message`, the envelope of every request and reply, read without copying and written with
//! the application message straight into place.
//!
//! | field | number | type |
//! |---|---|---|
//! | message_seq_no | 1 | uint64 |
//! | method | 2 | string |
//! | status | 3 | google.rpc.Status |
//! | entry | 4 | repeated { key = 1, value = 2 } |
//! | payload | 5 | bytes |
//! | control | 15 | uint32, ours, sent only to peers that announced it |

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use prost_types::Any;

use super::PREFIX;
use crate::error::{Code, Status};
use crate::metadata::Metadata;

const ID: u32 = 1;
const METHOD: u32 = 2;
const STATUS: u32 = 3;
const ENTRY: u32 = 4;
const PAYLOAD: u32 = 5;
const CONTROL: u32 = 15;

/// How many entries of metadata a message may have, and how many details a status. In memory they
/// take far more than the two bytes that one takes on the wire.
pub(crate) const MAX_ENTRIES: usize = 4096;
pub(crate) const MAX_DETAILS: usize = 1024;

/// The bit of a message id that says that the server began the call.
pub(crate) const SERVER_INITIATED: u64 = 1 << 63;

/// What a frame means beyond the original protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    /// A request or a reply, as in the original.
    Message,
    /// The caller gave up; nobody reads a reply.
    Cancel,
    /// The last frame of a streamed reply, which carries a status and no payload.
    End,
    /// Something that this version does not know.
    Unknown,
}

impl Control {
    fn from_number(number: u64) -> Self {
        match number {
            0 => Self::Message,
            1 => Self::Cancel,
            2 => Self::End,
            _ => Self::Unknown,
        }
    }

    fn number(self) -> u64 {
        match self {
            Self::Message | Self::Unknown => 0,
            Self::Cancel => 1,
            Self::End => 2,
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// An envelope, borrowed from the frame that it came in.
#[derive(Debug)]
pub(crate) struct Envelope<'a> {
    pub(crate) id: u64,
    pub(crate) method: &'a str,
    pub(crate) status: Option<Status>,
    pub(crate) metadata: Vec<(&'a str, &'a str)>,
    pub(crate) payload: &'a [u8],
    pub(crate) control: Control,
    /// What there is too much of. The message is not taken, and those after it are.
    pub(crate) excess: Option<String>,
}

impl<'a> Envelope<'a> {
    /// Reads an envelope. The message of the error says what is wrong with the bytes.
    #[cfg(test)]
    pub(crate) fn decode(frame: &'a [u8]) -> Result<Self, String> {
        Self::decode_like(frame, "")
    }

    /// Reads an envelope that is likely to be of this method: one that is need not be checked for text.
    pub(crate) fn decode_like(frame: &'a [u8], likely: &'a str) -> Result<Self, String> {
        let mut envelope = Self {
            id: 0,
            method: "",
            status: None,
            metadata: Vec::new(),
            payload: &[],
            control: Control::Message,
            excess: None,
        };
        if let Some((id, method, payload)) = plain(frame, likely) {
            (envelope.id, envelope.method, envelope.payload) = (id, method, payload);
            return Ok(envelope);
        }
        match envelope.read(frame) {
            Ok(()) => Ok(envelope),
            Err((place, malformed)) => Err(format!("{place}{malformed}")),
        }
    }

    /// The error comes with where it is.
    fn read(&mut self, frame: &'a [u8]) -> Result<(), (&'static str, Malformed)> {
        let nowhere = |malformed| ("", malformed);
        let mut fields = Fields(frame);
        while let Some((number, value)) = fields.next().map_err(nowhere)? {
            match (number, value) {
                (ID, Value::Varint(id)) => self.id = id,
                (METHOD, Value::Bytes(bytes)) => {
                    self.method = text(bytes, "the method").map_err(nowhere)?;
                }
                (STATUS, Value::Bytes(bytes)) => {
                    let (status, excess) = status(bytes).map_err(|e| ("the status: ", e))?;
                    self.status = status;
                    self.excess = excess.or(self.excess.take());
                }
                (ENTRY, Value::Bytes(bytes)) => {
                    let entry = entry(bytes).map_err(nowhere)?;
                    if self.metadata.len() < MAX_ENTRIES {
                        self.metadata.push(entry);
                    } else if self.excess.is_none() {
                        self.excess = Some(format!("more than {MAX_ENTRIES} entries of metadata"));
                    }
                }
                (PAYLOAD, Value::Bytes(bytes)) => self.payload = bytes,
                (CONTROL, Value::Varint(number)) => self.control = Control::from_number(number),
                (ID..=PAYLOAD | CONTROL, _) => {
                    return Err(nowhere(Malformed::OtherWireType(number)));
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(crate) fn metadata(&self) -> Metadata {
        Metadata::received(self.metadata.iter().copied())
    }
}

/// Reads what almost every envelope is: an id, a method and a payload, in this order and nothing else.
/// None for all others, sound or not.
fn plain<'a>(frame: &'a [u8], likely: &'a str) -> Option<(u64, &'a str, &'a [u8])> {
    const ID_KEY: u8 = (ID as u8) << 3;
    const METHOD_KEY: u8 = (METHOD as u8) << 3 | 2;
    const PAYLOAD_KEY: u8 = (PAYLOAD as u8) << 3 | 2;

    let [ID_KEY, rest @ ..] = frame else {
        return None;
    };
    let (id, rest) = short_varint(rest)?;
    let [METHOD_KEY, len @ 0..=0x7f, rest @ ..] = rest else {
        return None;
    };
    let (method, rest) = rest.split_at_checked(usize::from(*len))?;
    let payload = match rest {
        [] => rest,
        [PAYLOAD_KEY, rest @ ..] => {
            let (len, rest) = short_varint(rest)?;
            if len != rest.len() as u64 {
                return None;
            }
            rest
        }
        _ => return None,
    };
    let method = if method == likely.as_bytes() {
        likely
    } else {
        std::str::from_utf8(method).ok()?
    };
    Some((id, method, payload))
}

/// A varint of at most eight bytes, and what is behind it.
#[inline(always)]
fn short_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(8).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

/// The id and the method of an envelope of which only the first bytes are known, where they are
/// among these.
pub(crate) fn peek_id(head: &[u8]) -> Option<(u64, &str)> {
    let mut fields = Fields(head);
    // An id of 0 is not written.
    let mut id = 0;
    while let Ok(Some((number, value))) = fields.next() {
        match (number, value) {
            (ID, Value::Varint(value)) => id = value,
            (METHOD, Value::Bytes(bytes)) => return Some((id, std::str::from_utf8(bytes).ok()?)),
            _ => {}
        }
    }
    None
}

/// A status, none where it says that all is well; and what there is too much of.
fn status(bytes: &[u8]) -> Result<(Option<Status>, Option<String>), Malformed> {
    let (mut code, mut message, mut details) = (0, "", Vec::new());
    let mut excess = None;
    let mut fields = Fields(bytes);
    while let Some(field) = fields.next()? {
        match field {
            // A negative number takes ten bytes, of which the lower four count.
            (1, Value::Varint(number)) => code = number as i32,
            (2, Value::Bytes(bytes)) => message = text(bytes, "the message")?,
            (3, Value::Bytes(bytes)) if details.len() < MAX_DETAILS => {
                details.push(Any::decode(bytes).map_err(|_| Malformed::Detail)?);
            }
            (3, Value::Bytes(_)) => {
                excess = Some(format!("a status with more than {MAX_DETAILS} details"));
            }
            (1..=3, _) => return Err(Malformed::OtherWireTypeInStatus),
            _ => {}
        }
    }
    let status =
        (code != 0).then(|| Status::new(Code::from_number(code), message).with_details(details));
    Ok((status, excess))
}

fn entry(bytes: &[u8]) -> Result<(&str, &str), Malformed> {
    let (mut key, mut value) = ("", "");
    let mut fields = Fields(bytes);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes(bytes)) => key = text(bytes, "a metadata key")?,
            (2, Value::Bytes(bytes)) => value = text(bytes, "a metadata value")?,
            _ => {}
        }
    }
    Ok((key, value))
}

fn text<'a>(bytes: &'a [u8], what: &'static str) -> Result<&'a str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed::NotText(what))
}

/// What is wrong with bytes. Small, since every step of reading may end with it: what it says is put
/// into words where somebody is told.
#[derive(Debug, Clone, Copy)]
enum Malformed {
    FieldNumberZero,
    FieldNumberTooLarge,
    /// A wire type that there is not.
    WireType(u32, u8),
    /// A field that we know, as something else.
    OtherWireType(u32),
    OtherWireTypeInStatus,
    /// A length, and what is there.
    Short(u64, usize),
    Varint,
    NotText(&'static str),
    Detail,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FieldNumberZero => f.write_str("field number 0"),
            Self::FieldNumberTooLarge => f.write_str("a field number is too large"),
            Self::WireType(number, other) => write!(f, "field {number} has wire type {other}"),
            Self::OtherWireType(number) => write!(f, "field {number} has another wire type"),
            Self::OtherWireTypeInStatus => f.write_str("a field has another wire type"),
            Self::Short(len, there) => {
                write!(f, "a field of {len} bytes, of which {there} are there")
            }
            Self::Varint => f.write_str("invalid varint"),
            Self::NotText(what) => write!(f, "{what} is not UTF-8"),
            Self::Detail => f.write_str("a detail cannot be decoded"),
        }
    }
}

enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed,
}

/// The fields of a protobuf message, in the order in which they stand.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    #[inline(always)]
    fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).map_err(|_| Malformed::FieldNumberTooLarge)?;
        if number == 0 {
            return Err(Malformed::FieldNumberZero);
        }
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Value::Fixed
            }
            2 => {
                let len = self.varint()?;
                Value::Bytes(self.take(len)?)
            }
            5 => {
                self.take(4)?;
                Value::Fixed
            }
            other => return Err(Malformed::WireType(number, other as u8)),
        };
        Ok(Some((number, value)))
    }

    #[inline(always)]
    fn varint(&mut self) -> Result<u64, Malformed> {
        // The common case, a single byte, needs no loop.
        if let [byte @ 0..=0x7f, rest @ ..] = self.0 {
            self.0 = rest;
            return Ok(u64::from(*byte));
        }
        prost::encoding::decode_varint(&mut self.0).map_err(|_| Malformed::Varint)
    }

    #[inline(always)]
    fn take(&mut self, len: u64) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = usize::try_from(len)
            .ok()
            .and_then(|len| self.0.split_at_checked(len))
            .ok_or(Malformed::Short(len, self.0.len()))?;
        self.0 = rest;
        Ok(taken)
    }
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

/// The beginning of a frame on its way into a buffer: all but the payload, where there is no more to
/// it than an id and a method of no extraordinary length.
struct Start {
    bytes: [u8; START],
    len: usize,
}

const START: usize = 128;

/// With this, the prefix, three keys, a number and two lengths of ten bytes each at most are a
/// [`Start`].
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

/// The fields of an envelope but the payload.
struct Head<'a> {
    id: u64,
    method: &'a str,
    status: Option<RpcStatus>,
    metadata: Option<&'a Metadata>,
    control: Control,
}

impl Head<'_> {
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

    /// Does what [`put_frame`](Self::put_frame) does, for what almost every frame is. False, and
    /// nothing is written, for all others.
    fn put_plain(&self, payload: usize, limit: usize, buf: &mut BytesMut) -> bool {
        let is_plain = self.status.is_none()
            && self.metadata.is_none_or(Metadata::is_empty)
            && self.control == Control::Message
            && self.method.len() <= SHORT_METHOD;
        if !is_plain {
            return false;
        }
        // Together, since each addition to a buffer costs more than the bytes.
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
        id,
        method,
        status: None,
        metadata: Some(metadata),
        control: Control::Message,
    };
    let mut buf = BytesMut::new();
    head.put_frame(message.encoded_len(), limit, &mut buf)?;
    message.encode_raw(&mut buf);
    Ok(buf.freeze())
}

/// Appends the frame of a reply, without the payload, which the caller puts behind it.
pub(crate) fn encode_reply(
    id: u64,
    method: &str,
    payload: usize,
    limit: usize,
    buf: &mut BytesMut,
) -> Result<(), Status> {
    let head = Head {
        id,
        method,
        status: None,
        metadata: None,
        control: Control::Message,
    };
    head.put_frame(payload, limit, buf)
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
        id,
        method,
        // With the number of success it would arrive as an empty reply.
        status: status.map(Status::as_error).map(|status| RpcStatus {
            code: status.code().number(),
            message: status.message().to_owned(),
            details: status.details().to_vec(),
        }),
        metadata: None,
        control,
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
        // What is left is the method, which the peer chose: no larger than what was read from it.
        let _ = short.put_frame(0, usize::MAX, buf);
    }
}

/// The largest error reply, with message and details.
const MAX_STATUS: usize = 1 << 20;

/// A frame that only says something about another one.
pub(crate) fn encode_control(id: u64, control: Control) -> Bytes {
    let mut buf = BytesMut::new();
    encode_status(id, "", None, control, &mut buf);
    buf.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&text[i..i + 2], 16).expect("hex"))
            .collect()
    }

    #[derive(Clone, PartialEq, Message)]
    struct ReadRequest {
        #[prost(string, tag = "1")]
        key: String,
    }

    #[test]
    fn plain_envelopes_are_read_as_all_others_are() {
        let reread = |frame: &[u8]| {
            let mut envelope = Envelope::decode(&[]).expect("an empty one");
            envelope.read(frame).ok()?;
            Some((
                envelope.id,
                envelope.method.to_owned(),
                envelope.payload.to_vec(),
            ))
        };
        for id in [1, 127, 128, 1 << 40, (1 << 56) - 1, 1 << 56, u64::MAX] {
            for (method, payload) in [("a.B.C", 0), ("a.B.C", 1), ("a.B.C", 200), ("", 5)] {
                let mut buf = BytesMut::new();
                encode_reply(id, method, payload, usize::MAX, &mut buf).expect("small");
                buf.put_bytes(7, payload);
                for end in PREFIX..=buf.len() {
                    let frame = &buf[PREFIX..end];
                    let read = Envelope::decode(frame)
                        .ok()
                        .map(|e| (e.id, e.method.to_owned(), e.payload.to_vec()));
                    assert_eq!(read, reread(frame), "{id} {method} {payload} cut at {end}");
                }
            }
        }
    }

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
        let request = ReadRequest {
            key: "k".repeat(100),
        };
        let error =
            encode_message(1, "a.B.C", &Metadata::new(), &request, 50).expect_err("too large");
        assert_eq!(error.code(), Code::ResourceExhausted);
        assert!(error.message().contains("limit of 50"), "{error}");
    }

    #[test]
    fn broken_envelopes_say_what_is_wrong() {
        for (bytes, expected) in [
            (&[0x08][..], "varint"),
            (&[0x12, 5, b'a'], "5 bytes, of which 1"),
            (&[0x12, 1, 0xff], "the method is not UTF-8"),
            (&[0x0a, 1, 1], "field 1 has another wire type"),
            (&[0x0b], "wire type 3"),
            (&[0x00, 0], "field number 0"),
            (&[0x1a, 2, 0x08, 0x80], "the status"),
        ] {
            let error = Envelope::decode(bytes).expect_err("broken");
            assert!(error.contains(expected), "{bytes:x?}: {error}");
        }
    }

    #[test]
    fn metadata_and_details_without_end_take_no_memory_without_end() {
        let entries = [ENTRY as u8 * 8 + 2, 0].repeat(100_000);
        let envelope = Envelope::decode(&entries).expect("legal");
        assert_eq!(envelope.metadata.len(), MAX_ENTRIES);
        let excess = envelope.excess.expect("too many");
        assert!(excess.contains(&MAX_ENTRIES.to_string()), "{excess}");

        let mut bytes = BytesMut::new();
        let details = [&[0x08, 5], &[0x1a, 0].repeat(100_000)[..]].concat();
        put_bytes(STATUS, &details, &mut bytes);
        let envelope = Envelope::decode(&bytes).expect("legal");
        let status = envelope.status.expect("an error");
        assert_eq!(status.details().len(), MAX_DETAILS);
        let excess = envelope.excess.expect("too many");
        assert!(excess.contains(&MAX_DETAILS.to_string()), "{excess}");
    }

    #[test]
    fn unknown_fields_are_skipped() {
        // fields 9 (varint), 10 (fixed64), 11 (bytes), 12 (fixed32), then the id
        let bytes = unhex(
            "4801510000000000000000 5a0141 6500000000 0805"
                .replace(' ', "")
                .as_str(),
        );
        assert_eq!(Envelope::decode(&bytes).expect("legal").id, 5);
    }

    #[test]
    fn the_head_of_a_long_message_tells_its_id_and_method() {
        let request = ReadRequest {
            key: "k".repeat(1000),
        };
        let frame =
            encode_message(300, "a.B.C", &Metadata::new(), &request, 1 << 20).expect("small");
        assert_eq!(peek_id(&frame[PREFIX..PREFIX + 64]), Some((300, "a.B.C")));
        assert_eq!(peek_id(&frame[PREFIX..PREFIX + 4]), None);
    }
}
