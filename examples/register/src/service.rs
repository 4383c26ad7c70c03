//! The service of a replica: what it does with each request.

use std::sync::Arc;

use cluster_shell::Delay;
use gorums::{ServerCtx, Status};
use storage::store::{Store, Stored};

use crate::planted::{Bug, Planted};
use crate::proto::register_server::Register;
use crate::proto::{
    LatestRequest, LatestResponse, ReadRequest, ReadResponse, WriteRequest, WriteResponse,
};
use crate::version::Versioned;

/// A replica: its store, and how long it takes to answer.
///
/// A handler gives its request to the store while it holds its turn, so that requests of one client
/// take effect in the order in which it sent them. While it waits for the disk, the next one may
/// start. What is answered is on the disk, also what is read: otherwise a read could return what a
/// crash takes back.
#[derive(Debug)]
pub struct Replica {
    store: Arc<Store<Versioned>>,
    delay: Delay,
    planted: Planted,
}

impl Replica {
    /// A replica with this store, that takes this long to answer.
    #[must_use]
    pub fn new(store: Arc<Store<Versioned>>, delay: Delay) -> Self {
        Self {
            store,
            delay,
            planted: Planted::default(),
        }
    }

    /// The same replica, with a mistake.
    #[cfg(feature = "planted-bugs")]
    #[must_use]
    pub fn with_bug(mut self, bug: Bug) -> Self {
        self.planted = Planted::one(bug);
        self
    }

    async fn found(&self, ctx: &ServerCtx, key: String) -> Result<Option<Versioned>, Status> {
        self.begin(ctx).await;
        let found = self.store.read(key).await?.done(ctx).await?;
        self.delay.pass(ctx).await;
        Ok(found)
    }

    async fn begin(&self, ctx: &ServerCtx) {
        if self.planted.is(Bug::ReleaseBeforeOrder) {
            ctx.release().await;
        }
    }

    async fn stored(&self, ctx: &ServerCtx, taken: Stored<bool, Versioned>) -> Result<(), Status> {
        if !self.planted.is(Bug::ReplyBeforeDurable) {
            taken.done(ctx).await?;
        }
        Ok(())
    }
}

impl Register for Replica {
    async fn read(&self, ctx: ServerCtx, request: ReadRequest) -> Result<ReadResponse, Status> {
        let found = self.found(&ctx, request.key).await?;
        let standing = self.store.standing();
        let (version, value) = found.map(|found| (found.version, found.value)).unzip();
        Ok(ReadResponse {
            version: version.map(Into::into),
            value: value.unwrap_or_default(),
            standing,
        })
    }

    async fn latest(
        &self,
        ctx: ServerCtx,
        request: LatestRequest,
    ) -> Result<LatestResponse, Status> {
        let found = self.found(&ctx, request.key).await?;
        Ok(LatestResponse {
            version: found.map(|found| found.version.into()),
        })
    }

    async fn write(&self, ctx: ServerCtx, request: WriteRequest) -> Result<WriteResponse, Status> {
        let version = request
            .version
            .ok_or_else(|| Status::invalid_argument("a write needs a version"))?;
        self.begin(&ctx).await;
        let value = Versioned {
            value: request.value,
            version: version.into(),
        };
        let taken = self.store.write(request.key, value).await?;
        self.stored(&ctx, taken).await?;
        self.delay.pass(&ctx).await;
        let standing = self.store.standing();
        Ok(WriteResponse { standing })
    }
}
