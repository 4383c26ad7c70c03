//! This library's side of the interoperability tests: a server for other implementations to call,
//! and the cases of a client that calls servers of theirs. `cargo xtask interop` runs both.

mod back_channel;
mod calling;
mod client;
mod flood;
mod history;
mod mixed;
mod noting;
mod process;
mod runner;
mod secrets;
mod serve;
mod store;
mod tls;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::runner::Chosen;

/// The messages, and the service that all sides implement.
#[allow(unreachable_pub)]
mod proto {
    gorums::include_proto!("interop");
}

/// The store.
#[allow(unreachable_pub)]
mod storage {
    gorums::include_proto!("proto");
}

/// What goes along with the store's answers.
#[allow(unreachable_pub)]
mod rejoin {
    gorums::include_proto!("rejoin");
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
    /// Runs the cases of a client against servers of another implementation, which it starts and
    /// ends
    Client(ClientArgs),
    /// Runs the cases of servers that call their clients, and of clusters of which one part is of
    /// another implementation
    Mixed(MixedArgs),
    /// Runs the cases of programs of others that know ordinary gRPC alone: grpcurl and the health
    /// probe
    Tools(ToolsArgs),
    /// Calls a server until this is killed
    Flood(flood::Args),
}

#[derive(clap::Args)]
struct MixedArgs {
    /// The program of our replicas of the store
    #[arg(long, value_name = "PROGRAM")]
    storage: String,

    /// The program of the other servers and its first arguments, each with this option
    #[arg(long, value_name = "WORD", required = true, allow_hyphen_values = true)]
    server: Vec<String>,

    #[command(flatten)]
    chosen: Chosen,
}

impl MixedArgs {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let plain = [
            ("go-server", back_channel::CASES, 0),
            ("1-go-2-rust", mixed::CASES, 1),
            ("1-go-2-rust", store::CASES, 1),
            ("2-go-1-rust", mixed::CASES, 2),
            ("2-go-1-rust", store::CASES, 2),
        ];
        let tls = [
            ("go-server-tls", back_channel::CASES, 0),
            ("1-go-2-rust-tls", mixed::CASES, 1),
            ("1-go-2-rust-tls", mixed::TLS_CASES, 1),
            ("1-go-2-rust-tls", store::CASES, 1),
            ("2-go-1-rust-tls", mixed::CASES, 2),
            ("2-go-1-rust-tls", mixed::TLS_CASES, 2),
            ("2-go-1-rust-tls", store::CASES, 2),
        ];
        let groups = match self.chosen.certs {
            Some(_) => &tls[..],
            None => &plain,
        };
        runner::run(groups, &self.chosen, &self.server, Some(&self.storage)).await
    }
}

#[derive(clap::Args)]
struct ToolsArgs {
    /// The program of our replicas of the store
    #[arg(long, value_name = "PROGRAM")]
    storage: String,

    /// The folder of the programs
    #[arg(long, value_name = "DIR")]
    tools: String,

    #[command(flatten)]
    chosen: Chosen,
}

impl ToolsArgs {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let (grpcurl, probe) = match self.chosen.certs {
            Some(_) => ("grpcurl-tls", "health-probe-tls"),
            None => ("grpcurl", "health-probe"),
        };
        let mut groups = vec![
            (grpcurl, tools::GRPCURL, 0),
            (grpcurl, tools::REFLECTION, 0),
            (probe, tools::PROBE, 0),
        ];
        if self.chosen.certs.is_some() {
            groups.push((grpcurl, tools::GRPCURL_TLS, 0));
        }
        runner::run(&groups, &self.chosen, &[self.tools], Some(&self.storage)).await
    }
}

#[derive(clap::Args)]
struct ClientArgs {
    /// What the cases are called, before a slash
    #[arg(long, value_name = "NAME")]
    group: String,

    /// The program of the servers and its first arguments, each with this option
    #[arg(long, value_name = "WORD", required = true, allow_hyphen_values = true)]
    server: Vec<String>,

    /// The servers are of the Go library v0.11.0, behind an adapter: run what they can do
    #[arg(long)]
    library: bool,

    #[command(flatten)]
    chosen: Chosen,
}

impl ClientArgs {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let cases = if self.library {
            client::LIBRARY
        } else {
            client::CASES
        };
        let mut groups = vec![(self.group.as_str(), cases, 0)];
        if self.chosen.certs.is_some() && !self.library {
            groups.push((&self.group, tls::CASES, 0));
        }
        runner::run(&groups, &self.chosen, &self.server, None).await
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Cli::parse().job {
        Job::Serve(args) => serve::run(args).await.map(|()| ExitCode::SUCCESS),
        Job::Client(args) => args.run().await,
        Job::Mixed(args) => args.run().await,
        Job::Tools(args) => args.run().await,
        Job::Flood(args) => flood::run(args).await.map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
