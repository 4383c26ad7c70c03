//! The text of a `.proto` file, in the form that the parser takes.
//!
//! The parser knows proto2 and proto3. What it lacks is put in its words first: editions, and a few
//! things of the older languages. Every column is known again afterwards, so messages and
//! descriptors have the places of the file as it is on disk.

use prost_types::FileDescriptorProto;

/// The option that stands for `default` in a file of an edition, which is parsed as proto3, where
/// the parser refuses it.
pub(crate) const DEFAULT: &str = "default_";

/// Files that only declare features of other languages, which are ignored.
const FEATURES_OF_LANGUAGES: [&str; 3] = [
    "google/protobuf/cpp_features.proto",
    "google/protobuf/go_features.proto",
    "google/protobuf/java_features.proto",
];

/// Whether a file only declares features of other languages.
pub(crate) fn declares_features(file: &str) -> bool {
    FEATURES_OF_LANGUAGES.contains(&file)
}

/// A source text and what was changed in it.
#[derive(Debug)]
pub(crate) struct Source {
    /// For the parser.
    pub(crate) text: String,
    /// The `edition = "…"` that the file begins with.
    pub(crate) edition: Option<EditionStatement>,
    /// What was made longer, in order.
    insertions: Vec<Insertion>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EditionStatement {
    pub(crate) name: String,
    /// Line and column, counted from 1.
    pub(crate) start: (u32, u32),
}

/// Why a source is not even given to the parser, and where: line and column, counted from 1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) message: String,
    pub(crate) help: String,
    pub(crate) start: (u32, u32),
}

/// Columns that the file on disk does not have. Lines and columns are counted from 0, in bytes.
#[derive(Debug)]
struct Insertion {
    line: usize,
    column: usize,
    length: usize,
}

impl Source {
    /// Rewrites a file for the parser.
    pub(crate) fn new(bytes: &[u8]) -> Result<Self, Refused> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let (text, not_utf8) = readable(bytes);
        let tokens = tokens(&text);
        if let Some(token) = tokens.iter().find(|token| {
            let end = token.start + token.text.len();
            not_utf8.iter().any(|at| (token.start..end).contains(at))
        }) {
            return Err(Refused {
                message: "the text is not UTF-8".to_owned(),
                help: "save the file as UTF-8: only in comments are other bytes ignored".to_owned(),
                start: place(&text, token.start),
            });
        }
        if let Some(refused) = refused_import(&text, &tokens) {
            return Err(refused);
        }
        let edition = edition_of(&text, &tokens);
        let mut edits = Edits::default();
        edits.find(&tokens, edition.is_some());
        let (text, insertions) = edits.apply(&text);
        Ok(Self {
            text,
            edition,
            insertions,
        })
    }

    /// The column in the file on disk. Lines stay; both count from 0.
    pub(crate) fn column_on_disk(&self, line: usize, column: usize) -> usize {
        let before: usize = self
            .insertions
            .iter()
            .filter(|insertion| insertion.line == line)
            .map(|insertion| {
                column
                    .saturating_sub(insertion.column)
                    .min(insertion.length)
            })
            .sum();
        column - before
    }

    /// Gives all positions in a parsed file the columns of the file on disk.
    pub(crate) fn restore_columns(&self, file: &mut FileDescriptorProto) {
        if self.insertions.is_empty() {
            return;
        }
        let on_disk =
            |line: i32, column: i32| match (usize::try_from(line), usize::try_from(column)) {
                (Ok(line), Ok(at)) => {
                    i32::try_from(self.column_on_disk(line, at)).unwrap_or(column)
                }
                _ => column,
            };
        let locations = file
            .source_code_info
            .iter_mut()
            .flat_map(|info| &mut info.location);
        for location in locations {
            match location.span.as_mut_slice() {
                [line, start, end] => {
                    *start = on_disk(*line, *start);
                    *end = on_disk(*line, *end);
                }
                [first, start, last, end] => {
                    *start = on_disk(*first, *start);
                    *end = on_disk(*last, *end);
                }
                _ => {}
            }
        }
    }

    /// The end of the text: line and column, counted from 1.
    pub(crate) fn end(&self) -> (u32, u32) {
        let end = self.text.trim_end().len();
        place(&self.text, end)
    }
}

/// Puts `?` for each byte that is not UTF-8, and says where they were.
fn readable(bytes: &[u8]) -> (String, Vec<usize>) {
    let mut text = String::with_capacity(bytes.len());
    let mut not_utf8 = Vec::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for _ in chunk.invalid() {
            not_utf8.push(text.len());
            text.push('?');
        }
    }
    (text, not_utf8)
}

/// Line and column of a byte, counted from 1.
fn place(text: &str, at: usize) -> (u32, u32) {
    let before = &text.as_bytes()[..at];
    let line_start = before
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |newline| newline + 1);
    let lines = before.iter().filter(|byte| **byte == b'\n').count();
    let count = |n: usize| u32::try_from(n + 1).unwrap_or(u32::MAX);
    (count(lines), count(at - line_start))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Word,
    Number,
    /// A string with its quotes.
    Text,
    Sign,
}

#[derive(Debug, Clone, Copy)]
struct Token<'a> {
    kind: Kind,
    text: &'a str,
    start: usize,
}

impl Token<'_> {
    /// The contents of a string, with escapes as they are.
    fn unquoted(&self) -> &str {
        self.text.trim_matches(['"', '\''])
    }
}

/// Splits a source into tokens, and drops blanks and comments. Any text has tokens; whether they
/// make sense is left to the parser.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut start = 0;
    while let Some(first) = text[start..].chars().next() {
        let rest = &text[start..];
        let to_line_end = || rest.find('\n').unwrap_or(rest.len());
        let while_in = |is_in: fn(char) -> bool| rest.find(|c| !is_in(c)).unwrap_or(rest.len());
        let (kind, length) = match first {
            '/' if rest.starts_with("//") => (None, to_line_end()),
            '/' if rest.starts_with("/*") => {
                (None, rest.find("*/").map_or(rest.len(), |at| at + 2))
            }
            '#' => (None, to_line_end()),
            '"' | '\'' => (Some(Kind::Text), text_length(rest, first)),
            'a'..='z' | 'A'..='Z' | '_' => (
                Some(Kind::Word),
                while_in(|c| c.is_ascii_alphanumeric() || c == '_'),
            ),
            '0'..='9' => (
                Some(Kind::Number),
                while_in(|c| c.is_ascii_alphanumeric() || c == '.'),
            ),
            blank if blank.is_whitespace() => (None, blank.len_utf8()),
            sign => (Some(Kind::Sign), sign.len_utf8()),
        };
        if let Some(kind) = kind {
            tokens.push(Token {
                kind,
                text: &rest[..length],
                start,
            });
        }
        start += length;
    }
    tokens
}

/// The length of a string with its quotes. One that is not closed ends with its line.
fn text_length(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            '\n' => return at,
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Whether a statement may begin at a token.
fn begins_statement(tokens: &[Token<'_>], at: usize) -> bool {
    at == 0 || matches!(tokens[at - 1].text, ";" | "{" | "}")
}

fn is(tokens: &[Token<'_>], at: usize, text: &str) -> bool {
    tokens.get(at).is_some_and(|token| token.text == text)
}

fn has_kind(tokens: &[Token<'_>], at: usize, kind: Kind) -> bool {
    tokens.get(at).is_some_and(|token| token.kind == kind)
}

fn edition_of(text: &str, tokens: &[Token<'_>]) -> Option<EditionStatement> {
    if !is(tokens, 0, "edition") || !is(tokens, 1, "=") {
        return None;
    }
    let name = match tokens.get(2) {
        Some(token) if token.kind == Kind::Text => token.unquoted().to_owned(),
        _ => String::new(),
    };
    Some(EditionStatement {
        name,
        start: place(text, tokens[0].start),
    })
}

/// The token with the path of the import that begins at another.
fn imported<'a>(tokens: &[Token<'a>], at: usize) -> Option<Token<'a>> {
    if !is(tokens, at, "import") || !begins_statement(tokens, at) {
        return None;
    }
    let word = usize::from(has_kind(tokens, at + 1, Kind::Word));
    tokens
        .get(at + 1 + word)
        .filter(|token| token.kind == Kind::Text)
        .copied()
}

/// The parser calls a path like `./b.proto` an invalid name of a group.
fn refused_import(text: &str, tokens: &[Token<'_>]) -> Option<Refused> {
    let refused = |path: &str| {
        path.contains('\\') || path.split('/').any(|part| matches!(part, "" | "." | ".."))
    };
    let import = (0..tokens.len())
        .filter_map(|at| imported(tokens, at))
        .find(|import| refused(import.unquoted()))?;
    Some(Refused {
        message: format!(
            "the path of the import {} is not one that protobuf takes",
            import.text
        ),
        help: "write it as it is from one of the include folders, with `/` between names and without `.`, `..` and `\\`".to_owned(),
        start: place(text, import.start),
    })
}

/// What is changed in a source, in order.
#[derive(Debug, Default)]
struct Edits {
    edits: Vec<Edit>,
}

/// Puts other text in the place of a part of one line.
#[derive(Debug)]
struct Edit {
    start: usize,
    length: usize,
    replacement: String,
}

impl Edits {
    fn find(&mut self, tokens: &[Token<'_>], in_edition: bool) {
        for at in 0..tokens.len() {
            let token = tokens[at];
            let begins = begins_statement(tokens, at);
            match token.text {
                "edition" if in_edition && at == 0 => {
                    self.replace(token, "syntax");
                    if has_kind(tokens, 2, Kind::Text) {
                        self.replace(tokens[2], "\"proto3\"");
                    }
                }
                "import" if begins => self.import(tokens, at),
                // Without quotes since editions.
                "reserved" if in_edition && begins => {
                    for name in tokens[at + 1..]
                        .iter()
                        .take_while(|token| token.text != ";")
                    {
                        let part_of_range = matches!(name.text, "to" | "max");
                        let of_numbers =
                            has_kind(tokens, at + 1, Kind::Number) || is(tokens, at + 1, "-");
                        if name.kind == Kind::Word && !(part_of_range && of_numbers) {
                            self.replace(*name, &format!("\"{}\"", name.text));
                        }
                    }
                }
                // Who may import a declaration is no concern of the generated code.
                "export" | "local"
                    if in_edition
                        && begins
                        && (is(tokens, at + 1, "message") || is(tokens, at + 1, "enum"))
                        && has_kind(tokens, at + 2, Kind::Word) =>
                {
                    self.replace(token, "");
                }
                "default"
                    if in_edition
                        && at > 0
                        && matches!(tokens[at - 1].text, "[" | ",")
                        && is(tokens, at + 1, "=") =>
                {
                    self.replace(token, DEFAULT);
                }
                // The parser wants a range before options.
                "extensions" if begins => self.extension_range(tokens, at),
                // The parser takes these as defaults, and not as other options.
                "inf" | "nan"
                    if at > 2
                        && tokens[at - 1].text == "-"
                        && tokens[at - 2].text == "="
                        && (in_edition || tokens[at - 3].text != "default") =>
                {
                    if token.text == "inf" {
                        self.replace(token, "1e999");
                    } else {
                        self.replace(tokens[at - 1], "");
                    }
                }
                _ => {}
            }
        }
    }

    fn import(&mut self, tokens: &[Token<'_>], at: usize) {
        let Some(path) = imported(tokens, at) else {
            return;
        };
        if declares_features(path.unquoted()) {
            let statement = tokens[at..].iter();
            for token in statement.take_while(|token| token.text != ";") {
                self.replace(*token, "");
            }
        } else if is(tokens, at + 1, "option") {
            self.replace(tokens[at + 1], "");
        }
    }

    fn extension_range(&mut self, tokens: &[Token<'_>], at: usize) {
        let Some(options) = (at + 1..tokens.len()).find(|at| matches!(tokens[*at].text, "[" | ";"))
        else {
            return;
        };
        let last = tokens[options - 1];
        if tokens[options].text == "["
            && last.kind == Kind::Number
            && tokens[options - 2].text != "to"
        {
            self.replace(last, &format!("{0} to {0}", last.text));
        }
    }

    fn replace(&mut self, token: Token<'_>, with: &str) {
        self.edits.push(Edit {
            start: token.start,
            length: token.text.len(),
            replacement: format!("{with:length$}", length = token.text.len()),
        });
    }

    fn apply(mut self, text: &str) -> (String, Vec<Insertion>) {
        self.edits.sort_by_key(|edit| edit.start);
        let mut rewritten = String::with_capacity(text.len());
        let mut insertions = Vec::new();
        let mut done = 0;
        let mut lines = 0;
        for edit in self.edits {
            rewritten.push_str(&text[done..edit.start]);
            lines += text[done..edit.start].matches('\n').count();
            let line_start = rewritten.rfind('\n').map_or(0, |newline| newline + 1);
            let length = edit.replacement.len() - edit.length;
            if length > 0 {
                insertions.push(Insertion {
                    line: lines,
                    column: rewritten.len() - line_start + edit.length,
                    length,
                });
            }
            rewritten.push_str(&edit.replacement);
            done = edit.start + edit.length;
        }
        rewritten.push_str(&text[done..]);
        (rewritten, insertions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(text: &str) -> String {
        Source::new(text.as_bytes()).expect("readable").text
    }

    #[test]
    fn an_edition_is_found_behind_comments() {
        let source = Source::new(b"/* a\n b */ // c\n  edition /* d */ = '2024';\n").expect("text");
        let edition = source.edition.expect("the file begins with an edition");
        assert_eq!((edition.name.as_str(), edition.start), ("2024", (3, 3)));
    }

    #[test]
    fn a_file_with_a_syntax_or_neither_has_no_edition() {
        for source in [
            "syntax = \"proto3\";",
            "message edition { }",
            "edition_of_a_book",
            "// edition = \"2023\"",
            "",
        ] {
            let parsed = Source::new(source.as_bytes()).expect("text");
            assert_eq!(parsed.edition, None, "{source}");
            assert_eq!(parsed.text, source);
        }
    }

    #[test]
    fn what_the_parser_lacks_is_put_in_its_words() {
        for (text, expected) in [
            ("edition = \"2023\";", "syntax  = \"proto3\";"),
            (
                "edition='2023';reserved a, to;",
                "syntax ='proto3';reserved \"a\", \"to\";"
                    .replace('\'', "\"")
                    .as_str(),
            ),
            (
                "edition='2023';reserved 2 to max;",
                "syntax =\"proto3\";reserved 2 to max;",
            ),
            (
                "edition='2024';import option 'a.proto';",
                "syntax =\"proto3\";import        'a.proto';",
            ),
            (
                "edition='2024';local message M { }",
                "syntax =\"proto3\";      message M { }",
            ),
            (
                "edition='2024';message M { local message = 1; }",
                "syntax =\"proto3\";message M { local message = 1; }",
            ),
            (
                "edition='2023';int32 a = 1 [default = 3];",
                "syntax =\"proto3\";int32 a = 1 [default_ = 3];",
            ),
            (
                "edition='2023';import 'google/protobuf/go_features.proto';",
                "syntax =\"proto3\";                                          ;",
            ),
            (
                "extensions 1 to 4, 7 [a = 1];",
                "extensions 1 to 4, 7 to 7 [a = 1];",
            ),
            (
                "extensions 1 to 4 [a = 1]; extensions 5;",
                "extensions 1 to 4 [a = 1]; extensions 5;",
            ),
            (
                "option (d) = -inf; option (e) = - nan;",
                "option (d) = -1e999; option (e) =   nan;",
            ),
            ("[default = -inf]", "[default = -inf]"),
            (
                "option (d) = '= -inf'; // = -inf",
                "option (d) = '= -inf'; // = -inf",
            ),
            (
                "reserved 'a'; local message M { }",
                "reserved 'a'; local message M { }",
            ),
        ] {
            assert_eq!(rewritten(text), expected, "{text}");
        }
    }

    #[test]
    fn columns_are_those_on_disk() {
        let text = "edition = '2023';\nmessage M { reserved a, b; int32 c = 4; }";
        let source = Source::new(text.as_bytes()).expect("text");
        for (line, text) in text.lines().enumerate() {
            let rewritten = source.text.lines().nth(line).expect("lines stay");
            for word in ["=", "2023", "proto3", ";", "reserved", "a", "b", "c", "}"] {
                if let (Some(before), Some(after)) = (text.find(word), rewritten.find(word)) {
                    let found = source.column_on_disk(line, after);
                    // A quote was put before the names, and its column is theirs.
                    assert!(
                        found == before || found == before + 1,
                        "{word}: {found}, not {before}"
                    );
                }
            }
            assert_eq!(source.column_on_disk(line, rewritten.len()), text.len());
        }
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_ignored_in_comments_only() {
        assert_eq!(
            Source::new(b"a; // caf\xe9\nb").expect("text").text,
            "a; // caf?\nb"
        );
        let refused = Source::new(b"a;\n'caf\xe9'").expect_err("in a string");
        assert_eq!(refused.start, (2, 1));
    }

    #[test]
    fn any_bytes_are_taken() {
        for text in [
            "'",
            "\"\\",
            "/*",
            "import",
            "import '",
            "extensions",
            "extensions [",
            "reserved",
            "=-inf",
            "- inf",
            "edition",
            "edition=",
            "é'é\n\u{2028}",
        ] {
            for end in 0..=text.len() {
                let _ = Source::new(&text.as_bytes()[..end]).map(|source| source.end());
            }
        }
    }
}
