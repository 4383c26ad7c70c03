//! Whether the modules of `crates/gorums/src` are layered.
//!
//! Its rooms (folders, and files of the root) stand on floors. A room imports only rooms that stand
//! on floors below its own, so it can be read, tested and changed with nothing in mind but what is
//! below. There is no list of exceptions.
//!
//! An import counts for the file that defines what is imported: a `mod.rs` that hands on an item is
//! looked through, so it hides nothing. See [`tree`] for what is read and [`resolve`] for how.

mod graph;
mod resolve;
mod tree;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use graph::Graph;

use crate::workspace;

const CRATE: &str = "crates/gorums";
const PAGE: &str = "docs/architecture.md";
const BEGIN: &str = "<!-- layers: begin -->";
const END: &str = "<!-- layers: end -->";

/// The most files that may import each other in a circle. A circle never leaves its room.
const LARGEST_CIRCLE: usize = 5;

/// The rooms, floor by floor, the lowest first.
const FLOORS: &[&[Room]] = &[
    &[Room::new(
        "sync",
        "the locks, atomics and wakers that threads share, and those that a model checker puts in \
         their place",
    )],
    &[
        Room::new("node_id", "the number that names a node"),
        Room::new("bounds", "how often each bound was reached"),
    ],
    &[Room::new(
        "error",
        "what can go wrong, for a node, a call or a quorum",
    )],
    &[
        Room::new(
            "log",
            "what the log says: targets, how many lines, and how peers are named in it",
        ),
        Room::new("metadata", "the headers that go with a request or a reply"),
    ],
    &[Room::new(
        "runtime",
        "where bytes, time and tasks come from",
    )],
    &[
        Room::new(
            "wire",
            "bytes: envelope, length prefix, batches, HTTP/2 settings and headers",
        ),
        Room::new(
            "tls",
            "connections that are encrypted and prove who the peer is, with the feature of this name",
        ),
    ],
    &[
        Room::new(
            "handler",
            "how requests become replies: lane, turn, released handlers, registry, interceptors",
        ),
        Room::new(
            "channel",
            "what is in flight to one node: outbox, table of calls, parts, deadlines",
        ),
    ],
    &[Room::new(
        "stream",
        "one gRPC stream, from either end: reading, writing, keep-alive",
    )],
    &[Room::new("dial", "connecting, and connecting again")],
    &[Room::new(
        "configuration",
        "nodes and sets of nodes, how they come and go, and what is known of them",
    )],
    &[Room::new("quorum", "which sets of nodes are a quorum")],
    &[
        Room::new(
            "call",
            "a module for each call type, and how replies are collected",
        ),
        Room::new(
            "server",
            "accepting connections, and what is known of clients and peers",
        ),
        Room::new(
            "fuzzing",
            "what fuzzing does with the bytes of a peer, with the feature of this name; no part of \
             the API",
        ),
    ],
    &[Room {
        name: "the root",
        at: &["lib", "codegen", "testing", "limits"],
        what: "the names of the public API, what generated code and tests use",
    }],
];

/// A part of the crate that has its own place in the order.
struct Room {
    name: &'static str,
    /// The folders and files of the crate's root that belong to it, without `.rs`.
    at: &'static [&'static str],
    what: &'static str,
}

impl Room {
    /// A folder or file of the same name.
    const fn new(name: &'static str, what: &'static str) -> Self {
        Self {
            name,
            at: &[],
            what,
        }
    }

    fn has(&self, place: &str) -> bool {
        if self.at.is_empty() {
            self.name == place
        } else {
            self.at.contains(&place)
        }
    }
}

/// A room's place: its floor, counted from 0, and its number on it.
type Place = (usize, usize);

fn place_of(floors: &[&[Room]], file: &str) -> Option<Place> {
    let first = file.split('/').next().unwrap_or(file);
    let place = first.strip_suffix(".rs").unwrap_or(first);
    floors.iter().enumerate().find_map(|(floor, rooms)| {
        let room = rooms.iter().position(|room| room.has(place))?;
        Some((floor, room))
    })
}

/// Shows which rooms `crates/gorums/src` has, on which floors, and what they import.
///
/// Fails like `cargo xtask check layers`, but does not look at docs/architecture.md.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Writes the table into docs/architecture.md, between its two markers
    #[arg(long)]
    write: bool,
}

/// The command `cargo xtask layers`.
pub(crate) fn command(args: &Args) -> ExitCode {
    let result = read().and_then(|graph| {
        if args.write {
            write_page(&graph)?;
        }
        show(&graph)
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The step of the check.
pub(super) fn run() -> Result<()> {
    let graph = read()?;
    show(&graph)?;
    let page = fs::read_to_string(workspace::root().join(PAGE)).context(PAGE)?;
    compare(&page, &table(&graph, FLOORS, Detail::Page))
}

fn read() -> Result<Graph> {
    let root = workspace::root().join(CRATE);
    let externs = externs(&root.join("Cargo.toml"))?;
    Graph::read(&root.join("src"), &externs)
}

/// The names of the crates that the code may import from.
fn externs(manifest: &Path) -> Result<BTreeSet<String>> {
    fn collect(table: &toml::Table, names: &mut BTreeSet<String>) {
        for (key, value) in table {
            let Some(value) = value.as_table() else {
                continue;
            };
            match key.as_str() {
                "dependencies" | "dev-dependencies" => {
                    names.extend(value.keys().map(|name| name.replace('-', "_")));
                }
                "target" => value
                    .values()
                    .filter_map(toml::Value::as_table)
                    .for_each(|target| collect(target, names)),
                _ => {}
            }
        }
    }
    let text = fs::read_to_string(manifest).with_context(|| manifest.display().to_string())?;
    let table: toml::Table = toml::from_str(&text).context("reading Cargo.toml")?;
    let mut names = ["std", "core", "alloc"].map(str::to_owned).into();
    collect(&table, &mut names);
    Ok(names)
}

/// Prints the table and every mistake, and fails where there is one.
fn show(graph: &Graph) -> Result<()> {
    println!("{}", table(graph, FLOORS, Detail::Terminal));
    let mistakes = mistakes(graph, FLOORS);
    for mistake in &mistakes {
        println!("{mistake}");
    }
    match mistakes.len() {
        0 => Ok(()),
        1 => bail!("{CRATE}/src is not layered: one mistake, told above"),
        count => bail!("{CRATE}/src is not layered: {count} mistakes, told above"),
    }
}

fn mistakes(graph: &Graph, floors: &[&[Room]]) -> Vec<String> {
    let mut mistakes = Vec::new();
    for file in &graph.files {
        if place_of(floors, &file.path).is_none() {
            mistakes.push(format!(
                "{} belongs to no room: give it one in xtask/src/check/layers.rs",
                file.path
            ));
        }
    }
    for room in floors.iter().copied().flatten() {
        if !graph.files.iter().any(|file| room_is_at(room, &file.path)) {
            mistakes.push(format!(
                "the room `{}` has no file: take it out of xtask/src/check/layers.rs",
                room.name
            ));
        }
    }
    for import in &graph.imports {
        let (from, to) = (&graph.files[import.from].path, &graph.files[import.to].path);
        let (Some(above), Some(below)) = (place_of(floors, from), place_of(floors, to)) else {
            continue;
        };
        if above == below || below.0 < above.0 {
            continue;
        }
        let name = |place: Place| floors[place.0][place.1].name;
        let why = if below.0 == above.0 {
            "stands on the same floor"
        } else {
            "stands above it"
        };
        mistakes.push(format!(
            "{from}:{}: `{}` imports `{}`, which {why}: `{}` of {to}",
            import.line,
            name(above),
            name(below),
            import.path,
        ));
    }
    mistakes.extend(graph.circles(LARGEST_CIRCLE, |file| place_of(floors, file)));
    mistakes
}

fn room_is_at(room: &Room, file: &str) -> bool {
    place_of(&[std::slice::from_ref(room)], file).is_some()
}

/// What the table says. Numbers that change with each commit do not stand on the page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Detail {
    Page,
    Terminal,
}

fn table(graph: &Graph, floors: &[&[Room]], detail: Detail) -> String {
    let mut text = String::new();
    let counted = detail == Detail::Terminal;
    text += match detail {
        Detail::Page => "| floor | room | what is in it | imports |\n|---|---|---|---|\n",
        Detail::Terminal => {
            "| floor | room | files | lines | what is in it | imports |\n\
             |---|---|---|---|---|---|\n"
        }
    };
    for (floor, rooms) in floors.iter().enumerate() {
        for room in *rooms {
            let files = || {
                let files = graph.files.iter().enumerate();
                files.filter(|(_, file)| room_is_at(room, &file.path))
            };
            let numbers: BTreeSet<_> = files().map(|(number, _)| number).collect();
            let imported: BTreeSet<_> = graph
                .imports
                .iter()
                .filter(|import| numbers.contains(&import.from) && !numbers.contains(&import.to))
                .filter_map(|import| place_of(floors, &graph.files[import.to].path))
                .collect();
            let imported: Vec<_> = imported
                .into_iter()
                .map(|(floor, room)| shown(&floors[floor][room]))
                .collect();
            let imported = match imported.len() {
                0 => "nothing".to_owned(),
                _ => imported.join(", "),
            };
            let lines: usize = files().map(|(_, file)| file.lines).sum();
            let counts = if counted {
                format!("{} | {lines} | ", numbers.len())
            } else {
                String::new()
            };
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "| {} | {} | {counts}{} | {imported} |",
                floor + 1,
                shown(room),
                room.what
            );
        }
    }
    text
}

fn shown(room: &Room) -> String {
    if room.at.is_empty() {
        format!("`{}`", room.name)
    } else {
        room.name.to_owned()
    }
}

/// Fails where the page's table is another one.
fn compare(page: &str, table: &str) -> Result<()> {
    let (_, on_page, _) = parts(page)?;
    if on_page.trim() != table.trim() {
        bail!(
            "the table of rooms in {PAGE} is out of date: \
             `cargo xtask layers --write` writes it anew"
        );
    }
    Ok(())
}

fn write_page(graph: &Graph) -> Result<()> {
    let path = workspace::root().join(PAGE);
    let page = fs::read_to_string(&path).context(PAGE)?;
    let page = with_table(&page, &table(graph, FLOORS, Detail::Page))?;
    fs::write(&path, page).context(PAGE)
}

fn with_table(page: &str, table: &str) -> Result<String> {
    let (before, _, after) = parts(page)?;
    Ok(format!("{before}{BEGIN}\n{table}{END}{after}"))
}

/// What stands before the markers, between them and after them.
fn parts(page: &str) -> Result<(&str, &str, &str)> {
    let parts = page.split_once(BEGIN).and_then(|(before, rest)| {
        let (between, after) = rest.split_once(END)?;
        Some((before, between, after))
    });
    parts.with_context(|| format!("{PAGE} lacks the markers `{BEGIN}` and `{END}`"))
}

#[cfg(test)]
mod tests;
