//! From `.proto` files to descriptors, without an installed `protoc`.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use protox::file::{File, FileResolver, GoogleFileResolver, IncludeFileResolver};

use crate::descriptor::{DescriptorSet, Targets};
use crate::error::{Diagnostic, Position};

/// The options of Gorums, as `import "gorums.proto"` finds them.
pub(crate) const GORUMS_PROTO: &str = include_str!("../proto/gorums.proto");

const GORUMS_PROTO_NAME: &str = "gorums.proto";

/// What came of compiling some files.
pub(crate) struct Compiled {
    /// Descriptors of all files that could be compiled, with their imports.
    pub(crate) descriptors: DescriptorSet,
    /// What keeps the others from being compiled.
    pub(crate) mistakes: Vec<Diagnostic>,
}

/// Compiles `.proto` files and what they import.
///
/// A file that cannot be compiled does not stop the others, so that one run finds the mistakes of
/// all.
pub(crate) fn compile(protos: &[PathBuf], includes: &[PathBuf]) -> Compiled {
    let opened = Rc::new(RefCell::new(Opened::default()));
    let mut compiler = protox::Compiler::with_file_resolver(Sources::new(includes, &opened));
    compiler.include_imports(true).include_source_info(true);

    let mut mistakes = Vec::new();
    for proto in protos {
        if let Err(error) = compiler.open_file(proto) {
            // Editions are told in our own words, from `Opened`.
            if error.to_string() != EDITION_REFUSED {
                mistakes.push(front_end_mistake(&error, &opened.borrow().paths));
            }
        }
    }

    let targets: BTreeSet<String> = compiler
        .files()
        .filter(|file| !file.is_import())
        .map(|file| file.name().to_owned())
        .collect();
    let encoded = compiler.encode_file_descriptor_set();
    let opened = opened.take();
    mistakes.extend(opened.editions);
    Compiled {
        descriptors: DescriptorSet {
            encoded,
            targets: Targets::Named(targets),
            paths: opened.paths,
        },
        mistakes,
    }
}

/// The mistake of a file that is written in a protobuf edition.
pub(crate) fn edition_mistake(position: Position, edition: Option<&str>) -> Diagnostic {
    let what = match edition {
        Some(edition) => format!("`edition = \"{edition}\"` is not supported yet"),
        None => "protobuf editions are not supported yet".to_owned(),
    };
    Diagnostic::new(Some(position), what)
        .with_help("begin the file with `syntax = \"proto3\";` or `syntax = \"proto2\";` instead")
}

/// Passed through protox to recognise an error that is already noted.
const EDITION_REFUSED: &str = "protobuf editions are not supported";

/// What the resolver learnt on the way.
#[derive(Default)]
struct Opened {
    /// Files read from disk, by the name that imports give them.
    paths: BTreeMap<String, PathBuf>,
    /// Files refused because of their edition.
    editions: Vec<Diagnostic>,
}

/// Finds files in the include folders, then `gorums.proto` and the well-known types in this crate.
struct Sources {
    includes: Vec<IncludeFolder>,
    well_known: GoogleFileResolver,
    opened: Rc<RefCell<Opened>>,
}

struct IncludeFolder {
    path: PathBuf,
    resolver: IncludeFileResolver,
}

impl Sources {
    fn new(includes: &[PathBuf], opened: &Rc<RefCell<Opened>>) -> Self {
        let folder = |path: &PathBuf| IncludeFolder {
            path: path.clone(),
            resolver: IncludeFileResolver::new(path.clone()),
        };
        Self {
            includes: includes.iter().map(folder).collect(),
            well_known: GoogleFileResolver::new(),
            opened: Rc::clone(opened),
        }
    }

    fn open_from_disk(&self, name: &str) -> Result<Option<File>, protox::Error> {
        for include in &self.includes {
            let path = include.path.join(name);
            if !path.is_file() {
                continue;
            }
            let edition = fs::read_to_string(&path)
                .ok()
                .and_then(|source| Edition::of(&source));
            if let Some(edition) = edition {
                if name == GORUMS_PROTO_NAME {
                    // The Go library's own copy: an edition file that declares what ours declares.
                    continue;
                }
                let position = Position {
                    file: path.display().to_string(),
                    start: Some((edition.line, edition.column)),
                };
                let mistake = edition_mistake(position, Some(&edition.name));
                self.opened.borrow_mut().editions.push(mistake);
                return Err(protox::Error::new(EDITION_REFUSED));
            }
            self.opened
                .borrow_mut()
                .paths
                .insert(name.to_owned(), path.clone());
            return File::open(name, &path).map(Some);
        }
        Ok(None)
    }
}

impl FileResolver for Sources {
    fn resolve_path(&self, path: &Path) -> Option<String> {
        self.includes
            .iter()
            .find_map(|include| include.resolver.resolve_path(path))
    }

    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if let Some(file) = self.open_from_disk(name)? {
            return Ok(file);
        }
        if name == GORUMS_PROTO_NAME {
            return File::from_source(name, GORUMS_PROTO);
        }
        self.well_known.open_file(name)
    }
}

/// Turns an error of protox into one of ours, with the path on disk in place of the import name.
fn front_end_mistake(error: &protox::Error, paths: &BTreeMap<String, PathBuf>) -> Diagnostic {
    let Some(name) = error.file() else {
        let mistake = Diagnostic::new(None, error.to_string());
        return if error.is_file_not_found() {
            mistake
                .with_help("one of the include folders has to contain the file; is its path right?")
        } else {
            mistake
        };
    };
    let shown_as = match paths.get(name) {
        Some(path) => path.display().to_string(),
        None => name.to_owned(),
    };
    let mut message = error.to_string();
    if let Some(source) = std::error::Error::source(error) {
        message = format!("{message}: {source}");
    }
    let names_our_package = message.contains("'gorums.");
    let position = Position {
        file: shown_as,
        start: reported_start(name, error),
    };
    let mistake = Diagnostic::new(Some(position), message);
    if names_our_package {
        mistake.with_help("`import \"gorums.proto\";` gives the options `rpc`, `unicast`, `multicast` and `quorumcall` of the package `gorums`")
    } else {
        mistake
    }
}

/// The line and column of a protox error, which gives them in its `Debug` text only:
/// `FILE:LINE:COLUMN: MESSAGE`.
fn reported_start(file: &str, error: &protox::Error) -> Option<(u32, u32)> {
    let text = format!("{error:?}");
    // An import that is not found has one more colon after the file.
    let position = text.strip_prefix(file)?.trim_start_matches(':');
    let mut numbers = position.splitn(3, ':');
    let line = numbers.next()?.parse().ok()?;
    let column = numbers.next()?.parse().ok()?;
    Some((line, column))
}

/// The `edition = "…"` statement that opens a file in the place of `syntax`.
struct Edition {
    name: String,
    line: u32,
    column: u32,
}

impl Edition {
    /// Looks at the first statement of a file. protox would stop there with a plain parse error.
    fn of(source: &str) -> Option<Self> {
        let statement = skip_blanks(source.trim_start_matches('\u{feff}'));
        let value = skip_blanks(statement.strip_prefix("edition")?).strip_prefix('=')?;
        let value = skip_blanks(value);
        let name = value
            .trim_start_matches(['"', '\''])
            .split(['"', '\'', ';', '\n'])
            .next()
            .unwrap_or_default();
        let before = &source[..source.len() - statement.len()];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Some(Self {
            name: name.to_owned(),
            line: count(before.matches('\n').count() + 1),
            column: count(before[line_start..].chars().count() + 1),
        })
    }
}

/// Drops white space and comments from the start of a source text.
fn skip_blanks(mut source: &str) -> &str {
    loop {
        source = source.trim_start();
        if let Some(comment) = source.strip_prefix("//") {
            source = comment.find('\n').map_or("", |end| &comment[end..]);
        } else if let Some(comment) = source.strip_prefix("/*") {
            source = comment.find("*/").map_or("", |end| &comment[end + 2..]);
        } else {
            return source;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edition_is_found_behind_comments() {
        let edition = Edition::of("/* a\n b */ // c\n  edition /* d */ = '2024';\n")
            .expect("the file begins with an edition");
        assert_eq!(
            (edition.name.as_str(), edition.line, edition.column),
            ("2024", 3, 3)
        );
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
            assert!(Edition::of(source).is_none(), "{source}");
        }
    }

    #[test]
    fn the_files_read_from_disk_are_known_by_their_paths() {
        let folder = PathBuf::from("tests/proto");
        let compiled = compile(&[PathBuf::from("nested/store.proto")], &[folder]);
        assert_eq!(compiled.mistakes, []);
        let paths: Vec<_> = compiled.descriptors.paths.values().collect();
        assert_eq!(
            paths,
            [
                Path::new("tests/proto/nested/common.proto"),
                Path::new("tests/proto/nested/store.proto")
            ]
        );
    }

    #[test]
    fn the_shipped_options_have_the_numbers_of_the_go_library() {
        let compiled = compile(&[PathBuf::from("gorums.proto")], &[]);
        assert_eq!(compiled.mistakes, []);
        let files = compiled.descriptors.files().expect("descriptors decode");
        let gorums = files.last().expect("dependencies come first");
        assert_eq!(gorums.proto.package(), "gorums");
        assert_eq!(gorums.proto.syntax(), "");
        let options: Vec<_> = gorums
            .proto
            .extension
            .iter()
            .map(|option| (option.name(), option.number(), option.extendee()))
            .collect();
        let of_methods = ".google.protobuf.MethodOptions";
        assert_eq!(
            options,
            [
                ("rpc", 50001, of_methods),
                ("unicast", 50002, of_methods),
                ("multicast", 50003, of_methods),
                ("quorumcall", 50004, of_methods),
                ("correctable", 50005, of_methods),
                ("async", 50010, of_methods),
                ("per_node_arg", 50020, of_methods),
                ("custom_return_type", 50030, of_methods),
            ]
        );
    }
}
