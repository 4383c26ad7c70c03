//! What there is to tell of replicas that do not answer because they have lost their data.

use std::collections::BTreeMap;
use std::time::Duration;

use gorums::Configuration;

use super::has_lost;
use super::proto::Question;
use super::proto::rejoin_client::RejoinClient;

/// How long a replica may take to say how far it has come.
const ANSWERING: Duration = Duration::from_millis(300);

/// Of these replicas, which are all that there are, those that have lost their data, and how far they
/// have come with getting them again.
pub async fn notes(replicas: &Configuration) -> BTreeMap<u32, String> {
    let question = Question {
        // No replica has this id.
        replica: 0,
        replicas: replicas.len() as u32,
    };
    let ask = RejoinClient::new(replicas).ask(question).timeout(ANSWERING);
    let answers = ask.responses().by_node().await;
    let refusals = answers.into_iter().filter_map(|(node, answer)| {
        let error = answer.err()?;
        has_lost(&error).then(|| (node.get(), error.status().message().to_owned()))
    });
    refusals.collect()
}
