//! Commands that come without a prompt: from options, or line by line from a pipe.

use std::fmt;
use std::io::{self, BufRead, Read};

/// The longest line that is taken. No message of that size would be sent either.
const LINE: u64 = 4 * 1024 * 1024;

/// A command to be carried out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Where it came from, for messages.
    pub(super) place: String,
    /// What it says, or what is wrong with it.
    pub(super) text: Result<String, BadLine>,
}

/// Why a line is not a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadLine {
    /// It is not UTF-8.
    Encoding,
    /// It is too long.
    Length,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoding => f.write_str("this is not UTF-8"),
            Self::Length => write!(f, "a line is longer than {LINE} bytes"),
        }
    }
}

impl std::error::Error for BadLine {}

/// The commands of options.
pub(super) fn options(commands: Vec<String>) -> impl Iterator<Item = io::Result<Line>> {
    commands.into_iter().map(|text| {
        let place = format!("{text:?}");
        Ok(Line {
            place,
            text: Ok(text),
        })
    })
}

/// The lines of a pipe, as they come.
pub(super) fn lines(mut pipe: impl BufRead) -> impl Iterator<Item = io::Result<Line>> {
    let mut number = 0;
    std::iter::from_fn(move || {
        let text = line(&mut pipe).transpose()?;
        number += 1;
        Some(text.map(|text| Line {
            place: format!("line {number}"),
            text,
        }))
    })
}

/// The next line without its end; none at the end.
fn line(pipe: &mut impl BufRead) -> io::Result<Option<Result<String, BadLine>>> {
    let mut bytes = Vec::new();
    pipe.by_ref().take(LINE).read_until(b'\n', &mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.ends_with(b"\n") {
        bytes.pop();
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
    } else if bytes.len() as u64 == LINE {
        pipe.skip_until(b'\n')?;
        return Ok(Some(Err(BadLine::Length)));
    }
    Ok(Some(
        String::from_utf8(bytes).map_err(|_| BadLine::Encoding),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(bytes: &[u8]) -> Vec<(String, Result<String, BadLine>)> {
        lines(bytes)
            .map(|line| line.expect("bytes in memory can be read"))
            .map(|line| (line.place, line.text))
            .collect()
    }

    #[test]
    fn lines_come_with_their_numbers_and_without_their_ends() {
        let ok = |number: u32, text: &str| (format!("line {number}"), Ok(text.to_owned()));
        assert_eq!(
            texts(b"nodes\n\nqc read k\r\nlast"),
            [ok(1, "nodes"), ok(2, ""), ok(3, "qc read k"), ok(4, "last")]
        );
        assert_eq!(texts(b""), []);
    }

    #[test]
    fn a_line_that_is_no_text_is_one_mistake_and_the_next_is_read() {
        let lines = texts(b"\xff\xfe\nnodes\n");
        assert_eq!(lines[0].1, Err(BadLine::Encoding));
        assert_eq!(lines[1].1, Ok("nodes".to_owned()));
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_whole() {
        let mut bytes = vec![b'x'; 5 * 1024 * 1024];
        bytes.extend(b"\nnodes\n");
        let lines = texts(&bytes);
        assert_eq!(lines[0].1, Err(BadLine::Length));
        assert_eq!(lines[1].1, Ok("nodes".to_owned()));
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn options_are_named_by_their_text() {
        let mut lines = options(vec!["qc read \"a b\"".to_owned()]);
        let line = lines.next().expect("one").expect("no I/O is done");
        assert_eq!(line.place, r#""qc read \"a b\"""#);
    }
}
