//! Expressions as they are typed: `a*b + c*d`, `(1 & 2) | (3 & 4)`, `choose(2, a, b, c)`.

use std::fmt;

use gorums::quorum::Expression;

use crate::names::Names;

/// The most bytes of an expression.
const MOST_BYTES: usize = 64 * 1024;

/// The most parentheses that are in one another.
const MOST_DEPTH: usize = 64;

/// What is wrong with an expression, and where.
#[derive(Debug)]
pub(crate) struct Mistake {
    what: String,
    /// A part of the text, and from which of its characters on it is wrong.
    shown: String,
    column: usize,
}

impl Mistake {
    fn new(text: &str, at: usize, what: impl Into<String>) -> Self {
        /// So many characters before and after the place are shown.
        const AROUND: usize = 30;
        let before: Vec<char> = text[..at].chars().rev().take(AROUND).collect();
        let after = text[at..].chars().take(AROUND);
        let shown = before.iter().rev().copied().chain(after);
        // One column each.
        let shown = shown.map(|char| if char.is_control() { ' ' } else { char });
        Self {
            what: what.into(),
            shown: shown.collect(),
            column: before.len(),
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.what)?;
        writeln!(f, "  {}", self.shown)?;
        write!(f, "  {:>width$}", "^", width = self.column + 1)
    }
}

/// What a text says. The nodes that it names are added to the names.
pub(crate) fn parse(text: &str, names: &mut Names) -> Result<Expression, Mistake> {
    if text.len() > MOST_BYTES {
        let what = format!("an expression has {MOST_BYTES} bytes at the most");
        return Err(Mistake::new("", 0, what));
    }
    let mut parser = Parser {
        text,
        at: 0,
        depth: 0,
        names,
    };
    let expression = parser.any()?;
    match parser.peek() {
        None => Ok(expression),
        Some(')') => Err(parser.mistake("there is no `(` to this `)`")),
        Some(_) => Err(parser.mistake("`&`, `|` or the end is missing here")),
    }
}

struct Parser<'a> {
    text: &'a str,
    /// In bytes.
    at: usize,
    depth: usize,
    names: &'a mut Names,
}

impl Parser<'_> {
    fn mistake(&self, what: impl Into<String>) -> Mistake {
        Mistake::new(self.text, self.at, what)
    }

    /// The next character that is not white space.
    fn peek(&mut self) -> Option<char> {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        self.text[self.at..].chars().next()
    }

    fn takes(&mut self, wanted: char) -> bool {
        let is_there = self.peek() == Some(wanted);
        if is_there {
            self.at += wanted.len_utf8();
        }
        is_there
    }

    fn expects(&mut self, wanted: char) -> Result<(), Mistake> {
        match self.takes(wanted) {
            true => Ok(()),
            false => Err(self.mistake(format!("`{wanted}` is missing here"))),
        }
    }

    /// One of several, by `|` or `+`.
    fn any(&mut self) -> Result<Expression, Mistake> {
        let mut parts = vec![self.all()?];
        while self.takes('|') || self.takes('+') {
            parts.push(self.all()?);
        }
        Ok(joined(parts, Expression::any_of))
    }

    /// Each of several, by `&` or `*`, which hold closer.
    fn all(&mut self) -> Result<Expression, Mistake> {
        let mut parts = vec![self.part()?];
        while self.takes('&') || self.takes('*') {
            parts.push(self.part()?);
        }
        Ok(joined(parts, Expression::all_of))
    }

    fn part(&mut self) -> Result<Expression, Mistake> {
        if self.takes('(') {
            let part = self.nested(Self::any)?;
            self.expects(')')?;
            return Ok(part);
        }
        self.peek();
        let begin = self.at;
        let rest = &self.text[begin..];
        let end = rest.find(|char| !is_of_name(char)).unwrap_or(rest.len());
        let name = &rest[..end];
        if name.is_empty() {
            return Err(self.mistake("a node, or `(`, is missing here"));
        }
        self.at += end;
        if self.peek() != Some('(') {
            return Ok(Expression::node(self.names.id(name)));
        }
        let gate = match name {
            "choose" => Gate::Choose,
            "majority" => Gate::Majority,
            "all" => Gate::All,
            "any" => Gate::Any,
            _ => {
                let what = format!(
                    "`{name}` is followed by `(`, and is none of choose, majority, all and any; \
                     between a node and `(` stands `&` or `|`"
                );
                return Err(Mistake::new(self.text, begin, what));
            }
        };
        self.takes('(');
        let part = self.nested(|parser| parser.gate(gate))?;
        self.expects(')')?;
        Ok(part)
    }

    fn nested(
        &mut self,
        inner: impl FnOnce(&mut Self) -> Result<Expression, Mistake>,
    ) -> Result<Expression, Mistake> {
        self.depth += 1;
        if self.depth > MOST_DEPTH {
            let what = format!("more than {MOST_DEPTH} parentheses are in one another here");
            return Err(self.mistake(what));
        }
        let inner = inner(self);
        self.depth -= 1;
        inner
    }

    /// What is between the parentheses: a list, with or without brackets around it as Quoracle has
    /// them, and the count before it.
    fn gate(&mut self, gate: Gate) -> Result<Expression, Mistake> {
        self.peek();
        let begin = self.at;
        let count = match gate {
            Gate::Choose => Some(self.count()?),
            _ => None,
        };
        let in_brackets = self.takes('[');
        let mut parts = vec![self.any()?];
        while self.takes(',') {
            parts.push(self.any()?);
        }
        if in_brackets {
            self.expects(']')?;
        }
        if let Some(count) = count.filter(|count| !(1..=parts.len()).contains(count)) {
            let what = format!(
                "{count} of {} can not be chosen: it is one at least, and no more than there are",
                parts.len()
            );
            return Err(Mistake::new(self.text, begin, what));
        }
        Ok(match (gate, count) {
            (Gate::Choose, count) => Expression::at_least(count.unwrap_or(parts.len()), parts),
            (Gate::Majority, _) => Expression::majority_of(parts),
            (Gate::All, _) => Expression::all_of(parts),
            (Gate::Any, _) => Expression::any_of(parts),
        })
    }

    /// How many, and the comma behind it.
    fn count(&mut self) -> Result<usize, Mistake> {
        let rest = &self.text[self.at..];
        let end = rest.find(|char: char| !char.is_ascii_digit());
        let digits = &rest[..end.unwrap_or(rest.len())];
        let Ok(count) = digits.parse() else {
            return Err(self.mistake("how many is missing here, as in choose(2, a, b, c)"));
        };
        self.at += digits.len();
        self.expects(',')?;
        Ok(count)
    }
}

#[derive(Clone, Copy)]
enum Gate {
    Choose,
    Majority,
    All,
    Any,
}

fn is_of_name(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '_' | '-' | '.' | ':')
}

/// A gate of several; one is what it is.
fn joined(mut parts: Vec<Expression>, gate: fn(Vec<Expression>) -> Expression) -> Expression {
    match parts.len() {
        1 => parts.remove(0),
        _ => gate(parts),
    }
}

#[cfg(test)]
mod tests {
    use gorums::quorum::Quorums;
    use proptest::prelude::*;

    use super::*;

    /// The minimal read quorums of an expression, by name.
    fn quorums(text: &str) -> Vec<String> {
        let mut names = Names::default();
        let expression = parse(text, &mut names).unwrap_or_else(|mistake| panic!("{mistake}"));
        let system = Quorums::from_reads(expression).expect("it is legal");
        let quorums = system.read().minimal_quorums(100).expect("they are few");
        let mut quorums: Vec<_> = quorums
            .iter()
            .map(|quorum| quorum.iter().map(|id| names.of(*id)).collect::<String>())
            .collect();
        quorums.sort();
        quorums
    }

    #[test]
    fn both_ways_to_write_and_and_or_mean_the_same() {
        for text in [
            "a*b + c*d",
            "a & b | c & d",
            "(a&b)|(c*d)",
            " ( ( a ) ) *b+all(c,d)",
            "any(all(a, b), all([c, d]))",
        ] {
            assert_eq!(quorums(text), ["ab", "cd"], "{text}");
        }
        assert_eq!(quorums("a & (b | c)"), ["ab", "ac"]);
        assert_eq!(quorums("1"), ["1"]);
        assert_eq!(quorums("choose"), ["choose"]);
    }

    #[test]
    fn so_many_of_several_can_be_asked_for() {
        for text in [
            "choose(2, a, b, c)",
            "choose(2,[a,b,c])",
            "majority(a, b, c)",
        ] {
            assert_eq!(quorums(text), ["ab", "ac", "bc"], "{text}");
        }
        assert_eq!(quorums("choose(2, a*b, c, d)"), ["abc", "abd", "cd"]);
    }

    #[test]
    fn a_mistake_is_shown_where_it_is() {
        for (text, what, column) in [
            ("", "a node, or `(`, is missing", 0),
            ("a &", "a node, or `(`, is missing", 3),
            ("a && b", "a node, or `(`, is missing", 3),
            ("a*b + (c*d", "`)` is missing", 10),
            ("a*b)", "no `(` to this `)`", 3),
            ("a b", "`&`, `|` or the end", 2),
            ("a, b", "`&`, `|` or the end", 1),
            ("a $ b", "`&`, `|` or the end", 2),
            ("a | b(c)", "none of choose, majority", 4),
            ("choose(a, b)", "how many is missing", 7),
            ("choose(99999999999999999999, b)", "how many is missing", 7),
            ("choose(2 a)", "`,` is missing", 9),
            ("choose(3, a, b)", "3 of 2", 7),
            ("choose(0, a, b)", "0 of 2", 7),
            ("all([a, b)", "`]` is missing", 9),
            ("é | a", "a node, or `(`, is missing", 0),
        ] {
            let mistake = parse(text, &mut Names::default()).expect_err(text);
            assert!(mistake.what.contains(what), "{text}: {mistake}");
            assert_eq!(mistake.column, column, "{text}: {mistake}");
            let shown = mistake.to_string();
            let lines: Vec<_> = shown.lines().collect();
            assert_eq!(
                lines[1..],
                [format!("  {text}"), format!("  {}^", " ".repeat(column))]
            );
        }
    }

    #[test]
    fn what_is_too_long_or_too_deep_is_told() {
        let error = |text: &str| {
            parse(text, &mut Names::default())
                .expect_err("illegal")
                .what
        };
        assert!(error(&"a".repeat(MOST_BYTES + 1)).contains("65536 bytes"));
        for opened in ["(", "any("] {
            assert!(error(&opened.repeat(10_000)).contains("more than 64"));
        }
        let nested = |deep: usize| format!("{}a{}", "(".repeat(deep), ")".repeat(deep));
        assert!(parse(&nested(64), &mut Names::default()).is_ok());
        // What is within these bounds and beyond those of a system is told by that.
        let long = vec!["a"; 5000].join("|");
        let expression = parse(&long, &mut Names::default()).expect("it is short enough");
        assert!(Quorums::from_reads(expression).is_err());
    }

    /// Letters that are likely to make sense together.
    fn any_text() -> impl Strategy<Value = String> {
        let word = prop_oneof![
            Just("choose("),
            Just("majority("),
            Just("any("),
            Just("2,"),
            Just("a"),
            Just("b"),
            Just("c"),
            Just("("),
            Just(")"),
            Just("["),
            Just("]"),
            Just("&"),
            Just("|"),
            Just("*"),
            Just("+"),
            Just(","),
            Just(" "),
            Just("1"),
            Just("ü"),
            Just("\t"),
        ];
        proptest::collection::vec(word, 0..40).prop_map(|words| words.concat())
    }

    proptest! {
        #[test]
        fn any_text_is_an_expression_or_a_mistake_within_it(
            text in prop_oneof![any_text(), any::<String>()],
        ) {
            let mut names = Names::default();
            match parse(&text, &mut names) {
                Ok(expression) => {
                    // What is too much for a system is told by it.
                    let system = Quorums::from_reads(expression);
                    prop_assert!(system.is_err() || names.all().next().is_some());
                }
                Err(mistake) => prop_assert!(mistake.column <= text.chars().count()),
            }
        }
    }
}
