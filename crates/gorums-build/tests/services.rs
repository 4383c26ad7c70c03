//! Which services are generated, and which are left to other generators.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use gorums_build::{Builder, Error, configure};
use tempfile::TempDir;

/// A folder with some `.proto` files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files {
        fs::write(folder.path().join(name), text).expect("the folder is writable");
    }
    folder
}

/// The code for files of one package.
fn generate(builder: Builder, from: &TempDir, protos: &[&str]) -> Result<String, Error> {
    let out = tempfile::tempdir().expect("a temporary folder");
    builder
        .out_dir(out.path())
        .emit_rerun_if_changed(false)
        .compile_protos(protos, &[from.path()])?;
    Ok(only_file(out.path()))
}

fn only_file(folder: &Path) -> String {
    let files: Vec<_> = fs::read_dir(folder)
        .expect("it exists")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "rs"))
        .collect();
    let [file] = files.as_slice() else {
        panic!("one file, not {files:?}");
    };
    fs::read_to_string(file).expect("generated text")
}

/// A service of each kind: for us, plain unary, and plain with a stream.
const MIXED: &str = "syntax = 'proto3'; package p; import 'gorums.proto';
    message M { }
    service Ours { rpc Get(M) returns (M) { option (gorums.quorumcall) = true; } }
    service Unary { rpc Get(M) returns (M); }
    service Grpc {
        rpc Get(M) returns (M);
        rpc Watch(M) returns (stream M);
        rpc Upload(stream M) returns (M);
    }";

fn generated_services(code: &str) -> Vec<&str> {
    ["Ours", "Unary", "Grpc"]
        .into_iter()
        .filter(|name| code.contains(&format!("pub trait {name}")))
        .collect()
}

#[test]
fn a_streaming_service_without_options_is_left_to_others() {
    let from = folder(&[("a.proto", MIXED)]);
    let code = generate(configure(), &from, &["a.proto"]).expect("no mistake");
    assert_eq!(generated_services(&code), ["Ours", "Unary"]);
    assert!(code.contains("pub struct M"), "messages are generated");
}

#[test]
fn services_can_be_chosen_and_skipped() {
    let from = folder(&[("a.proto", MIXED)]);
    for (builder, expected) in [
        (configure().services(["Ours"]), vec!["Ours"]),
        (
            configure().services([".p.Ours", "p.Unary"]),
            vec!["Ours", "Unary"],
        ),
        (configure().skip_services(["Unary", "Grpc"]), vec!["Ours"]),
        (
            configure().services([".p.Ours"]).skip_services(["."]),
            vec![],
        ),
    ] {
        let code = generate(builder, &from, &["a.proto"]).expect("no mistake");
        assert_eq!(generated_services(&code), expected);
        assert!(code.contains("pub struct M"), "messages are generated");
    }
}

#[test]
fn a_chosen_service_with_a_stream_is_a_mistake() {
    let from = folder(&[("a.proto", MIXED)]);
    let error = generate(configure().services(["."]), &from, &["a.proto"]).expect_err("streams");
    let methods: Vec<_> = error
        .diagnostics()
        .iter()
        .map(gorums_build::Diagnostic::method)
        .collect();
    assert_eq!(methods, [Some("Watch"), Some("Upload")]);
}

#[test]
fn a_choice_of_no_service_names_those_that_there_are() {
    let from = folder(&[("a.proto", MIXED)]);
    let error = generate(configure().services(["Our"]), &from, &["a.proto"]).expect_err("misspelt");
    assert_eq!(
        error.to_string(),
        "`Our` chooses no service of the compiled files, which have `p.Ours`, `p.Unary`, `p.Grpc`"
    );
}

#[test]
fn a_stream_beside_an_option_of_gorums_is_still_a_mistake() {
    let text = "syntax = 'proto3'; package p; import 'gorums.proto'; message M { }
        service Ours {
            rpc Get(M) returns (M) { option (gorums.quorumcall) = true; }
            rpc Watch(M) returns (stream M);
        }";
    let from = folder(&[("a.proto", text)]);
    let error = generate(configure(), &from, &["a.proto"]).expect_err("an RPC has one reply");
    assert_eq!(error.diagnostics().len(), 1);
    assert_eq!(error.diagnostics()[0].method(), Some("Watch"));
}

#[test]
fn a_stream_of_requests_means_nothing_in_a_one_way_call() {
    let text = |stream: &str| {
        format!(
            "syntax = 'proto3'; package p; import 'gorums.proto'; message M {{ }}
            service Ours {{
                rpc All({stream} M) returns (M) {{ option (gorums.multicast) = true; }}
                rpc One({stream} M) returns (M) {{ option (gorums.unicast) = true; }}
            }}"
        )
    };
    let code = |stream| {
        let from = folder(&[("a.proto", &text(stream))]);
        generate(configure(), &from, &["a.proto"]).expect("no mistake")
    };
    assert_eq!(code("stream"), code(""));
}

/// Runs one of the tests below as a process of its own, as a build script if `under_cargo`.
fn run(test: &str, under_cargo: bool) -> Output {
    let mut command = Command::new(std::env::current_exe().expect("a test is a program"));
    command
        .args(["--exact", test, "--nocapture"])
        .env("AS_PROCESS", "1");
    if under_cargo {
        command.env("CARGO", "cargo");
    } else {
        command.env_remove("CARGO");
    }
    let output = command.output().expect("the test program starts");
    assert!(output.status.success(), "{output:?}");
    output
}

#[test]
fn what_is_left_to_others_is_told() {
    let to_cargo = run("leaves_a_service", true);
    let stdout = String::from_utf8(to_cargo.stdout).expect("text");
    let warning = stdout
        .lines()
        .find(|line| line.starts_with("cargo:warning="))
        .expect("a warning");
    assert!(
        warning.contains("a.proto:5:13: service `p.Grpc`: it is left to other generators"),
        "{warning}"
    );
    assert!(warning.contains("`Watch` has a `stream`"), "{warning}");
    assert!(warning.contains("help: `skip_services`"), "{warning}");

    let elsewhere = run("leaves_a_service", false);
    assert!(!String::from_utf8_lossy(&elsewhere.stdout).contains("cargo:warning"));
    let stderr = String::from_utf8_lossy(&elsewhere.stderr);
    assert!(stderr.contains("service `p.Grpc`"), "{stderr}");
}

/// Does nothing unless the test above runs it as a process.
#[test]
fn leaves_a_service() {
    if std::env::var_os("AS_PROCESS").is_some() {
        let from = folder(&[("a.proto", MIXED)]);
        generate(configure(), &from, &["a.proto"]).expect("no mistake");
    }
}

/// A file for us that imports one with a plain gRPC service, and the descriptors of both.
fn with_a_dependency() -> (TempDir, Vec<u8>) {
    let from = folder(&[
        (
            "a.proto",
            "syntax = 'proto3'; package p; import 'b.proto'; import 'gorums.proto';
            service Ours { rpc Get(M) returns (M) { option (gorums.quorumcall) = true; } }",
        ),
        (
            "b.proto",
            "syntax = 'proto3'; package p; import 'gorums.proto'; message M { }
            service Grpc { rpc Get(M) returns (M) { option (gorums.rpc) = true; } }",
        ),
    ]);
    let set = from.path().join("set.bin");
    let builder = configure().file_descriptor_set_path(&set);
    generate(builder, &from, &["a.proto", "b.proto"]).expect("no mistake");
    let encoded = fs::read(set).expect("it was asked for");
    (from, encoded)
}

fn generate_fds(builder: Builder, encoded: &[u8]) -> Result<String, Error> {
    let out = tempfile::tempdir().expect("a temporary folder");
    builder
        .out_dir(out.path())
        .emit_rerun_if_changed(false)
        .compile_fds(encoded)?;
    Ok(only_file(out.path()))
}

#[test]
fn dependencies_in_a_descriptor_set_are_no_targets() {
    let (_from, encoded) = with_a_dependency();
    let code = generate_fds(configure(), &encoded).expect("no mistake");
    assert_eq!(generated_services(&code), ["Ours"]);
    assert!(code.contains("pub struct M"), "messages are generated");
}

#[test]
fn targets_in_a_descriptor_set_can_be_named() {
    let (_from, encoded) = with_a_dependency();
    let both = configure().fds_targets(["a.proto", "b.proto"]);
    let code = generate_fds(both, &encoded).expect("no mistake");
    assert_eq!(generated_services(&code), ["Ours", "Grpc"]);

    let error = generate_fds(configure().fds_targets(["c.proto"]), &encoded).expect_err("no c");
    assert!(
        error.to_string().starts_with(
            "the file `c.proto` is not in the descriptor set, which has `a.proto`, `b.proto`"
        ),
        "{error}"
    );
}

#[test]
fn an_imported_service_that_a_set_may_be_meant_for_is_told() {
    let output = run("compiles_a_set_with_a_dependency", false);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("b.proto:2:13: service `p.Grpc`: it is not generated"),
        "{stderr}"
    );
    assert!(stderr.contains("`fds_targets`"), "{stderr}");
}

/// Does nothing unless the test above runs it as a process.
#[test]
fn compiles_a_set_with_a_dependency() {
    if std::env::var_os("AS_PROCESS").is_some() {
        let (_from, encoded) = with_a_dependency();
        generate_fds(configure(), &encoded).expect("no mistake");
    }
}
