//! Streams of replies that are awaited as if they were one value.
//~ error[E0277]: take the replies one by one with `next()`, or all of them with `by_node()`
//~ this is a stream

use gorums::call::QuorumCall;

pub async fn all(read: QuorumCall<String, String>) {
    let _all = read.responses().await;
}

pub async fn some(read: QuorumCall<String, String>) {
    let _some = read.responses().successes().filter(|_| true).take(2).await;
}
