//! The program: `storage --help` tells how to run it, and `help` at its prompt what can be done
//! there.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
