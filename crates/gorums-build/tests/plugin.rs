//! `protoc-gen-gorums-rust`, run as `protoc` runs it.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::{fs, thread};

use prost::Message;

/// What `protoc` sends. The files are those of a descriptor set, which has the same field for them.
#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(string, repeated, tag = "1")]
    file_to_generate: Vec<String>,
    #[prost(string, optional, tag = "2")]
    parameter: Option<String>,
    #[prost(bytes = "vec", repeated, tag = "15")]
    proto_file: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct DescriptorSet {
    #[prost(bytes = "vec", repeated, tag = "1")]
    file: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(string, optional, tag = "1")]
    error: Option<String>,
    #[prost(uint64, optional, tag = "2")]
    supported_features: Option<u64>,
    #[prost(int32, optional, tag = "3")]
    minimum_edition: Option<i32>,
    #[prost(int32, optional, tag = "4")]
    maximum_edition: Option<i32>,
    #[prost(message, repeated, tag = "15")]
    file: Vec<GeneratedFile>,
}

#[derive(Clone, PartialEq, Message)]
struct GeneratedFile {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "15")]
    content: Option<String>,
}

fn run(arguments: &[&str], stdin: Vec<u8>) -> Output {
    let mut plugin = Command::new(env!("CARGO_BIN_EXE_protoc-gen-gorums-rust"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("cargo has built it");
    let mut to_plugin = plugin.stdin.take().expect("it is piped");
    // It may end without reading.
    let writer = thread::spawn(move || to_plugin.write_all(&stdin).ok());
    let output = plugin.wait_with_output().expect("it ends");
    writer.join().expect("writing does not panic");
    output
}

/// Asks for some of the files in `tests/golden`, with the descriptors that `protoc` made of them.
fn respond(files: &[&str], parameter: &str) -> (Response, String) {
    let set = fs::read("tests/golden/protoc.bin").expect("tests run in the folder of the crate");
    let set = DescriptorSet::decode(set.as_slice()).expect("a descriptor set");
    let request = Request {
        file_to_generate: files.iter().map(|&file| file.to_owned()).collect(),
        parameter: Some(parameter.to_owned()),
        proto_file: set.file,
    };
    let output = run(&[], request.encode_to_vec());
    assert!(output.status.success(), "{output:?}");
    let response = Response::decode(output.stdout.as_slice()).expect("a response");
    let stderr = String::from_utf8(output.stderr).expect("text");
    (response, stderr)
}

#[test]
fn the_code_is_that_of_a_build_script() {
    let (response, stderr) = respond(&["services.proto"], "include_file=mod.rs");
    assert_eq!(response.error, None);
    assert!(
        stderr.contains("service `golden.services.Grpc`: it is left"),
        "{stderr}"
    );
    let answered: BTreeMap<String, String> = response
        .file
        .into_iter()
        .map(|file| (file.name().to_owned(), file.content().to_owned()))
        .collect();

    let out = tempfile::tempdir().expect("a temporary folder");
    gorums_build::configure()
        .out_dir(out.path())
        .include_file("mod.rs")
        .emit_rerun_if_changed(false)
        // A plugin writes text.
        .file_descriptor_sets(false)
        .fds_targets(["services.proto"])
        .compile_fds(fs::read("tests/golden/protoc.bin").expect("it is in the repository"))
        .expect("the files have no mistake");
    let written: BTreeMap<String, String> = fs::read_dir(out.path())
        .expect("it exists")
        .map(|entry| {
            let entry = entry.expect("readable");
            let text = fs::read_to_string(entry.path()).expect("generated text");
            (entry.file_name().to_string_lossy().into_owned(), text)
        })
        .collect();
    assert_eq!(answered, written);
    assert!(answered["golden.services.rs"].contains("pub trait Storage"));
    assert!(answered["mod.rs"].contains("include!(\"golden.services.rs\");"));
}

#[test]
fn parameters_are_settings() {
    let (response, stderr) = respond(
        &["services.proto"],
        r"build_server=false,services=Storage,message_attribute=Request=#[derive(Eq\, Hash)]",
    );
    assert_eq!((response.error, stderr.as_str()), (None, ""));
    let code = response
        .file
        .iter()
        .find(|file| file.name() == "golden.services.rs")
        .expect("its package")
        .content();
    assert!(code.contains("pub mod storage_client") && !code.contains("storage_server"));
    assert!(code.contains("#[derive(Eq, Hash)]"));
}

#[test]
fn editions_are_supported_and_what_is_wrong_is_in_the_response() {
    let (response, _) = respond(&["edition2024.proto"], "");
    assert_eq!(response.error, None);
    assert_eq!(response.supported_features, Some(3));
    assert_eq!(
        (response.minimum_edition, response.maximum_edition),
        (Some(998), Some(1001))
    );

    let (response, _) = respond(&["edition2024.proto"], "build_klient");
    assert_eq!(
        response.error.as_deref(),
        Some("there is no parameter `build_klient`; `protoc-gen-gorums-rust --help` lists them")
    );
    assert_eq!(response.supported_features, Some(3));

    let output = run(&[], b"no request".to_vec());
    let response = Response::decode(output.stdout.as_slice()).expect("a response");
    assert!(
        response
            .error()
            .starts_with("not an encoded google.protobuf.compiler.CodeGeneratorRequest"),
        "{response:?}"
    );
}

#[test]
fn arguments_are_for_people() {
    let help = run(&["--help"], Vec::new());
    assert!(help.status.success());
    assert_eq!(
        String::from_utf8_lossy(&help.stdout),
        gorums_build::plugin::HELP
    );
    let wrong = run(&["--gorums-rust_opt"], Vec::new());
    assert!(!wrong.status.success());
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("see --help"));
}

#[test]
fn the_folder_of_the_options_has_them() {
    let text = fs::read_to_string(gorums_build::proto_include().join("gorums.proto"));
    assert!(text.expect("it is there").contains("package gorums;"));
}
