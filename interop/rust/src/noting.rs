//! The service `Interop`.

use std::collections::BTreeSet;
use std::sync::Arc;

use gorums::{Code, Metadata, NodeId, ReplySender, ServerCtx, Status};
use tokio::sync::watch;

use crate::proto::interop_server::Interop;
use crate::proto::{CountRequest, Data, Entry, Failure, HoldRequest, InspectRequest, Seen};

/// Notes what it is told. Clones are about the same notes.
#[derive(Clone, Default)]
pub(crate) struct Noting {
    state: Arc<watch::Sender<State>>,
}

#[derive(Default)]
struct State {
    noted: Vec<u64>,
    cancelled: Vec<u64>,
    opened: BTreeSet<u64>,
}

impl Noting {
    /// What was noted, once it is so much.
    pub(crate) async fn noted(&self, count: usize) -> Vec<u64> {
        let mut changes = self.state.subscribe();
        // The sender is here.
        let _ = changes.wait_for(|state| state.noted.len() >= count).await;
        self.state.borrow().noted.clone()
    }

    fn note(&self, number: u64) {
        self.state.send_modify(|state| state.noted.push(number));
    }

    async fn until(&self, reached: impl FnMut(&State) -> bool) -> Result<(), Status> {
        let mut changes = self.state.subscribe();
        let reached = changes.wait_for(reached).await;
        reached
            .map(drop)
            .map_err(|_| Status::unavailable("the server ends"))
    }
}

impl Interop for Noting {
    async fn echo(&self, _ctx: ServerCtx, request: Data) -> Result<Data, Status> {
        self.note(request.number);
        Ok(request)
    }

    async fn echo_all(&self, _ctx: ServerCtx, request: Data) -> Result<Data, Status> {
        self.note(request.number);
        Ok(request)
    }

    async fn note(&self, _ctx: ServerCtx, request: Data) {
        Self::note(self, request.number);
    }

    async fn note_all(&self, _ctx: ServerCtx, request: Data) {
        Self::note(self, request.number);
    }

    async fn count(
        &self,
        _ctx: ServerCtx,
        request: CountRequest,
        replies: ReplySender<Data>,
    ) -> Result<(), Status> {
        for number in (request.from..).take(usize::try_from(request.replies).unwrap_or(usize::MAX))
        {
            let data = Data {
                number,
                ..Data::default()
            };
            replies.send(data).await?;
        }
        request
            .failure
            .map_or(Ok(()), |failure| Err(status(failure)))
    }

    async fn fail(&self, _ctx: ServerCtx, failure: Failure) -> Result<Data, Status> {
        Err(status(failure))
    }

    async fn hold(&self, ctx: ServerCtx, request: HoldRequest) -> Result<Data, Status> {
        let data = request.data.unwrap_or_default();
        self.note(data.number);
        if request.release {
            ctx.release();
        }
        tokio::select! {
            opened = self.until(|state| state.opened.contains(&data.number)) => opened?,
            () = ctx.cancelled() => {
                self.state.send_modify(|state| state.cancelled.push(data.number));
                return Err(Status::cancelled("nobody waits"));
            }
        }
        Ok(data)
    }

    async fn open(&self, _ctx: ServerCtx, request: Data) {
        self.state.send_modify(|state| {
            state.opened.insert(request.number);
        });
    }

    async fn inspect(&self, ctx: ServerCtx, request: InspectRequest) -> Result<Seen, Status> {
        ctx.release();
        self.until(|state| {
            state.noted.len() as u64 >= request.noted
                && state.cancelled.len() as u64 >= request.cancelled
        })
        .await?;
        let mut connection = entries(ctx.connection_metadata());
        connection.push(Entry {
            key: "peer".to_owned(),
            value: ctx.peer_id().map_or(0, NodeId::get).to_string(),
        });
        let state = self.state.borrow();
        Ok(Seen {
            numbers: state.noted.clone(),
            cancelled: state.cancelled.clone(),
            metadata: entries(ctx.metadata()),
            connection,
        })
    }
}

pub(crate) fn status(failure: Failure) -> Status {
    Status::new(Code::from_number(failure.code), failure.message).with_details(failure.details)
}

/// The other way round.
pub(crate) fn failure(status: &Status) -> Failure {
    Failure {
        code: status.code().number(),
        message: status.message().to_owned(),
        details: status.details().to_vec(),
    }
}

pub(crate) fn entries(metadata: &Metadata) -> Vec<Entry> {
    let entry = |(key, value): (&str, &str)| Entry {
        key: key.to_owned(),
        value: value.to_owned(),
    };
    metadata.iter().map(entry).collect()
}
