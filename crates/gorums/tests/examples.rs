//! The examples do what they say.

#[path = "../examples/quorum_call.rs"]
mod quorum_call;

#[test]
fn quorum_calls_survive_the_loss_of_a_replica() {
    quorum_call::main().expect("every call ends as the example says");
}
