//! A quorum call without a terminal that is given to something that takes futures.
//~ error[E0277]: choose what is made of the replies: `majority()`, `all()`,

use gorums::call::QuorumCall;

fn spawn(_: impl Future + Send + 'static) {}

pub fn in_a_task(read: QuorumCall<String, String>) {
    spawn(read);
}
