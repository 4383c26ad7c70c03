//! Which runtimes connections can be driven by, and what holds where another one waits for a call.

mod common;

use std::time::Duration;

use common::{Number, Stoppable, TestServer, echo, number, within};
use gorums::{
    Client, Code, Configuration, ConfigurationError, Outcome, Server, ServerBuilder, ServerCtx,
    ServerError, Status,
};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

const ECHO: &str = "test.Test.Echo";

fn without_timers() -> Runtime {
    let runtime = Builder::new_current_thread().enable_io().build();
    runtime.expect("a runtime")
}

fn without_io() -> Runtime {
    let runtime = Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime")
}

#[test]
fn a_runtime_that_lacks_something_is_refused_by_name() {
    for (runtime, expected) in [
        (
            without_timers(),
            "the tokio runtime has no timers: build it with enable_time(), or with enable_all()",
        ),
        (
            without_io(),
            "the tokio runtime has no I/O: build it with enable_io(), or with enable_all()",
        ),
    ] {
        runtime.block_on(async {
            let connected = Configuration::builder().nodes(["127.0.0.1:9"]).connect();
            let error = connected.expect_err("it cannot be driven");
            assert!(matches!(error, ConfigurationError::Runtime { .. }));
            assert_eq!(error.to_string(), expected);
            let bound = echo().bind("127.0.0.1:0").await;
            let error = bound.expect_err("it cannot be driven");
            assert!(matches!(error, ServerError::Runtime(_)));
            assert_eq!(error.to_string(), expected);
        });
    }
}

#[test]
fn a_membership_that_is_changed_in_such_a_runtime_stays_as_it_was() {
    let all = Builder::new_current_thread().enable_all().build();
    let all = all.expect("a runtime");
    let _inside = all.enter();
    let members = Configuration::builder()
        .nodes(["127.0.0.1:9"])
        .membership()
        .expect("legal");
    let error = without_timers().block_on(async {
        members.set(["127.0.0.1:9", "127.0.0.1:10"].map(|at| at.parse().expect("legal")))
    });
    let error = error.expect_err("it cannot be driven");
    assert!(
        matches!(error, ConfigurationError::Runtime { .. }),
        "{error}"
    );
    assert_eq!(members.config().len(), 1);
}

/// Runtimes of one thread each, which they have for as long as this lives.
struct Threads {
    handles: Vec<Handle>,
    stop: Vec<oneshot::Sender<()>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Threads {
    fn start(count: usize) -> Self {
        let (mut handles, mut stop, mut threads) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..count {
            let runtime = Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime");
            let (ends, ended) = oneshot::channel();
            handles.push(runtime.handle().clone());
            stop.push(ends);
            threads.push(std::thread::spawn(move || {
                let _ = runtime.block_on(ended);
            }));
        }
        Self {
            handles,
            stop,
            threads,
        }
    }

    fn end(self) {
        drop(self.stop);
        for thread in self.threads {
            thread.join().expect("nothing panics there");
        }
    }

    /// Echoes which of them its handler runs in.
    fn server(&self) -> ServerBuilder {
        let handles = self.handles.clone();
        Server::builder()
            .runtimes(self.handles.iter().cloned())
            .unary(ECHO, move |_: ServerCtx, _: Number| {
                let here = Handle::current().id();
                let place = handles.iter().position(|handle| handle.id() == here);
                let place = place.map_or(u64::MAX, |place| place as u64);
                async move { Ok::<_, Status>(number(place)) }
            })
    }
}

/// Where the handlers of a client run, of whose calls there are so many.
async fn places(address: &str, calls: usize) -> (Configuration, Vec<u64>) {
    let nodes = Configuration::builder().nodes([address]).connect();
    let nodes = nodes.expect("legal");
    let client = Client::new(&nodes);
    let mut places = Vec::new();
    for _ in 0..calls {
        let call = client.rpc::<_, Number>(&nodes[0], ECHO, number(1));
        let reply = within(call.send()).await;
        places.push(reply.expect("it answers").value);
    }
    (nodes, places)
}

#[test]
fn connections_are_spread_over_runtimes_stay_there_and_wind_down() {
    let socket = std::env::temp_dir().join(format!("gorums-runtimes-{}", std::process::id()));
    let socket = format!("unix:{}", socket.display());
    let mut listens = vec!["127.0.0.1:0"];
    if cfg!(unix) {
        listens.push(&socket);
    }
    for listen in listens {
        let threads = Threads::start(2);
        let runtime = Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let server = within(Stoppable::start(threads.server(), listen)).await;
            let mut clients = Vec::new();
            for first in [0, 1, 0, 1] {
                let (nodes, places) = places(&server.address, 10).await;
                assert_eq!(places, [first; 10]);
                clients.push(nodes);
            }
            within(server.stop()).await.expect("nothing panics");
        });
        threads.end();
    }
}

#[test]
fn a_runtime_that_has_ended_gets_one_connection_and_no_more() {
    let (ended, living) = (Threads::start(1), Threads::start(1));
    let mut both = Threads::start(0);
    both.handles = [&ended, &living]
        .map(|threads| threads.handles[0].clone())
        .into();
    let server = both.server();
    ended.end();
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let server = TestServer::start(server).await;
        let nodes = Configuration::builder().nodes([server.addr.to_string()]);
        let nodes = nodes.connect().expect("legal");
        // The first connection is lost, and the client makes another one.
        within(nodes.connected(1)).await.expect("nothing is closed");
        let client = Client::new(&nodes);
        let call = client.rpc::<_, Number>(&nodes[0], ECHO, number(1));
        let reply = within(call.send()).await.expect("it answers");
        assert_eq!(reply.value, 1);
    });
    living.end();
}

#[test]
fn a_runtime_for_connections_that_lacks_something_is_refused_by_name() {
    let all = Builder::new_current_thread().enable_all().build();
    let all = all.expect("a runtime");
    for (runtime, what) in [(without_timers(), "no timers"), (without_io(), "no I/O")] {
        let builder = echo().runtimes([all.handle().clone(), runtime.handle().clone()]);
        let bound = all.block_on(builder.bind("127.0.0.1:0"));
        let error = bound.expect_err("it cannot drive connections");
        assert!(matches!(error, ServerError::Runtime(_)));
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[test]
fn a_deadline_holds_though_nobody_drives_the_connections() {
    let undriven = Builder::new_current_thread().enable_all().build();
    let undriven = undriven.expect("a runtime");
    let nodes = undriven.block_on(async {
        let nodes = Configuration::builder().nodes(["127.0.0.1:9"]).connect();
        nodes.expect("legal")
    });
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = Client::new(&nodes);
        let limit = Duration::from_millis(50);
        let call = client.rpc::<_, Number>(&nodes[0], ECHO, number(1));
        let error = within(call.timeout(limit).send()).await;
        let error = error.expect_err("nobody sends it");
        assert_eq!(error.status().code(), Code::DeadlineExceeded, "{error}");
        assert_eq!(error.outcome(), Outcome::NotSent);
        let call = client.quorum_call::<_, Number>(ECHO, number(1));
        let error = within(call.timeout(limit).majority()).await;
        let error = error.expect_err("nobody sends it");
        assert_eq!(error.kind(), gorums::QuorumErrorKind::Deadline, "{error}");
        let sent = client.multicast(ECHO, number(1)).timeout(limit);
        let error = within(sent.send()).await.expect_err("nobody sends it");
        assert_eq!(error.kind(), gorums::QuorumErrorKind::Deadline, "{error}");
        let call = client.streamed_quorum_call::<_, Number>(ECHO, number(1));
        let mut responses = call.timeout(limit).responses();
        let response = within(responses.next()).await.expect("one node");
        let error = response.into_result().expect_err("nobody sends it");
        assert_eq!(error.status().code(), Code::DeadlineExceeded, "{error}");
        assert!(within(responses.next()).await.is_none());
        let call = client.streamed_quorum_call::<_, Number>(ECHO, number(1));
        let error = within(call.timeout(limit).correctable(1).done()).await;
        let error = error.expect_err("nobody sends it");
        assert_eq!(error.kind(), gorums::QuorumErrorKind::Deadline, "{error}");
    });
}
