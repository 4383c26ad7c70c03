//! This library's side of the interoperability tests: a server for other implementations to call, and the cases of a client
//! that calls servers of theirs. `cargo xtask interop` runs both.

mod client;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The messages, and the service that all sides implement.
#[allow(unreachable_pub)]
mod proto {
    gorums::include_proto!("interop");
}

#[derive(Parser)]
#[command(about = "This library's side of the interoperability tests: see `cargo xtask interop`")]
struct Cli {
    #[command(subcommand)]
    job: Job,
}

#[derive(Subcommand)]
enum Job {
    /// Serves, prints `listening HOST:PORT`, and ends when its standard input does
    Serve(serve::Args),
    /// Runs the cases of a client against servers of another implementation, which it starts and ends
    Client(client::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Cli::parse().job {
        Job::Serve(args) => serve::run(args).await.map(|()| ExitCode::SUCCESS),
        Job::Client(args) => client::run(args).await,
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
