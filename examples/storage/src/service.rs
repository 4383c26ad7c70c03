//! The service of a replica: what it does with each request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gorums::{ReplySender, ServerCtx, Status};

use crate::proto::storage_server::Storage;
use crate::proto::{ReadRequest, ReadResponse, WriteRequest, WriteResponse};
use crate::store::{Entry, Store, Time};

/// A replica: its store, and how long it takes to answer.
///
/// Reading and writing the store is quick, so that handlers hold their turn until they end: requests
/// of one client take effect in the order in which it sent them.
#[derive(Debug, Default)]
pub(crate) struct Replica {
    store: Store,
    delay: Delay,
}

impl Replica {
    /// An empty replica that takes this long to answer.
    pub(crate) fn new(delay: Delay) -> Self {
        Self {
            store: Store::default(),
            delay,
        }
    }

    fn read(&self, request: &ReadRequest) -> ReadResponse {
        match self.store.read(&request.key) {
            Some(Entry { value, time }) => ReadResponse {
                ok: true,
                value,
                time: Some(time.to_wire()),
            },
            None => ReadResponse::default(),
        }
    }

    fn write(&self, request: WriteRequest) -> WriteResponse {
        let entry = Entry {
            value: request.value,
            time: Time::from_wire(request.time),
        };
        WriteResponse {
            new: self.store.write(request.key, entry),
        }
    }
}

impl Storage for Replica {
    async fn read_rpc(&self, ctx: ServerCtx, request: ReadRequest) -> Result<ReadResponse, Status> {
        let response = self.read(&request);
        self.delay.pass(&ctx).await;
        Ok(response)
    }

    async fn write_rpc(
        &self,
        ctx: ServerCtx,
        request: WriteRequest,
    ) -> Result<WriteResponse, Status> {
        let response = self.write(request);
        self.delay.pass(&ctx).await;
        Ok(response)
    }

    async fn write_unicast(&self, _ctx: ServerCtx, request: WriteRequest) {
        self.write(request);
    }

    async fn write_multicast(&self, _ctx: ServerCtx, request: WriteRequest) {
        self.write(request);
    }

    async fn read_qc(&self, ctx: ServerCtx, request: ReadRequest) -> Result<ReadResponse, Status> {
        let response = self.read(&request);
        self.delay.pass(&ctx).await;
        Ok(response)
    }

    async fn write_qc(
        &self,
        ctx: ServerCtx,
        request: WriteRequest,
    ) -> Result<WriteResponse, Status> {
        let response = self.write(request);
        self.delay.pass(&ctx).await;
        Ok(response)
    }

    async fn read_correctable(
        &self,
        ctx: ServerCtx,
        request: ReadRequest,
        replies: ReplySender<ReadResponse>,
    ) -> Result<(), Status> {
        let response = self.read(&request);
        self.delay.pass(&ctx).await;
        replies.send(response).await?;
        Ok(())
    }

    async fn read_nested_qc(
        &self,
        _ctx: ServerCtx,
        _request: ReadRequest,
    ) -> Result<ReadResponse, Status> {
        Err(without_peers("a nested read asks them"))
    }

    async fn write_nested_multicast(
        &self,
        _ctx: ServerCtx,
        _request: WriteRequest,
    ) -> Result<WriteResponse, Status> {
        Err(without_peers("a nested write is passed on to them"))
    }
}

fn without_peers(purpose: &str) -> Status {
    Status::failed_precondition(format!(
        "this server does not know its peers yet: {purpose}"
    ))
}

/// How long a replica waits before it answers. Clones share one setting.
#[derive(Debug, Clone, Default)]
pub(crate) struct Delay(Arc<AtomicU64>);

impl Delay {
    /// Sets it, to the millisecond, for requests that arrive from now on.
    pub(crate) fn set(&self, delay: Duration) {
        let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.0.store(millis, Ordering::Relaxed);
    }

    /// What it is set to.
    pub(crate) fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    /// Lets the next request start, and waits, unless the caller goes away.
    async fn pass(&self, ctx: &ServerCtx) {
        let delay = self.get();
        if delay.is_zero() {
            return;
        }
        ctx.release();
        tokio::select! {
            biased;
            () = ctx.cancelled() => {}
            () = tokio::time::sleep(delay) => {}
        }
    }
}
