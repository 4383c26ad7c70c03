//! How a stream ends from the client's side.

use std::sync::Arc;

use gorums::{Server, ServerBuilder, ServerCtx, Status};
use tokio::sync::Semaphore;

use crate::common::{Counter, Number, TestServer, echo};
use crate::raw_client::{RawClient, opened};
use crate::wire::{ECHO, envelope};

const WAIT: &str = "test.Test.Wait";

/// Handlers that wait until their caller has gone. They count when they start, and when they have
/// heard of that.
fn waiting(builder: ServerBuilder, released: bool) -> (ServerBuilder, Counter, Counter) {
    let (started, cancelled) = (Counter::new(), Counter::new());
    let (start, cancel) = (started.clone(), cancelled.clone());
    let builder = builder.unary(WAIT, move |ctx: ServerCtx, request: Number| {
        let (start, cancel) = (start.clone(), cancel.clone());
        async move {
            start.add();
            if released {
                ctx.release();
            }
            ctx.cancelled().await;
            cancel.add();
            Ok::<_, Status>(request)
        }
    });
    (builder, started, cancelled)
}

#[tokio::test]
async fn after_a_half_close_all_replies_come_and_then_trailers_with_status_0() {
    let held = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&held);
    let builder = Server::builder().unary(ECHO, move |ctx: ServerCtx, request: Number| {
        let gate = Arc::clone(&gate);
        async move {
            // Handlers with and without their turn are waited for.
            if request.value.is_multiple_of(2) {
                ctx.release();
            }
            gate.acquire().await.expect("open").forget();
            Ok::<_, Status>(request)
        }
    });
    let (_server, mut client, mut stream) = opened(builder).await;
    for id in 1..=10 {
        stream.send(&envelope(id, ECHO, id));
    }
    stream.half_close();
    // The server has seen the end when it answers this.
    client.ping().await;
    held.add_permits(10);
    let mut ids = Vec::new();
    for _ in 1..=10 {
        ids.push(stream.reply().await.id);
    }
    ids.sort_unstable();
    assert_eq!(ids, (1..=10).collect::<Vec<_>>());
    assert_eq!(stream.status().await.0, 0);
    // The connection is good for another stream.
    let mut stream = client.open().await;
    held.add_permits(1);
    stream.call(11).await;
}

#[tokio::test]
async fn a_stream_that_ends_within_a_message_ends_with_status_13() {
    let (_server, _client, mut stream) = opened(echo()).await;
    stream.call(1).await;
    stream.send_bytes(envelope(2, ECHO, 2).framed()[..7].to_vec());
    stream.half_close();
    assert_eq!(stream.status().await.0, 13);
}

#[tokio::test]
async fn a_reset_by_the_client_is_a_normal_end_and_handlers_hear_of_it() {
    let (builder, started, cancelled) = waiting(echo(), true);
    let (_server, mut client, mut stream) = opened(builder).await;
    stream.send(&envelope(1, WAIT, 1));
    started.reached(1).await;
    stream.reset();
    cancelled.reached(1).await;
    client.open().await.call(2).await;
}

#[tokio::test]
async fn a_new_stream_may_follow_right_behind_a_reset() {
    let server = TestServer::start(echo()).await;
    let mut client = RawClient::connect(server.addr).await;
    for id in 1..=20 {
        let mut stream = client.open().await;
        stream.call(id).await;
        // Both frames are written at once.
        stream.reset();
    }
}

#[tokio::test]
async fn a_reset_is_noticed_while_reading_is_paused() {
    let (builder, started, cancelled) = waiting(Server::builder().max_waiting_bytes(1), false);
    let (_server, _client, mut stream) = opened(builder).await;
    for id in 1..=10 {
        stream.send(&envelope(id, WAIT, id));
    }
    started.reached(1).await;
    stream.reset();
    cancelled.reached(1).await;
}

#[tokio::test]
async fn a_reset_is_noticed_after_a_half_close() {
    let (builder, started, cancelled) = waiting(Server::builder(), false);
    let (_server, mut client, mut stream) = opened(builder).await;
    stream.send(&envelope(1, WAIT, 1));
    stream.half_close();
    started.reached(1).await;
    client.ping().await;
    stream.reset();
    cancelled.reached(1).await;
}
