//! A correctable that is awaited as if it had one answer.
//~ error[E0277]: choose the answer that is waited for: `reached(level)`, `changed()`

use gorums::QuorumError;
use gorums::call::QuorumCall;

pub async fn answer(read: QuorumCall<String, String>) -> Result<String, QuorumError> {
    read.correctable(2).await
}
