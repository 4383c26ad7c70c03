//! The program: `storage --help` tells how to run it, and `help` at its prompt what can be done
//! there.

use std::process::ExitCode;

fn main() -> ExitCode {
    storage::cli::main()
}
