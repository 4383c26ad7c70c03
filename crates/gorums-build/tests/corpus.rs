//! A corpus of `.proto` files in the style of public ones, which together use every construct of
//! protobuf. All of them are generated into one crate, and that is type-checked.
//!
//! A file that is added is found by itself. Its package must not be another's, and `protoc` must
//! take it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet,
};

mod support;

const FOLDER: &str = "tests/corpus";

/// Whether the files in `editions` are among them.
const WITH_EDITIONS: bool = true;

fn files() -> Vec<PathBuf> {
    fn add(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() && (WITH_EDITIONS || !path.ends_with("editions")) {
                add(&path, files)?;
            } else if path.extension().is_some_and(|end| end == "proto") {
                files.push(path);
            }
        }
        Ok(())
    }
    let mut files = Vec::new();
    add(Path::new(FOLDER), &mut files).expect("the folder is readable");
    files.sort();
    files
}

#[test]
fn all_files_become_rust_that_compiles() {
    let files = files();
    assert!(files.len() >= 100, "{} files are no corpus", files.len());
    let generated = support::GeneratedCrate::new("gorums-corpus");
    gorums_build::configure()
        .out_dir(generated.generated())
        .include_file("all.rs")
        .emit_rerun_if_changed(false)
        .compile_protos(&files, &[FOLDER])
        .expect("the files have no mistake");
    let lib = "//! Generated.\n\
        #![deny(warnings, missing_docs, unreachable_pub, rust_2018_idioms)]\n\
        include!(\"generated/all.rs\");\n";
    if let Err(message) = generated.check(lib) {
        panic!("{message}");
    }
}

#[test]
fn the_corpus_has_every_construct() {
    let out = tempfile::tempdir().expect("a temporary folder");
    let set = out.path().join("set.bin");
    let files = files();
    gorums_build::configure()
        .out_dir(out.path())
        .file_descriptor_set_path(&set)
        .emit_rerun_if_changed(false)
        .compile_protos(&files, &[FOLDER])
        .expect("the files have no mistake");
    let set = fs::read(set).expect("it was asked for");
    let set = FileDescriptorSet::decode(set.as_slice()).expect("it was encoded");

    let mut found = Found::default();
    for path in &files {
        found.source(&fs::read_to_string(path).expect("readable"));
        let name = path.strip_prefix(FOLDER).expect("it is in the folder");
        let file = set.file.iter().find(|file| Path::new(file.name()) == name);
        found.file(file.expect("all were compiled"));
    }
    let missing: Vec<String> = required()
        .into_iter()
        .filter(|construct| !found.0.contains(construct))
        .collect();
    assert!(missing.is_empty(), "no file has\n{}", missing.join("\n"));
}

/// All types of fields, as the language writes them.
const TYPES: [(Type, &str); 18] = [
    (Type::Double, "double"),
    (Type::Float, "float"),
    (Type::Int32, "int32"),
    (Type::Int64, "int64"),
    (Type::Uint32, "uint32"),
    (Type::Uint64, "uint64"),
    (Type::Sint32, "sint32"),
    (Type::Sint64, "sint64"),
    (Type::Fixed32, "fixed32"),
    (Type::Fixed64, "fixed64"),
    (Type::Sfixed32, "sfixed32"),
    (Type::Sfixed64, "sfixed64"),
    (Type::Bool, "bool"),
    (Type::String, "string"),
    (Type::Bytes, "bytes"),
    (Type::Message, "message"),
    (Type::Enum, "enum"),
    (Type::Group, "group"),
];

fn type_name(field: &FieldDescriptorProto) -> &'static str {
    let kind = field.r#type();
    let known = TYPES.iter().find(|(of, _)| *of == kind);
    known.expect("all types are known").1
}

fn required() -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for (_, of) in TYPES {
        all.push(format!("proto2 optional {of}"));
        all.push(format!("proto2 required {of}"));
        all.push(format!("proto2 repeated {of}"));
        all.push(format!("proto2 oneof {of}"));
        all.push(format!("extension {of}"));
        if of != "group" {
            all.push(format!("proto3 plain {of}"));
            all.push(format!("proto3 optional {of}"));
            all.push(format!("proto3 repeated {of}"));
            all.push(format!("proto3 oneof {of}"));
            for (_, key) in TYPES {
                let is_key =
                    !["double", "float", "bytes", "message", "enum", "group"].contains(&key);
                if is_key {
                    all.push(format!("proto2 map<{key}, {of}>"));
                    all.push(format!("proto3 map<{key}, {of}>"));
                }
            }
        }
        if !["string", "bytes", "message", "group"].contains(&of) {
            for syntax in ["proto2", "proto3"] {
                all.push(format!("{syntax} packed {of}"));
                all.push(format!("{syntax} not packed {of}"));
            }
        }
        if !["message", "group"].contains(&of) {
            all.push(format!("default {of}"));
        }
    }
    for kind in [
        "File",
        "Message",
        "Field",
        "Oneof",
        "Enum",
        "EnumValue",
        "Service",
        "Method",
        "ExtensionRange",
    ] {
        all.push(format!("extension of {kind}Options"));
    }
    for kind in [
        "file", "message", "field", "enum", "value", "service", "method",
    ] {
        all.push(format!("deprecated {kind}"));
    }
    for kind in [
        "Any",
        "Api",
        "BoolValue",
        "BytesValue",
        "DoubleValue",
        "Duration",
        "Empty",
        "Enum",
        "EnumValue",
        "Field",
        "FieldMask",
        "FloatValue",
        "Int32Value",
        "Int64Value",
        "ListValue",
        "Method",
        "Mixin",
        "NullValue",
        "Option",
        "SourceContext",
        "StringValue",
        "Struct",
        "Syntax",
        "Timestamp",
        "Type",
        "UInt32Value",
        "UInt64Value",
        "Value",
        "FileDescriptorSet",
        "compiler.CodeGeneratorRequest",
        "compiler.CodeGeneratorResponse",
        "compiler.Version",
    ] {
        all.push(format!("google.protobuf.{kind}"));
    }
    for option in ["rpc", "unicast", "multicast", "quorumcall", "none"] {
        all.push(format!("call type {option}"));
    }
    all.extend(
        [
            "default nan",
            "default inf",
            "default -inf",
            "default of an alias",
            "no package",
            "empty file",
            "no syntax",
            "import public",
            "import weak",
            "optimize_for LITE_RUNTIME",
            "optimize_for CODE_SIZE",
            "nested message",
            "nested enum",
            "message in itself",
            "message without a field",
            "several oneofs",
            "extension in a message",
            "repeated extension",
            "extension range",
            "extension range to max",
            "extension range with a declaration",
            "message set",
            "reserved field number",
            "reserved field name",
            "reserved to max",
            "greatest field number",
            "json_name",
            "ctype",
            "jstype",
            "lazy",
            "debug_redact",
            "allow_alias",
            "negative enum value",
            "enum not from 0",
            "reserved enum number",
            "reserved enum name",
            "service without a method",
            "500 methods",
            "500 fields",
            "NO_SIDE_EFFECTS",
            "IDEMPOTENT",
            "stream of replies",
            "method of another package",
            "leading comment",
            "trailing comment",
            "detached comment",
            "block comment",
            "Javadoc comment",
            "comment that is not ASCII",
            "bidi control",
            "code block in a comment",
            "HTML in a comment",
            "link in a comment",
            "CR LF",
            "byte order mark",
            "tab",
            "no newline at the end",
            "empty statement",
            "aggregate option",
            "aggregate option in <>",
            "list in an aggregate option",
            "extension in an aggregate option",
            "dotted option",
            "option twice",
            "string in pieces",
            "escape in a string",
            "hexadecimal number",
            "octal number",
            "leading dot in a type",
        ]
        .map(str::to_owned),
    );
    if WITH_EDITIONS {
        for text in [
            "edition 2023",
            "edition 2024",
            "features.field_presence = EXPLICIT",
            "features.field_presence = IMPLICIT",
            "features.field_presence = LEGACY_REQUIRED",
            "features.enum_type = OPEN",
            "features.repeated_field_encoding = PACKED",
            "features.repeated_field_encoding = EXPANDED",
            "features.utf8_validation = VERIFY",
            "features.message_encoding = DELIMITED",
            "features.message_encoding = LENGTH_PREFIXED",
            "features.json_format = ALLOW",
            "features.json_format = LEGACY_BEST_EFFORT",
            "features.enforce_naming_style = STYLE_LEGACY",
            "features.default_symbol_visibility = LOCAL_ALL",
            "features.(pb.go)",
            "features.(pb.cpp)",
            "features.(pb.java)",
            "export message",
            "export enum",
            "local message",
            "local enum",
            "import option",
            "reserved name without quotes",
        ] {
            all.push(text.to_owned());
        }
    }
    all
}

#[derive(Default)]
struct Found(BTreeSet<String>);

impl Found {
    fn add(&mut self, construct: impl Into<String>) {
        self.0.insert(construct.into());
    }

    fn add_if(&mut self, condition: bool, construct: &str) {
        if condition {
            self.add(construct);
        }
    }

    /// What descriptors do not have.
    fn source(&mut self, text: &str) {
        for (construct, sign) in [
            ("CR LF", "\r\n"),
            ("byte order mark", "\u{feff}"),
            ("tab", "\t"),
            ("debug_redact", "[debug_redact = true"),
            ("block comment", "/* "),
            ("Javadoc comment", "/**"),
            ("bidi control", "\u{202e}"),
            ("code block in a comment", "// ```"),
            ("HTML in a comment", "// <pre>"),
            ("link in a comment", "](https://"),
            ("empty statement", "; ;"),
            ("aggregate option", ") = {"),
            ("aggregate option in <>", " <custom: {"),
            ("list in an aggregate option", ": ["),
            ("extension in an aggregate option", "[p2.options.ext]"),
            ("dotted option", "(validate.rules).string.min_len"),
            ("option twice", "option (doubles) = 2;"),
            ("string in pieces", "\"one \" 'two '"),
            ("escape in a string", "\\x41 \\101"),
            ("hexadecimal number", "= 0x"),
            ("octal number", "= 017"),
            ("leading dot in a type", "(.paxos.Prepare)"),
            ("edition 2023", "edition = \"2023\""),
            ("edition 2024", "edition = \"2024\""),
            ("import option", "import option "),
            ("reserved name without quotes", "reserved removed,"),
        ] {
            self.add_if(text.contains(sign), construct);
        }
        self.add_if(!text.ends_with('\n'), "no newline at the end");
        let comments = text.lines().filter(|line| line.contains("//"));
        self.add_if(
            comments.clone().any(|line| !line.is_ascii()),
            "comment that is not ASCII",
        );
        for construct in required().iter().filter(|construct| {
            ["features.", "export ", "local "]
                .iter()
                .any(|start| construct.starts_with(start))
        }) {
            self.add_if(text.contains(construct.as_str()), construct);
        }
        let has_option = |name: &str| text.contains(&format!("(gorums.{name}) = true"));
        for name in ["rpc", "unicast", "multicast", "quorumcall"] {
            self.add_if(has_option(name), &format!("call type {name}"));
        }
    }

    fn file(&mut self, file: &FileDescriptorProto) {
        let text = fs::read_to_string(Path::new(FOLDER).join(file.name())).unwrap_or_default();
        self.add_if(
            !text.contains("syntax =") && !text.contains("edition ="),
            "no syntax",
        );
        let options = file.options.clone().unwrap_or_default();
        self.add_if(options.deprecated(), "deprecated file");
        self.add_if(
            options.optimize_for.is_some(),
            &format!("optimize_for {}", options.optimize_for().as_str_name()),
        );
        self.add_if(file.package().is_empty(), "no package");
        let is_empty = file.message_type.is_empty()
            && file.enum_type.is_empty()
            && file.service.is_empty()
            && file.extension.is_empty();
        self.add_if(is_empty, "empty file");
        self.add_if(!file.public_dependency.is_empty(), "import public");
        self.add_if(!file.weak_dependency.is_empty(), "import weak");
        let syntax = if file.syntax() == "proto3" {
            "proto3"
        } else {
            "proto2"
        };
        for message in &file.message_type {
            self.message(syntax, message, &format!(".{}", file.package()));
        }
        for of in &file.enum_type {
            self.enumeration(of);
        }
        for extension in &file.extension {
            self.extension(extension);
        }
        for service in &file.service {
            let options = service.options.clone().unwrap_or_default();
            self.add_if(options.deprecated(), "deprecated service");
            self.add_if(service.method.is_empty(), "service without a method");
            self.add_if(service.method.len() >= 500, "500 methods");
            for method in &service.method {
                let options = method.options.clone().unwrap_or_default();
                self.add_if(options.deprecated(), "deprecated method");
                self.add(options.idempotency_level().as_str_name());
                self.add_if(method.options.is_none(), "call type none");
                self.add_if(method.server_streaming(), "stream of replies");
                let package = format!(".{}.", file.package());
                self.add_if(
                    !method.input_type().starts_with(&package),
                    "method of another package",
                );
                self.well_known(method.input_type());
                self.well_known(method.output_type());
            }
        }
        for location in file.source_code_info.iter().flat_map(|info| &info.location) {
            self.add_if(location.leading_comments.is_some(), "leading comment");
            self.add_if(location.trailing_comments.is_some(), "trailing comment");
            self.add_if(
                !location.leading_detached_comments.is_empty(),
                "detached comment",
            );
        }
    }

    fn message(&mut self, syntax: &str, message: &DescriptorProto, around: &str) {
        let name = format!("{around}.{}", message.name());
        let options = message.options.clone().unwrap_or_default();
        self.add_if(options.deprecated(), "deprecated message");
        self.add_if(options.message_set_wire_format(), "message set");
        self.add_if(!message.enum_type.is_empty(), "nested enum");
        self.add_if(message.field.is_empty(), "message without a field");
        self.add_if(message.field.len() >= 500, "500 fields");
        self.add_if(!message.extension.is_empty(), "extension in a message");
        self.add_if(!message.reserved_range.is_empty(), "reserved field number");
        self.add_if(!message.reserved_name.is_empty(), "reserved field name");
        self.add_if(
            message
                .reserved_range
                .iter()
                .any(|range| range.end() == 1 << 29),
            "reserved to max",
        );
        for range in &message.extension_range {
            self.add("extension range");
            self.add_if(range.end() >= 1 << 29, "extension range to max");
            self.add_if(
                range.options.is_some(),
                "extension range with a declaration",
            );
        }
        let real = message
            .field
            .iter()
            .filter(|field| !field.proto3_optional());
        let oneofs: BTreeSet<i32> = real.filter_map(|field| field.oneof_index).collect();
        self.add_if(oneofs.len() > 1, "several oneofs");
        for field in &message.field {
            self.field(syntax, message, field);
            self.add_if(field.type_name() == name, "message in itself");
        }
        for nested in &message.nested_type {
            let is_entry = nested
                .options
                .as_ref()
                .is_some_and(|options| options.map_entry());
            if !is_entry {
                self.add("nested message");
                self.message(syntax, nested, &name);
            }
        }
        for of in &message.enum_type {
            self.enumeration(of);
        }
        for extension in &message.extension {
            self.extension(extension);
        }
    }

    fn field(&mut self, syntax: &str, message: &DescriptorProto, field: &FieldDescriptorProto) {
        let of = type_name(field);
        let options = field.options.clone().unwrap_or_default();
        let entry = message.nested_type.iter().find(|nested| {
            nested
                .options
                .as_ref()
                .is_some_and(|options| options.map_entry())
                && field.type_name().ends_with(&format!(".{}", nested.name()))
        });
        if let Some(entry) = entry {
            let [key, value] = entry.field.as_slice() else {
                panic!("an entry has a key and a value");
            };
            self.add(format!(
                "{syntax} map<{}, {}>",
                type_name(key),
                type_name(value)
            ));
            self.well_known(value.type_name());
        } else {
            let label = match field.label() {
                _ if field.proto3_optional() => "optional",
                _ if field.oneof_index.is_some() => "oneof",
                Label::Repeated => "repeated",
                Label::Required => "required",
                Label::Optional if syntax == "proto3" => "plain",
                Label::Optional => "optional",
            };
            self.add(format!("{syntax} {label} {of}"));
        }
        match options.packed {
            Some(true) => self.add(format!("{syntax} packed {of}")),
            Some(false) => self.add(format!("{syntax} not packed {of}")),
            None => {}
        }
        if field.default_value.is_some() {
            self.add(format!("default {of}"));
            self.add(format!("default {}", field.default_value()));
            self.add_if(field.default_value() == "TOP", "default of an alias");
        }
        self.add_if(options.deprecated(), "deprecated field");
        self.add_if(field.number() == (1 << 29) - 1, "greatest field number");
        let camel_case = field.name().split('_').skip(1).all(|part| !part.is_empty());
        let plain = !field.name().contains('_') && camel_case;
        self.add_if(plain && field.json_name() != field.name(), "json_name");
        self.add_if(options.ctype.is_some(), "ctype");
        self.add_if(options.jstype.is_some(), "jstype");
        self.add_if(options.lazy(), "lazy");
        self.well_known(field.type_name());
    }

    fn extension(&mut self, field: &FieldDescriptorProto) {
        self.add(format!("extension {}", type_name(field)));
        self.add_if(field.label() == Label::Repeated, "repeated extension");
        if let Some(extended) = field.extendee().strip_prefix(".google.protobuf.") {
            self.add(format!("extension of {extended}"));
        }
    }

    fn enumeration(&mut self, of: &EnumDescriptorProto) {
        let options = of.options.clone().unwrap_or_default();
        self.add_if(options.deprecated(), "deprecated enum");
        self.add_if(options.allow_alias(), "allow_alias");
        self.add_if(!of.reserved_range.is_empty(), "reserved enum number");
        self.add_if(!of.reserved_name.is_empty(), "reserved enum name");
        self.add_if(
            of.value.first().is_some_and(|first| first.number() != 0),
            "enum not from 0",
        );
        for value in &of.value {
            let options = value.options.clone().unwrap_or_default();
            self.add_if(options.deprecated(), "deprecated value");
            self.add_if(value.number() < 0, "negative enum value");
        }
    }

    fn well_known(&mut self, full_name: &str) {
        if full_name.starts_with(".google.protobuf.") {
            self.add(full_name.trim_start_matches('.'));
        }
    }
}
