//! Whoever waits for the same thing goes on in an order that the seed fixes.

use std::time::Duration;

use gorums::{Server, ServerCtx, Status};
use gorums_sim::{Client, FaultKind, Replica, Scenario, Verdict};

const ECHO: &str = "Waiters.Echo";
const NOTE: &str = "Waiters.Note";

const CLIENTS: usize = 6;

#[derive(Clone, PartialEq, prost::Message)]
struct Nothing {}

/// Serves for a while, and again. For each client there is a task that waits until all of them are
/// there, and then tells its own.
async fn replica(node: Replica) -> gorums_sim::Result {
    loop {
        let echo = |_: ServerCtx, _: Nothing| async { Ok::<_, Status>(Nothing {}) };
        let server = node.bind(node.server().unary(ECHO, echo)).await?;
        let clients = server.clients();
        for at in 0..CLIENTS {
            let clients = clients.clone();
            tokio::spawn(async move {
                let Ok(all) = clients.wait_for(|clients| clients.len() == CLIENTS).await else {
                    return;
                };
                let client = gorums::Client::new(&all);
                let _missed = client.unicast(&all[at], NOTE, Nothing {}).detach();
            });
        }
        let signal = tokio::time::sleep(Duration::from_millis(600));
        let grace = Duration::from_millis(300);
        server.serve_with_shutdown(signal, grace).await;
    }
}

async fn client(node: Client) -> gorums_sim::Result {
    let handlers = Server::builder().clock(node.clock());
    let handlers = handlers.one_way(NOTE, |_: ServerCtx, _: Nothing| async {});
    let replica = node.configuration().serve(handlers).connect()?;
    let replica = gorums::Client::new(&replica);
    while node.next_operation().await {
        let call = replica.quorum_call::<_, Nothing>(ECHO, Nothing {});
        let _answered = call.timeout(node.patience()).all().await;
    }
    Ok(())
}

#[test]
fn those_who_wait_for_clients_and_for_the_end_of_a_server_go_on_in_one_order() {
    let scenario = Scenario::new("waiters")
        .replicas(1..=1)
        .clients(CLIENTS..=CLIENTS)
        .operations(40)
        .duration(Duration::from_secs(2))
        .faults([FaultKind::Reset])
        .replica(replica)
        .client(client)
        .check(|_| Verdict::Valid);
    for seed in 1..=2 {
        let first = scenario.run_traced(seed, None);
        assert_eq!(first.failure(), None, "{first}");
        for _ in 0..3 {
            let again = scenario.run_traced(seed, None);
            let lines = first.trace().iter().zip(again.trace());
            if let Some((at, (one, other))) =
                lines.enumerate().find(|(_, (one, other))| one != other)
            {
                panic!("seed {seed}, line {at}: {one:?} and {other:?}");
            }
            assert_eq!(first.trace_hash(), again.trace_hash());
        }
    }
}
