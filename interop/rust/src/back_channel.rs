//! The cases of our client against Go servers: calls of theirs to this client, and what they bear
//! and what not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gorums::{Configuration, NodeId, Server, ServerBuilder, ServerCtx, Status};
use prost_types::Any;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::client::{data, fact, inspect};
use crate::noting::Noting;
use crate::process::Process;
use crate::proto::cluster_client::ClusterClient;
use crate::proto::interop_client::InteropClient;
use crate::proto::interop_server::InteropServer;
use crate::proto::{
    ClientAnswer, ClientsRequest, CountRequest, Data, Entry, Failure, HoldRequest, InspectRequest,
    NoteRange,
};
use crate::runner::{Case, Start, cases};

pub(crate) const CASES: &[Case] = cases![
    the_server_calls_this_client,
    calls_of_the_server_start_in_order,
    ids_of_the_server_up_to_2_to_the_63,
    the_server_floods_a_client_whose_handler_is_blocked,
    a_client_without_handlers_is_never_called,
    node_ids_up_to_the_greatest,
    a_blocked_handler_under_a_multicast_flood,
    a_blocked_handler_with_3000_calls_in_flight,
    pings_are_fewer_than_the_server_bears,
    flushes_are_fewer_than_the_server_bears,
    a_server_that_is_killed_under_traffic,
    a_client_that_is_killed,
];

/// What a flood has: more than all windows and bounds hold.
const FLOOD: u64 = 60_000;

const PATIENCE: Duration = Duration::from_secs(30);

fn serving(start: &Start, server: &Process, handlers: ServerBuilder) -> Result<Configuration> {
    let builder = start.configuration()?.nodes([&server.address]);
    Ok(builder
        .metadata("from", "connection")
        .serve(handlers)
        .connect()?)
}

fn noting() -> ServerBuilder {
    Server::builder().add_service(InteropServer::new(Noting::default()))
}

/// Has the server call this client, which is its only one.
async fn called(all: &Configuration, request: ClientsRequest) -> Result<ClientAnswer> {
    let request = ClientsRequest {
        clients: 1,
        release: true,
        ..request
    };
    let call = ClusterClient::new(all).call_clients(&all[0], request);
    let mut answers = call.timeout(PATIENCE).await?.answers;
    ensure!(answers.len() == 1, "{answers:?}");
    Ok(answers.remove(0))
}

async fn the_server_calls_this_client(start: Start) -> Result<()> {
    let server = start.server(&[]).await?;
    let all = serving(&start, &server, noting())?;
    for size in [0, 1, 3_000, 1 << 20] {
        let sent = Data {
            number: size as u64,
            bytes: vec![7; size],
        };
        let request = ClientsRequest {
            echo: Some(sent.clone()),
            ..ClientsRequest::default()
        };
        let answer = called(&all, request).await?;
        ensure!(answer.node == 1 << 20, "it calls {}", answer.node);
        ensure!(answer.data == [sent], "{size} bytes came back differently");
    }
    let request = ClientsRequest {
        inspect: Some(InspectRequest::default()),
        metadata: vec![Entry {
            key: "trace".to_owned(),
            value: "größe".to_owned(),
        }],
        ..ClientsRequest::default()
    };
    let seen = called(&all, request.clone())
        .await?
        .seen
        .context("the client has seen nothing")?;
    ensure!(seen.metadata == request.metadata, "{:?}", seen.metadata);
    for code in 1..=16 {
        let failure = Failure {
            code,
            message: "größe".to_owned(),
            details: vec![Any {
                type_url: "type.googleapis.com/x.Y".to_owned(),
                value: vec![1, 2, 3],
            }],
        };
        let request = ClientsRequest {
            fail: Some(failure.clone()),
            ..ClientsRequest::default()
        };
        let answer = called(&all, request).await?;
        ensure!(answer.failure.as_ref() == Some(&failure), "{answer:?}");
    }
    let request = ClientsRequest {
        count: Some(CountRequest {
            from: 5,
            replies: 50,
            failure: Some(Failure {
                code: 9,
                ..Failure::default()
            }),
        }),
        ..ClientsRequest::default()
    };
    let answer = called(&all, request).await?;
    let numbers = answer.data.iter().map(|data| data.number);
    ensure!(numbers.eq(5..55), "{:?}", answer.data);
    ensure!(answer.failure.is_some_and(|failure| failure.code == 9));
    Ok(())
}

async fn calls_of_the_server_start_in_order(start: Start) -> Result<()> {
    let server = start.server(&[]).await?;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let notes = Noting::default();
        let handlers = Server::builder().add_service(InteropServer::new(notes.clone()));
        clients.push((serving(&start, &server, handlers)?, notes));
    }
    let request = ClientsRequest {
        clients: 3,
        release: true,
        note: Some(NoteRange {
            from: 0,
            count: 1_000,
        }),
        ..ClientsRequest::default()
    };
    let (all, _) = &clients[0];
    ClusterClient::new(all)
        .call_clients(&all[0], request)
        .await?;
    for (_, notes) in &clients {
        let numbers = timeout(PATIENCE, notes.noted(1_000)).await?;
        ensure!(numbers.iter().copied().eq(0..1_000), "{numbers:?}");
    }
    Ok(())
}

async fn ids_of_the_server_up_to_2_to_the_63(start: Start) -> Result<()> {
    for last in [
        i64::MAX as u64 - 100,
        u64::from(u32::MAX) - 50,
        (1 << 56) - 50,
    ] {
        let server = start.server(&["--last-id", &last.to_string()]).await?;
        let all = serving(&start, &server, noting())?;
        for number in 0..100 {
            let request = ClientsRequest {
                echo: Some(data(number)),
                ..ClientsRequest::default()
            };
            let answer = called(&all, request).await?;
            ensure!(answer.data == [data(number)], "{answer:?}");
        }
    }
    Ok(())
}

async fn the_server_floods_a_client_whose_handler_is_blocked(start: Start) -> Result<()> {
    let server = start.server(&[]).await?;
    let (open, opened) = watch::channel(false);
    let notes = Arc::new(AtomicU64::new(0));
    let (noted, disorder) = (Arc::clone(&notes), Arc::new(AtomicU64::new(0)));
    let disordered = Arc::clone(&disorder);
    let handlers = Server::builder()
        .one_way(
            "interop.Interop.NoteAll",
            move |_ctx: ServerCtx, request: Data| {
                let (noted, disordered) = (Arc::clone(&noted), Arc::clone(&disordered));
                let mut opened = opened.clone();
                async move {
                    // The sender is there as long as the case runs.
                    let _ = opened.wait_for(|opened| *opened).await;
                    if noted.fetch_add(1, Ordering::SeqCst) != request.number {
                        disordered.fetch_add(1, Ordering::SeqCst);
                    }
                }
            },
        )
        .unary(
            "interop.Interop.EchoAll",
            |_ctx: ServerCtx, request: Data| async { Ok::<_, Status>(request) },
        );
    let all = serving(&start, &server, handlers)?;
    let request = ClientsRequest {
        clients: 1,
        release: true,
        note: Some(NoteRange {
            from: 0,
            count: FLOOD,
        }),
        ..ClientsRequest::default()
    };
    let flood = ClusterClient::new(&all)
        .call_clients(&all[0], request)
        .send();
    // Replies come although the handler holds up the requests that come the same way.
    for number in 0..100 {
        let reply = InteropClient::new(&all)
            .echo(&all[0], data(number))
            .timeout(PATIENCE)
            .await?;
        ensure!(reply == data(number), "{reply:?}");
    }
    ensure!(
        notes.load(Ordering::SeqCst) == 0,
        "the handler is not blocked"
    );
    open.send(true)?;
    flood.await?;
    let patience = Instant::now() + PATIENCE;
    while notes.load(Ordering::SeqCst) < FLOOD {
        ensure!(Instant::now() < patience, "{notes:?} of {FLOOD} came");
        sleep(Duration::from_millis(1)).await;
    }
    ensure!(
        disorder.load(Ordering::SeqCst) == 0,
        "{disorder:?} came out of order"
    );
    // Another connection would have another id.
    let request = ClientsRequest {
        echo: Some(data(1)),
        ..ClientsRequest::default()
    };
    ensure!(
        called(&all, request).await?.node == 1 << 20,
        "the connection broke"
    );
    Ok(())
}

async fn a_client_without_handlers_is_never_called(start: Start) -> Result<()> {
    let (_servers, all) = start.servers(1).await?;
    InteropClient::new(&all).echo(&all[0], data(1)).await?;
    let request = ClientsRequest {
        release: true,
        echo: Some(data(1)),
        ..ClientsRequest::default()
    };
    let reply = ClusterClient::new(&all)
        .call_clients(&all[0], request)
        .await?;
    ensure!(reply.answers.is_empty(), "{reply:?}");
    Ok(())
}

async fn node_ids_up_to_the_greatest(start: Start) -> Result<()> {
    let ids = [1, (1 << 20) - 1, 1 << 20, u32::MAX];
    let mut servers = Vec::new();
    let mut builder = start.configuration()?;
    for id in ids {
        let server = start.server(&[]).await?;
        builder = builder.node(id, &server.address);
        servers.push(server);
    }
    let all = builder.connect()?;
    let replies = InteropClient::new(&all)
        .echo_all(data(1))
        .all()
        .replies()
        .await?;
    let mut answered: Vec<_> = replies.iter().map(|(node, _)| node.get()).collect();
    answered.sort_unstable();
    ensure!(answered == ids, "{answered:?}");
    let greatest = all.node(NodeId::from(u32::MAX)).context("it is there")?;
    InteropClient::new(&all).echo(greatest, data(2)).await?;
    Ok(())
}

/// Has a handler of the server hold its turn. Opening it needs another connection.
async fn block(start: &Start, server: &Process, all: &Configuration) -> Result<Configuration> {
    let hold = HoldRequest {
        data: Some(data(0)),
        release: false,
    };
    // Nobody waits for the answer, and it is sent all the same.
    drop(
        gorums::Client::new(all)
            .multicast("interop.Interop.Hold", hold)
            .detach(),
    );
    let other = start.connect(std::slice::from_ref(server))?;
    inspect(&other, 0, 1).await?;
    Ok(other)
}

/// The server counts the connections of clients that can be called.
async fn one_connection(all: &Configuration) -> Result<()> {
    let request = InspectRequest::default();
    let seen = InteropClient::new(all).inspect(&all[0], request).await?;
    let peer = fact(&seen, "peer")?;
    ensure!(
        peer == (1 << 20).to_string(),
        "the connection broke: this is {peer}"
    );
    Ok(())
}

async fn a_blocked_handler_under_a_multicast_flood(start: Start) -> Result<()> {
    let server = start.server(&[]).await?;
    let all = serving(&start, &server, noting())?;
    all.connected(1).await?;
    let other = block(&start, &server, &all).await?;
    let client = InteropClient::new(&all);
    let mut written = 0;
    // Flow control holds the flood up: at some point a message is not taken within a moment.
    let held_up = loop {
        let message = Data {
            number: written + 1,
            bytes: vec![0; 200],
        };
        written += 1;
        let sent = client.note_all(message).send();
        if let Err(_moment) = timeout(Duration::from_millis(500), sent).await {
            break true;
        }
        if written == FLOOD {
            break false;
        }
    };
    ensure!(held_up, "a blocked handler holds up nobody");
    // And the outbox takes more.
    for _ in 0..5_000 {
        written += 1;
        ensure!(client.note_all(data(written)).detach().is_empty());
    }
    InteropClient::new(&other).open(&other[0], data(0)).await?;
    // The one that was held up may have been withdrawn.
    let seen = inspect(&other, 0, written - 1).await?;
    ensure!(seen.numbers.is_sorted(), "{:?}", seen.numbers);
    all.flush().await;
    one_connection(&all).await
}

async fn a_blocked_handler_with_3000_calls_in_flight(start: Start) -> Result<()> {
    let server = start.server(&[]).await?;
    let all = serving(&start, &server, noting())?;
    all.connected(1).await?;
    let other = block(&start, &server, &all).await?;
    let client = InteropClient::new(&all);
    let calls: Vec<_> = (1..=3_000)
        .map(|number| client.echo(&all[0], data(number)).send())
        .collect();
    InteropClient::new(&other).open(&other[0], data(0)).await?;
    for (number, call) in (1..).zip(calls) {
        let reply = timeout(PATIENCE, call).await??;
        ensure!(reply == data(number), "{reply:?}");
    }
    let seen = inspect(&other, 0, 3_001).await?;
    ensure!(
        seen.numbers.iter().copied().eq(0..=3_000),
        "{:?}",
        seen.numbers
    );
    one_connection(&all).await
}

async fn pings_are_fewer_than_the_server_bears(start: Start) -> Result<()> {
    let server = start.server(&[]).await?;
    let builder = start.configuration()?.nodes([&server.address]);
    let builder = builder.serve(noting());
    let interval = Duration::from_millis(300);
    let all = builder.keep_alive(interval, PATIENCE).connect()?;
    all.connected(1).await?;
    let hold = HoldRequest {
        data: Some(data(0)),
        release: true,
    };
    // The server owes an answer, says nothing, and is asked whether it is there. grpc-go bears two
    // such pings in five minutes.
    let waits = InteropClient::new(&all).hold(&all[0], hold).send();
    sleep(interval * 15).await;
    let other = start.connect(std::slice::from_ref(&server))?;
    InteropClient::new(&other).open(&other[0], data(0)).await?;
    waits.await?;
    let pings: u64 = fact(&inspect(&other, 0, 1).await?, "pings")?.parse()?;
    ensure!((1..=2).contains(&pings), "{pings} pings");
    one_connection(&all).await
}

async fn flushes_are_fewer_than_the_server_bears(start: Start) -> Result<()> {
    let server = start.server(&[]).await?;
    let all = serving(&start, &server, noting())?;
    all.connected(1).await?;
    for number in 0..50 {
        InteropClient::new(&all).note_all(data(number)).await?;
        all.flush().await;
    }
    let seen = inspect(&all, 0, 50).await?;
    let pings: u64 = fact(&seen, "pings")?.parse()?;
    ensure!((1..=2).contains(&pings), "{pings} pings");
    ensure!(seen.numbers.iter().copied().eq(0..50), "{:?}", seen.numbers);
    one_connection(&all).await
}

async fn a_server_that_is_killed_under_traffic(start: Start) -> Result<()> {
    let (mut servers, all) = start.servers(3).await?;
    let client = InteropClient::new(&all);
    let count = Arc::new(AtomicU64::new(0));
    let mut traffic = Vec::new();
    for worker in 0..4 {
        let (client, count) = (client.clone(), Arc::clone(&count));
        traffic.push(tokio::spawn(async move {
            for number in (worker << 32).. {
                let replies = client
                    .echo_all(data(number))
                    .timeout(PATIENCE)
                    .majority()
                    .replies();
                let replies = replies
                    .await
                    .with_context(|| format!("majority {number}"))?;
                ensure!(
                    replies.values().all(|reply| *reply == data(number)),
                    "{number}"
                );
                count.fetch_add(1, Ordering::SeqCst);
                // With one server down it fails, and hangs nobody.
                let _ = client.echo_all(data(number)).timeout(PATIENCE).all().await;
            }
            Ok(())
        }));
    }
    for server in &mut servers {
        goes_on(&count, &traffic).await?;
        server.kill().await?;
        goes_on(&count, &traffic).await?;
        *server = start.server(&["--listen", &server.address]).await?;
        all.connected(3).await?;
    }
    goes_on(&count, &traffic).await?;
    traffic.iter().for_each(tokio::task::JoinHandle::abort);
    client.echo_all(data(1)).all().await?;
    ensure!(
        all.iter().all(|node| node.pending() < 100),
        "calls are left behind"
    );
    Ok(())
}

/// Waits for a hundred more calls.
async fn goes_on(count: &AtomicU64, traffic: &[tokio::task::JoinHandle<Result<()>>]) -> Result<()> {
    let target = count.load(Ordering::SeqCst) + 100;
    let patience = Instant::now() + PATIENCE;
    while count.load(Ordering::SeqCst) < target {
        ensure!(
            !traffic.iter().any(tokio::task::JoinHandle::is_finished),
            "a majority failed"
        );
        ensure!(Instant::now() < patience, "no majorities any more");
        sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

async fn a_client_that_is_killed(start: Start) -> Result<()> {
    let (servers, all) = start.servers(1).await?;
    let program = std::env::current_exe()?.display().to_string();
    for _ in 0..5 {
        let before = inspect(&all, 0, 0).await?.numbers.len() as u64;
        let secrets = start.secrets("client").args();
        let mut command = vec![program.as_str(), "flood", "--server", &servers[0].address];
        command.extend(secrets.iter().map(String::as_str));
        let mut client = Process::start(&command).await?;
        inspect(&all, 0, before + 500).await?;
        client.kill().await?;
        ensure!(InteropClient::new(&all).echo(&all[0], data(1)).await? == data(1));
    }
    Ok(())
}
