//! Generates the service, and notes which versions are measured.

use std::env;
use std::error::Error;
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    // What is echoed is not copied.
    gorums_build::configure()
        .bytes(".")
        .compile_protos(&["proto/benchmark.proto"], &["proto"])?;

    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    note("BENCH_RUSTC", output(&rustc, &["--version"]));
    note("BENCH_PROFILE", env::var("PROFILE").ok());
    // A tree without git, as a published crate is, has no commit.
    note(
        "BENCH_COMMIT",
        output("git", &["rev-parse", "--short=10", "HEAD"]),
    );
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) = output("git", &["rev-parse", "--git-path", file]) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    Ok(())
}

fn note(name: &str, value: Option<String>) {
    println!("cargo:rustc-env={name}={}", value.unwrap_or_default());
}

fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}
