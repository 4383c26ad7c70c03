//! The program: `register --help` tells how to run it, and `help` at its prompt what can be done
//! there.

use std::process::ExitCode;

fn main() -> ExitCode {
    register::program::main()
}
