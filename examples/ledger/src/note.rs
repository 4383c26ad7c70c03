//! What a replica keeps.

use storage::disk::Record;

/// The key of the counter.
pub(crate) const COUNT: &str = "count";

/// The key of how many lines the log has.
pub(crate) const LENGTH: &str = "length";

/// What the key of every line begins with. None of the others is behind it.
pub(crate) const LINES: &str = "line/";

/// The key of the line at this position. Their order is that of the positions.
pub(crate) fn line(position: u64) -> String {
    format!("{LINES}{position:020}")
}

/// A number or a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Note {
    /// The counter, or how many lines there are.
    pub number: u64,
    /// A line of the log.
    pub text: String,
}

impl Note {
    /// A note of a number.
    #[must_use]
    pub fn number(number: u64) -> Self {
        let text = String::new();
        Self { number, text }
    }

    /// A note of a line.
    #[must_use]
    pub fn line(text: String) -> Self {
        Self { number: 0, text }
    }
}

impl Record for Note {
    /// The number, and the line.
    type Stored = (u64, &'static str);

    fn size(&self) -> usize {
        size_of::<Self>() + self.text.len()
    }

    /// What is there stays, but for changes that say otherwise.
    fn is_newer_than(&self, known: Option<&Self>) -> bool {
        known.is_none()
    }

    fn stored(&self) -> (u64, &str) {
        (self.number, &self.text)
    }

    fn from_stored((number, text): (u64, &str)) -> Self {
        let text = text.to_owned();
        Self { number, text }
    }
}
