//! The plugin of `protoc` and `buf`, as described in [`gorums_build::plugin`].

use std::io::{self, IsTerminal, Read, Write};
use std::process::ExitCode;

use gorums_build::plugin;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("protoc-gen-gorums-rust: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<ExitCode> {
    if let Some(argument) = std::env::args().nth(1) {
        match argument.as_str() {
            "--help" | "-h" => write!(io::stdout(), "{}", plugin::HELP)?,
            "--version" | "-V" => writeln!(
                io::stdout(),
                "protoc-gen-gorums-rust {}",
                env!("CARGO_PKG_VERSION")
            )?,
            _ => {
                eprintln!(
                    "protoc-gen-gorums-rust: there is no argument `{argument}`; parameters are given to protoc with --gorums-rust_opt, see --help"
                );
                return Ok(ExitCode::FAILURE);
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut stdin = io::stdin().lock();
    if stdin.is_terminal() {
        eprintln!("protoc-gen-gorums-rust: protoc and buf run this, see --help");
        return Ok(ExitCode::FAILURE);
    }
    let mut request = Vec::new();
    stdin.read_to_end(&mut request)?;
    let response = plugin::respond(&request);
    for warning in &response.warnings {
        eprintln!("warning: {warning}");
    }
    io::stdout().write_all(&response.encoded)?;
    Ok(ExitCode::SUCCESS)
}
