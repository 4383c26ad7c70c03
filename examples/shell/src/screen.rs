//! Where results and messages go.

use std::fmt::{self, Display};
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anstyle::{AnsiColor, Style};

/// Remarks beside a result.
pub const REMARK: Style = Style::new().dimmed();
/// Headings, and what is to be typed.
pub const BOLD: Style = Style::new().bold();
/// What is well.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// What is under way or held up.
pub const HELD: Style = AnsiColor::Yellow.on_default();
/// What is wrong.
pub const BAD: Style = AnsiColor::Red.on_default();

/// Results on one stream, messages on another. Colours come through where the stream is a terminal
/// and the user has not asked for none (`NO_COLOR`).
pub struct Screen {
    results: Box<dyn Write>,
    messages: Box<dyn Write>,
    /// Messages go to a terminal.
    watched: bool,
}

impl Screen {
    /// Standard output and standard error.
    pub fn standard() -> Self {
        Self {
            results: Box::new(anstream::stdout()),
            messages: Box::new(anstream::stderr()),
            watched: io::stderr().is_terminal(),
        }
    }

    /// Shows a result, one or several lines, at once.
    pub fn result(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(self.results, "{text}")?;
        self.results.flush()
    }

    /// Shows a message, one or several lines.
    pub fn message(&mut self, text: impl Display) {
        // There is nobody left to tell that a message cannot be told.
        let _ = writeln!(self.messages, "{text}");
    }

    /// Shows on one line how far something has come, to a person: where messages go to a file, it
    /// says nothing.
    pub fn progress(&mut self, text: impl Display) {
        if self.watched {
            // As for messages.
            let _ = write!(self.messages, "\r{text}\u{1b}[K");
            let _ = self.messages.flush();
        }
    }

    /// Clears that line.
    pub fn end_progress(&mut self) {
        if self.watched {
            let _ = write!(self.messages, "\r\u{1b}[K");
        }
    }

    /// Shows what went wrong, and where, if that is not plain.
    pub fn error(&mut self, place: Option<&str>, text: impl Display) {
        let text = printable(&text.to_string());
        match place {
            None => self.message(format_args!("{BAD}error{BAD:#}: {text}")),
            Some(place) => self.message(format_args!("{BAD}error{BAD:#} in {place}: {text}")),
        }
    }
}

/// Shows messages that come by themselves, at any time and from any task. Clones show them in one
/// place.
#[derive(Clone)]
pub struct Notices(Arc<Mutex<Show>>);

type Show = Box<dyn FnMut(String) + Send>;

impl Notices {
    /// On standard error.
    pub fn standard() -> Self {
        // There is nobody left to tell that a message cannot be told.
        let show = |text| drop(writeln!(anstream::stderr(), "{text}"));
        Self(Arc::new(Mutex::new(Box::new(show))))
    }

    /// Shows them so from now on.
    pub fn redirect(&self, show: impl FnMut(String) + Send + 'static) {
        *self.lock() = Box::new(show);
    }

    /// Shows how far something has come, to a person.
    pub fn progress(&self, text: &str) {
        if io::stderr().is_terminal() {
            self.show(text);
        }
    }

    /// Shows a message.
    pub fn show(&self, text: &str) {
        (self.lock())(printable(text));
    }

    /// Where showing one has panicked, the next may be shown.
    fn lock(&self) -> MutexGuard<'_, Show> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notices").finish_non_exhaustive()
    }
}

/// A key, quoted unless it is a plain word.
pub struct Key<'a>(pub &'a str);

impl Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
        if !self.0.is_empty() && self.0.chars().all(plain) {
            f.write_str(self.0)
        } else {
            write!(f, "{:?}", self.0)
        }
    }
}

/// The same text, without characters that a terminal would obey. Other people's texts are in it.
fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' {
            printable.extend(c.escape_default());
        } else {
            printable.push(c);
        }
    }
    printable
}

/// A table with a heading, its columns as wide as they need to be.
pub struct Table {
    rows: Vec<Vec<(Style, String)>>,
}

impl Table {
    /// A table with these headings.
    pub fn new(headings: &[&str]) -> Self {
        let heading = |text: &&str| (BOLD, (*text).to_owned());
        Self {
            rows: vec![headings.iter().map(heading).collect()],
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = (Style, String)>) {
        let cells = cells.into_iter();
        let row = cells.map(|(style, text)| (style, printable(&text.replace('\n', " "))));
        self.rows.push(row.collect());
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|(_, text)| text.chars().count()).max()
        };
        for (index, row) in self.rows.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            let last = row.iter().rposition(|(_, text)| !text.is_empty());
            for (column, (style, text)) in row.iter().enumerate() {
                write!(f, "{style}{text}{style:#}")?;
                if last.is_none_or(|last| column >= last) {
                    break;
                }
                let padding = width(column).unwrap_or(0) - text.chars().count();
                write!(f, "{:padding$}  ", "")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_quoted_where_they_are_not_plain_words() {
        for (key, shown) in [
            ("greeting", "greeting"),
            ("a/b-c_d.e:1", "a/b-c_d.e:1"),
            ("", "\"\""),
            ("two words", "\"two words\""),
            ("say \"hi\"", "\"say \\\"hi\\\"\""),
            ("\u{1b}[31m", "\"\\u{1b}[31m\""),
            ("nøkkel", "\"nøkkel\""),
        ] {
            assert_eq!(Key(key).to_string(), shown);
        }
    }

    #[test]
    fn terminal_sequences_of_others_are_not_obeyed() {
        assert_eq!(printable("a\u{1b}[2Jb\nc\r"), "a\\u{1b}[2Jb\nc\\r");
    }

    #[test]
    fn columns_are_aligned_and_lines_end_without_spaces() {
        let mut table = Table::new(&["node", "state", "last error"]);
        let plain = Style::new();
        for cells in [["1", "connected", ""], ["10", "x", "it\nbroke"]] {
            table.row(cells.map(|cell| (plain, cell.to_owned())));
        }
        let text = anstream::adapter::strip_str(&table.to_string()).to_string();
        assert_eq!(
            text,
            "node  state      last error\n1     connected\n10    x          it broke"
        );
    }
}
