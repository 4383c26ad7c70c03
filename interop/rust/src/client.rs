//! The cases of our client against servers of any other implementation.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gorums::{Client, Code, Configuration, NodeError, NodeState, Outcome, QuorumErrorKind, Status};
use prost::Message;
use prost_types::Any;

use crate::proto::interop_client::InteropClient;
use crate::proto::peer_client::PeerClient;
use crate::proto::{CountRequest, Data, Failure, Frames, HoldRequest, InspectRequest, Seen};
use crate::runner::{Case, Start, cases};

pub(crate) const CASES: &[Case] = cases![
    rpc_and_one_way_messages,
    quorum_calls,
    a_majority_while_a_server_holds_its_answer,
    a_majority_beside_a_server_that_says_nothing,
    a_slow_server_beside_quick_ones,
    streamed_replies_by_level,
    streamed_replies_have_no_end,
    streamed_replies_that_nobody_takes,
    metadata_of_message_and_connection,
    errors_travel_whole,
    an_unknown_method_is_unimplemented,
    empty_and_1mb_payloads,
    a_reply_above_the_limit,
    a_server_of_something_else,
    calls_in_flight_1000,
    calls_in_flight_3000,
    mixed_calls_start_in_order,
    one_way_messages_only,
    headers_that_come_late,
    a_stream_that_ends_in_the_middle,
    a_server_that_restarts,
    broken_and_unasked_frames,
    replies_that_do_not_fit,
    calls_that_are_given_up,
];

/// Those that a server of the Go library v0.11.0 can do behind an adapter: it ends the stream at a
/// method that it does not know, and has nothing that no library would send.
pub(crate) const LIBRARY: &[Case] = cases![
    rpc_and_one_way_messages,
    quorum_calls,
    a_majority_while_a_server_holds_its_answer,
    streamed_replies_by_level,
    streamed_replies_have_no_end,
    streamed_replies_that_nobody_takes,
    metadata_of_both_together,
    errors_travel_whole,
    empty_and_1mb_payloads,
    calls_in_flight_1000,
    calls_in_flight_3000,
    mixed_calls_start_in_order,
    a_server_that_restarts,
    calls_that_are_given_up,
];

pub(crate) fn data(number: u64) -> Data {
    Data {
        number,
        ..Data::default()
    }
}

/// What the server has seen, once it has noted so many.
pub(crate) async fn inspect(all: &Configuration, node: usize, noted: u64) -> Result<Seen> {
    let request = InspectRequest {
        noted,
        cancelled: 0,
    };
    let call = InteropClient::new(all).inspect(&all[node], request);
    let seen = call.metadata("trace", "message").await?;
    let strange = fact(&seen, "strange")?;
    ensure!(
        strange == "0",
        "our client sent what the protocol does not have: {strange}"
    );
    Ok(seen)
}

/// What the server tells of itself, besides what came with the connection.
pub(crate) fn fact<'a>(seen: &'a Seen, key: &str) -> Result<&'a str> {
    let entry = seen.connection.iter().find(|entry| entry.key == key);
    let entry = entry.with_context(|| format!("the server does not tell {key:?}"))?;
    Ok(&entry.value)
}

async fn rpc_and_one_way_messages(start: Start) -> Result<()> {
    let (_servers, all) = start.servers(3).await?;
    let client = InteropClient::new(&all);
    let reply = client.echo(&all[0], data(7)).await?;
    ensure!(reply == data(7), "{reply:?}");
    client.note(&all[0], data(8)).await?;
    client.note_all(data(9)).await?;
    ensure!(client.note_all(data(10)).detach().is_empty());
    for (node, expected) in [(0, &[7, 8, 9, 10][..]), (1, &[9, 10]), (2, &[9, 10])] {
        let seen = inspect(&all, node, expected.len() as u64).await?;
        ensure!(seen.numbers == expected, "{:?}", seen.numbers);
    }
    Ok(())
}

async fn quorum_calls(start: Start) -> Result<()> {
    let (_servers, all) = start.servers(3).await?;
    let client = InteropClient::new(&all);
    ensure!(client.echo_all(data(1)).majority().await? == data(1));
    let replies = client.echo_all(data(2)).all().replies().await?;
    ensure!(replies.len() == 3 && replies.values().all(|reply| *reply == data(2)));
    let call = client.echo_all(data(3));
    let call =
        call.map_request(|node, _| (node.id().get() != 2).then(|| data(node.id().get().into())));
    let replies = call.responses().successes().by_node().await;
    let numbers: Vec<_> = replies.values().map(|reply| reply.number).collect();
    ensure!(numbers == [1, 3], "{numbers:?}");
    inspect(&all, 1, 2).await?;
    Ok(())
}

async fn a_majority_while_a_server_holds_its_answer(start: Start) -> Result<()> {
    let (_servers, all) = start.servers(3).await?;
    let client = InteropClient::new(&all);
    let request = HoldRequest {
        data: Some(data(1)),
        release: true,
    };
    // One of three does not answer, then two.
    let held = Client::new(&all).quorum_call::<_, Data>("interop.Interop.Hold", request);
    for node in [0, 1] {
        client.open(&all[node], data(1)).await?;
    }
    ensure!(held.clone().majority().await? == data(1));
    let mut responses = held.responses();
    for _ in 0..2 {
        let response = responses.next().await.context("a reply is missing")?;
        ensure!(response.node().get() != 3 && response.into_result()? == data(1));
    }
    ensure!(responses.outstanding() == 1);
    client.open(&all[2], data(1)).await?;
    let last = responses.next().await.context("the last is missing")?;
    ensure!(last.node().get() == 3 && last.into_result()? == data(1));
    inspect(&all, 2, 2).await?;
    Ok(())
}

async fn a_majority_beside_a_server_that_says_nothing(start: Start) -> Result<()> {
    let silent = start.server(&["--silent"]).await?;
    let servers = [start.server(&[]).await?, silent, start.server(&[]).await?];
    let all = start.connect(&servers)?;
    let client = InteropClient::new(&all);
    for number in 0..100 {
        client.note_all(data(1_000 + number)).await?;
        ensure!(client.echo_all(data(number)).majority().await? == data(number));
    }
    let call = client.echo_all(data(100)).timeout(Duration::from_secs(1));
    let Err(error) = call.all().await else {
        anyhow::bail!("a server answered that should not");
    };
    ensure!(error.kind() == QuorumErrorKind::Deadline, "{error}");
    let silent = error.failure(all[1].id()).context("node 2 is missing")?;
    ensure!(
        silent.outcome() == Outcome::Unknown && silent.code() == Code::DeadlineExceeded,
        "{error}"
    );
    inspect(&all, 2, 201).await?;
    Ok(())
}

async fn a_slow_server_beside_quick_ones(start: Start) -> Result<()> {
    let slow = start.server(&["--hold-headers"]).await?;
    let servers = [start.server(&[]).await?, start.server(&[]).await?, slow];
    let all = start.connect(&servers)?;
    let client = InteropClient::new(&all);
    for number in 0..20 {
        ensure!(client.echo_all(data(number)).majority().await? == data(number));
    }
    // The slow one has got them all, and had answered none when the last majority was complete.
    PeerClient::new(&all).send_headers(&all[2], ()).await?;
    let before = fact(&inspect(&all, 2, 20).await?, "before-headers")?.to_owned();
    ensure!(before == "20", "noted before the headers: {before}");
    for node in [0, 1] {
        inspect(&all, node, 20).await?;
    }
    Ok(())
}

async fn streamed_replies_by_level(start: Start) -> Result<()> {
    let (_servers, all) = start.servers(3).await?;
    let request = CountRequest {
        from: 10,
        replies: 3,
        failure: None,
    };
    let mut answer = InteropClient::new(&all).count(request).correctable(3);
    let mut levels = Vec::new();
    while let Some(change) = answer.changed().await {
        levels.push(change?.level);
    }
    ensure!(
        levels.is_sorted() && levels.last() == Some(&3),
        "{levels:?}"
    );
    inspect(&all, 0, 0).await?;
    Ok(())
}

async fn streamed_replies_have_no_end(start: Start) -> Result<()> {
    let (_servers, all) = start.servers(1).await?;
    let client = InteropClient::new(&all);
    let request = |failure| CountRequest {
        from: 1,
        replies: 3,
        failure,
    };
    // Longer than three replies take on any machine.
    let call = client.count(request(None)).timeout(Duration::from_secs(3));
    let mut responses = call.responses();
    for expected in 1..=3 {
        let response = responses.next().await.context("a reply is missing")?;
        ensure!(response.into_result()?.number == expected);
    }
    let last = responses.next().await.context("the deadline is missing")?;
    ensure!(
        last.into_result()
            .is_err_and(|error| error.code() == Code::DeadlineExceeded)
    );
    ensure!(responses.next().await.is_none());
    // An error is an end.
    let failure = Failure {
        code: 9,
        message: "no more".to_owned(),
        details: Vec::new(),
    };
    let mut responses = client.count(request(Some(failure))).responses();
    for _ in 0..3 {
        responses
            .next()
            .await
            .context("a reply is missing")?
            .into_result()?;
    }
    let last = responses.next().await.context("the error is missing")?;
    ensure!(
        last.into_result()
            .is_err_and(|error| error.code() == Code::FailedPrecondition)
    );
    ensure!(responses.next().await.is_none());
    inspect(&all, 0, 0).await?;
    Ok(())
}

/// A server that cannot be held back fails at the bound, and one whose replies are taken does not
/// come near it.
async fn streamed_replies_that_nobody_takes(start: Start) -> Result<()> {
    const REPLIES: u64 = 20_000;
    let (_servers, all) = start.servers(1).await?;
    let client = InteropClient::new(&all);
    let request = CountRequest {
        from: 1,
        replies: REPLIES,
        failure: None,
    };
    let call = client.count(request.clone()).unread_replies(10_000);
    let mut responses = call.responses();
    while all[0].pending() > 0 {
        // Other calls go on, before and after the bound.
        ensure!(client.echo(&all[0], data(7)).await? == data(7));
    }
    let mut taken = 0;
    let error = loop {
        let response = responses.next().await.context("the failure is missing")?;
        match response.into_result() {
            Ok(reply) => ensure!(reply.number == taken + 1, "{reply:?} behind {taken}"),
            Err(error) => break error,
        }
        taken += 1;
    };
    ensure!(
        error.code() == Code::ResourceExhausted && (100..REPLIES).contains(&taken),
        "{taken} replies, and then {error}"
    );
    let call = client.count(request).timeout(Duration::from_secs(60));
    let mut responses = call.responses().successes().take(REPLIES as usize);
    for expected in 1..=REPLIES {
        let (_, reply) = responses.next().await.context("a reply is missing")?;
        ensure!(reply.number == expected, "{reply:?} in place of {expected}");
    }
    Ok(())
}

async fn metadata_of_message_and_connection(start: Start) -> Result<()> {
    let (_servers, all) = start.servers(1).await?;
    let request = InspectRequest::default();
    let call = InteropClient::new(&all).inspect(&all[0], request);
    let call = call.metadata("trace", "a").metadata("Size", "größe");
    let seen = call.metadata("trace", "b").await?;
    let own: Vec<_> = seen
        .metadata
        .iter()
        .map(|e| (e.key.as_str(), e.value.as_str()))
        .collect();
    let expected = [("trace", "a"), ("size", "größe"), ("trace", "b")];
    ensure!(own == expected, "{own:?}");
    let own = inspect(&all, 0, 0).await?.metadata;
    ensure!(
        own.len() == 1 && own[0].key == "trace" && own[0].value == "message",
        "{own:?}"
    );
    let connection = seen.connection.iter().find(|entry| entry.key == "from");
    ensure!(
        connection.is_some_and(|entry| entry.value == "connection"),
        "{connection:?}"
    );
    Ok(())
}

/// A handler of the Go library sees the metadata of message and connection as one.
async fn metadata_of_both_together(start: Start) -> Result<()> {
    let (_servers, all) = start.servers(1).await?;
    let call = InteropClient::new(&all).inspect(&all[0], InspectRequest::default());
    let call = call.metadata("trace", "a").metadata("Size", "größe");
    let seen = call.metadata("trace", "b").await?;
    let values = |key: &str| -> Vec<_> {
        let entries = seen.metadata.iter().filter(|entry| entry.key == key);
        entries.map(|entry| entry.value.as_str()).collect()
    };
    ensure!(values("trace") == ["a", "b"], "{seen:?}");
    ensure!(values("size") == ["größe"], "{seen:?}");
    ensure!(values("from") == ["connection"], "{seen:?}");
    Ok(())
}

async fn errors_travel_whole(start: Start) -> Result<()> {
    let (_servers, all) = start.servers(1).await?;
    let detail = Any {
        type_url: "type.googleapis.com/x.Y".to_owned(),
        value: vec![1, 2, 3],
    };
    let failure = Failure {
        code: 5,
        message: "no größe".to_owned(),
        details: vec![detail; 2],
    };
    let error = failed(
        InteropClient::new(&all)
            .fail(&all[0], failure.clone())
            .await,
    )?;
    ensure!(error.outcome() == Outcome::Refused, "{error}");
    let status: &Status = error.status();
    ensure!(
        status.code() == Code::NotFound && status.message() == failure.message,
        "{status}"
    );
    ensure!(status.details() == failure.details, "{status:?}");
    for number in 1..=16 {
        let failure = Failure {
            code: number,
            ..Failure::default()
        };
        let error = failed(InteropClient::new(&all).fail(&all[0], failure).await)?;
        ensure!(
            error.outcome() == Outcome::Refused && error.code().number() == number,
            "{error}"
        );
    }
    // A status that says that all is well is no failure.
    let well = Failure {
        code: 0,
        message: "well".to_owned(),
        details: Vec::new(),
    };
    let reply = InteropClient::new(&all).fail(&all[0], well).await?;
    ensure!(reply == Data::default(), "{reply:?}");
    inspect(&all, 0, 0).await?;
    Ok(())
}

async fn an_unknown_method_is_unimplemented(start: Start) -> Result<()> {
    let (_servers, all) = start.servers(1).await?;
    let unknown = Client::new(&all).rpc::<_, Data>(&all[0], "interop.Interop.None", data(1));
    let error = failed(unknown.await)?;
    ensure!(error.code() == Code::Unimplemented, "{error}");
    inspect(&all, 0, 0).await?;
    Ok(())
}

pub(crate) fn failed<T>(result: Result<T, NodeError>) -> Result<NodeError> {
    match result {
        Ok(_) => anyhow::bail!("the call succeeded, and should have failed"),
        Err(error) => Ok(error),
    }
}

async fn empty_and_1mb_payloads(start: Start) -> Result<()> {
    let (_servers, all) = start.servers(1).await?;
    let client = InteropClient::new(&all);
    ensure!(client.echo(&all[0], Data::default()).await? == Data::default());
    let large = Data {
        number: 1,
        bytes: (0..1 << 20).map(|byte: u32| byte as u8).collect(),
    };
    ensure!(client.echo(&all[0], large.clone()).await? == large);
    inspect(&all, 0, 0).await?;
    Ok(())
}

async fn a_reply_above_the_limit(start: Start) -> Result<()> {
    let (_servers, all) = start.servers(1).await?;
    let client = InteropClient::new(&all);
    let large = Data {
        number: 1,
        bytes: vec![7; 5 << 20],
    };
    let before = client.echo(&all[0], data(1)).send();
    let error = failed(client.echo(&all[0], large).await)?;
    ensure!(error.code() == Code::ResourceExhausted, "{error}");
    ensure!(before.await? == data(1));
    ensure!(client.echo(&all[0], data(2)).await? == data(2));
    inspect(&all, 0, 3).await?;
    Ok(())
}

async fn a_server_of_something_else(start: Start) -> Result<()> {
    let other = start.server(&["--path", "other.Service/Stream"]).await?;
    let servers = [start.server(&[]).await?, other, start.server(&[]).await?];
    let all = start.connect(&servers)?;
    let client = InteropClient::new(&all);
    ensure!(client.echo_all(data(1)).majority().await? == data(1));
    let error = failed(client.echo(&all[1], data(2)).await)?;
    ensure!(error.code() == Code::Unimplemented, "{error}");
    inspect(&all, 0, 1).await?;
    Ok(())
}

async fn in_flight(start: Start, count: u64) -> Result<()> {
    let (_servers, all) = start.servers(1).await?;
    let client = InteropClient::new(&all);
    let calls: Vec<_> = (0..count)
        .map(|number| client.echo(&all[0], data(number)).send())
        .collect();
    for (number, call) in (0..).zip(calls) {
        ensure!(call.await? == data(number));
    }
    inspect(&all, 0, count).await?;
    Ok(())
}

async fn calls_in_flight_1000(start: Start) -> Result<()> {
    in_flight(start, 1_000).await
}

async fn calls_in_flight_3000(start: Start) -> Result<()> {
    in_flight(start, 3_000).await
}

async fn mixed_calls_start_in_order(start: Start) -> Result<()> {
    let (_servers, all) = start.servers(1).await?;
    let client = InteropClient::new(&all);
    let mut calls = Vec::new();
    let mut quorum_calls = Vec::new();
    for number in 0..1_000 {
        match number % 4 {
            0 => calls.push(client.echo(&all[0], data(number)).send()),
            1 => quorum_calls.push(client.echo_all(data(number)).all()),
            2 => ensure!(client.note(&all[0], data(number)).detach().is_empty()),
            _ => ensure!(client.note_all(data(number)).detach().is_empty()),
        }
    }
    let seen = inspect(&all, 0, 1_000).await?;
    ensure!(
        seen.numbers.iter().copied().eq(0..1_000),
        "{:?}",
        seen.numbers
    );
    for call in calls {
        call.await?;
    }
    for call in quorum_calls {
        call.await?;
    }
    Ok(())
}

async fn one_way_messages_only(start: Start) -> Result<()> {
    // The headers of the server never come on a stream that has no answer.
    let servers = [start.server(&["--hold-headers"]).await?];
    let all = start.connect(&servers)?;
    let client = InteropClient::new(&all);
    for number in 0..100 {
        client.note_all(data(number)).await?;
    }
    PeerClient::new(&all).send_headers(&all[0], ()).await?;
    let seen = inspect(&all, 0, 100).await?;
    ensure!(seen.numbers.iter().copied().eq(0..100), "{seen:?}");
    ensure!(fact(&seen, "before-headers")? == "100", "{seen:?}");
    Ok(())
}

async fn headers_that_come_late(start: Start) -> Result<()> {
    let servers = [start.server(&["--hold-headers"]).await?];
    let all = start.connect(&servers)?;
    let client = InteropClient::new(&all);
    let call = client.echo(&all[0], data(1)).send();
    let later = client.echo_all(data(2)).majority();
    PeerClient::new(&all).send_headers(&all[0], ()).await?;
    ensure!(call.await? == data(1));
    ensure!(later.await? == data(2));
    let seen = inspect(&all, 0, 2).await?;
    ensure!(fact(&seen, "before-headers")? == "2", "{seen:?}");
    Ok(())
}

async fn a_stream_that_ends_in_the_middle(start: Start) -> Result<()> {
    let (_servers, all) = start.servers(1).await?;
    let hold = HoldRequest {
        data: Some(data(1)),
        release: true,
    };
    let client = InteropClient::new(&all);
    // Also with a status that says that all is well, although calls wait.
    for (round, code) in (1..).zip([14, 0, 2]) {
        let waits: Vec<_> = (0..10)
            .map(|_| client.hold(&all[0], hold.clone()).send())
            .collect();
        let end = Failure {
            code,
            message: "enough".to_owned(),
            details: Vec::new(),
        };
        PeerClient::new(&all).end_stream(&all[0], end).await?;
        for waits in waits {
            let error = failed(waits.await)?;
            ensure!(error.outcome() == Outcome::Unknown, "{error}");
            ensure!(code == 0 || error.to_string().contains("enough"), "{error}");
        }
        ensure!(client.echo(&all[0], data(2)).await? == data(2));
        inspect(&all, 0, 11 * round).await?;
    }
    Ok(())
}

async fn a_server_that_restarts(start: Start) -> Result<()> {
    let (mut servers, all) = start.servers(1).await?;
    let client = InteropClient::new(&all);
    client.echo(&all[0], data(1)).await?;
    let mut server = servers.remove(0);
    server.kill().await?;
    // Its end is noticed before its port is taken again.
    let mut changes = all.watch(Duration::from_millis(10), |all| {
        all.filter(|node| node.state() == NodeState::Connected)
    });
    while changes
        .next()
        .await
        .is_some_and(|connected| !connected.is_empty())
    {}
    let _server = start.server(&["--listen", &server.address]).await?;
    all.connected(1).await?;
    ensure!(client.echo(&all[0], data(2)).await? == data(2));
    inspect(&all, 0, 1).await?;
    Ok(())
}

/// `stream.Message`, as far as it is needed for a reply.
#[derive(Clone, PartialEq, Message)]
struct Reply {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    method: String,
    #[prost(bytes = "vec", tag = "5")]
    payload: Vec<u8>,
}

fn reply(id: u64, method: &str, payload: &[u8]) -> Vec<u8> {
    let reply = Reply {
        id,
        method: method.to_owned(),
        payload: payload.to_vec(),
    };
    reply.encode_to_vec()
}

async fn broken_and_unasked_frames(start: Start) -> Result<()> {
    let (_servers, all) = start.servers(1).await?;
    let client = InteropClient::new(&all);
    let peer = PeerClient::new(&all);
    let before: u64 = fact(&inspect(&all, 0, 0).await?, "sent")?.parse()?;
    // Replies that nobody asked for, with ids of all kinds.
    let frames = [0, 1, 1 << 40, u64::MAX >> 1]
        .map(|id| reply(id, "interop.Interop.Echo", &data(99).encode_to_vec()));
    let frames = Frames {
        frames: frames.to_vec(),
    };
    peer.send_frames(&all[0], frames).await?;
    ensure!(client.echo(&all[0], data(1)).await? == data(1));
    // Four of them, and the answers to the inspection and to the echo.
    let sent: u64 = fact(&inspect(&all, 0, 0).await?, "sent")?.parse()?;
    ensure!(sent == before + 6, "sent {before}, and {sent} later");
    // A request of the server's: our client has no handlers.
    let request = Frames {
        frames: vec![reply(1 << 63 | 1, "interop.Interop.Echo", &[])],
    };
    peer.send_frames(&all[0], request).await?;
    ensure!(client.echo(&all[0], data(2)).await? == data(2));
    let seen = inspect(&all, 0, 2).await?;
    let answers = seen.connection.iter().filter(|entry| entry.key == "answer");
    let answers: Vec<_> = answers.map(|answer| answer.value.as_str()).collect();
    ensure!(
        answers == ["8000000000000001 interop.Interop.Echo 12"],
        "{answers:?}"
    );
    // What is no envelope ends the connection, and what waits on it.
    let hold = HoldRequest {
        data: Some(data(1)),
        release: true,
    };
    let waits = client.hold(&all[0], hold).send();
    let broken = Frames {
        frames: vec![vec![0xff; 20]],
    };
    peer.send_frames(&all[0], broken).await?;
    let error = failed(waits.await)?;
    ensure!(error.outcome() == Outcome::Unknown, "{error}");
    ensure!(client.echo(&all[0], data(3)).await? == data(3));
    inspect(&all, 0, 4).await?;
    Ok(())
}

/// Replies to a call that does wait, which the server was told to forge.
async fn replies_that_do_not_fit(start: Start) -> Result<()> {
    let (_servers, all) = start.servers(1).await?;
    let client = InteropClient::new(&all);
    let held = "interop.Interop.Hold";
    let five = data(5).encode_to_vec();
    // A number that ends within its varint is no `Data`.
    let forgeries: [(&str, &[u8], Option<u64>); 3] = [
        (held, &five, Some(5)),
        ("interop.Interop.Echo", &five, None),
        (held, &[0x08, 0x80], None),
    ];
    for (round, (method, payload, expected)) in (0..).zip(forgeries) {
        let last: u64 = fact(&inspect(&all, 0, 0).await?, "id")?.parse()?;
        let hold = HoldRequest {
            data: Some(data(round)),
            release: true,
        };
        let waits = client.hold(&all[0], hold).send();
        // Ids count upwards, above the two bits that say how a call is answered, and nothing else is
        // called meanwhile. The second reply finds nobody who asks.
        let forged = reply(last + 4, method, payload);
        let frames = Frames {
            frames: vec![forged.clone(), forged],
        };
        PeerClient::new(&all).send_frames(&all[0], frames).await?;
        match (waits.await, expected) {
            (Ok(got), Some(expected)) => ensure!(got == data(expected), "{got:?}"),
            (Err(error), None) => ensure!(error.code() == Code::Internal, "{error}"),
            (got, expected) => anyhow::bail!("expected {expected:?}, got {got:?}"),
        }
        ensure!(all[0].pending() == 0);
        let next = 100 + round;
        ensure!(client.echo(&all[0], data(next)).await? == data(next));
    }
    inspect(&all, 0, 6).await?;
    Ok(())
}

async fn calls_that_are_given_up(start: Start) -> Result<()> {
    let (_servers, all) = start.servers(1).await?;
    let client = InteropClient::new(&all);
    for number in 0..100 {
        let hold = HoldRequest {
            data: Some(data(1_000 + number)),
            release: true,
        };
        let call = client.hold(&all[0], hold);
        let error = failed(call.timeout(Duration::from_millis(1)).await)?;
        ensure!(error.code() == Code::DeadlineExceeded, "{error}");
    }
    // The same with calls that are dropped.
    for number in 0..100 {
        let hold = HoldRequest {
            data: Some(data(2_000 + number)),
            release: true,
        };
        drop(client.hold(&all[0], hold).send());
    }
    ensure!(all[0].pending() == 0);
    ensure!(client.echo(&all[0], data(1)).await? == data(1));
    inspect(&all, 0, 1).await?;
    Ok(())
}
