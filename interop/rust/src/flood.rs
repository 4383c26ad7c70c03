//! A client to be killed.

use anyhow::Result;

use crate::client::data;
use crate::proto::interop_client::InteropClient;
use crate::secrets::Secrets;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the server listens
    #[arg(long, value_name = "HOST:PORT")]
    server: String,

    #[command(flatten)]
    secrets: Secrets,
}

/// Calls as fast as it can, with many calls in flight.
pub(crate) async fn run(args: Args) -> Result<()> {
    let nodes = args.secrets.configuration()?;
    let all = nodes.nodes([args.server]).connect()?;
    all.connected(1).await?;
    let client = InteropClient::new(&all);
    println!("listening nowhere");
    for number in 0.. {
        let call = client.echo_all(data(number)).all();
        client.note(&all[0], data(number)).await?;
        if number % 100 == 0 {
            call.await?;
        }
    }
    Ok(())
}
