//! Clients that come and go, and connections that break, again and again: nothing is left of them.
//!
//! Who comes and who serves share a thread, a network in memory, and a clock that goes on only when
//! all wait. So what they hold is the same on every machine.

mod common;
#[path = "common/handlers.rs"]
mod handlers;
#[path = "common/memory.rs"]
mod memory;

use std::time::Duration;

use allocation_counter::measure;
use common::{Number, TestServer, echo, number, within};
use gorums::server::{Clients, RunningHandlers};
use gorums::{Client, Configuration, ConfigurationBuilder, Server};
use handlers::{HOLD, Handlers, NOTE, WAIT};
use memory::{Network, settle};
use tokio::runtime::{Builder, Handle, Runtime};

const NODE: &str = "node:1";
const ECHO: &str = "test.Test.Echo";

/// For so long the server keeps a session that has no connection.
const PARKED: Duration = Duration::from_secs(60);

/// Longer than all that anybody keeps for a while.
const ALL_OVER: Duration = Duration::from_secs(600);

/// How many come before it is noted what is held: tables grow to what they need.
const FIRST: usize = 500;

const MANY: usize = 10_000;

/// Less than half a byte for each that came: of none of them anything is left, though tables may have
/// another size.
const SLACK: i64 = 4 * 1024;

/// A server, and what is around it.
struct Place {
    runtime: Runtime,
    network: Network,
    clients: Clients,
    running: RunningHandlers,
    handlers: Handlers,
    _server: TestServer,
}

impl Place {
    fn new() -> Self {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let network = Network::new();
        let handlers = Handlers::new();
        let server = handlers
            .add_to(echo())
            .session_timeout(PARKED)
            .transport(network.clone());
        let server = runtime.block_on(server.bind(NODE));
        let server: Server = server.expect("a network in memory");
        let (clients, running) = (server.clients(), server.running_handlers());
        let _server = {
            let _entered = runtime.enter();
            TestServer::of(server)
        };
        Self {
            runtime,
            network,
            clients,
            running,
            handlers,
            _server,
        }
    }

    fn builder(&self) -> ConfigurationBuilder {
        Configuration::builder()
            .transport(self.network.clone())
            .nodes([NODE])
    }

    /// Waits until all that ends by itself has ended. Returns how many tasks there are.
    async fn rest(&self) -> usize {
        settle().await;
        tokio::time::sleep(ALL_OVER).await;
        settle().await;
        self.network.forget(NODE);
        let mut order = self.handlers.order.lock().expect("no panic");
        *order = Vec::new();
        Handle::current().metrics().num_alive_tasks()
    }

    /// Does this often, and sees that it leaves nothing.
    fn leaves_nothing(&self, one: impl AsyncFn(usize)) {
        let often = |times: std::ops::Range<usize>| {
            let mut tasks = 0;
            let held = measure(|| {
                tasks = self.runtime.block_on(async {
                    for turn in times {
                        one(turn).await;
                        if turn % FIRST == 0 {
                            self.rest().await;
                        }
                    }
                    self.rest().await
                });
            });
            (tasks, held.bytes_current)
        };
        let (before, _) = often(0..FIRST);
        let (after, held) = often(FIRST..FIRST + MANY);
        println!("{held} bytes are left, of {after} tasks");
        assert_eq!(after, before, "tasks");
        assert!(held < SLACK, "{held} bytes are left");
        assert_eq!(self.running.count(), 0);
    }
}

/// In what way a client leaves, or a connection ends.
fn depart(turn: usize, network: &Network) {
    if turn.is_multiple_of(2) {
        network.cut(NODE);
    }
}

/// Clients with and without sessions, such that serve and such that do not, leave by themselves or
/// since their connection breaks: idle, with a call that is handled, with one that waits for its turn,
/// and with messages that are on their way.
#[test]
fn ten_thousand_clients_that_come_and_go_leave_nothing() {
    let place = Place::new();
    place.leaves_nothing(async |turn| {
        let builder = match turn % 4 {
            0 => place.builder(),
            1 => place.builder().serve(echo()),
            2 => place.builder().sessions(PARKED),
            _ => place.builder().serve(echo()).sessions(PARKED),
        };
        let all = builder.connect().expect("legal");
        let client = Client::new(&all);
        let echoed = client.rpc::<_, Number>(&all[0], ECHO, number(1));
        within(echoed.send()).await.expect("it is up");
        let unanswered: Vec<_> = match turn / 4 % 4 {
            0 => Vec::new(),
            1 => {
                let before = place.handlers.started.get();
                let waits = client.rpc::<_, Number>(&all[0], WAIT, number(1)).send();
                place.handlers.started.reached(before + 1).await;
                vec![waits]
            }
            2 => {
                let before = place.handlers.started.get();
                let calls = [2, 2, 3].map(|value| {
                    let call = client.rpc::<_, Number>(&all[0], HOLD, number(value));
                    call.send()
                });
                place.handlers.started.reached(before + 1).await;
                // Those that wait for their turn are handled once the client has gone, or never.
                place.handlers.gate.add_permits(1);
                calls.into()
            }
            _ => {
                for value in 0..10 {
                    let note = client.unicast(&all[0], NOTE, number(value));
                    assert!(note.detach().is_empty());
                }
                Vec::new()
            }
        };
        depart(turn, &place.network);
        drop((unanswered, client, all));
        settle().await;
        // What is held yet has no caller any more.
        place.handlers.gate.add_permits(2);
        settle().await;
        place.handlers.gate.forget_permits(usize::MAX);
    });
    assert!(place.clients.config().is_empty());
}

/// One client, which finds the server again whenever its connection breaks: idle, or with calls of
/// which some were sent.
fn connections_that_break(place: &Place, builder: ConfigurationBuilder) {
    let all = place.runtime.block_on(async { builder.connect() });
    let all = all.expect("legal");
    let client = Client::new(&all);
    place.leaves_nothing(async |turn| {
        within(all.connected(1)).await.expect("it is up");
        let echoed = client.rpc::<_, Number>(&all[0], ECHO, number(1));
        within(echoed.send()).await.expect("it is up");
        let calls: Vec<_> = [ECHO, WAIT, ECHO]
            .into_iter()
            .take(turn % 4)
            .map(|method| client.rpc::<_, Number>(&all[0], method, number(1)).send())
            .collect();
        if turn.is_multiple_of(3) {
            settle().await;
        }
        place.network.cut(NODE);
        drop(calls);
        // It is noticed, and the server dialled again.
        settle().await;
    });
    assert_eq!(all[0].pending(), 0);
}

#[test]
fn ten_thousand_broken_connections_leave_nothing() {
    let place = Place::new();
    connections_that_break(&place, place.builder());
}

#[test]
fn ten_thousand_broken_connections_of_a_session_leave_nothing() {
    let place = Place::new();
    connections_that_break(&place, place.builder().serve(echo()).sessions(PARKED));
}
