//! The cases of our client and TLS servers of another implementation: who takes whom, and what is
//! told of those who are not taken.

use anyhow::{Context, Result, bail, ensure};
use gorums::{Code, Configuration, ConfigurationBuilder, Outcome};

use crate::client::{data, failed, inspect};
use crate::proto::interop_client::InteropClient;
use crate::runner::{Case, Start, cases};
use crate::secrets::Secrets;

pub(crate) const CASES: &[Case] = cases![
    a_node_proves_which_one_it_is,
    another_node_or_cluster_is_not_taken,
    a_server_of_another_authority_is_not_taken,
    a_client_without_a_certificate_is_refused,
    a_client_of_another_authority_is_refused,
    plain_text_to_a_port_with_tls,
    tls_to_a_plain_port,
];

/// What is said of a client that a server does not take: by the server's alert, or in place of it, where
/// writing failed before that was read.
const NOT_TAKEN: &[&str] = &["certificate", "what this process showed of itself"];

/// A call that cannot be sent. What is wrong is said by the error that is returned, in the words of
/// whoever has refused the connection.
async fn refused(nodes: ConfigurationBuilder, code: Code) -> Result<String> {
    let all = nodes.connect()?;
    let call = InteropClient::new(&all).echo(&all[0], data(1));
    let error = failed(call.await)?;
    ensure!(
        error.code() == code && error.outcome() == Outcome::NotSent,
        "expected {code:?}, not sent: {error}"
    );
    Ok(error.to_string())
}

fn says(error: &str, words: &[&str]) -> Result<()> {
    if words.iter().any(|words| error.contains(words)) {
        return Ok(());
    }
    bail!("it says none of {words:?}: {error}")
}

/// What refuses some leaves others alone.
async fn serves(all: &Configuration) -> Result<()> {
    let reply = InteropClient::new(all).echo(&all[0], data(7)).await?;
    ensure!(reply == data(7), "{reply:?}");
    inspect(all, 0, 1).await?;
    Ok(())
}

async fn a_node_proves_which_one_it_is(start: Start) -> Result<()> {
    let start = start.proving();
    let mut nodes = start.configuration()?.metadata("from", "connection");
    let mut servers = Vec::new();
    for id in 1..=3 {
        let secrets = start.secrets(&format!("node-{id}"));
        let server = start.server_as(&secrets, &[]).await?;
        nodes = nodes.node(id, &server.address);
        servers.push(server);
    }
    let all = nodes.connect()?;
    let replies = InteropClient::new(&all).echo_all(data(7)).all().replies();
    ensure!(replies.await?.len() == 3);
    serves(&all).await
}

async fn another_node_or_cluster_is_not_taken(start: Start) -> Result<()> {
    let start = start.proving();
    let server = start.server_as(&start.secrets("node-2"), &[]).await?;
    let nodes = |id: u32| Ok::<_, anyhow::Error>(start.configuration()?.node(id, &server.address));
    let error = refused(nodes(1)?, Code::PermissionDenied).await?;
    says(&error, &["node 2"])?;
    serves(&nodes(2)?.connect()?).await?;
    let other = gorums::tls::NodeUris::of("another");
    let error = refused(nodes(2)?.node_proof(other), Code::PermissionDenied).await?;
    says(&error, &["another"])
}

async fn a_server_of_another_authority_is_not_taken(start: Start) -> Result<()> {
    let server = start.server_as(&start.foreign("node-1")?, &[]).await?;
    let nodes = start.configuration()?.nodes([&server.address]);
    let error = refused(nodes, Code::Unavailable).await?;
    says(&error, &["authority", "issuer"])
}

async fn a_client_without_a_certificate_is_refused(start: Start) -> Result<()> {
    let secrets = start.secrets("client").anonymous();
    stranger(&start, &secrets, NOT_TAKEN).await
}

async fn a_client_of_another_authority_is_refused(start: Start) -> Result<()> {
    // It takes the server, and is not taken by it.
    let secrets = start.foreign("client")?.trusting(&start.secrets("client"));
    stranger(&start, &secrets, NOT_TAKEN).await
}

async fn plain_text_to_a_port_with_tls(start: Start) -> Result<()> {
    // Go's server closes the connection without a word, so it is known that it may be TLS and no more.
    stranger(&start, &Secrets::default(), &["it may expect TLS"]).await
}

/// A client with these certificates is not taken by a server that serves others.
async fn stranger(start: &Start, secrets: &Secrets, words: &[&str]) -> Result<()> {
    let server = start.server(&[]).await?;
    let nodes = secrets.configuration()?.nodes([&server.address]);
    let error = refused(nodes, Code::Unavailable).await?;
    says(&error, words)?;
    serves(&start.connect(std::slice::from_ref(&server))?).await
}

async fn tls_to_a_plain_port(start: Start) -> Result<()> {
    let server = start.server_as(&Secrets::default(), &[]).await?;
    let nodes = start.configuration()?.nodes([&server.address]);
    let error = refused(nodes, Code::Unavailable).await?;
    says(&error, &["does not seem to speak TLS"])?;
    let plain = Configuration::builder().nodes([&server.address]);
    serves(&plain.connect()?).await.context("in plain text")
}
