//! The service of a replica: what it does with each request.

use std::sync::Arc;
use std::time::Duration;

pub use cluster_shell::Delay;
use gorums::server::KeyedCall;
use gorums::{ReplySender, ServerCtx, Status};

use crate::client::version;
use crate::proto::storage_client::StorageClient;
use crate::proto::storage_server::Storage;
use crate::proto::{ReadRequest, ReadResponse, WriteRequest, WriteResponse};
use crate::store::{Entry, Store, Stored, Time};

/// How long a message may wait for a replica that something answers for and that does not speak, as
/// where its process is paused. The others have it by then.
const HANDING_OVER: Duration = Duration::from_millis(500);

/// How long a nested call may take, where nobody says that its caller has left.
const NESTED: Duration = Duration::from_secs(10);

/// A replica: its store, and how long it takes to answer.
///
/// A handler gives its request to the store while it holds its turn, so that requests of one client
/// take effect in the order in which it sent them. While it waits for the disk, the next one may
/// start.
#[derive(Debug)]
pub struct Replica {
    store: Arc<Store>,
    delay: Delay,
}

impl Replica {
    /// A replica with this store, that takes this long to answer.
    pub fn new(store: Arc<Store>, delay: Delay) -> Self {
        Self { store, delay }
    }

    async fn read(&self, ctx: &ServerCtx, request: ReadRequest) -> Result<ReadResponse, Status> {
        let found = self.store.read(request.key).await?;
        let found = found.done(ctx).await?;
        self.delay.pass(ctx).await;
        Ok(match found {
            Some(Entry { value, time }) => ReadResponse {
                ok: true,
                value,
                time: Some(time.to_wire()),
            },
            None => ReadResponse::default(),
        })
    }

    async fn write(&self, ctx: &ServerCtx, request: WriteRequest) -> Result<WriteResponse, Status> {
        let taken = self.begin_write(ctx.keyed_call(), request).await?;
        let new = taken.done(ctx).await?;
        self.delay.pass(ctx).await;
        Ok(self.written(new))
    }

    /// What is said of a write that is on disk.
    fn written(&self, new: bool) -> WriteResponse {
        let standing = self.store.standing();
        WriteResponse { new, standing }
    }

    /// A write that has an answer is answered by it again when it comes again.
    async fn begin_write(
        &self,
        call: Option<KeyedCall>,
        request: WriteRequest,
    ) -> Result<Stored<bool>, Status> {
        let entry = Entry {
            value: request.value,
            time: Time::from_wire(request.time),
        };
        self.store.write_once(call, request.key, entry).await
    }

    /// Nobody waits for an answer to a one-way message.
    async fn write_one_way(&self, request: WriteRequest) {
        // Where the disk has failed, the whole replica ends with that error. Where it has no room,
        // the write is lost, as one-way messages may be.
        let _ = self.begin_write(None, request).await;
    }
}

impl Storage for Replica {
    async fn read_rpc(&self, ctx: ServerCtx, request: ReadRequest) -> Result<ReadResponse, Status> {
        self.read(&ctx, request).await
    }

    async fn write_rpc(
        &self,
        ctx: ServerCtx,
        request: WriteRequest,
    ) -> Result<WriteResponse, Status> {
        self.write(&ctx, request).await
    }

    async fn write_unicast(&self, _ctx: ServerCtx, request: WriteRequest) {
        self.write_one_way(request).await;
    }

    async fn write_multicast(&self, _ctx: ServerCtx, request: WriteRequest) {
        self.write_one_way(request).await;
    }

    async fn read_qc(&self, ctx: ServerCtx, request: ReadRequest) -> Result<ReadResponse, Status> {
        self.read(&ctx, request).await
    }

    async fn write_qc(
        &self,
        ctx: ServerCtx,
        request: WriteRequest,
    ) -> Result<WriteResponse, Status> {
        self.write(&ctx, request).await
    }

    async fn read_correctable(
        &self,
        ctx: ServerCtx,
        request: ReadRequest,
        replies: ReplySender<ReadResponse>,
    ) -> Result<(), Status> {
        let response = self.read(&ctx, request).await?;
        replies.send(response).await?;
        Ok(())
    }

    /// The newest value of a majority of the replicas, whom this one asks.
    async fn read_nested_qc(
        &self,
        ctx: ServerCtx,
        request: ReadRequest,
    ) -> Result<ReadResponse, Status> {
        let peers = peers(&ctx)?;
        // Its own answer comes through a turn that must not wait for this handler.
        ctx.release();
        let newest = peers.read_qc(request).majority().max_by_key(version);
        let newest = while_wanted(&ctx, newest).await??;
        self.delay.pass(&ctx).await;
        Ok(newest)
    }

    /// Writes, and passes the write on to all replicas. That is done when it is on its way to a
    /// majority; whether it was new is this replica's own answer.
    async fn write_nested_multicast(
        &self,
        ctx: ServerCtx,
        request: WriteRequest,
    ) -> Result<WriteResponse, Status> {
        let peers = peers(&ctx)?;
        let taken = self.begin_write(ctx.keyed_call(), request.clone()).await?;
        let sent = peers.write_multicast(request).timeout(HANDING_OVER);
        ctx.release();
        let count = peers.configuration().len();
        match while_wanted(&ctx, sent.into_future()).await? {
            Err(error) if count - error.failures().len() <= count / 2 => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        let new = taken.done(&ctx).await?;
        self.delay.pass(&ctx).await;
        Ok(self.written(new))
    }
}

/// The replicas that this one calls, itself among them.
fn peers(ctx: &ServerCtx) -> Result<StorageClient, Status> {
    let peers = ctx.config();
    if peers.is_empty() {
        return Err(Status::failed_precondition(
            "this replica does not know the others: start it with --peers",
        ));
    }
    Ok(StorageClient::new(peers).with_timeout(NESTED))
}

/// Waits for a nested call as long as somebody waits for what comes of it.
async fn while_wanted<T>(ctx: &ServerCtx, call: impl Future<Output = T>) -> Result<T, Status> {
    tokio::select! {
        biased;
        done = call => Ok(done),
        () = ctx.cancelled() => Err(Status::cancelled("the caller has left")),
    }
}
