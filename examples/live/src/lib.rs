//! What the live runs of the examples share: replicas as processes, each behind a proxy, while a
//! schedule of faults goes on.
//!
//! - [`tally`] has the kinds of faults, and counts those that have fired.
//! - [`proxy`] passes bytes between clients and a replica, and does to them what networks do.
//! - [`faults`] decides what happens when, and [`progress`] tells of it.

pub mod faults;
pub mod progress;
pub mod proxy;
pub mod tally;

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

/// How many replicas there are.
pub const REPLICAS: u32 = 3;

/// Whether this process is to be a replica, which [`Processes`](cluster_shell::replicas::Processes) start
/// by the same program.
#[must_use]
pub fn is_replica() -> bool {
    std::env::args_os()
        .nth(1)
        .is_some_and(|first| first == "serve")
}

/// Does the work of a program, up to Ctrl-C, and says what is wrong where it fails.
pub fn run_until_ctrl_c(work: impl Future<Output = Result<()>>) -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime cannot be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        tokio::select! {
            biased;
            interrupted = tokio::signal::ctrl_c() => match interrupted {
                Ok(()) => Err(anyhow::anyhow!("interrupted; nothing was checked")),
                Err(error) => Err(error.into()),
            },
            done = work => done,
        }
    });
    // The replicas' processes are killed with what was dropped, and what is left ends with this
    // process.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Shows a line, to whoever is still there.
pub fn say(text: impl Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
