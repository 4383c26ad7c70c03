//! What a client adds to its calls: interceptors, metadata, cancellation, defaults of a method.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Counter, Number, TestServer, echo, number, within};
use gorums::call::{ClientInterceptor, Outgoing};
use gorums::{
    CancellationToken, Client, Code, Configuration, ConfigurationBuilder, Node, NodeError, Outcome,
    QuorumErrorKind, Server, ServerBuilder, ServerCtx, Status,
};

const ECHO: &str = "test.Test.Echo";
const SILENT: &str = "test.Test.Silent";
const FAIL: &str = "test.Test.Fail";
const TRACE: &str = "test.Test.Trace";
const PUT: &str = "test.Test.Put";

/// Three nodes that echo, never answer, fail, and return the metadata `trace`, one after the other.
struct Nodes {
    configuration: Configuration,
    /// One-way messages that arrived.
    put: Counter,
    _servers: Vec<TestServer>,
}

impl Nodes {
    async fn start() -> Self {
        Self::with(|builder| builder).await
    }

    async fn with(settings: impl FnOnce(ConfigurationBuilder) -> ConfigurationBuilder) -> Self {
        let put = Counter::new();
        let mut servers = Vec::new();
        for _ in 0..3 {
            servers.push(TestServer::start(node(put.clone())).await);
        }
        let addresses = servers.iter().map(|server| server.addr.to_string());
        let configuration = settings(Configuration::builder().nodes(addresses))
            .connect()
            .expect("legal addresses");
        within(configuration.connected(3))
            .await
            .expect("none is closed");
        Self {
            configuration,
            put,
            _servers: servers,
        }
    }

    fn client(&self) -> Client {
        Client::new(&self.configuration)
    }
}

fn node(put: Counter) -> ServerBuilder {
    echo()
        .unary(SILENT, |ctx: ServerCtx, _: Number| async move {
            ctx.release();
            std::future::pending::<Result<Number, Status>>().await
        })
        .unary(FAIL, |_ctx, _: Number| async move {
            Err::<Number, _>(Status::aborted("unwilling"))
        })
        .unary(TRACE, |ctx: ServerCtx, _: Number| async move {
            let trace: Vec<_> = ctx.metadata().get_all("trace").map(str::to_owned).collect();
            Ok::<_, Status>(trace.join(" "))
        })
        .one_way(PUT, move |_ctx, _: Number| {
            let put = put.clone();
            async move {
                put.add();
            }
        })
}

/// Writes down what it sees, under its name.
#[derive(Clone)]
struct Log {
    name: &'static str,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Log {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            lines: Arc::default(),
        }
    }

    /// Another one that writes to the same lines.
    fn named(&self, name: &'static str) -> Self {
        Self {
            name,
            ..self.clone()
        }
    }

    fn push(&self, line: String) {
        self.lines
            .lock()
            .expect("no test panics within")
            .push(format!("{}: {line}", self.name));
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("no test panics within").clone()
    }
}

impl ClientInterceptor for Log {
    fn on_request(&self, outgoing: &mut Outgoing<'_>) -> Result<(), Status> {
        let nodes: Vec<_> = outgoing.nodes().map(|node| node.id().to_string()).collect();
        self.push(format!("{} to {}", outgoing.method(), nodes.join(" ")));
        outgoing.append_metadata("trace", self.name)
    }

    fn on_response(
        &self,
        node: &Node,
        method: &'static str,
        _elapsed: Duration,
        result: Result<(), &NodeError>,
    ) {
        let outcome = match result {
            Ok(()) => "ok".to_owned(),
            Err(error) => format!("{} {}", error.outcome(), error.code()),
        };
        self.push(format!("{method} {} {outcome}", node.id()));
    }
}

/// Rejects a call to one node, or to all.
struct Reject(Option<u32>);

impl ClientInterceptor for Reject {
    fn on_request(&self, outgoing: &mut Outgoing<'_>) -> Result<(), Status> {
        match self.0 {
            None => Err(Status::permission_denied("not today")),
            Some(node) => {
                let known =
                    outgoing.reject(node.into(), Status::permission_denied("not this node"));
                assert!(known, "the call goes to node {node}");
                assert!(
                    !outgoing.reject(77.into(), Status::aborted("")),
                    "no such node"
                );
                assert!(outgoing.nodes().all(|other| other.id().get() != node));
                Ok(())
            }
        }
    }
}

#[tokio::test]
async fn interceptors_run_in_order_and_replies_pass_them_in_reverse() {
    let log = Log::new("pool");
    let nodes = Nodes::with(|builder| builder.interceptor(log.clone())).await;
    let client = nodes
        .client()
        .with_interceptor(log.named("first"))
        .with_interceptor(log.named("second"));
    let node = nodes.configuration.node(2).expect("node 2");
    let trace = within(
        client
            .rpc::<_, String>(node, TRACE, number(0))
            .metadata("trace", "call"),
    )
    .await
    .expect("a reply");
    assert_eq!(trace, "call first second pool");
    assert_eq!(
        log.lines(),
        [
            "first: test.Test.Trace to 2",
            "second: test.Test.Trace to 2",
            "pool: test.Test.Trace to 2",
            "pool: test.Test.Trace 2 ok",
            "second: test.Test.Trace 2 ok",
            "first: test.Test.Trace 2 ok",
        ]
    );
}

#[tokio::test]
async fn every_call_type_is_seen_with_every_outcome() {
    let nodes = Nodes::start().await;
    let log = Log::new("log");
    let client = nodes.client().with_interceptor(log.clone());
    let take = || {
        let mut lines = std::mem::take(&mut *log.lines.lock().expect("no test panics within"));
        lines.sort();
        lines
    };
    within(client.quorum_call::<_, Number>(ECHO, number(1)).all())
        .await
        .expect("all answer");
    assert_eq!(
        take(),
        [
            "log: test.Test.Echo 1 ok",
            "log: test.Test.Echo 2 ok",
            "log: test.Test.Echo 3 ok",
            "log: test.Test.Echo to 1 2 3",
        ]
    );
    // Counts agree with the call's: what comes after a majority is nobody's any more.
    within(client.quorum_call::<_, Number>(ECHO, number(1)).majority())
        .await
        .expect("a majority");
    assert_eq!(take().len(), 1 + 2);
    let call = client.quorum_call::<_, Number>(FAIL, number(1));
    let call = call.map_request(|node, request| (node.id().get() > 1).then(|| request.clone()));
    within(call.responses().by_node()).await;
    assert_eq!(
        take(),
        [
            "log: test.Test.Fail 2 refused aborted",
            "log: test.Test.Fail 3 refused aborted",
            "log: test.Test.Fail to 2 3",
        ]
    );
    within(client.multicast(PUT, number(1)).send())
        .await
        .expect("handed over");
    assert_eq!(take().len(), 1 + 3);
    assert!(client.multicast(PUT, number(1)).detach().is_empty());
    assert_eq!(
        take(),
        ["log: test.Test.Put to 1 2 3"],
        "nobody waits for it"
    );
    within(
        client
            .unicast(&nodes.configuration[0], PUT, number(1))
            .send(),
    )
    .await
    .expect("handed over");
    assert_eq!(
        take(),
        ["log: test.Test.Put 1 ok", "log: test.Test.Put to 1"]
    );
    let call = client
        .quorum_call::<_, Number>(SILENT, number(1))
        .timeout(Duration::from_millis(1));
    within(call.majority()).await.expect_err("nobody answers");
    let lines = take();
    assert_eq!(lines.len(), 1 + 3, "{lines:?}");
    assert!(
        lines
            .iter()
            .filter(|line| line.ends_with("deadline exceeded"))
            .count()
            == 3,
        "{lines:?}"
    );
    nodes.put.reached(7).await;
}

#[tokio::test]
async fn a_rejected_call_is_not_sent_and_the_inner_interceptors_do_not_see_it() {
    let nodes = Nodes::start().await;
    let log = Log::new("outer");
    let client = nodes
        .client()
        .with_interceptor(log.clone())
        .with_interceptor(Reject(None))
        .with_interceptor(log.named("inner"));
    let error = within(client.quorum_call::<_, Number>(ECHO, number(1)).majority())
        .await
        .expect_err("rejected");
    assert_eq!(error.kind(), QuorumErrorKind::Incomplete);
    for failure in error.failures() {
        assert_eq!(
            (failure.outcome(), failure.code()),
            (Outcome::NotSent, Code::PermissionDenied)
        );
    }
    assert_eq!(client.multicast(PUT, number(1)).detach().len(), 3);
    let lines = log.lines();
    assert!(
        lines.iter().all(|line| line.starts_with("outer")),
        "{lines:?}"
    );
    let told = lines
        .iter()
        .filter(|line| line.ends_with("not sent permission denied"));
    assert!(told.count() >= 2, "{lines:?}");
    assert_eq!(nodes.put.get(), 0);
}

#[tokio::test]
async fn a_rejected_node_fails_its_own_part() {
    let nodes = Nodes::start().await;
    let client = nodes.client().with_interceptor(Reject(Some(2)));
    let replies = client
        .quorum_call::<_, Number>(ECHO, number(1))
        .majority()
        .replies();
    let replies = within(replies).await.expect("two are a majority");
    assert_eq!((replies.len(), replies.get(2.into())), (2, None));
    let error = within(client.quorum_call::<_, Number>(ECHO, number(1)).all())
        .await
        .expect_err("node 2 was rejected");
    let failure = error.failure(2.into()).expect("node 2");
    assert_eq!(
        (failure.outcome(), failure.code()),
        (Outcome::NotSent, Code::PermissionDenied)
    );
    let refused = client.multicast(PUT, number(1)).detach();
    assert_eq!(refused.iter().map(|id| id.get()).collect::<Vec<_>>(), [2]);
    nodes.put.reached(2).await;
}

#[tokio::test]
async fn an_interceptor_can_shorten_a_deadline_and_not_lengthen_it() {
    struct Limit(tokio::time::Instant);
    impl ClientInterceptor for Limit {
        fn on_request(&self, outgoing: &mut Outgoing<'_>) -> Result<(), Status> {
            let before = outgoing.deadline();
            outgoing.limit_deadline(self.0);
            let earlier = before.map_or(self.0, |before| before.min(self.0));
            assert_eq!(outgoing.deadline(), Some(earlier));
            Ok(())
        }
    }
    let nodes = Nodes::start().await;
    let now = tokio::time::Instant::now();
    let client = nodes.client().with_interceptor(Limit(now));
    let call = client.quorum_call::<_, Number>(ECHO, number(1));
    let error = within(call.deadline(now + Duration::from_secs(3600)).first())
        .await
        .expect_err("the deadline has passed");
    assert_eq!(error.kind(), QuorumErrorKind::Deadline);
    let client = nodes
        .client()
        .with_interceptor(Limit(now + Duration::from_secs(3600)));
    let call = client
        .quorum_call::<_, Number>(ECHO, number(1))
        .timeout(Duration::ZERO);
    let error = within(call.first())
        .await
        .expect_err("the timeout has passed");
    assert_eq!(error.kind(), QuorumErrorKind::Deadline);
}

#[tokio::test]
async fn metadata_of_a_client_goes_with_every_call() {
    let nodes = Nodes::start().await;
    let client = nodes.client().with_metadata("trace", "client");
    let node = &nodes.configuration[0];
    for _ in 0..2 {
        let call = client
            .rpc::<_, String>(node, TRACE, number(0))
            .metadata("Trace", "call");
        assert_eq!(within(call).await.expect("a reply"), "client call");
    }
    let bad = client.with_metadata("grpc-status", "0");
    let error = within(bad.rpc::<_, String>(node, TRACE, number(0)))
        .await
        .expect_err("reserved");
    assert_eq!(
        (error.code(), error.outcome()),
        (Code::InvalidArgument, Outcome::NotSent)
    );
}

#[tokio::test]
async fn metadata_that_a_connection_cannot_carry_is_refused_before_any_is_made() {
    const LARGEST: usize = 15 * 1024 - "large".len() - 32;
    let server = TestServer::start(Server::builder().unary(
        TRACE,
        |ctx: ServerCtx, _: Number| async move {
            let value = ctx.connection_metadata().get("large").map(str::len);
            Ok::<_, Status>(number(value.unwrap_or_default() as u64))
        },
    ))
    .await;
    let with = |key: &str, value: String| {
        Configuration::builder()
            .nodes([server.addr.to_string()])
            .metadata(key, value)
            .connect()
    };
    let all = with("large", "x".repeat(LARGEST)).expect("it fits");
    let call = Client::new(&all).rpc::<_, Number>(&all[0], TRACE, number(1));
    assert_eq!(within(call).await.expect("it fits").value, LARGEST as u64);
    for (key, value) in [
        ("Connection", "close"),
        ("content-length", "5"),
        ("host", "a"),
        ("keep-alive", "1"),
        ("proxy-connection", "close"),
        ("te", "trailers"),
        ("Transfer-Encoding", "chunked"),
        ("upgrade", "h2c"),
        ("large", &"x".repeat(LARGEST + 1)),
    ] {
        let error = with(key, value.to_owned()).expect_err("it cannot be carried");
        assert!(error.to_string().contains(&format!("{key:?}")), "{error}");
    }
}

#[tokio::test]
async fn a_cancelled_call_fails_with_what_is_known_of_each_node() {
    let nodes = Nodes::start().await;
    let token = CancellationToken::new();
    let node = &nodes.configuration[0];
    let rpc = nodes
        .client()
        .rpc::<_, Number>(node, SILENT, number(0))
        .cancelled_by(&token)
        .send();
    let call = nodes
        .client()
        .quorum_call::<_, Number>(SILENT, number(0))
        .cancelled_by(&token)
        .majority();
    // So that all of it is written.
    within(nodes.configuration.flush()).await;
    let (rpc, call) = (tokio::spawn(rpc), tokio::spawn(call));
    token.cancel();
    let error = within(rpc).await.expect("no panic").expect_err("cancelled");
    assert_eq!(
        (error.code(), error.outcome()),
        (Code::Cancelled, Outcome::Unknown)
    );
    let error = within(call)
        .await
        .expect("no panic")
        .expect_err("cancelled");
    assert_eq!(
        (error.kind(), error.failures().len()),
        (QuorumErrorKind::Cancelled, 3)
    );
    assert!(
        error
            .failures()
            .iter()
            .all(|failure| failure.code() == Code::Cancelled),
        "{error}"
    );
    assert_eq!(Status::from(error).code(), Code::Cancelled);
    assert_eq!(node.pending(), 0);
}

#[tokio::test]
async fn a_call_that_is_cancelled_before_it_begins_is_not_sent() {
    let nodes = Nodes::start().await;
    let token = CancellationToken::new();
    token.cancel();
    let client = nodes.client();
    let node = &nodes.configuration[0];
    let error = within(
        client
            .rpc::<_, Number>(node, ECHO, number(0))
            .cancelled_by(&token),
    )
    .await
    .expect_err("cancelled");
    assert_eq!(
        (error.code(), error.outcome()),
        (Code::Cancelled, Outcome::NotSent)
    );
    let error = within(
        client
            .unicast(node, PUT, number(0))
            .cancelled_by(&token)
            .send(),
    )
    .await
    .expect_err("cancelled");
    assert_eq!(
        (error.code(), error.outcome()),
        (Code::Cancelled, Outcome::NotSent)
    );
    let error = within(client.multicast(PUT, number(0)).cancelled_by(&token).send())
        .await
        .expect_err("cancelled");
    assert_eq!(
        (error.kind(), error.replies()),
        (QuorumErrorKind::Cancelled, 0)
    );
    assert_eq!(
        client
            .multicast(PUT, number(0))
            .cancelled_by(&token)
            .detach()
            .len(),
        3
    );
    for quorum in 1..=3 {
        let call = client
            .quorum_call::<_, Number>(ECHO, number(0))
            .cancelled_by(&token);
        let error = within(call.threshold(quorum)).await.expect_err("cancelled");
        assert_eq!(error.kind(), QuorumErrorKind::Cancelled);
    }
    assert_eq!(nodes.put.get(), 0);
}

#[tokio::test]
async fn a_reply_that_is_here_comes_before_a_cancellation() {
    let nodes = Nodes::start().await;
    let token = CancellationToken::new();
    let node = &nodes.configuration[0];
    let call = nodes
        .client()
        .rpc::<_, Number>(node, ECHO, number(7))
        .cancelled_by(&token)
        .send();
    // Replies come in order: when this one is here, the other is.
    within(nodes.client().rpc::<_, Number>(node, ECHO, number(8)))
        .await
        .expect("a reply");
    token.cancel();
    assert_eq!(within(call).await.expect("it came before").value, 7);
}

#[tokio::test]
async fn a_quorum_function_can_be_set_before() {
    let nodes = Nodes::start().await;
    let call = |value| {
        nodes
            .client()
            .quorum_call::<_, Number>(ECHO, number(value))
            .with_quorum_fn(|request: &Number, replies| {
                let agreed = replies
                    .values()
                    .filter(|reply| reply.value == request.value)
                    .count();
                (agreed == 3).then(|| number(request.value * 100))
            })
    };
    assert_eq!(
        within(call(4).by_quorum_fn())
            .await
            .expect("all agree")
            .value,
        400
    );
    let call = call(4).map_response(|node, reply| match node.id().get() {
        1 => Ok(number(reply.value + 1)),
        _ => Ok(reply),
    });
    let error = within(call.by_quorum_fn())
        .await
        .expect_err("node 1 does not");
    assert_eq!(
        (error.kind(), error.replies()),
        (QuorumErrorKind::NoQuorum, 3)
    );
    let call = nodes
        .client()
        .quorum_call::<Number, Number>(ECHO, number(1));
    let error = within(call.by_quorum_fn()).await.expect_err("no function");
    assert_eq!(error.kind(), QuorumErrorKind::NoQuorumFn);
    assert!(error.to_string().contains("with_quorum_fn"), "{error}");
}

/// A server that is down: nothing that is said here may need one.
#[tokio::test]
async fn interceptors_see_calls_that_never_leave() {
    let server = Server::builder()
        .bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let address = server.local_addr().to_string();
    drop(server);
    let log = Log::new("log");
    let configuration = Configuration::builder()
        .nodes([address])
        .interceptor(log.clone())
        .connect()
        .expect("legal");
    let call = Client::new(&configuration).rpc::<_, Number>(&configuration[0], ECHO, number(1));
    within(call).await.expect_err("nobody is there");
    assert_eq!(
        log.lines(),
        [
            "log: test.Test.Echo to 1",
            "log: test.Test.Echo 1 not sent unavailable"
        ]
    );
}

#[tokio::test]
async fn interceptors_of_a_pool_see_calls_to_nodes_that_were_added_later() {
    let log = Log::new("pool");
    let nodes = Nodes::with(|builder| builder.interceptor(log.clone())).await;
    let server = TestServer::start(node(nodes.put.clone())).await;
    let four = nodes
        .configuration
        .extend([server.addr.to_string()])
        .expect("a new address");
    let call = Client::new(&four).quorum_call::<_, Number>(ECHO, number(1));
    within(call.all()).await.expect("all answer");
    let lines = log.lines();
    assert_eq!(lines[0], "pool: test.Test.Echo to 1 2 3 4");
    assert!(
        lines.contains(&"pool: test.Test.Echo 4 ok".to_owned()),
        "{lines:?}"
    );
}
