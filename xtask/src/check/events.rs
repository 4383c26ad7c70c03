//! Whether docs/observability.md lists every event that the library logs, and no other.
//!
//! An event is a `tracing::info!(…)`, of any level, a `log::event!(… => warn or debug, …)`, which
//! has one of two levels, or a `tracing::debug_span!(…)`. Its target is a constant of `log.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::workspace;

const SOURCES: &str = "crates/gorums/src";
const TARGETS: &str = "log.rs";
const PAGE: &str = "docs/observability.md";

/// What is compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    target: String,
    /// As the page writes it: `INFO`, `WARN or DEBUG`, `DEBUG span`.
    level: String,
    message: String,
    fields: BTreeSet<String>,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<_> = self.fields.iter().map(String::as_str).collect();
        let fields = fields.join(" ");
        let Self {
            target,
            level,
            message,
            ..
        } = self;
        write!(f, "{level} {target} {message:?} with {fields}")
    }
}

/// The step of this name.
pub(super) fn run() -> Result<()> {
    let sources = workspace::root().join(SOURCES);
    let targets = targets(&fs::read_to_string(sources.join(TARGETS))?)?;
    let mut logged = BTreeMap::new();
    each_file(&sources, &mut |path, text| {
        let tokens = text.parse().map_err(|error| anyhow!("{error}"))?;
        let mut scan = Scan {
            targets: &targets,
            events: Vec::new(),
        };
        scan.tokens(tokens)?;
        for (line, event) in scan.events {
            logged
                .entry(event)
                .or_insert_with(|| format!("{}:{line}", path.display()));
        }
        Ok(())
    })?;
    let page = fs::read_to_string(workspace::root().join(PAGE)).with_context(|| PAGE.to_owned())?;
    let listed = listed(&page)?;
    let mut mistakes = String::new();
    for (event, at) in &logged {
        if !listed.contains(event) {
            write!(mistakes, "\n  {at}: the page does not list {event}")?;
        }
    }
    for event in listed.iter().filter(|event| !logged.contains_key(event)) {
        write!(mistakes, "\n  nothing logs {event}")?;
    }
    if !mistakes.is_empty() {
        bail!("{PAGE} does not hold:{mistakes}");
    }
    println!("{PAGE}: {} events, as {SOURCES} logs them", listed.len());
    Ok(())
}

/// Reads all Rust files below a folder.
fn each_file(folder: &Path, read: &mut impl FnMut(&Path, &str) -> Result<()>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            each_file(&path, read)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)?;
            read(&path, &text).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

/// The targets by the names of their constants.
fn targets(source: &str) -> Result<BTreeMap<String, String>> {
    let file = syn::parse_file(source)?;
    let constants = file.items.into_iter().filter_map(|item| {
        let syn::Item::Const(constant) = item else {
            return None;
        };
        match *constant.expr {
            syn::Expr::Lit(syn::ExprLit {
                lit: syn::Lit::Str(text),
                ..
            }) => Some((constant.ident.to_string(), text.value())),
            _ => None,
        }
    });
    Ok(constants.collect())
}

/// Looks for events in tokens, and not in syntax: many stand within other macros.
struct Scan<'a> {
    targets: &'a BTreeMap<String, String>,
    /// Each with its line.
    events: Vec<(usize, Event)>,
}

impl Scan<'_> {
    fn tokens(&mut self, tokens: TokenStream) -> Result<()> {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            if is_for_tests(&tokens[at..]) {
                // Up to the end of the item.
                at += 2;
                while let Some(token) = tokens.get(at) {
                    at += 1;
                    if is_punct(token, ';') || is_braces(token) {
                        break;
                    }
                }
                continue;
            }
            if let Some((level, arguments)) = invocation(&tokens[at..]) {
                let line = token.span().start().line;
                let event = self.event(level, arguments);
                let event = event.with_context(|| format!("line {line}"))?;
                self.events.push((line, event));
                at += 6;
                continue;
            }
            if let TokenTree::Group(group) = token {
                self.tokens(group.stream())?;
            }
            at += 1;
        }
        Ok(())
    }

    /// The event of a macro with these arguments.
    fn event(&self, name: &str, arguments: TokenStream) -> Result<Event> {
        let mut arguments: Vec<TokenTree> = arguments.into_iter().collect();
        let level = match name {
            "event" => {
                let (levels, rest) = two_levels(&arguments)?;
                arguments = rest;
                levels
            }
            name => match name.strip_suffix("_span") {
                Some(level) => format!("{} span", level.to_uppercase()),
                None => name.to_uppercase(),
            },
        };
        let mut target = None;
        let mut message = None;
        let mut fields = BTreeSet::new();
        for argument in arguments.split(|token| is_punct(token, ',')) {
            match argument {
                [] => {}
                [TokenTree::Ident(key), colon, value @ ..]
                    if key == "target" && is_punct(colon, ':') =>
                {
                    target = value.last().map(ToString::to_string);
                }
                [TokenTree::Literal(text)] => {
                    let text: syn::LitStr = syn::parse2(TokenTree::from(text.clone()).into())?;
                    message = Some(text.value());
                }
                argument => {
                    let name = argument
                        .iter()
                        .find_map(|token| match token {
                            TokenTree::Ident(name) => Some(name.to_string()),
                            _ => None,
                        })
                        .context("a field has no name")?;
                    fields.insert(name);
                }
            }
        }
        let target = target.context("an event has no target: name one of log.rs")?;
        Ok(Event {
            target: self
                .targets
                .get(&target)
                .with_context(|| format!("log.rs has no target {target}"))?
                .clone(),
            level,
            message: message.context("an event has no message")?,
            fields,
        })
    }
}

/// `#[cfg(test)]`.
fn is_for_tests(tokens: &[TokenTree]) -> bool {
    matches!(tokens, [hash, TokenTree::Group(attribute), ..]
        if is_punct(hash, '#') && attribute.stream().to_string().replace(' ', "") == "cfg(test)")
}

/// `tracing::debug!(…)` or `log::event!(…)`: the name of the macro and its arguments.
fn invocation(tokens: &[TokenTree]) -> Option<(&'static str, TokenStream)> {
    const OF_TRACING: [&str; 10] = [
        "error",
        "warn",
        "info",
        "debug",
        "trace",
        "error_span",
        "warn_span",
        "info_span",
        "debug_span",
        "trace_span",
    ];

    let [
        TokenTree::Ident(module),
        colon,
        other,
        TokenTree::Ident(name),
        bang,
        TokenTree::Group(arguments),
        ..,
    ] = tokens
    else {
        return None;
    };
    if !is_punct(colon, ':') || !is_punct(other, ':') || !is_punct(bang, '!') {
        return None;
    }
    let names: &[&str] = match module.to_string().as_str() {
        "tracing" => &OF_TRACING,
        "log" => &["event"],
        _ => return None,
    };
    let name = names.iter().find(|known| name == **known)?;
    Some((name, arguments.stream()))
}

/// `condition => warn or debug, …`: the levels, and what follows.
fn two_levels(arguments: &[TokenTree]) -> Result<(String, Vec<TokenTree>)> {
    let arrow = arguments
        .windows(2)
        .position(|pair| is_punct(&pair[0], '=') && is_punct(&pair[1], '>'))
        .context("an event of two levels has no `=>`")?;
    let [
        TokenTree::Ident(first),
        _,
        TokenTree::Ident(second),
        rest @ ..,
    ] = &arguments[arrow + 2..]
    else {
        bail!("two levels are expected behind `=>`");
    };
    let levels = format!("{first} or {second}");
    let levels = levels.to_uppercase().replace(" OR ", " or ");
    Ok((levels, rest.to_vec()))
}

fn is_punct(token: &TokenTree, char: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == char)
}

fn is_braces(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
}

/// What the page's tables list: below the heading of each target, rows of level, message, fields,
/// and when.
fn listed(page: &str) -> Result<BTreeSet<Event>> {
    let mut events = BTreeSet::new();
    let mut target = None;
    for (index, line) in page.lines().enumerate() {
        if let Some(heading) = line.strip_prefix("## ") {
            target = between_backticks(heading).next().map(str::to_owned);
        }
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let (Some(target), ["", level, message, fields, when, ""]) = (&target, &cells[..]) else {
            continue;
        };
        if !["ERROR", "WARN", "INFO", "DEBUG", "TRACE"]
            .iter()
            .any(|known| level.starts_with(known))
        {
            continue;
        }
        let at = || format!("line {} of the page", index + 1);
        if when.is_empty() {
            bail!("{}: it is not said when this happens", at());
        }
        let message = between_backticks(message)
            .next()
            .with_context(|| format!("{}: the message stands between backticks", at()))?;
        let event = Event {
            target: target.clone(),
            level: (*level).to_owned(),
            message: message.to_owned(),
            fields: between_backticks(fields).map(str::to_owned).collect(),
        };
        if !events.insert(event) {
            bail!("{}: this is listed twice", at());
        }
    }
    Ok(events)
}

fn between_backticks(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r#"
        fn a() {
            tokio::select! {
                () = b => tracing::warn!(target: log::SERVER, %peer, error = %f(x, y), "one"),
            }
            log::event!(
                told.is_some_and(|told| told.yes) => info or debug,
                target: log::CLIENT,
                node = 1,
                "two, with a comma"
            );
            let span = tracing::debug_span!(target: log::CLIENT, "three", ?node);
        }
        #[cfg(test)]
        mod tests {
            fn a() { tracing::info!("no target") }
        }
    "#;

    const PAGE: &str = "
| level | message | fields | when |
|---|---|---|---|
## `gorums::client`, and more

| level | message | fields | when |
|---|---|---|---|
| INFO or DEBUG | `two, with a comma` | `node` | now |
| DEBUG span | `three` | `node` | then |
## `gorums::server`
| WARN | `one` | `error` `peer` | always |
";

    fn scan(source: &str) -> Result<BTreeSet<Event>> {
        let targets = targets(
            r#"const CLIENT: &str = "gorums::client"; const SERVER: &str = "gorums::server";"#,
        )?;
        let mut scan = Scan {
            targets: &targets,
            events: Vec::new(),
        };
        scan.tokens(source.parse().expect("Rust"))?;
        Ok(scan.events.into_iter().map(|(_, event)| event).collect())
    }

    #[test]
    fn events_are_found_wherever_they_stand_and_are_those_that_the_page_lists() {
        let found = scan(SOURCE).expect("well-formed");
        assert_eq!(found.len(), 3);
        assert_eq!(found, listed(PAGE).expect("well-formed"));
    }

    #[test]
    fn what_differs_in_any_part_is_another_event() {
        let found = scan(SOURCE).expect("well-formed");
        for (was, is) in [
            ("`node` | now", "`id` | now"),
            ("`error` `peer`", "`error`"),
            ("| WARN |", "| INFO |"),
            ("INFO or DEBUG", "INFO"),
            ("`one`", "`ones`"),
            ("`gorums::server`", "`gorums::handler`"),
        ] {
            let page = PAGE.replace(was, is);
            assert_ne!(found, listed(&page).expect("well-formed"), "{is}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        for (source, missing) in [
            (r#"tracing::info!("text")"#, "no target"),
            (r#"tracing::info!(target: log::OTHER, "text")"#, "OTHER"),
            ("tracing::info!(target: log::CLIENT, a = 1)", "no message"),
        ] {
            let error = scan(source).expect_err("it is wrong");
            assert!(format!("{error:#}").contains(missing), "{error:#}");
        }
        let twice = PAGE.replace("| WARN", "| WARN | `one` | `error` `peer` | once |\n| WARN");
        let error = listed(&twice).expect_err("it is wrong");
        assert!(error.to_string().contains("listed twice"), "{error}");
    }

    #[test]
    fn the_page_of_this_tree_holds() {
        run().expect("docs/observability.md lists every event and no other");
    }
}
