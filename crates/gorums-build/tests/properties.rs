//! Random `.proto` files with names that are likely to meet: each is refused for a mistake that it
//! names, or becomes Rust that compiles.
//!
//! A case is a few files that import each other. `GORUMS_DESCRIPTORS` says how many files there are
//! at least, `GORUMS_SEED` with which case they begin:
//!
//! ```sh
//! GORUMS_DESCRIPTORS=5000 cargo test -p gorums-build --test properties
//! ```

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::{env, fs};

mod support;

/// How many cases one crate takes, so that rustc keeps within a gigabyte or two.
const CASES_OF_A_CRATE: u64 = 200;

#[test]
fn what_is_not_refused_compiles() {
    let number = |name: &str, default: u64| match env::var(name) {
        Ok(text) => text.parse().expect("it is a number"),
        Err(_) => default,
    };
    let wanted = number("GORUMS_DESCRIPTORS", 200);
    let mut seed = number("GORUMS_SEED", 1);
    let mut all = Counts::default();
    while all.files < wanted {
        // A case has two files on average.
        let cases = ((wanted - all.files) / 2 + 1).min(CASES_OF_A_CRATE);
        check_cases(seed..seed + cases, &mut all);
        seed += cases;
        println!("below GORUMS_SEED={seed}: {all:?}");
    }
    // Cases that are refused prove less than those that compile.
    assert!(
        all.compiled * 2 > all.cases,
        "too many are refused: {all:?}"
    );
}

#[derive(Debug, Default)]
struct Counts {
    files: u64,
    cases: u64,
    compiled: u64,
}

/// Generates some cases, and compiles those that are not refused.
fn check_cases(seeds: std::ops::Range<u64>, all: &mut Counts) {
    let generated = support::GeneratedCrate::new("gorums-properties");
    let protos = tempfile::tempdir().expect("a temporary folder");
    let mut lib = String::new();
    for seed in seeds {
        let files = Case::new(seed).files();
        all.files += u64::try_from(files.len()).expect("a few");
        all.cases += 1;
        let names: Vec<String> = (0..files.len())
            .map(|index| format!("case_{seed}_{index}.proto"))
            .collect();
        for (name, text) in names.iter().zip(&files) {
            fs::write(protos.path().join(name), text).expect("the folder is writable");
        }
        let out = generated.generated().join(format!("case_{seed}"));
        fs::create_dir(&out).expect("the folder is writable");
        let result = gorums_build::configure()
            .out_dir(&out)
            .include_file("all.rs")
            .emit_rerun_if_changed(false)
            .generate_default_stubs(seed % 2 == 0)
            .compile_protos(&names, &[protos.path()]);
        match result {
            Ok(()) => {
                all.compiled += 1;
                writeln!(
                    lib,
                    "mod case_{seed} {{ include!(\"generated/case_{seed}/all.rs\"); }}"
                )
                .expect("writing to a string does not fail");
            }
            Err(error) => assert_names_something(seed, &error, &files),
        }
    }
    lib.insert_str(0, "#![deny(warnings)]\n#![allow(dead_code)]\n");
    if let Err(message) = generated.check(&lib) {
        let wrong: BTreeSet<u64> = message
            .split("generated/case_")
            .skip(1)
            .filter_map(|rest| rest.split('/').next()?.parse().ok())
            .collect();
        let sources = wrong.iter().take(3).map(|seed| {
            let files = Case::new(*seed).files().join("\n// ----\n");
            format!("// ==== GORUMS_SEED={seed}\n{files}")
        });
        let sources: Vec<String> = sources.collect();
        panic!(
            "{} cases do not compile: {wrong:?}\n{message}\n{}",
            wrong.len(),
            sources.join("\n")
        );
    }
}

/// A mistake has its place, and quotes a name that stands in the files.
fn assert_names_something(seed: u64, error: &gorums_build::Error, files: &[String]) {
    let shown = || format!("GORUMS_SEED={seed}: {error}\n{}", files.join("\n// ----\n"));
    assert!(!error.diagnostics().is_empty(), "{}", shown());
    for mistake in error.diagnostics() {
        assert!(mistake.line().is_some(), "no place: {}", shown());
        let quoted = mistake.message().split(['`', '\'']).skip(1).step_by(2);
        let named = quoted
            .filter_map(|name| name.rsplit('.').next())
            .any(|name| !name.is_empty() && files.iter().any(|file| file.contains(name)));
        assert!(named, "no name: {}", shown());
    }
}

/// Words that mean something to Rust, to prost or to us, and words that differ by little.
const WORDS: &[&str] = &[
    "as",
    "break",
    "const",
    "else",
    "enum",
    "fn",
    "for",
    "impl",
    "in",
    "let",
    "loop",
    "match",
    "mod",
    "move",
    "mut",
    "pub",
    "ref",
    "static",
    "struct",
    "trait",
    "true",
    "type",
    "unsafe",
    "use",
    "where",
    "while",
    "dyn",
    "abstract",
    "box",
    "final",
    "macro",
    "virtual",
    "yield",
    "async",
    "await",
    "try",
    "gen",
    "super",
    "self",
    "Self",
    "extern",
    "crate",
    "union",
    "raw",
    "bool",
    "i32",
    "u8",
    "u32",
    "u64",
    "f32",
    "f64",
    "str",
    "char",
    "usize",
    "string",
    "bytes",
    "core",
    "std",
    "alloc",
    "prost",
    "gorums",
    "google",
    "message",
    "Message",
    "Enumeration",
    "Oneof",
    "Option",
    "Some",
    "None",
    "Vec",
    "Result",
    "Ok",
    "Err",
    "Error",
    "Box",
    "String",
    "Default",
    "Clone",
    "Copy",
    "Debug",
    "Eq",
    "Hash",
    "From",
    "Into",
    "TryFrom",
    "Iterator",
    "Send",
    "Sync",
    "Sized",
    "Future",
    "Arc",
    "Fn",
    "Drop",
    "Status",
    "Code",
    "Client",
    "Server",
    "Node",
    "Configuration",
    "Registry",
    "Service",
    "ReplySender",
    "ServerCtx",
    "Rpc",
    "Unicast",
    "Multicast",
    "QuorumCall",
    "Defaults",
    "MethodDefaults",
    "T",
    "H",
    "A",
    "B",
    "Foo",
    "foo",
    "foo_bar",
    "fooBar",
    "FooBar",
    "Foo_Bar",
    "foo__bar",
    "FOO_BAR",
    "foobar",
    "FooClient",
    "foo_client",
    "FooServer",
    "foo_server",
    "_foo",
    "foo_",
    "foo1",
    "foo_1",
    "Foo1",
    "_1",
    "x",
    "new",
    "on",
    "clone",
    "clone_from",
    "with_timeout",
    "with_metadata",
    "with_foo_defaults",
    "configuration",
    "poll",
    "into",
    "default",
    "fmt",
    "eq",
    "drop",
    "encode",
    "encode_raw",
    "decode",
    "merge",
    "merge_field",
    "clear",
    "encoded_len",
    "name",
    "register",
    "from_arc",
    "from_i32",
    "is_valid",
    "as_str_name",
    "from_str_name",
    "get",
    "set",
    "set_foo",
    "get_foo",
    "push_foo",
    "insert_foo",
    "key",
    "value",
    "tag",
    "buf",
    "ctx",
    "request",
    "response",
    "replies",
    "service",
    "client",
    "defaults",
    "limits",
    "apply",
    "unary",
    "one_way",
    "streaming",
    "full_name",
    "type_url",
    "SERVICE_NAME",
    "NAME",
    "PACKAGE",
    "STRUCT_NAME",
    "Inner",
    "ScalarWrapper",
    "MapWrapper",
    "KeyWrapper",
    "ValueWrapper",
    "FooOneOf",
    "HashMap",
    "BTreeMap",
    "Unspecified",
    "V",
    "K",
    "a",
    "b",
    "of",
    "wrapper",
    "builder",
    "wire_type",
    "UnknownEnumValue",
    "DecodeError",
    "Context",
    "Duration",
    "Timestamp",
    "AsRef",
];

const SCALARS: &[&str] = &[
    "double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32",
    "fixed64", "sfixed32", "sfixed64", "bool", "string", "bytes",
];

const PACKAGES: &[&str] = &[
    "",
    "a",
    "a.b",
    "a.foo_client",
    "a.foo",
    "a.type",
    "type.async",
    "Foo.Bar",
    "foo.bar",
    "core",
    "std.fmt",
    "self.super",
    "foo_bar",
    "fooBar.v1",
    "prost",
    "gorums",
    "google",
    "google.rpc",
    "a.bool",
    "x.y.z.w",
];

const COMMENTS: &[&str] = &[
    "// Text.\n",
    "//     code!\n",
    "// ```\n// code!\n// ```\n",
    "/* Block\n * ``` */\n",
    "// - item\n//\n//       code!\n",
    "// > quote\n//     lazy\n",
    "/// three\n",
    "//! inner\n",
    "// x \u{202e}y\n",
    "// # Heading\n//     code!\n",
    "// [a]: b\n// */ /*\n",
    "// \\\"quoted\\\" #[x]\n",
];

/// A few files, each of which imports those before it.
struct Case {
    seed: u64,
    random: Random,
    /// Full names with a leading dot.
    messages: Vec<String>,
    enums: Vec<Enum>,
    text: String,
    proto2: bool,
}

struct Enum {
    full_name: String,
    proto2: bool,
    values: Vec<String>,
}

/// The names that are taken in a scope: as they are written, and as Rust may see them, for each
/// kind of item.
#[derive(Default)]
struct Scope {
    exact: BTreeSet<String>,
    alike: BTreeSet<(Kind, String)>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Type,
    Field,
    Value,
    Service,
    Method,
}

impl Case {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            messages: vec![
                ".google.protobuf.Empty".to_owned(),
                ".google.protobuf.StringValue".to_owned(),
            ],
            enums: Vec::new(),
            text: String::new(),
            proto2: false,
        }
    }

    fn files(mut self) -> Vec<String> {
        let count = 1 + self.random.below(3);
        (0..count).map(|index| self.file(index)).collect()
    }

    fn file(&mut self, index: usize) -> String {
        self.proto2 = self.random.one_in(2);
        let syntax = if self.proto2 { "proto2" } else { "proto3" };
        let package = self.random.pick(PACKAGES);
        self.line(&format!("syntax = \"{syntax}\";"));
        let around = if package.is_empty() {
            String::new()
        } else {
            self.line(&format!("package {package};"));
            format!(".{package}")
        };
        for import in [
            "gorums",
            "google/protobuf/empty",
            "google/protobuf/wrappers",
        ] {
            self.line(&format!("import \"{import}.proto\";"));
        }
        for before in 0..index {
            self.line(&format!("import \"case_{}_{before}.proto\";", self.seed));
        }
        let mut scope = Scope::default();
        for _ in 0..1 + self.random.below(4) {
            if self.random.one_in(4) {
                self.enumeration(&mut scope, &around);
            } else {
                self.message(&mut scope, &around, 0);
            }
        }
        for _ in 0..self.random.below(3) {
            self.service(&mut scope);
        }
        std::mem::take(&mut self.text)
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn comment(&mut self) {
        if self.random.one_in(4) {
            let comment = self.random.pick(COMMENTS);
            self.text.push_str(comment);
        }
    }

    /// A name for an item, which seldom meets another of its kind.
    fn name(&mut self, scope: &mut Scope, kind: Kind) -> String {
        for attempt in 0.. {
            let mut name = self.random.pick(WORDS).to_owned();
            match self.random.below(12) {
                0 => name = name.to_uppercase(),
                1 => name = format!("{}{}", name[..1].to_uppercase(), &name[1..]),
                2 => name.push('_'),
                3 => name.insert(0, '_'),
                4 => name = format!("{name}_{}", self.random.pick(WORDS)),
                5 => write!(name, "{}", self.random.below(10)).expect("a string"),
                _ => {}
            }
            if attempt > 20 {
                write!(name, "_n{}", scope.exact.len()).expect("a string");
            }
            let alike = (kind, name.replace('_', "").to_lowercase());
            let meets = scope.alike.contains(&alike) && !self.random.one_in(60);
            if !meets && !scope.exact.contains(&name) {
                scope.alike.insert(alike);
                scope.exact.insert(name.clone());
                return name;
            }
        }
        unreachable!("a name with a new number is new")
    }

    fn message(&mut self, scope: &mut Scope, around: &str, depth: usize) {
        let name = self.name(scope, Kind::Type);
        self.comment();
        self.line(&format!("message {name} {{"));
        self.body(&format!("{around}.{name}"), depth);
        self.line("}");
    }

    /// What stands between the braces of a message.
    fn body(&mut self, full_name: &str, depth: usize) {
        self.messages.push(full_name.to_owned());
        let mut scope = Scope::default();
        while depth < 3 && self.random.one_in(3) {
            if self.random.one_in(3) {
                self.enumeration(&mut scope, full_name);
            } else {
                self.message(&mut scope, full_name, depth + 1);
            }
        }
        let mut number = 1;
        for _ in 0..self.random.below(6) {
            self.comment();
            match self.random.below(8) {
                0 => {
                    let key = self.random.pick(&SCALARS[2..14]);
                    let (of, _) = self.any_type();
                    let name = self.name(&mut scope, Kind::Field);
                    self.line(&format!("map<{key}, {of}> {name} = {number};"));
                }
                1 => {
                    let name = self.name(&mut scope, Kind::Field);
                    self.line(&format!("oneof {name} {{"));
                    for _ in 0..1 + self.random.below(3) {
                        let (of, _) = self.any_type();
                        let name = self.name(&mut scope, Kind::Field);
                        self.line(&format!("{of} {name} = {number};"));
                        number += 1;
                    }
                    self.line("}");
                }
                2 if self.proto2 && depth < 3 => {
                    let label = self.random.pick(&["optional", "repeated", "required"]);
                    let name = self.name(&mut scope, Kind::Type);
                    let name = format!("G{name}");
                    self.line(&format!("{label} group {name} = {number} {{"));
                    self.body(&format!("{full_name}.{name}"), depth + 1);
                    self.line("}");
                }
                _ => self.field(&mut scope, number),
            }
            number += 1;
        }
        if self.proto2 && self.random.one_in(6) {
            self.line("extensions 100 to 199;");
            let (of, _) = self.any_type();
            let name = self.name(&mut scope, Kind::Field);
            self.line(&format!(
                "extend {full_name} {{ optional {of} {name} = 100; }}"
            ));
        }
    }

    fn field(&mut self, scope: &mut Scope, number: usize) {
        let (of, default) = self.any_type();
        let labels: &[&str] = match self.proto2 {
            true => &["optional", "repeated", "required", "optional"],
            false => &["", "optional", "repeated", ""],
        };
        let mut label = self.random.pick(labels);
        // A required field of the message itself can never be set.
        if label == "required" && of.starts_with('.') {
            label = "optional";
        }
        let mut options = Vec::new();
        if let Some(default) = default
            && self.proto2
            && label != "repeated"
            && self.random.one_in(2)
        {
            options.push(format!("default = {default}"));
        }
        if self.random.one_in(8) {
            options.push("deprecated = true".to_owned());
        }
        let options = match options.as_slice() {
            [] => String::new(),
            options => format!(" [{}]", options.join(", ")),
        };
        let name = self.name(scope, Kind::Field);
        self.line(&format!("{label} {of} {name} = {number}{options};"));
    }

    /// A type for a field, and a value of it.
    fn any_type(&mut self) -> (String, Option<String>) {
        match self.random.below(5) {
            0 | 1 => {
                let of = self.random.pick(SCALARS);
                let default = match of {
                    "string" | "bytes" => "\"a\\\"\\\\\\001\"",
                    "bool" => "true",
                    "double" | "float" => self.random.pick(&["-inf", "nan", "1e10", "-0.5"]),
                    _ => "7",
                };
                (of.to_owned(), Some(default.to_owned()))
            }
            2 => {
                let proto2 = self.proto2;
                let usable = |of: &&Enum| proto2 || !of.proto2;
                let enums: Vec<&Enum> = self.enums.iter().filter(usable).collect();
                if enums.is_empty() {
                    return ("int32".to_owned(), Some("-1".to_owned()));
                }
                let of = enums[self.random.below(enums.len())];
                let default = of.values[self.random.below(of.values.len())].clone();
                (of.full_name.clone(), Some(default))
            }
            _ => (self.any_message(), None),
        }
    }

    fn any_message(&mut self) -> String {
        self.messages[self.random.below(self.messages.len())].clone()
    }

    fn enumeration(&mut self, scope: &mut Scope, around: &str) {
        let name = self.name(scope, Kind::Type);
        self.comment();
        self.line(&format!("enum {name} {{"));
        let has_alias = self.random.one_in(4);
        if has_alias {
            self.line("option allow_alias = true;");
        }
        let mut values = Vec::new();
        for number in 0..1 + self.random.below(4) {
            let value = self.name(scope, Kind::Value);
            self.comment();
            self.line(&format!("{value} = {number};"));
            values.push(value);
        }
        if has_alias {
            let value = self.name(scope, Kind::Value);
            self.line(&format!("{value} = 0;"));
            values.push(value);
        }
        self.line("}");
        self.enums.push(Enum {
            full_name: format!("{around}.{name}"),
            proto2: self.proto2,
            values,
        });
    }

    fn service(&mut self, scope: &mut Scope) {
        let name = self.name(scope, Kind::Service);
        self.comment();
        self.line(&format!("service {name} {{"));
        let mut scope = Scope::default();
        for _ in 0..self.random.below(6) {
            let name = self.name(&mut scope, Kind::Method);
            let (request, response) = (self.any_message(), self.any_message());
            let (stream, option) = self.random.of(&[
                ("", ""),
                ("", "option (gorums.rpc) = true;"),
                ("", "option (gorums.unicast) = true;"),
                ("", "option (gorums.multicast) = true;"),
                (
                    "",
                    "option (gorums.quorumcall) = true; option deprecated = true;",
                ),
                ("stream ", "option (gorums.quorumcall) = true;"),
            ]);
            self.comment();
            self.line(&format!(
                "rpc {name}({request}) returns ({stream}{response}) {{ {option} }}"
            ));
        }
        self.line("}");
    }
}

/// Xorshift: the same numbers everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).expect("it fits");
        usize::try_from(self.next() % limit).expect("it was one")
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    fn of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        self.of(of)
    }
}
