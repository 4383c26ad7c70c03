use bytes::Bytes;

use super::input::{Cuts, Input};
use crate::wire::{Decoder, Frame, PREFIX};

/// Bytes of a stream in chunks of any lengths: the messages are those that the bytes say, wherever
/// they are cut, and no more is kept than one of them.
pub fn frames(input: &[u8]) {
    let mut input = Input(input);
    let limit = input.one_of(&[0, 1, 7, 255, 256, 257, 300, 5_000, usize::MAX]);
    let is_long = input.below(4) == 3;
    let cuts = Cuts::read(&mut input);
    let rest = input.rest();
    let times = match is_long {
        // More than the chunk that is copied.
        true => 9_000 / rest.len().max(1) + 1,
        false => 1,
    };
    let bytes = rest.repeat(times);

    let expected = read_whole(&bytes, limit);
    let mut decoder = Decoder::new(limit);
    let mut found = Found::default();
    'chunks: for chunk in cuts.of(&bytes) {
        decoder.push(Bytes::copy_from_slice(chunk));
        loop {
            match decoder.next() {
                Ok(Some(frame)) => found.frames.push(frame),
                Ok(None) => break,
                Err(_) => {
                    found.is_broken = true;
                    break 'chunks;
                }
            }
            assert!(decoder.partial_bytes() <= limit.saturating_add(PREFIX));
        }
        assert!(decoder.partial_bytes() <= limit.saturating_add(PREFIX));
    }
    found.is_cut = !found.is_broken && !decoder.is_between_messages();
    assert_eq!(found, expected);
}

/// What a stream says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    frames: Vec<Frame>,
    /// There is a prefix that is none.
    is_broken: bool,
    /// It ends within a message.
    is_cut: bool,
}

/// How much is told of a message that is too large.
const HEAD: usize = 256;

fn read_whole(mut bytes: &[u8], limit: usize) -> Found {
    let mut found = Found::default();
    while !bytes.is_empty() {
        let Some((prefix, rest)) = bytes.split_at_checked(PREFIX) else {
            found.is_cut = true;
            break;
        };
        if prefix[0] != 0 {
            found.is_broken = true;
            break;
        }
        let len = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        let frame = if len > limit {
            let head = rest.get(..len.min(HEAD));
            head.map(|head| Frame::Oversized {
                head: Bytes::copy_from_slice(head),
                len,
            })
        } else {
            let message = rest.get(..len);
            message.map(|message| Frame::Message(Bytes::copy_from_slice(message)))
        };
        found.frames.extend(frame);
        let Some(behind) = rest.get(len..) else {
            found.is_cut = true;
            break;
        };
        bytes = behind;
    }
    found
}
