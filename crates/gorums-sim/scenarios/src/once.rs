//! The library itself: a counter and a log, which are served with sessions, have every call once.
//!
//! No call of theirs may be handled twice, and no client says that one may. Each client numbers what
//! it sends to each replica, of both kinds, and does not wait for answers. What a replica has handled
//! of a client has ascending numbers then, wherever connections break, and every call that was
//! acknowledged is among it. A replica that crashes loses its sessions with all it had: what was
//! under way then fails, and is not sent again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gorums::{ServerCtx, Status};
use gorums_sim::history::{Action, Operation, Outcome};
use gorums_sim::{Client, FaultKind, History, Replica, Scenario, Verdict, Violation};
use tokio::task::JoinSet;

use crate::bug::Bug;
use crate::faults;

const ADD: &str = "Tally.Add";
const NOTE: &str = "Tally.Note";

/// How many messages a client sends at once.
const BURST: u64 = 6;

/// Longer than a run: no session is given up.
const LONG: Duration = Duration::from_secs(3600);

#[derive(Clone, PartialEq, prost::Message)]
struct Entry {
    /// Who sends it.
    #[prost(uint32, tag = "1")]
    client: u32,
    /// Counts up, for each client and replica.
    #[prost(uint64, tag = "2")]
    number: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Count {
    /// How often the replica had crashed.
    #[prost(uint64, tag = "1")]
    crashes: u64,
    /// How many entries it has handled, with this one.
    #[prost(uint64, tag = "2")]
    entries: u64,
}

pub(crate) fn scenario(bug: Option<Bug>) -> Scenario {
    Scenario::new(Bug::name_of(bug, "once"))
        .faults(faults().into_iter().chain([FaultKind::CrashAndLose]))
        .replica(replica)
        .client(move |node| client(node, bug))
        .check(check)
}

fn handled_at(replica: u32) -> String {
    format!("handled at replica {replica}")
}

fn sent_to(replica: u32) -> String {
    format!("sent to replica {replica}")
}

async fn replica(node: Replica) -> gorums_sim::Result {
    let handle = {
        let (node, entries) = (node.clone(), Arc::new(AtomicU64::new(0)));
        move |Entry { client, number }: Entry| {
            let handled = node
                .history()
                .operation(client, handled_at(node.id()), number);
            let count = Count {
                crashes: node.crashes(),
                entries: entries.fetch_add(1, Ordering::Relaxed) + 1,
            };
            handled.returned((count.crashes, count.entries));
            count
        }
    };
    let note = handle.clone();
    let random = node.clone();
    let server = node
        .server()
        .session_timeout(LONG)
        .unary(ADD, move |ctx: ServerCtx, entry: Entry| {
            let handle = handle.clone();
            let pauses = [random.random_below(20), random.random_below(40)];
            let [before, after] = pauses.map(Duration::from_millis);
            async move {
                tokio::time::sleep(before).await;
                let count = handle(entry);
                ctx.release();
                tokio::time::sleep(after).await;
                Ok::<_, Status>(count)
            }
        })
        .one_way(NOTE, move |_, entry: Entry| {
            note(entry);
            async {}
        });
    node.serve(server).await
}

async fn client(node: Client, bug: Option<Bug>) -> gorums_sim::Result {
    let sends_again = bug == Some(Bug::OnceSentAgain);
    let configuration = node.configuration();
    let configuration = if sends_again {
        configuration
    } else {
        configuration.sessions(LONG)
    };
    let configuration = configuration.connect()?;
    let client = gorums::Client::new(&configuration);
    let mut numbers = vec![0; configuration.len()];
    let mut under_way = JoinSet::new();
    while node.next_operation().await {
        let to = node.random_below(configuration.len() as u64) as usize;
        let replica = &configuration[to];
        for _ in 0..=node.random_below(BURST) {
            numbers[to] += 1;
            let number: u64 = numbers[to];
            let key = sent_to(replica.id().get());
            let sent = node.history().operation(node.id(), key, number);
            let entry = Entry {
                client: node.id(),
                number,
            };
            if node.random_below(4) == 0 {
                match client.unicast(replica, NOTE, entry).detach().is_empty() {
                    true => drop(sent),
                    false => sent.not_done(),
                }
                continue;
            }
            let call = client.rpc::<Entry, Count>(replica, ADD, entry);
            // A client that takes what is handled twice for what may be.
            let call = call.idempotent(sends_again).timeout(node.patience()).send();
            under_way.spawn(async move {
                match call.await {
                    Ok(count) => sent.returned((count.crashes, count.entries)),
                    Err(error) if error.outcome() == gorums::Outcome::NotSent => {
                        sent.not_done();
                        0
                    }
                    Err(_) => sent.failed(),
                };
            });
        }
    }
    while under_way.join_next().await.is_some() {}
    Ok(())
}

/// What an operation was about: the number, and what was counted.
fn parts(operation: &Operation) -> Option<(u64, Option<(u64, u64)>)> {
    let Action::Call { input, output } = &operation.action else {
        return None;
    };
    let count = output
        .as_array()
        .and_then(|parts| Some((parts.first()?.as_u64()?, parts.get(1)?.as_u64()?)));
    Some((input.as_u64()?, count))
}

/// What a replica has handled of a client, by number: its place in the history, and what was counted.
type Handled = BTreeMap<u64, (usize, (u64, u64))>;

/// Whether each replica has handled what each client has sent once and in order, and all that was
/// acknowledged.
fn check(history: &History) -> Verdict {
    // By replica and client.
    let mut handled: BTreeMap<(&str, u32), Handled> = BTreeMap::new();
    let mut counted = BTreeSet::new();
    for (place, operation) in history.operations().iter().enumerate() {
        let Some(replica) = operation.key.strip_prefix("handled at ") else {
            continue;
        };
        let Some((number, Some(count))) = parts(operation) else {
            return Verdict::Unknown(format!("operation {place} has not ended, or says nothing"));
        };
        let client = operation.client;
        let before = handled.entry((replica, client)).or_default();
        if let Some((last, (other, _))) = before.range(number..).next() {
            let what = if *last == number { "again" } else { "too late" };
            return Verdict::Violation(Violation::new(
                format!("{replica} handled message {number} of client {client} {what}"),
                [place, *other],
            ));
        }
        before.insert(number, (place, count));
        if !counted.insert((replica, count)) {
            return Verdict::Violation(Violation::new(
                format!("{replica} counted two messages as the same"),
                [place],
            ));
        }
    }
    for (place, operation) in history.operations().iter().enumerate() {
        let (Some(replica), Outcome::Ok) =
            (operation.key.strip_prefix("sent to "), operation.outcome)
        else {
            continue;
        };
        let Some((number, Some(count))) = parts(operation) else {
            return Verdict::Unknown(format!("operation {place} says nothing"));
        };
        let found = handled.get(&(replica, operation.client));
        let found = found.and_then(|found| found.get(&number));
        if found.is_none_or(|(_, counted)| *counted != count) {
            return Verdict::Violation(Violation::new(
                format!(
                    "{replica} has not counted message {number} of client {} as it has said",
                    operation.client
                ),
                [place],
            ));
        }
    }
    Verdict::Valid
}
