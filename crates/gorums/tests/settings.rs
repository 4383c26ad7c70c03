//! Every setting that is a number or a time, with nothing and with the greatest there is: calls
//! work or fail with a status, and nothing spins, hangs or panics.

mod common;
#[path = "common/memory.rs"]
mod memory;

use std::sync::mpsc;
use std::time::Duration;

use common::{Counter, Number, TestServer, echo, number, within};
use gorums::membership::Resolve;
use gorums::server::Shedding;

use gorums::{
    Client, Code, Configuration, ConfigurationBuilder, NodeError, NodeState, QuorumError,
    QuorumErrorKind, ReplySender, ServerBuilder, ServerCtx, Status,
};
use memory::{Manner, Network};
use tokio::time::Instant;

const ECHO: &str = "test.Test.Echo";
const NOTE: &str = "test.Test.Note";
const COUNT: &str = "test.Test.Count";
/// Takes half a second, so that something is owed meanwhile.
const SLOW: &str = "test.Test.Slow";

const SECOND: Duration = Duration::from_secs(1);

/// How far a setting is turned.
#[derive(Debug, Clone, Copy)]
struct Extreme {
    time: Duration,
    count: usize,
}

const NOTHING: Extreme = Extreme {
    time: Duration::ZERO,
    count: 0,
};

const GREATEST: Extreme = Extreme {
    time: Duration::MAX,
    count: usize::MAX,
};

/// What becomes of calls to a node that is up.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Calls {
    Work,
    Fail(Code),
    /// They work where all that is needed happens in no time, and fail otherwise.
    Race(Code),
}

use Calls::{Fail, Race, Work};

impl Calls {
    fn of<T>(result: Result<T, NodeError>) -> Self {
        result.map_or_else(|error| Fail(error.code()), |_| Work)
    }

    fn may_be(self, ended: Self) -> bool {
        match self {
            Race(code) => [Work, Fail(code)].contains(&ended),
            expected => expected == ended,
        }
    }
}

type ClientSetting = fn(ConfigurationBuilder, Extreme) -> ConfigurationBuilder;
type ServerSetting = fn(ServerBuilder, Extreme) -> ServerBuilder;

/// A setting, and what becomes of calls where it is nothing. With the greatest they work.
const OF_A_CLIENT: &[(&str, Calls, ClientSetting)] = &[
    ("outbox messages", Work, |b, to| b.outbox(to.count, 1 << 20)),
    ("outbox bytes", Work, |b, to| b.outbox(16, to.count)),
    ("max_calls", Work, |b, to| b.max_calls(to.count)),
    (
        "max_decoding_message_size",
        Fail(Code::ResourceExhausted),
        |b, to| b.max_decoding_message_size(to.count),
    ),
    ("unread_replies", Work, |b, to| b.unread_replies(to.count)),
    ("degraded_after", Work, |b, to| b.degraded_after(to.time)),
    ("connect_timeout", Race(Code::Unavailable), |b, to| {
        b.connect_timeout(to.time)
    }),
    ("backoff base", Work, |b, to| b.backoff(to.time, SECOND)),
    ("backoff max", Work, |b, to| {
        b.backoff(Duration::ZERO, to.time)
    }),
    ("backoff", Work, |b, to| b.backoff(to.time, to.time)),
    ("attempt_interval", Work, |b, to| {
        b.attempt_interval(to.time)
    }),
    ("backoff and attempt_interval", Work, |b, to| {
        b.backoff(to.time, to.time).attempt_interval(to.time)
    }),
    ("keep_alive interval", Work, |b, to| {
        b.keep_alive(to.time, SECOND)
    }),
    ("keep_alive timeout", Work, |b, to| {
        b.keep_alive(SECOND, to.time)
    }),
    ("keep_alive", Work, |b, to| b.keep_alive(to.time, to.time)),
    ("sessions", Work, |b, to| b.sessions(to.time)),
];

const OF_A_SERVER: &[(&str, Calls, ServerSetting)] = &[
    ("max_connections", Work, |b, to| b.max_connections(to.count)),
    ("max_connections_per_address", Work, |b, to| {
        b.max_connections_per_address(to.count)
    }),
    ("max_connections_per_node", Work, |b, to| {
        b.max_connections_per_node(to.count)
    }),
    ("max_buffered_bytes", Work, |b, to| {
        b.max_buffered_bytes(to.count)
    }),
    (
        "first_message_timeout",
        Race(Code::DeadlineExceeded),
        |b, to| b.first_message_timeout(to.time),
    ),
    ("slow_peer_timeout", Work, |b, to| {
        b.slow_peer_timeout(to.time)
    }),
    ("shed target", Work, |b, to| {
        b.shed(Shedding::waiting(to.time))
    }),
    ("shed interval", Work, |b, to| {
        b.shed(Shedding::default().for_longer_than(to.time))
    }),
    ("concurrency_limit_per_connection", Work, |b, to| {
        b.concurrency_limit_per_connection(to.count)
    }),
    (
        "max_decoding_message_size",
        Fail(Code::ResourceExhausted),
        |b, to| b.max_decoding_message_size(to.count),
    ),
    (
        "max_encoding_message_size",
        Fail(Code::ResourceExhausted),
        |b, to| b.max_encoding_message_size(to.count),
    ),
    ("max_waiting_bytes", Work, |b, to| {
        b.max_waiting_bytes(to.count)
    }),
    ("max_reply_bytes", Work, |b, to| b.max_reply_bytes(to.count)),
    ("stream_timeout", Race(Code::Unavailable), |b, to| {
        b.stream_timeout(to.time)
    }),
    ("keep_alive interval", Work, |b, to| {
        b.keep_alive(to.time, SECOND)
    }),
    ("keep_alive timeout", Work, |b, to| {
        b.keep_alive(SECOND, to.time)
    }),
    ("keep_alive", Work, |b, to| b.keep_alive(to.time, to.time)),
    ("session_timeout", Work, |b, to| b.session_timeout(to.time)),
];

/// Nodes of which one is up, one refuses, one closes and one is silent, and what calls to each
/// become.
async fn try_out(
    client: impl FnOnce(ConfigurationBuilder) -> ConfigurationBuilder,
    server: impl FnOnce(ServerBuilder) -> ServerBuilder,
    calls: Calls,
) {
    let network = Network::new();
    let handlers = echo()
        .transport(network.clone())
        .one_way(NOTE, |_, _: Number| async {})
        .unary(SLOW, |ctx: ServerCtx, request: Number| async move {
            ctx.release();
            tokio::time::sleep(SECOND / 2).await;
            Ok::<_, Status>(request)
        })
        .streaming(
            COUNT,
            |_, to: Number, replies: ReplySender<Number>| async move {
                for value in 0..to.value {
                    replies.send(number(value)).await?;
                }
                Ok(())
            },
        );
    let _server = TestServer::start_at(server(handlers), "up:1").await;
    network.set("closing:1", Manner::Flapping);
    network.set("silent:1", Manner::Silent);
    let all = Configuration::builder().transport(network.clone()).nodes([
        "up:1",
        "refusing:1",
        "closing:1",
        "silent:1",
    ]);
    let all = client(all).connect().expect("legal");
    let began = Instant::now();
    let client = Client::new(&all).with_timeout(SECOND);
    // Some of what is called is not there, and its attempts go on beside the calls.
    let others = all.without(all[0].id());
    let call = client.on(&others).quorum_call::<_, Number>(ECHO, number(1));
    assert!(within(call.first()).await.is_err(), "nobody is there");
    for method in [ECHO, SLOW] {
        let call = client.rpc::<_, Number>(&all[0], method, number(7));
        let ended = Calls::of(within(call).await);
        assert!(calls.may_be(ended), "{method}: {ended:?}");
    }
    let up = Configuration::from(&all[0]);
    let call = client
        .on(&up)
        .streamed_quorum_call::<_, Number>(COUNT, number(7));
    let mut replies = call.responses();
    let mut ended = Vec::new();
    while let Some(reply) = within(replies.next()).await {
        ended.push(Calls::of(reply.into_result()));
    }
    assert!(
        ended.iter().all(|ended| calls.may_be(*ended)),
        "{COUNT}: {ended:?}"
    );
    assert!(calls != Work || ended.len() == 7, "{COUNT}: {ended:?}");
    let _ = within(client.unicast(&all[0], NOTE, number(1)).send()).await;
    within(up.flush()).await;
    // While nobody calls, too.
    tokio::time::sleep(SECOND).await;
    for node in &all {
        assert_ne!(
            node.state(),
            NodeState::Closed,
            "{node}: its task has ended"
        );
        assert_eq!(node.pending(), 0, "{node}");
        let attempts = network.attempts(node.address()).len();
        let most = began.elapsed().as_millis() as usize + 10;
        assert!(
            attempts <= most,
            "{node}: {attempts} attempts, of {most} at most"
        );
    }
}

/// Runs a case in a thread and a runtime of its own, with a clock that goes on when nothing else
/// does: a case that spins never ends.
fn run<F: Future<Output = ()>>(name: String, case: impl FnOnce() -> F + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(case());
        let _ = done.send(());
    });
    let ended = ended.recv_timeout(60 * SECOND);
    assert_ne!(
        ended,
        Err(mpsc::RecvTimeoutError::Timeout),
        "{name}: it spins"
    );
    if let Err(panic) = thread.join() {
        eprintln!("{name}");
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn every_setting_of_a_client_may_be_nothing_or_the_greatest() {
    for (name, calls, set) in OF_A_CLIENT {
        run(format!("{name}: nothing"), || {
            try_out(|client| set(client, NOTHING), |server| server, *calls)
        });
        run(format!("{name}: the greatest"), || {
            try_out(|client| set(client, GREATEST), |server| server, Work)
        });
    }
}

#[test]
fn every_setting_of_a_server_may_be_nothing_or_the_greatest() {
    for (name, calls, set) in OF_A_SERVER {
        run(format!("{name}: nothing"), || {
            try_out(|client| client, |server| set(server, NOTHING), *calls)
        });
        run(format!("{name}: the greatest"), || {
            try_out(|client| client, |server| set(server, GREATEST), Work)
        });
    }
}

#[test]
fn every_setting_of_a_call_may_be_nothing_or_the_greatest() {
    for to in [NOTHING, GREATEST] {
        run(format!("{to:?}"), move || async move {
            let network = Network::new();
            let server = echo().transport(network.clone());
            let _server = TestServer::start_at(server, "up:1").await;
            let all = Configuration::builder().transport(network).nodes(["up:1"]);
            let all = all.connect().expect("legal");
            let is_nothing = to.count == 0;
            let code = |call: Result<Number, QuorumError>| call.err().map(|error| error.kind());
            let client = Client::new(&all);
            let call = || client.quorum_call::<_, Number>(ECHO, number(7));
            let kind = code(within(call().timeout(to.time).all()).await);
            assert_eq!(kind, is_nothing.then_some(QuorumErrorKind::Deadline));
            let kind = code(within(call().unread_replies(to.count).all()).await);
            assert_eq!(kind, None);
            let kind = code(within(call().threshold(to.count)).await);
            assert_eq!(kind, Some(QuorumErrorKind::Impossible));
            let kind = code(within(call().matching(to.count, |_| ())).await);
            assert_eq!(kind, Some(QuorumErrorKind::Impossible));
            let mut better = call().correctable(to.count);
            let reached = within(better.reached(to.count)).await;
            assert!(reached.is_err(), "one node is level 1");
            let taken = call().responses().take(to.count);
            assert_eq!(
                within(taken.by_node()).await.len(),
                usize::from(!is_nothing)
            );
            for client in [
                client.clone().with_max_decoding_message_size(to.count),
                client.clone().with_max_encoding_message_size(to.count),
            ] {
                let call = client.rpc::<_, Number>(&all[0], ECHO, number(7));
                let code = within(call).await.err().map(|error| error.code());
                assert_eq!(code, is_nothing.then_some(Code::ResourceExhausted));
            }
            within(all.connected(to.count))
                .await
                .expect("none is closed");
            assert_eq!(all[0].pending(), 0);
        });
    }
}

#[test]
fn a_name_is_looked_up_no_more_often_than_it_may_be() {
    for (to, expected) in [(NOTHING, 10..=11), (GREATEST, 1..=1)] {
        run(format!("{to:?}"), move || async move {
            let looks = Counter::new();
            let name = Resolve::new("replicas.example:1", to.time).expect("legal");
            let name = name.lookup({
                let looks = looks.clone();
                move |_| {
                    looks.add();
                    std::future::ready(Ok(vec![([10, 0, 0, 1], 1).into()]))
                }
            });
            let members = Configuration::builder().transport(Network::new());
            let members = members.membership().expect("it may be empty");
            tokio::spawn(members.follow(name));
            tokio::time::sleep(SECOND).await;
            let looks = looks.get();
            assert!(expected.contains(&looks), "{looks}");
        });
    }
}

#[test]
fn waiting_and_shutting_down_take_any_time() {
    for to in [NOTHING, GREATEST] {
        run(format!("{to:?}"), move || async move {
            let network = Network::new();
            let server = echo().transport(network.clone());
            let server = server.bind("up:1").await.expect("it is free");
            let clients = server.clients();
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let stopped = async { drop(stopped.await) };
            let serving = tokio::spawn(server.serve_with_shutdown(stopped, to.time));
            let none = within(clients.wait_for_within(to.time, |now| now.is_empty())).await;
            assert!(none.is_ok(), "there are none");
            drop(stop);
            within(serving).await.expect("no panic");
        });
    }
}
