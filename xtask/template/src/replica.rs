//! What a replica does with a request.

use gorums::{ServerCtx, Status};
use tokio::sync::Mutex;

use crate::disk::Disk;
use crate::proto::claims_server::Claims;
use crate::proto::{Ballot, LookRequest, VoteRequest, Votes};

/// A name or a candidate has at most so many bytes.
const MAX_TEXT: usize = 256;
/// A replica votes for at most so many names, since it writes all of them with each vote.
const MAX_NAMES: usize = 10_000;

/// A replica, which keeps its votes on a disk.
pub struct Replica<D> {
    /// What is on the disk. Whoever votes has it until the disk has the vote.
    votes: Mutex<Votes>,
    disk: D,
}

impl<D: Disk> Replica<D> {
    /// A replica that goes on with the votes that it gave before.
    pub async fn open(disk: D) -> Result<Self, Status> {
        let votes = disk.load().await?;
        Ok(Self {
            votes: Mutex::new(votes),
            disk,
        })
    }
}

impl<D: Disk> Claims for Replica<D> {
    async fn vote(&self, _ctx: ServerCtx, request: VoteRequest) -> Result<Ballot, Status> {
        check(&request.name)?;
        check(&request.candidate)?;
        let mut votes = self.votes.lock().await;
        if let Some(candidate) = votes.by_name.get(&request.name) {
            return Ok(Ballot {
                candidate: candidate.clone(),
            });
        }
        if votes.by_name.len() >= MAX_NAMES {
            let text = format!("this replica has voted for {MAX_NAMES} names already");
            return Err(Status::resource_exhausted(text));
        }
        let mut voted = votes.clone();
        voted
            .by_name
            .insert(request.name, request.candidate.clone());
        // An answer is a promise, so the disk has it first. Where the disk fails nobody is told of
        // the vote, and so it may still go to somebody else.
        self.disk.save(&voted).await?;
        *votes = voted;
        Ok(Ballot {
            candidate: request.candidate,
        })
    }

    async fn look(&self, _ctx: ServerCtx, request: LookRequest) -> Result<Ballot, Status> {
        let votes = self.votes.lock().await;
        let candidate = votes.by_name.get(&request.name).cloned();
        Ok(Ballot {
            candidate: candidate.unwrap_or_default(),
        })
    }
}

fn check(text: &str) -> Result<(), Status> {
    if text.is_empty() || text.len() > MAX_TEXT {
        let rule = format!("a name and a candidate have 1 to {MAX_TEXT} bytes");
        return Err(Status::invalid_argument(rule));
    }
    Ok(())
}
