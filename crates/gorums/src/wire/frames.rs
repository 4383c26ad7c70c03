//! gRPC's length-prefixed messages, taken out of DATA frames, which split and join them at will.

use bytes::{Buf, Bytes, BytesMut};

use super::PREFIX;
use crate::error::Status;

/// How much of an oversized message is kept, to find out whose it is.
const HEAD: usize = 256;

/// Chunks below this size are copied. `h2` reads into buffers of this size, and a chunk keeps its
/// whole buffer, the rest of which a peer may have filled with frames that carry nothing.
const COPY: usize = 8 * 1024;

/// What the decoder takes out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A whole message.
    Message(Bytes),
    /// The first bytes and the length of a message above the limit. The rest is skipped.
    Oversized { head: Bytes, len: usize },
}

/// Finds the messages in a stream of chunks. A message that lies within one chunk is a slice of it;
/// one that spans chunks is copied once. Holds at most one message of the limit's size.
#[derive(Debug)]
pub(crate) struct Decoder {
    limit: usize,
    chunk: Bytes,
    /// The beginning of a message that spans chunks, prefix included.
    partial: BytesMut,
    /// Set while an oversized message is skipped.
    skipping: Option<Skip>,
}

#[derive(Debug)]
struct Skip {
    /// None once the head was handed out.
    head: Option<BytesMut>,
    len: usize,
    left: usize,
}

impl Decoder {
    /// A decoder that skips messages of more than `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            chunk: Bytes::new(),
            partial: BytesMut::new(),
            skipping: None,
        }
    }

    /// Takes the next chunk, once all messages of the previous one have been taken out.
    pub(crate) fn push(&mut self, chunk: Bytes) {
        debug_assert!(
            self.chunk.is_empty(),
            "messages are taken out before the next chunk"
        );
        self.chunk = if chunk.len() < COPY {
            Bytes::copy_from_slice(&chunk)
        } else {
            chunk
        };
    }

    /// The next message, or none until there is another chunk.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, Status> {
        loop {
            if let Some(oversized) = self.skip() {
                return Ok(Some(oversized));
            }
            // While a message is skipped, the whole chunk is part of it.
            if self.chunk.is_empty() {
                return Ok(None);
            }
            if !self.partial.is_empty() {
                self.fill(PREFIX);
                if self.partial.len() < PREFIX {
                    return Ok(None);
                }
                let len = message_len(&self.partial)?;
                if self.begin_skip(len) {
                    self.partial.clear();
                    continue;
                }
                // The buffer grows with the bytes that came, not to the length that a peer claims.
                self.fill(PREFIX + len);
                if self.partial.len() < PREFIX + len {
                    return Ok(None);
                }
                let mut frame = self.partial.split().freeze();
                frame.advance(PREFIX);
                return Ok(Some(Frame::Message(frame)));
            }
            if self.chunk.len() < PREFIX {
                self.fill(PREFIX);
                return Ok(None);
            }
            let len = message_len(&self.chunk)?;
            if self.begin_skip(len) {
                self.chunk.advance(PREFIX);
                continue;
            }
            if self.chunk.len() < PREFIX + len {
                self.fill(PREFIX + len);
                return Ok(None);
            }
            self.chunk.advance(PREFIX);
            return Ok(Some(Frame::Message(self.chunk.split_to(len))));
        }
    }

    /// Whether the stream could end here without cutting a message.
    pub(crate) fn is_between_messages(&self) -> bool {
        self.partial.is_empty() && self.chunk.is_empty() && self.skipping.is_none()
    }

    /// How much is kept of a message that is not complete.
    pub(crate) fn partial_bytes(&self) -> usize {
        self.partial.len()
    }

    /// Moves bytes of the chunk to the partial message until that has `len`.
    fn fill(&mut self, len: usize) {
        let missing = len.saturating_sub(self.partial.len()).min(self.chunk.len());
        self.partial.extend_from_slice(&self.chunk[..missing]);
        self.chunk.advance(missing);
    }

    fn begin_skip(&mut self, len: usize) -> bool {
        if len > self.limit {
            self.skipping = Some(Skip {
                head: Some(BytesMut::new()),
                len,
                left: len,
            });
        }
        len > self.limit
    }

    /// Hands the head out as soon as it is whole, since the rest may never come.
    fn skip(&mut self) -> Option<Frame> {
        let skip = self.skipping.as_mut()?;
        let mut told = None;
        if let Some(head) = &mut skip.head {
            let wanted = (HEAD.min(skip.len) - head.len()).min(self.chunk.len());
            head.extend_from_slice(&self.chunk[..wanted]);
            self.chunk.advance(wanted);
            skip.left -= wanted;
            if head.len() == HEAD.min(skip.len) {
                told = skip.head.take().map(|head| Frame::Oversized {
                    head: head.freeze(),
                    len: skip.len,
                });
            }
        }
        let here = skip.left.min(self.chunk.len());
        self.chunk.advance(here);
        skip.left -= here;
        if skip.left == 0 && skip.head.is_none() {
            self.skipping = None;
        }
        told
    }
}

fn message_len(bytes: &[u8]) -> Result<usize, Status> {
    match bytes {
        [0, a, b, c, d, ..] => Ok(u32::from_be_bytes([*a, *b, *c, *d]) as usize),
        [1, ..] => Err(Status::unimplemented(
            "a compressed message came, and no compression was agreed on",
        )),
        [flag, ..] => Err(Status::internal(format!(
            "a gRPC message begins with the flag {flag}, which is neither 0 nor 1"
        ))),
        [] => Err(Status::internal("an empty prefix")),
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;

    use super::*;

    fn framed(messages: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for message in messages {
            bytes.put_u8(0);
            bytes.put_u32(message.len() as u32);
            bytes.extend_from_slice(message);
        }
        bytes
    }

    fn decode(decoder: &mut Decoder, bytes: &[u8], step: usize) -> Vec<Frame> {
        let mut all = Vec::new();
        for chunk in bytes.chunks(step) {
            decoder.push(Bytes::copy_from_slice(chunk));
            while let Some(incoming) = decoder.next().expect("well-formed") {
                all.push(incoming);
            }
        }
        all
    }

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let long = vec![7; 300];
        let messages: [&[u8]; 5] = [b"a", b"", b"bcd", &long, b""];
        let bytes = framed(&messages);
        for step in 1..=bytes.len() {
            let mut decoder = Decoder::new(300);
            let got = decode(&mut decoder, &bytes, step);
            let expected: Vec<_> = messages
                .iter()
                .map(|m| Frame::Message(Bytes::copy_from_slice(m)))
                .collect();
            assert_eq!(got, expected, "in chunks of {step}");
            assert!(decoder.is_between_messages());
        }
    }

    #[test]
    fn an_oversized_message_is_skipped_and_the_next_one_comes() {
        let long: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let bytes = framed(&[b"a", &long, b"b"]);
        for step in 1..=bytes.len() {
            let got = decode(&mut Decoder::new(999), &bytes, step);
            assert_eq!(got.len(), 3, "in chunks of {step}");
            assert_eq!(
                got[1],
                Frame::Oversized {
                    head: Bytes::copy_from_slice(&long[..HEAD]),
                    len: 1000
                }
            );
            assert_eq!(got[2], Frame::Message(Bytes::from_static(b"b")));
        }
    }

    #[test]
    fn an_oversized_message_is_told_before_it_has_come() {
        let mut decoder = Decoder::new(1000);
        decoder.push(Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff]));
        assert_eq!(decoder.next().expect("legal so far"), None);
        decoder.push(Bytes::from(vec![7; HEAD]));
        let told = Frame::Oversized {
            head: Bytes::from(vec![7; HEAD]),
            len: u32::MAX as usize,
        };
        assert_eq!(decoder.next().expect("legal so far"), Some(told));
        decoder.push(Bytes::from(vec![7; 100_000]));
        assert_eq!(decoder.next().expect("legal so far"), None);
        assert!(!decoder.is_between_messages());
    }

    #[test]
    fn a_small_chunk_does_not_keep_the_buffer_that_it_was_read_into() {
        let buffer = Bytes::from(framed(&[b"abc"]));
        let mut decoder = Decoder::new(100);
        decoder.push(buffer.clone());
        assert!(buffer.is_unique());
        assert_eq!(
            decoder.next().expect("well-formed"),
            Some(Frame::Message(Bytes::from_static(b"abc")))
        );
    }

    #[test]
    fn a_claimed_length_reserves_nothing() {
        let mut decoder = Decoder::new(usize::MAX);
        decoder.push(Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff, 1, 2]));
        assert_eq!(decoder.next().expect("legal so far"), None);
        assert!(decoder.partial.capacity() < 1024);
        assert!(!decoder.is_between_messages());
    }

    #[test]
    fn flags_other_than_zero_are_refused() {
        for (flag, code) in [(1, crate::Code::Unimplemented), (9, crate::Code::Internal)] {
            let mut decoder = Decoder::new(100);
            decoder.push(Bytes::copy_from_slice(&[flag, 0, 0, 0, 0]));
            assert_eq!(decoder.next().expect_err("refused").code(), code);
        }
    }
}
