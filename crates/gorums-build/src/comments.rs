//! Proto comments that become Rust documentation.
//!
//! rustdoc compiles and runs what Markdown takes for Rust code: fenced blocks without a language,
//! and text indented by four columns. In a `.proto` file such text is a drawing, a shell command or
//! another language, and would break the user's `cargo test`. So code blocks are marked as text.
//!
//! prost changes comments in ways that depend on its features, which another crate of the same
//! build may turn on. So it gets a [reference](Comments::take_from) in the place of each comment,
//! and the documentation is [made](Comments::put_into) when its code is there.

use std::ops::Range;

use prost_types::FileDescriptorProto;
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};
use syn::visit_mut::VisitMut;
use syn::{Attribute, Expr, ExprLit, Lit, Meta, parse_quote};

/// The comments of all files of a compilation.
#[derive(Debug, Default)]
pub(crate) struct Comments {
    texts: Vec<String>,
}

impl Comments {
    /// Takes the comments of a file, and leaves a reference in the place of each.
    pub(crate) fn take_from(&mut self, file: &mut FileDescriptorProto) {
        let Some(source_code_info) = &mut file.source_code_info else {
            return;
        };
        for location in &mut source_code_info.location {
            // They belong to no item.
            location.leading_detached_comments.clear();
            let comments = [
                &mut location.leading_comments,
                &mut location.trailing_comments,
            ];
            for comment in comments {
                let text = comment.as_deref().map(lines_of).unwrap_or_default();
                *comment = (!text.is_empty()).then(|| {
                    self.texts.push(text);
                    format!(" {REFERENCE}{}\n", self.texts.len() - 1)
                });
            }
        }
    }

    /// Makes documentation of the references in the code of a package.
    pub(crate) fn put_into(&self, code: &mut syn::File) {
        PutInto(self).visit_file_mut(code);
    }

    /// The comment that a line of documentation stands for.
    fn referred(&self, line: &str) -> Option<&str> {
        let index = line.trim().strip_prefix(REFERENCE)?.parse::<usize>().ok()?;
        self.texts.get(index).map(String::as_str)
    }

    /// The documentation of an item, in lines, or `None` if no comment belongs to it.
    fn documentation(&self, present: &[String]) -> Option<Vec<String>> {
        let is_reference = |line: &String| self.referred(line).is_some();
        let first = present.iter().position(is_reference)?;
        let last = present.iter().rposition(is_reference)?;
        let comments: Vec<&str> = present[first..=last]
            .iter()
            .filter_map(|line| self.referred(line))
            .collect();
        let documentation = document(&comments);
        let before = present[..first].iter().map(|line| with_margin(line));
        let after = present[last + 1..].iter().map(|line| with_margin(line));
        Some(
            before
                .chain(documentation.lines().map(|line| format!(" {line}")))
                .map(|line| line.trim_end().to_owned())
                .chain(after)
                .collect(),
        )
    }
}

/// A word that no tool between here and the generated code has a reason to change.
const REFERENCE: &str = "gorumsbuildcomment";

/// Lines of documentation without one column of margin would make rustdoc see one more column of
/// indentation in all others.
fn with_margin(line: &str) -> String {
    if line.is_empty() || line.starts_with(' ') {
        line.to_owned()
    } else {
        format!(" {line}")
    }
}

struct PutInto<'a>(&'a Comments);

impl VisitMut for PutInto<'_> {
    fn visit_attributes_mut(&mut self, attributes: &mut Vec<Attribute>) {
        let present: Vec<String> = attributes
            .iter()
            .filter_map(documented)
            .flat_map(|text| text.split('\n').map(str::to_owned).collect::<Vec<_>>())
            .collect();
        let Some(documentation) = self.0.documentation(&present) else {
            return;
        };
        let first = attributes.iter().position(|a| documented(a).is_some());
        attributes.retain(|attribute| documented(attribute).is_none());
        let documentation = documentation
            .into_iter()
            .map(|line| -> Attribute { parse_quote!(#[doc = #line]) });
        let at = first.unwrap_or_default();
        attributes.splice(at..at, documentation);
    }
}

/// The text of an attribute that is documentation.
fn documented(attribute: &Attribute) -> Option<String> {
    match &attribute.meta {
        Meta::NameValue(meta) if meta.path.is_ident("doc") => match &meta.value {
            Expr::Lit(ExprLit {
                lit: Lit::Str(text),
                ..
            }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    }
}

/// The lines of a comment: without the space that usually follows the comment sign, without blank
/// lines around them, tabs as spaces, and nothing that rustc refuses in a comment.
fn lines_of(comment: &str) -> String {
    // A block comment that opens with two stars.
    let comment = match comment.strip_prefix('*') {
        Some(rest) if rest.starts_with(char::is_whitespace) => rest,
        _ => comment,
    };
    let comment = comment.replace("\r\n", "\n").replace('\r', "\n");
    let has_margin = comment
        .split('\n')
        .all(|line| line.trim().is_empty() || line.starts_with([' ', '\t']));
    let lines: Vec<String> = comment
        .split('\n')
        .map(|line| match line.strip_prefix(' ') {
            Some(rest) if has_margin => line_of(rest),
            _ => line_of(line),
        })
        .collect();
    let first = lines.iter().position(|line| !line.is_empty());
    let last = lines.iter().rposition(|line| !line.is_empty());
    match (first, last) {
        (Some(first), Some(last)) => lines[first..=last].join("\n"),
        _ => String::new(),
    }
}

/// A line with spaces for tabs, and without what rustc refuses.
fn line_of(line: &str) -> String {
    let mut expanded = String::new();
    let mut column = 0;
    for next in line.chars() {
        let width = match next {
            '\t' => 4 - column % 4,
            _ => 1,
        };
        column += width;
        match next {
            '\t' => expanded.extend(std::iter::repeat_n(' ', width)),
            // They can make a reader see another text than the compiler does, so rustc refuses
            // them in comments.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            _ if next.is_control() => expanded.push(' '),
            _ => expanded.push(next),
        }
    }
    expanded.truncate(expanded.trim_end().len());
    expanded
}

/// Makes one Markdown text, in which rustdoc finds no code to run, of the comments of one item.
fn document(comments: &[&str]) -> String {
    let parts: Vec<String> = comments.iter().map(|text| without_rust(text)).collect();
    let joined = parts.join("\n\n");
    // Nothing in the first part is known to reach into the second, but nobody has proved it.
    if has_rust(&joined) {
        literal(&comments.join("\n\n"))
    } else {
        joined
    }
}

/// The Markdown that rustdoc reads when it looks for tests, and when it shows documentation.
const DIALECTS: [Options; 2] = [
    Options::empty(),
    Options::ENABLE_TABLES
        .union(Options::ENABLE_FOOTNOTES)
        .union(Options::ENABLE_STRIKETHROUGH)
        .union(Options::ENABLE_TASKLISTS)
        .union(Options::ENABLE_SMART_PUNCTUATION),
];

/// Marks the code blocks of a text that rustdoc would run.
fn without_rust(text: &str) -> String {
    let mut text = text.to_owned();
    // To mark a block can change how the rest is read, so it is read again. Texts that are not
    // settled soon are made to be nasty.
    for _ in 0..4 {
        for dialect in DIALECTS {
            text = mark_as_text(&text, dialect);
        }
        if !has_rust(&text) {
            let linked = link_addresses(&text);
            return if has_rust(&linked) { text } else { linked };
        }
    }
    literal(&text)
}

fn has_rust(text: &str) -> bool {
    DIALECTS
        .into_iter()
        .any(|dialect| code_blocks(text, dialect).iter().any(CodeBlock::is_rust))
}

/// The whole text as it is, in one block.
fn literal(text: &str) -> String {
    let fence = fence_around(text);
    format!("{fence}text\n{text}\n{fence}")
}

/// A run of backticks that ends no block with this text in it.
fn fence_around(text: &str) -> String {
    let longest = text.split(|sign| sign != '`').map(str::len).max();
    "`".repeat(longest.map_or(3, |longest| (longest + 1).max(3)))
}

/// A code block in a Markdown text.
struct CodeBlock {
    /// From its first fence or code to its end.
    range: Range<usize>,
    /// What stands after its fence, or `None` if it is an indented block.
    info: Option<String>,
    code: String,
    /// Where the code of an indented block begins, just after its columns of indentation.
    code_range: Range<usize>,
}

impl CodeBlock {
    /// Whether rustdoc may take it for Rust. It does so unless a word after the fence says
    /// otherwise, and knows many words that say nothing about the language. So only one plain word
    /// is believed.
    fn is_rust(&self) -> bool {
        let Some(info) = &self.info else {
            return true;
        };
        let is_plain = info.starts_with(|first: char| first.is_ascii_alphabetic())
            && info
                .chars()
                .all(|sign| sign.is_ascii_alphanumeric() || "+#".contains(sign));
        let word = info.to_ascii_lowercase();
        let is_error_code = word
            .strip_prefix('e')
            .is_some_and(|code| code.len() == 4 && code.bytes().all(|sign| sign.is_ascii_digit()));
        !is_plain
            || is_error_code
            || ["rust", "ignore", "edition", "custom"]
                .iter()
                .any(|start| word.starts_with(start))
    }
}

fn code_blocks(text: &str, dialect: Options) -> Vec<CodeBlock> {
    let mut blocks: Vec<CodeBlock> = Vec::new();
    let mut inside = false;
    for (event, range) in Parser::new_ext(text, dialect).into_offset_iter() {
        match event {
            Event::Start(Tag::CodeBlock(kind)) => {
                inside = true;
                blocks.push(CodeBlock {
                    code_range: range.start..range.start,
                    range,
                    info: match kind {
                        CodeBlockKind::Indented => None,
                        CodeBlockKind::Fenced(info) => Some(info.into_string()),
                    },
                    code: String::new(),
                });
            }
            Event::End(TagEnd::CodeBlock) => inside = false,
            Event::Text(code) if inside => {
                let block = blocks.last_mut().expect("it has begun");
                if block.code.is_empty() {
                    block.code_range.start = range.start;
                }
                block.code_range.end = range.end;
                block.code.push_str(&code);
            }
            _ => {}
        }
    }
    blocks
}

fn mark_as_text(text: &str, dialect: Options) -> String {
    let mut marked = text.to_owned();
    // From the end, so that places before it stay where they are.
    for block in code_blocks(text, dialect).into_iter().rev() {
        match &block.info {
            Some(_) => mark_fenced(&mut marked, &block),
            None => fence_indented(&mut marked, &block),
        }
    }
    marked
}

fn mark_fenced(text: &mut String, block: &CodeBlock) {
    let opening = line_around(text, block.range.start);
    let fence: String = {
        let sign = text[block.range.start..].chars().next();
        text[block.range.start..]
            .chars()
            .take_while(|next| Some(*next) == sign)
            .collect()
    };
    // A fence that is not closed would take in what follows this comment. Inside of a list or a
    // quote it ends with that.
    let margin = &text[opening.start..block.range.start];
    let reaches_end = text[block.range.end..].trim().is_empty();
    let last_line = text[last_line(text, block.range.end)].trim();
    let is_closed = block.range.end > opening.end
        && last_line.starts_with(&fence)
        && last_line.trim_start_matches(&fence[..1]).is_empty();
    if margin.trim().is_empty() && reaches_end && !is_closed {
        text.truncate(text.trim_end().len().max(opening.end));
        text.push('\n');
        text.push_str(&fence);
    }
    if block.is_rust() {
        text.replace_range(block.range.start + fence.len()..opening.end, "text");
    }
}

/// Puts an indented block between fences, in the list or quote that it stands in.
fn fence_indented(text: &mut String, block: &CodeBlock) {
    let first = line_around(text, block.code_range.start);
    let last = last_line(text, block.code_range.end);
    // What the line has before the four columns that make it code.
    let before = &text[first.start..block.code_range.start];
    let opening = before.strip_suffix("    ").unwrap_or(before);
    // The signs of a list begin an item, and must not begin another in each line.
    let margin: String = opening
        .chars()
        .map(|sign| if sign == '>' { '>' } else { ' ' })
        .collect();
    let fence = fence_around(&block.code);
    let mut fenced = format!("{opening}{fence}text\n");
    for line in block.code.trim_end_matches('\n').split('\n') {
        fenced.push_str(format!("{margin}{line}").trim_end());
        fenced.push('\n');
    }
    fenced.push_str(&margin);
    fenced.push_str(&fence);
    text.replace_range(first.start..last.end.max(first.end), &fenced);
}

/// The line that a place is in, without its end.
fn line_around(text: &str, place: usize) -> Range<usize> {
    let start = text[..place].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[place..]
        .find('\n')
        .map_or(text.len(), |newline| place + newline);
    start..end
}

/// The last line of what ends at a place.
fn last_line(text: &str, end: usize) -> Range<usize> {
    let place = text[..end].strip_suffix('\n').map_or(end, str::len);
    line_around(text, place)
}

/// Makes links of the addresses that stand in the words of a text.
fn link_addresses(text: &str) -> String {
    let mut addresses: Vec<Range<usize>> = Vec::new();
    let mut depth = 0_usize;
    for (event, range) in Parser::new(text).into_offset_iter() {
        match event {
            Event::Start(Tag::CodeBlock(_) | Tag::Link { .. } | Tag::Image { .. }) => depth += 1,
            Event::End(TagEnd::CodeBlock | TagEnd::Link | TagEnd::Image) => depth -= 1,
            Event::Text(_) if depth == 0 => {
                for scheme in ["http://", "https://"] {
                    for (at, _) in text[range.clone()].match_indices(scheme) {
                        let start = range.start + at;
                        let length = address_length(&text[start..]);
                        let in_word = text[..start].ends_with(char::is_alphanumeric);
                        if length > scheme.len() && !in_word {
                            addresses.push(start..start + length);
                        }
                    }
                }
            }
            _ => {}
        }
    }
    addresses.sort_by_key(|address| address.start);
    let mut linked = String::new();
    let mut end = 0;
    for address in addresses {
        if address.start >= end {
            linked.push_str(&text[end..address.start]);
            linked.push_str(&format!("<{}>", &text[address.clone()]));
            end = address.end;
        }
    }
    linked.push_str(&text[end..]);
    linked
}

/// How much of a text that begins with an address belongs to it.
fn address_length(text: &str) -> usize {
    let mut open = 0_usize;
    let end = text.find(|sign: char| match sign {
        '(' => {
            open += 1;
            false
        }
        ')' if open > 0 => {
            open -= 1;
            false
        }
        ')' => true,
        _ => sign.is_whitespace() || "<>[]{}\"`|\\^".contains(sign),
    });
    let address = &text[..end.unwrap_or(text.len())];
    address
        .trim_end_matches(|last| ".,;:!?'*_~&".contains(last))
        .len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn marked(comment: &str) -> String {
        document(&[&lines_of(comment)])
    }

    #[test]
    fn prose_stays_as_it_is() {
        for comment in [
            "Reads a value.\n\n- one\n  more of one\n- two\n\n  a paragraph of two\n      continued\n10. ten\n\n    of ten",
            "A sentence that goes on\n     in the next line.",
            "```go\nx := 1\n\n    y\n```",
            "- item\n\n    still the item",
            "A [link](https://a.example/b), <b>bold</b> and [value].",
        ] {
            assert_eq!(marked(comment), comment);
        }
    }

    #[test]
    fn indented_text_becomes_a_text_block() {
        for (comment, expected) in [
            (
                "Layout:\n\n    key | value\n\n      more\n\nAfterwards.",
                "Layout:\n\n```text\nkey | value\n\n  more\n```\n\nAfterwards.",
            ),
            ("     let x = 1;", "```text\nlet x = 1;\n```"),
            ("# Heading\n    x", "# Heading\n```text\nx\n```"),
            ("Heading\n===\n    x", "Heading\n===\n```text\nx\n```"),
            ("---\n    x", "---\n```text\nx\n```"),
            ("<!-- c -->\n    x", "<!-- c -->\n```text\nx\n```"),
            (
                "> quote\n>\n>     x\n>     y",
                "> quote\n>\n> ```text\n> x\n> y\n> ```",
            ),
            ("-     x\n\n      y", "- ```text\n  x\n\n  y\n  ```"),
            (
                "- item\n\n      code\n\n  the item",
                "- item\n\n  ```text\n  code\n  ```\n\n  the item",
            ),
            ("     ```\n     x\n     ```", "````text\n```\nx\n```\n````"),
        ] {
            assert_eq!(marked(comment), expected);
        }
    }

    #[test]
    fn fences_that_rustdoc_would_run_are_marked() {
        for info in [
            "",
            "rust",
            "rust,no_run",
            " {.rust .x}",
            "{.language-go}",
            "(a comment)",
            "ignore-wasm32",
            "E0308",
            "compile_fail,E0308",
            "edition2024",
            ",",
            "custom,{class=x}",
            "Rust",
        ] {
            assert_eq!(marked(&format!("```{info}\nx\n```")), "```text\nx\n```");
            assert_eq!(
                marked(&format!("> ~~~{info}\n> x\n> ~~~")),
                "> ~~~text\n> x\n> ~~~"
            );
        }
        assert_eq!(
            marked("````rust\n```\nnested\n```\n````"),
            "````text\n```\nnested\n```\n````"
        );
    }

    #[test]
    fn a_fence_that_is_not_closed_ends_with_its_comment() {
        assert_eq!(
            document(&["```go\nx", "Trailing."]),
            "```go\nx\n```\n\nTrailing."
        );
    }

    #[test]
    fn addresses_become_links() {
        assert_eq!(
            marked("See https://a.example/b_(c)_d, or (http://e.example)."),
            "See <https://a.example/b_(c)_d>, or (<http://e.example>)."
        );
        let known = "`https://a.example` <https://b.example> [c](https://d.example)";
        assert_eq!(marked(known), known);
    }

    #[test]
    fn lines_lose_what_belongs_to_the_comment_and_not_to_the_text() {
        for (comment, lines) in [
            (" text\n", "text"),
            ("text", "text"),
            (" a\r\n\r\n b\r", "a\n\nb"),
            ("\tcode", "    code"),
            ("  \t code  ", "     code"),
            ("- one\n  more", "- one\n  more"),
            (" a\n\tb", "a\n    b"),
            ("*\n Javadoc.\n\n", "Javadoc."),
            (" * item", "* item"),
            (" x \u{202e}LTR\u{202c} y\u{0}", "x LTR y"),
            (" \n", ""),
        ] {
            assert_eq!(lines_of(comment), lines, "{comment:?}");
        }
    }

    #[test]
    fn other_documentation_gets_the_same_margin() {
        let comments = Comments {
            texts: vec!["a\n\n   three columns".to_owned()],
        };
        let mut code: syn::File = parse_quote! {
            #[doc = "of the user\nin two lines"]
            #[doc = " gorumsbuildcomment0"]
            #[doc(alias = "x")]
            struct Item;
        };
        comments.put_into(&mut code);
        let expected: syn::File = parse_quote! {
            #[doc = " of the user"]
            #[doc = " in two lines"]
            #[doc = " a"]
            #[doc = ""]
            #[doc = "    three columns"]
            #[doc(alias = "x")]
            struct Item;
        };
        assert_eq!(
            prettyplease::unparse(&code),
            prettyplease::unparse(&expected)
        );
    }

    /// Pieces of which Markdown's block structure is made, and some words.
    fn markdown() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            5 => Just("\n".to_owned()),
            3 => " {0,9}",
            2 => "[a-z]{1,6}",
            4 => prop::sample::select(vec![
                "> ", ">", "- ", "* ", "1. ", "12) ", "-     ", "\t", "```", "~~~", "````", "~~~~~",
                "```rust", "``` rust", "~~~ {.rust}", "# ", "===", "---", "***", "<!--", "-->",
                "<div>", "</div>", "<pre>", "</pre>", "<script>", "<b>", "| a | b |", "|---|---|",
                "[a]: /b", "[^1]: ", "[^1]", "[ ] ", "`", "``", "\\", "*", "_", "[x](y)", "![x](y)",
                "https://a.example/_b_", "&nbsp;", "\u{202e}", "\r\n", "\r", "é", "\u{a0}",
                "\u{2028}", "ignore", "E0308", ",", "text", "go",
            ]).prop_map(str::to_owned),
        ];
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    /// What rustdoc does with the words after a fence, on the safe side.
    fn rustdoc_runs(info: &str) -> bool {
        let is_rust = |word: &str| {
            let error_code = word.strip_prefix('E').is_some_and(|code| {
                code.len() == 4 && code.bytes().all(|sign| sign.is_ascii_digit())
            });
            let flags = [
                "no_run",
                "should_panic",
                "compile_fail",
                "test_harness",
                "custom",
            ];
            error_code
                || flags.contains(&word)
                || ["rust", "ignore", "edition", "standalone"]
                    .iter()
                    .any(|start| word.starts_with(start))
        };
        let words: Vec<&str> = info
            .split([',', ' ', '\t'])
            .filter(|word| !word.is_empty())
            .collect();
        info.contains(['{', '}', '(', ')', '"'])
            || words.iter().all(|word| is_rust(word))
            || words.contains(&"rust")
    }

    /// All words but those after fences, which are added and changed.
    fn words(text: &str) -> Vec<String> {
        let text: String = text
            .chars()
            .filter(|sign| !matches!(sign, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
            .collect();
        text.split(['\n', '\r'])
            .filter_map(|line| line.split("```").next()?.split("~~~").next())
            .flat_map(|line| line.split(|sign: char| !sign.is_alphanumeric()))
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(
            std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(2_000)
        ))]

        #[test]
        fn no_comment_has_code_that_rustdoc_runs(
            leading in markdown(),
            trailing in proptest::option::of(markdown()),
        ) {
            let comments: Vec<String> =
                std::iter::once(&leading).chain(&trailing).map(|text| lines_of(text))
                    .filter(|text| !text.is_empty()).collect();
            let comments: Vec<&str> = comments.iter().map(String::as_str).collect();
            let documentation = document(&comments);
            for dialect in DIALECTS {
                for event in Parser::new_ext(&documentation, dialect) {
                    if let Event::Start(Tag::CodeBlock(kind)) = event {
                        let CodeBlockKind::Fenced(info) = kind else {
                            panic!("an indented block is left in\n{documentation}");
                        };
                        prop_assert!(!rustdoc_runs(&info), "{info:?} in\n{documentation}");
                    }
                }
            }
            prop_assert_eq!(words(&documentation), words(&comments.join("\n")));
        }
    }
}
