//! A client to be killed.

use anyhow::Result;
use gorums::Configuration;

use crate::client::data;
use crate::proto::interop_client::InteropClient;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the server listens
    #[arg(long, value_name = "HOST:PORT")]
    server: String,
}

/// Calls as fast as it can, with many calls in flight.
pub(crate) async fn run(args: Args) -> Result<()> {
    let all = Configuration::builder().nodes([args.server]).connect()?;
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
