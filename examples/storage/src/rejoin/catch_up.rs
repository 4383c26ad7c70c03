//! What a replica that has lost its data does to get it again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use gorums::runtime::Clock;
use gorums::{Configuration, Node, NodeError, Status};
use prost::DecodeError;
use tokio::task::JoinSet;

use super::proto::rejoin_client::RejoinClient;
use super::proto::{Newcomer, Page, Question, Standing};
use super::seat::Step;
use super::{Seat, Transfer, has_lost};
use crate::store::Store;

/// How long the others may take to answer what they know.
const ANSWERING: Duration = Duration::from_secs(2);

/// The pause before another attempt.
const PAUSE: Duration = Duration::from_millis(500);

/// Gets the data again that a replica has lost, if it has: from these others, which are all but
/// itself. Completes when it has them. It goes on where a former attempt was interrupted, also by a
/// crash, and as long as others do not answer. It tells how far it has come, and for whom it waits
/// and why, once as long as that stays the same.
///
/// Dropping it interrupts it.
pub async fn catch_up<E: Transfer>(
    store: &Arc<Store<E>>,
    others: &Configuration,
    clock: Arc<dyn Clock>,
    tell: impl FnMut(String),
) {
    let Some(seat) = store.seat().filter(|seat| !seat.is_whole()) else {
        return;
    };
    let mut catching = CatchingUp {
        store,
        seat,
        others,
        clock,
        told: BTreeMap::new(),
        tell,
    };
    catching.run().await;
}

struct CatchingUp<'a, E, T> {
    store: &'a Arc<Store<E>>,
    seat: &'a Seat,
    others: &'a Configuration,
    clock: Arc<dyn Clock>,
    /// Why one waits for whom, or for a majority, as it was told.
    told: BTreeMap<Option<u32>, String>,
    tell: T,
}

impl<E: Transfer, T: FnMut(String)> CatchingUp<'_, E, T> {
    async fn run(&mut self) {
        (self.tell)(self.seat.progress().to_string());
        while !self.seat.is_whole() {
            match self.seat.life() {
                Some(life) => self.gather(life).await,
                None => {
                    if let Err(error) = self.begin_life().await {
                        self.waits(None, &error);
                        pause(&*self.clock).await;
                    }
                }
            }
        }
        (self.tell)(self.seat.progress().to_string());
    }

    /// Finds out which life this is.
    async fn begin_life(&mut self) -> Result<(), Error> {
        let (seat, others) = (self.seat, self.others);
        if others.len() < seat.needed() {
            return Err(Error::Nobody);
        }
        let question = Question {
            replica: seat.id(),
            replicas: seat.replicas() as u32,
        };
        let ask = RejoinClient::new(others).ask(question).timeout(ANSWERING);
        let mut responses = ask.responses();
        let (mut answers, mut silent) = (Vec::new(), BTreeMap::new());
        while answers.len() < seat.needed() {
            let Some(response) = responses.next().await else {
                let (have, needed) = (answers.len(), seat.needed());
                return Err(Error::TooFew {
                    have,
                    needed,
                    silent,
                });
            };
            let id = response.node().get();
            match response.into_result() {
                Ok(standing) => answers.push(standing),
                Err(error) => drop(silent.insert(id, error.into())),
            }
        }
        Ok(seat.begin_life(&answers).await?)
    }

    /// Takes what the others have, of all of them at once, until that is enough or belongs to a life
    /// that is over.
    async fn gather(&mut self, life: u64) {
        let mut fetching = JoinSet::new();
        let mut under_way = BTreeSet::new();
        while self.seat.life() == Some(life) {
            for node in self.others {
                let id = node.id().get();
                if !self.seat.sender(id).is_done && under_way.insert(id) {
                    let fetch = Fetch {
                        store: Arc::clone(self.store),
                        seat: self.seat.clone(),
                        node: node.clone(),
                        life,
                    };
                    let clock = Arc::clone(&self.clock);
                    let is_again = self.told.contains_key(&Some(id));
                    fetching.spawn(async move {
                        if is_again {
                            pause(&*clock).await;
                        }
                        (id, fetch.all().await)
                    });
                }
            }
            let Some(ended) = fetching.join_next().await else {
                // All of these have sent everything, or there are none: it began with more of them.
                self.waits(None, &Error::Nobody);
                pause(&*self.clock).await;
                continue;
            };
            let (id, fetched) = ended.expect("it neither panics nor is aborted");
            under_way.remove(&id);
            match fetched {
                Ok(()) => {
                    self.told.remove(&Some(id));
                    if !self.seat.is_whole() {
                        (self.tell)(self.seat.progress().to_string());
                    }
                }
                Err(error) => self.waits(Some(id), &error),
            }
        }
    }

    /// Tells why it waits for this other replica, or for so many of them that it knows which life
    /// this is.
    fn waits(&mut self, node: Option<u32>, error: &Error) {
        let id = self.seat.id();
        let text = match node {
            None => format!("replica {id} waits: {error}"),
            Some(other) => format!("replica {id} waits for replica {other}: {error}"),
        };
        if self.told.get(&node) != Some(&text) {
            self.told.insert(node, text.clone());
            (self.tell)(text);
        }
    }
}

/// What one of the others has, for a life.
struct Fetch<E> {
    store: Arc<Store<E>>,
    seat: Seat,
    node: Node,
    life: u64,
}

impl<E: Transfer> Fetch<E> {
    /// Takes all of it that has not come yet.
    async fn all(self) -> Result<(), Error> {
        let id = self.node.id().get();
        let before = self.seat.sender(id);
        let newcomer = Newcomer {
            replica: self.seat.id(),
            replicas: self.seat.replicas() as u32,
            losses: self.life,
            after: before.upto,
            sender_losses: before.losses,
        };
        let mut pages = RejoinClient::new(&self.node).catch_up(newcomer).responses();
        let mut sender = None;
        while let Some(page) = pages.next().await {
            let Page {
                standing,
                records,
                upto,
                last,
            } = page.into_result()?;
            if let Some(standing) = standing {
                if standing.replica != id {
                    return Err(Error::Another(standing.replica));
                }
                sender = Some(standing);
            }
            let sender: &Standing = sender.as_ref().ok_or(Error::Unnamed)?;
            self.take(&records).await?;
            let step = self.seat.advance(sender, records.len(), upto, last);
            match step.await? {
                Step::On => {}
                Step::Done | Step::Again => return Ok(()),
            }
        }
        Err(Error::Short)
    }

    /// Has these records on disk, unless there are newer ones.
    async fn take(&self, records: &[Vec<u8>]) -> Result<(), Error> {
        let mut coming = Vec::with_capacity(records.len());
        for record in records {
            let (key, record) = E::from_message(record)?;
            coming.push(self.store.restore(key, record).await?);
        }
        for taken in coming {
            taken.result().await?;
        }
        Ok(())
    }
}

async fn pause(clock: &dyn Clock) {
    clock.sleep_until(clock.now() + PAUSE).await;
}

/// Why nothing has come.
#[derive(Debug)]
enum Error {
    /// There are not as many others as are needed.
    Nobody,
    /// Not enough of them say which life it is.
    TooFew {
        have: usize,
        needed: usize,
        silent: BTreeMap<u32, Error>,
    },
    /// One has lost its data as well.
    HasLost,
    /// One does not send what it has.
    Node(NodeError),
    /// It is not the one that it should be.
    Another(u32),
    /// It does not say who it is.
    Unnamed,
    /// It has ended before its end.
    Short,
    /// It has sent something else than records.
    Record(DecodeError),
    /// What has come cannot be kept.
    Keep(Status),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("there are no others to catch up from"),
            Self::TooFew {
                have,
                needed,
                silent,
            } => {
                write!(
                    f,
                    "{needed} others have to have their data, and {have} say that they do"
                )?;
                for (id, error) in silent {
                    write!(f, "\n  replica {id}: {error}")?;
                }
                let is_lost = |error: &&Self| matches!(error, Self::HasLost);
                let others = have + silent.len();
                if others - silent.values().filter(is_lost).count() < *needed {
                    f.write_str(
                        "\ntoo many have lost their data, so that nobody knows what is missing: where all of them \
                         are new, end them and set each up by \"init\"; otherwise \"init --accept-loss\" tells what it does",
                    )?;
                }
                Ok(())
            }
            Self::HasLost => f.write_str("it has lost its data, too"),
            Self::Node(error) => error.fmt(f),
            Self::Another(id) => write!(f, "it says that it is replica {id}"),
            Self::Unnamed => f.write_str("it does not say which replica it is"),
            Self::Short => f.write_str("it has ended in the middle of what it has"),
            Self::Record(error) => write!(f, "it has sent something else than records: {error}"),
            Self::Keep(status) => f.write_str(status.message()),
        }
    }
}

impl From<NodeError> for Error {
    fn from(error: NodeError) -> Self {
        match has_lost(&error) {
            true => Self::HasLost,
            false => Self::Node(error),
        }
    }
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        Self::Record(error)
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Keep(status)
    }
}
