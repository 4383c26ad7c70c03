//! The sessions of clients: what outlives the stream that carried it.
//!
//! A session is carried by the connection on which it began. When that breaks, what there is of the
//! session is parked: the requests that wait, the handlers that run, and the answers that the client
//! has not said to have. The next connection of the client takes it from there. Where that comes
//! sooner than the end of the one before is noticed, the one before is told to let go.

use std::collections::{BTreeMap, HashMap, btree_map};
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;

use super::buffered::Owner;
use crate::bounds::{Bound, Counts};
use crate::error::Status;
use crate::node_id::NodeId;
use crate::runtime::{BoxFuture, Clock};
use crate::stream::{Inbound, Session};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::wire::{SessionId, SessionRequest};

/// How many sessions may be parked. One more ends the one that has waited longest, of those from the
/// address that has most; those of nodes that have proved themselves come last.
pub(crate) const PARKED: usize = 1024;

/// How long one is parked, unless the server is told otherwise.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// The sessions of a server.
pub(super) struct Sessions {
    timeout: Duration,
    reached: Arc<Counts>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<SessionId, Entry>,
    /// Those that are parked, the oldest first.
    parked: BTreeMap<u64, (SessionId, Owner)>,
    last: u64,
}

struct Entry {
    /// Changes with each stage.
    number: u64,
    stage: Stage,
    /// Which node the client is. No other one goes on with it.
    node: Option<NodeId>,
    /// The last of its streams. What an earlier one has sent comes too late.
    stream: u64,
    /// Tells whoever waits for the next stage.
    changed: Arc<Notify>,
}

enum Stage {
    /// A connection carries it, whose task is woken when another one wants to.
    Carried {
        is_wanted: Arc<AtomicBool>,
        task: Waker,
    },
    Parked(Box<Parked>),
}

/// What there is of a session that no connection carries.
pub(super) struct Parked {
    pub(super) inbound: Inbound,
    pub(super) session: Box<Session>,
}

impl Sessions {
    /// Those that no connection carries are kept for so long. Counts how often bounds are reached.
    pub(super) fn new(timeout: Duration, reached: Arc<Counts>) -> Arc<Self> {
        Arc::new(Self {
            timeout,
            reached,
            state: Mutex::default(),
        })
    }

    /// Whether there are sessions at all.
    pub(super) fn are_kept(&self) -> bool {
        !self.timeout.is_zero()
    }

    /// Has the connection that carries this session let go of it. Ready when it has. None where there
    /// is nothing to wait for.
    pub(super) fn claim(
        &self,
        wanted: &SessionRequest,
        node: Option<NodeId>,
    ) -> Option<BoxFuture<'static, ()>> {
        let state = self.state.lock();
        let entry = state.entries.get(&wanted.id)?;
        if wanted.stream <= entry.stream || entry.node != node {
            return None;
        }
        let Stage::Carried { is_wanted, task } = &entry.stage else {
            return None;
        };
        let changed = Arc::clone(&entry.changed).notified_owned();
        is_wanted.store(true, Ordering::Release);
        let task = task.clone();
        drop(state);
        task.wake();
        Some(Box::pin(changed))
    }

    /// This task carries the session that a client wants from now on. Where one of its name is parked,
    /// that is handed over: it goes on, or what is left of it is to be let go of.
    ///
    /// # Errors
    /// It is the session of another client, or a later stream of this one has asked for it.
    pub(super) fn open(
        self: &Arc<Self>,
        wanted: &SessionRequest,
        node: Option<NodeId>,
        task: &Waker,
    ) -> Result<(Carried, Option<Box<Parked>>), Status> {
        let SessionRequest { id, stream, .. } = *wanted;
        let mut state = self.state.lock();
        let number = state.number();
        let is_wanted = Arc::default();
        let next = Stage::carried(&is_wanted, task);
        let State {
            entries, parked, ..
        } = &mut *state;
        let before = match entries.entry(id) {
            btree_map::Entry::Vacant(vacant) => {
                vacant.insert(Entry {
                    number,
                    stage: next,
                    node,
                    stream,
                    changed: Arc::default(),
                });
                None
            }
            btree_map::Entry::Occupied(mut occupied) => {
                let entry = occupied.get_mut();
                if entry.node != node {
                    return Err(Status::permission_denied("the session is another client's"));
                }
                if stream <= entry.stream || matches!(entry.stage, Stage::Carried { .. }) {
                    return Err(Status::already_exists("another stream carries the session"));
                }
                parked.remove(&entry.number);
                (entry.number, entry.stream) = (number, stream);
                entry.changed.notify_waiters();
                match std::mem::replace(&mut entry.stage, next) {
                    Stage::Parked(parked) => Some(parked),
                    Stage::Carried { .. } => None,
                }
            }
        };
        Ok((self.carried(id, number, is_wanted), before))
    }

    fn carried(
        self: &Arc<Self>,
        id: SessionId,
        number: u64,
        is_wanted: Arc<AtomicBool>,
    ) -> Carried {
        Carried {
            place: Place {
                of: Arc::clone(self),
                id,
                number,
            },
            is_wanted,
        }
    }
}

impl Stage {
    fn carried(is_wanted: &Arc<AtomicBool>, task: &Waker) -> Self {
        Self::Carried {
            is_wanted: Arc::clone(is_wanted),
            task: task.clone(),
        }
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// One of the sessions that are parked is over: of those from the address that has most of them,
    /// the one that has waited longest. Nobody loses one by what others do who have more.
    fn make_room(&mut self) {
        let mut counts: HashMap<(bool, Option<IpAddr>), usize> = HashMap::new();
        let group = |owner: &Owner| (owner.is_spared, owner.from);
        for (_, owner) in self.parked.values() {
            *counts.entry(group(owner)).or_default() += 1;
        }
        let most = |owner: &Owner| (!owner.is_spared, counts[&group(owner)]);
        let oldest_of_most = self
            .parked
            .iter()
            .rev()
            .max_by_key(|(_, (_, owner))| most(owner));
        let Some((number, (id, _))) = oldest_of_most.map(|(number, parked)| (*number, *parked))
        else {
            return;
        };
        self.parked.remove(&number);
        if let Some(entry) = self.entries.get_mut(&id) {
            // Whoever has parked it gives it up.
            entry.changed.notify_waiters();
        }
    }
}

/// A stage of a session, which is over when this is dropped in it.
struct Place {
    of: Arc<Sessions>,
    id: SessionId,
    number: u64,
}

impl Place {
    /// Takes the session out, where it is in this stage.
    fn leave(&self) -> Option<Entry> {
        let mut state = self.of.state.lock();
        let is_ours = |entry: &Entry| entry.number == self.number;
        if !state.entries.get(&self.id).is_some_and(is_ours) {
            return None;
        }
        state.parked.remove(&self.number);
        let entry = state.entries.remove(&self.id)?;
        entry.changed.notify_waiters();
        Some(entry)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A session that this connection carries.
pub(super) struct Carried {
    place: Place,
    is_wanted: Arc<AtomicBool>,
}

impl Carried {
    /// Whether another connection of the client is to carry it.
    #[inline]
    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Acquire)
    }

    /// The connection of this owner has broken. The session is over when another one has it, when it has been parked
    /// as long as it may, and when this is ready.
    pub(super) fn park(
        self,
        parked: Box<Parked>,
        owner: Owner,
        clock: &dyn Clock,
        shutdown: BoxFuture<'static, ()>,
    ) -> Waiting {
        let Place { of, id, .. } = &self.place;
        let mut state = of.state.lock();
        let number = state.number();
        let changed = Arc::<Notify>::default();
        let before = state.entries.get(id);
        let (node, stream) = before.map_or((None, 0), |entry| (entry.node, entry.stream));
        let waiting = Waiting {
            changed: Box::pin(Arc::clone(&changed).notified_owned()),
            place: Place {
                of: Arc::clone(of),
                id: *id,
                number,
            },
            timer: clock.sleep_until(clock.now() + of.timeout),
            shutdown,
        };
        let entry = Entry {
            number,
            stage: Stage::Parked(parked),
            node,
            stream,
            changed,
        };
        // Nobody else changes a stage in which a connection carries it.
        let before = state.entries.insert(*id, entry);
        state.parked.insert(number, (*id, owner));
        if state.parked.len() > PARKED {
            of.reached.add(Bound::ParkedSessions);
            state.make_room();
        }
        drop(state);
        if let Some(before) = before {
            before.changed.notify_waiters();
        }
        waiting
    }
}

/// A session that is parked, for whoever has parked it.
pub(super) struct Waiting {
    place: Place,
    changed: BoxFuture<'static, ()>,
    timer: BoxFuture<'static, ()>,
    shutdown: BoxFuture<'static, ()>,
}

impl Waiting {
    /// Ready when the session is over here: with what has come in it, where no other connection has
    /// taken it.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Inbound>> {
        let has_changed = self.changed.as_mut().poll(cx).is_ready();
        if has_changed || self.shutdown.as_mut().poll(cx).is_ready() {
            return Poll::Ready(self.give_up());
        }
        if self.timer.as_mut().poll(cx).is_ready() {
            self.place.of.reached.add(Bound::SessionTimeout);
            return Poll::Ready(self.give_up());
        }
        // What is kept of it changes.
        self.look(|parked| parked.inbound.register(cx.waker()));
        Poll::Pending
    }

    /// Whether handlers wait with their replies.
    pub(super) fn is_full(&self) -> bool {
        self.look(|parked| parked.inbound.is_full())
            .unwrap_or_default()
    }

    /// Looks at the session, where no other connection has taken it.
    fn look<R>(&self, look: impl FnOnce(&Parked) -> R) -> Option<R> {
        let state = self.place.of.state.lock();
        let entry = state.entries.get(&self.place.id)?;
        match &entry.stage {
            Stage::Parked(parked) if entry.number == self.place.number => Some(look(parked)),
            Stage::Parked(_) | Stage::Carried { .. } => None,
        }
    }

    /// The session is over. Returns what has come in it, where no other connection has taken it.
    pub(super) fn give_up(&self) -> Option<Inbound> {
        match self.place.leave()?.stage {
            Stage::Parked(parked) => Some(parked.inbound),
            Stage::Carried { .. } => None,
        }
    }

    /// The bytes that are kept of it.
    pub(super) fn held_bytes(&self) -> usize {
        self.look(|parked| parked.inbound.held_bytes(true) + parked.session.held_bytes())
            .unwrap_or_default()
    }
}

impl Drop for Waiting {
    /// The server was stopped: what has not started never will.
    fn drop(&mut self) {
        if let Some(mut inbound) = self.give_up() {
            inbound.abandon();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_make_room_of_whom_there_are_most_and_nodes_last() {
        let mut state = State::default();
        let mut park = |number: u64, from: [u8; 4], is_spared: bool| {
            let owner = Owner {
                from: Some(IpAddr::from(from)),
                is_spared,
            };
            state.parked.insert(
                number,
                (
                    SessionId::new(u64::MAX, number).expect("they differ"),
                    owner,
                ),
            );
        };
        let (few, many, node) = ([10, 0, 0, 1], [10, 0, 0, 2], [10, 0, 0, 3]);
        for number in 1..=4 {
            park(number, node, true);
        }
        park(5, few, false);
        for number in 6..=8 {
            park(number, many, false);
        }
        park(9, few, false);
        let mut gone = Vec::new();
        while let before = state.parked.clone()
            && !before.is_empty()
        {
            state.make_room();
            gone.extend(
                before
                    .into_keys()
                    .filter(|it| !state.parked.contains_key(it)),
            );
        }
        assert_eq!(gone[0], 6, "the oldest of the address that has most");
        assert_eq!(gone[1..5].iter().max(), Some(&9), "{gone:?}");
        assert_eq!(gone[5..], [1, 2, 3, 4], "nodes come last, the oldest first");
        state.make_room();
    }
}
