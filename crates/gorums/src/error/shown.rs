use std::fmt::{self, Write};

/// A text that a peer may have chosen, as it is shown: on one line, and as it is read. Characters
/// that begin another line, move the cursor, or turn the order of those behind them around are
/// escaped as in Rust, so that nobody forges a line of a log.
pub(crate) fn shown(text: &str) -> Shown<'_> {
    Shown(text)
}

/// A [`shown`] text.
pub(crate) struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some((at, char)) = rest.char_indices().find(|(_, char)| misleads(*char)) {
            f.write_str(&rest[..at])?;
            write_shown(f, char)?;
            rest = &rest[at + char.len_utf8()..];
        }
        f.write_str(rest)
    }
}

/// Writes a character as it is shown.
pub(crate) fn write_shown(to: &mut impl Write, char: char) -> fmt::Result {
    if misleads(char) {
        write!(to, "{}", char.escape_default())
    } else {
        to.write_char(char)
    }
}

/// Whether a terminal or an editor shows something else than this character.
fn misleads(char: char) -> bool {
    let separates_lines = matches!(char, '\u{2028}' | '\u{2029}');
    let turns_around = matches!(
        char,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    char.is_control() || separates_lines || turns_around
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_a_line_or_turns_text_around_is_escaped_and_nothing_else_is() {
        for (text, expected) in [
            ("", ""),
            ("größe 👩‍🔧 \\n", "größe 👩‍🔧 \\n"),
            ("one\r\nINFO two", "one\\r\\nINFO two"),
            ("\0\x1b[2J\u{85}", "\\u{0}\\u{1b}[2J\\u{85}"),
            ("a\u{2028}b\u{2029}", "a\\u{2028}b\\u{2029}"),
            ("\u{202e}txt.exe\u{2069}", "\\u{202e}txt.exe\\u{2069}"),
        ] {
            assert_eq!(shown(text).to_string(), expected);
        }
    }
}
