//! The library itself: what a client sends to a replica is handled in the order in which it was
//! queued.
//!
//! Each client numbers its messages to each replica, of both kinds, and does not wait for answers.
//! A replica may miss some where a connection breaks, and those of a broken connection may be
//! handled beside the first ones of the next, or after them. But the numbers of one connection
//! ascend, and those of each connection are greater than those of all that were opened before.
//!
//! A replica may come back from a crash without what it had: the order is the library's to keep,
//! whatever a service forgets. `store` and `register` promise what they acknowledge to whoever keeps
//! their disks; where these are lost, that is for `store-rejoin` and `register-rejoin`.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gorums::{Outcome, ServerCtx, Status};
use gorums_sim::{Client, FaultKind, Recorder, Replica, Scenario, Verdict, Violation};
use tokio::task::JoinSet;

use crate::bug::Bug;
use crate::faults;

const APPEND: &str = "Log.Append";
const NOTE: &str = "Log.Note";

/// How many messages a client sends at once.
const BURST: u64 = 6;

#[derive(Clone, PartialEq, prost::Message)]
struct Entry {
    /// Who sends it.
    #[prost(uint32, tag = "1")]
    client: u32,
    /// Counts up, for each client and replica.
    #[prost(uint64, tag = "2")]
    number: u64,
    /// Its place in the history.
    #[prost(uint64, tag = "3")]
    place: u64,
}

pub(crate) fn scenario(bug: Option<Bug>) -> Scenario {
    Scenario::new(Bug::name_of(bug, "order"))
        .faults(faults().into_iter().chain([FaultKind::CrashAndLose]))
        .replica(move |node| replica(node, bug))
        .client(move |node| client(node, bug))
        // The replicas judge.
        .check(|_| Verdict::Valid)
}

/// What a replica has handled.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Handled>>);

#[derive(Debug, Default)]
struct Handled {
    /// In the order in which they were opened, which is not that in which their first messages are
    /// handled.
    connections: Vec<SocketAddr>,
    /// For each client and connection, by its place in that order: the first and the last message.
    messages: BTreeMap<u32, BTreeMap<usize, (Entry, Entry)>>,
}

impl Log {
    fn opened(&self, peer: SocketAddr) {
        self.lock().connections.push(peer);
    }

    /// Notes that a message is handled. The message that should not have been handled before it,
    /// and why not.
    fn handle(&self, peer: SocketAddr, entry: &Entry) -> Result<(), (Entry, &'static str)> {
        let mut handled = self.lock();
        let Handled {
            connections,
            messages,
        } = &mut *handled;
        let place = connections.iter().rposition(|known| *known == peer);
        let place = place.expect("every connection is announced");
        let messages = messages.entry(entry.client).or_default();
        let wrong = messages.iter().find_map(|(other, (first, last))| {
            let (wrong, which) = match other.cmp(&place) {
                Ordering::Less => (last, "on an earlier connection"),
                Ordering::Equal => (last, "on the same connection"),
                Ordering::Greater if first.number > entry.number => return None,
                Ordering::Greater => return Some((first.clone(), "on a later connection")),
            };
            (wrong.number >= entry.number).then(|| (wrong.clone(), which))
        });
        let (_, last) = messages
            .entry(place)
            .or_insert_with(|| (entry.clone(), entry.clone()));
        *last = entry.clone();
        wrong.map_or(Ok(()), Err)
    }

    fn lock(&self) -> MutexGuard<'_, Handled> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn replica(node: Replica, bug: Option<Bug>) -> gorums_sim::Result {
    let log = Log::default();
    let id = node.id();
    let handle = {
        let (log, node) = (log.clone(), node.clone());
        move |ctx: &ServerCtx, entry: &Entry| {
            let peer = ctx.peer_addr().expect("the simulated network tells it");
            if let Err((other, place)) = log.handle(peer, entry) {
                let Entry { client, number, .. } = entry;
                node.report(Violation::new(
                    format!(
                        "replica {id} handled message {number} of client {client} after message {} {place}",
                        other.number
                    ),
                    [entry.place as usize, other.place as usize],
                ));
            }
        }
    };
    let note = handle.clone();
    let opened = log.clone();
    let early = bug == Some(Bug::ReleaseBeforeOrder);
    let random = node.clone();
    let server = node
        .server()
        .on_connect(move |request| {
            let peer = request.peer_addr();
            opened.opened(peer.expect("the simulated network tells it"));
            Ok(())
        })
        .unary(APPEND, move |ctx: ServerCtx, entry: Entry| {
            let handle = handle.clone();
            let pause = random.random_below(20);
            async move {
                if early {
                    ctx.release().await;
                }
                // The ordered part may take its time.
                tokio::time::sleep(Duration::from_millis(pause)).await;
                handle(&ctx, &entry);
                ctx.release();
                tokio::time::sleep(Duration::from_millis(pause)).await;
                Ok::<_, Status>(entry)
            }
        })
        .one_way(NOTE, move |ctx: ServerCtx, entry: Entry| {
            note(&ctx, &entry);
            async {}
        });
    node.serve(server).await
}

async fn client(node: Client, bug: Option<Bug>) -> gorums_sim::Result {
    let configuration = node.configuration().connect()?;
    let client = gorums::Client::new(&configuration);
    let mut numbers = vec![0; configuration.len()];
    let mut under_way = JoinSet::new();
    while node.next_operation().await {
        let to = node.random_below(configuration.len() as u64) as usize;
        let replica = &configuration[to];
        for _ in 0..=node.random_below(BURST) {
            numbers[to] += 1;
            let number: u64 = numbers[to];
            let recorder: &Recorder = node.history();
            let key = format!("replica-{}", replica.id());
            let write = recorder.write(node.id(), key, number.to_string());
            let entry = Entry {
                client: node.id(),
                number,
                place: write.place().map_or(0, |place| place as u64),
            };
            if node.random_below(4) == 0 {
                match client.unicast(replica, NOTE, entry).detach().is_empty() {
                    true => drop(write),
                    false => write.not_done(),
                }
                continue;
            }
            let call = client.rpc::<Entry, Entry>(replica, APPEND, entry.clone());
            let call = call.timeout(node.patience()).send();
            let (again, replica) = (client.clone(), replica.clone());
            let retries = bug == Some(Bug::FifoBrokenOnReconnect);
            under_way.spawn(async move {
                match call.await {
                    Ok(_) => {
                        write.ok();
                    }
                    Err(error) if retries && error.outcome() == Outcome::Unknown => {
                        // A layer that means well: it sends again what was lost with a connection,
                        // behind what was queued in the meantime.
                        let call = again.rpc::<Entry, Entry>(&replica, APPEND, entry);
                        match call.send().await {
                            Ok(_) => write.ok(),
                            Err(_) => write.failed(),
                        };
                    }
                    Err(_) => {
                        write.failed();
                    }
                }
            });
        }
    }
    while under_way.join_next().await.is_some() {}
    Ok(())
}
