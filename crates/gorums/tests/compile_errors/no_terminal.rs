//! A quorum call that is awaited without a word on its replies.
//~ error[E0277]: choose what is made of the replies: `majority()`, `all()`,
//~ a quorum call has no result of its own: its terminal is missing
//~ without one nothing is sent

use gorums::QuorumError;
use gorums::call::QuorumCall;

pub async fn newest(read: QuorumCall<String, String>) -> Result<String, QuorumError> {
    let reply = read.timeout(std::time::Duration::from_secs(1)).await?;
    Ok(reply)
}
