//! The ledger: a counter and a log with durable sessions have every call once, over losses of power too.
//!
//! Every replica has its own counter and its own log, on its disk, so each is judged alone by what it
//! was asked and has answered. Clients number their calls, and do not wait for answers; some go to one
//! replica and some to all. What is not answered before a replica loses power, or its session, is sent
//! again to what starts on its disk. The amounts that clients add are random, and so the counter tells
//! which of the calls whose outcome nobody knows it has.

mod check;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gorums::runtime::Clock;
use gorums::{NodeId, Outcome};
use gorums_sim::history::PendingOperation;
use gorums_sim::{Client, FaultKind, Replica, Scenario};
use ledger::note::Note;
use ledger::proto::ledger_client::LedgerClient;
use ledger::proto::ledger_server::LedgerServer;
use ledger::proto::{
    AddRequest, AddResponse, AppendRequest, AppendResponse, ReadRequest, ReadResponse,
};
use ledger::service::Replica as Service;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::bug::Bug;
use crate::{faults_with_disks, volume};

/// How many calls a client makes at once.
const BURST: u64 = 3;

/// Amounts are random, from 1 to this: the counter has room for a million of them.
const AMOUNTS: u64 = 1 << 44;

/// Of so many calls of a client at the most it is open whether a replica's counter has their amounts. It
/// reads the counter before it adds more. So the counter tells which ones it has: five clients have
/// 2^20 sets of such amounts, and of the sum that is in the counter there is another set once in 2^24.
const UNSURE: usize = 4;

/// Longer than a run: a client waits for another connection until a call's deadline.
const LONG: Duration = Duration::from_secs(3600);

/// How long a server keeps the session of a client that is away: so short that some are lost without a
/// restart.
const SESSION: Duration = Duration::from_secs(1);

/// How often a client asks for a part of a ledger at its end, when there are no faults any more, and
/// the pause between two attempts.
const ATTEMPTS: usize = 20;
const PAUSE: Duration = Duration::from_millis(200);

/// What a replica is asked. The first number is that of the call, which ascends with each client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Asked {
    /// To add an amount.
    Add(u64, u64),
    /// To append the [line](line()) of this call.
    Append(u64),
    /// To read the counter, and lines from this position on.
    Read(u64, u64),
}

/// What the replica has returned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Given {
    /// The counter, with the amount.
    Count(u64),
    /// The position of the line.
    Position(u64),
    /// The counter, lines, and whether none is behind them.
    Found(u64, Vec<String>, bool),
}

/// The line that a call appends.
fn line(client: u32, number: u64) -> String {
    format!("{client}/{number}")
}

/// A replica's ledger in the history.
fn ledger_of(replica: NodeId) -> String {
    format!("the ledger of replica {replica}")
}

pub(crate) fn scenario(bug: Option<Bug>) -> Scenario {
    // Twice as often as the others: what dies with an answer under way is what it is about.
    let deaths = [FaultKind::PowerFailure, FaultKind::Crash];
    Scenario::new(Bug::name_of(bug, "ledger"))
        // Clients that wait for no answers have three times as many in that time.
        .operations(50)
        .faults(faults_with_disks().chain(deaths))
        .replica(move |node| replica(node, bug))
        .client(client)
        .check(check::check)
}

async fn replica(node: Replica, bug: Option<Bug>) -> gorums_sim::Result {
    let store = Arc::new(volume::store(&node, sized, bug).await?);
    let mut service = Service::new(Arc::clone(&store));
    if let Some(bug) = bug.and_then(Bug::of_ledger) {
        service = service.with_bug(bug);
    }
    let server = node.server().session_timeout(SESSION);
    volume::serve(&node, store, server.add_service(LedgerServer::new(service))).await
}

fn sized(bytes: usize) -> Note {
    Note::line("v".repeat(bytes))
}

/// The calls of a client that add to a replica's counter, and of which nothing tells whether they have.
#[derive(Debug, Clone, Default)]
struct Unsure(Arc<Mutex<BTreeSet<u64>>>);

impl Unsure {
    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what came of a call.
    fn note(&self, asked: Asked, outcome: Result<(), Outcome>) {
        match (asked, outcome) {
            // A replica has the calls of a client in their order. So what is earlier, and is not added
            // by now, never is.
            (Asked::Add(number, _) | Asked::Read(number, _), Ok(())) => {
                self.lock().retain(|earlier| *earlier > number);
            }
            (Asked::Add(number, _), Err(Outcome::NotSent)) => {
                self.lock().remove(&number);
            }
            _ => {}
        }
    }
}

/// A call in the history of each replica that it goes to.
struct Noted {
    asked: Asked,
    replicas: BTreeMap<NodeId, (PendingOperation, Unsure)>,
}

impl Noted {
    /// Notes what comes of it.
    fn end(&mut self, replica: NodeId, result: Result<Given, Outcome>) {
        let Some((operation, unsure)) = self.replicas.remove(&replica) else {
            return;
        };
        unsure.note(
            self.asked,
            result.as_ref().map(|_| ()).map_err(|outcome| *outcome),
        );
        match result {
            Ok(given) => drop(operation.returned(given)),
            Err(Outcome::NotSent) => operation.not_done(),
            Err(Outcome::Refused | Outcome::Unknown) => drop(operation.failed()),
        }
    }

    /// Makes the call now, and waits for what comes of it in a task.
    fn make(mut self, client: u32, ledger: &LedgerClient, under_way: &mut JoinSet<()>) {
        macro_rules! make {
            ($call:expr, $given:expr) => {{
                let mut responses = $call.responses();
                under_way.spawn(async move {
                    while let Some(response) = responses.next().await {
                        let node = response.node();
                        let result = response.into_result();
                        self.end(node, result.map($given).map_err(|error| error.outcome()));
                    }
                });
            }};
        }
        match self.asked {
            Asked::Add(_, amount) => make!(ledger.add(AddRequest { amount }), added),
            Asked::Append(number) => {
                let line = line(client, number);
                make!(ledger.append(AppendRequest { line }), appended);
            }
            Asked::Read(_, from) => make!(ledger.read(ReadRequest { from }), found),
        }
    }
}

fn added(AddResponse { count }: AddResponse) -> Given {
    Given::Count(count)
}

fn appended(AppendResponse { position }: AppendResponse) -> Given {
    Given::Position(position)
}

fn found(ReadResponse { count, lines, last }: ReadResponse) -> Given {
    Given::Found(count, lines, last)
}

async fn client(node: Client) -> gorums_sim::Result {
    let replicas = node.configuration().sessions(LONG).connect()?;
    let ledger = LedgerClient::new(&replicas);
    let unsure: BTreeMap<_, _> = replicas.ids().map(|id| (id, Unsure::default())).collect();
    let mut number = 0;
    let mut under_way = JoinSet::new();
    while node.next_operation().await {
        // As many go to all as to a single one.
        let to = match node.random_below(2) {
            0 => ledger.clone(),
            _ => ledger.on(&replicas[node.random_below(replicas.len() as u64) as usize]),
        };
        for _ in 0..=node.random_below(BURST) {
            number += 1;
            let asked_now: BTreeMap<_, _> = to
                .configuration()
                .ids()
                .map(|id| (id, unsure[&id].clone()))
                .collect();
            let may_add = asked_now
                .values()
                .all(|unsure| unsure.lock().len() < UNSURE);
            let asked = match node.random_below(8) {
                0..4 if may_add => Asked::Add(number, 1 + node.random_below(AMOUNTS)),
                // Behind the log it finds no line.
                0..4 | 7 => Asked::Read(number, node.random_below(number)),
                _ => Asked::Append(number),
            };
            if let Asked::Add(..) = asked {
                for unsure in asked_now.values() {
                    unsure.lock().insert(number);
                }
            }
            let history = node.history();
            let replicas = asked_now.into_iter().map(|(id, unsure)| {
                let operation = history.operation(node.id(), ledger_of(id), asked);
                (id, (operation, unsure))
            });
            let noted = Noted {
                asked,
                replicas: replicas.collect(),
            };
            // Some outlast a loss of power.
            let timeout = node.patience() * (1 + node.random_below(3) as u32);
            noted.make(node.id(), &to.clone().with_timeout(timeout), &mut under_way);
        }
    }
    while let Some(ended) = under_way.join_next().await {
        ended?;
    }
    for replica in &replicas {
        let one = ledger.on(replica).with_timeout(node.patience());
        read_all(&node, replica.id(), &one, &mut number).await?;
    }
    Ok(())
}

/// Reads all that there is at a replica. The client that comes last has what was acknowledged to all.
async fn read_all(
    node: &Client,
    replica: NodeId,
    ledger: &LedgerClient,
    number: &mut u64,
) -> gorums_sim::Result {
    let clock = node.clock();
    let mut from = 0;
    for _ in 0..ATTEMPTS {
        *number += 1;
        let asked = Asked::Read(*number, from);
        let operation = node
            .history()
            .operation(node.id(), ledger_of(replica), asked);
        match ledger.read(ReadRequest { from }).all().await {
            Ok(read) => {
                from += read.lines.len() as u64;
                let last = read.last;
                operation.returned(found(read));
                if last {
                    return Ok(());
                }
            }
            Err(_) => {
                operation.failed();
                clock.sleep_until(clock.now() + PAUSE).await;
            }
        }
    }
    let id = node.id();
    Err(format!("client {id} cannot read the ledger of replica {replica} after all faults").into())
}
