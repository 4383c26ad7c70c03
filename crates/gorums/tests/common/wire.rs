//! The wire, written down a second time: what peers that are made by hand say and hear.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::future::poll_fn;
use std::task::Poll;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::RecvStream;
use http::HeaderMap;
use prost::Message;
use prost_types::Any;

use crate::common::{Number, number, within};

pub const PATH: &str = "/stream.Gorums/NodeStream";
pub const ECHO: &str = "test.Test.Echo";
pub const NOTE: &str = "test.Test.Note";
/// What says in a message's id that the server began the call.
pub const HIGH_BIT: u64 = 1 << 63;

/// `stream.Message`.
#[derive(Clone, PartialEq, Message)]
pub struct Envelope {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(string, tag = "2")]
    pub method: String,
    #[prost(message, optional, tag = "3")]
    pub status: Option<WireStatus>,
    #[prost(message, repeated, tag = "4")]
    pub entries: Vec<Entry>,
    #[prost(bytes = "bytes", tag = "5")]
    pub payload: Bytes,
    #[prost(uint64, optional, tag = "13")]
    pub time_left: Option<u64>,
    #[prost(uint64, tag = "14")]
    pub credit: u64,
    #[prost(uint32, tag = "15")]
    pub control: u32,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub struct WireStatus {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Entry {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A request or a reply with a number.
pub fn envelope(id: u64, method: &str, value: u64) -> Envelope {
    Envelope {
        id,
        method: method.to_owned(),
        payload: number(value).encode_to_vec().into(),
        ..Envelope::default()
    }
}

/// One with so many bytes of payload beside the number.
pub fn envelope_of_size(id: u64, method: &str, bytes: usize) -> Envelope {
    let payload = Number {
        value: id,
        payload: Bytes::from(vec![7; bytes]),
    };
    Envelope {
        payload: payload.encode_to_vec().into(),
        ..envelope(id, method, 0)
    }
}

/// A gRPC message.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let mut framed = vec![0];
    framed.put_u32(message.len() as u32);
    framed.put_slice(message);
    framed
}

impl Envelope {
    /// As a gRPC message.
    pub fn framed(&self) -> Vec<u8> {
        framed(&self.encode_to_vec())
    }

    pub fn number(&self) -> u64 {
        Number::decode(self.payload.clone())
            .expect("a number")
            .value
    }

    /// The code and the message of an error.
    pub fn error(&self) -> (i32, &str) {
        let status = self.status.as_ref().expect("an error");
        (status.code, &status.message)
    }
}

/// The envelopes in a stream's DATA frames, whatever the frames' bounds.
pub struct Reader {
    recv: RecvStream,
    bytes: BytesMut,
}

impl Reader {
    pub fn new(recv: RecvStream) -> Self {
        Self {
            recv,
            bytes: BytesMut::new(),
        }
    }

    /// None when the peer has ended its side.
    pub async fn next(&mut self) -> Option<Envelope> {
        loop {
            if let Some(envelope) = self.take() {
                return Some(envelope);
            }
            let chunk = within(self.recv.data()).await?.expect("the stream is up");
            let released = self.recv.flow_control().release_capacity(chunk.len());
            released.expect("it was received");
            self.bytes.extend_from_slice(&chunk);
        }
    }

    fn take(&mut self) -> Option<Envelope> {
        let len = (&mut self.bytes.get(1..5)?).get_u32() as usize;
        if self.bytes.len() < 5 + len {
            return None;
        }
        self.bytes.advance(5);
        Some(Envelope::decode(self.bytes.split_to(len)).expect("an envelope"))
    }

    /// Whether anything has come.
    pub async fn has_some(&mut self) -> bool {
        poll_fn(|cx| Poll::Ready(self.recv.poll_data(cx).is_ready())).await
    }

    pub async fn expect(&mut self) -> Envelope {
        self.next().await.expect("the stream goes on")
    }

    /// The status in the trailers of a stream that says no more, and its message.
    pub async fn status(&mut self) -> (i32, String) {
        assert_eq!(self.next().await, None);
        let trailers = within(self.recv.trailers())
            .await
            .expect("the stream is up");
        grpc_status(&trailers.expect("a gRPC stream ends with trailers"))
    }

    /// Waits until the peer has closed the connection.
    pub async fn closed(&mut self) {
        while let Some(Ok(_)) = within(self.recv.data()).await {}
    }
}

/// The status in headers or trailers, and its message.
pub fn grpc_status(headers: &HeaderMap) -> (i32, String) {
    let text = |name| headers.get(name)?.to_str().ok();
    let code = text("grpc-status").expect("a gRPC status").parse();
    let message = text("grpc-message").unwrap_or_default().to_owned();
    (code.expect("a number"), message)
}
