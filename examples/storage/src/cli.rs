//! The program: what it has beside what all programs of the examples have.

mod args;
mod command;
mod load;
mod session;

use std::process::ExitCode;

use clap::Parser;

use self::args::Cli;
pub use self::command::{Command, Many, Part, Rpc, Selection};
pub use self::session::Storage;

/// Runs the program with the options of its command line.
pub fn main() -> ExitCode {
    let Cli { mode, client } = Cli::parse();
    cluster_shell::run::<Storage>(mode, client)
}
