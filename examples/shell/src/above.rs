//! Shows texts above the line that is being typed.
//!
//! The editor could do that itself, if its newest release that our oldest supported compiler builds
//! did not wait for a key whenever it has read some ahead. So the terminal does it: it moves the
//! line down by one row and gets the text in its place, all of it in one write.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use textwrap::core::display_width;

/// How many texts may wait for the end of a long line. Of more the oldest are left out.
const WAITING: usize = 100;

/// Where texts are shown. Clones are one place.
#[derive(Debug, Clone)]
pub(super) struct Above {
    state: Arc<Mutex<State>>,
    /// The terminal does what it is told by sequences of characters.
    obeys: bool,
}

#[derive(Debug, Default)]
struct State {
    /// The line has several rows, and it is not known in which of them the cursor is.
    long: bool,
    waiting: VecDeque<String>,
    /// How many were left out.
    lost: usize,
}

impl Above {
    pub(super) fn new() -> Self {
        // As the editor sees it.
        let plain = |term: String| ["dumb", "cons25", "emacs"].contains(&term.as_str());
        Self {
            state: Arc::default(),
            obeys: io::stdout().is_terminal() && !std::env::var("TERM").is_ok_and(plain),
        }
    }

    /// Shows a text above the row with the cursor, or after the line if that has several.
    pub(super) fn show(&self, text: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.obeys {
            // There is nobody left to tell that a message cannot be told.
            let _ = writeln!(io::stderr(), "{text}");
        } else if state.long {
            if state.waiting.len() == WAITING {
                state.waiting.pop_front();
                state.lost += 1;
            }
            state.waiting.push_back(text.to_owned());
        } else {
            write(&rows(text, columns()));
        }
    }

    /// The line has become this, its parts one after the other.
    pub(super) fn set_line(&self, parts: &[&str]) {
        let width: usize = parts.iter().map(|part| display_width(part)).sum();
        let rows = parts.iter().any(|part| part.contains('\n'));
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.long = rows || width >= columns();
    }

    /// There is no line any more.
    pub(super) fn end_line(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State {
            waiting,
            lost,
            long,
        } = std::mem::take(&mut *state);
        debug_assert!(long || waiting.is_empty(), "only a long line is waited for");
        let columns = columns();
        if lost > 0 {
            write(&rows(&format!("… {lost} more"), columns));
        }
        for text in waiting {
            write(&rows(&text, columns));
        }
    }
}

fn columns() -> usize {
    let size = terminal_size::terminal_size_of(io::stdout());
    size.map_or(80, |(width, _)| usize::from(width.0).max(1))
}

/// What makes a terminal insert this text above the row with the cursor.
fn rows(text: &str, columns: usize) -> String {
    let mut sequence = String::new();
    for row in textwrap::wrap(text, columns) {
        // A row down and up again, so that there is one below to move the line to; then the place
        // of the cursor is kept, a row inserted and written, and the cursor moved down to where the
        // line is now.
        sequence.push_str("\u{1b}D\u{1b}M\u{1b}7\r\u{1b}[L");
        sequence.push_str(&row);
        sequence.push_str("\u{1b}8\u{1b}[B");
    }
    sequence
}

fn write(sequence: &str) {
    let mut out = io::stdout().lock();
    // There is nobody left to tell that a message cannot be told.
    let _ = out.write_all(sequence.as_bytes());
    let _ = out.flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_of_a_text_is_inserted_and_none_is_wider_than_the_terminal() {
        let shown = rows("replica 2 has ended; \"start 2\" starts it", 24);
        let rows: Vec<_> = shown
            .split("\u{1b}D\u{1b}M\u{1b}7\r\u{1b}[L")
            .skip(1)
            .map(|row| row.strip_suffix("\u{1b}8\u{1b}[B").expect("the way back"))
            .collect();
        assert_eq!(rows, ["replica 2 has ended;", "\"start 2\" starts it"]);
    }
}
