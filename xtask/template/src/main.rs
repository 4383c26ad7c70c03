//! `serve` runs a replica; `claim` and `owner` ask the replicas.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use gorums::{Configuration, Server};
use tracing_subscriber::EnvFilter;

use service_crate::client::Claims;
use service_crate::disk::VotesFile;
use service_crate::proto::claims_server::ClaimsServer;
use service_crate::replica::Replica;

/// How long requests that are being handled may take after Ctrl-C.
const GRACE: Duration = Duration::from_secs(5);

/// Names that at most one owner has, for ever.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a replica until Ctrl-C or SIGTERM
    Serve {
        /// Where it is reached, such as 127.0.0.1:9001
        #[arg(long, value_name = "HOST:PORT")]
        listen: String,
        /// The folder of its votes, which no other replica uses
        #[arg(long, value_name = "FOLDER")]
        data: PathBuf,
    },
    /// Claim a name
    Claim {
        #[command(flatten)]
        replicas: Replicas,
        name: String,
        candidate: String,
    },
    /// Tell who owns a name
    Owner {
        #[command(flatten)]
        replicas: Replicas,
        name: String,
    },
}

#[derive(clap::Args)]
struct Replicas {
    /// All replicas, as in 127.0.0.1:9001,127.0.0.1:9002,127.0.0.1:9003
    #[arg(
        long,
        value_name = "HOST:PORT,…",
        value_delimiter = ',',
        required = true
    )]
    replicas: Vec<String>,
    /// Seconds until the call is given up
    #[arg(long, default_value_t = 5)]
    timeout: u64,
}

impl Replicas {
    fn claims(self) -> Result<Claims, Box<dyn Error>> {
        let replicas = Configuration::builder().nodes(self.replicas).connect()?;
        Ok(Claims::new(&replicas, Duration::from_secs(self.timeout)))
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    // RUST_LOG=gorums=debug shows what the library does.
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    match run(Cli::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<(), Box<dyn Error>> {
    match command {
        Command::Serve { listen, data } => {
            let replica = Replica::open(VotesFile::open(&data).await?).await?;
            let service = ClaimsServer::new(replica);
            let server = Server::builder().add_service(service).bind(&listen).await?;
            eprintln!("listening on {}", server.local_addr());
            server.serve_with_shutdown(stopped(), GRACE).await;
        }
        Command::Claim {
            replicas,
            name,
            candidate,
        } => {
            let claimed = replicas.claims()?.claim(&name, &candidate).await;
            claimed.inspect_err(|error| {
                for (replica, ballot) in error.no() {
                    eprintln!("replica {replica} has voted for {}", ballot.candidate);
                }
            })?;
            println!("{candidate} owns {name}");
        }
        Command::Owner { replicas, name } => match replicas.claims()?.owner(&name).await? {
            Some(owner) => println!("{owner} owns {name}"),
            None => println!("nobody owns {name}"),
        },
    }
    Ok(())
}

/// Ctrl-C, or what `kill` and a service manager send.
async fn stopped() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    // Without a way to hear Ctrl-C the process is ended by it, as any other.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
