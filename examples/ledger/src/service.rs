//! The service of a replica: what it does with each request.

use std::sync::Arc;

use cluster_shell::Delay;
use gorums::server::KeyedCall;
use gorums::{ServerCtx, Status};
use storage::disk::Changed;
use storage::store::Store;

use crate::note::{COUNT, LENGTH, LINES, Note, line};
use crate::planted::{Bug, Planted};
use crate::proto::ledger_server::Ledger;
use crate::proto::{
    AddRequest, AddResponse, AppendRequest, AppendResponse, ReadRequest, ReadResponse,
};

/// How many bytes a line may have.
pub const LINE: usize = 64 << 10;

/// A replica: its store, and how long it takes to answer.
///
/// A handler gives its request to the store while it holds its turn, so that requests of one client
/// take effect in the order in which it sent them. While it waits for the disk, the next one may start.
#[derive(Debug)]
pub struct Replica {
    store: Arc<Store<Note>>,
    delay: Delay,
    planted: Planted,
}

impl Replica {
    /// A replica with this store.
    #[must_use]
    pub fn new(store: Arc<Store<Note>>) -> Self {
        Self {
            store,
            delay: Delay::default(),
            planted: Planted::default(),
        }
    }

    /// The same replica, that takes this long to answer.
    #[must_use]
    pub fn with_delay(mut self, delay: Delay) -> Self {
        self.delay = delay;
        self
    }

    /// The same replica, with a mistake.
    #[cfg(feature = "planted-bugs")]
    #[must_use]
    pub fn with_bug(mut self, bug: Bug) -> Self {
        self.planted = Planted::one(bug);
        self
    }

    /// The name under which the answer is kept.
    fn call(&self, ctx: &ServerCtx) -> Result<Option<KeyedCall>, Status> {
        let call = ctx.keyed_call().ok_or_else(|| {
            Status::failed_precondition(
                "the ledger has each call once, for clients with sessions: nothing names this call",
            )
        })?;
        Ok((!self.planted.is(Bug::ForgetsAnswers)).then_some(call))
    }
}

impl Ledger for Replica {
    async fn add(&self, ctx: ServerCtx, request: AddRequest) -> Result<AddResponse, Status> {
        let call = self.call(&ctx)?;
        let add = move |known: Option<&Note>| {
            let count = known.map_or(0, |known| known.number);
            let count = count.checked_add(request.amount);
            let count = count.ok_or_else(|| Status::out_of_range("the counter is too small"))?;
            Ok(Changed {
                records: vec![(COUNT.to_owned(), Note::number(count))],
                answer: AddResponse { count },
            })
        };
        let added = self.store.change(call, COUNT.to_owned(), 0, add).await?;
        let added = added.done(&ctx).await?;
        self.delay.pass(&ctx).await;
        Ok(added)
    }

    async fn append(
        &self,
        ctx: ServerCtx,
        request: AppendRequest,
    ) -> Result<AppendResponse, Status> {
        let (call, text) = (self.call(&ctx)?, request.line);
        let bytes = text.len();
        if bytes > LINE {
            return Err(Status::invalid_argument(format!(
                "a line of {bytes} bytes is too long: {LINE} are allowed"
            )));
        }
        let append = move |known: Option<&Note>| {
            let position = known.map_or(0, |known| known.number);
            Ok(Changed {
                records: vec![
                    (LENGTH.to_owned(), Note::number(position + 1)),
                    (line(position), Note::line(text)),
                ],
                answer: AppendResponse { position },
            })
        };
        let appended = self.store.change(call, LENGTH.to_owned(), bytes, append);
        let appended = appended.await?.done(&ctx).await?;
        self.delay.pass(&ctx).await;
        Ok(appended)
    }

    /// The lines are there when the count is read, or later.
    async fn read(&self, ctx: ServerCtx, request: ReadRequest) -> Result<ReadResponse, Status> {
        let before = match request.from.checked_sub(1) {
            Some(before) => line(before),
            None => LINES.to_owned(),
        };
        let count = self.store.read(COUNT.to_owned()).await?;
        let page = self.store.page(Some(before)).await?;
        let (count, page) = (count.done(&ctx).await?, page.done(&ctx).await?);
        self.delay.pass(&ctx).await;
        let lines = page.records.into_iter();
        Ok(ReadResponse {
            count: count.map_or(0, |count| count.number),
            lines: lines.map(|(_, note)| note.text).collect(),
            last: page.is_last,
        })
    }
}
