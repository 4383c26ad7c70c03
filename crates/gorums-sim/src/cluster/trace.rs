use std::fmt;
use std::time::Duration;

/// What happened, as a hash, and where somebody wants to look, as text.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    lines: Option<Vec<String>>,
}

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

impl Trace {
    pub(crate) fn new(keep: bool) -> Self {
        Self {
            hash: OFFSET,
            lines: keep.then(Vec::new),
        }
    }

    /// Numbers that say what happened, and the same for people.
    pub(crate) fn add(&mut self, now: Duration, numbers: &[u64], text: impl FnOnce() -> String) {
        self.mix(now.as_nanos() as u64);
        for number in numbers {
            self.mix(*number);
        }
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>9} us {}", now.as_micros(), text()));
        }
    }

    pub(crate) fn add_text(&mut self, now: Duration, text: &dyn fmt::Display) {
        let text = text.to_string();
        self.mix(now.as_nanos() as u64);
        for byte in text.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(PRIME);
        }
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>9} us {text}", now.as_micros()));
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn take_lines(&mut self) -> Vec<String> {
        self.lines.take().unwrap_or_default()
    }

    /// FNV-1a by words, with the high bits stirred into the low ones.
    fn mix(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(PRIME);
        self.hash ^= self.hash >> 32;
    }
}
