//! Registers with compare-and-set, by CASPaxos: Denis Rystsov, *CASPaxos: Replicated State Machines
//! without logs*, 2018.
//!
//! Each key is a register of its own, and each change of it one round of Paxos (Lamport, *Paxos
//! Made Simple*, 2001) whose value is what the change makes of the value before: a majority
//! promises to ignore lower ballots and tells what it has accepted; of that the state with the
//! highest ballot is changed, and a majority accepts the outcome. A read is a change that changes
//! nothing. Linearizable, as long as no acceptor forgets; with a majority of the nodes it goes on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gorums::{Configuration, NodeId, Replies, ServerCtx, Status};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::proto::acceptor_client::AcceptorClient;
use crate::proto::{
    AcceptRequest, AcceptResponse, Ballot, PrepareRequest, PrepareResponse, State, acceptor_server,
};

/// How long a change may take, all its rounds together.
const PATIENCE: Duration = Duration::from_secs(2);

/// The longest pause before the first new attempt, doubled for each further one.
const PAUSE: Duration = Duration::from_millis(4);

/// How often that is doubled.
const DOUBLINGS: u32 = 5;

/// Changes the registers of all nodes.
#[derive(Debug)]
pub struct Registers {
    acceptors: AcceptorClient,
    me: u32,
    /// The greatest number of a ballot that was seen or made here.
    greatest: AtomicU64,
    /// Whose turn it is to change a key here: those of one node need not be in each other's way.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// Why a change is not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It was not done, and never will be.
    NotDone,
    /// It may be done, now or later, or not.
    Unknown,
}

/// What became of an attempt.
enum Attempt<T> {
    Done(T),
    /// Somebody has a higher ballot.
    Conflict,
    /// No majority answered in time.
    NoAnswer,
}

impl Registers {
    /// For a node of this configuration, which has all of them.
    #[must_use]
    pub fn new(me: NodeId, nodes: &Configuration) -> Self {
        Self {
            acceptors: AcceptorClient::new(nodes),
            me: me.get(),
            greatest: AtomicU64::new(0),
            turns: Mutex::default(),
        }
    }

    /// Changes the value of a key to what the function makes of it, none where there is no such
    /// key, and returns what else the function returns. The function may be called several times,
    /// and one call takes effect.
    ///
    /// # Errors
    ///
    /// Where others are quicker for two seconds, or no majority answers. Changes of one key that
    /// this node is asked for wait for each other within that time. One that leaves the value as it
    /// is, as a read does, is never [`Unknown`](Failure::Unknown).
    pub async fn change<T: Clone>(
        &self,
        key: &str,
        change: impl Fn(Option<&str>) -> (Option<String>, T),
    ) -> Result<T, Failure> {
        let deadline = Instant::now() + PATIENCE;
        let turn = self.turn(key);
        let turn = timeout_at(deadline, turn.lock()).await;
        let _turn = turn.map_err(|_| Failure::NotDone)?;
        // The attempts that may have been accepted by somebody, and what they are to return.
        let mut tried: Vec<(Ballot, T)> = Vec::new();
        let failure = |tried: &[_]| match tried.is_empty() {
            true => Failure::NotDone,
            false => Failure::Unknown,
        };
        for attempt in 0.. {
            if attempt > 0 {
                let pause = PAUSE * 2u32.pow(DOUBLINGS.min(attempt));
                sleep(pause.mul_f64(fraction())).await;
            }
            let ballot = self.next_ballot();
            let found = match self.prepare(key, ballot, deadline).await {
                Attempt::Done(found) => found,
                Attempt::Conflict => continue,
                Attempt::NoAnswer => return Err(failure(&tried)),
            };
            let ours = tried
                .iter()
                .find(|(ballot, _)| Some(*ballot) == found.accepted);
            let (value, outcome) = match (ours, tried.first()) {
                // The change is done in what was found: nothing but that has to be accepted.
                (Some((_, outcome)), _) => (found.value.clone(), outcome.clone()),
                // What was found is newer than our first attempt, and may have been made from it,
                // or not.
                (None, Some((first, _))) if found.accepted >= Some(*first) => {
                    return Err(Failure::Unknown);
                }
                // Nothing of ours is in what was found. What an acceptor may still have of it has a
                // lower ballot than this attempt: once a majority accepts this one, nobody finds
                // the other any more.
                _ => change(found.value.as_deref()),
            };
            // What leaves the value as it is does nothing, whoever accepts it.
            if value != found.value || !tried.is_empty() {
                tried.push((ballot, outcome.clone()));
            }
            match self.accept(key, ballot, value, deadline).await {
                Attempt::Done(()) => return Ok(outcome),
                Attempt::Conflict => {}
                Attempt::NoAnswer => return Err(failure(&tried)),
            }
        }
        Err(failure(&tried))
    }

    fn turn(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        // No code panics while it holds the lock.
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(key.to_owned()).or_default())
    }

    async fn prepare(&self, key: &str, ballot: Ballot, deadline: Instant) -> Attempt<Found> {
        let request = PrepareRequest {
            key: key.to_owned(),
            ballot: Some(ballot),
        };
        let call = self.acceptors.prepare(request).deadline(deadline);
        let total = call.configuration().len();
        let decided = call.quorum_fn(|_, replies: &mut Replies<PrepareResponse>| {
            if self.outvoted(total, replies.values().map(|reply| reply.promised)) {
                return Some(None);
            }
            let promises = replies.values().filter(|reply| reply.promised.is_none());
            let promises: Vec<_> = promises.collect();
            let newest = promises.iter().max_by_key(|reply| reply.accepted);
            let newest = newest.filter(|_| promises.len() > total / 2)?;
            Some(Some(Found::from(*newest)))
        });
        answered(decided.await.ok(), deadline).await
    }

    async fn accept(
        &self,
        key: &str,
        ballot: Ballot,
        value: Option<String>,
        deadline: Instant,
    ) -> Attempt<()> {
        let request = AcceptRequest {
            key: key.to_owned(),
            ballot: Some(ballot),
            state: Some(State { value }),
        };
        let call = self.acceptors.accept(request).deadline(deadline);
        let total = call.configuration().len();
        let decided = call.quorum_fn(|_, replies: &mut Replies<AcceptResponse>| {
            if self.outvoted(total, replies.values().map(|reply| reply.promised)) {
                return Some(None);
            }
            let accepted = replies.values().filter(|reply| reply.promised.is_none());
            (accepted.count() > total / 2).then_some(Some(()))
        });
        answered(decided.await.ok(), deadline).await
    }

    /// Whether so many have promised higher ballots that there is no majority for this one. These
    /// ballots are remembered.
    fn outvoted(&self, total: usize, promised: impl Iterator<Item = Option<Ballot>>) -> bool {
        let mut against = 0;
        for ballot in promised.flatten() {
            against += 1;
            self.greatest.fetch_max(ballot.number, Ordering::Relaxed);
        }
        against >= total - total / 2
    }

    fn next_ballot(&self) -> Ballot {
        Ballot {
            number: self.greatest.fetch_add(1, Ordering::Relaxed) + 1,
            node: self.me,
        }
    }
}

/// What a call of all acceptors came to. Where some could not be reached, the same attempt is not
/// made at once again.
async fn answered<T>(decided: Option<Option<T>>, deadline: Instant) -> Attempt<T> {
    match decided {
        Some(Some(done)) => Attempt::Done(done),
        Some(None) => Attempt::Conflict,
        // The nodes may be there again before the time is up; a call that was not sent fails at
        // once.
        None if Instant::now() + RECONNECTING < deadline => {
            sleep_until(Instant::now() + RECONNECTING).await;
            Attempt::Conflict
        }
        None => Attempt::NoAnswer,
    }
}

/// How long to wait for connections that are broken.
const RECONNECTING: Duration = Duration::from_millis(100);

/// A random part of a pause, between a half and all of it, so that two who are in each other's way
/// part.
fn fraction() -> f64 {
    0.5 + fastrand::f64() / 2.0
}

/// What was accepted with the highest ballot, among what a majority has accepted.
struct Found {
    accepted: Option<Ballot>,
    value: Option<String>,
}

impl From<&PrepareResponse> for Found {
    fn from(reply: &PrepareResponse) -> Self {
        Self {
            accepted: reply.accepted,
            value: reply.state.as_ref().and_then(|state| state.value.clone()),
        }
    }
}

/// What a node has promised and accepted, by key.
#[derive(Debug, Default)]
pub struct Acceptor(Mutex<HashMap<String, Slot>>);

#[derive(Debug, Default)]
struct Slot {
    promised: Option<Ballot>,
    accepted: Option<Ballot>,
    state: State,
}

impl Acceptor {
    fn prepare_now(&self, request: PrepareRequest) -> Result<PrepareResponse, Status> {
        let ballot = needed(request.ballot)?;
        let mut slots = self.slots();
        let slot = slots.entry(request.key).or_default();
        if slot.promised >= Some(ballot) {
            let promised = slot.promised;
            return Ok(PrepareResponse {
                promised,
                ..PrepareResponse::default()
            });
        }
        slot.promised = Some(ballot);
        Ok(PrepareResponse {
            promised: None,
            accepted: slot.accepted,
            state: Some(slot.state.clone()),
        })
    }

    fn accept_now(&self, request: AcceptRequest) -> Result<AcceptResponse, Status> {
        let ballot = needed(request.ballot)?;
        let mut slots = self.slots();
        let slot = slots.entry(request.key).or_default();
        if slot.promised > Some(ballot) {
            let promised = slot.promised;
            return Ok(AcceptResponse { promised });
        }
        slot.promised = Some(ballot);
        slot.accepted = Some(ballot);
        slot.state = request.state.unwrap_or_default();
        Ok(AcceptResponse::default())
    }

    /// No code panics while it holds the lock.
    fn slots(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn needed(ballot: Option<Ballot>) -> Result<Ballot, Status> {
    ballot.ok_or_else(|| Status::invalid_argument("the ballot is missing"))
}

impl acceptor_server::Acceptor for Acceptor {
    async fn prepare(
        &self,
        _ctx: ServerCtx,
        request: PrepareRequest,
    ) -> Result<PrepareResponse, Status> {
        self.prepare_now(request)
    }

    async fn accept(
        &self,
        _ctx: ServerCtx,
        request: AcceptRequest,
    ) -> Result<AcceptResponse, Status> {
        self.accept_now(request)
    }
}

impl PartialOrd for Ballot {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ballot {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.number, self.node).cmp(&(other.number, other.node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ballot(number: u64, node: u32) -> Option<Ballot> {
        Some(Ballot { number, node })
    }

    fn prepare(acceptor: &Acceptor, ballot: Option<Ballot>) -> PrepareResponse {
        let key = "k".to_owned();
        let answer = acceptor.prepare_now(PrepareRequest { key, ballot });
        answer.expect("there is a ballot")
    }

    fn accept(acceptor: &Acceptor, ballot: Option<Ballot>, value: &str) -> Option<Ballot> {
        let answer = acceptor.accept_now(AcceptRequest {
            key: "k".to_owned(),
            ballot,
            state: Some(State {
                value: Some(value.to_owned()),
            }),
        });
        answer.expect("there is a ballot").promised
    }

    #[test]
    fn an_acceptor_that_has_promised_takes_nothing_lower() {
        let acceptor = Acceptor::default();
        assert_eq!(prepare(&acceptor, ballot(2, 1)).promised, None);
        assert_eq!(prepare(&acceptor, ballot(1, 9)).promised, ballot(2, 1));
        assert_eq!(prepare(&acceptor, ballot(2, 1)).promised, ballot(2, 1));
        assert_eq!(accept(&acceptor, ballot(1, 9), "low"), ballot(2, 1));
        assert_eq!(accept(&acceptor, ballot(2, 1), "a"), None);
        // What is accepted is promised, too.
        assert_eq!(accept(&acceptor, ballot(3, 1), "b"), None);
        assert_eq!(accept(&acceptor, ballot(2, 1), "a"), ballot(3, 1));
    }

    #[test]
    fn a_promise_tells_what_was_accepted() {
        let acceptor = Acceptor::default();
        let empty = prepare(&acceptor, ballot(1, 1));
        assert_eq!((empty.accepted, Found::from(&empty).value), (None, None));
        assert_eq!(accept(&acceptor, ballot(1, 1), "a"), None);
        let found = prepare(&acceptor, ballot(1, 2));
        assert_eq!(found.accepted, ballot(1, 1));
        assert_eq!(Found::from(&found).value.as_deref(), Some("a"));
    }

    #[test]
    fn a_request_without_a_ballot_is_refused() {
        let acceptor = Acceptor::default();
        assert!(acceptor.prepare_now(PrepareRequest::default()).is_err());
        assert!(acceptor.accept_now(AcceptRequest::default()).is_err());
    }
}
