//! Order and release: what starts when, and who waits for whom.

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Counter, Number, TestServer, cluster, connect, number, within};
use gorums::server::HandlerOrder;
use gorums::{Client, Server, ServerBuilder, ServerCtx, Status};
use tokio::sync::{Notify, oneshot};

const RPC: &str = "test.Order.Rpc";
const UNICAST: &str = "test.Order.Unicast";
const MULTICAST: &str = "test.Order.Multicast";
const QUORUM: &str = "test.Order.Quorum";

/// What the handlers of one server have seen, in the order in which they started.
type Log = Arc<Mutex<Vec<u64>>>;

fn log() -> Log {
    Arc::default()
}

fn seen(log: &Log) -> Vec<u64> {
    log.lock().expect("no handler panics with it").clone()
}

/// A little generator, so that every run of a test makes the same choices.
fn scramble(value: u64) -> u64 {
    let mut x = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Logs the request, then releases, suspends and awaits its release at points that the request's
/// number chooses.
async fn wander(log: Log, ctx: ServerCtx, request: u64) {
    log.lock().expect("no handler panics with it").push(request);
    for step in 0..3 {
        match scramble(request * 3 + step) % 5 {
            0 => {
                ctx.release();
            }
            1 => ctx.release().await,
            2 => tokio::task::yield_now().await,
            3 => {
                let ctx = ctx.clone();
                // A clone in another task releases as well as the handler's own.
                tokio::spawn(async move {
                    ctx.release();
                });
            }
            _ => {}
        }
    }
}

fn ordered(log: Log, handled: Counter) -> ServerBuilder {
    let two_way = {
        let (log, handled) = (log.clone(), handled.clone());
        move |ctx: ServerCtx, request: Number| {
            let (log, handled) = (log.clone(), handled.clone());
            async move {
                wander(log, ctx, request.value).await;
                handled.add();
                Ok::<_, Status>(request)
            }
        }
    };
    let one_way = move |ctx: ServerCtx, request: Number| {
        let (log, handled) = (log.clone(), handled.clone());
        async move {
            wander(log, ctx, request.value).await;
            handled.add();
        }
    };
    Server::builder()
        .unary(RPC, two_way.clone())
        .unary(QUORUM, two_way)
        .one_way(UNICAST, one_way.clone())
        .one_way(MULTICAST, one_way)
}

/// 10,000 numbered calls of all types, hundreds of them un-awaited at a time.
async fn numbered_calls(order: HandlerOrder) {
    const CALLS: u64 = 10_000;
    let logs: Vec<_> = (0..3).map(|_| log()).collect();
    let handled = Counter::new();
    let (_servers, configuration) = cluster(3, |index| {
        ordered(logs[index].clone(), handled.clone()).order(order)
    })
    .await;
    let client = Client::new(&configuration);
    let mut sent = 0;
    let mut awaited = 0;
    while sent < CALLS {
        let mut rpcs = Vec::new();
        let mut quorums = Vec::new();
        let mut unicasts = Vec::new();
        let mut multicasts = Vec::new();
        for _ in 0..400 {
            sent += 1;
            let request = number(sent);
            match scramble(sent) % 6 {
                // One call for each node, so that every node sees every number.
                0 => rpcs.extend(
                    configuration
                        .iter()
                        .map(|node| client.rpc::<_, Number>(node, RPC, request.clone()).send()),
                ),
                1 => unicasts.extend(
                    configuration
                        .iter()
                        .map(|node| client.unicast(node, UNICAST, request.clone()).send()),
                ),
                2 => multicasts.push(client.multicast(MULTICAST, request).send()),
                3 => assert!(client.multicast(MULTICAST, request).detach().is_empty()),
                4 => quorums.push(client.quorum_call::<_, Number>(QUORUM, request).all()),
                _ => quorums.push(client.quorum_call(QUORUM, request).threshold_of_all()),
            }
        }
        // In reverse: when a call is awaited has no influence on when it was queued.
        for rpc in rpcs.into_iter().rev() {
            within(rpc).await.expect("the node is up");
            awaited += 1;
        }
        for quorum in quorums.into_iter().rev() {
            within(quorum).await.expect("the nodes are up");
            awaited += 1;
        }
        for multicast in multicasts.into_iter().rev() {
            within(multicast).await.expect("the nodes are up");
        }
        for unicast in unicasts.into_iter().rev() {
            within(unicast).await.expect("the node is up");
        }
    }
    assert!(awaited > 0);
    handled.reached(3 * sent).await;
    for log in &logs {
        assert_eq!(seen(log), (1..=sent).collect::<Vec<_>>());
    }
}

trait ThresholdOfAll {
    fn threshold_of_all(self) -> gorums::call::Quorum<Number>;
}

impl ThresholdOfAll for gorums::call::QuorumCall<Number, Number> {
    /// A call whose frame differs from node to node keeps the order, too.
    fn threshold_of_all(self) -> gorums::call::Quorum<Number> {
        self.map_request(|_, request| Some(request.clone())).all()
    }
}

#[tokio::test]
async fn handlers_start_in_the_order_of_the_calls() {
    numbered_calls(HandlerOrder::PerConnection).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_start_in_the_order_of_the_calls_on_two_workers() {
    numbered_calls(HandlerOrder::PerConnection).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_start_in_the_order_of_the_calls_with_one_turn_per_server() {
    numbered_calls(HandlerOrder::PerServer).await;
}

#[tokio::test]
async fn queueing_happens_in_the_terminal_and_not_when_it_is_polled() {
    let log = log();
    let (_servers, configuration) = cluster(1, |_| ordered(log.clone(), Counter::new())).await;
    let client = Client::new(&configuration);
    let first = client.quorum_call::<_, Number>(QUORUM, number(1)).all();
    let second = client
        .rpc::<_, Number>(&configuration[0], RPC, number(2))
        .send();
    // Built first, queued last.
    let third = client.rpc::<_, Number>(&configuration[0], RPC, number(4));
    let fourth = client
        .quorum_call::<_, Number>(QUORUM, number(3))
        .responses();
    within(third).await.expect("up");
    within(second).await.expect("up");
    within(first).await.expect("up");
    drop(fourth);
    assert_eq!(seen(&log), [1, 2, 3, 4]);
}

/// A method whose handler waits until the test lets it go on.
struct Gate {
    started: Counter,
    open: Arc<Notify>,
}

impl Gate {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            started: Counter::new(),
            open: Arc::new(Notify::new()),
        })
    }
}

#[tokio::test]
async fn a_handler_that_does_not_release_lets_no_other_start() {
    let gate = Gate::new();
    let log = log();
    let server = {
        let gate = gate.clone();
        ordered(log.clone(), Counter::new()).unary(
            "test.Gate.Hold",
            move |_ctx, request: Number| {
                let gate = gate.clone();
                async move {
                    gate.started.add();
                    gate.open.notified().await;
                    Ok::<_, Status>(request)
                }
            },
        )
    };
    let server = TestServer::start(server).await;
    let configuration = connect(std::slice::from_ref(&server));
    let client = Client::new(&configuration);
    let node = &configuration[0];
    let held = client
        .rpc::<_, Number>(node, "test.Gate.Hold", number(0))
        .send();
    gate.started.reached(1).await;
    let mut later = client.rpc::<_, Number>(node, RPC, number(1)).send();
    // A second connection is not held up, and its round trip gives the first one time to go wrong.
    let other = connect(std::slice::from_ref(&server));
    for value in 100..200 {
        within(Client::new(&other).rpc::<_, Number>(&other[0], RPC, number(value)))
            .await
            .expect("up");
    }
    assert!(!seen(&log).contains(&1), "the turn is held");
    assert!(futures_ready(&mut later).await.is_none());
    gate.open.notify_one();
    within(held).await.expect("up");
    within(later).await.expect("up");
    assert_eq!(seen(&log).last(), Some(&1));
}

/// The future's output if it is ready now.
async fn futures_ready<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(cx) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn a_released_handler_runs_beside_later_ones() {
    let open = Arc::new(Notify::new());
    let server = {
        let open = open.clone();
        common::echo().unary(
            "test.Gate.Release",
            move |ctx: ServerCtx, request: Number| {
                let open = open.clone();
                async move {
                    ctx.release();
                    open.notified().await;
                    Ok::<_, Status>(request)
                }
            },
        )
    };
    let server = TestServer::start(server).await;
    let configuration = connect(std::slice::from_ref(&server));
    let client = Client::new(&configuration);
    let node = &configuration[0];
    let first = client
        .rpc::<_, Number>(node, "test.Gate.Release", number(1))
        .send();
    let second = client
        .rpc::<_, Number>(node, "test.Test.Echo", number(2))
        .send();
    assert_eq!(within(second).await.expect("up").value, 2);
    open.notify_one();
    assert_eq!(within(first).await.expect("up").value, 1);
}

#[tokio::test]
async fn a_clone_in_another_task_may_release() {
    let (release, released) = oneshot::channel::<()>();
    let released = Arc::new(Mutex::new(Some(released)));
    let open = Arc::new(Notify::new());
    let server = {
        let open = open.clone();
        common::echo().unary("test.Gate.Clone", move |ctx: ServerCtx, request: Number| {
            let open = open.clone();
            let released = released
                .lock()
                .expect("not poisoned")
                .take()
                .expect("called once");
            async move {
                tokio::spawn(async move {
                    let _ = released.await;
                    ctx.release();
                });
                open.notified().await;
                Ok::<_, Status>(request)
            }
        })
    };
    let server = TestServer::start(server).await;
    let configuration = connect(std::slice::from_ref(&server));
    let client = Client::new(&configuration);
    let node = &configuration[0];
    let first = client
        .rpc::<_, Number>(node, "test.Gate.Clone", number(1))
        .send();
    let second = client
        .rpc::<_, Number>(node, "test.Test.Echo", number(2))
        .send();
    release.send(()).expect("the task waits");
    assert_eq!(within(second).await.expect("up").value, 2);
    open.notify_one();
    within(first).await.expect("up");
}

#[tokio::test]
async fn dropping_the_context_is_not_a_release() {
    let gate = Gate::new();
    let log = log();
    let server = {
        let gate = gate.clone();
        ordered(log.clone(), Counter::new()).unary(
            "test.Gate.Drop",
            move |ctx: ServerCtx, request: Number| {
                drop(ctx);
                let gate = gate.clone();
                async move {
                    gate.started.add();
                    gate.open.notified().await;
                    Ok::<_, Status>(request)
                }
            },
        )
    };
    let server = TestServer::start(server).await;
    let configuration = connect(std::slice::from_ref(&server));
    let client = Client::new(&configuration);
    let node = &configuration[0];
    let first = client
        .rpc::<_, Number>(node, "test.Gate.Drop", number(1))
        .send();
    let second = client.rpc::<_, Number>(node, RPC, number(2)).send();
    gate.started.reached(1).await;
    let other = connect(std::slice::from_ref(&server));
    for value in 100..150 {
        within(Client::new(&other).rpc::<_, Number>(&other[0], RPC, number(value)))
            .await
            .expect("up");
    }
    assert!(!seen(&log).contains(&2));
    gate.open.notify_one();
    within(first).await.expect("up");
    within(second).await.expect("up");
}

#[tokio::test]
async fn replies_of_handlers_that_hold_their_turn_leave_in_order() {
    let server = Server::builder().unary(RPC, |_ctx, request: Number| async move {
        for _ in 0..scramble(request.value) % 3 {
            tokio::task::yield_now().await;
        }
        Ok::<_, Status>(request)
    });
    let server = TestServer::start(server).await;
    let configuration = connect(std::slice::from_ref(&server));
    let client = Client::new(&configuration);
    let arrived = log();
    let tasks: Vec<_> = (0..500)
        .map(|value| {
            let call = client
                .rpc::<_, Number>(&configuration[0], RPC, number(value))
                .send();
            let arrived = arrived.clone();
            // One runtime thread: the tasks run in the order in which the replies wake them.
            tokio::spawn(async move {
                let reply = call.await.expect("up");
                arrived.lock().expect("not poisoned").push(reply.value);
            })
        })
        .collect();
    for task in tasks {
        within(task).await.expect("no panic");
    }
    assert_eq!(seen(&arrived), (0..500).collect::<Vec<_>>());
}

/// Each way in which a handler can end, with what its caller sees.
#[tokio::test]
async fn each_way_of_ending_passes_the_turn_on_once() {
    let running = Arc::new(AtomicU64::new(0));
    let overlapped = Arc::new(AtomicBool::new(false));
    let log = log();
    let server = {
        let (running, overlapped, log) = (running.clone(), overlapped.clone(), log.clone());
        Server::builder().unary(RPC, move |ctx: ServerCtx, request: Number| {
            let (running, overlapped, log) = (running.clone(), overlapped.clone(), log.clone());
            async move {
                // Were a turn passed on twice, two handlers that hold theirs would overlap.
                struct Held(Arc<AtomicU64>);
                impl Drop for Held {
                    fn drop(&mut self) {
                        self.0.fetch_sub(1, Ordering::SeqCst);
                    }
                }
                let held = Held(running.clone());
                if running.fetch_add(1, Ordering::SeqCst) > 0 {
                    overlapped.store(true, Ordering::SeqCst);
                }
                log.lock().expect("not poisoned").push(request.value);
                tokio::task::yield_now().await;
                match request.value % 6 {
                    0 => Ok(request),
                    1 => Err(Status::not_found("failed")),
                    2 => panic!("on purpose"),
                    3 => {
                        drop(held);
                        ctx.release();
                        ctx.release();
                        Ok(request)
                    }
                    4 => {
                        drop(held);
                        ctx.release().await;
                        Err(Status::aborted("failed after release"))
                    }
                    _ => {
                        drop(held);
                        ctx.release().await;
                        panic!("after release")
                    }
                }
            }
        })
    };
    let server = TestServer::start(server).await;
    let configuration = connect(std::slice::from_ref(&server));
    let client = Client::new(&configuration);
    let calls: Vec<_> = (0..300)
        .map(|value| {
            client
                .rpc::<_, Number>(&configuration[0], RPC, number(value))
                .send()
        })
        .collect();
    for (value, call) in (0..).zip(calls) {
        let code = within(call).await.map(|_| ()).map_err(|e| e.code());
        let expected = match value % 6 {
            0 | 3 => Ok(()),
            1 => Err(gorums::Code::NotFound),
            4 => Err(gorums::Code::Aborted),
            _ => Err(gorums::Code::Internal),
        };
        assert_eq!(code, expected, "call {value}");
    }
    assert!(!overlapped.load(Ordering::SeqCst));
    assert_eq!(seen(&log), (0..300).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_turn_per_server_serialises_across_clients() {
    let running = Arc::new(AtomicU64::new(0));
    let most = Arc::new(AtomicU64::new(0));
    let server = {
        let (running, most) = (running.clone(), most.clone());
        Server::builder().order(HandlerOrder::PerServer).unary(
            RPC,
            move |ctx: ServerCtx, request: Number| {
                let (running, most) = (running.clone(), most.clone());
                async move {
                    let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    running.fetch_sub(1, Ordering::SeqCst);
                    if request.value.is_multiple_of(2) {
                        ctx.release().await;
                    }
                    Ok::<_, Status>(request)
                }
            },
        )
    };
    let server = Arc::new(TestServer::start(server).await);
    let mut clients = Vec::new();
    for _ in 0..4 {
        let server = Arc::clone(&server);
        clients.push(tokio::spawn(async move {
            let configuration = connect(std::slice::from_ref(&*server));
            let client = Client::new(&configuration);
            let calls: Vec<_> = (0..250)
                .map(|value| {
                    client
                        .rpc::<_, Number>(&configuration[0], RPC, number(value))
                        .send()
                })
                .collect();
            for call in calls {
                within(call).await.expect("up");
            }
        }));
    }
    for client in clients {
        within(client).await.expect("no panic");
    }
    assert_eq!(most.load(Ordering::SeqCst), 1);
}

/// A handler awaits its release and then blocks its thread until a later handler has run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_awaited_its_release_may_block_until_a_later_one_has_run() {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let receiver = Arc::new(Mutex::new(receiver));
    let server = Server::builder()
        .unary(
            "test.Block.First",
            move |ctx: ServerCtx, request: Number| {
                let receiver = receiver.clone();
                async move {
                    ctx.release().await;
                    receiver
                        .lock()
                        .expect("not poisoned")
                        .recv_timeout(Duration::from_secs(60))
                        .map_err(|_| Status::deadline_exceeded("the later handler did not run"))?;
                    Ok(request)
                }
            },
        )
        .unary("test.Block.Second", move |_ctx, request: Number| {
            let sender = sender.clone();
            async move {
                sender
                    .send(())
                    .map_err(|_| Status::internal("nobody waits"))?;
                Ok::<_, Status>(request)
            }
        });
    let server = TestServer::start(server).await;
    let configuration = connect(std::slice::from_ref(&server));
    let client = Client::new(&configuration);
    let node = &configuration[0];
    for value in 0..100 {
        let first = client
            .rpc::<_, Number>(node, "test.Block.First", number(value))
            .send();
        let second = client
            .rpc::<_, Number>(node, "test.Block.Second", number(value))
            .send();
        within(first).await.expect("the later handler ran");
        within(second).await.expect("up");
    }
}

/// The same, where the later request arrives only once the first handler blocks its thread.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_comes_while_a_released_handler_blocks_is_handled() {
    let blocked = Counter::new();
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let receiver = Arc::new(Mutex::new(receiver));
    let server = {
        let blocked = blocked.clone();
        Server::builder()
            .unary(
                "test.Block.First",
                move |ctx: ServerCtx, request: Number| {
                    let (receiver, blocked) = (receiver.clone(), blocked.clone());
                    async move {
                        ctx.release().await;
                        blocked.add();
                        receiver
                            .lock()
                            .expect("not poisoned")
                            .recv_timeout(Duration::from_secs(60))
                            .map_err(|_| {
                                Status::deadline_exceeded("the later handler did not run")
                            })?;
                        Ok(request)
                    }
                },
            )
            .unary("test.Block.Second", move |_ctx, request: Number| {
                let sender = sender.clone();
                async move {
                    sender
                        .send(())
                        .map_err(|_| Status::internal("nobody waits"))?;
                    Ok::<_, Status>(request)
                }
            })
    };
    let server = TestServer::start(server).await;
    let configuration = connect(std::slice::from_ref(&server));
    let client = Client::new(&configuration);
    let node = &configuration[0];
    for value in 0..50 {
        let first = client
            .rpc::<_, Number>(node, "test.Block.First", number(value))
            .send();
        blocked.reached(value + 1).await;
        let second = client
            .rpc::<_, Number>(node, "test.Block.Second", number(value))
            .send();
        within(first).await.expect("the later handler ran");
        within(second).await.expect("up");
    }
}

/// A handler that holds the turn and its thread delays no reply that its connection is owed:
/// neither one that was queued before, nor one of a released handler that gets ready meanwhile.
#[test]
fn a_handler_that_blocks_its_thread_delays_no_reply_of_its_connection() {
    // The server has a runtime of its own, with two workers; the test must not lend it a third.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let (unblock, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = Arc::new(Mutex::new(blocked));
    let server = Server::builder()
        .unary(
            "test.Block.Later",
            |ctx: ServerCtx, request: Number| async move {
                ctx.release();
                tokio::time::sleep(Duration::from_millis(5)).await;
                Ok::<_, Status>(request)
            },
        )
        .unary("test.Block.Thread", move |_ctx, request: Number| {
            let blocked = blocked.clone();
            async move {
                blocked
                    .lock()
                    .expect("not poisoned")
                    .recv_timeout(Duration::from_secs(60))
                    .map_err(|_| Status::deadline_exceeded("the other replies did not come"))?;
                Ok(request)
            }
        })
        .unary("test.Test.Echo", |_ctx, request: Number| async move {
            Ok::<_, Status>(request)
        });
    let server = runtime.block_on(TestServer::start(server));
    let client_runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    client_runtime.block_on(async {
        let configuration = connect(std::slice::from_ref(&server));
        let client = Client::new(&configuration);
        let node = &configuration[0];
        for value in 0..50 {
            let send = |method, value| client.rpc::<_, Number>(node, method, number(value)).send();
            let later = send("test.Block.Later", value);
            let before = send("test.Test.Echo", value);
            let blocking = send("test.Block.Thread", value);
            // The blocking handler ends only after these replies have come.
            within(before).await.expect("the reply was owed");
            within(later).await.expect("the reply was owed");
            unblock.send(()).expect("the handler waits");
            within(blocking).await.expect("it was let go in time");
        }
    });
    drop(server);
    runtime.shutdown_timeout(Duration::from_secs(10));
}

#[tokio::test]
async fn a_call_that_nobody_awaits_is_made_and_its_turn_is_its_own() {
    let handled = Counter::new();
    let log = log();
    let (_servers, configuration) = cluster(1, |_| ordered(log.clone(), handled.clone())).await;
    let client = Client::new(&configuration);
    for value in 0..100 {
        assert!(
            client
                .multicast(MULTICAST, number(value))
                .detach()
                .is_empty()
        );
    }
    handled.reached(100).await;
    assert_eq!(seen(&log), (0..100).collect::<Vec<_>>());
}

/// A handler on a task of its own is woken by a timer and then blocks its thread: whoever polled
/// sockets and timers before is blocked now.
#[test]
fn a_moved_handler_that_blocks_its_thread_delays_nobody() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let (unblock, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = Arc::new(Mutex::new(blocked));
    let (blocking, mut is_blocking) = tokio::sync::mpsc::unbounded_channel();
    let server = common::echo().unary("test.Block.Late", move |ctx: ServerCtx, request: Number| {
        let (blocked, blocking) = (blocked.clone(), blocking.clone());
        async move {
            ctx.release().await;
            tokio::time::sleep(Duration::from_millis(5)).await;
            let _ = blocking.send(());
            blocked
                .lock()
                .expect("not poisoned")
                .recv_timeout(Duration::from_secs(60))
                .map_err(|_| Status::deadline_exceeded("the other reply did not come"))?;
            Ok(request)
        }
    });
    let server = runtime.block_on(TestServer::start(server));
    let client_runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    client_runtime.block_on(async {
        let configuration = connect(std::slice::from_ref(&server));
        let client = Client::new(&configuration);
        let node = &configuration[0];
        let send = |method, value| client.rpc::<_, Number>(node, method, number(value)).send();
        for value in 0..30 {
            let late = send("test.Block.Late", value);
            within(is_blocking.recv()).await.expect("it blocks");
            within(send("test.Test.Echo", value))
                .await
                .expect("it is owed");
            unblock.send(()).expect("the handler waits");
            within(late).await.expect("it was let go in time");
        }
    });
    drop(server);
    runtime.shutdown_timeout(Duration::from_secs(10));
}
