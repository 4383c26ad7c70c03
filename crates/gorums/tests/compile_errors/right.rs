//! What the other files would say if they were right: it compiles.

use gorums::call::QuorumCall;
use gorums::server::{Registry, Service};
use gorums::{CancellationToken, QuorumError, Server};

pub async fn awaited(call: QuorumCall<String, String>) -> Result<String, QuorumError> {
    let token = CancellationToken::new();
    let _lent = call.clone().cancelled_by(&token);
    call.cancelled_by(token).majority().await
}

struct Wrapped;

impl Service for Wrapped {
    fn name(&self) -> &'static str {
        "test.Lock"
    }

    fn register(self, _: &mut Registry) {}
}

pub fn served() {
    drop(Server::builder().add_service(Wrapped));
}
