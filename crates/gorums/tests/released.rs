//! Handlers that released their turn and suspended: one task polls them, and each goes on as on a
//! task of its own.

mod common;
#[path = "common/memory.rs"]
mod memory;

use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use common::{Counter, Number, TestServer, connect, number, within};
use gorums::{Client, Configuration, Server, ServerBuilder, ServerCtx, Status};
use memory::{Network, settle};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

const HOLD: &str = "test.Released.Hold";
const BLOCK: &str = "test.Released.Block";
const ECHO: &str = "test.Test.Echo";

fn one_thread() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn threads(workers: usize) -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// More than are polled in one turn.
const MANY: u64 = 1000;

/// Many calls at once of handlers that return what they got.
async fn all_answer(server: ServerBuilder) {
    let server = TestServer::start(server).await;
    let configuration = connect(std::slice::from_ref(&server));
    let client = Client::new(&configuration);
    let node = &configuration[0];
    let calls: Vec<_> = (0..MANY)
        .map(|value| {
            client
                .rpc::<_, Number>(node, HOLD, number(value))
                .timeout(Duration::from_secs(3600))
                .send()
        })
        .collect();
    for (value, call) in (0..).zip(calls) {
        assert_eq!(call.await.expect("it ends by itself").value, value);
    }
}

#[tokio::test(start_paused = true)]
async fn many_that_sleep_all_answer() {
    let server = Server::builder().unary(HOLD, |ctx: ServerCtx, request: Number| async move {
        ctx.release();
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(request.value % 10)).await;
        }
        Ok::<_, Status>(request)
    });
    all_answer(server).await;
}

/// Handlers that yield again and again, and spend the budget of the task that polls them.
#[tokio::test]
async fn many_that_are_woken_while_they_are_polled_all_answer() {
    let server = Server::builder().unary(HOLD, |ctx: ServerCtx, request: Number| async move {
        ctx.release();
        for _ in 0..10 {
            tokio::task::yield_now().await;
            tokio::task::coop::consume_budget().await;
        }
        Ok::<_, Status>(request)
    });
    within(all_answer(server)).await;
}

/// After they were woken, as many as there are workers but one block their threads. Those that are
/// woken by then and later go on.
#[test]
fn those_that_block_their_threads_hold_up_no_other() {
    let runtime = threads(3);
    let (unblock, blocked) = mpsc::channel::<()>();
    let blocked = Arc::new(Mutex::new(blocked));
    let (suspended, blocking) = (Counter::new(), Counter::new());
    let (block, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let server = {
        let (block, go_on) = (block.clone(), go_on.clone());
        let (suspended, blocking) = (suspended.clone(), blocking.clone());
        let also_suspended = suspended.clone();
        common::echo()
            .unary(BLOCK, move |ctx: ServerCtx, request: Number| {
                let (block, blocked) = (block.clone(), blocked.clone());
                let (suspended, blocking) = (suspended.clone(), blocking.clone());
                async move {
                    ctx.release();
                    let woken = block.notified();
                    suspended.add();
                    woken.await;
                    blocking.add();
                    blocked
                        .lock()
                        .expect("not poisoned")
                        .recv_timeout(Duration::from_secs(60))
                        .map_err(|_| Status::deadline_exceeded("the others did not go on"))?;
                    Ok(request)
                }
            })
            .unary(HOLD, move |ctx: ServerCtx, request: Number| {
                let (suspended, go_on) = (also_suspended.clone(), go_on.clone());
                async move {
                    ctx.release();
                    let woken = go_on.notified();
                    suspended.add();
                    woken.await;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    Ok::<_, Status>(request)
                }
            })
    };
    let server = runtime.block_on(TestServer::start(server));
    one_thread().block_on(async {
        let configuration = connect(std::slice::from_ref(&server));
        let client = Client::new(&configuration);
        let node = &configuration[0];
        let send = |method, value| client.rpc::<_, Number>(node, method, number(value)).send();
        for round in 0..10 {
            let blocking_calls = [send(BLOCK, 0), send(BLOCK, 1)];
            let others: Vec<_> = (0..10).map(|value| send(HOLD, value)).collect();
            suspended.reached((round + 1) * 12).await;
            // One of them holds the lock of the channel, the other waits for it.
            block.notify_waiters();
            blocking.reached((round + 1) * 2).await;
            go_on.notify_waiters();
            within(send(ECHO, round)).await.expect("the lane goes on");
            for other in others {
                within(other).await.expect("the others go on");
            }
            for _ in &blocking_calls {
                unblock.send(()).expect("the server is there");
            }
            for call in blocking_calls {
                within(call).await.expect("it was let go in time");
            }
        }
    });
    drop(server);
    runtime.shutdown_timeout(Duration::from_secs(10));
}

/// Tells when it is dropped.
struct Guard(Arc<AtomicBool>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A server whose handlers suspend for ever, nobody having their wakers.
fn holding(dropped: &Arc<AtomicBool>, started: &Counter) -> ServerBuilder {
    let (dropped, started) = (dropped.clone(), started.clone());
    common::echo().unary(HOLD, move |ctx: ServerCtx, request: Number| {
        let guard = Guard(dropped.clone());
        let started = started.clone();
        async move {
            ctx.release();
            started.add();
            pending::<()>().await;
            drop(guard);
            Ok::<_, Status>(request)
        }
    })
}

/// A handler that nobody can wake outlives its connection, and ends with the server's runtime.
fn stays_until_the_runtime_ends(runtime: Runtime, end: impl FnOnce(Runtime)) {
    let (dropped, started) = (Arc::new(AtomicBool::new(false)), Counter::new());
    runtime.block_on(async {
        let server = TestServer::start(holding(&dropped, &started)).await;
        let configuration = connect(std::slice::from_ref(&server));
        let client = Client::new(&configuration);
        let node = &configuration[0];
        let call = client.rpc::<_, Number>(node, HOLD, number(0)).send();
        started.reached(1).await;
        let echo = client.rpc::<_, Number>(node, ECHO, number(1)).send();
        within(echo).await.expect("the connection goes on");
        drop(call);
        drop(client);
        drop(configuration);
        let other = connect(std::slice::from_ref(&server));
        let echo = Client::new(&other).rpc::<_, Number>(&other[0], ECHO, number(1));
        within(echo.send()).await.expect("the server goes on");
        assert!(!dropped.load(Ordering::SeqCst), "nobody ended the handler");
        // The server is not stopped: the runtime ends under it.
        std::mem::forget(server);
    });
    end(runtime);
    assert!(dropped.load(Ordering::SeqCst), "the runtime has ended");
}

#[test]
fn one_that_nobody_can_wake_stays_until_the_runtime_ends() {
    stays_until_the_runtime_ends(one_thread(), drop);
}

#[test]
fn one_that_nobody_can_wake_stays_until_a_runtime_with_threads_ends() {
    stays_until_the_runtime_ends(threads(2), |runtime| {
        runtime.shutdown_timeout(Duration::from_secs(10));
    });
}

#[test]
fn those_that_sleep_are_dropped_when_the_runtime_ends() {
    for runtime in [one_thread(), threads(2)] {
        let (dropped, started) = (Arc::new(AtomicBool::new(false)), Counter::new());
        let builder = {
            let (dropped, started) = (dropped.clone(), started.clone());
            Server::builder().unary(HOLD, move |ctx: ServerCtx, request: Number| {
                let guard = Guard(dropped.clone());
                let started = started.clone();
                async move {
                    ctx.release();
                    started.add();
                    tokio::time::sleep(Duration::from_secs(3600)).await;
                    drop(guard);
                    Ok::<_, Status>(request)
                }
            })
        };
        runtime.block_on(async {
            let server = TestServer::start(builder).await;
            let configuration = connect(std::slice::from_ref(&server));
            let client = Client::new(&configuration);
            let node = &configuration[0];
            let call = client.rpc::<_, Number>(node, HOLD, number(0)).send();
            started.reached(1).await;
            drop(call);
            std::mem::forget(server);
        });
        runtime.shutdown_timeout(Duration::from_secs(10));
        assert!(dropped.load(Ordering::SeqCst), "the runtime has ended");
    }
}

/// Also where it is awaited only after the handler was moved.
#[tokio::test]
async fn those_that_await_their_release_have_tasks_of_their_own() {
    let ids = Arc::new(Mutex::new(Vec::new()));
    let started = Counter::new();
    let open = Arc::new(Notify::new());
    let server = {
        let (ids, started, open) = (ids.clone(), started.clone(), open.clone());
        Server::builder().unary(HOLD, move |ctx: ServerCtx, request: Number| {
            let (ids, started, open) = (ids.clone(), started.clone(), open.clone());
            async move {
                if request.value == 0 {
                    ctx.release();
                    tokio::task::yield_now().await;
                }
                ctx.release().await;
                ids.lock().expect("not poisoned").push(tokio::task::id());
                let opened = open.notified();
                started.add();
                opened.await;
                Ok::<_, Status>(request)
            }
        })
    };
    let server = TestServer::start(server).await;
    let configuration = connect(std::slice::from_ref(&server));
    let client = Client::new(&configuration);
    let node = &configuration[0];
    let calls: Vec<_> = [0, 0, 1, 1]
        .map(|value| client.rpc::<_, Number>(node, HOLD, number(value)).send())
        .into();
    started.reached(4).await;
    open.notify_waiters();
    for call in calls {
        within(call).await.expect("it was let go");
    }
    let mut ids = ids.lock().expect("not poisoned").clone();
    ids.sort_unstable_by_key(ToString::to_string);
    ids.dedup();
    assert_eq!(ids.len(), 4, "each has a task of its own");
}

/// Enough for 500 MiB.
const LARGE_REPLIES: u64 = 2000;
const LARGE_REPLY: usize = 256 * 1024;

/// The bound of a connection's replies, by default.
const REPLY_BYTES: usize = 4 * 1024 * 1024;

/// How many handlers of a connection may run by default after they released.
const MOST_RUNNING: usize = 1024;

/// Has a node's client send many calls with large replies, of which it takes none at first. The
/// most bytes that were live meanwhile, and how many replies had been made by the time when nothing
/// went on any more. In the end all replies come.
fn live_bytes_of_replies_that_nobody_takes(suspends: bool) -> (usize, usize) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let made = Counter::new();
    let network = Network::new();
    let server = {
        let made = made.clone();
        common::echo().transport(network.clone()).unary(
            HOLD,
            move |ctx: ServerCtx, request: Number| {
                let made = made.clone();
                async move {
                    ctx.release();
                    if suspends {
                        tokio::task::yield_now().await;
                    }
                    made.add();
                    Ok::<_, Status>(Number {
                        payload: vec![7; LARGE_REPLY].into(),
                        ..request
                    })
                }
            },
        )
    };
    let (_server, configuration) = runtime.block_on(async {
        let server = TestServer::start_at(server, "node:1").await;
        let configuration = Configuration::builder()
            .transport(network.clone())
            .nodes(["node:1"])
            .connect()
            .expect("a legal address");
        let echo = Client::new(&configuration).rpc::<_, Number>(&configuration[0], ECHO, number(0));
        echo.await.expect("the server is up");
        (server, configuration)
    });
    network.take("node:1", false);
    let client = Client::new(&configuration);
    let mut calls = Vec::new();
    let measured = allocation_counter::measure(|| {
        runtime.block_on(async {
            calls.extend((0..LARGE_REPLIES).map(|value| {
                let call = client.rpc::<_, Number>(&configuration[0], HOLD, number(value));
                call.timeout(Duration::from_secs(3600)).send()
            }));
            settle().await;
        });
    });
    let made = usize::try_from(made.get()).expect("not many");
    network.take("node:1", true);
    runtime.block_on(async {
        for (value, call) in (0..).zip(calls) {
            let reply = call.await.expect("the replies are taken now");
            assert_eq!((reply.value, reply.payload.len()), (value, LARGE_REPLY));
        }
    });
    let live = usize::try_from(measured.bytes_max).expect("not many");
    (live, made)
}

/// Beside the replies: the batches that HTTP/2 has, requests and calls, and the reply that was
/// being encoded, which is there twice meanwhile.
const BESIDE: usize = 8 * 1024 * 1024;

#[test]
fn replies_of_released_handlers_that_nobody_takes_stay_within_their_bound() {
    let (live, made) = live_bytes_of_replies_that_nobody_takes(false);
    assert!(live < REPLY_BYTES + BESIDE, "{live} bytes");
    assert!(made * LARGE_REPLY < REPLY_BYTES + BESIDE, "{made} replies");
}

#[test]
fn handlers_in_the_making_add_no_more_than_a_reply_each_to_the_bound() {
    let (live, made) = live_bytes_of_replies_that_nobody_takes(true);
    let bound = REPLY_BYTES + MOST_RUNNING * LARGE_REPLY + BESIDE;
    assert!(live < bound, "{live} bytes");
    assert!(made * LARGE_REPLY < bound, "{made} replies");
}
