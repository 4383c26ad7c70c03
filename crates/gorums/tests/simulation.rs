//! Three servers and a client on a simulated network: whatever happens in it follows from one seed.

mod common;

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use common::{Number, number};
use gorums::runtime::{Address, BoxFuture, BoxIo, Clock, Listener, Transport};
use gorums::{
    Client, Configuration, Outcome, QuorumErrorKind, Server, ServerBuilder, ServerCtx, Status,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use turmoil::net::{TcpListener, TcpStream};

/// Connections on the network of the simulation that runs.
#[derive(Debug, Clone, Copy, Default)]
struct SimTransport;

impl Transport for SimTransport {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move { Ok(Box::new(TcpStream::connect(address).await?) as BoxIo) })
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener = TcpListener::bind(address).await?;
            Ok(Box::new(SimListener(listener)) as Box<dyn Listener>)
        })
    }
}

struct SimListener(TcpListener);

impl Listener for SimListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxIo, Option<SocketAddr>)>> {
        Box::pin(async move {
            let (stream, peer) = self.0.accept().await?;
            Ok((Box::new(stream) as BoxIo, Some(peer)))
        })
    }

    fn local_addr(&self) -> io::Result<Address> {
        self.0.local_addr().map(Into::into)
    }
}

/// The time of the simulation, and random numbers that follow from a seed.
#[derive(Debug)]
struct SimClock {
    state: AtomicU64,
}

impl SimClock {
    fn new(seed: u64) -> Self {
        Self {
            state: AtomicU64::new(seed),
        }
    }
}

impl Clock for SimClock {
    /// A simulation pauses the clock of tokio and moves it by hand.
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep_until(at))
    }

    fn wall_clock(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + turmoil::since_epoch().unwrap_or_default()
    }

    /// SplitMix64.
    fn random(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let state = self.state.fetch_add(STEP, Ordering::Relaxed);
        let mut mixed = state.wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

const SERVERS: [&str; 3] = ["server-1", "server-2", "server-3"];
const CLIENT: &str = "client";
const PORT: u16 = 7000;

const WRITE: &str = "sim.Register.Write";
const NOTE: &str = "sim.Register.Note";
const READ: &str = "sim.Register.Read";
const HANG: &str = "sim.Register.Hang";

/// How many calls of each kind are under way at once.
const CALLS: u64 = 20;

/// What happened, by whom and when.
#[derive(Clone, Default)]
struct Trace(Arc<Mutex<Vec<String>>>);

impl Trace {
    fn add(&self, who: &str, what: impl Display) {
        let now = turmoil::sim_elapsed().unwrap_or_default();
        self.0
            .lock()
            .expect("not poisoned")
            .push(format!("{:>6} us {who}: {what}", now.as_micros()));
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().expect("not poisoned").clone()
    }
}

/// A register that keeps the greatest number, and tells the trace what it sees.
fn register(name: &'static str, seed: u64, trace: &Trace) -> ServerBuilder {
    let value = Arc::new(Mutex::new(0));
    let write = {
        let (value, trace) = (Arc::clone(&value), trace.clone());
        move |kind: &str, new: u64| {
            trace.add(name, format_args!("{kind} {new}"));
            let mut value = value.lock().expect("not poisoned");
            *value = new.max(*value);
        }
    };
    let note = write.clone();
    let hang = trace.clone();
    Server::builder()
        .transport(SimTransport)
        .clock(SimClock::new(seed))
        .unary(WRITE, move |_ctx: ServerCtx, request: Number| {
            write("write", request.value);
            async move { Ok::<_, Status>(request) }
        })
        .one_way(NOTE, move |_ctx: ServerCtx, request: Number| {
            note("note", request.value);
            async {}
        })
        .unary(READ, move |_ctx: ServerCtx, _request: Number| {
            let value = *value.lock().expect("not poisoned");
            async move { Ok::<_, Status>(number(value)) }
        })
        .unary(HANG, move |ctx: ServerCtx, request: Number| {
            let trace = hang.clone();
            async move {
                ctx.release();
                ctx.cancelled().await;
                trace.add(name, format_args!("hang {} cancelled", request.value));
                Ok::<_, Status>(request)
            }
        })
}

/// What the client asks of the world, which only the world can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum World {
    Runs,
    Crash(&'static str),
    Bounce(&'static str),
}

async fn ask(world: &watch::Sender<World>, wish: World) {
    world.send_replace(wish);
    world
        .subscribe()
        .wait_for(|world| *world == World::Runs)
        .await
        .expect("the sender is here");
}

async fn client(seed: u64, trace: Trace, world: watch::Sender<World>) -> turmoil::Result {
    let configuration = Configuration::builder()
        .nodes(SERVERS.map(|name| format!("{name}:{PORT}")))
        .transport(SimTransport)
        .clock(SimClock::new(seed))
        .connect_timeout(Duration::from_secs(1))
        .keep_alive(Duration::from_secs(1), Duration::from_secs(1))
        .connect()?;
    let client = Client::new(&configuration);
    let tell = |what: &dyn Display| trace.add(CLIENT, what);
    let majority_read = async || {
        let replies = client
            .quorum_call::<Number, Number>(READ, number(0))
            .majority()
            .replies()
            .await?;
        let values: Vec<_> = replies
            .iter()
            .map(|(node, r)| (node.get(), r.value))
            .collect();
        tell(&format_args!("read {values:?}"));
        Ok::<_, gorums::QuorumError>(values.iter().map(|(_, value)| *value).max())
    };
    configuration.connected(3).await.expect("none is closed");
    tell(&"connected to all");

    // Writes of both kinds, queued one after the other and awaited in reverse.
    let mut writes = Vec::new();
    for value in 1..=CALLS {
        let refused = client.multicast(NOTE, number(2 * value - 1)).detach();
        assert!(refused.is_empty());
        let write = client.quorum_call::<Number, Number>(WRITE, number(2 * value));
        writes.push(write.majority());
    }
    for write in writes.into_iter().rev() {
        tell(&format_args!("wrote {}", write.await?.value));
    }
    assert_eq!(majority_read().await?, Some(2 * CALLS));

    // Held messages arrive late, and nothing is lost.
    turmoil::hold(CLIENT, SERVERS[1]);
    tell(&"server-2 is held");
    let late = client
        .rpc::<Number, Number>(&configuration[1], READ, number(0))
        .send();
    assert_eq!(majority_read().await?, Some(2 * CALLS));
    turmoil::release(CLIENT, SERVERS[1]);
    tell(&format_args!("late reply {}", late.await?.value));

    // A partition: calls under way at one server end when the client finds the connection dead, and
    // majorities go on.
    let mut hanging = JoinSet::new();
    for value in 1..=CALLS {
        let call = client
            .rpc::<Number, Number>(&configuration[2], HANG, number(value))
            .send();
        let trace = trace.clone();
        hanging.spawn(async move {
            let error = call.await.expect_err("the handler answers nobody");
            trace.add(CLIENT, format_args!("hang {value}: {error}"));
            error.outcome()
        });
    }
    configuration.flush().await;
    turmoil::partition(CLIENT, SERVERS[2]);
    tell(&"server-3 is cut off");
    for _ in 0..3 {
        assert_eq!(majority_read().await?, Some(2 * CALLS));
    }
    while let Some(outcome) = hanging.join_next().await {
        assert_eq!(outcome?, Outcome::Unknown);
    }
    assert_eq!(majority_read().await?, Some(2 * CALLS));
    turmoil::repair(CLIENT, SERVERS[2]);
    configuration.connected(3).await.expect("none is closed");
    let reply = client
        .rpc::<Number, Number>(&configuration[2], READ, number(0))
        .await?;
    assert_eq!(reply.value, 2 * CALLS);
    tell(&"server-3 is back");

    // A crash, and a server that starts anew.
    let mut hanging = JoinSet::new();
    for value in 1..=CALLS {
        let call = client
            .quorum_call::<Number, Number>(HANG, number(value))
            .all();
        let trace = trace.clone();
        hanging.spawn(async move {
            let error = call.await.expect_err("one of three has crashed");
            trace.add(CLIENT, format_args!("hang {value}: {error}"));
        });
    }
    configuration.flush().await;
    tell(&"server-1 crashes");
    ask(&world, World::Crash(SERVERS[0])).await;
    while let Some(ended) = hanging.join_next().await {
        ended?;
    }
    assert_eq!(majority_read().await?, Some(2 * CALLS));
    let down = client
        .rpc::<Number, Number>(&configuration[0], READ, number(0))
        .await;
    tell(&down.expect_err("server-1 is down"));
    ask(&world, World::Bounce(SERVERS[0])).await;
    configuration.connected(3).await.expect("none is closed");
    let fresh = client
        .rpc::<Number, Number>(&configuration[0], READ, number(0))
        .await?;
    assert_eq!(fresh.value, 0, "a new server knows nothing");
    tell(&"server-1 is back");
    for value in 1..=CALLS {
        let call = client.quorum_call::<Number, Number>(WRITE, number(100 + value));
        call.all().await?;
    }
    tell(&"all wrote");

    // Deadlines pass, and the handlers hear of it.
    let mut hanging = JoinSet::new();
    for value in 1..=CALLS {
        let call = client.quorum_call::<Number, Number>(HANG, number(value));
        let call = call.timeout(Duration::from_millis(200)).all();
        let trace = trace.clone();
        hanging.spawn(async move {
            let error = call.await.expect_err("the handlers answer nobody");
            trace.add(CLIENT, format_args!("hang {value}: {error}"));
            error.kind()
        });
    }
    while let Some(kind) = hanging.join_next().await {
        assert_eq!(kind?, QuorumErrorKind::Deadline);
    }

    // Handlers of calls that nobody waits for hear that their client has gone.
    for value in 1..=CALLS {
        let refused = client.multicast(HANG, number(200 + value)).detach();
        assert!(refused.is_empty());
    }
    drop((client, configuration));
    // Longer than a closing connection lingers.
    tokio::time::sleep(Duration::from_secs(2)).await;
    tell(&"gone");
    Ok(())
}

/// Runs the whole scenario, and returns its trace.
fn run(seed: u64) -> Vec<String> {
    let trace = Trace::default();
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .epoch(SystemTime::UNIX_EPOCH)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(50))
        .simulation_duration(Duration::from_secs(120))
        .build();
    for (index, name) in SERVERS.into_iter().enumerate() {
        let trace = trace.clone();
        sim.host(name, move || {
            let server = register(name, seed + index as u64, &trace);
            async move { Ok(server.serve(&format!("0.0.0.0:{PORT}")).await?) }
        });
    }
    let world = watch::Sender::new(World::Runs);
    {
        let (trace, world) = (trace.clone(), world.clone());
        sim.client(CLIENT, client(seed + 3, trace, world));
    }
    while !sim.step().expect("nobody fails") {
        let wish = world.send_replace(World::Runs);
        match wish {
            World::Runs => {}
            World::Crash(name) => sim.crash(name),
            World::Bounce(name) => sim.bounce(name),
        }
    }
    trace.lines()
}

/// What one server's handlers saw, without the times.
fn seen<'a>(trace: &'a [String], server: &str, kinds: &[&str]) -> Vec<&'a str> {
    let who = format!(" {server}: ");
    trace
        .iter()
        .filter_map(|line| Some(line.split_once(&who)?.1))
        .filter(|what| kinds.iter().any(|kind| what.starts_with(kind)))
        .collect()
}

#[test]
fn one_seed_is_one_history() {
    let first = run(1);
    let again = run(1);
    let differs = first.iter().zip(&again).position(|(a, b)| a != b);
    if let Some(line) = differs {
        panic!("line {line}: {:?} and then {:?}", first[line], again[line]);
    }
    assert_eq!(first.len(), again.len());
    assert_ne!(first, run(2), "latencies follow from the seed");

    // The history is the one that the client's program describes.
    for server in SERVERS {
        let mut expected: Vec<_> = (1..=CALLS)
            .flat_map(|value| {
                [
                    format!("note {}", 2 * value - 1),
                    format!("write {}", 2 * value),
                ]
            })
            .collect();
        expected.extend((1..=CALLS).map(|value| format!("write {}", 100 + value)));
        assert_eq!(
            seen(&first, server, &["note", "write"]),
            expected,
            "{server}"
        );
        let cancelled = seen(&first, server, &["hang 2"]);
        let gone = (201..=200 + CALLS).filter(|value| {
            cancelled
                .iter()
                .any(|line| *line == format!("hang {value} cancelled"))
        });
        assert_eq!(
            gone.count() as u64,
            CALLS,
            "{server}: every handler hears of the end"
        );
    }
}
