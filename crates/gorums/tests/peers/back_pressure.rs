//! Clients that send more than is worked off, or read no replies.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use gorums::{Server, ServerBuilder, ServerCtx, Status};
use tokio::sync::Semaphore;

use crate::common::{Counter, Number, TestServer, echo};
use crate::raw_client::{RawClient, opened, stream_request};
use crate::wire::{ECHO, Entry, NOTE, envelope, envelope_of_size, grpc_status};

/// What a one-way handler has noted.
#[derive(Clone)]
struct Noted {
    seen: Arc<Mutex<Vec<u64>>>,
    count: Counter,
    /// The first handler waits here. Closed, this lets all of them go on.
    gate: Arc<Semaphore>,
}

impl Default for Noted {
    fn default() -> Self {
        Self {
            seen: Arc::default(),
            count: Counter::new(),
            gate: Arc::new(Semaphore::new(0)),
        }
    }
}

impl Noted {
    /// A server with the handler.
    fn builder(&self) -> ServerBuilder {
        let noted = self.clone();
        echo().one_way(NOTE, move |_ctx: ServerCtx, request: Number| {
            let noted = noted.clone();
            async move {
                let _ = noted.gate.acquire().await;
                noted.seen.lock().expect("not poisoned").push(request.value);
                noted.count.add();
            }
        })
    }

    /// Waits until the numbers from 0 to this have been noted, in this order.
    async fn in_order(&self, count: u64) {
        self.count.reached(count).await;
        let seen = self.seen.lock().expect("not poisoned");
        assert_eq!(*seen, (0..count).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_flood_of_small_frames_is_held_back_by_a_blocked_handler_and_then_handled_in_order() {
    const MESSAGES: u64 = 100_000;
    let noted = Noted::default();
    let (_server, mut client, mut stream) = opened(noted.builder()).await;
    let mut bytes = 0;
    let mut held_back = None;
    for value in 0..MESSAGES {
        let mut message = envelope(value + 1, NOTE, value);
        message.entries = vec![Entry {
            key: "padding".to_owned(),
            value: "x".repeat(150),
        }];
        let frame = message.framed();
        if held_back.is_some() {
            stream.may_send(frame.len()).await;
        } else if !stream.may_send_at_once(&mut client, frame.len()).await {
            held_back = Some(bytes);
            assert_eq!(noted.count.get(), 0, "the first handler has its turn");
            noted.gate.close();
            stream.may_send(frame.len()).await;
        }
        bytes += frame.len();
        stream.send_bytes(frame);
        if value % 100 == 0 {
            // For the connection to write.
            tokio::task::yield_now().await;
        }
    }
    let held_back = held_back.expect("flow control holds the client back");
    // The window, and what was read before the bound was reached.
    assert!(held_back < bytes / 2, "{held_back} of {bytes} bytes");
    noted.in_order(MESSAGES).await;
    stream.call(1).await;
}

#[tokio::test]
async fn what_came_before_the_client_went_is_handled_in_order_however_much_waits() {
    const MESSAGES: u64 = 2_000;
    for reset in [true, false] {
        let noted = Noted::default();
        let builder = noted.builder().max_waiting_bytes(1_000);
        let (_server, mut client, mut stream) = opened(builder).await;
        for value in 0..MESSAGES {
            stream.send(&envelope(value + 1, NOTE, value));
        }
        // The server has all of it, and the first handler has its turn.
        client.is_read().await;
        if reset {
            stream.reset();
            client.ping().await;
        } else {
            client.cut();
        }
        noted.gate.close();
        noted.in_order(MESSAGES).await;
    }
}

#[tokio::test]
async fn streams_wait_until_the_requests_of_earlier_ones_have_started() {
    let noted = Noted::default();
    let builder = noted.builder().max_waiting_bytes(1_000);
    let (_server, mut client, mut stream) = opened(builder).await;
    for id in 1..=100 {
        stream.send(&envelope(id, NOTE, id));
    }
    client.is_read().await;
    stream.reset();
    let response = client.refusal(stream_request()).await;
    let (status, message) = grpc_status(response.headers());
    assert_eq!(status, 8);
    assert!(message.contains("earlier streams"));
    noted.gate.close();
    noted.count.reached(100).await;
    client.open().await.call(1).await;
}

#[tokio::test]
async fn reading_pauses_at_the_bound_however_many_frames_come_at_once() {
    const WAITING: u64 = 200;
    let (started, gate) = (Counter::new(), Arc::new(Semaphore::new(0)));
    let (start, held) = (started.clone(), Arc::clone(&gate));
    let builder = Server::builder()
        .max_waiting_bytes(10_000)
        .max_decoding_message_size(1_000)
        .unary(ECHO, move |_ctx: ServerCtx, request: Number| {
            let held = Arc::clone(&held);
            start.add();
            async move {
                // Closed once the first handler is let go.
                let _ = held.acquire().await;
                Ok::<_, Status>(request)
            }
        });
    let (_server, mut client, mut stream) = opened(builder).await;
    for id in 1..=WAITING {
        stream.send(&envelope(id, ECHO, id));
    }
    // Is answered when it is read, before the others.
    stream.send(&envelope_of_size(WAITING + 1, ECHO, 5_000));
    started.reached(1).await;
    client.is_read().await;
    assert!(
        !stream.has_reply().await,
        "more was read than the bound allows"
    );
    gate.close();
    let mut ids = Vec::new();
    for _ in 0..=WAITING {
        let reply = stream.reply().await;
        assert_eq!(reply.status.is_some(), reply.id == WAITING + 1);
        ids.push(reply.id);
    }
    ids.sort_unstable();
    assert_eq!(ids, (1..=WAITING + 1).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_window_full_of_tiny_frames_does_not_end_the_connection() {
    let noted = Noted::default();
    let (_server, mut client, mut stream) = opened(noted.builder()).await;
    let frame = envelope(1, NOTE, 1).framed();
    let mut sent = 0;
    while stream.may_send_at_once(&mut client, frame.len()).await {
        stream.send_bytes(frame.clone());
        sent += 1;
        if sent % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    noted.gate.close();
    noted.count.reached(sent).await;
}

#[tokio::test]
async fn a_peer_that_reads_no_replies_holds_up_its_own_handlers_only() {
    const REQUESTS: u64 = 1_000;
    const REPLY: usize = 10_000;
    let started = Counter::new();
    let start = started.clone();
    let builder = Server::builder().max_reply_bytes(100_000).unary(
        ECHO,
        move |_ctx: ServerCtx, request: Number| {
            start.add();
            async move {
                Ok::<_, Status>(Number {
                    value: request.value,
                    payload: Bytes::from(vec![7; REPLY]),
                })
            }
        },
    );
    let (server, mut client, mut stream) = opened(builder).await;
    for id in 1..=REQUESTS {
        stream.send(&envelope(id, ECHO, id));
    }
    // The replies fill the window and then the queue.
    started.reached(16).await;
    client.is_read().await;
    let mut other = RawClient::connect(server.addr).await;
    let mut other = other.open().await;
    for id in 1..=100 {
        other.send(&envelope(id, ECHO, id));
        assert_eq!(other.reply().await.number(), id);
    }
    let started = started.get() - 100;
    assert!(
        started < 50,
        "{started} handlers started, and nobody reads their replies"
    );
    for id in 1..=REQUESTS {
        let reply = stream.reply().await;
        assert_eq!((reply.id, reply.number()), (id, id));
    }
}

#[test]
fn pings_are_answered_while_a_handler_blocks_its_thread() {
    let workers = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let started = Counter::new();
    let start = started.clone();
    let builder = Server::builder().unary(ECHO, move |_ctx: ServerCtx, request: Number| {
        start.add();
        let _ = wait.lock().expect("not poisoned").recv();
        async move { Ok::<_, Status>(request) }
    });
    let server = workers.block_on(TestServer::start(builder));
    // The client has a thread of its own.
    let client = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    client.block_on(async {
        let mut client = RawClient::connect(server.addr).await;
        let mut stream = client.open().await;
        stream.send(&envelope(1, ECHO, 1));
        started.reached(1).await;
        for _ in 0..10 {
            client.ping().await;
        }
        go_on.send(()).expect("the handler waits");
        assert_eq!(stream.reply().await.id, 1);
    });
}
