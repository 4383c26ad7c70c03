use std::sync::Arc;

use crate::sync::Mutex;

/// So many bytes tell a protocol; the first nine are the head of HTTP/2's first frame.
const KEPT: usize = 24;

/// The first bytes that came on a connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct FirstBytes(Arc<Mutex<First>>);

#[derive(Debug, Default)]
struct First {
    bytes: Vec<u8>,
    /// The peer has made itself known before them.
    follow_a_handshake: bool,
}

impl FirstBytes {
    /// Adds what was read. False once there are enough.
    pub(super) fn add(&self, bytes: &[u8]) -> bool {
        let kept = &mut self.0.lock().bytes;
        let room = KEPT - kept.len();
        kept.extend(bytes.iter().take(room));
        kept.len() < KEPT
    }

    /// Whether the peer has said nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().bytes.is_empty()
    }

    /// They are what comes behind a handshake, which the peer has made.
    pub(crate) fn are_behind_a_handshake(&self) {
        self.0.lock().follow_a_handshake = true;
    }

    /// Whether the peer has made a handshake before them.
    pub(crate) fn follow_a_handshake(&self) -> bool {
        self.0.lock().follow_a_handshake
    }

    /// Whether they are an alert or a handshake of TLS, of any version. A frame of HTTP/2 that began
    /// so would be larger than there are any.
    pub(crate) fn seem_tls(&self) -> bool {
        matches!(self.0.lock().bytes[..], [0x15 | 0x16, 3, ..])
    }

    /// Whether there are enough to be the head of a frame of HTTP/2.
    pub(crate) fn have_a_head(&self) -> bool {
        self.0.lock().bytes.len() >= 9
    }

    /// What the peer seems to speak, where it cannot be HTTP/2, whose servers begin with their
    /// settings. None where it may be HTTP/2, as far as it is known, or nothing came.
    pub(crate) fn foreign_protocol(&self, max_frame: u32) -> Option<String> {
        if self.seem_tls() {
            return Some("TLS".to_owned());
        }
        let bytes = &self.0.lock().bytes;
        if may_be_http2(bytes, max_frame) {
            return None;
        }
        Some(match &bytes[..] {
            [b'H', b'T', b'T', b'P', b'/', b'0' | b'1', ..] => "HTTP/1".to_owned(),
            [b'S', b'S', b'H', b'-', ..] => "SSH".to_owned(),
            other => format!("something that begins with \"{}\"", other.escape_ascii()),
        })
    }
}

/// Whether these may be the first bytes of a server of HTTP/2, or a part of them.
fn may_be_http2(bytes: &[u8], max_frame: u32) -> bool {
    // Settings come first; a server that forgets that may send pings, goodbyes and windows.
    const OF_THE_CONNECTION: [u8; 4] = [4, 6, 7, 8];

    // What has not come is the least that it may be.
    let length = (0..3).fold(0, |length, at| {
        length << 8 | u32::from(bytes.get(at).copied().unwrap_or_default())
    });
    length <= max_frame
        && bytes.get(3).is_none_or(|kind| OF_THE_CONNECTION.contains(kind))
        // The highest bit of the stream's number means nothing.
        && bytes.get(5).is_none_or(|first| first & 0x7f == 0)
        && bytes.iter().skip(6).take(3).all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u32 = 1 << 20;

    fn seems(bytes: &[u8]) -> Option<String> {
        let first = FirstBytes::default();
        first.add(bytes);
        first.foreign_protocol(MAX)
    }

    #[test]
    fn protocols_are_told_by_their_first_bytes() {
        for (bytes, protocol) in [
            (&[0x15, 3, 1, 0, 2, 2, 40][..], "TLS"),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP/1"),
            (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH"),
            (
                b"220 mail\xff\r\n",
                "something that begins with \"220 mail\\xff\\r\\n\"",
            ),
            (b"+", "something that begins with \"+\""),
            // A frame of DATA, and one on a stream.
            (
                &[0, 0, 1, 0, 0, 0, 0, 0, 1, 7],
                "something that begins with \"\\x00\\x00\\x01\\x00\\x00\\x00\\x00\\x00\\x01\\x07\"",
            ),
            (
                &[0, 0, 0, 4, 0, 0, 0, 0, 1],
                "something that begins with \"\\x00\\x00\\x00\\x04\\x00\\x00\\x00\\x00\\x01\"",
            ),
        ] {
            assert_eq!(seems(bytes).as_deref(), Some(protocol));
        }
    }

    #[test]
    fn what_may_be_http2_is_not_called_anything_else() {
        let settings = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100];
        let goodbye = [0, 0, 8, 7, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];
        for bytes in [&settings[..], &goodbye] {
            for end in 0..=bytes.len() {
                assert_eq!(seems(&bytes[..end]), None, "{:?}", &bytes[..end]);
            }
        }
    }

    #[test]
    fn what_comes_in_pieces_is_put_together_until_there_is_enough() {
        let first = FirstBytes::default();
        first.add(b"");
        assert!(!first.have_a_head());
        for byte in b"SSH-2.0-OpenSSH_9.6 and" {
            assert!(first.add(&[*byte]));
        }
        assert!(!first.add(b"more"));
        assert!(first.have_a_head());
        assert_eq!(first.foreign_protocol(MAX).as_deref(), Some("SSH"));
        assert_eq!(first.0.lock().bytes.len(), KEPT);
    }
}
