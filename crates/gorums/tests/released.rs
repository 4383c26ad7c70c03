//! Handlers that released their turn and suspended: one task polls them, and each goes on as on a task
//! of its own.

mod common;

use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use common::{Counter, Number, TestServer, connect, number, within};
use gorums::{Client, Server, ServerBuilder, ServerCtx, Status};
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
