//! Where results and messages go.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anstyle::{AnsiColor, Style};
use textwrap::core::display_width;

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
    /// How many columns results may have, where they go to a terminal.
    columns: fn() -> Option<usize>,
    messages: Box<dyn Write>,
    /// Messages go to a terminal.
    watched: bool,
}

impl Screen {
    /// Standard output and standard error.
    pub fn standard() -> Self {
        Self {
            results: Box::new(anstream::stdout()),
            columns: || {
                let (width, _) = terminal_size::terminal_size_of(io::stdout())?;
                Some(usize::from(width.0).max(1))
            },
            messages: Box::new(anstream::stderr()),
            watched: io::stderr().is_terminal(),
        }
    }

    /// Shows a result, one or several lines, at once.
    pub fn result(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(self.results, "{text}")?;
        self.results.flush()
    }

    /// Shows a table, whose rows are cut to the width of the terminal.
    pub fn table(&mut self, table: Table) -> io::Result<()> {
        let table = match (self.columns)() {
            Some(columns) => table.cut_to(columns),
            None => table,
        };
        self.result(table)
    }

    /// Shows a text whose lines are broken between words where the terminal is narrower.
    pub fn text(&mut self, text: impl Display) -> io::Result<()> {
        match (self.columns)() {
            Some(columns) => self.result(broken(&text.to_string(), columns)),
            None => self.result(text),
        }
    }

    /// Clears the terminal that results go to.
    pub fn clear(&mut self) -> io::Result<()> {
        if (self.columns)().is_some() {
            write!(io::stdout(), "\u{1b}[H\u{1b}[2J")?;
            io::stdout().flush()?;
        }
        Ok(())
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

/// The same text, in lines of so many columns at most. What follows of a line begins where its text
/// did, or the text of its second column.
fn broken(text: &str, columns: usize) -> String {
    let lines = text.lines().flat_map(|line| {
        let plain = anstream::adapter::strip_str(line).to_string();
        let spaces = plain.len() - plain.trim_start().len();
        let second = plain.trim_start().find("  ").map(|gap| {
            let rest = &plain[spaces + gap..];
            plain.len() - rest.trim_start().len()
        });
        let indent = second.filter(|second| second * 2 <= columns);
        // No word would have room behind it.
        let indent = indent.unwrap_or(spaces).min(columns / 2);
        let indent = " ".repeat(indent);
        let options = textwrap::Options::new(columns).subsequent_indent(&indent);
        let lines = textwrap::wrap(line, options);
        lines.into_iter().map(String::from).collect::<Vec<_>>()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The text, or as much of its beginning as fits so many columns with a sign that there is more.
fn cut(text: &str, columns: usize) -> Cow<'_, str> {
    if display_width(text) <= columns {
        return text.into();
    }
    let mut width = 1;
    let fits = |&(_, c): &(usize, char)| {
        width += display_width(c.encode_utf8(&mut [0; 4]));
        width <= columns
    };
    let end = text.char_indices().take_while(fits).last();
    let end = end.map_or(0, |(place, c)| place + c.len_utf8());
    format!("{}…", text[..end].trim_end()).into()
}

/// A table with a heading, its columns as wide as they need to be.
pub struct Table {
    rows: Vec<Vec<(Style, String)>>,
    /// How many columns of a terminal each row may take.
    columns: usize,
}

impl Table {
    /// A table with these headings.
    pub fn new(headings: &[&str]) -> Self {
        let heading = |text: &&str| (BOLD, (*text).to_owned());
        Self {
            rows: vec![headings.iter().map(heading).collect()],
            columns: usize::MAX,
        }
    }

    /// The same table, for a terminal with so many columns: what has no room is left out.
    #[must_use]
    pub fn cut_to(self, columns: usize) -> Self {
        Self { columns, ..self }
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
            cells.map(|(_, text)| display_width(text)).max()
        };
        for (index, row) in self.rows.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            let last = row.iter().rposition(|(_, text)| !text.is_empty());
            let mut room = self.columns;
            for (column, (style, text)) in row.iter().enumerate() {
                write!(f, "{style}{}{style:#}", cut(text, room))?;
                let taken = width(column).unwrap_or(0) + 2;
                if last.is_none_or(|last| column >= last) || room <= taken {
                    break;
                }
                room -= taken;
                let padding = taken - display_width(text);
                write!(f, "{:padding$}", "")?;
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
    fn a_table_is_cut_to_the_terminal() {
        let mut table = Table::new(&["node", "last error"]);
        let plain = Style::new();
        for (id, error) in [
            ("1", ""),
            ("2", "unavailable: no connection"),
            ("3", "é世界界"),
        ] {
            table.row([(plain, id.to_owned()), (plain, error.to_owned())]);
        }
        let lines = |table: &Table| {
            let text = anstream::adapter::strip_str(&table.to_string()).to_string();
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let mut table = table.cut_to(32);
        let error = "2     unavailable: no connection";
        assert_eq!(lines(&table)[2], error);
        for (columns, expected) in [
            (31, "2     unavailable: no connecti…"),
            (20, "2     unavailable:…"),
            (7, "2     …"),
            (6, "2"),
        ] {
            table = table.cut_to(columns);
            let lines = lines(&table);
            assert_eq!(lines[2].trim_end(), expected, "{columns}");
            for line in lines {
                assert!(display_width(&line) <= columns, "{columns}: {line:?}");
            }
        }
        assert_eq!(lines(&table.cut_to(10))[3], "3     é世…");
    }

    #[test]
    fn a_text_is_broken_between_words() {
        let text = format!("{BOLD}stop N{BOLD:#}  stop a replica at once\n\nnone");
        let text = broken(&text, 22);
        let text = anstream::adapter::strip_str(&text).to_string();
        assert_eq!(text, "stop N  stop a replica\n        at once\n\nnone");
        assert_eq!(broken("  as it is", 80), "  as it is");
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
