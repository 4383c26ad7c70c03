//! Certificates, authorities and revocation lists that are exchanged while everything runs.
#![cfg(feature = "tls")]

#[path = "common/careless.rs"]
mod careless;
#[path = "common/certs.rs"]
mod certs;
mod common;
#[path = "common/dialled.rs"]
mod dialled;
#[path = "common/log.rs"]
mod log;
#[path = "common/memory.rs"]
mod memory;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use certs::{Authority, Identity};
use common::{Counter, Number, TestServer, echo, number, within};
use dialled::{call, not_sent};
use gorums::membership::WhileDisconnected;
use gorums::runtime::{BoxFuture, Clock, Transport};
use gorums::tls::{ClientCertificates, NodeUris, Pem, Tls, TlsBuilder, TlsError, TlsPeer};
use gorums::{
    Client, Configuration, ConfigurationBuilder, Outcome, ReplySender, Server, ServerBuilder,
    ServerCtx, Status,
};
use log::Log;
use memory::{Network, settle};
use rcgen::CrlScope;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, HandshakeKind, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tracing::Level;

const ECHO: &str = "test.Test.Echo";
/// Is answered when the test says so.
const HOLD: &str = "test.Test.Hold";
/// How long a handler takes.
const WORK: Duration = Duration::from_millis(50);
/// Within this, connections have ended that are not to last, and a second more.
const SPREAD: Duration = Duration::from_secs(6);

const SERVER: &str = "gorums::server";
const TLS: &str = "gorums::tls";

fn mutual(authority: &Authority, identity: &Identity) -> TlsBuilder {
    let (certificate, key) = identity.pems();
    Tls::builder()
        .trust(authority.pem())
        .identity(certificate, key)
        .client_certificates(ClientCertificates::Required)
}

fn dial(tls: &Tls, address: impl ToString) -> Client {
    dialled::dial(tls.clone(), address)
}

/// Waits for a line that says this.
async fn logged(log: &Log, target: &str, text: &str) -> String {
    let mut told = Vec::new();
    let limit = Instant::now() + Duration::from_secs(600);
    loop {
        told.extend(log.told(&[target]));
        if let Some(line) = told.iter().find(|line| line.contains(text)) {
            return line.clone();
        }
        assert!(Instant::now() < limit, "nobody says {text:?}: {told:#?}");
        // A while, where the clock is paused.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn lists(texts: impl IntoIterator<Item = String>) -> Vec<Pem> {
    texts.into_iter().map(Pem::value).collect()
}

/// A time of day that goes with tokio's clock, also where that is paused.
#[derive(Clone)]
struct Wall {
    began: Instant,
    at: SystemTime,
    /// Counts who has it.
    shared: Arc<()>,
}

impl Wall {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            at: SystemTime::now(),
            shared: Arc::default(),
        }
    }
}

impl fmt::Debug for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wall")
    }
}

impl Clock for Wall {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep_until(at))
    }

    fn wall_clock(&self) -> SystemTime {
        self.at + self.began.elapsed()
    }

    fn random(&self) -> u64 {
        gorums::runtime::SystemClock.random()
    }
}

// ---- three steps

/// Echoes after a while.
fn service() -> ServerBuilder {
    Server::builder().unary(ECHO, |ctx: ServerCtx, request: Number| async move {
        ctx.release();
        tokio::time::sleep(WORK).await;
        Ok::<_, Status>(request)
    })
}

/// Calls of all, one after the other, until this time; none fails.
fn keep_calling(callers: &mut JoinSet<()>, all: &Configuration, count: usize, until: Instant) {
    for _ in 0..count {
        let client = Client::new(all);
        callers.spawn(async move {
            while Instant::now() < until {
                let call = client.quorum_call::<_, Number>(ECHO, number(1));
                let replies = call.all().replies().await.expect("no call fails");
                assert_eq!(replies.len(), 3);
            }
        });
    }
}

/// Majority calls of all that may be handled twice, one after the other, until this time; none fails.
fn keep_calling_majorities(
    callers: &mut JoinSet<()>,
    all: &Configuration,
    count: usize,
    until: Instant,
) {
    for _ in 0..count {
        let client = Client::new(all);
        callers.spawn(async move {
            while Instant::now() < until {
                let call = client.quorum_call::<_, Number>(ECHO, number(1));
                let call = call.idempotent(true).timeout(Duration::from_secs(30));
                call.majority().await.expect("no call fails");
            }
        });
    }
}

/// What happens to the network meanwhile.
#[derive(Clone, Copy, PartialEq)]
enum Faults {
    None,
    /// All connections to one of the nodes break, again and again, by this seed.
    Cuts(u64),
}

/// Three nodes and a client go from one authority to another.
async fn three_steps(
    peers: impl Fn(u32, ConfigurationBuilder) -> ConfigurationBuilder,
    serving: impl Fn(ServerBuilder) -> ServerBuilder,
    faults: Faults,
) {
    let log = Log::of(Level::WARN);
    let network = Network::new();
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let address = |id: u32| format!("{}:1", ["a", "b", "localhost"][id as usize - 1]);
    let nodes = |tls: &Tls| {
        let builder = Configuration::builder()
            .transport(tls.clone())
            .node_proof(NodeUris::of("test"));
        (1..=3).fold(builder, |builder, id| builder.node(id, address(id)))
    };
    let transport = |id: u32| {
        let builder = mutual(&old, &old.node(id)).over(network.clone());
        builder.build().expect("sound")
    };
    let mut processes = Vec::new();
    for id in 1..=3 {
        let tls = transport(id);
        let configuration = peers(id, nodes(&tls)).connect().expect("legal");
        let server = serving(service())
            .peers(id, &configuration)
            .node_proof(NodeUris::of("test"))
            .transport(tls.clone());
        let server = TestServer::start_at(server, &address(id)).await;
        processes.push((id, tls, configuration, Some(server)));
    }
    // Its certificate is that of no node.
    let tls = mutual(&old, &certs::client(&old)).over(network.clone());
    let tls = tls.build().expect("sound");
    let configuration = nodes(&tls).connect().expect("legal");
    processes.push((4, tls, configuration, None));
    for (_, _, configuration, _) in &processes {
        within(configuration.connected(3))
            .await
            .expect("all are up");
    }
    let connections = || -> usize { (1..=3).map(|id| network.attempts(&address(id)).len()).sum() };
    let before = connections();

    let until = Instant::now() + 4 * SPREAD;
    let mut callers = JoinSet::new();
    for (_, _, configuration, _) in &processes {
        match faults {
            Faults::None => keep_calling(&mut callers, configuration, 25, until),
            Faults::Cuts(_) => keep_calling_majorities(&mut callers, configuration, 25, until),
        }
    }
    if let Faults::Cuts(seed) = faults {
        let (network, mut random) = (network.clone(), fastrand::Rng::with_seed(seed));
        let addresses = [1, 2, 3].map(address);
        callers.spawn(async move {
            while Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(random.u64(50..250))).await;
                network.cut(&addresses[random.usize(..3)]);
            }
        });
    }
    // Each process takes its time.
    let pause = || tokio::time::sleep(Duration::from_millis(300));
    for (_, tls, ..) in &processes {
        pause().await;
        let both = [old.pem(), new.pem()];
        assert!(tls.exchange().trust(both).apply().expect("sound"));
    }
    for (id, tls, ..) in &processes {
        pause().await;
        let identity = match id {
            4 => certs::client(&new),
            id => new.node(*id),
        };
        let (certificate, key) = identity.pems();
        let exchanged = tls.exchange().identity(certificate, key).apply();
        assert!(exchanged.expect("sound"));
    }
    for (_, tls, ..) in &processes {
        pause().await;
        assert!(tls.exchange().trust([new.pem()]).apply().expect("sound"));
    }
    while let Some(caller) = callers.join_next().await {
        caller.expect("no call fails");
    }
    // Nobody is connected by an old certificate any more.
    assert!(connections() >= 2 * before, "{before} {}", connections());
    let careless = mutual(&new, &old.node(1)).over(network.clone());
    let careless = dial(&careless.build().expect("its own are sound"), address(1));
    let reason = not_sent(&careless).await;
    assert!(reason.contains("UnknownCA"), "{reason}");
    let told = log.told(&[SERVER]);
    let (failed, other): (Vec<_>, Vec<_>) = told
        .into_iter()
        .partition(|line| line.contains("a handshake failed"));
    assert!(
        !failed.is_empty() && other.is_empty(),
        "{failed:?} {other:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn three_steps_lead_from_one_authority_to_another_and_no_call_fails() {
    three_steps(|_, builder| builder, |server| server, Faults::None).await;
}

#[tokio::test(start_paused = true)]
async fn they_do_where_connections_end_at_an_age() {
    let age = Duration::from_secs(1);
    let serving = move |server: ServerBuilder| server.max_connection_age(age);
    three_steps(|_, builder| builder, serving, Faults::None).await;
}

#[tokio::test(start_paused = true)]
async fn they_do_where_peers_share_a_connection() {
    let pairs = |id, builder: ConfigurationBuilder| {
        builder.one_stream_per_pair(id, WhileDisconnected::Wait)
    };
    three_steps(pairs, |server| server, Faults::None).await;
}

#[tokio::test(start_paused = true)]
async fn they_do_while_connections_break() {
    for seed in 0..3 {
        let cuts = Faults::Cuts(seed);
        three_steps(|_, builder| builder, |server| server, cuts).await;
    }
}

// ---- revocation

#[tokio::test]
async fn who_is_revoked_is_refused_by_either_end_and_has_been_sent_nothing() {
    let log = Log::of(Level::DEBUG);
    let authority = Authority::new("ours");
    let (one, two, three) = (authority.node(1), authority.node(2), authority.node(3));
    let list = || Pem::value(authority.revoked(&[&two], 0));
    let tls = mutual(&authority, &one).revocation(list());
    let tls = tls.build().expect("sound");
    let server = TestServer::start(echo().transport(tls.clone())).await;
    let revoked = mutual(&authority, &two).build().expect("sound");
    let reason = not_sent(&dial(&revoked, server.addr)).await;
    assert!(
        reason.contains("CertificateRevoked") && reason.contains("have another one made"),
        "{reason}"
    );
    let line = logged(&log, SERVER, "a handshake failed").await;
    assert!(
        line.starts_with("WARN server: a handshake failed peer=127.0.0.1:")
            && line.contains("Revoked"),
        "{line}"
    );
    let other = mutual(&authority, &three).build().expect("sound");
    call(&dial(&other, server.addr)).await.expect("not revoked");
    // The other way round.
    let server = TestServer::start(echo().transport(revoked)).await;
    let reason = not_sent(&dial(&tls, server.addr)).await;
    assert!(
        reason.contains("Revoked") && reason.contains("TlsBuilder::revocation"),
        "{reason}"
    );
    logged(&log, SERVER, "CertificateRevoked").await;
    call(&dial(&other, server.addr))
        .await
        .expect("it has no list");
}

#[tokio::test(start_paused = true)]
async fn the_connection_of_a_client_that_is_revoked_ends_and_its_call_is_answered() {
    let log = Log::of(Level::INFO);
    let network = Network::new();
    let authority = Authority::new("ours");
    let gate = Arc::new(Semaphore::new(0));
    let started = Counter::new();
    let (held, begun) = (Arc::clone(&gate), started.clone());
    let tls = mutual(&authority, &authority.node(1)).over(network.clone());
    let tls = tls.build().expect("sound");
    let server = service()
        .unary(HOLD, move |ctx: ServerCtx, request: Number| {
            let (gate, started) = (Arc::clone(&held), begun.clone());
            async move {
                ctx.release();
                assert!(ctx.proven::<TlsPeer>().is_some());
                started.add();
                gate.acquire().await.expect("open").forget();
                Ok::<_, Status>(request)
            }
        })
        .transport(tls.clone());
    let _server = TestServer::start_at(server, "a:1").await;
    let (two, three) = (authority.node(2), authority.node(3));
    let connect = |identity: &Identity| {
        let tls = mutual(&authority, identity).over(network.clone());
        dial(&tls.build().expect("sound"), "a:1")
    };
    let (bad, good) = (connect(&two), connect(&three));
    let in_flight = bad.rpc::<_, Number>(&bad.configuration()[0], HOLD, number(1));
    let in_flight = in_flight.send();
    call(&good).await.expect("it is up");
    started.reached(1).await;
    let list = authority.revoked(&[&two], 0);
    let exchanged = tls.exchange().revocation(lists([list])).apply();
    assert!(exchanged.expect("sound"));
    let line = logged(&log, TLS, "certificates were exchanged").await;
    assert!(
        line.starts_with("INFO tls: certificates were exchanged")
            && line.contains("revoked=1 revoked_before=0"),
        "{line}"
    );
    tokio::time::sleep(SPREAD).await;
    let reason = not_sent(&bad).await;
    assert!(reason.contains("CertificateRevoked"), "{reason}");
    call(&good).await.expect("it is not revoked");
    gate.add_permits(1);
    within(in_flight).await.expect("it was taken before");
    logged(&log, SERVER, "what was proven of the client holds no more").await;
    let node = &good.configuration()[0];
    assert!(node.last_error().is_none(), "its connection has lasted");
}

#[tokio::test(start_paused = true)]
async fn a_client_leaves_a_node_that_is_revoked_and_its_call_is_answered() {
    let log = Log::of(Level::INFO);
    let network = Network::new();
    let authority = Authority::new("ours");
    let (gate, started) = (Arc::new(Semaphore::new(0)), Counter::new());
    let (held, begun) = (Arc::clone(&gate), started.clone());
    let one = authority.node(1);
    let server = service()
        .streaming(
            HOLD,
            move |ctx: ServerCtx, request: Number, replies: ReplySender<Number>| {
                let (gate, started) = (Arc::clone(&held), begun.clone());
                async move {
                    ctx.release();
                    started.add();
                    gate.acquire().await.expect("open").forget();
                    for value in 0..request.value {
                        // So large that the caller has to give credit again and again.
                        let payload = vec![0; 40_000].into();
                        replies.send(Number { value, payload }).await?;
                    }
                    Ok::<_, Status>(())
                }
            },
        )
        .transport(
            mutual(&authority, &one)
                .over(network.clone())
                .build()
                .expect("sound"),
        );
    let _server = TestServer::start_at(server, "a:1").await;
    let tls = mutual(&authority, &authority.node(2)).over(network.clone());
    let tls = tls.build().expect("sound");
    let client = dial(&tls, "a:1");
    call(&client).await.expect("it is up");
    let in_flight = client.streamed_quorum_call::<_, Number>(HOLD, number(100));
    let mut replies = in_flight.responses();
    started.reached(1).await;
    let list = authority.revoked(&[&one], 0);
    let exchanged = tls.exchange().revocation(lists([list])).apply();
    assert!(exchanged.expect("sound"));
    let line = logged(&log, "gorums::client", "holds no more").await;
    assert!(
        line.starts_with("INFO client: connecting anew: what was proven of the node holds no more"),
        "{line}"
    );
    let reason = not_sent(&client).await;
    assert!(reason.contains("Revoked"), "{reason}");
    gate.add_permits(1);
    let mut count = 0;
    while let Some(reply) = within(replies.next()).await {
        reply.into_result().expect("it was written before");
        count += 1;
    }
    assert_eq!(count, 100);
    logged(&log, SERVER, "the client ended the stream").await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_revoked_calls_its_client_for_a_minute_at_the_most() {
    let log = Log::of(Level::INFO);
    let network = Network::new();
    let authority = Authority::new("ours");
    let one = authority.node(1);
    let tls = mutual(&authority, &one).over(network.clone());
    let server = service().transport(tls.build().expect("sound"));
    let server = server.bind("a:1").await.expect("the network is there");
    let clients = server.clients();
    let serving = tokio::spawn(server.serve());
    let tls = mutual(&authority, &authority.node(2)).over(network.clone());
    let tls = tls.build().expect("sound");
    let configuration = Configuration::builder()
        .transport(tls.clone())
        .nodes(["a:1"])
        .serve(
            service().unary(HOLD, |ctx: ServerCtx, request: Number| async move {
                ctx.release();
                ctx.cancelled().await;
                Ok::<_, Status>(request)
            }),
        );
    let client = Client::new(configuration.connect().expect("legal"));
    call(&client).await.expect("it is up");
    let back = Client::new(clients.config());
    call(&back).await.expect("it is called back");
    let held = back.rpc::<_, Number>(&back.configuration()[0], HOLD, number(1));
    let held = held.send();
    let list = authority.revoked(&[&one], 0);
    let exchanged = tls.exchange().revocation(lists([list])).apply();
    assert!(exchanged.expect("sound"));
    let began = Instant::now();
    tokio::time::sleep(Duration::from_secs(55)).await;
    call(&back).await.expect("it has its time");
    let error = held.await.expect_err("it had its time");
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    let took = began.elapsed().as_secs_f64();
    assert!((60.0..=66.0).contains(&took), "{took} s");
    let line = logged(
        &log,
        "gorums::client",
        "what was proven of the node holds no more",
    )
    .await;
    assert!(line.starts_with("INFO client: lost "), "{line}");
    let reason = not_sent(&client).await;
    assert!(reason.contains("Revoked"), "{reason}");
    serving.abort();
}

#[tokio::test]
async fn of_several_lists_of_an_authority_the_newest_counts_and_another_has_none() {
    let (authority, other) = (Authority::new("ours"), Authority::new("theirs"));
    let (one, two) = (authority.node(1), authority.node(2));
    for (older, newer, is_refused) in [(vec![], vec![&two], true), (vec![&two], vec![], false)] {
        let older = authority.revoked(&older, 1);
        let newer = authority.revoked(&newer, 0);
        for texts in [[&older, &newer], [&newer, &older]] {
            let together = Pem::value(format!("{}{}", texts[0], texts[1]));
            let tls = mutual(&authority, &one)
                .trust(other.pem())
                .revocation(together);
            let tls = tls.build().expect("sound");
            let server = TestServer::start(echo().transport(tls)).await;
            let client = mutual(&authority, &two).build().expect("sound");
            let reply = call(&dial(&client, server.addr)).await;
            assert_eq!(reply.is_err(), is_refused, "{reply:?}");
            let (certificate, key) = other.node(3).pems();
            let client = Tls::builder().trust(authority.pem());
            let client = client.identity(certificate, key).build().expect("sound");
            let reply = call(&dial(&client, server.addr)).await;
            reply.expect("its authority has no list");
        }
    }
}

#[tokio::test]
async fn a_list_that_is_out_of_date_is_used_and_that_is_told() {
    let log = Log::of(Level::WARN);
    let authority = Authority::new("ours");
    let (one, two, three) = (authority.node(1), authority.node(2), authority.node(3));
    let list = Pem::value(authority.revoked(&[&two], 10));
    let tls = mutual(&authority, &one).revocation(list);
    let tls = tls.build().expect("it is used");
    let line = logged(&log, TLS, "out of date").await;
    assert!(
        line.starts_with("WARN tls: a revocation list is out of date, and stays in use")
            && line.contains("place=the PEM value authority=CN=ours since="),
        "{line}"
    );
    let server = TestServer::start(echo().transport(tls)).await;
    let client = |identity| mutual(&authority, identity).build().expect("sound");
    not_sent(&dial(&client(&two), server.addr)).await;
    call(&dial(&client(&three), server.addr))
        .await
        .expect("a cluster does not end because a list is late");
}

#[test]
fn a_bad_list_is_told_with_the_file_and_what_to_do() {
    let folder = Folder::new("lists");
    let authority = Authority::new("ours");
    let (_, double) = (Authority::new("theirs"), Authority::new("ours"));
    let good = authority.revoked(&[], 0);
    let nonsense = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    let cut = good.replace("-----END", "-----AND");
    let large = "x".repeat((1 << 20) + 1);
    for (name, text, what, advice) in [
        ("empty.pem", "", "no revocation list in", "BEGIN X509 CRL"),
        (
            "ca.pem",
            authority.text(),
            "no revocation list in",
            "BEGIN X509 CRL",
        ),
        (
            "nonsense.pem",
            nonsense,
            "cannot use a revocation list in",
            "anew",
        ),
        ("cut.pem", &cut, "is not PEM", "END line"),
        (
            "double.pem",
            &double.revoked(&[], 0),
            "its signature is not that of the authority",
            "CN=ours",
        ),
        (
            "partial.pem",
            &authority.revoked_for("http://localhost/list", None),
            "issuing distribution point (the extension 2.5.29.28)",
            "leave that out",
        ),
        (
            "users.pem",
            &authority.revoked_for("http://localhost/list", Some(CrlScope::UserCertsOnly)),
            "issuing distribution point (the extension 2.5.29.28)",
            "as a whole X.509 CRL",
        ),
        (
            "large.pem",
            &large,
            "cannot read the revocation lists",
            "1 MiB",
        ),
    ] {
        let list = folder.write(name, text);
        let built = Tls::builder().trust(authority.pem()).revocation(list);
        let error = built.build().expect_err(what).to_string();
        for part in [what, name, advice] {
            assert!(error.contains(part), "{error:?} has no {part:?}");
        }
    }
    // Nobody could tell whose it is.
    let built = Tls::builder()
        .trust(authority.pem())
        .trust(double.pem())
        .revocation(Pem::value(good.clone()));
    let error = built.build().expect_err("they have one name").to_string();
    assert!(error.contains("2 authorities are trusted that have the name CN=ours"));
    assert!(error.contains("names of their own"), "{error}");
    let missing = Pem::file(folder.0.join("none.pem"));
    let built = Tls::builder().trust(authority.pem()).revocation(missing);
    let error = built.build().expect_err("it is not there").to_string();
    assert!(error.contains("none.pem") && error.contains("check the path"));
    let (certificate, key) = authority.node(1).pems();
    let built = Tls::builder()
        .identity(certificate, key)
        .revocation(Pem::value(good));
    let error = built.build().expect_err("nobody is trusted");
    assert!(matches!(error, TlsError::RevocationWithoutRoots), "{error}");
    assert!(error.to_string().contains("TlsBuilder::trust"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_has_expired_does_not_keep_lists_and_authorities_from_being_exchanged() {
    let log = Log::of(Level::INFO);
    let folder = Folder::new("expired");
    let network = Network::new();
    let (authority, other) = (Authority::new("ours"), Authority::new("theirs"));
    let wall = Wall::new();
    let end = wall.wall_clock() + Duration::from_secs(100);
    let own = authority.issue(1, |params| params.not_after = end.into());
    let (two, three) = (authority.node(2), authority.node(3));
    let (certificate, key) = folder.identity(&own);
    let both = format!("{}{}", authority.text(), other.text());
    let tls = Tls::builder()
        .trust(folder.write("ca.pem", &both))
        .identity(certificate, key)
        .client_certificates(ClientCertificates::Required)
        .revocation(folder.write("revoked.pem", &authority.revoked(&[&two], 0)))
        .reload_every(Duration::from_secs(600))
        .clock(wall.clone())
        .over(network.clone());
    let tls = tls.build().expect("it is valid yet");
    let server = TestServer::start_at(service().transport(tls.clone()), "a:1").await;
    // Whoever looks away from the time takes it: it is what the server does with lists that counts.
    let before = SystemTime::now();
    let shown_to = |identity: &Identity| {
        let client = mutual(&authority, identity).over(network.clone());
        let client = client.clock(Wall {
            at: before,
            began: Instant::now(),
            ..wall.clone()
        });
        dial(&client.build().expect("sound"), "a:1")
    };
    call(&shown_to(&three)).await.expect("it is not revoked");
    tokio::time::sleep(Duration::from_secs(200)).await;
    // By hand.
    folder.write("revoked.pem", &authority.revoked(&[&two, &three], 0));
    assert!(tls.reload().expect("the list is taken over"));
    let line = logged(&log, TLS, "the certificate of this process has expired").await;
    assert!(line.starts_with("WARN tls: "), "{line}");
    let reason = not_sent(&shown_to(&three)).await;
    assert!(reason.contains("revoked"), "{reason}");
    // By those who look, here after an hour, in which that is told again.
    folder.write("ca.pem", authority.text());
    let line = logged(&log, TLS, "authorities=1 authorities_before=2").await;
    assert!(line.contains("certificates were exchanged"), "{line}");
    // Another one that has expired is none to take over.
    let (certificate, key) = authority.issue(1, certs::expired).pems();
    let error = tls.exchange().identity(certificate, key).apply();
    let error = error.expect_err("nobody would take it");
    assert!(matches!(error, TlsError::Expired { .. }), "{error}");
    drop(server);
}

// ---- sessions

/// What rustls itself does, which shows how handshakes are made.
fn by_hand(authority: &Authority, identity: &Identity) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    (
        careless::client(authority, Some(identity)),
        careless::server(identity),
    )
}

#[tokio::test]
async fn a_server_resumes_no_session_that_was_made_before_an_exchange() {
    let authority = Authority::new("ours");
    let (two, three) = (authority.node(2), authority.node(3));
    let tls = mutual(&authority, &authority.node(1));
    let tls = tls.build().expect("sound");
    let server = TestServer::start(echo().transport(tls.clone())).await;
    let (config, _) = by_hand(&authority, &two);
    let connect = || async {
        let stream = TcpStream::connect(server.addr).await.expect("it listens");
        let name = ServerName::try_from("localhost").expect("a name");
        let connector = TlsConnector::from(Arc::clone(&config));
        let mut stream = within(connector.connect(name, stream))
            .await
            .expect("sound");
        // The ticket comes with what the server says first.
        let said = within(stream.read_u8()).await;
        said.map(|_| stream.get_ref().1.handshake_kind())
    };
    let made = |kind: std::io::Result<Option<HandshakeKind>>| kind.expect("it is taken");
    assert_eq!(made(connect().await), Some(HandshakeKind::Full));
    assert_eq!(made(connect().await), Some(HandshakeKind::Resumed));
    assert!(!tls.reload().expect("sound"), "nothing has changed");
    assert_eq!(made(connect().await), Some(HandshakeKind::Resumed));
    let revoke = |identity: &Identity| {
        let list = authority.revoked(&[identity], 0);
        let exchanged = tls.exchange().revocation(lists([list])).apply();
        assert!(exchanged.expect("sound"));
    };
    revoke(&three);
    assert_eq!(made(connect().await), Some(HandshakeKind::Full));
    assert_eq!(made(connect().await), Some(HandshakeKind::Resumed));
    revoke(&two);
    let error = connect().await.expect_err("it is revoked").to_string();
    assert!(error.contains("CertificateRevoked"), "{error}");
}

#[tokio::test]
async fn a_client_resumes_no_session_that_was_made_before_an_exchange() {
    let authority = Authority::new("ours");
    let one = authority.node(1);
    let (_, config) = by_hand(&authority, &one);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it has one").to_string();
    let tls = Tls::builder().trust(authority.pem()).build();
    let tls = tls.expect("sound");
    let connect = || async {
        let (theirs, ours) = tokio::join!(listener.accept(), tls.connect(&address));
        let accepting = TlsAcceptor::from(Arc::clone(&config));
        let accepting = accepting.accept(theirs.expect("one comes").0);
        let mut ours = ours.expect("it listens");
        let reading = async move {
            // The ticket is before it.
            ours.read_u8().await
        };
        let (accepted, read) = tokio::join!(
            async {
                let mut stream = accepting.await?;
                tokio::io::AsyncWriteExt::write_u8(&mut stream, 1).await?;
                tokio::io::AsyncWriteExt::flush(&mut stream).await?;
                Ok::<_, std::io::Error>(stream.get_ref().1.handshake_kind())
            },
            reading
        );
        read.map(|_| accepted.expect("it was read"))
    };
    let made = |kind: std::io::Result<Option<HandshakeKind>>| kind.expect("it is taken");
    assert_eq!(made(connect().await), Some(HandshakeKind::Full));
    assert_eq!(made(connect().await), Some(HandshakeKind::Resumed));
    let revoke = |identity: &Identity| {
        let list = authority.revoked(&[identity], 0);
        let exchanged = tls.exchange().revocation(lists([list])).apply();
        assert!(exchanged.expect("sound"));
    };
    revoke(&authority.node(2));
    assert_eq!(made(connect().await), Some(HandshakeKind::Full));
    revoke(&one);
    let error = connect().await.expect_err("it is revoked").to_string();
    assert!(error.contains("Revoked"), "{error}");
}

// ---- expiry

#[tokio::test(start_paused = true)]
async fn a_connection_ends_with_the_certificate_of_its_client_and_a_renewed_one_is_taken() {
    let log = Log::of(Level::INFO);
    let network = Network::new();
    let authority = Authority::new("ours");
    let wall = Wall::new();
    let end = wall.wall_clock() + Duration::from_secs(100);
    let until_then = || authority.issue(2, |params| params.not_after = end.into());
    let on_network = |identity: &Identity| {
        let builder = mutual(&authority, identity).over(network.clone());
        builder.clock(wall.clone()).build().expect("sound")
    };
    let server = service().transport(on_network(&authority.node(1)));
    let _server = TestServer::start_at(server, "a:1").await;
    let (careless, careful) = (on_network(&until_then()), on_network(&until_then()));
    let (late, renewed) = (dial(&careless, "a:1"), dial(&careful, "a:1"));
    call(&late).await.expect("it is valid");
    let mut callers = JoinSet::new();
    let until = Instant::now() + Duration::from_secs(110);
    let (client, all) = (renewed.clone(), renewed.configuration().clone());
    callers.spawn(async move {
        while Instant::now() < until {
            let call = client.rpc::<_, Number>(&all[0], ECHO, number(1));
            call.await.expect("no call fails");
        }
    });
    tokio::time::sleep(Duration::from_secs(95)).await;
    call(&late).await.expect("it is valid");
    let (certificate, key) = authority.node(2).pems();
    let exchanged = careful.exchange().identity(certificate, key).apply();
    assert!(exchanged.expect("sound"));
    tokio::time::sleep(Duration::from_secs(5) + SPREAD).await;
    // It may have resumed a session, which is refused without an alert.
    not_sent(&late).await;
    within(callers.join_next())
        .await
        .expect("it calls")
        .expect("no call fails");
    logged(&log, SERVER, "what was proven of the client holds no more").await;
    call(&renewed).await.expect("it has another one");
    // Who has no connection to lose is refused all the same: its own is not looked at again.
    assert!(!careless.reload().expect("as before"));
}

/// A certificate behind that of a node which nobody needs to get to an authority, as a root that
/// another authority has signed.
fn with_spare(authority: &Authority, spare: &Identity) -> Identity {
    let mut identity = authority.node(2);
    identity.certificate.push_str(&spare.certificate);
    identity
}

#[tokio::test]
async fn a_session_is_resumed_where_a_certificate_has_expired_that_nobody_needs() {
    let authority = Authority::new("ours");
    let spare = Authority::new("theirs").issue(9, certs::expired);
    let identity = with_spare(&authority, &spare);
    // The client shows it.
    let tls = mutual(&authority, &authority.node(1)).build();
    let server = TestServer::start(echo().transport(tls.expect("sound"))).await;
    let (config, theirs) = by_hand(&authority, &identity);
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let io = TcpStream::connect(server.addr).await.expect("it listens");
        let name = ServerName::try_from("localhost").expect("a name");
        let connector = TlsConnector::from(Arc::clone(&config));
        let mut stream = connector.connect(name, io).await.expect("it is taken");
        // The ticket comes with what the server says first.
        within(stream.read_u8()).await.expect("its settings");
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind));
    }
    // The server does.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it has one").to_string();
    let tls = Tls::builder().trust(authority.pem()).build();
    let tls = tls.expect("sound");
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let (io, ours) = tokio::join!(listener.accept(), tls.connect(&address));
        let mut ours = ours.expect("it listens");
        let acceptor = TlsAcceptor::from(Arc::clone(&theirs));
        let accepting = async {
            let mut stream = acceptor.accept(io.expect("one comes").0).await?;
            tokio::io::AsyncWriteExt::write_u8(&mut stream, 1).await?;
            tokio::io::AsyncWriteExt::flush(&mut stream).await?;
            Ok::<_, std::io::Error>(stream)
        };
        let (stream, read) = within(async { tokio::join!(accepting, ours.read_u8()) }).await;
        read.expect("it is taken");
        let stream = stream.expect("it is taken");
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind));
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_outlasts_a_certificate_that_nobody_needs() {
    let log = Log::of(Level::INFO);
    let network = Network::new();
    let authority = Authority::new("ours");
    let wall = Wall::new();
    let in_seconds = |seconds| wall.wall_clock() + Duration::from_secs(seconds);
    let (soon, later) = (in_seconds(100), in_seconds(200));
    let spare = Authority::new("theirs").issue(9, |params| params.not_after = soon.into());
    let mut identity = authority.issue(2, |params| params.not_after = later.into());
    identity.certificate.push_str(&spare.certificate);
    let on_network = |identity: &Identity| {
        let builder = mutual(&authority, identity).over(network.clone());
        builder.clock(wall.clone()).build().expect("sound")
    };
    let server = service().transport(on_network(&authority.node(1)));
    let _server = TestServer::start_at(server, "a:1").await;
    let client = dial(&on_network(&identity), "a:1");
    call(&client).await.expect("it is valid");
    tokio::time::sleep(Duration::from_secs(150)).await;
    call(&client).await.expect("its own is valid");
    assert!(
        log.told(&[SERVER])
            .iter()
            .all(|line| !line.contains("holds no more"))
    );
    tokio::time::sleep(Duration::from_secs(50) + SPREAD).await;
    logged(&log, SERVER, "what was proven of the client holds no more").await;
    not_sent(&client).await;
}

// ---- files

/// A folder for files, which is removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("gorums-rotation-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a folder for temporary files");
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> Pem {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("there is room");
        Pem::file(path)
    }

    fn identity(&self, identity: &Identity) -> (Pem, Pem) {
        (
            self.write("node.pem", &identity.certificate),
            self.write("node.key", &identity.key),
        )
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The serial number of the certificate that a server shows.
async fn shown(network: &Network, authority: &Authority, address: &str) -> String {
    let (config, _) = by_hand(authority, &authority.node(9));
    let io = network.connect(address).await.expect("it listens");
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = within(TlsConnector::from(config).connect(name, io)).await;
    let stream = stream.expect("it is taken");
    let shown = stream
        .get_ref()
        .1
        .peer_certificates()
        .expect("it shows one");
    shown[0].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn der(identity: &Identity) -> String {
    let der = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).expect("PEM");
    der.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(start_paused = true)]
async fn files_are_read_again_when_asked_and_what_is_bad_changes_nothing() {
    let log = Log::of(Level::DEBUG);
    let folder = Folder::new("reload");
    let network = Network::new();
    let authority = Authority::new("ours");
    let (first, second) = (authority.node(1), authority.node(1));
    let (certificate, key) = folder.identity(&first);
    let tls = Tls::builder()
        .trust(folder.write("ca.pem", authority.text()))
        .identity(certificate, key)
        .over(network.clone());
    let tls = tls.build().expect("sound");
    let server = service().transport(tls.clone());
    let _server = TestServer::start_at(server, "a:1").await;
    let client = dial(&tls, "a:1");
    call(&client).await.expect("it is up");
    assert!(!tls.reload().expect("sound"));
    // The key is that of the one before.
    folder.write("node.pem", &second.certificate);
    let error = tls.reload().expect_err("they do not match").to_string();
    assert!(
        error.contains("node.key") && error.contains("made together"),
        "{error}"
    );
    // All or nothing: authorities would be good.
    folder.write(
        "ca.pem",
        &format!("{}{}", authority.text(), Authority::new("other").text()),
    );
    tls.reload().expect_err("they still do not");
    assert_eq!(shown(&network, &authority, "a:1").await, der(&first));
    call(&client).await.expect("nothing has happened");
    assert!(log.told(&[TLS]).is_empty(), "it was told to who has asked");
    folder.write("node.key", &second.key);
    assert!(tls.clone().reload().expect("sound"));
    assert_eq!(shown(&network, &authority, "a:1").await, der(&second));
    let line = logged(&log, TLS, "certificates were exchanged").await;
    let serials = [&second, &first].map(|identity| format!("{:02x}", identity.serial));
    assert!(
        line.contains(&format!(
            "identity=CN=rcgen self signed cert, serial {}",
            serials[0]
        )) && line.contains(&format!(
            "identity_before=CN=rcgen self signed cert, serial {}",
            serials[1]
        )) && line.contains("authorities=2 authorities_before=1"),
        "{line}"
    );
    std::fs::remove_file(folder.0.join("node.key")).expect("it is there");
    let error = tls.reload().expect_err("it is missing").to_string();
    assert!(
        error.contains("node.key") && error.contains("check the path"),
        "{error}"
    );
    assert_eq!(shown(&network, &authority, "a:1").await, der(&second));
    // Values in the place of files: what is not named is read again, here a file that is missing.
    let exchanged = tls.exchange().trust([authority.pem()]).apply();
    exchanged.expect_err("the key is still missing");
    let (certificate, key) = first.pems();
    let exchange = tls.exchange().identity(certificate, key);
    assert!(exchange.trust([authority.pem()]).apply().expect("sound"));
    assert_eq!(shown(&network, &authority, "a:1").await, der(&first));
    assert!(
        tls.exchange()
            .trust([])
            .apply()
            .expect("it may serve alone")
    );
    let error = dial_error(&tls);
    assert!(error.contains("TlsBuilder::trust"), "{error}");
}

fn dial_error(tls: &Tls) -> String {
    let connected = Configuration::builder()
        .transport(tls.clone())
        .nodes(["a:1"])
        .connect();
    connected.expect_err("nobody is trusted").to_string()
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn a_link_that_is_swapped_is_noticed() {
    let log = Log::of(Level::INFO);
    let folder = Folder::new("links");
    let network = Network::new();
    let authority = Authority::new("ours");
    let (first, second) = (authority.node(1), authority.node(1));
    // As Kubernetes mounts what may change: the files lead to a folder that is exchanged.
    let link = |to: &str, name: &str| {
        std::os::unix::fs::symlink(to, folder.0.join(name)).expect("there is none");
    };
    for (version, identity) in [("v1", &first), ("v2", &second)] {
        std::fs::create_dir(folder.0.join(version)).expect("there is none");
        folder.write(&format!("{version}/node.pem"), &identity.certificate);
        folder.write(&format!("{version}/node.key"), &identity.key);
        folder.write(&format!("{version}/ca.pem"), authority.text());
    }
    link("v1", "data");
    for file in ["node.pem", "node.key", "ca.pem"] {
        link(&format!("data/{file}"), file);
    }
    let file = |name: &str| Pem::file(folder.0.join(name));
    let tls = Tls::builder()
        .trust(file("ca.pem"))
        .identity(file("node.pem"), file("node.key"))
        .watch_files()
        .over(network.clone());
    let server = service().transport(tls.build().expect("sound"));
    let _server = TestServer::start_at(server, "a:1").await;
    assert_eq!(shown(&network, &authority, "a:1").await, der(&first));
    link("v2", "data.new");
    std::fs::rename(folder.0.join("data.new"), folder.0.join("data")).expect("they are there");
    let began = Instant::now();
    logged(&log, TLS, "certificates were exchanged").await;
    let took = began.elapsed();
    assert!(took < Duration::from_millis(11_500), "{took:?}");
    assert_eq!(shown(&network, &authority, "a:1").await, der(&second));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_half_written_is_waited_for_and_a_bad_one_is_told() {
    let log = Log::of(Level::INFO);
    let folder = Folder::new("broken");
    let network = Network::new();
    let authority = Authority::new("ours");
    let (first, second) = (authority.node(1), authority.node(1));
    let (certificate, key) = folder.identity(&first);
    let tls = Tls::builder()
        .identity(certificate, key)
        .reload_every(Duration::from_secs(60))
        .over(network.clone());
    let server = service().transport(tls.build().expect("sound"));
    let _server = TestServer::start_at(server, "a:1").await;
    // The first look is after a minute, and the next one a second later.
    let (half, _) = second.certificate.split_at(second.certificate.len() / 2);
    folder.write("node.pem", half);
    tokio::time::sleep(Duration::from_millis(60_500)).await;
    folder.write("node.pem", &second.certificate);
    tokio::time::sleep(Duration::from_millis(1000)).await;
    folder.write("node.key", &second.key);
    let line = logged(&log, TLS, "").await;
    assert!(line.contains("certificates were exchanged"), "{line}");
    assert_eq!(shown(&network, &authority, "a:1").await, der(&second));

    folder.write("node.pem", half);
    let line = logged(&log, TLS, "").await;
    assert!(
        line.starts_with(
            "WARN tls: certificates were not exchanged: those before stay in use error="
        ) && line.contains("node.pem is not PEM")
            && line.contains(&format!(
                "in_use=CN=rcgen self signed cert, serial {:02x}",
                second.serial
            )),
        "{line}"
    );
    // It is tried again each time, and told again every hour.
    tokio::time::sleep(Duration::from_secs(3 * 3600 + 1800)).await;
    assert_eq!(log.told(&[TLS]).len(), 3);
    assert_eq!(shown(&network, &authority, "a:1").await, der(&second));
    folder.write("node.pem", &first.certificate);
    folder.write("node.key", &first.key);
    let line = logged(&log, TLS, "were exchanged").await;
    assert!(line.starts_with("INFO"), "{line}");
    assert_eq!(shown(&network, &authority, "a:1").await, der(&first));
}

#[tokio::test(start_paused = true)]
async fn watching_tells_of_lists_that_are_out_of_date_and_of_a_certificate_that_has_expired() {
    let log = Log::of(Level::INFO);
    let authority = Authority::new("ours");
    let wall = Wall::new();
    let end = wall.wall_clock() + Duration::from_secs(36 * 3600);
    let identity = authority.issue(1, |params| params.not_after = end.into());
    let tls = mutual(&authority, &identity)
        .revocation(Pem::value(authority.revoked(&[], 0)))
        .reload_every(Duration::from_secs(600))
        .clock(wall.clone());
    let tls = tls.build().expect("sound");
    tokio::time::sleep(Duration::from_secs(23 * 3600)).await;
    assert!(log.told(&[TLS]).is_empty());
    tokio::time::sleep(Duration::from_secs(4 * 3600)).await;
    let told = log.told(&[TLS]);
    assert!((3..=4).contains(&told.len()), "{told:?}");
    assert!(told.iter().all(|line| line.contains("is out of date")));
    tokio::time::sleep(Duration::from_secs(12 * 3600)).await;
    let told = log.told(&[TLS]);
    let line = told.iter().find(|line| line.contains("has expired"));
    assert!(line.expect("it has").starts_with("WARN tls: "), "{told:?}");
    drop(tls);
}

/// A time of day that cannot be told meanwhile.
#[derive(Clone)]
struct Broken {
    wall: Wall,
    is_broken: Arc<AtomicBool>,
}

impl fmt::Debug for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Broken")
    }
}

impl Clock for Broken {
    fn now(&self) -> Instant {
        self.wall.now()
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        self.wall.sleep_until(at)
    }

    fn wall_clock(&self) -> SystemTime {
        assert!(
            !self.is_broken.load(Ordering::Relaxed),
            "the clock is broken"
        );
        self.wall.wall_clock()
    }

    fn random(&self) -> u64 {
        self.wall.random()
    }
}

#[tokio::test(start_paused = true)]
async fn watching_goes_on_after_a_look_that_panics_and_that_is_told() {
    let log = Log::of(Level::INFO);
    let folder = Folder::new("panic");
    let network = Network::new();
    let authority = Authority::new("ours");
    let (certificate, key) = folder.identity(&authority.node(1));
    let is_broken = Arc::new(AtomicBool::new(false));
    let clock = Broken {
        wall: Wall::new(),
        is_broken: Arc::clone(&is_broken),
    };
    let tls = Tls::builder()
        .identity(certificate, key)
        .watch_files()
        .clock(clock)
        .over(network.clone());
    let server = service().transport(tls.build().expect("sound"));
    let _server = TestServer::start_at(server, "a:1").await;
    // The first look is over, and what is to be told every hour has been.
    tokio::time::sleep(Duration::from_secs(15)).await;
    let second = authority.node(1);
    folder.identity(&second);
    is_broken.store(true, Ordering::Relaxed);
    let line = logged(&log, TLS, "a look at certificates has panicked").await;
    assert!(line.starts_with("ERROR tls: "), "{line}");
    is_broken.store(false, Ordering::Relaxed);
    logged(&log, TLS, "certificates were exchanged").await;
    assert_eq!(shown(&network, &authority, "a:1").await, der(&second));
}

#[tokio::test(start_paused = true)]
async fn watching_ends_with_the_last_clone() {
    let authority = Authority::new("ours");
    let wall = Wall::new();
    let held = || Arc::strong_count(&wall.shared) > 1;
    let tls = mutual(&authority, &authority.node(1))
        .watch_files()
        .clock(wall.clone());
    let tls = tls.build().expect("sound");
    let other = tls.clone();
    drop(tls);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(held());
    let listener = other.listener(
        gorums::runtime::TcpAcceptor::bind("127.0.0.1:0")
            .await
            .expect("free"),
    );
    drop(other);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(held(), "what listens is one, too");
    drop(listener);
    settle().await;
    assert!(!held(), "the task has ended");
}

/// Each runtime takes the task with it when it ends.
#[test]
fn watching_goes_on_in_the_runtime_that_is_there() {
    let folder = Folder::new("runtimes");
    let network = Network::new();
    let authority = Authority::new("ours");
    let identity = authority.node(1);
    let (certificate, key) = folder.identity(&identity);
    // Outside of any.
    let tls = Tls::builder()
        .identity(certificate, key)
        .watch_files()
        .over(network.clone())
        .build()
        .expect("sound");
    for _ in 0..2 {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build();
        runtime.expect("a runtime").block_on(async {
            let log = Log::of(Level::INFO);
            let server = service().transport(tls.clone());
            let _server = TestServer::start_at(server, "a:1").await;
            folder.identity(&authority.node(1));
            logged(&log, TLS, "certificates were exchanged").await;
        });
    }
}
