//! The generated code.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use gorums_build::{Builder, configure};
use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

const FOLDER: &str = "tests/proto";

/// The generated files with code, by name.
fn generate(builder: Builder, protos: &[&str]) -> BTreeMap<String, String> {
    generate_from(builder, protos, &[Path::new(FOLDER)])
}

fn generate_from(
    builder: Builder,
    protos: &[&str],
    includes: &[&Path],
) -> BTreeMap<String, String> {
    let out = tempfile::tempdir().expect("a temporary folder");
    builder
        .out_dir(out.path())
        .emit_rerun_if_changed(false)
        .compile_protos(protos, includes)
        .expect("the files have no mistake");
    read_folder(out.path())
}

fn read_folder(folder: &Path) -> BTreeMap<String, String> {
    fs::read_dir(folder)
        .expect("it exists")
        .map(|entry| entry.expect("readable"))
        .filter(|entry| entry.path().extension().is_some_and(|kind| kind == "rs"))
        .map(|entry| {
            let text = fs::read_to_string(entry.path()).expect("generated text");
            (entry.file_name().to_string_lossy().into_owned(), text)
        })
        .collect()
}

/// The one generated file.
fn generate_one(builder: Builder, proto: &str) -> String {
    let files = generate(builder, &[proto]);
    assert_eq!(files.len(), 1, "{:?}", files.keys());
    files.into_values().next().unwrap_or_default()
}

/// All generated files, one after the other.
fn joined(files: BTreeMap<String, String>) -> String {
    files
        .into_iter()
        .map(|(name, text)| format!("// ---- {name}\n{text}"))
        .collect()
}

#[test]
fn storage() {
    insta::assert_snapshot!(generate_one(configure(), "storage.proto"));
}

#[test]
fn several_services_in_one_file() {
    insta::assert_snapshot!(generate_one(configure(), "services.proto"));
}

#[test]
fn nested_packages_and_imports() {
    let builder = configure().include_file("all.rs");
    insta::assert_snapshot!(joined(generate(builder, &["nested/store.proto"])));
}

#[test]
fn well_known_types() {
    insta::assert_snapshot!(generate_one(configure(), "well_known.proto"));
}

#[test]
fn comments_become_documentation() {
    insta::assert_snapshot!(generate_one(configure(), "comments.proto"));
}

#[test]
fn names_that_the_client_keeps_and_keywords() {
    insta::assert_snapshot!(generate_one(configure(), "names.proto"));
}

#[test]
fn default_stubs() {
    let builder = configure().build_client(false).generate_default_stubs(true);
    insta::assert_snapshot!(generate_one(builder, "storage.proto"));
}

#[test]
fn attributes() {
    let builder = configure()
        .client_attribute("Membership", "#[doc(alias = \"group\")]")
        .client_mod_attribute("cluster", "#[cfg(feature = \"client\")]")
        .server_attribute(".cluster.Election", "#[doc(alias = \"voting\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .trait_attribute("cluster.Membership", "#[doc(alias = \"joining\")]")
        .message_attribute("Member", "#[derive(PartialOrd)]")
        .field_attribute("Member.address", "#[cfg(unix)]");
    insta::assert_snapshot!(generate_one(builder, "services.proto"));
}

#[test]
fn calls_of_idempotent_methods_say_so_where_they_are_answered() {
    let code = generate_one(configure().build_server(false), "idempotent.proto");
    let words: String = code.split_whitespace().collect();
    let says_so = |method: &str| {
        let begin = words
            .find(&format!("\"ledger.Ledger.{method}\",request"))
            .expect("each method is called by its name");
        let rest = &words[begin..];
        let end = rest.find('}').expect("a function ends");
        rest[..end].contains(".idempotent(true)")
    };
    for (method, expected) in [
        ("Balance", true),
        ("Deposit", false),
        ("Set", true),
        ("Follow", true),
        ("Note", false),
        ("Tell", false),
    ] {
        assert_eq!(says_so(method), expected, "{method}");
    }
}

#[test]
fn half_of_the_code_can_be_left_out() {
    let client = generate_one(configure().build_server(false), "storage.proto");
    assert!(client.contains("pub mod storage_client") && !client.contains("storage_server"));
    let server = generate_one(configure().build_client(false), "storage.proto");
    assert!(server.contains("pub mod storage_server") && !server.contains("storage_client"));
    let neither = configure().build_client(false).build_server(false);
    assert!(!generate_one(neither, "storage.proto").contains("::gorums"));
}

#[test]
fn comments_can_be_disabled() {
    let builder = configure().disable_comments("Register.Read");
    let text = generate_one(builder, "comments.proto");
    assert!(!text.contains("Reads the newest"));
    assert!(text.contains("/// Calls `documented.Register.Read` on every node"));
    assert!(text.contains("A block"));
}

#[test]
fn the_output_is_the_same_in_every_run() {
    let protos = [
        "storage.proto",
        "services.proto",
        "nested/store.proto",
        "well_known.proto",
        "comments.proto",
        "names.proto",
    ];
    let run = || generate(configure().include_file("all.rs"), &protos);
    let first = run();
    assert_eq!(first.len(), 8);
    for _ in 0..5 {
        assert_eq!(run(), first);
    }
}

#[test]
fn descriptors_give_the_same_code_as_their_files() {
    let out = tempfile::tempdir().expect("a temporary folder");
    let set = out.path().join("storage.bin");
    let builder = configure().file_descriptor_set_path(&set);
    let from_files = generate(builder, &["storage.proto"]);
    let encoded = fs::read(&set).expect("it was asked for");
    fs::remove_file(&set).expect("it exists");
    configure()
        .out_dir(out.path())
        .compile_fds(encoded)
        .expect("the descriptors have no mistake");
    assert_eq!(read_folder(out.path()), from_files);
}

/// The files of an encoded set, each by its name.
fn descriptors(folder: &Path, name: &str) -> BTreeMap<String, FileDescriptorProto> {
    let encoded = fs::read(folder.join(name)).expect("it was written");
    let set = FileDescriptorSet::decode(encoded.as_slice()).expect("well-formed");
    let files = set.file.into_iter();
    files.map(|file| (file.name().to_owned(), file)).collect()
}

#[test]
fn a_package_with_servers_has_its_descriptors() {
    let protos = ["storage.proto", "nested/store.proto"];
    let out = tempfile::tempdir().expect("a temporary folder");
    let builder = configure().emit_rerun_if_changed(false).out_dir(out.path());
    let run = |builder: Builder| builder.compile_protos(&protos, &[FOLDER]);
    run(builder.clone()).expect("the files have no mistake");
    let names = |folder: &Path| {
        let entries = fs::read_dir(folder).expect("it exists");
        let names = entries.map(|entry| entry.expect("readable").file_name());
        let mut names: Vec<_> = names
            .map(|name| name.to_string_lossy().into_owned())
            .filter(|name| name.ends_with(".binpb"))
            .collect();
        names.sort();
        names
    };
    // A package of messages alone has none.
    assert_eq!(names(out.path()), ["acme.store.v1.binpb", "proto.binpb"]);
    let store = descriptors(out.path(), "acme.store.v1.binpb");
    let imports = [
        "google/protobuf/descriptor.proto",
        "gorums.proto",
        "nested/common.proto",
        "nested/store.proto",
    ];
    for import in imports {
        assert!(store.contains_key(import), "{import}: {:?}", store.keys());
    }
    for file in store.values() {
        assert!(file.source_code_info.is_none(), "{}", file.name());
        for import in &file.dependency {
            assert!(store.contains_key(import), "{import}");
        }
    }
    assert!(!descriptors(out.path(), "proto.binpb").contains_key("nested/store.proto"));
    let code = fs::read_to_string(out.path().join("proto.rs")).expect("generated text");
    let constant = "pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(\"proto.binpb\");";
    assert!(code.contains(constant), "{code}");

    for builder in [
        builder.clone().file_descriptor_sets(false),
        builder.build_server(false),
    ] {
        let out = tempfile::tempdir().expect("a temporary folder");
        run(builder.out_dir(out.path())).expect("the files have no mistake");
        assert!(names(out.path()).is_empty());
        let code = fs::read_to_string(out.path().join("proto.rs")).expect("generated text");
        assert!(!code.contains("FILE_DESCRIPTOR_SET"));
    }
}

#[test]
fn types_of_other_crates_are_left_alone() {
    let builder = configure()
        .extern_path(".acme.common", "common_types")
        .extern_path(".acme.store.v1.Entry.Receipt", "crate::Receipt");
    let text = generate_one(builder, "nested/store.proto");
    assert!(text.contains("QuorumCall<common_types::Key, common_types::key::Version>"));
    assert!(text.contains("Rpc<super::Entry, crate::Receipt>"));
}

#[test]
fn well_known_types_can_be_generated() {
    let files = generate(
        configure().compile_well_known_types(true),
        &["well_known.proto"],
    );
    assert!(files["google.protobuf.rs"].contains("pub struct Timestamp"));
    assert!(
        files["_.rs"].contains(
            "QuorumCall<\n            super::google::protobuf::Empty,\n            super::google::protobuf::Timestamp,"
        ),
        "{}", files["_.rs"]
    );
}

#[test]
fn options_may_come_from_a_copy_of_gorums_proto() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let include = [folder.path(), Path::new(FOLDER)];
    let expected = generate(configure(), &["storage.proto"]);
    let own = "syntax = 'proto3'; package gorums; import 'google/protobuf/descriptor.proto';
        extend google.protobuf.MethodOptions {
            bool unicast = 50002; bool multicast = 50003; bool quorumcall = 50004;
        }";
    // The Go library's copy is written in an edition.
    let edition = own.replace("syntax = 'proto3'", "edition = '2023'");
    for copy in [own, &edition] {
        fs::write(folder.path().join("gorums.proto"), copy).expect("the folder is writable");
        assert_eq!(
            generate_from(configure(), &["storage.proto"], &include),
            expected
        );
    }
}

#[test]
fn a_path_to_a_file_works_like_its_name_in_the_include_folder() {
    assert_eq!(
        generate(configure(), &["tests/proto/storage.proto"]),
        generate(configure(), &["storage.proto"])
    );
}

#[test]
fn a_package_is_also_found_by_its_name_as_written() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, package) in [("a.proto", "a.async.Type"), ("b.proto", "plain.v1")] {
        let source = format!("syntax = 'proto3'; package {package}; message M {{}}");
        fs::write(folder.path().join(name), source).expect("the folder is writable");
    }
    let files = generate_from(configure(), &["a.proto", "b.proto"], &[folder.path()]);
    assert_eq!(
        files.keys().collect::<Vec<_>>(),
        ["a.async.Type.rs", "a.r#async.r#type.rs", "plain.v1.rs"]
    );
    assert!(files["a.async.Type.rs"].ends_with("include!(\"a.r#async.r#type.rs\");\n"));
}

#[test]
fn without_a_folder_for_the_code_there_is_an_error() {
    // The test crate has no build script, so cargo sets no OUT_DIR.
    let error = gorums_build::compile_protos("tests/proto/storage.proto").expect_err("no folder");
    assert!(error.to_string().starts_with("there is no OUT_DIR"));
}

#[test]
fn an_include_file_for_out_dir_works_from_anywhere() {
    let out = tempfile::tempdir().expect("a temporary folder");
    let run = std::process::Command::new(std::env::current_exe().expect("a test is a program"))
        .args(["--exact", "in_a_build_script", "--nocapture"])
        .env("OUT_DIR", out.path())
        .env("CARGO", "cargo")
        .output()
        .expect("the test program starts");
    let stdout = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{stdout}");
    let printed: Vec<&str> = stdout
        .lines()
        .filter(|line| line.starts_with("cargo:"))
        .collect();
    assert_eq!(
        printed,
        [
            "cargo:rerun-if-changed=tests/proto/nested/common.proto",
            "cargo:rerun-if-changed=tests/proto/nested/store.proto",
        ]
    );
    insta::assert_snapshot!(read_folder(out.path())["all.rs"]);
}

/// Does nothing unless the test above runs it as if it were a build script.
#[test]
fn in_a_build_script() {
    if std::env::var_os("OUT_DIR").is_some() {
        configure()
            .include_file("all.rs")
            .compile_protos(&["nested/store.proto"], &[FOLDER])
            .expect("the files have no mistake");
    }
}
