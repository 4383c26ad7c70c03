//! Calls of any method of one node, with requests and replies as JSON.
//!
//! They are calls of Gorums, over the connections that the program has: with TLS where it has TLS, in
//! order with its other calls, and with its statuses. A message is known by its descriptor alone, so
//! that what is sent and received is its bytes.

use std::fmt;
use std::time::Duration;

use gorums::{Client, Configuration};
use prost::bytes::{Buf, BufMut};
use prost::encoding::{
    DecodeContext, WireType, bytes, encode_key, encode_varint, fixed32, fixed64, skip_field, uint64,
};
use prost::{DecodeError, Message};
use prost_reflect::{DynamicMessage, MessageDescriptor, SerializeOptions};

use super::command::ByHand;
use super::methods::{Answers, Method, Methods};
use super::screen::Screen;
use super::session::{Failure, node};

/// Calls a method, and shows what came of it.
pub(crate) async fn call(
    methods: &Methods,
    configuration: &Configuration,
    timeout: Duration,
    call: ByHand,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let node = node(configuration, call.node)?;
    let method = methods.find(&call.method).map_err(Failure::of)?;
    let request = request(method.descriptor.input(), &call.json).map_err(Failure::of)?;
    let one = configuration.select([node.id()])?;
    let client = Client::new(&one).with_timeout(timeout);
    match method.answers {
        Answers::One => {
            let reply = client
                .rpc::<_, Encoded>(&node, method.name, request)
                .await?;
            show(method, &reply, screen)
        }
        Answers::Many => {
            let call = client.streamed_quorum_call::<_, Encoded>(method.name, request);
            let mut replies = call.responses();
            while let Some(reply) = replies.next().await {
                show(method, &reply.into_result()?, screen)?;
            }
            Ok(())
        }
        Answers::None => {
            client.unicast(&node, method.name, request).await?;
            Ok(screen.result(format_args!("sent to node {}", call.node))?)
        }
    }
}

/// The request that this JSON says.
fn request(message: MessageDescriptor, json: &str) -> Result<Encoded, WrongRequest> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let read = read(message.clone(), &mut reader).and_then(|request| {
        let end = reader.end();
        end.map_err(|error| (String::new(), error))?;
        Ok(request)
    });
    match read {
        Ok(request) => Ok(Encoded(request.encode_to_vec())),
        Err((path, error)) => Err(WrongRequest {
            path,
            error,
            is_quoted: json.contains('"'),
            message,
        }),
    }
}

/// Where it is wrong, the path of the field is told.
fn read(
    message: MessageDescriptor,
    reader: &mut serde_json::Deserializer<serde_json::de::StrRead<'_>>,
) -> Result<DynamicMessage, (String, serde_json::Error)> {
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(reader, &mut track);
    let read = DynamicMessage::deserialize(message, tracked);
    read.map_err(|error| match track.path().to_string() {
        // It is not known.
        path if path == "." || path == "?" => (String::new(), error),
        path => (path, error),
    })
}

fn show(method: &Method, reply: &Encoded, screen: &mut Screen) -> Result<(), Failure> {
    let message = method.descriptor.output();
    let unreadable = |error: String| UnreadableReply {
        message: message.full_name().to_owned(),
        error,
    };
    let reply = DynamicMessage::decode(message.clone(), reply.0.as_slice());
    let reply = reply.map_err(|error| Failure::of(unreadable(error.to_string())))?;
    let mut json = Vec::new();
    // What is not set is a part of the answer, too.
    let options = SerializeOptions::new().skip_default_fields(false);
    let mut writer = serde_json::Serializer::new(&mut json);
    let written = reply.serialize_with_options(&mut writer, &options);
    written.map_err(|error| Failure::of(unreadable(error.to_string())))?;
    Ok(screen.result(String::from_utf8_lossy(&json))?)
}

/// The bytes of a message.
#[derive(Debug, Clone, Default, PartialEq)]
struct Encoded(Vec<u8>);

impl Message for Encoded {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match wire_type {
            WireType::Varint => {
                let mut value = 0;
                uint64::merge(wire_type, &mut value, buf, context)?;
                encode_key(tag, wire_type, &mut self.0);
                encode_varint(value, &mut self.0);
            }
            WireType::SixtyFourBit => {
                let mut value = 0;
                fixed64::merge(wire_type, &mut value, buf, context)?;
                encode_key(tag, wire_type, &mut self.0);
                self.0.put_u64_le(value);
            }
            WireType::ThirtyTwoBit => {
                let mut value = 0;
                fixed32::merge(wire_type, &mut value, buf, context)?;
                encode_key(tag, wire_type, &mut self.0);
                self.0.put_u32_le(value);
            }
            WireType::LengthDelimited => {
                let mut value = Vec::new();
                bytes::merge(wire_type, &mut value, buf, context)?;
                encode_key(tag, wire_type, &mut self.0);
                encode_varint(value.len() as u64, &mut self.0);
                self.0.extend_from_slice(&value);
            }
            // Messages of proto3 have none, so that those are of no field.
            WireType::StartGroup | WireType::EndGroup => {
                skip_field(wire_type, tag, buf, context)?;
            }
        }
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// A request that is not what the method takes.
#[derive(Debug)]
struct WrongRequest {
    /// The field in which it is wrong; empty where it is none.
    path: String,
    error: serde_json::Error,
    /// There are quotes in the text.
    is_quoted: bool,
    message: MessageDescriptor,
}

impl fmt::Display for WrongRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, error, .. } = self;
        write!(f, "the request is no {}: ", self.message.full_name())?;
        if !path.is_empty() {
            write!(f, "field {path}: ")?;
        }
        write!(f, "{error}")?;
        if !self.is_quoted && error.is_syntax() {
            f.write_str(
                "\nput the JSON into single quotes, which keep its own: '{\"key\": \"k\"}'",
            )?;
        }
        let fields: Vec<_> = self.message.fields().collect();
        if fields.is_empty() {
            return f.write_str("\nit has no fields: '{}'");
        }
        f.write_str("\nits fields are:")?;
        for field in fields {
            let list = if field.is_list() { "repeated " } else { "" };
            let kind = match field.kind() {
                prost_reflect::Kind::Message(message) => message.full_name().to_owned(),
                prost_reflect::Kind::Enum(of) => of.full_name().to_owned(),
                kind => format!("{kind:?}"),
            };
            write!(f, "\n  {}: {list}{kind}", field.json_name())?;
        }
        Ok(())
    }
}

impl std::error::Error for WrongRequest {}

/// A reply that is not what the method answers.
#[derive(Debug)]
struct UnreadableReply {
    message: String,
    error: String,
}

impl fmt::Display for UnreadableReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { message, error } = self;
        write!(f, "the reply is no {message} that can be shown: {error}")
    }
}

impl std::error::Error for UnreadableReply {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_a_message_stay_as_they_are() {
        // A varint of two bytes, 64 bits, a text, 32 bits, and the first field again.
        let message = [
            &[0x08, 0x96, 0x01][..],
            &[0x11, 1, 2, 3, 4, 5, 6, 7, 8],
            &[0x1a, 2, b'h', b'i'],
            &[0x25, 1, 2, 3, 4],
            &[0x08, 0x01],
        ]
        .concat();
        let decoded = Encoded::decode(message.as_slice()).expect("well-formed");
        assert_eq!(decoded.encoded_len(), message.len());
        assert_eq!(decoded.encode_to_vec(), message);
        for end in [1, 2, 4, 13, 15] {
            Encoded::decode(&message[..end]).expect_err("cut off");
        }
        Encoded::decode(&[0x0c][..]).expect_err("the end of a group that has not begun");
    }
}
