//! Whether a replica has its data, and what it knows of those that have lost theirs.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gorums::Status;

use super::proto::Standing;
use super::slate::Slate;
use super::state::{MOST_REPLICAS, Phase, Sender, State};
use crate::planted::{Bug, Planted};

/// The place of a replica among the others, which it keeps though it loses its data. Clones are the
/// same seat.
///
/// What it says is on disk before anybody hears it.
#[derive(Clone)]
pub struct Seat(Arc<Shared>);

struct Shared {
    id: u32,
    /// How many replicas there are.
    replicas: usize,
    state: Mutex<State>,
    /// Held while the state changes.
    slate: tokio::sync::Mutex<Box<dyn Slate>>,
    planted: Planted<Bug>,
}

/// How far a page has brought a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// There is more to come.
    On,
    /// The sender has sent all that it has.
    Done,
    /// What has come so far does not count: the replica begins another life.
    Again,
}

impl Seat {
    /// The seat of this replica, one of so many, as it is on the slate. It has its data if the slate
    /// says so, and `has_data` that they are there. A slate that is not whole is taken for lost.
    ///
    /// # Errors
    ///
    /// Where the slate cannot be read or written.
    pub fn open(id: u32, replicas: usize, slate: impl Slate, has_data: bool) -> io::Result<Self> {
        Self::planted(id, replicas, slate, has_data, Planted::default())
    }

    /// The same with a mistake.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    #[cfg(feature = "planted-bugs")]
    pub fn open_with_bug(
        id: u32,
        replicas: usize,
        slate: impl Slate,
        has_data: bool,
        bug: Bug,
    ) -> io::Result<Self> {
        Self::planted(id, replicas, slate, has_data, Planted::one(bug))
    }

    fn planted(
        id: u32,
        replicas: usize,
        mut slate: impl Slate,
        has_data: bool,
        planted: Planted<Bug>,
    ) -> io::Result<Self> {
        let written = slate.read()?;
        let mut state = State::decode(&written).unwrap_or_default();
        if !has_data {
            // What came before came into data that are not there any more.
            state.phase = Phase::Lost;
        }
        if planted.is(Bug::AnswersWithoutData) {
            state.phase = Phase::Whole;
        }
        let encoded = state.encode();
        if encoded != written {
            // Before a new file is made: where a crash comes in between, that file must not be
            // taken for the data.
            slate.write(&encoded)?;
        }
        Ok(Self(Arc::new(Shared {
            id,
            replicas,
            state: Mutex::new(state),
            slate: tokio::sync::Mutex::new(Box::new(slate)),
            planted,
        })))
    }

    /// What a slate says of its replica. One that is not whole says that it has lost its data.
    ///
    /// # Errors
    ///
    /// Where it cannot be read.
    pub fn look(slate: &mut impl Slate) -> io::Result<Found> {
        Ok(match State::on(slate)?.map(|state| state.phase) {
            None => Found::Nothing,
            Some(Phase::Whole) => Found::Whole,
            Some(Phase::Lost) => Found::Lost(Vec::new()),
            Some(Phase::CatchesUp(senders)) => {
                let done = senders.iter().filter(|(_, sender)| sender.is_done);
                Found::Lost(done.map(|(id, _)| *id).collect())
            }
        })
    }

    /// Writes on a slate that its replica has lost its data. Nobody may have the seat meanwhile.
    ///
    /// # Errors
    ///
    /// Where the slate cannot be read or written.
    pub fn declare_lost(slate: &mut impl Slate) -> io::Result<()> {
        let mut state = State::on(slate)?.unwrap_or_default();
        state.phase = Phase::Lost;
        slate.write(&state.encode())
    }

    /// Writes on a slate that the data are all that its replica ever acknowledged: at the beginning
    /// of its first life, or because somebody who knows better says so. What it knows of losses
    /// stays. Nobody may have the seat meanwhile.
    ///
    /// # Errors
    ///
    /// Where the slate cannot be read or written.
    pub fn declare_whole(slate: &mut impl Slate) -> io::Result<()> {
        let mut state = State::on(slate)?.unwrap_or(State {
            phase: Phase::Whole,
            ..State::default()
        });
        // Nobody has counted this life.
        state.losses += u64::from(state.phase == Phase::Lost);
        state.phase = Phase::Whole;
        slate.write(&state.encode())
    }

    /// The id of its replica.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id
    }

    /// How many replicas there are.
    #[must_use]
    pub fn replicas(&self) -> usize {
        self.0.replicas
    }

    /// From how many others a replica gets its data again: so many that every majority with it has
    /// one of them, and that any two replicas ask one in common.
    #[must_use]
    pub fn needed(&self) -> usize {
        self.0.replicas.div_ceil(2)
    }

    /// Completes when what the seat was opened with lasts.
    pub async fn settled(&self) {
        self.0.slate.lock().await.done().await;
    }

    /// Whether the replica has all that it ever acknowledged. Once it has, it always does.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.state().phase == Phase::Whole
    }

    /// Nothing if the replica may answer.
    ///
    /// # Errors
    ///
    /// `Unavailable` where it has lost its data, which callers count as no answer.
    pub fn admit(&self) -> Result<(), Status> {
        match self.is_whole() {
            true => Ok(()),
            false => Err(Status::unavailable(format!(
                "replica {} has lost its data, and answers when it has caught up from others",
                self.0.id
            ))),
        }
    }

    /// Nothing if the replica may say what it has to one that has lost it.
    ///
    /// # Errors
    ///
    /// As for [`admit`](Self::admit), with how far it has come.
    pub(super) fn lend(&self) -> Result<(), Status> {
        match self.is_whole() || self.0.planted.is(Bug::CountsWhoHasNoData) {
            true => Ok(()),
            false => Err(Status::unavailable(self.progress().to_string())),
        }
    }

    /// What goes along with an answer. It has to be asked for when what is answered is on disk.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let state = self.state();
        let known = state.known.iter();
        let known = known.map(|(&replica, &losses)| (replica, losses));
        Standing::new(self.0.id, state.losses, known)
    }

    /// How far the replica has come.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let state = self.state();
        Progress {
            replica: self.0.id,
            needed: self.needed(),
            senders: match &state.phase {
                Phase::Whole => None,
                Phase::Lost => Some(BTreeMap::new()),
                Phase::CatchesUp(senders) => Some(senders.clone()),
            },
        }
    }

    /// Notes that another replica has lost its data for so many times.
    pub(super) async fn note_loss(&self, replica: u32, losses: u64) -> Result<Standing, Status> {
        if replica == self.0.id {
            let text = format!("two replicas have the id {replica}");
            return Err(Status::invalid_argument(text));
        }
        self.change(|state| {
            let known = state.known.get(&replica).copied().unwrap_or(0);
            if known > losses {
                return Err(Status::failed_precondition(format!(
                    "replica {replica} has lost its data {known} times, and not {losses}"
                )));
            }
            if known == 0 && state.known.len() == MOST_REPLICAS {
                let text = format!("there are more than {MOST_REPLICAS} replicas");
                return Err(Status::resource_exhausted(text));
            }
            state.known.insert(replica, losses);
            Ok(())
        })
        .await?;
        Ok(self.standing())
    }

    /// Which life this is, if the replica knows that and has not got its data again.
    pub(super) fn life(&self) -> Option<u64> {
        let state = self.state();
        matches!(state.phase, Phase::CatchesUp(_)).then_some(state.losses)
    }

    /// Begins a life after those of which [enough](Self::needed) others know.
    pub(super) async fn begin_life(&self, others: &[Standing]) -> Result<(), Status> {
        self.change(|state| {
            others
                .iter()
                .for_each(|other| state.learn(self.0.id, other));
            state.losses += 1;
            state.phase = Phase::CatchesUp(BTreeMap::new());
            Ok(())
        })
        .await
    }

    /// What has come from another so far.
    pub(super) fn sender(&self, id: u32) -> Sender {
        match &self.state().phase {
            Phase::CatchesUp(senders) => senders.get(&id).cloned().unwrap_or_default(),
            Phase::Lost | Phase::Whole => Sender::default(),
        }
    }

    /// Notes that so many records have come, up to this key. They have to be on disk.
    pub(super) async fn advance(
        &self,
        sender: &Standing,
        records: usize,
        upto: Option<String>,
        is_last: bool,
    ) -> Result<Step, Status> {
        self.change(|state| {
            let life = state.losses;
            state.learn(self.0.id, sender);
            if state.losses > life {
                // Somebody knows of a life that those who were asked did not know of.
                state.phase = Phase::Lost;
                return Ok(Step::Again);
            }
            let Phase::CatchesUp(senders) = &mut state.phase else {
                return Ok(Step::Done);
            };
            let from = senders.entry(sender.replica).or_default();
            if from.losses != sender.losses {
                *from = Sender {
                    losses: sender.losses,
                    ..Sender::default()
                };
            }
            from.records += records as u64;
            from.is_done = is_last;
            from.upto = upto.or(from.upto.take());
            // What one has sent before it lost its data need not be all that it has acknowledged.
            let known = &state.known;
            senders
                .retain(|id, sender| known.get(id).is_none_or(|losses| *losses <= sender.losses));
            if senders.values().filter(|sender| sender.is_done).count() >= self.needed() {
                state.phase = Phase::Whole;
            }
            Ok(if is_last { Step::Done } else { Step::On })
        })
        .await
    }

    /// Changes the state, and returns when that is on disk. The state stays as it is where it cannot
    /// be written.
    async fn change<T>(
        &self,
        change: impl FnOnce(&mut State) -> Result<T, Status>,
    ) -> Result<T, Status> {
        let mut slate = self.0.slate.lock().await;
        let before = self.state().clone();
        let mut state = before.clone();
        let changed = change(&mut state)?;
        if state != before {
            let failed = |error| {
                let id = self.0.id;
                Status::internal(format!("replica {id} cannot write down its state: {error}"))
            };
            slate.write(&state.encode()).map_err(failed)?;
            slate.done().await;
            *self.state() = state;
        }
        Ok(changed)
    }

    /// No code panics while it holds the lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat")
            .field("id", &self.0.id)
            .field("state", &*self.state())
            .finish_non_exhaustive()
    }
}

/// What a slate says of its replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing: the replica is new, or has lost its slate.
    Nothing,
    /// That it has its data.
    Whole,
    /// That it has lost them, and got them again from these others, from each as a whole.
    Lost(Vec<u32>),
}

/// How far a replica has come with getting its data again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    replica: u32,
    needed: usize,
    /// None where the replica has its data.
    senders: Option<BTreeMap<u32, Sender>>,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            replica,
            needed,
            senders,
        } = self;
        let Some(senders) = senders else {
            return write!(f, "replica {replica} has its data");
        };
        write!(
            f,
            "replica {replica} has lost its data, and answers when it has caught up from {needed} other{} that \
             have theirs; so far ",
            if *needed == 1 { "" } else { "s" }
        )?;
        if senders.is_empty() {
            return f.write_str("from none");
        }
        for (place, (id, sender)) in senders.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            let records = sender.records;
            match sender.is_done {
                true => write!(f, "{comma}all {records} records of {id}")?,
                false => write!(f, "{comma}{records} records of {id}")?,
            }
        }
        Ok(())
    }
}
