//! Proto comments that are about to become Rust documentation.
//!
//! rustdoc compiles and runs what Markdown takes for Rust code: fenced blocks without a language,
//! and any text indented by four columns. In a `.proto` file such text is a drawing, a shell
//! command or another language, and would break the user's `cargo test`. So code blocks are marked
//! as text before prost sees the comments.

use prost_types::FileDescriptorProto;

/// Marks the code blocks in all comments of a file as text.
pub(crate) fn neutralise(file: &mut FileDescriptorProto) {
    let Some(source_code_info) = &mut file.source_code_info else {
        return;
    };
    for location in &mut source_code_info.location {
        let comments = [
            &mut location.leading_comments,
            &mut location.trailing_comments,
        ];
        for comment in comments.into_iter().flatten() {
            let lines = comment.lines().map(without_margin);
            *comment = mark_code_as_text(lines)
                .iter()
                .map(|line| with_margin_for_prost(line))
                .collect();
        }
    }
}

/// A line without the space that usually follows the comment sign, and indented by spaces only.
fn without_margin(line: &str) -> String {
    let line = line.strip_prefix(' ').unwrap_or(line).trim_end();
    let text = line.trim_start();
    let indent = line[..line.len() - text.len()]
        .chars()
        .fold(0, |columns, blank| match blank {
            '\t' => columns + 4 - columns % 4,
            _ => columns + 1,
        });
    format!("{}{text}", " ".repeat(indent))
}

/// The line as prost has to get it, to indent it as it is.
///
/// prost adds a space to lines that have none, and to lines that have more than one. Left alone,
/// the latter would turn text that is indented by three columns into code.
fn with_margin_for_prost(line: &str) -> String {
    if line.is_empty() || line.starts_with("  ") {
        format!("{line}\n")
    } else {
        format!(" {line}\n")
    }
}

/// Where the lines of a comment stand, in Markdown terms.
enum Block {
    Prose,
    /// Between code fences, the closing one of which has at least these characters.
    Fenced {
        fence: String,
    },
    /// In text indented by four columns more than the content around it, which we have put between
    /// fences.
    Indented {
        content: usize,
    },
}

fn mark_code_as_text(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut block = Block::Prose;
    // Columns by which the list items around the current line indent their content.
    let mut items: Vec<usize> = Vec::new();
    let mut after_blank = true;

    for line in lines {
        let text = line.trim_start();
        let indent = line.len() - text.len();

        match &block {
            Block::Fenced { fence } => {
                let is_end =
                    text.starts_with(fence) && text.trim_start_matches(&fence[..1]).is_empty();
                if is_end {
                    block = Block::Prose;
                    after_blank = false;
                }
                out.push(line);
                continue;
            }
            Block::Indented { content } if text.is_empty() || indent >= content + 4 => {
                out.push(format!(
                    "{}{}",
                    " ".repeat(*content),
                    line.get(content + 4..).unwrap_or_default()
                ));
                continue;
            }
            Block::Indented { content } => {
                close_indented(&mut out, *content);
                block = Block::Prose;
                after_blank = true;
            }
            Block::Prose => {}
        }

        if text.is_empty() {
            out.push(line);
            after_blank = true;
            continue;
        }
        let marker = list_marker(text);
        if after_blank || marker.is_some() {
            while items.last().is_some_and(|columns| indent < *columns) {
                items.pop();
            }
        }
        let content = items.last().copied().unwrap_or(0);
        if after_blank && indent >= content + 4 {
            let margin = " ".repeat(content);
            out.push(format!("{margin}```text"));
            out.push(format!("{margin}{}", &line[content + 4..]));
            block = Block::Indented { content };
        } else if let Some(fence) = opening_fence(text) {
            let runs = runs_as_rust(text[fence.len()..].trim());
            out.push(if runs {
                format!("{}{fence}text", " ".repeat(indent))
            } else {
                line
            });
            block = Block::Fenced { fence };
        } else {
            items.extend(marker.map(|width| indent + width));
            out.push(line);
        }
        after_blank = false;
    }
    // Markdown itself ends a forgotten fence with the comment.
    if let Block::Indented { content } = block {
        close_indented(&mut out, content);
    }
    out
}

/// Closes a block of indented text, before the blank lines that separate it from what follows.
fn close_indented(out: &mut Vec<String>, content: usize) {
    let last = out.iter().rposition(|line| !line.trim().is_empty());
    let end = last.map_or(0, |last| last + 1);
    for blank in &mut out[end..] {
        blank.clear();
    }
    out.insert(end, format!("{}```", " ".repeat(content)));
}

/// The run of backticks or tildes with which a line opens a code block.
fn opening_fence(line: &str) -> Option<String> {
    let sign = line.chars().next().filter(|sign| "`~".contains(*sign))?;
    let fence: String = line.chars().take_while(|next| *next == sign).collect();
    // A backtick later in the line makes it inline code.
    let inline = sign == '`' && line[fence.len()..].contains('`');
    (fence.len() >= 3 && !inline).then_some(fence)
}

/// Whether rustdoc takes a code block with these words after its fence for Rust.
fn runs_as_rust(info: &str) -> bool {
    let rust_words = [
        "rust",
        "ignore",
        "no_run",
        "should_panic",
        "compile_fail",
        "test_harness",
        "standalone_crate",
    ];
    info.split([',', ' ', '\t'])
        .filter(|word| !word.is_empty())
        .all(|word| rust_words.contains(&word) || word.starts_with("edition"))
}

/// How far a list item indents what belongs to it, if the line begins one.
fn list_marker(line: &str) -> Option<usize> {
    let digits = line.chars().take_while(char::is_ascii_digit).count();
    let marker = match digits {
        0 if line.starts_with(['-', '*', '+']) => 1,
        1..=9 if line[digits..].starts_with(['.', ')']) => digits + 1,
        _ => return None,
    };
    let content = line[marker..].trim_start();
    let spaces = line.len() - marker - content.len();
    match spaces {
        0 => None,
        // More than four columns are one, and code.
        1..=4 => Some(marker + spaces),
        _ => Some(marker + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(comment: &str) -> String {
        mark_code_as_text(comment.lines().map(str::to_owned)).join("\n")
    }

    #[test]
    fn prose_stays_as_it_is() {
        let comment = "Reads a value.\n\n- one\n  more of one\n- two\n\n  a paragraph of two\n      continued\n10. ten\n\n    of ten";
        assert_eq!(marked(comment), comment);
    }

    #[test]
    fn indented_text_becomes_a_text_block() {
        assert_eq!(
            marked("Layout:\n\n    key | value\n\n      more\n\nAfterwards."),
            "Layout:\n\n```text\nkey | value\n\n  more\n```\n\nAfterwards."
        );
    }

    #[test]
    fn a_comment_that_is_indented_as_a_whole_becomes_a_text_block() {
        assert_eq!(marked("    let x = 1;"), "```text\nlet x = 1;\n```");
    }

    #[test]
    fn indented_lines_of_a_paragraph_are_no_code() {
        let comment = "A sentence that goes on\n     in the next line.";
        assert_eq!(marked(comment), comment);
    }

    #[test]
    fn fences_that_rustdoc_would_run_are_marked() {
        assert_eq!(
            marked("```\nx\n```\n```rust,no_run\ny\n```\n~~~\nz\n~~~"),
            "```text\nx\n```\n```text\ny\n```\n~~~text\nz\n~~~"
        );
    }

    #[test]
    fn fences_of_other_languages_stay() {
        let comment = "```go\nx := 1\n\n    y\n```";
        assert_eq!(marked(comment), comment);
    }

    #[test]
    fn code_in_a_list_is_measured_from_the_item() {
        let comment = "- item\n\n    still the item";
        assert_eq!(marked(comment), comment);
        assert_eq!(
            marked("- item\n\n      code\n\n  the item"),
            "- item\n\n  ```text\n  code\n  ```\n\n  the item"
        );
    }

    #[test]
    fn a_tab_indents_by_four_columns() {
        assert_eq!(without_margin(" text"), "text");
        assert_eq!(without_margin("text"), "text");
        assert_eq!(without_margin("\tcode"), "    code");
        assert_eq!(without_margin("  \t code  "), "     code");
        assert_eq!(without_margin(" "), "");
    }

    #[test]
    fn lines_reach_the_documentation_with_their_indentation() {
        // A single column cannot be had of prost, and becomes two.
        for (line, documented) in [
            ("", ""),
            ("a", " a"),
            (" a", "   a"),
            ("  a", "   a"),
            ("   a", "    a"),
        ] {
            let comments = prost_build::Comments {
                leading: vec![with_margin_for_prost(line).trim_end().to_owned()],
                ..Default::default()
            };
            let mut text = String::new();
            comments.append_with_indent(0, &mut text);
            assert_eq!(text, format!("///{documented}\n"));
        }
    }
}
