//! A replica: a process of its own.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use cluster_live::say;
use cluster_shell::Delay;
use cluster_shell::args::Serve;
use cluster_shell::controlled::{self, Orders};
use gorums::Server;
use ledger::note::Note;
use ledger::proto::ledger_server::LedgerServer;
use ledger::service::Replica;
use storage::disk::Disk;
use storage::store::Store;
use tokio::runtime::Runtime;

use crate::disks;

/// How long requests that are being handled may take to end when the replica is told to end.
const GRACE: Duration = Duration::from_secs(2);

/// A replica of the ledger, whose disk can be spoilt.
#[derive(Debug, Parser)]
#[command(name = "serve")]
struct Options {
    #[command(flatten)]
    serve: Serve,
}

/// Serves until whoever has started it wants its end.
pub(crate) fn main() -> ExitCode {
    let options = Options::parse_from(std::env::args_os().skip(1));
    let served = Runtime::new()
        .context("the runtime cannot be started")
        .and_then(|runtime| runtime.block_on(serve(options.serve)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Replicas of the ledger call nobody, so that it does not matter who the others are.
async fn serve(options: Serve) -> Result<()> {
    let (id, listen) = (options.id, options.listen);
    let Some(directory) = options.data.filter(|_| options.controlled) else {
        bail!("a replica of a run of chaos has a directory, and somebody who controls it");
    };
    let within = disks::watched(&directory, id);
    let disk = Disk::<Note>::open_within(&directory, id, &within)?;
    let store = Arc::new(Store::on_disk(disk, None));
    let delay = Delay::default();
    let replica = Replica::new(Arc::clone(&store)).with_delay(delay.clone());
    let server = Server::builder().add_service(LedgerServer::new(replica));
    let shared = controlled::listen(&listen).with_context(|| format!("listening on {listen}"))?;
    let server = server.with_incoming(shared)?;
    let mut orders = Orders::listen(delay);
    say(format_args!(
        "replica {id} listening on {}",
        server.local_addr()
    ));
    let mut failure = None;
    let told = async {
        tokio::select! {
            biased;
            () = orders.end() => {}
            status = store.failed() => failure = Some(status),
        }
    };
    server.serve_with_shutdown(told, GRACE).await;
    if let Some(status) = failure {
        bail!("{}", status.message());
    }
    store.close().await;
    Ok(())
}
