//! For unit tests of services: contexts without a server.

use std::sync::Arc;

use crate::metadata::Metadata;
use crate::server::ServerCtx;

/// A context as a handler would get it, of no connection.
#[must_use]
pub fn server_ctx() -> ServerCtx {
    server_ctx_with(Metadata::new())
}

/// A context whose caller sent this metadata.
#[must_use]
pub fn server_ctx_with(metadata: Metadata) -> ServerCtx {
    ServerCtx::new("test".into(), metadata, Arc::default(), None)
}
