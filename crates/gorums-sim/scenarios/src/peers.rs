//! Replicas that are peers: a register that is read and written through any of them, and
//! connections that are noticed when they are dead.
//!
//! A replica that a client asks to read or to write calls a majority of all replicas, itself among
//! them, as the atomic register's clients do. Beside that, replicas send each other and the clients
//! notes that nobody answers, and some of them calls that give up soon: what comes in by itself, and
//! what nobody waits for any more, must not hide that a connection is dead.
//!
//! When the faults are over, a connection that has lost something is silent until somebody finds
//! out. So each client calls all replicas then, and has each of them call all others: within the
//! time that keep-alive allows, every call is answered.

use std::collections::BTreeMap;
use std::time::Duration;

use gorums::membership::WhileDisconnected;
use gorums::runtime::Clock;
use gorums::server::Clients;
use gorums::{Configuration, Server, ServerCtx, Status};
use gorums_sim::{Client, Disk, FaultKind, History, Replica, Scenario, Violation};

use crate::bug::Bug;
use crate::faults;
use crate::forgiving::Forgiving;

const READ: &str = "Peers.Read";
const WRITE: &str = "Peers.Write";
const GET: &str = "Peers.Get";
const PUT: &str = "Peers.Put";
const NOTE: &str = "Peers.Note";
const ECHO: &str = "Peers.Echo";
const REACH: &str = "Peers.Reach";

const KEYS: u64 = 3;

/// A third of the seeds have this many replicas.
const FEW: usize = 3;

/// How long a replica waits for a majority.
const MAJORITY: Duration = Duration::from_millis(700);

/// How long a call takes at most where no fault is, and more than that.
const ROUND_TRIP: Duration = Duration::from_millis(250);

/// The pause between two calls that give up soon: longer than the interval of keep-alive, at whose
/// looks none of them is under way.
const APART: Duration = Duration::from_millis(900);

/// How long after the faults a call may begin and fail: a dead connection is noticed, another one
/// takes its place, and an attempt that began during the faults is given up.
fn latest_failure() -> Duration {
    let (interval, timeout) = Replica::KEEP_ALIVE;
    interval + timeout + Duration::from_millis(1300)
}

/// How long a server bears a silent client, as by default: whoever calls has to notice by itself.
const SERVER_KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));

/// How many streams a pair of replicas has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Streams {
    One,
    Two,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Nothing {}

/// What a client reads or writes.
#[derive(Clone, PartialEq, prost::Message)]
struct Word {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, optional, tag = "2")]
    value: Option<String>,
}

/// What a replica keeps of a key. No two writes have one value, so the newest is the one with the
/// greatest number and the greatest value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, prost::Message)]
struct Version {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(string, optional, tag = "2")]
    value: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Put {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, required, tag = "2")]
    version: Version,
}

/// Which peers have not answered.
#[derive(Clone, PartialEq, prost::Message)]
struct Silent {
    #[prost(uint32, repeated, tag = "1")]
    peers: Vec<u32>,
}

pub(crate) fn scenario(streams: Streams, bug: Option<Bug>) -> Scenario {
    let name = match streams {
        Streams::One => "pairs",
        Streams::Two => "peers",
    };
    Scenario::new(Bug::name_of(bug, name))
        // Twice as often as the others: what is lost in one direction only is what hides best.
        .faults(faults().into_iter().chain([FaultKind::OneWayPartition]))
        .replicas_are_peers()
        .replica(move |node| replica(node, streams, bug))
        .client(move |node| client(node, bug))
        .check(History::linearizable)
}

async fn replica(node: Replica, streams: Streams, bug: Option<Bug>) -> gorums_sim::Result {
    let peers = node.peers();
    let peers = match streams {
        Streams::One => peers.one_stream_per_pair(node.id(), WhileDisconnected::Wait),
        Streams::Two => peers,
    };
    let peers = match bug {
        Some(Bug::PeersNoKeepAlive | Bug::PairsNoKeepAlive) => {
            peers.keep_alive(Duration::MAX, Duration::MAX)
        }
        _ => peers,
    };
    let peers = peers.connect()?;
    let (interval, timeout) = SERVER_KEEP_ALIVE;
    let server = node.server().keep_alive(interval, timeout);
    let server = server.peers(node.id(), &peers).trust_claimed_ids(true);
    let server = register(server, node.disk(), &peers);
    let me = node.id();
    let others = peers.filter(|other| other.id().get() != me);
    let server = reach(server, &others);
    let server = node.bind(server).await?;
    let chatter = chatter(&node, &others, server.clients());
    tokio::select! {
        biased;
        () = server.serve() => Ok(()),
        () = chatter => Ok(()),
    }
}

/// The register. All handlers release their turn before they wait.
fn register(
    server: gorums::ServerBuilder,
    disk: Disk<BTreeMap<String, Version>>,
    peers: &Configuration,
) -> gorums::ServerBuilder {
    let disk_of_get = disk.clone();
    let all = gorums::Client::new(peers).with_timeout(MAJORITY);
    let all_of_write = all.clone();
    server
        .unary(GET, move |ctx: ServerCtx, word: Word| {
            let disk = disk_of_get.clone();
            async move {
                ctx.release();
                let version = disk.read(|versions| versions.get(&word.key).cloned());
                Ok::<_, Status>(version.await.map_err(failed)?.unwrap_or_default())
            }
        })
        .unary(PUT, move |ctx: ServerCtx, Put { key, version }: Put| {
            let disk = disk.clone();
            async move {
                ctx.release();
                let put = disk.commit(|versions| {
                    let kept = versions.entry(key).or_default();
                    *kept = version.max(std::mem::take(kept));
                });
                put.await.map_err(failed)?;
                Ok::<_, Status>(Nothing {})
            }
        })
        .unary(READ, move |ctx: ServerCtx, Word { key, .. }: Word| {
            let all = all.clone();
            async move {
                ctx.release();
                let newest = newest(&all, &key).await?;
                put(&all, &key, newest.clone()).await?;
                Ok::<_, Status>(Word {
                    key,
                    value: newest.value,
                })
            }
        })
        .unary(WRITE, move |ctx: ServerCtx, Word { key, value }: Word| {
            let all = all_of_write.clone();
            async move {
                ctx.release();
                let number = newest(&all, &key).await?.number + 1;
                put(&all, &key, Version { number, value }).await?;
                Ok::<_, Status>(Nothing {})
            }
        })
}

/// What tells whether replicas reach each other.
fn reach(server: gorums::ServerBuilder, others: &Configuration) -> gorums::ServerBuilder {
    let others = gorums::Client::new(others);
    server
        .one_way(NOTE, |_: ServerCtx, _: Nothing| async {})
        .unary(ECHO, |_: ServerCtx, _: Nothing| async {
            Ok::<_, Status>(Nothing {})
        })
        .unary(REACH, move |ctx: ServerCtx, _: Nothing| {
            let others = others.clone();
            async move {
                ctx.release();
                let mut silent: Vec<u32> =
                    others.configuration().ids().map(|id| id.get()).collect();
                let call = others.quorum_call::<_, Nothing>(ECHO, Nothing {});
                let mut responses = call.timeout(ROUND_TRIP).responses();
                while let Some(response) = responses.next().await {
                    if response.result().is_ok() {
                        silent.retain(|peer| *peer != response.node().get());
                    }
                }
                Ok::<_, Status>(Silent { peers: silent })
            }
        })
}

async fn newest(all: &gorums::Client, key: &str) -> Result<Version, Status> {
    let word = Word {
        key: key.to_owned(),
        value: None,
    };
    let call = all.quorum_call::<_, Version>(GET, word);
    let newest = call.majority().max_by_key(Version::clone).await;
    newest.map_err(|error| Status::unavailable(error.to_string()))
}

async fn put(all: &gorums::Client, key: &str, version: Version) -> Result<(), Status> {
    let put = Put {
        key: key.to_owned(),
        version,
    };
    let call = all.quorum_call::<_, Nothing>(PUT, put);
    match call.majority().await {
        Ok(Nothing {}) => Ok(()),
        Err(error) => Err(Status::unavailable(error.to_string())),
    }
}

fn failed(error: gorums_sim::DiskError) -> Status {
    Status::internal(error.to_string())
}

/// Notes to everybody and calls that give up soon, from some replicas each.
async fn chatter(node: &Replica, others: &Configuration, clients: Clients) {
    let (notes, calls) = (node.random_below(3) > 0, node.random_below(2) > 0);
    let clock = node.clock();
    let others = gorums::Client::new(others);
    let mut next_call = clock.now();
    loop {
        let pause = Duration::from_millis(100 + node.random_below(300));
        clock.sleep_until(clock.now() + pause).await;
        if notes {
            for nodes in [others.clone(), gorums::Client::new(clients.config())] {
                let _missed = nodes.multicast(NOTE, Nothing {}).detach();
            }
        }
        if calls && clock.now() >= next_call {
            next_call = clock.now() + APART;
            let call = others.quorum_call::<_, Nothing>(ECHO, Nothing {});
            let _answered = call.timeout(ROUND_TRIP).all().await;
        }
    }
}

async fn client(node: Client, bug: Option<Bug>) -> gorums_sim::Result {
    let handlers = Server::builder().clock(node.clock());
    let handlers = handlers.one_way(NOTE, |_: ServerCtx, _: Nothing| async {});
    let replicas = node.configuration().serve(handlers);
    let replicas = match bug {
        Some(Bug::PeersForgivenPing) => replicas.transport(Forgiving(node.transport())),
        _ => replicas,
    };
    let replicas = replicas.connect()?;
    let client = gorums::Client::new(&replicas);
    while node.next_operation().await {
        let replica = &replicas[asked(&node, replicas.len())];
        let key = format!("key-{}", node.random_below(KEYS) + 1);
        if node.random_below(2) == 0 {
            let value = node.unique_value();
            let write = node.history().write(node.id(), &key, &value);
            let value = Some(value);
            let call = client.rpc::<_, Nothing>(replica, WRITE, Word { key, value });
            match call.timeout(node.patience()).await {
                Ok(Nothing {}) => write.ok(),
                Err(_) => write.failed(),
            };
        } else {
            let read = node.history().read(node.id(), &key);
            let call = client.rpc::<_, Word>(replica, READ, Word { key, value: None });
            match call.timeout(node.patience()).await {
                Ok(word) => read.ok(word.value),
                Err(_) => read.failed(),
            };
        }
    }
    everybody_answers(&node, &client).await;
    Ok(())
}

/// Where there are few replicas the last one is asked mostly, as a leader would be: so others have
/// nothing to say for long, and this one cannot connect to them where a pair shares a stream.
fn asked(node: &Client, replicas: usize) -> usize {
    if replicas <= FEW && node.random_below(8) > 0 {
        replicas - 1
    } else {
        node.random_below(replicas as u64) as usize
    }
}

/// No fault is left. The replica with the highest id is asked first, so that of a pair that shares
/// a stream the one that cannot connect needs it before the other one.
async fn everybody_answers(node: &Client, client: &gorums::Client) {
    let clock = node.clock();
    let replicas = client.configuration();
    for replica in replicas.iter().rev() {
        let begun = clock.now();
        loop {
            let asked = clock.now() - begun;
            let call = client.rpc::<_, Silent>(replica, REACH, Nothing {});
            let silent = match call.timeout(2 * ROUND_TRIP).await {
                Ok(Silent { peers }) if peers.is_empty() => break,
                Ok(Silent { peers }) => {
                    format!("replicas {peers:?} do not answer replica {}", replica.id())
                }
                Err(error) => format!("{error}"),
            };
            if asked > latest_failure() {
                let since = asked.as_millis();
                let what = format!(
                    "client {}: {silent}, {since} ms after all faults",
                    node.id()
                );
                node.report(Violation::new(what, []));
                return;
            }
            clock.sleep_until(clock.now() + APART).await;
        }
    }
}
