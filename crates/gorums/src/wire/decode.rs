//! How an [`Envelope`] is read.

use std::fmt;

use prost::Message;
use prost_types::Any;

use super::envelope::{
    CONTROL, CREDIT, Control, ENTRY, Envelope, ID, METHOD, PAYLOAD, RESENT, STATUS, TIME_LEFT,
};
use crate::error::{Code, Status};
use crate::metadata::MAX_ENTRIES;

/// How many details a status may have. In memory they take far more than the two bytes that one
/// takes on the wire, as entries of metadata do.
pub(crate) const MAX_DETAILS: usize = 1024;

const TIME_LEFT_KEY: u8 = (TIME_LEFT as u8) << 3;

impl<'a> Envelope<'a> {
    /// Reads an envelope. The message of the error says what is wrong with the bytes.
    #[cfg(test)]
    pub(crate) fn decode(frame: &'a [u8]) -> Result<Self, String> {
        Self::decode_like(frame, "")
    }

    /// Reads an envelope that is likely to be of this method. If it is, the method need not be
    /// checked for UTF-8.
    #[inline]
    pub(crate) fn decode_like(frame: &'a [u8], likely: &'a str) -> Result<Self, String> {
        let mut envelope = Self {
            id: 0,
            method: "",
            status: None,
            metadata: Vec::new(),
            payload: &[],
            control: Control::Message,
            time_left: 0,
            is_resent: false,
            credit: 0,
            excess: None,
        };
        if let Some((id, method, payload)) = plain(frame, likely) {
            (envelope.id, envelope.method, envelope.payload) = (id, method, payload);
            return Ok(envelope);
        }
        // As this version writes a request whose caller has a deadline.
        if let [TIME_LEFT_KEY, rest @ ..] = frame
            && let Some((time_left, rest)) = short_varint(rest)
            && let Some((id, method, payload)) = plain(rest, likely)
        {
            (envelope.id, envelope.method, envelope.payload) = (id, method, payload);
            envelope.time_left = time_left;
            return Ok(envelope);
        }
        match envelope.read(frame) {
            Ok(()) => Ok(envelope),
            Err((place, malformed)) => Err(format!("{place}{malformed}")),
        }
    }

    /// The error says where in the envelope it is, and what.
    fn read(&mut self, frame: &'a [u8]) -> Result<(), (&'static str, Malformed)> {
        let nowhere = |malformed| ("", malformed);
        let mut fields = Fields(frame);
        let mut status = StatusFields::default();
        while let Some((number, value)) = fields.next().map_err(nowhere)? {
            match (number, value) {
                (ID, Value::Varint(id)) => self.id = id,
                (METHOD, Value::Bytes(bytes)) => {
                    self.method = text(bytes, "the method").map_err(nowhere)?;
                }
                (STATUS, Value::Bytes(bytes)) => {
                    status.read(bytes).map_err(|e| ("the status: ", e))?;
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
                (RESENT, Value::Varint(is_resent)) => self.is_resent = is_resent != 0,
                (TIME_LEFT, Value::Varint(time_left)) => self.time_left = time_left,
                (CREDIT, Value::Varint(credit)) => self.credit = credit,
                // As of every uint32, the lower four bytes count.
                (CONTROL, Value::Varint(number)) => {
                    self.control = Control::from_number(number as u32);
                }
                (ID..=PAYLOAD | RESENT | TIME_LEFT | CREDIT | CONTROL, _) => {
                    return Err(nowhere(Malformed::OtherWireType(number)));
                }
                _ => {}
            }
        }
        if status.has_excess {
            self.excess = Some(format!("a status with more than {MAX_DETAILS} details"));
        }
        self.status = status.into_status();
        Ok(())
    }
}

/// Reads an envelope that is, like almost all, an id, a method and a payload in this order. None
/// for any other, sound or not. The method is `likely` itself if it is that.
#[inline]
pub(crate) fn plain<'a>(frame: &'a [u8], likely: &'a str) -> Option<(u64, &'a str, &'a [u8])> {
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

/// A varint of at most eight bytes, and the bytes behind it.
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

/// The id and the method of an envelope, if they are among its first bytes.
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

/// The fields of a status. Where an envelope has it in pieces, these are one, as protobuf has it.
#[derive(Default)]
struct StatusFields<'a> {
    code: i32,
    message: &'a str,
    details: Vec<Any>,
    /// There are more details than may be.
    has_excess: bool,
}

impl<'a> StatusFields<'a> {
    fn read(&mut self, bytes: &'a [u8]) -> Result<(), Malformed> {
        let mut fields = Fields(bytes);
        while let Some(field) = fields.next()? {
            match field {
                // A negative number takes ten bytes, of which the lower four count.
                (1, Value::Varint(number)) => self.code = number as i32,
                (2, Value::Bytes(bytes)) => self.message = text(bytes, "the message")?,
                (3, Value::Bytes(bytes)) if self.details.len() < MAX_DETAILS => {
                    let detail = Any::decode(bytes).map_err(|_| Malformed::Detail)?;
                    self.details.push(detail);
                }
                (3, Value::Bytes(_)) => self.has_excess = true,
                (1..=3, _) => return Err(Malformed::OtherWireTypeIn("a field")),
                _ => {}
            }
        }
        Ok(())
    }

    /// None where the code is that of success.
    fn into_status(self) -> Option<Status> {
        (self.code != 0).then(|| {
            Status::new(Code::from_number(self.code), self.message).with_details(self.details)
        })
    }
}

fn entry(bytes: &[u8]) -> Result<(&str, &str), Malformed> {
    let (mut key, mut value) = ("", "");
    let mut fields = Fields(bytes);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes(bytes)) => key = text(bytes, "a metadata key")?,
            (2, Value::Bytes(bytes)) => value = text(bytes, "a metadata value")?,
            (1..=2, _) => return Err(Malformed::OtherWireTypeIn("a metadata entry")),
            _ => {}
        }
    }
    Ok((key, value))
}

fn text<'a>(bytes: &'a [u8], what: &'static str) -> Result<&'a str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed::NotText(what))
}

/// What is wrong with bytes. It is small, since every step of reading may return it; it is put into
/// words only where somebody is told.
#[derive(Debug, Clone, Copy)]
enum Malformed {
    FieldNumberZero,
    FieldNumberTooLarge,
    /// A wire type that does not exist.
    WireType(u32, u8),
    /// A known field with another wire type than its own.
    OtherWireType(u32),
    /// The same in what is in a field.
    OtherWireTypeIn(&'static str),
    /// A length, and how many bytes are there.
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
            Self::OtherWireTypeIn(what) => write!(f, "{what} has another wire type"),
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
        let number = u32::try_from(key).map_err(|_| Malformed::FieldNumberTooLarge)? >> 3;
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

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};

    use super::*;
    use crate::metadata::Metadata;
    use crate::wire::{PREFIX, encode_message, encode_reply};

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
    fn the_time_left_is_read_wherever_it_stands() {
        let request = "k".to_owned();
        let frame = encode_message(7, "a.B.C", &Metadata::new(), &request, 1000).expect("small");
        let plain = &frame[PREFIX..];
        for (left, expected) in [
            (&[0][..], 0),
            (&[1], 1),
            (&[0xe8, 7], 1000),
            // -1, and the greatest number that needs eight bytes
            (&[255, 255, 255, 255, 255, 255, 255, 255, 255, 1], u64::MAX),
            (&[255, 255, 255, 255, 255, 255, 255, 127], (1 << 56) - 1),
        ] {
            let field = [&[TIME_LEFT_KEY], left].concat();
            for bytes in [[&field, plain].concat(), [plain, &field].concat()] {
                let envelope = Envelope::decode(&bytes).expect("legal");
                assert_eq!((envelope.id, envelope.method), (7, "a.B.C"), "{left:?}");
                assert_eq!(envelope.payload, &plain[plain.len() - 3..], "{left:?}");
                assert_eq!(envelope.time_left, expected, "{left:?}");
            }
        }
        for cut in [&[TIME_LEFT_KEY][..], &[TIME_LEFT_KEY, 0x80]] {
            let error = Envelope::decode(cut).expect_err("no number");
            assert!(error.contains("varint"), "{error}");
        }
        let error = Envelope::decode(&[TIME_LEFT_KEY | 2, 0]).expect_err("no number");
        assert!(error.contains("field 13"), "{error}");
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
            (
                &[0x22, 2, 0x08, 1],
                "a metadata entry has another wire type",
            ),
            (&[0x80, 0x80, 0x80, 0x80, 0x10, 0], "number is too large"),
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

        let details = [&[0x08, 5], &[0x1a, 0].repeat(100_000)[..]].concat();
        let mut bytes = Vec::new();
        prost::encoding::bytes::encode(STATUS, &details, &mut bytes);
        let envelope = Envelope::decode(&bytes).expect("legal");
        let status = envelope.status.expect("an error");
        assert_eq!(status.details().len(), MAX_DETAILS);
        let excess = envelope.excess.expect("too many");
        assert!(excess.contains(&MAX_DETAILS.to_string()), "{excess}");
    }

    #[test]
    fn a_status_in_pieces_is_one_and_the_last_of_each_field_counts() {
        // code 5, "a" and a detail; code 6 alone; nothing
        let bytes = [
            &[0x1a, 7, 0x08, 5, 0x12, 1, b'a', 0x1a, 0][..],
            &[0x1a, 2, 0x08, 6],
            &[0x1a, 0],
        ]
        .concat();
        let status = Envelope::decode(&bytes).expect("legal").status;
        let status = status.expect("an error");
        assert_eq!(
            (status.code(), status.message()),
            (Code::AlreadyExists, "a")
        );
        assert_eq!(status.details().len(), 1);
    }

    #[test]
    fn unknown_fields_are_skipped() {
        // fields 8 (fixed32), 9 (varint), 10 (fixed64), 11 (bytes), then the id
        let bytes = [
            &[0x48, 1][..],
            &[0x51, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0x5a, 1, b'A'],
            &[0x45, 0, 0, 0, 0],
            &[0x08, 5],
        ]
        .concat();
        assert_eq!(Envelope::decode(&bytes).expect("legal").id, 5);
    }

    #[test]
    fn the_head_of_a_long_message_tells_its_id_and_method() {
        let request = "k".repeat(1000);
        let frame =
            encode_message(300, "a.B.C", &Metadata::new(), &request, 1 << 20).expect("small");
        assert_eq!(peek_id(&frame[PREFIX..PREFIX + 64]), Some((300, "a.B.C")));
        assert_eq!(peek_id(&frame[PREFIX..PREFIX + 4]), None);
    }
}
