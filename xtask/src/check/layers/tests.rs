use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::graph::Graph;
use super::*;

/// Three floors; the middle one has two rooms.
const SMALL: &[&[Room]] = &[
    &[Room::new("low", "what all use")],
    &[
        Room::new("left", "one side"),
        Room::new("right", "the other"),
    ],
    &[Room {
        name: "the root",
        at: &["lib"],
        what: "the names",
    }],
];

/// A crate's `src` in a folder of its own.
struct Sources(tempfile::TempDir);

impl Sources {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        Self(folder)
    }

    /// With the rooms of [`SMALL`], whose faces are given unless they are replaced.
    fn small(files: &[(&str, &str)]) -> Self {
        let mut all = vec![
            ("lib.rs", "mod left; mod low; mod right;"),
            ("left/mod.rs", "pub struct Left;"),
            ("low/mod.rs", "pub struct Low;"),
            ("right/mod.rs", "pub struct Right;"),
        ];
        all.extend(files);
        Self::new(&all)
    }

    fn read(&self) -> Result<Graph> {
        let externs: BTreeSet<_> = ["std", "tokio"].map(str::to_owned).into();
        Graph::read(self.0.path(), &externs)
    }

    fn graph(&self) -> Graph {
        self.read().expect("sources that can be read")
    }

    fn mistakes(&self) -> Vec<String> {
        mistakes(&self.graph(), SMALL)
    }

    /// Each import as `from:line -> to`.
    fn imports(&self) -> Vec<String> {
        let graph = self.graph();
        let path = |file: usize| graph.files[file].path.clone();
        let shown = |i: &graph::Import| format!("{}:{} -> {}", path(i.from), i.line, path(i.to));
        graph.imports.iter().map(shown).collect()
    }

    /// What one file imports, where all others import nothing.
    fn imports_of(file: &str, text: &str) -> Vec<String> {
        Self::small(&[(file, text)]).imports()
    }
}

#[test]
fn a_layered_crate_has_no_mistakes() {
    let sources = Sources::small(&[
        (
            "lib.rs",
            "mod left; mod low; mod right;\npub use left::Left;",
        ),
        (
            "left/mod.rs",
            "use crate::low::Low;\npub struct Left(pub Low);",
        ),
    ]);
    assert_eq!(sources.mistakes(), [""; 0]);
}

#[test]
fn an_import_from_above_is_found_with_its_file_and_line() {
    let sources = Sources::small(&[(
        "low/mod.rs",
        "//! The lowest.\n\nuse crate::left::Left;\npub struct Low(Left);",
    )]);
    assert_eq!(
        sources.mistakes(),
        [
            "low/mod.rs:3: `low` imports `left`, which stands above it: \
             `crate::left::Left` of left/mod.rs"
        ]
    );
}

#[test]
fn an_import_from_the_same_floor_is_found() {
    let sources = Sources::small(&[("left/mod.rs", "pub struct Left(crate::right::Right);")]);
    let mistakes = sources.mistakes();
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    assert!(
        mistakes[0].contains("left/mod.rs:1: `left` imports `right`")
            && mistakes[0].contains("stands on the same floor"),
        "{mistakes:?}"
    );
}

#[test]
fn a_module_that_is_imported_from_above_is_found_though_nothing_of_it_is_used() {
    let sources = Sources::small(&[("low/mod.rs", "use crate::{left as other};")]);
    assert_eq!(sources.mistakes().len(), 1, "{:?}", sources.mistakes());
}

#[test]
fn faces_are_looked_through_to_the_file_that_defines_an_item() {
    let sources = Sources::small(&[
        ("lib.rs", "mod left; mod low; mod right;\npub use left::*;"),
        ("low/mod.rs", "mod deep;\npub use deep::{Deep as Renamed};"),
        ("low/deep.rs", "pub struct Deep;"),
        ("left/mod.rs", "pub use crate::low::Renamed as Again;"),
        ("right/mod.rs", "use crate::Again;"),
    ]);
    assert_eq!(
        sources.imports(),
        [
            "lib.rs:2 -> left/mod.rs",
            "lib.rs:2 -> low/deep.rs",
            "left/mod.rs:1 -> low/deep.rs",
            "low/mod.rs:2 -> low/deep.rs",
            "right/mod.rs:1 -> low/deep.rs",
        ]
    );
}

#[test]
fn what_comes_from_another_crate_counts_for_the_file_that_hands_it_on() {
    let sources = Sources::small(&[
        (
            "low/mod.rs",
            "use std::fmt;\npub use std::sync::{Arc as Shared};",
        ),
        (
            "left/mod.rs",
            "use crate::low::Shared;\nfn f() { Shared::new(1); }",
        ),
    ]);
    assert_eq!(sources.imports(), ["left/mod.rs:1 -> low/mod.rs"]);
}

#[test]
fn what_a_macro_declares_is_known_where_its_tokens_say_so() {
    let sources = Sources::small(&[
        (
            "low/mod.rs",
            "std::thread_local! { pub(crate) static CURRENT: u8 = const { 1 }; }",
        ),
        ("left/mod.rs", "use crate::low::CURRENT;"),
    ]);
    assert_eq!(sources.imports(), ["left/mod.rs:1 -> low/mod.rs"]);
}

#[test]
fn every_place_of_a_path_is_read() {
    for text in [
        "fn f() { let _ = crate::low::Low; }",
        "fn f() -> Option<crate::low::Low> { None }",
        "fn f(_: &dyn Fn(crate::low::Low)) {}",
        "impl From<crate::low::Low> for u8 {}",
        "fn f() { use crate::low::Low as L; }",
        "fn f() { match 1 { _ => crate::low::Low::new() } }",
        "fn f() { <u8 as crate::low::Low>::f() }",
        "fn f() { tokio::select! { x = crate::low::Low::new() => {} } }",
        "fn f() { assert!(matches!(1, [crate::low::Low])) }",
        "macro_rules! m { () => { $crate::low::Low } }",
        "macro_rules! m { () => { use $crate::low::{Low, self}; } }",
        "use {super::{low::{Low}}};",
        "use self::super::low::Low;",
        "mod inner { use super::super::low::Low; }",
        "mod inner { pub use super::Low; }\nuse crate::low::Low;",
        "use crate::low;\nfn f() { low::Low::new(); }",
        "use crate::low;\nfn f() { println!(\"{}\", low::Low); }",
        "fn f() { use crate::low; low::Low::new(); }",
        "use crate::low::*;",
    ] {
        let imports = Sources::imports_of("left/mod.rs", text);
        assert!(
            imports
                .iter()
                .any(|import| import.ends_with("-> low/mod.rs")),
            "{text}: {imports:?}"
        );
    }
}

#[test]
fn what_only_tests_see_is_left_out() {
    for text in [
        "#[cfg(test)] use crate::low::Low;",
        "#[cfg(test)] mod tests { use crate::low::Low; }",
        "#[cfg(test)] mod no_such_file;",
        "#[cfg(all(test, unix))] mod no_such_file;",
        "#[cfg(any(test))] fn f() -> crate::low::Low {}",
        "#[test] fn f() { crate::low::f(); }",
        "#[tokio::test] async fn f() { crate::low::f(); }",
        "struct S; impl S { #[cfg(test)] fn f(_: crate::low::Low) {} }",
        "struct S { #[cfg(test)] low: crate::low::Low }",
        "fn f() { #[cfg(test)] crate::low::f(); }",
        "fn f() { #[cfg(test)] { crate::low::f(); } }",
        "fn f() { #[cfg(test)] let low = crate::low::Low; }",
        "fn f() { match 1 { #[cfg(test)] 2 => crate::low::f(), _ => {} } }",
    ] {
        let imports = Sources::imports_of("left/mod.rs", text);
        assert_eq!(imports, [""; 0], "{text}");
    }
}

#[test]
fn what_other_builds_see_too_counts() {
    for text in [
        "#[cfg(not(test))] use crate::low::Low;",
        "#[cfg(any(test, unix))] use crate::low::Low;",
        "#[cfg(not(all(test, unix)))] use crate::low::Low;",
        "#[cfg_attr(test, allow(unused))] use crate::low::Low;",
        "#[cfg(feature = \"test\")] use crate::low::Low;",
    ] {
        let imports = Sources::imports_of("left/mod.rs", text);
        assert_eq!(imports, ["left/mod.rs:1 -> low/mod.rs"], "{text}");
    }
}

#[test]
fn documentation_visibility_and_other_crates_import_nothing() {
    for text in [
        "/// See [`crate::low::Low`].\npub struct Left;",
        "//! Like [Low](crate::low::Low).",
        "pub(in crate::left) struct Left;",
        "use std::sync::Arc;\nfn f(_: Arc<std::sync::Mutex<u8>>) {}",
        "use ::low::Low;",
        "fn f() { ::low::f(); m!(::low::f()); }",
        "fn f() { x.low::<u8>(); }",
    ] {
        let imports = Sources::imports_of("left/mod.rs", text);
        assert_eq!(imports, [""; 0], "{text}");
    }
}

#[test]
fn a_glob_brings_what_can_be_seen_and_nothing_else() {
    let sources = Sources::small(&[
        (
            "low/mod.rs",
            "mod open;\nmod shut;\npub use open::*;\nuse shut::Shut;\nfn f(_: Shut) {}",
        ),
        ("low/open.rs", "pub enum Open { A }"),
        ("low/shut.rs", "pub struct Shut;"),
        ("left/mod.rs", "use crate::low::*;\nuse Open::*;"),
    ]);
    let of_left: Vec<_> = sources
        .imports()
        .into_iter()
        .filter(|import| import.starts_with("left"))
        .collect();
    assert_eq!(
        of_left,
        [
            // The module itself, and the one of its items that is not private.
            "left/mod.rs:1 -> low/mod.rs",
            "left/mod.rs:1 -> low/open.rs",
            "left/mod.rs:2 -> low/open.rs",
        ]
    );
}

#[test]
fn a_name_that_is_a_module_and_a_function_is_both() {
    let sources = Sources::small(&[
        ("low/mod.rs", "mod run;\npub use run::run;"),
        ("low/run.rs", "pub fn run() {}"),
        ("left/mod.rs", "use crate::low::run;"),
    ]);
    assert_eq!(
        sources.imports(),
        [
            // Once for the function, once for the module.
            "left/mod.rs:1 -> low/run.rs",
            "left/mod.rs:1 -> low/run.rs",
            "low/mod.rs:2 -> low/run.rs",
        ]
    );
}

#[test]
fn a_path_that_leads_nowhere_is_told_with_its_place() {
    for (text, line, expected) in [
        ("\nuse crate::low::Gone;", 2, "no `Gone` in crate::low"),
        ("fn f() { crate::gone::f() }", 1, "no `gone` in crate"),
        ("m!(crate::low::gone());", 1, "no `gone` in crate::low"),
        ("use super::super::x;", 1, "the crate's root has no `super`"),
        ("use a::x;\nuse b::x as a;", 1, "cannot be resolved"),
        (
            "use crate::left::a as b;\nuse b as a;",
            1,
            "cannot be resolved",
        ),
        ("use unheard_of::x;", 1, "nor a crate that it depends on"),
        ("use crate::low;\nfn f() { low::gone() }", 2, "no `gone`"),
    ] {
        let error = Sources::small(&[("left/mod.rs", text)]).read().unwrap_err();
        let error = format!("{error:#}");
        assert!(
            error.contains(expected) && error.contains(&format!("left/mod.rs:{line}: ")),
            "{text:?}: {error}"
        );
    }
}

#[test]
fn sources_that_cannot_be_followed_are_an_error() {
    for (text, expected) in [
        ("fn f( {}", "left/mod.rs:1: "),
        ("mod gone;", "crate::left::gone has no file"),
        ("#[path = \"x.rs\"] mod x;", "has a #[path]"),
        ("fn f() { mod inner {} }", "a module inside a function"),
    ] {
        let error = Sources::small(&[("left/mod.rs", text)]).read().unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains(expected), "{text:?}: {error}");
    }
}

#[test]
fn modules_lie_in_folders_or_files_of_their_name() {
    let sources = Sources::small(&[
        ("left/mod.rs", "mod a; mod inline { mod c; }"),
        ("left/a.rs", "mod b;"),
        ("left/a/b.rs", "use super::super::super::low::Low;"),
        ("left/inline/c.rs", "use crate::low::Low;"),
    ]);
    assert_eq!(
        sources.imports(),
        [
            "left/a/b.rs:1 -> low/mod.rs",
            "left/inline/c.rs:1 -> low/mod.rs"
        ]
    );
}

/// A room whose files import each other in a ring.
fn ring(size: usize) -> Sources {
    let names: Vec<_> = (0..size).map(|n| format!("f{n}")).collect();
    let face: String = names.iter().map(|name| format!("mod {name};\n")).collect();
    let mut files = vec![("low/mod.rs".to_owned(), face)];
    for (n, name) in names.iter().enumerate() {
        let next = (n + 1) % size;
        let text = format!("pub struct T{n};\nuse super::f{next}::T{next};");
        files.push((format!("low/{name}.rs"), text));
    }
    let files: Vec<_> = files
        .iter()
        .map(|(a, b)| (a.as_str(), b.as_str()))
        .collect();
    Sources::small(&files)
}

#[test]
fn a_circle_of_five_files_is_borne_and_one_of_six_is_not() {
    assert_eq!(ring(5).mistakes(), [""; 0]);
    let mistakes = ring(6).mistakes();
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    for part in [
        "6 files import each other in a circle, and more than 5 are too many",
        "low/f0.rs, low/f1.rs, low/f2.rs, low/f3.rs, low/f4.rs, low/f5.rs",
        "low/f5.rs:2 imports `super::f0::T0` of low/f0.rs",
    ] {
        assert!(mistakes[0].contains(part), "{part:?}: {mistakes:?}");
    }
}

#[test]
fn a_circle_that_leaves_its_room_is_told_with_the_way_round() {
    let sources = Sources::small(&[
        ("left/mod.rs", "use crate::low::Low;\npub struct Left;"),
        ("low/mod.rs", "pub struct Low;\nuse crate::left::Left;"),
    ]);
    let mistakes = sources.mistakes();
    assert_eq!(mistakes.len(), 2, "the import and the circle: {mistakes:?}");
    assert_eq!(
        mistakes[1],
        "2 files import each other in a circle, and do not all lie in one room: left/mod.rs, \
         low/mod.rs; one way round:\
         \n    left/mod.rs:1 imports `crate::low::Low` of low/mod.rs\
         \n    low/mod.rs:2 imports `crate::left::Left` of left/mod.rs"
    );
}

#[test]
fn a_file_without_a_room_and_a_room_without_a_file_are_mistakes() {
    let sources = Sources::new(&[
        ("lib.rs", "mod low; mod left; mod extra;"),
        ("low/mod.rs", ""),
        ("left.rs", ""),
        ("extra.rs", ""),
    ]);
    let mistakes = sources.mistakes();
    assert_eq!(mistakes.len(), 2, "{mistakes:?}");
    assert!(mistakes[0].starts_with("extra.rs belongs to no room"));
    assert!(mistakes[1].starts_with("the room `right` has no file"));
}

#[test]
fn the_table_has_a_row_for_each_room() {
    let graph = Sources::small(&[("left/mod.rs", "use crate::low::Low;\npub struct Left;")]);
    let graph = graph.graph();
    assert_eq!(
        table(&graph, SMALL, Detail::Page),
        "| floor | room | what is in it | imports |\n\
         |---|---|---|---|\n\
         | 1 | `low` | what all use | nothing |\n\
         | 2 | `left` | one side | `low` |\n\
         | 2 | `right` | the other | nothing |\n\
         | 3 | the root | the names | nothing |\n"
    );
    let counted = table(&graph, SMALL, Detail::Terminal);
    assert!(
        counted.contains("| 2 | `left` | 1 | 2 | one side | `low` |"),
        "{counted}"
    );
}

#[test]
fn a_page_with_another_table_is_told_how_to_mend_it() {
    let page = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
    let error = compare(&page, "new\n").unwrap_err().to_string();
    assert!(error.contains("cargo xtask layers --write"), "{error}");
    let mended = with_table(&page, "new\n").expect("a page with markers");
    assert_eq!(mended, format!("before\n{BEGIN}\nnew\n{END}\nafter\n"));
    assert!(compare(&mended, "new\n").is_ok());
    let error = compare("no markers", "new\n").unwrap_err().to_string();
    assert!(error.contains("lacks the markers"), "{error}");
}

#[test]
fn names_of_other_crates_are_read_from_the_manifest() {
    let folder = tempfile::tempdir().expect("a folder");
    let path: PathBuf = folder.path().join("Cargo.toml");
    let manifest = "[dependencies]\na-b = \"1\"\n\
                    [target.'cfg(unix)'.dev-dependencies]\nc = { version = \"1\" }\n";
    fs::write(&path, manifest).expect("a file");
    let externs = externs(&path).expect("a manifest");
    assert_eq!(
        externs.into_iter().collect::<Vec<_>>(),
        ["a_b", "alloc", "c", "core", "std"]
    );
}
