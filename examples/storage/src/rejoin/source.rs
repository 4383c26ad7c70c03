//! What a replica does for those that have lost their data.

use std::sync::Arc;

use gorums::{ReplySender, ServerCtx, Status};

use super::proto::rejoin_server::Rejoin;
use super::proto::{Newcomer, Page, Question, Standing};
use super::{Seat, Transfer};
use crate::store::{Entry, Store};

/// The service by which others catch up from a replica.
#[derive(Debug)]
pub struct Source<E = Entry>(Arc<Store<E>>);

impl<E: Transfer> Source<E> {
    /// That of the replica with this store.
    #[must_use]
    pub fn new(store: Arc<Store<E>>) -> Self {
        Self(store)
    }

    /// The replica's seat, if it has data, and if the caller counts as many replicas: otherwise one
    /// of them is wrong about what a majority is.
    fn seat(&self, caller: u32, replicas: u32) -> Result<&Seat, Status> {
        let seat = self.0.seat().ok_or_else(|| {
            Status::failed_precondition("this replica keeps its data in memory, or knows no others")
        })?;
        let (me, mine) = (seat.id(), seat.replicas());
        if usize::try_from(replicas) != Ok(mine) {
            return Err(Status::failed_precondition(format!(
                "replica {caller} counts {replicas} replicas, and replica {me} counts {mine}"
            )));
        }
        seat.lend()?;
        Ok(seat)
    }
}

impl<E: Transfer> Rejoin for Source<E> {
    async fn ask(&self, _ctx: ServerCtx, request: Question) -> Result<Standing, Status> {
        Ok(self.seat(request.replica, request.replicas)?.standing())
    }

    async fn catch_up(
        &self,
        ctx: ServerCtx,
        request: Newcomer,
        pages: ReplySender<Page>,
    ) -> Result<(), Status> {
        ctx.release();
        let seat = self.seat(request.replica, request.replicas)?;
        // Whatever is acknowledged without that is on disk by now, and so in one of the pages.
        let standing = seat.note_loss(request.replica, request.losses).await?;
        let is_same_life = request.sender_losses == standing.losses;
        let mut after = request.after.filter(|_| is_same_life);
        let mut standing = Some(standing);
        loop {
            let page = self.0.lend_page(after).await?;
            let last = page.is_last;
            after = page.records.last().map(|(key, _)| key.clone());
            let records = page.records.iter();
            let records = records.map(|(key, record)| record.to_message(key));
            let page = Page {
                standing: standing.take(),
                records: records.collect(),
                upto: after.clone(),
                last,
            };
            pages.send(page).await?;
            if last {
                return Ok(());
            }
        }
    }
}
