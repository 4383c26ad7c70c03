//! What the generator says about mistakes in `.proto` files.
//!
//! `tests/diagnostics` has one file for each mistake, and beside it the whole message. After a
//! change of the messages, `BLESS=1 cargo test -p gorums-build --test diagnostics` writes them
//! anew, to be reviewed in the diff.

use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message;

const FOLDER: &str = "tests/diagnostics";

fn compile(files: &[PathBuf]) -> Result<(), gorums_build::Error> {
    let out = tempfile::tempdir().expect("a temporary folder");
    let result = gorums_build::configure()
        .out_dir(out.path())
        .emit_rerun_if_changed(false)
        .compile_protos(files, &[FOLDER]);
    let written = fs::read_dir(out.path()).expect("it exists").count();
    assert!(
        result.is_ok() || written == 0,
        "a mistake leaves nothing behind"
    );
    result
}

fn fixtures() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(FOLDER)
        .expect("tests run in the folder of the crate")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|end| end == "proto"))
        .collect();
    files.sort();
    files
}

#[test]
fn an_option_with_a_dot_before_it_is_found_where_another_gorums_is_nearer() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["68_package_that_ends_in_gorums", "69_message_called_gorums"] {
        let wrong = fs::read_to_string(format!("{FOLDER}/{name}.proto")).expect("readable");
        let right = wrong.replace("option (gorums.", "option (.gorums.");
        assert_ne!(wrong, right);
        let proto = folder.path().join("right.proto");
        fs::write(&proto, right).expect("writable");
        let out = tempfile::tempdir().expect("a temporary folder");
        gorums_build::configure()
            .out_dir(out.path())
            .emit_rerun_if_changed(false)
            .compile_protos(&[proto], &[folder.path()])
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn each_mistake_has_its_message() {
    let mut wrong = Vec::new();
    for proto in fixtures() {
        let expected_path = proto.with_extension("stderr");
        let actual = match compile(std::slice::from_ref(&proto)) {
            Ok(()) => "no mistake found\n".to_owned(),
            Err(error) => format!("{error}\n"),
        };
        if env::var_os("BLESS").is_some() {
            fs::write(&expected_path, &actual).expect("the folder is writable");
        }
        let expected = fs::read_to_string(&expected_path).unwrap_or_default();
        if actual != expected {
            wrong.push(format!(
                "{}\n--- expected\n{expected}--- actual\n{actual}",
                proto.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn mistakes_of_all_files_are_reported_at_once() {
    let files = fixtures();
    let error = compile(&files).expect_err("each file has a mistake");
    let reported: Vec<&Path> = error
        .diagnostics()
        .iter()
        .filter_map(|mistake| mistake.file())
        .collect();
    // The files declare the same service, so all but the first that compiles are refused for that
    // by the front end.
    for file in &files {
        let imports_another = file.ends_with("15_import_of_an_edition.proto");
        assert!(
            imports_another || reported.contains(&file.as_path()),
            "nothing about {}",
            file.display()
        );
    }
}

#[test]
fn an_error_tells_place_service_method_and_mend() {
    let error = compile(&[Path::new(FOLDER).join("03_option_false.proto")])
        .expect_err("the file has a mistake");
    let [mistake] = error.diagnostics() else {
        panic!("one mistake, not {error}");
    };
    assert_eq!(
        mistake.file(),
        Some(Path::new("tests/diagnostics/03_option_false.proto"))
    );
    assert_eq!((mistake.line(), mistake.column()), (Some(9), Some(5)));
    assert_eq!(mistake.service(), Some("proto.Storage"));
    assert_eq!(mistake.method(), Some("Read"));
    assert!(mistake.message().contains("quorumcall"));
    assert!(mistake.help().is_some());
}

#[test]
fn cargo_shows_the_same_text_as_display() {
    let error = compile(&[Path::new(FOLDER).join("04_stream_request.proto")])
        .expect_err("the file has a mistake");
    assert_eq!(format!("{error:?}"), error.to_string());
    let text = error.to_string();
    let io = std::io::Error::from(error);
    assert_eq!(io.kind(), std::io::ErrorKind::InvalidData);
    assert_eq!(io.to_string(), text);
}

#[test]
fn a_file_outside_of_the_includes_is_named() {
    let error = compile(&[PathBuf::from("elsewhere/missing.proto")]).expect_err("no such file");
    assert_eq!(
        error.to_string(),
        "1 mistake in the .proto files\n\n\
         file 'elsewhere/missing.proto' is not in any include path\n    \
         help: one of the include folders has to contain the file; is its path right?"
    );
}

/// What is said about files that are written for this.
fn error_of(builder: gorums_build::Builder, sources: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = tempfile::tempdir().expect("a temporary folder");
    let names: Vec<String> = (0..sources.len()).map(|i| format!("{i}.proto")).collect();
    for (name, source) in names.iter().zip(sources) {
        fs::write(
            folder.path().join(name),
            format!("syntax = \"proto3\"; {source}"),
        )
        .expect("the folder is writable");
    }
    let error = builder
        .out_dir(out.path())
        .compile_protos(&names, &[folder.path()])
        .expect_err("there is a mistake")
        .to_string();
    error
        .replace(&folder.path().display().to_string(), "PROTO")
        .replace(&out.path().display().to_string(), "OUT")
}

#[test]
fn modules_of_packages_must_not_meet_others_in_an_include_file() {
    for (sources, expected) in [
        (
            [
                "package x; message M {} service Foo { rpc A(M) returns (M); }",
                "package x.foo_client; message N {}",
            ],
            "package `x.foo_client`: its Rust module `foo_client` is also that of service `x.Foo`",
        ),
        (
            [
                "package x; message Foo { message Nested {} }",
                "package x.foo.y; message N {}",
            ],
            "package `x.foo.y`: its Rust module `foo` is also that of message `x.Foo`, which has something nested in it",
        ),
        (
            ["package x; message Foo {}", "package x.bool; message N {}"],
            "package `x.bool`: its Rust module `bool` hides a type of Rust in the package around it",
        ),
    ] {
        let builder = gorums_build::configure().include_file("all.rs");
        let error = error_of(builder, &sources);
        assert!(
            error.starts_with(&format!(
                "1 mistake in the .proto files\n\nPROTO/1.proto:1:20: {expected}"
            )),
            "{error}"
        );
    }
}

#[test]
fn an_include_file_in_the_place_of_a_package_is_refused() {
    for (package, name) in [("oa", "oa.rs"), ("Oa", "oa.rs"), ("a.type", "a.type.rs")] {
        let source = format!("package {package}; message M {{}}");
        let error = error_of(gorums_build::configure().include_file(name), &[&source]);
        let shown = package.to_lowercase();
        assert_eq!(
            error,
            format!(
                "OUT/{name} is already the file with the code of the package `{shown}`: choose another name for the include file or the descriptors"
            )
        );
    }
}

#[test]
fn an_extern_path_that_is_no_path_is_named() {
    for (path, expected) in [
        ("crate::<N", "is no path to a Rust type or module"),
        ("", "is no path to a Rust type or module"),
        (
            "super::Other",
            "means another type in each module of the generated code",
        ),
    ] {
        let builder = gorums_build::configure().extern_path(".x.M", path);
        let error = error_of(builder, &["package x; message M {}"]);
        assert_eq!(
            error,
            format!(
                "the extern path `{path}` for `.x.M` {expected}; it begins with `::`, `crate::` or the name of a crate"
            )
        );
    }
}

#[test]
fn an_attribute_that_is_no_rust_is_named() {
    let out = tempfile::tempdir().expect("a temporary folder");
    for builder in [
        gorums_build::configure().client_attribute(".", "#[cfg("),
        gorums_build::configure().type_attribute(".", "#[cfg("),
    ] {
        let error = builder
            .out_dir(out.path())
            .compile_protos(&["tests/proto/storage.proto"], &["tests/proto"])
            .expect_err("a bracket is open");
        assert!(
            error
                .to_string()
                .starts_with("the attribute `#[cfg(` is not Rust")
        );
    }
}

#[test]
fn attributes_that_make_no_code_are_refused() {
    let out = tempfile::tempdir().expect("a temporary folder");
    let error = gorums_build::configure()
        .message_attribute("ReadRequest", "no attribute")
        .out_dir(out.path())
        .compile_protos(&["tests/proto/storage.proto"], &["tests/proto"])
        .expect_err("two words before a struct");
    assert!(
        error
            .to_string()
            .starts_with("the code for `proto.rs` is not Rust, so an attribute"),
        "{error}"
    );
}

#[test]
fn bytes_that_are_no_descriptor_set_are_refused() {
    let error = gorums_build::configure()
        .compile_fds(b"not a descriptor set".as_slice())
        .expect_err("they cannot be decoded");
    assert!(
        error
            .to_string()
            .starts_with("not an encoded google.protobuf.FileDescriptorSet")
    );
}

#[test]
fn an_unknown_edition_in_a_descriptor_set_is_refused() {
    let file = prost_types::FileDescriptorProto {
        name: Some("storage.proto".to_owned()),
        syntax: Some("editions".to_owned()),
        ..Default::default()
    };
    let set = prost_types::FileDescriptorSet { file: vec![file] };
    let error = gorums_build::configure()
        .compile_fds(set.encode_to_vec())
        .expect_err("the file is written in an edition");
    assert!(
        error
            .to_string()
            .contains("storage.proto: the edition with the number 0 is not supported")
    );
}
