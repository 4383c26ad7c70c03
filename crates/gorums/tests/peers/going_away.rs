//! What a server that goes away says, what its client answers, and what becomes of what is said at
//! the wrong time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gorums::runtime::{BoxFuture, BoxIo, Handshake, Listener, Proven, Tcp, Transport};
use gorums::{Code, ConfigurationBuilder, Outcome, Status};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::JoinHandle;

use crate::common::{Counter, Number, within};
use crate::raw_client::{RawClient, Stream};
use crate::raw_server::{RawPeer, RawServer, answered, failed};
use crate::wire::{ECHO, Envelope, envelope};

const HOLD: &str = "test.Test.Hold";
const GOING_AWAY: u32 = 4;
const NONE_FOLLOW: u32 = 5;

fn control(id: u64, control: u32) -> Envelope {
    Envelope {
        id,
        control,
        ..Envelope::default()
    }
}

/// A server that shuts down while a request of its client is held.
struct Ending {
    client: RawClient,
    stream: Stream,
    echoed: Counter,
    gate: Arc<Semaphore>,
    serving: JoinHandle<()>,
}

impl Ending {
    /// The client announces these features.
    async fn begun(features: &str) -> Self {
        let (started, echoed, gate) = (Counter::new(), Counter::new(), Arc::new(Semaphore::new(0)));
        let (start, echo, held) = (started.clone(), echoed.clone(), Arc::clone(&gate));
        let builder = gorums::Server::builder()
            .unary(ECHO, move |_ctx, request: Number| {
                echo.add();
                std::future::ready(Ok::<_, Status>(request))
            })
            .unary(HOLD, move |ctx, request: Number| {
                let (start, held) = (start.clone(), Arc::clone(&held));
                async move {
                    ctx.release();
                    start.add();
                    held.acquire().await.expect("open").forget();
                    Ok::<_, Status>(request)
                }
            });
        let server = builder.bind("127.0.0.1:0").await.expect("a free port");
        let addr = server.local_addr().socket_addr().expect("it has one");
        let (stop, asked) = oneshot::channel::<()>();
        let signal = async move {
            let _ = asked.await;
        };
        let grace = Duration::from_secs(600);
        let serving = tokio::spawn(server.serve_with_shutdown(signal, grace));
        let mut client = RawClient::connect(addr).await;
        let mut stream = client.announcing(features).await;
        stream.send(&envelope(1, HOLD, 1));
        started.reached(1).await;
        stop.send(()).expect("it serves");
        Self {
            client,
            stream,
            echoed,
            gate,
            serving,
        }
    }

    /// What was held is answered, the stream ends, and the server with it.
    async fn ends(mut self, echoed: u64) {
        self.gate.add_permits(1);
        let reply = self.stream.reply().await;
        assert_eq!((reply.id, reply.number(), reply.control), (1, 1, 0));
        let (code, message) = self.stream.status().await;
        assert_eq!((code, &*message), (14, "the server is shutting down"));
        within(self.serving).await.expect("no panic");
        assert_eq!(self.echoed.get(), echoed);
    }
}

#[tokio::test]
async fn what_a_client_writes_before_it_answers_is_taken_and_nothing_behind() {
    let mut ending = Ending::begun("going-away").await;
    let Ending { client, stream, .. } = &mut ending;
    assert_eq!(stream.reply().await, control(0, GOING_AWAY));
    client.is_told_to_go().await;
    stream.call(2).await;
    // In one frame: what is behind the answer is dropped, the answer once more included.
    let bytes = [
        envelope(3, ECHO, 3).framed(),
        control(0, NONE_FOLLOW).framed(),
        envelope(4, ECHO, 4).framed(),
        control(7, NONE_FOLLOW).framed(),
        control(0, GOING_AWAY).framed(),
    ];
    stream.send_bytes(bytes.concat());
    assert_eq!(stream.reply().await.id, 3);
    stream.send(&envelope(5, ECHO, 5));
    client.is_read().await;
    ending.ends(2).await;
}

#[tokio::test]
async fn a_client_that_does_not_understand_is_told_by_http_2() {
    let mut ending = Ending::begun("cancel,credit").await;
    ending.client.is_told_to_go().await;
    ending.stream.send(&envelope(2, ECHO, 2));
    ending.client.is_read().await;
    ending.ends(0).await;
}

#[tokio::test]
async fn a_client_that_does_not_answer_holds_up_the_shutdown_for_a_second() {
    let mut ending = Ending::begun("going-away").await;
    assert_eq!(ending.stream.reply().await, control(0, GOING_AWAY));
    ending.stream.call(2).await;
    ending.ends(1).await;
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_is_ignored() {
    let server = crate::common::TestServer::start(crate::common::echo()).await;
    let mut client = RawClient::connect(server.addr).await;
    let mut stream = client.announcing("going-away").await;
    for id in [0, 1, u64::MAX] {
        stream.send(&control(id, NONE_FOLLOW));
        stream.send(&control(id, GOING_AWAY));
        stream.call(2).await;
    }
}

#[tokio::test]
async fn a_client_writes_no_more_to_a_server_that_goes_away_and_hears_its_answers() {
    let server = RawServer::start().await;
    let (first, mut old, request) = server.called().await;
    old.respond_with("going-away");
    old.send(&control(0, GOING_AWAY));
    assert_eq!(old.request().await, control(0, NONE_FOLLOW));
    // The next one goes over another connection, whatever the old one says.
    let second = server.call(2);
    let mut new = server.accept().await;
    for id in [0, request.id, u64::MAX] {
        old.send(&control(id, GOING_AWAY));
        old.send(&control(id, NONE_FOLLOW));
    }
    new.respond_with("going-away");
    new.send(&control(0, NONE_FOLLOW));
    new.echo().await;
    answered(second, 2).await;
    old.send(&request);
    answered(first, 1).await;
    old.end("14", "shutting down");
    old.client_is_gone().await;
    let third = server.call(3);
    new.echo().await;
    answered(third, 3).await;
}

#[tokio::test]
async fn a_server_that_did_not_announce_it_cannot_go_away() {
    let server = RawServer::start().await;
    let (first, mut peer, request) = server.called().await;
    peer.respond_with("cancel");
    peer.send(&control(0, GOING_AWAY));
    peer.send(&request);
    answered(first, 1).await;
    let second = server.call(2);
    peer.echo().await;
    answered(second, 2).await;
}

#[tokio::test]
async fn of_a_server_that_goes_away_again_and_again_few_connections_are_kept() {
    const KEPT: usize = 4;
    let server = RawServer::start().await;
    let mut kept = Vec::new();
    for _ in 0..2 * KEPT {
        let (call, mut peer, request) = server.called().await;
        peer.respond_with("going-away");
        peer.send(&control(0, GOING_AWAY));
        assert_eq!(peer.request().await, control(0, NONE_FOLLOW));
        kept.push((call, peer, request));
    }
    for (index, (call, mut peer, request)) in kept.into_iter().enumerate() {
        if index < KEPT {
            failed(call, Outcome::Unknown, Code::Unavailable).await;
            peer.client_is_gone().await;
        } else {
            peer.send(&request);
            answered(call, 1).await;
        }
    }
}

// ---- what is proven of a node, and holds no more

/// Proves nothing that lasts longer than until the next notification, of one connection.
struct Passing(Arc<Notify>);

impl Transport for Passing {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, std::io::Result<BoxIo>> {
        Box::pin(async move {
            let io = Tcp.connect(address).await?;
            let until = Arc::clone(&self.0).notified_owned();
            let handshake = Handshake::new(async { Ok(Proven::new(io).lasting(until)) });
            Ok(Box::new(handshake) as BoxIo)
        })
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, std::io::Result<Box<dyn Listener>>> {
        Tcp.listen(address)
    }
}

/// A server, and what ends what is proven of it.
async fn passing() -> (RawServer, Arc<Notify>) {
    let end = Arc::new(Notify::new());
    let transport = Passing(Arc::clone(&end));
    // Nothing but what happens wakes the client.
    let never = Duration::from_secs(3600);
    let tell =
        |builder: ConfigurationBuilder| builder.transport(transport).keep_alive(never, never);
    (RawServer::start_with(tell).await, end)
}

/// More is queued before the client connects than it writes at a time, and that connection is ended
/// so when the first call is answered: the others are answered on it or on the next one.
async fn what_waits_goes_on(server: RawServer, end: impl FnOnce(&mut RawPeer)) {
    const CALLS: u64 = 8;
    let mut calls = Vec::new();
    for value in 0..CALLS {
        let request = Number {
            value,
            payload: vec![0; 100_000].into(),
        };
        calls.push(server.client().rpc(&server.node(), ECHO, request).send());
    }
    let mut calls = calls.into_iter();
    let mut old = server.accept().await;
    old.respond_with("going-away");
    old.echo().await;
    answered(calls.next().expect("there are some"), 0).await;
    end(&mut old);
    let mut written = 1;
    loop {
        let request = old.request().await;
        if request.control == NONE_FOLLOW {
            break;
        }
        old.send(&request);
        written += 1;
    }
    assert!(written < CALLS, "the rest has waited");
    let mut new = server.accept().await;
    for _ in written..CALLS {
        new.echo().await;
    }
    for (value, call) in (1..).zip(calls) {
        answered(call, value).await;
    }
}

#[tokio::test]
async fn what_has_only_waited_goes_on_to_when_the_node_goes_away() {
    let server = RawServer::start().await;
    what_waits_goes_on(server, |peer| peer.send(&control(0, GOING_AWAY))).await;
}

#[tokio::test]
async fn what_has_only_waited_goes_on_to_when_what_was_proven_holds_no_more() {
    let (server, end) = passing().await;
    what_waits_goes_on(server, |_| end.notify_one()).await;
}

#[tokio::test]
async fn a_connection_ends_with_the_last_call_that_it_waits_for_where_the_node_is_told_nothing() {
    let (server, end) = passing().await;
    let (first, mut old, _) = server.called().await;
    // It understands no cancellations.
    old.respond_with("");
    let another = server.call(3);
    old.echo().await;
    answered(another, 3).await;
    let began = Instant::now();
    end.notify_one();
    let second = server.call(2);
    let mut new = server.accept().await;
    new.echo().await;
    answered(second, 2).await;
    drop(first);
    old.client_is_gone().await;
    let took = began.elapsed();
    assert!(
        took < Duration::from_secs(50),
        "it ends at 60 s by itself: {took:?}"
    );
}
