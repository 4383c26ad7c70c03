use bytes::{BufMut, BytesMut};
use prost::Message;
use prost_types::Any;

use super::input::Input;
use crate::error::{Code, Status};
use crate::wire::{
    Added, Control, Envelope, PREFIX, encode_control, encode_credit, encode_message, encode_reply,
    encode_status, peek_id, start_with,
};

/// The envelope as prost reads it.
#[derive(Clone, PartialEq, Message)]
struct Reference {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    method: String,
    #[prost(message, optional, tag = "3")]
    status: Option<ReferenceStatus>,
    #[prost(message, repeated, tag = "4")]
    metadata: Vec<ReferenceEntry>,
    #[prost(bytes = "vec", tag = "5")]
    payload: Vec<u8>,
    #[prost(bool, tag = "12")]
    is_resent: bool,
    #[prost(uint64, tag = "13")]
    time_left: u64,
    #[prost(uint64, tag = "14")]
    credit: u64,
    #[prost(uint32, tag = "15")]
    control: u32,
}

#[derive(Clone, PartialEq, Message)]
struct ReferenceStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct ReferenceEntry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// Bytes of one envelope: they are read as prost reads them, and what is written of them is read
/// again as it was.
pub fn envelopes(input: &[u8]) {
    let mut input = Input(input);
    let likely = input.one_of(&["", "a.B.C", "gorums.fuzzing.Test.Ask"]);
    let frame = input.rest();
    let _ = peek_id(frame);
    let reference = Reference::decode(frame);
    match (Envelope::decode_like(frame, likely), reference) {
        (Ok(envelope), _) if envelope.excess.is_some() => {}
        (Ok(envelope), Ok(reference)) => {
            assert_same(&envelope, &reference);
            assert_written_again(&envelope);
        }
        (Ok(envelope), Err(error)) => panic!("prost refuses {envelope:?}: {error}"),
        // Groups are from before proto3, and no field of an envelope was ever one.
        (Err(error), Ok(_)) if error.contains("wire type 3") => {}
        (Err(error), Ok(reference)) => panic!("{error}: {reference:?}"),
        (Err(_), Err(_)) => {}
    }
}

fn assert_same(envelope: &Envelope<'_>, reference: &Reference) {
    assert_eq!(envelope.id, reference.id);
    assert_eq!(envelope.method, reference.method);
    assert_eq!(envelope.payload, reference.payload);
    assert_eq!(envelope.time_left, reference.time_left);
    assert_eq!(envelope.is_resent, reference.is_resent);
    assert_eq!(envelope.credit, reference.credit);
    let control = match envelope.control {
        Control::Unknown => None,
        known => Some(known.number()),
    };
    let expected = u64::from(reference.control);
    // It stands behind all that are known.
    let is_known = expected < Control::Unknown as u64;
    assert_eq!(control, is_known.then_some(expected));
    let metadata = reference.metadata.iter();
    let metadata: Vec<_> = metadata
        .map(|entry| (entry.key.as_str(), entry.value.as_str()))
        .collect();
    assert_eq!(envelope.metadata, metadata);
    let expected = reference
        .status
        .as_ref()
        .filter(|status| status.code != 0)
        .map(|status| {
            Status::new(Code::from_number(status.code), &status.message)
                .with_details(status.details.clone())
        });
    assert_same_status(envelope.status.as_ref(), expected.as_ref());
}

fn assert_same_status(one: Option<&Status>, other: Option<&Status>) {
    fn parts(status: &Status) -> (Code, &str, &[Any]) {
        (status.code(), status.message(), status.details())
    }
    assert_eq!(one.map(parts), other.map(parts));
}

/// A payload as it is.
#[derive(Debug, Default)]
struct Raw(Vec<u8>);

impl Message for Raw {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        _: u32,
        _: prost::encoding::WireType,
        _: &mut impl bytes::Buf,
        _: prost::encoding::DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        unreachable!("it is only written")
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

fn assert_written_again(envelope: &Envelope<'_>) {
    let Envelope { id, method, .. } = *envelope;
    let metadata = envelope.metadata();
    let payload = Raw(envelope.payload.to_vec());
    let encode = |limit| encode_message(id, method, &metadata, &payload, limit);
    let frame = encode(usize::MAX).expect("it came in one frame");
    let again = read(&frame);
    assert_eq!(
        (again.id, again.method, again.payload),
        (id, method, envelope.payload)
    );
    assert_eq!(again.metadata(), metadata);
    assert!(again.status.is_none() && again.control == Control::Message && again.time_left == 0);
    let len = frame.len() - PREFIX;
    assert_eq!(encode(len).expect("just as much"), frame);
    if len > 0 {
        encode(len - 1).expect_err("a byte too many");
    }
    if !method.is_empty() {
        assert_eq!(peek_id(&frame[PREFIX..]), Some((id, method)));
    }

    let added = Added {
        time_left: Some(envelope.time_left),
        is_resent: envelope.is_resent,
    };
    let (start, start_len) = start_with(&frame, added).expect("not so long");
    let timed = [&start[..start_len], &frame[PREFIX..]].concat();
    let again = read(&timed);
    assert_eq!(again.time_left, envelope.time_left);
    assert_eq!(again.is_resent, envelope.is_resent);
    assert_eq!((again.id, again.method), (id, method));
    assert_eq!(
        (again.payload, again.metadata()),
        (envelope.payload, metadata)
    );

    let mut reply = BytesMut::new();
    encode_reply(id, method, payload.0.len(), usize::MAX, &mut reply).expect("no limit");
    reply.put_slice(&payload.0);
    let again = read(&reply);
    assert_eq!(
        (again.id, again.method, again.payload),
        (id, method, envelope.payload)
    );

    let mut answer = BytesMut::new();
    let status = envelope.status.as_ref();
    encode_status(id, method, status, envelope.control, &mut answer);
    let again = read(&answer);
    assert_eq!((again.id, again.method), (id, method));
    assert_same_status(again.status.as_ref(), status);
    if envelope.control != Control::Unknown {
        assert_eq!(again.control, envelope.control);
        let control = encode_control(id, envelope.control);
        assert_eq!(read(&control).control, envelope.control);
    }

    let credit = encode_credit(id, envelope.credit);
    let again = read(&credit);
    let expected = (id, Control::Credit, envelope.credit);
    assert_eq!((again.id, again.control, again.credit), expected);
}

/// Reads a frame of ours, whose prefix has to be right.
fn read(frame: &[u8]) -> Envelope<'_> {
    let (prefix, envelope) = frame.split_at(PREFIX);
    let len = u32::try_from(envelope.len()).expect("not so long");
    assert_eq!(prefix, [&[0][..], &len.to_be_bytes()].concat());
    Envelope::decode_like(envelope, "").expect("our own")
}
