//! Streamed replies: all of them arrive, and a reader that is behind holds back their sender, and
//! nothing else.

mod common;

use std::sync::Arc;

use common::{Counter, Number, TestServer, cluster, echo, number, within};
use gorums::call::QuorumCall;
use gorums::responses::Responses;
use gorums::server::TrySendError;
use gorums::{Client, Code, Configuration, ReplySender, Server, ServerBuilder, ServerCtx, Status};
use tokio::sync::{Notify, mpsc, oneshot};

const ECHO: &str = "test.Test.Echo";
const STREAM: &str = "test.Test.Stream";

/// What a reply costs beside its payload.
const OVERHEAD: usize = 256;

/// The window of a call that does not say otherwise.
const WINDOW: usize = 1024 * 1024;

/// A node with a method that streams as many chunks as it is asked for, each as large as the
/// request's payload, and never releases by itself.
struct Streaming {
    server: Option<TestServer>,
    configuration: Configuration,
    /// Chunks that were sent.
    sent: Counter,
    /// Handlers that were told that nobody reads their chunks.
    gone: Counter,
}

fn streams(builder: ServerBuilder, sent: &Counter, gone: &Counter) -> ServerBuilder {
    let (sent, gone) = (sent.clone(), gone.clone());
    builder.streaming(
        STREAM,
        move |_ctx: ServerCtx, request: Number, replies: ReplySender<Number>| {
            let (sent, gone) = (sent.clone(), gone.clone());
            async move {
                for value in 0..request.value {
                    let payload = request.payload.clone();
                    if replies.send(Number { value, payload }).await.is_err() {
                        gone.add();
                        break;
                    }
                    sent.add();
                }
                Ok::<_, Status>(())
            }
        },
    )
}

impl Streaming {
    async fn start() -> Self {
        Self::start_with(|addr| Configuration::builder().nodes([addr])).await
    }

    async fn start_with(client: impl FnOnce(String) -> gorums::ConfigurationBuilder) -> Self {
        let (sent, gone) = (Counter::new(), Counter::new());
        let server = TestServer::start(streams(echo(), &sent, &gone)).await;
        // Not connected yet: the first call goes out before the node has said what it understands.
        let configuration = client(server.addr.to_string()).connect().expect("legal");
        Self {
            server: Some(server),
            configuration,
            sent,
            gone,
        }
    }

    fn call(&self, chunks: u64, size: usize) -> QuorumCall<Number, Number> {
        call(&self.configuration, chunks, size)
    }

    /// The node answers another call, and has read all that was sent to it before.
    async fn echoes(&self, value: u64) {
        let client = Client::new(&self.configuration);
        let call = client.quorum_call::<_, Number>(ECHO, number(value));
        let reply = within(call.all()).await.expect("no call waits for another");
        assert_eq!(reply.value, value);
    }

    /// Waits until a handler has sent so many chunks, and asserts that no more follow.
    async fn is_held_back_at(&self, chunks: u64) {
        self.sent.reached(chunks).await;
        for value in 0..20 {
            self.echoes(value).await;
        }
        assert_eq!(self.sent.get(), chunks);
    }
}

fn call(configuration: &Configuration, chunks: u64, size: usize) -> QuorumCall<Number, Number> {
    let request = Number {
        value: chunks,
        payload: vec![7; size].into(),
    };
    Client::new(configuration).streamed_quorum_call(STREAM, request)
}

/// What a chunk takes of its call's window. Its value is left out where it is 0, and has one byte
/// below 128, and else two, with one for its key.
fn cost(value: u64, size: usize) -> usize {
    let length = if size < 128 { 1 } else { 2 };
    let number = [0, 2, 3][usize::from(value > 0) + usize::from(value > 127)];
    OVERHEAD + number + 1 + length + size
}

/// How many chunks go before a sender is held back whose caller takes none.
fn unread(window: usize, size: usize) -> u64 {
    let mut sum = 0;
    let mut chunks = 0;
    while sum < window {
        sum += cost(chunks, size);
        chunks += 1;
    }
    chunks
}

/// The same, of so many calls that are held back side by side.
fn unread_in_all(calls: usize, size: usize) -> u64 {
    calls as u64 * unread(WINDOW, size)
}

/// Takes the rest of a streamed reply, which ends well behind chunk `last`.
async fn takes_all(responses: &mut Responses<Number>, from: u64, last: u64, size: usize) {
    let mut expected = from;
    while let Some(response) = within(responses.next()).await {
        let chunk = response.into_result().expect("a chunk");
        assert_eq!((chunk.value, chunk.payload.len()), (expected, size));
        expected += 1;
    }
    assert_eq!(expected, last);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_chunk_reaches_a_fast_reader_in_order() {
    let node = Streaming::start().await;
    for size in [1_000, 10_000] {
        takes_all(&mut node.call(1_000, size).responses(), 0, 1_000, size).await;
    }
    assert_eq!(node.sent.get(), 2_000);
}

#[tokio::test]
async fn every_chunk_reaches_a_slow_reader_in_order_and_other_calls_go_on() {
    let node = Streaming::start().await;
    for size in [1_000, 10_000] {
        let mut responses = node.call(1_000, size).responses();
        for value in 0..1_000 {
            // As slow as another call is on the same connection.
            node.echoes(value).await;
            let response = within(responses.next()).await.expect("not the end");
            assert_eq!(response.into_result().expect("a chunk").value, value);
        }
        takes_all(&mut responses, 1_000, 1_000, size).await;
    }
}

#[tokio::test]
async fn a_paused_reader_holds_the_sender_back_and_nothing_else_and_then_gets_every_chunk() {
    for (size, window) in [
        (1_000, None),
        (10_000, None),
        (10_000, Some(50_000)),
        (100, Some(0)),
        (100, Some(1)),
    ] {
        let node = Streaming::start().await;
        let call = node.call(1_000, size);
        let call = match window {
            Some(window) => call.unread_replies(window),
            None => call,
        };
        let mut responses = call.responses();
        let held_at = unread(window.unwrap_or(WINDOW).max(1), size);
        assert!(held_at < 1_000, "{held_at}");
        node.is_held_back_at(held_at).await;
        takes_all(&mut responses, 0, 1_000, size).await;
        assert_eq!(node.sent.get(), 1_000);
    }
}

#[tokio::test]
async fn a_chunk_that_is_larger_than_the_window_goes_alone() {
    let node = Streaming::start().await;
    let (size, window) = (3 * WINDOW, 10_000);
    let mut responses = node.call(5, size).unread_replies(window).responses();
    node.is_held_back_at(1).await;
    takes_all(&mut responses, 0, 5, size).await;
}

#[tokio::test]
async fn each_node_is_held_back_by_its_own_chunks() {
    let (sent, gone) = (Counter::new(), Counter::new());
    let (_servers, configuration) = cluster(3, |_| streams(echo(), &sent, &gone)).await;
    let size = 10_000;
    let mut responses = call(&configuration, 1_000, size).responses();
    let held_at = unread(WINDOW, size);
    sent.reached(3 * held_at).await;
    for value in 0..20 {
        let echo = Client::new(&configuration).quorum_call::<_, Number>(ECHO, number(value));
        within(echo.all()).await.expect("nobody waits");
    }
    assert_eq!(sent.get(), 3 * held_at, "each has filled its window");
    let mut next = [0; 3];
    while let Some(response) = within(responses.next()).await {
        let next = &mut next[response.node().get() as usize - 1];
        assert_eq!(response.into_result().expect("a chunk").value, *next);
        *next += 1;
    }
    assert_eq!(next, [1_000; 3]);
}

#[tokio::test]
async fn all_calls_at_a_node_share_a_bound_and_none_waits_for_the_reader_of_another() {
    const BOUND: usize = 400_000;
    const CALLS: usize = 24;
    let node =
        Streaming::start_with(|addr| Configuration::builder().nodes([addr]).unread_replies(BOUND))
            .await;
    let size = 1_000;
    let mut paused: Vec<_> = (0..CALLS)
        .map(|_| node.call(100, size).responses())
        .collect();
    // Each call takes what it wants, or a quarter of what is left.
    let (mut left, mut chunks) = (BOUND, 0);
    for _ in 0..CALLS {
        let window = WINDOW.min(left / 4);
        left -= window;
        chunks += unread(window.max(1), size);
    }
    node.is_held_back_at(chunks).await;
    let most = BOUND + CALLS * cost(100, size);
    assert!(chunks as usize * cost(0, size) <= most);
    // One that comes last, and is read, goes on beside them.
    takes_all(&mut node.call(100, size).responses(), 0, 100, size).await;
    for responses in &mut paused {
        takes_all(responses, 0, 100, size).await;
    }
    // What they had is there for others.
    let sent = node.sent.get();
    let _paused = node.call(1_000, size).unread_replies(BOUND / 4).responses();
    node.is_held_back_at(sent + unread(BOUND / 4, size)).await;
}

#[tokio::test]
async fn a_quorum_call_that_nobody_awaits_loses_no_reply() {
    let node = Streaming::start().await;
    let (size, mut seen) = (10_000, Vec::new());
    let call = node.call(1_000, size).quorum_fn(|_, replies| {
        let value = replies.values().next().map(|reply| reply.value);
        seen.extend(value);
        (value == Some(999)).then_some(())
    });
    node.is_held_back_at(unread(WINDOW, size)).await;
    within(call).await.expect("the last chunk");
    assert!(seen.into_iter().eq(0..1_000));
}

#[tokio::test]
async fn a_sender_that_waits_is_told_when_the_caller_gives_up() {
    let node = Streaming::start().await;
    let size = 10_000;
    let responses = node.call(1_000, size).responses();
    node.is_held_back_at(unread(WINDOW, size)).await;
    drop(responses);
    node.gone.reached(1).await;
    // Where a quorum is enough, nobody reads on, either.
    within(node.call(1_000, size).first())
        .await
        .expect("a chunk");
    node.gone.reached(2).await;
    node.echoes(1).await;
}

#[tokio::test]
async fn what_came_before_the_connection_broke_is_read_and_its_sender_is_told() {
    let mut node = Streaming::start().await;
    let size = 10_000;
    let mut responses = node.call(1_000, size).responses();
    let held_at = unread(WINDOW, size);
    node.is_held_back_at(held_at).await;
    // Written behind the other one, and fails behind it.
    let last = node.call(1, 0).unread_replies(0);
    let last = last.quorum_fn(|_, _| None::<()>);
    node.sent.reached(held_at + 1).await;
    let server = node.server.take().expect("it is up");
    server.stop().await;
    within(last).await.expect_err("never accepted");
    node.gone.reached(1).await;
    takes_until_it_fails(&mut responses, held_at).await;
}

async fn takes_until_it_fails(responses: &mut Responses<Number>, chunks: u64) {
    for value in 0..chunks {
        let response = within(responses.next()).await.expect("not the end");
        assert_eq!(response.into_result().expect("a chunk").value, value);
    }
    let response = within(responses.next()).await.expect("not the end");
    response.into_result().expect_err("the connection broke");
    assert!(within(responses.next()).await.is_none());
}

#[tokio::test]
async fn a_sender_that_waits_elsewhere_is_told_when_its_handler_has_returned() {
    let (told, mut tells) = mpsc::unbounded_channel();
    let server = echo().streaming(
        STREAM,
        move |ctx: ServerCtx, _: Number, replies: ReplySender<Number>| {
            let told = told.clone();
            async move {
                let sender = replies.clone();
                let (filled, full) = oneshot::channel();
                tokio::spawn(async move {
                    let mut filled = Some(filled);
                    loop {
                        let chunk = number(1);
                        match sender.try_send(chunk.clone()) {
                            Ok(()) => continue,
                            Err(TrySendError::Full(back)) => assert_eq!(back, chunk),
                            Err(TrySendError::Gone) => break,
                        }
                        filled.take().map(|filled| filled.send(()));
                        if sender.send(chunk).await.is_err() {
                            break;
                        }
                    }
                    told.send(sender.try_send(number(2))).expect("it listens");
                });
                full.await.expect("it fills the window");
                // Until the sender waits, which gives up the turn.
                while !format!("{ctx:?}").contains("released: true") {
                    tokio::task::yield_now().await;
                }
                Ok(())
            }
        },
    );
    let server = TestServer::start(server).await;
    let configuration = common::connect(std::slice::from_ref(&server));
    let mut responses = call(&configuration, 0, 0).unread_replies(1_000).responses();
    let last = within(tells.recv()).await.expect("it tells");
    assert_eq!(last, Err(TrySendError::Gone));
    let mut chunks = 0;
    while let Some(response) = within(responses.next()).await {
        response.into_result().expect("a chunk");
        chunks += 1;
    }
    // One goes before the caller's credit has come, with which the window is full.
    let most = 1_000_usize.div_ceil(cost(1, 0) - 2);
    assert!((1..=most).contains(&chunks), "{chunks} of {most}");
}

#[tokio::test]
async fn a_server_that_shuts_down_sends_what_it_has_begun_as_its_caller_takes_it() {
    let (sent, gone) = (Counter::new(), Counter::new());
    let server = streams(echo(), &sent, &gone)
        .bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let configuration = Configuration::builder()
        .nodes([server.local_addr().to_string()])
        .connect()
        .expect("legal");
    let stop = Arc::new(Notify::new());
    let asked = Arc::clone(&stop);
    let grace = std::time::Duration::from_secs(60);
    let serving = tokio::spawn(async move {
        server
            .serve_with_shutdown(async move { asked.notified().await }, grace)
            .await;
    });
    let size = 10_000;
    let mut responses = call(&configuration, 1_000, size).responses();
    sent.reached(unread(WINDOW, size)).await;
    stop.notify_one();
    takes_all(&mut responses, 0, 1_000, size).await;
    within(serving).await.expect("no panic");
    assert_eq!(gone.get(), 0);
}

#[tokio::test]
async fn a_client_that_streams_to_its_server_is_held_back_too() {
    let (sent, gone) = (Counter::new(), Counter::new());
    let server = echo().bind("127.0.0.1:0").await.expect("a free port");
    let (addr, clients) = (server.local_addr(), server.clients());
    let serving = tokio::spawn(server.serve());
    let client = Configuration::builder()
        .nodes([addr.to_string()])
        .serve(streams(echo(), &sent, &gone))
        .connect()
        .expect("legal");
    let clients = within(clients.wait_for(|clients| clients.len() == 1))
        .await
        .expect("it serves");
    let size = 10_000;
    let mut responses = call(&clients, 1_000, size).responses();
    let held_at = unread(WINDOW, size);
    sent.reached(held_at).await;
    for value in 0..20 {
        for all in [&client, &clients] {
            let call = Client::new(all).quorum_call::<_, Number>(ECHO, number(value));
            within(call.all()).await.expect("nothing waits");
        }
    }
    assert_eq!(sent.get(), held_at);
    takes_all(&mut responses, 0, 1_000, size).await;
    serving.abort();
}

#[tokio::test]
async fn a_handler_is_told_when_its_caller_cannot_use_a_reply() {
    const LIMIT: usize = 1_000;
    for limit_of_server in [false, true] {
        let (sent, gone) = (Counter::new(), Counter::new());
        let mut server = streams(echo(), &sent, &gone).concurrency_limit_per_connection(1);
        let mut client = Configuration::builder();
        if limit_of_server {
            server = server.max_encoding_message_size(LIMIT);
        } else {
            client = client.max_decoding_message_size(LIMIT);
        }
        let server = TestServer::start(server).await;
        let configuration = client
            .nodes([server.addr.to_string()])
            .connect()
            .expect("legal");
        for call in 1..=5 {
            let mut responses = self::call(&configuration, 1_000_000, 2 * LIMIT).responses();
            let response = within(responses.next()).await.expect("one node");
            let error = response.into_result().expect_err("it is too large");
            assert!(error.to_string().contains("1000"), "{error}");
            assert!(within(responses.next()).await.is_none());
            // Else it would wait for credit, and no further request would ever start.
            gone.reached(call).await;
        }
    }
}

#[tokio::test]
async fn credit_is_read_behind_requests_that_wait_for_those_who_need_it() {
    const STREAMS: usize = 3;
    const ECHOES: usize = 100;
    let (sent, gone) = (Counter::new(), Counter::new());
    let server = streams(echo(), &sent, &gone)
        .concurrency_limit_per_connection(STREAMS)
        .max_waiting_bytes(50_000);
    let server = TestServer::start(server).await;
    let configuration = common::connect(std::slice::from_ref(&server));
    let size = 10_000;
    let mut unread: Vec<_> = (0..STREAMS)
        .map(|_| call(&configuration, 1_000, size).responses())
        .collect();
    let held_at = unread_in_all(STREAMS, size);
    sent.reached(held_at).await;
    // None of them starts before a stream has ended.
    let client = Client::new(&configuration);
    let request = Number {
        value: 1,
        payload: vec![7; 1_000].into(),
    };
    let mut echoes = Vec::new();
    for _ in 0..ECHOES {
        let call = client.rpc::<_, Number>(&configuration[0], ECHO, request.clone());
        echoes.push(tokio::spawn(call.into_future()));
    }
    let last = echoes.pop().expect("there are some");
    let error = within(last).await.expect("no panic").expect_err("too many");
    assert_eq!(error.status().code(), Code::ResourceExhausted, "{error}");
    assert_eq!(sent.get(), held_at);
    for responses in &mut unread {
        takes_all(responses, 0, 1_000, size).await;
    }
    let mut answered = 0;
    for echo in echoes {
        match within(echo).await.expect("no panic") {
            Ok(_) => answered += 1,
            Err(error) => assert_eq!(error.status().code(), Code::ResourceExhausted, "{error}"),
        }
    }
    // What found room has waited, each with 256 bytes beside its own.
    assert!((35..=45).contains(&answered), "{answered}");
}

/// More requests come than may wait, and are held back until this makes room. None is refused.
async fn others_wait_until(configuration: &Configuration, make_room: impl FnOnce()) {
    let client = Client::new(configuration);
    let request = Number {
        value: 1,
        payload: vec![7; 1_000].into(),
    };
    let mut echoes = Vec::new();
    for _ in 0..200 {
        let call = client.rpc::<_, Number>(&configuration[0], ECHO, request.clone());
        echoes.push(tokio::spawn(call.into_future()));
    }
    // All that were to be refused would have been.
    within(configuration.flush()).await;
    make_room();
    for echo in echoes {
        within(echo).await.expect("no panic").expect("it waited");
    }
}

#[tokio::test]
async fn handlers_that_run_on_after_their_callers_gave_up_hold_back_and_refuse_nothing() {
    const HOLD: &str = "test.Test.Hold";
    const RUNNING: usize = 3;
    let (gave_up, open) = (Counter::new(), Arc::new(tokio::sync::Semaphore::new(0)));
    let server = echo()
        .concurrency_limit_per_connection(RUNNING)
        .max_waiting_bytes(50_000)
        .unary(HOLD, {
            let (gave_up, open) = (gave_up.clone(), Arc::clone(&open));
            move |ctx: ServerCtx, request: Number| {
                let (gave_up, open) = (gave_up.clone(), Arc::clone(&open));
                async move {
                    ctx.release();
                    ctx.cancelled().await;
                    gave_up.add();
                    open.acquire().await.expect("it stays").forget();
                    Ok::<_, Status>(request)
                }
            }
        });
    let server = TestServer::start(server).await;
    let configuration = common::connect(std::slice::from_ref(&server));
    let client = Client::new(&configuration);
    // Connected, so that what is given up was written.
    let echo = client.rpc::<_, Number>(&configuration[0], ECHO, number(1));
    within(echo.into_future()).await.expect("it is up");
    for _ in 0..RUNNING {
        let call = client.rpc::<_, Number>(&configuration[0], HOLD, number(1));
        let call = call.timeout(std::time::Duration::from_millis(20)).send();
        within(call).await.expect_err("the handler holds it");
    }
    gave_up.reached(RUNNING as u64).await;
    others_wait_until(&configuration, || open.add_permits(RUNNING)).await;
}

#[tokio::test]
async fn handlers_that_used_up_their_credit_and_need_none_hold_back_and_refuse_nothing() {
    const FILL: &str = "test.Test.Fill";
    const RUNNING: usize = 3;
    let (sent, open) = (Counter::new(), Arc::new(tokio::sync::Semaphore::new(0)));
    let server = echo()
        .concurrency_limit_per_connection(RUNNING)
        .max_waiting_bytes(50_000)
        .streaming(FILL, {
            let (sent, open) = (sent.clone(), Arc::clone(&open));
            move |ctx: ServerCtx, request: Number, replies: ReplySender<Number>| {
                let (sent, open) = (sent.clone(), Arc::clone(&open));
                async move {
                    ctx.release();
                    replies.send(request).await?;
                    sent.add();
                    open.acquire().await.expect("it stays").forget();
                    Ok::<_, Status>(())
                }
            }
        });
    let server = TestServer::start(server).await;
    let configuration = common::connect(std::slice::from_ref(&server));
    let client = Client::new(&configuration);
    // Connected, so that the node has said that it knows of credit.
    let echo = client.rpc::<_, Number>(&configuration[0], ECHO, number(1));
    within(echo.into_future()).await.expect("it is up");
    let mut streams = Vec::new();
    for _ in 0..RUNNING {
        let call = client.streamed_quorum_call::<_, Number>(FILL, number(1));
        streams.push(call.unread_replies(1).responses());
    }
    sent.reached(RUNNING as u64).await;
    others_wait_until(&configuration, || open.add_permits(RUNNING)).await;
}

/// Keeps what its handlers were given, as one does that publishes later.
struct Keeping {
    kept: std::sync::Mutex<Vec<(ServerCtx, ReplySender<Number>)>>,
    /// Closed when this is dropped.
    _dropped: oneshot::Sender<()>,
}

#[tokio::test]
async fn who_keeps_a_context_or_a_sender_does_not_keep_the_handlers() {
    let (sender, dropped) = oneshot::channel();
    let service = Arc::new(Keeping {
        kept: std::sync::Mutex::default(),
        _dropped: sender,
    });
    let started = Counter::new();
    let server = Server::builder().streaming(STREAM, {
        let started = started.clone();
        move |ctx: ServerCtx, _: Number, replies: ReplySender<Number>| {
            let service = Arc::clone(&service);
            let started = started.clone();
            async move {
                let mut kept = service.kept.lock().expect("nobody panics with it");
                kept.push((ctx, replies));
                started.add();
                Ok::<_, Status>(())
            }
        }
    });
    let server = TestServer::start(server).await;
    let configuration = common::connect(std::slice::from_ref(&server));
    let _responses = call(&configuration, 1, 1).responses();
    started.reached(1).await;
    server.stop().await;
    within(dropped)
        .await
        .expect_err("it is dropped, and says nothing");
}
