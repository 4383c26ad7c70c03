//! One node that is called over a transport of one's own.
#![allow(dead_code, missing_docs, unreachable_pub)]

use gorums::runtime::Transport;
use gorums::{Client, Code, Configuration, NodeError, Outcome};

use crate::common::{Number, number, within};

pub fn dial(transport: impl Transport, address: impl ToString) -> Client {
    let configuration = Configuration::builder()
        .transport(transport)
        .nodes([address.to_string()])
        .connect();
    Client::new(configuration.expect("a legal address"))
}

pub async fn call(client: &Client) -> Result<Number, NodeError> {
    let node = &client.configuration()[0];
    within(client.rpc(node, "test.Test.Echo", number(1))).await
}

/// What a call ends with at a node that it cannot reach: nothing was sent, and this is why.
pub async fn not_sent(client: &Client) -> String {
    let error = call(client).await.expect_err("it is refused");
    assert_eq!(
        (error.outcome(), error.code()),
        (Outcome::NotSent, Code::Unavailable),
        "{error}"
    );
    error.status().message().to_owned()
}
