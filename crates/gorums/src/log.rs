//! What the log says: the names that events have, how many of them there may be, and how a peer is
//! named in them.
//!
//! Targets, messages and fields are for users to filter by and to alert on. docs/observability.md
//! lists them all, and `cargo xtask check events` compares the page with the code.

use std::any::Any;
use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::write_shown;
use crate::node_id::NodeId;
use crate::sync::Mutex;

/// The connections that this process makes.
pub(crate) const CLIENT: &str = "gorums::client";

/// The certificates that it shows, and by which it knows others.
#[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "nobody has any"))]
pub(crate) const TLS: &str = "gorums::tls";

/// The connections that it accepts.
pub(crate) const SERVER: &str = "gorums::server";

/// The handlers that it runs.
pub(crate) const HANDLER: &str = "gorums::handler";

/// The calls that it makes.
pub(crate) const CALL: &str = "gorums::call";

/// The nodes that come and go.
pub(crate) const MEMBERSHIP: &str = "gorums::membership";

/// An event of one of two levels: `event!(told => info or debug, target: …, …)`.
macro_rules! event {
    ($first:expr => $level:ident or $other:ident, $($rest:tt)*) => {
        if $first {
            tracing::$level!($($rest)*);
        } else {
            tracing::$other!($($rest)*);
        }
    };
}

pub(crate) use event;

/// How many lines of a kind there are at most in a [`WINDOW`].
pub(crate) const LINES: u32 = 10;

/// Begins with the first line.
pub(crate) const WINDOW: Duration = Duration::from_secs(10);

/// Keeps a log from being filled by whoever can make events happen: the first few of a while are
/// told, and the others are debug events, which the next one that is told has counted.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<State>);

#[derive(Default)]
struct State {
    began: Option<Instant>,
    /// Lines since then.
    lines: u32,
    left_out: u64,
}

/// Whether an event is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Admission {
    pub(crate) is_told: bool,
    /// How many before it were not, where any were.
    pub(crate) left_out: Option<u64>,
}

impl Throttle {
    /// An event happens.
    pub(crate) fn admit(&self, now: Instant) -> Admission {
        let mut state = self.0.lock();
        let is_over = |began| now.saturating_duration_since(began) >= WINDOW;
        if state.began.is_none_or(is_over) {
            state.began = Some(now);
            state.lines = 0;
        }
        let is_told = state.lines < LINES;
        let mut left_out = None;
        if is_told {
            state.lines += 1;
            left_out = Some(std::mem::take(&mut state.left_out)).filter(|left_out| *left_out > 0);
        } else {
            state.left_out += 1;
        }
        Admission { is_told, left_out }
    }
}

/// The other end of a connection, as events name it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Peer {
    pub(crate) address: Option<SocketAddr>,
    /// The node that it is, where that is known.
    pub(crate) id: Option<NodeId>,
    /// It is this very process.
    pub(crate) is_own: bool,
}

impl Peer {
    /// The node that it is, as a field of an event.
    pub(crate) fn node(&self) -> Option<u32> {
        self.id.map(NodeId::get)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.address, self.id) {
            (Some(address), _) => address.fmt(f),
            _ if self.is_own => f.write_str("this process"),
            (None, Some(id)) => write!(f, "node {id}"),
            (None, None) => f.write_str("unknown"),
        }
    }
}

/// How many characters a text has at most that somebody else may have chosen.
pub(crate) const CHARS: usize = 256;

/// An error, say, on one line of the log and no longer than a line should be: a peer may have put
/// into it what it likes.
pub(crate) fn text<T: fmt::Display>(of: T) -> Text<T> {
    Text(of)
}

/// A [`text`].
pub(crate) struct Text<T>(T);

impl<T: fmt::Display> fmt::Display for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = CHARS + 1;
        write!(Line { to: f, left }, "{}", self.0)
    }
}

/// Takes what is written, and hands on as much as there may be.
struct Line<'a, 'b> {
    to: &'a mut fmt::Formatter<'b>,
    left: usize,
}

impl fmt::Write for Line<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            match self.left {
                0 => return Ok(()),
                1 => self.to.write_char('…')?,
                _ => write_shown(self.to, char)?,
            }
            self.left -= 1;
        }
        Ok(())
    }
}

/// A duration as events have it.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What somebody panicked with.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_has_ten_lines_in_ten_seconds_and_the_next_line_counts_what_was_left_out() {
        let throttle = Throttle::default();
        let begin = Instant::now();
        let mut told = Vec::new();
        for tenth in 0..=250 {
            let at = Duration::from_millis(100) * tenth;
            let admission = throttle.admit(begin + at);
            if admission.is_told {
                told.push((tenth, admission.left_out));
            } else {
                assert_eq!(admission.left_out, None);
            }
        }
        let window = |begin: u32, left_out: Option<u64>| {
            (begin..begin + 10).map(move |tenth| (tenth, left_out.filter(|_| tenth == begin)))
        };
        let expected = window(0, None)
            .chain(window(100, Some(90)))
            .chain(window(200, Some(90)));
        assert_eq!(told, expected.collect::<Vec<_>>());
    }

    #[test]
    fn a_text_is_one_line_of_so_many_characters_at_most() {
        let longest = "ö".repeat(CHARS);
        for whole in ["", "short", &longest] {
            assert_eq!(text(whole).to_string(), whole);
        }
        let long = format!("{longest}x");
        assert_eq!(text(long).to_string(), format!("{longest}…"));
        let lines = text("one\nINFO two\x1b[2J").to_string();
        assert_eq!(lines, "one\\nINFO two\\u{1b}[2J");
    }

    #[test]
    fn a_peer_is_named_by_what_is_known_of_it() {
        let nobody = Peer::default();
        let id = Some(NodeId::from(3));
        let address = Some(([127, 0, 0, 1], 80).into());
        let own = Peer {
            id,
            is_own: true,
            ..nobody
        };
        let node = Peer { id, ..nobody };
        let named = Peer { address, ..node };
        let names = [nobody, own, node, named].map(|peer| peer.to_string());
        assert_eq!(names, ["unknown", "this process", "node 3", "127.0.0.1:80"]);
        assert_eq!(named.node(), Some(3));
    }
}
