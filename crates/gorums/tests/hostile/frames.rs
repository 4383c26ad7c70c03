//! HTTP/2 written by hand: frames as bytes, good ones and bad ones, for either side.

use bytes::BufMut;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::common::within;
pub use crate::wire::*;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What kind of frame it is.
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// Flags: the end of the stream, or an acknowledgement; and the end of the headers.
pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;

/// Settings.
pub const INITIAL_WINDOW_SIZE: u16 = 4;
pub const MAX_FRAME_SIZE: u16 = 5;

/// Why a connection or a stream was ended.
pub const PROTOCOL_ERROR: u32 = 1;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const ENHANCE_YOUR_CALM: u32 = 11;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = frame_head(payload.len(), kind, flags, stream);
    frame.extend_from_slice(payload);
    frame
}

/// The nine bytes before a frame's payload, whatever follows them.
pub fn frame_head(len: usize, kind: u8, flags: u8, stream: u32) -> Vec<u8> {
    let mut head = Vec::with_capacity(9 + len.min(1 << 20));
    head.put_uint(len as u64, 3);
    head.put_u8(kind);
    head.put_u8(flags);
    head.put_u32(stream);
    head
}

pub fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (name, value) in settings {
        payload.put_u16(*name);
        payload.put_u32(*value);
    }
    frame(SETTINGS, 0, 0, &payload)
}

pub fn settings_ack() -> Vec<u8> {
    frame(SETTINGS, ACK, 0, &[])
}

pub fn ping() -> Vec<u8> {
    frame(PING, 0, 0, &[7; 8])
}

pub fn window_update(stream: u32, bytes: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
}

pub fn reset(stream: u32, reason: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &reason.to_be_bytes())
}

pub fn go_away(last: u32, reason: u32) -> Vec<u8> {
    let mut payload = last.to_be_bytes().to_vec();
    payload.put_u32(reason);
    frame(GOAWAY, 0, 0, &payload)
}

/// A block of headers, each a literal that is not indexed, without Huffman's code.
pub fn header_block(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.put_u8(0);
        for text in [name, value] {
            put_length(text.len(), &mut block);
            block.put_slice(text.as_bytes());
        }
    }
    block
}

/// An integer with a prefix of seven bits.
fn put_length(len: usize, block: &mut Vec<u8>) {
    if len < 127 {
        block.put_u8(len as u8);
        return;
    }
    block.put_u8(127);
    let mut rest = len - 127;
    while rest >= 128 {
        block.put_u8((rest % 128) as u8 | 0x80);
        rest /= 128;
    }
    block.put_u8(rest as u8);
}

pub fn headers(stream: u32, flags: u8, headers: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, stream, &header_block(headers))
}

/// What opens the stream of a client.
pub const REQUEST: [(&str, &str); 6] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", PATH),
    (":authority", "gorums"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
];

/// All that a client says before its first call.
pub fn hello(with: &[(u16, u32)]) -> Vec<u8> {
    [PREFACE.to_vec(), settings(with), headers(1, 0, &REQUEST)].concat()
}

/// What accepts the stream of a client.
pub const HEAD: [(&str, &str); 2] = [(":status", "200"), ("content-type", "application/grpc")];

/// DATA of the first stream.
pub fn data(payload: &[u8]) -> Vec<u8> {
    frame(DATA, 0, 1, payload)
}

/// A frame that was read.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// The next frame, or none where the connection has ended.
pub async fn read_frame(io: &mut (impl AsyncRead + Unpin)) -> Option<Frame> {
    let mut head = [0; 9];
    within(io.read_exact(&mut head)).await.ok()?;
    let [a, b, c, kind, flags, stream @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    within(io.read_exact(&mut payload)).await.ok()?;
    Some(Frame {
        kind,
        flags,
        stream: u32::from_be_bytes(stream) & (u32::MAX >> 1),
        payload,
    })
}

/// The number in a frame that says why something was ended.
pub fn reason(frame: &Frame) -> u32 {
    let at = if frame.kind == GOAWAY { 4 } else { 0 };
    let bytes = frame.payload[at..at + 4].try_into().expect("four bytes");
    u32::from_be_bytes(bytes)
}
