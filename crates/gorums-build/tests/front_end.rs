//! Files that `protoc` takes, among others that make it hard.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use gorums_build::{Error, configure};
use tempfile::TempDir;

/// A folder with some files.
fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, contents) in files {
        let path = folder.path().join(name);
        let parent = path.parent().expect("it is in the folder");
        fs::create_dir_all(parent).expect("the folder is writable");
        fs::write(path, contents).expect("the folder is writable");
    }
    folder
}

/// The code for some files of a folder, by the names of the generated files.
fn generate(from: &TempDir, protos: &[&str]) -> Result<BTreeMap<String, String>, Error> {
    let out = tempfile::tempdir().expect("a temporary folder");
    configure()
        .out_dir(out.path())
        .emit_rerun_if_changed(false)
        .compile_protos(protos, &[from.path()])?;
    let files = fs::read_dir(out.path()).expect("it exists");
    Ok(files
        .map(|entry| entry.expect("readable"))
        .filter(|entry| entry.path().extension().is_some_and(|kind| kind == "rs"))
        .map(|entry| {
            let text = fs::read_to_string(entry.path()).expect("generated text");
            (entry.file_name().to_string_lossy().into_owned(), text)
        })
        .collect())
}

fn generate_one(source: &str) -> String {
    let from = folder(&[("a.proto", source.as_bytes())]);
    let mut files =
        generate(&from, &["a.proto"]).unwrap_or_else(|error| panic!("{source}\n{error}"));
    files.remove("p.rs").expect("the package is p")
}

/// The mistakes, with the folder taken off the paths.
fn mistakes(from: &TempDir, protos: &[&str]) -> Vec<String> {
    let error = generate(from, protos).expect_err("there is a mistake");
    let folder = format!("{}/", from.path().display());
    let text = |mistake: &gorums_build::Diagnostic| mistake.to_string().replace(&folder, "");
    error.diagnostics().iter().map(text).collect()
}

#[test]
fn valid_files_are_taken() {
    for (what, source) in [
        (
            "options of which numbers are not finite",
            "syntax = 'proto3'; package p; import 'google/protobuf/descriptor.proto';
            extend google.protobuf.MessageOptions { double d = 60004; float f = 60005; }
            message A { option (d) = -inf; option (f) = -nan; }
            message B { option (d) = inf; option (f) = nan; }",
        ),
        (
            "defaults of which numbers are not finite",
            "syntax = 'proto2'; package p;
            message A { optional double d = 1 [default = -inf]; optional float f = 2 [default = nan]; }",
        ),
        (
            "options on extension ranges",
            "syntax = 'proto2'; package p;
            message A {
                extensions 4 to 6, 9 [declaration = { number: 9, full_name: '.p.x', type: 'bool' }];
                extensions 100 [verification = UNVERIFIED];
            }",
        ),
        (
            "options of newer versions of protobuf",
            "syntax = 'proto3'; package p;
            message A {
                string a = 1 [debug_redact = true, retention = RETENTION_SOURCE, targets = TARGET_TYPE_FIELD];
                bytes b = 2 [feature_support = { edition_introduced: EDITION_2024 }];
            }",
        ),
        (
            "JSON names that meet in proto2",
            "syntax = 'proto2'; package p;
            message A { optional int32 a_1 = 1; optional int32 a1 = 2; }",
        ),
    ] {
        let code = generate_one(source);
        assert!(code.contains("pub struct A"), "{what}");
    }
}

#[test]
fn a_byte_order_mark_and_other_bytes_in_comments_mean_nothing() {
    let plain = "syntax = 'proto3'; package p; /* cafe */ message A { }";
    for bytes in [
        b"\xef\xbb\xbfsyntax = 'proto3'; package p; /* cafe */ message A { }".as_slice(),
        b"syntax = 'proto3'; package p; /* caf\xe9 */ message A { }".as_slice(),
    ] {
        let from = folder(&[("a.proto", bytes)]);
        let files = generate(&from, &["a.proto"]).expect("protoc takes it");
        assert_eq!(files["p.rs"], generate_one(plain));
    }
}

#[test]
fn packages_of_files_that_are_not_imported_hide_nothing() {
    let from = folder(&[
        (
            "a.proto",
            b"syntax = 'proto3'; package e.ext.filters; import 'core.proto';
            message M { option (config.core.o) = true; config.core.X x = 1; }
            service S { rpc A(config.core.X) returns (M); }",
        ),
        (
            "b.proto",
            b"syntax = 'proto3'; package e.ext.config; message Unrelated { }",
        ),
        (
            "core.proto",
            b"syntax = 'proto3'; package e.config.core; import 'google/protobuf/descriptor.proto';
            message X { } extend google.protobuf.MessageOptions { bool o = 50000; }",
        ),
    ]);
    let expected = generate(&from, &["a.proto", "b.proto"]).expect("protoc takes it");
    let files = generate(&from, &["b.proto", "a.proto"]).expect("protoc takes it");
    assert_eq!(files, expected);
    assert!(files["e.ext.filters.rs"].contains("super::super::config::core::X"));
}

#[test]
fn the_innermost_scope_that_has_the_first_part_is_meant() {
    let from = folder(&[(
        "a.proto",
        b"syntax = 'proto3'; package p;
        message A { message B { message C { } } }
        message D {
            message B { }
            B here = 1;
            A.B.C there = 2;
            .p.A.B full = 3;
            B.C wrong = 4;
        }",
    )]);
    assert_eq!(
        mistakes(&from, &["a.proto"]),
        ["a.proto:8:13: 'B.C' resolves to 'p.D.B.C', which is not defined"]
    );
}

#[test]
fn public_imports_are_followed_however_deep() {
    let from = folder(&[
        (
            "a.proto",
            b"syntax = 'proto3'; package p; import 'b.proto'; message A { D d = 1; }",
        ),
        (
            "b.proto",
            b"syntax = 'proto3'; package p; import public 'c.proto';",
        ),
        (
            "c.proto",
            b"syntax = 'proto3'; package p; import public 'd.proto';",
        ),
        ("d.proto", b"syntax = 'proto3'; package p; message D { }"),
    ]);
    let set = from.path().join("set.bin");
    let out = tempfile::tempdir().expect("a temporary folder");
    configure()
        .out_dir(out.path())
        .file_descriptor_set_path(&set)
        .emit_rerun_if_changed(false)
        .compile_protos(&["a.proto"], &[from.path()])
        .expect("protoc takes it");
    let set = fs::read(set).expect("it was asked for");
    let set = <prost_types::FileDescriptorSet as prost::Message>::decode(set.as_slice());
    let file = set.expect("descriptors").file.pop().expect("files");
    assert_eq!(file.dependency, ["b.proto"], "as in the source");
}

#[test]
fn the_built_in_descriptor_proto_comes_before_any_other() {
    let from = folder(&[
        (
            "a.proto",
            b"syntax = 'proto3'; package p; import 'gorums.proto'; message M { }
            service S { rpc A(M) returns (M) { option (gorums.quorumcall) = true; } }",
        ),
        (
            "google/protobuf/descriptor.proto",
            b"what only a newer parser knows",
        ),
    ]);
    let files = generate(&from, &["a.proto"]).expect("the file is not read");
    assert!(files["p.rs"].contains("QuorumCall<"));
}

#[test]
fn a_mistake_does_not_hide_those_of_other_files() {
    let options: String = (0..60)
        .map(|number| format!("optional bool o{number} = {};", 60000 + number))
        .collect();
    let options = format!(
        "syntax = 'proto2'; package opt; import 'google/protobuf/descriptor.proto';
        extend google.protobuf.FieldOptions {{ {options} }}"
    );
    let from = folder(&[
        ("opt.proto", options.as_bytes()),
        (
            "a.proto",
            b"syntax = 'proto3'; package one; import 'opt.proto';",
        ),
        (
            "b.proto",
            b"syntax = 'proto3'; package one; message B { Missing x = 1; }",
        ),
        (
            "c.proto",
            b"syntax = 'proto3'; package two; import 'opt.proto';
            message T { int32 x = 1 [(opt.o59) = true]; Missing y = 2; }",
        ),
    ]);
    assert_eq!(
        mistakes(&from, &["a.proto", "b.proto", "c.proto"]),
        [
            "b.proto:1:45: name 'Missing' is not defined",
            "c.proto:2:57: name 'Missing' is not defined",
        ]
    );
}

#[test]
fn one_name_in_two_files_is_a_mistake() {
    let from = folder(&[
        ("a.proto", b"syntax = 'proto3'; package p; message M { }"),
        ("b.proto", b"syntax = 'proto3'; package p; message M { }"),
    ]);
    assert_eq!(
        mistakes(&from, &["a.proto", "b.proto"]),
        ["b.proto:1:39: name 'p.M' is already defined in file 'a.proto'"]
    );
}

#[test]
fn an_old_copy_of_the_options_changes_no_call_type_in_silence() {
    let from = folder(&[
        (
            "a.proto",
            b"syntax = 'proto3'; package p; import 'gorums.proto'; message M { }
            service S {
                rpc A(M) returns (M) { option (gorums.quorumcall) = true; }
                rpc B(M) returns (M) { option (gorums.correctable) = true; }
                rpc C(M) returns (M) { option (gorums.qc_future) = true; }
                rpc D(M) returns (M) { option (gorums.multicast) = true; }
                rpc E(M) returns (M) { option (gorums.own) = true; }
            }",
        ),
        (
            "gorums.proto",
            b"syntax = 'proto3'; package gorums; import 'google/protobuf/descriptor.proto';
            extend google.protobuf.MethodOptions {
                bool quorumcall = 50000; bool qc_future = 50001; bool multicast = 50003;
                bool correctable = 50004; bool own = 50099;
            }",
        ),
    ]);
    let another = "\n    help: the file is of another version: remove it from the include folders, since gorums-build brings its own";
    assert_eq!(
        mistakes(&from, &["a.proto"]),
        [
            format!("a.proto:3:40: service `p.S`, method `A`: the option `quorumcall` has the number 50000 in this gorums.proto, but it is 50004{another}"),
            format!("a.proto:4:40: service `p.S`, method `B`: the option `correctable` has the number 50004 in this gorums.proto, but it is 50005{another}"),
            "a.proto:5:40: service `p.S`, method `C`: there is no option `qc_future` (50001) of Gorums\n    help: write `option (gorums.quorumcall) = true;`: calls keep their order, are sent at once and can be awaited later".to_owned(),
            "a.proto:7:40: service `p.S`, method `E`: there is no option `own` (50099) of Gorums\n    help: the options are `rpc`, `unicast`, `multicast` and `quorumcall`".to_owned(),
        ]
    );
}

#[test]
fn enum_values_that_are_one_variant_are_named() {
    let from = folder(&[(
        "a.proto",
        b"syntax = 'proto2'; package p;\nmessage M {\n  enum Foo { FOO_A = 0; A = 1; }\n}",
    )]);
    assert_eq!(
        mistakes(&from, &["a.proto"]),
        [
            "a.proto:3:25: enum value `p.M.Foo.A`: in Rust its name is `A`, as is that of `FOO_A`\n    help: rename one of the two"
        ]
    );
}

#[test]
fn an_import_that_is_not_in_a_descriptor_set_is_named() {
    let file = prost_types::FileDescriptorProto {
        name: Some("a.proto".to_owned()),
        dependency: vec!["b.proto".to_owned()],
        ..Default::default()
    };
    let set = prost_types::FileDescriptorSet { file: vec![file] };
    let error = configure()
        .compile_fds(prost::Message::encode_to_vec(&set))
        .expect_err("b is missing");
    let [mistake] = error.diagnostics() else {
        panic!("one mistake, not {error}");
    };
    assert_eq!(mistake.file(), Some(Path::new("a.proto")));
    assert_eq!(
        mistake.message(),
        "its import `b.proto` is not in the descriptor set"
    );
    assert!(
        mistake
            .help()
            .is_some_and(|help| help.contains("--include_imports"))
    );
}

#[test]
fn a_file_that_another_include_folder_hides_is_named() {
    let from = folder(&[
        ("first/a.proto", b"syntax = 'proto3'; package p;"),
        ("second/a.proto", b"syntax = 'proto3'; package p;"),
    ]);
    let [first, second] = ["first", "second"].map(|name| from.path().join(name));
    let error = configure()
        .out_dir(from.path())
        .compile_protos(&[second.join("a.proto")], &[&first, &second])
        .expect_err("the other one would be compiled");
    assert!(error.to_string().contains("is hidden by"), "{error}");
}

/// What an edition says, and how proto2 or proto3 say it: the code is the same.
#[test]
fn editions_give_the_code_of_the_older_languages() {
    for (what, edition, older) in [
        (
            "explicit presence, open enums and packed fields are what an edition begins with",
            "edition = '2023'; package p;
            message A {
                int32 a = 1; string b = 2; E c = 3; A d = 4; repeated int32 e = 5; map<int32, E> f = 6;
                oneof o { int32 g = 7; A h = 8; }
            }
            enum E { E_UNSPECIFIED = 0; }",
            "syntax = 'proto3'; package p;
            message A {
                optional int32 a = 1; optional string b = 2; optional E c = 3; A d = 4;
                repeated int32 e = 5; map<int32, E> f = 6;
                oneof o { int32 g = 7; A h = 8; }
            }
            enum E { E_UNSPECIFIED = 0; }",
        ),
        (
            "implicit presence, for the file and back for a field",
            "edition = '2024'; package p; option features.field_presence = IMPLICIT;
            message A { int32 a = 1; E b = 2; A c = 3; bytes d = 4 [features.field_presence = EXPLICIT]; }
            enum E { E_UNSPECIFIED = 0; }",
            "syntax = 'proto3'; package p;
            message A { int32 a = 1; E b = 2; A c = 3; optional bytes d = 4; }
            enum E { E_UNSPECIFIED = 0; }",
        ),
        (
            "expanded fields, for the file and back for fields",
            "edition = '2023'; package p; option features.repeated_field_encoding = EXPANDED;
            message A {
                repeated int32 a = 1; repeated E b = 2; repeated string c = 3; repeated A d = 4;
                repeated int32 e = 5 [features.repeated_field_encoding = PACKED];
                message B { repeated E a = 1 [features = { repeated_field_encoding: PACKED }]; repeated int32 b = 2; }
            }
            enum E { E_UNSPECIFIED = 0; }",
            "syntax = 'proto3'; package p;
            message A {
                repeated int32 a = 1 [packed = false]; repeated E b = 2 [packed = false];
                repeated string c = 3; repeated A d = 4; repeated int32 e = 5;
                message B { repeated E a = 1; repeated int32 b = 2 [packed = false]; }
            }
            enum E { E_UNSPECIFIED = 0; }",
        ),
        (
            "required, delimited and defaults",
            r#"edition = "2023"; package p;
            message A {
                int32 a = 1 [features.field_presence = LEGACY_REQUIRED];
                Inner inner = 2 [features.message_encoding = DELIMITED];
                message Inner { bool x = 1 [default = true]; }
                string b = 3 [default = "it's", deprecated = true]; bytes c = 4 [default = "\001\n\"\\"];
                double d = 5 [default = -inf]; float e = 6 [default = 1e3]; float f = 7 [default = -2];
                sint64 g = 8 [default = -9]; E h = 9 [default = E_ONE]; uint64 i = 10 [default = 0x10];
            }
            enum E { E_UNSPECIFIED = 0; E_ONE = 1; }"#,
            r#"syntax = "proto2"; package p;
            message A {
                required int32 a = 1;
                optional group Inner = 2 { optional bool x = 1 [default = true]; }
                optional string b = 3 [default = "it's", deprecated = true]; optional bytes c = 4 [default = "\001\n\"\\"];
                optional double d = 5 [default = -inf]; optional float e = 6 [default = 1e3]; optional float f = 7 [default = -2];
                optional sint64 g = 8 [default = -9]; optional E h = 9 [default = E_ONE]; optional uint64 i = 10 [default = 0x10];
            }
            enum E { E_UNSPECIFIED = 0; E_ONE = 1; }"#,
        ),
        (
            "features of other languages, reserved names, and who may see what",
            r#"edition = "2024"; package p;
            import "google/protobuf/go_features.proto";
            import option "google/protobuf/descriptor.proto";
            option features.(pb.go).api_level = API_OPAQUE;
            option features = { [pb.go] { api_level: API_OPAQUE strip_enum_prefix: STRIP_ENUM_PREFIX_STRIP } };
            option features.enforce_naming_style = STYLE_LEGACY;
            option features.default_symbol_visibility = EXPORT_ALL;
            option features.(third.party).whatever = "anything";
            option features.json_format = LEGACY_BEST_EFFORT;
            export message A {
                reserved gone, reserved, to; reserved 5 to 7;
                local enum E { E_UNSPECIFIED = 0; reserved E_GONE; }
                E a = 1 [features.field_presence = IMPLICIT];
            }"#,
            r#"syntax = "proto3"; package p;
            message A { reserved "gone", "reserved", "to"; reserved 5 to 7; enum E { E_UNSPECIFIED = 0; reserved "E_GONE"; } E a = 1; }"#,
        ),
    ] {
        assert_eq!(generate_one(edition), generate_one(older), "{what}");
    }
}

#[test]
fn an_edition_and_proto3_import_each_other() {
    let from = folder(&[
        (
            "a.proto",
            b"edition = '2023'; package p; import 'b.proto'; import 'c.proto'; import 'gorums.proto';
            message A { B b = 1; E e = 2; repeated C c = 3 [features.message_encoding = DELIMITED]; }
            service S { rpc Get(B) returns (A) { option (gorums.quorumcall) = true; } }",
        ),
        (
            "b.proto",
            b"syntax = 'proto3'; package p; import 'c.proto'; message B { C c = 1; }",
        ),
        (
            "c.proto",
            b"edition = '2024'; package p; message C { int32 n = 1; } enum E { ZERO = 0; }",
        ),
    ]);
    let set = from.path().join("set.bin");
    let files = generate(&from, &["a.proto"]).expect("protoc takes it");
    assert!(files["p.rs"].contains("pub n: ::core::option::Option<i32>"));
    assert!(files["p.rs"].contains("#[prost(group, repeated, tag = \"3\")]"));
    let out = tempfile::tempdir().expect("a temporary folder");
    configure()
        .out_dir(out.path())
        .file_descriptor_set_path(&set)
        .compile_protos(&["a.proto"], &[from.path()])
        .expect("protoc takes it");
    configure()
        .out_dir(out.path())
        .compile_fds(fs::read(&set).expect("it was asked for"))
        .expect("the set is of proto3");
}
