//! The server that other implementations call.

use anyhow::Result;
use axum::Router;
use axum::routing::post;
use gorums::membership::NodeAddress;
use gorums::server::{Health, ServingStatus};
use tokio::io::AsyncReadExt;

use crate::calling::Calling;
use crate::noting::Noting;
use crate::proto::cluster_server::ClusterServer;
use crate::proto::interop_server::InteropServer;
use crate::secrets::Secrets;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to listen
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    listen: String,

    /// Which of the peers this is
    #[arg(long, value_name = "N", default_value_t = 0)]
    id: u32,

    /// All peers, which are believed to be who they say they are: 1=host:port,2=host:port
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',', requires = "id")]
    peers: Vec<NodeAddress>,

    /// Believe clients that say who they are
    #[arg(long)]
    trust: bool,

    /// Tell health probes that it does not serve, although it does
    #[arg(long)]
    unhealthy: bool,

    #[command(flatten)]
    secrets: Secrets,
}

/// Answers a request without a body by some hundred bytes. Tests of HTTP/2 alone need them, so as to see
/// how flow control holds an answer back; a method of gRPC has none for a call without a message.
fn bytes() -> Router {
    Router::new().route("/bytes", post(|| async { "bytes ".repeat(100) }))
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let secrets = &args.secrets;
    let mut server = secrets.server()?;
    // Where ids are proven, nobody is believed without.
    if !secrets.prove_ids() {
        server = server.trust_claimed_ids(args.trust || !args.peers.is_empty());
    }
    let health = Health::new();
    if args.unhealthy {
        health.set("", ServingStatus::NotServing);
    }
    if !args.peers.is_empty() {
        let peers = secrets.configuration()?.addresses(args.peers).connect()?;
        server = server.peers(args.id, &peers);
    }
    let calling = Calling::new(format!("rust-{}", args.id));
    let server = server
        .add_service(InteropServer::new(Noting::default()))
        .add_service(ClusterServer::new(calling.clone()))
        .health(&health)
        .fallback(bytes())
        .bind(&args.listen)
        .await?;
    calling.set_clients(server.clients());
    println!("listening {}", server.local_addr());
    let mut input = tokio::io::stdin();
    let mut ignored = Vec::new();
    tokio::select! {
        () = server.serve() => {}
        ended = input.read_to_end(&mut ignored) => {
            ended?;
        }
    }
    Ok(())
}
