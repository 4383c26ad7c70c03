//! The examples do what they say.
#![allow(dead_code)]

#[path = "../examples/quorum_call.rs"]
mod quorum_call;
#[path = "../examples/stream.rs"]
mod stream;

#[test]
fn quorum_calls_survive_the_loss_of_a_replica() {
    quorum_call::main().expect("every call ends as the example says");
}

#[tokio::test]
async fn a_reader_gets_every_chunk_whatever_its_pace() {
    for pace in ["fast", "slow"] {
        let read = stream::read(300, 10_000, pace).await;
        read.expect("every chunk comes, in order");
    }
}
