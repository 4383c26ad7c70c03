//! A number where a quorum system is wanted.
//~ is no quorum system: pass a type of `gorums::quorum`
//~ for a number of nodes there is `threshold(k)`

use gorums::QuorumError;
use gorums::call::QuorumCall;

pub async fn two(read: QuorumCall<String, String>) -> Result<String, QuorumError> {
    read.quorum(2).await
}
