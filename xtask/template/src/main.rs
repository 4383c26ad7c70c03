//! `serve` runs a replica; `claim` and `owner` ask the replicas.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use gorums::server::Health;
use gorums::{Configuration, Server};
use tracing_subscriber::EnvFilter;

use service_crate::client::Claims;
use service_crate::disk::VotesFile;
use service_crate::proto;
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
    /// Seconds to wait for a majority of them, and for the call
    #[arg(long, default_value_t = 5)]
    timeout: u64,
}

impl Replicas {
    async fn claims(self) -> Result<Claims, Box<dyn Error>> {
        let timeout = Duration::from_secs(self.timeout);
        let replicas = Configuration::builder().nodes(self.replicas).connect()?;
        // Connecting goes on in the background, and a call fails at once at a replica that is down.
        // Those that are just being started are waited for; where too few come, the call says why.
        let majority = replicas.connected(replicas.len() / 2 + 1);
        let _ = tokio::time::timeout(timeout, majority).await;
        Ok(Claims::new(&replicas, timeout))
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
            // In one write, so that the lines of several processes do not mix.
            let text = format!("error: {error}\n");
            eprint!("{text}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<(), Box<dyn Error>> {
    match command {
        Command::Serve { listen, data } => {
            let replica = Replica::open(VotesFile::open(&data).await?).await?;
            let service = ClaimsServer::new(replica);
            let server = Server::builder().add_service(service);
            // For probes, by grpc.health.v1.Health, and for tools like grpcurl.
            let server = server
                .health(&Health::new())
                .reflection(proto::FILE_DESCRIPTOR_SET);
            let server = server.bind(&listen).await?;
            eprintln!("listening on {}", server.local_addr());
            server.serve_with_shutdown(stopped(), GRACE).await;
        }
        Command::Claim {
            replicas,
            name,
            candidate,
        } => {
            let claimed = replicas.claims().await?.claim(&name, &candidate).await;
            claimed.inspect_err(|error| {
                for (replica, ballot) in error.no() {
                    eprintln!("node {replica} has voted for {}", ballot.candidate);
                }
            })?;
            println!("{candidate} owns {name}");
        }
        Command::Owner { replicas, name } => match replicas.claims().await?.owner(&name).await? {
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
