//! Clients of a register on one replica, which is atomic as long as it forgets nothing.

use std::time::Duration;

use gorums_sim::{Client, History, Scenario};

pub(crate) const WRITE: &str = "Register.Write";
pub(crate) const READ: &str = "Register.Read";

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Word {
    #[prost(string, tag = "1")]
    pub(crate) text: String,
}

/// A short scenario, which has no replica yet.
pub(crate) fn scenario(name: &str) -> Scenario {
    Scenario::new(name)
        .replicas(1..=1)
        .clients(2..=3)
        .operations(30)
        .duration(Duration::from_secs(3))
        .client(client)
        .check(History::linearizable)
}

async fn client(node: Client) -> gorums_sim::Result {
    let replica = gorums::Client::new(&node.configuration().connect()?);
    while node.next_operation().await {
        if node.random_below(2) == 0 {
            let text = node.unique_value();
            let write = node.history().write(node.id(), "r", &text);
            let call = replica.quorum_call::<Word, Word>(WRITE, Word { text });
            match call.timeout(node.patience()).all().await {
                Ok(_) => write.ok(),
                Err(_) => write.failed(),
            };
        } else {
            let read = node.history().read(node.id(), "r");
            let call = replica.quorum_call::<Word, Word>(READ, Word::default());
            match call.timeout(node.patience()).all().await {
                Ok(word) => read.ok((!word.text.is_empty()).then_some(word.text)),
                Err(_) => read.failed(),
            };
        }
    }
    Ok(())
}
