//! Hostile servers of our client: what its calls end with, and that its other nodes answer.

use std::time::Duration;

use gorums::{Client, Code, Configuration, ConfigurationBuilder, NodeError, Outcome};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::common::{Number, TestServer, echo, number, within};
use crate::frames::*;

/// A configuration of a node that is made of bytes and of one as it should be.
struct Nodes {
    client: Client,
    foe: TcpListener,
    _good: TestServer,
}

impl Nodes {
    async fn start(tell: impl FnOnce(ConfigurationBuilder) -> ConfigurationBuilder) -> Self {
        let foe = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let good = TestServer::start(echo()).await;
        let address = foe.local_addr().expect("it listens").to_string();
        let builder = Configuration::builder()
            .nodes([address, good.addr.to_string()])
            .backoff(Duration::from_millis(1), Duration::from_millis(1))
            .attempt_interval(Duration::ZERO);
        let configuration = tell(builder).connect().expect("legal addresses");
        Self {
            client: Client::new(&configuration),
            foe,
            _good: good,
        }
    }

    /// Queues a call to one of the two.
    fn call(&self, node: usize, value: u64) -> gorums::call::Unary<Number> {
        let node = self.client.configuration()[node].clone();
        self.client.rpc(&node, ECHO, number(value)).send()
    }

    async fn good_one_answers(&self) {
        let reply = within(self.call(1, 7)).await;
        assert_eq!(reply.expect("it is up").value, 7);
    }

    /// A call that has arrived on a connection of its own.
    async fn called(&self) -> (gorums::call::Unary<Number>, TcpStream, Envelope) {
        loop {
            let mut call = self.call(0, 1);
            tokio::select! {
                biased;
                reply = &mut call => {
                    // Written on the connection before, whose end the client had not seen yet.
                    reply.expect_err("nobody answered");
                }
                (tcp, request) = self.accept() => return (call, tcp, request),
            }
        }
    }

    /// Accepts the client, and reads until its first request is there.
    async fn accept(&self) -> (TcpStream, Envelope) {
        loop {
            let (mut tcp, _) = within(self.foe.accept()).await.expect("it listens");
            tcp.set_nodelay(true).expect("a TCP socket");
            // Frames of HTTP/2 of a server's that has opened no window of its own so far.
            let greeting = [settings(&[]), settings_ack()].concat();
            if tcp.write_all(&greeting).await.is_ok()
                && let Some(request) = next_request(&mut tcp, true).await
            {
                return (tcp, request);
            }
        }
    }
}

/// The next request, or none where the client has ended the connection.
async fn next_request(tcp: &mut TcpStream, first: bool) -> Option<Envelope> {
    if first {
        let mut preface = [0; PREFACE.len()];
        within(tcp.read_exact(&mut preface)).await.ok()?;
        assert_eq!(preface, *PREFACE);
    }
    let mut bytes = Vec::new();
    loop {
        let frame = read_frame(tcp).await?;
        if frame.kind == DATA {
            bytes.extend(frame.payload);
        }
        if let Some(len) = bytes.get(1..5) {
            let len = u32::from_be_bytes(len.try_into().expect("four bytes")) as usize;
            if bytes.len() >= 5 + len {
                return Some(Envelope::decode(&bytes[5..5 + len]).expect("a request"));
            }
        }
    }
}

fn head() -> Vec<u8> {
    headers(1, 0, &HEAD)
}

fn trailers(status: &str, message: &str) -> Vec<u8> {
    let trailers = [("grpc-status", status), ("grpc-message", message)];
    headers(1, END_STREAM, &trailers)
}

#[tokio::test]
async fn every_broken_answer_ends_the_call_with_a_status_and_the_other_node_answers() {
    let nodes = Nodes::start(|builder| builder).await;
    let long = "x".repeat(17_000);
    let reply = |id: u64| envelope(id, ECHO, 1).framed();
    let answer = |bytes: Vec<u8>| [head(), data(&bytes)].concat();
    let status = |code, details| WireStatus {
        code,
        message: String::new(),
        details: vec![prost_types::Any::default(); details],
    };
    type Answer<'a> = Box<dyn Fn(u64) -> Vec<u8> + 'a>;
    let cases: Vec<(Answer<'_>, Code, &str)> = vec![
        // Messages.
        (
            Box::new(|id| answer([&[1], &reply(id)[1..]].concat())),
            Code::Unimplemented,
            "compressed",
        ),
        (
            Box::new(|id| answer([&[2], &reply(id)[1..]].concat())),
            Code::Internal,
            "flag 2",
        ),
        (
            Box::new(|id| {
                let mut claimed = reply(id);
                claimed[1..5].fill(0xff);
                claimed.extend([0x48, 1].repeat(200));
                answer(claimed)
            }),
            Code::ResourceExhausted,
            "4294967295",
        ),
        (
            Box::new(|_| answer(framed(&[0x12, 1, 0xff]))),
            Code::Internal,
            "not UTF-8",
        ),
        (
            Box::new(|_| answer(framed(&[0x1a, 2, 0x08, 0x80]))),
            Code::Internal,
            "the status",
        ),
        (
            Box::new(|_| answer(framed(&[0x22, 3, 0x0a, 1, 0xff]))),
            Code::Internal,
            "metadata",
        ),
        (
            Box::new(|_| answer(framed(&[0x2a, 0xff, 0xff, 0xff, 0xff, 0x0f]))),
            Code::Internal,
            "4294967295",
        ),
        (
            Box::new(|id| {
                let status = Some(status(5, 5_000));
                answer(
                    Envelope {
                        status,
                        ..envelope(id, ECHO, 1)
                    }
                    .framed(),
                )
            }),
            Code::ResourceExhausted,
            "1024 details",
        ),
        (
            Box::new(|id| {
                let entries = vec![Entry::default(); 5_000];
                answer(
                    Envelope {
                        entries,
                        ..envelope(id, ECHO, 1)
                    }
                    .framed(),
                )
            }),
            Code::ResourceExhausted,
            "4096 entries",
        ),
        (
            Box::new(|id| {
                answer(
                    Envelope {
                        payload: vec![0x08].into(),
                        ..envelope(id, ECHO, 1)
                    }
                    .framed(),
                )
            }),
            Code::Internal,
            "decode",
        ),
        // Ends of the stream.
        (
            Box::new(|id| [answer(reply(id)[..7].to_vec()), trailers("0", "")].concat()),
            Code::Unavailable,
            "within a message",
        ),
        (
            Box::new(|id| [head(), frame(DATA, END_STREAM, 1, &reply(id)[..7])].concat()),
            Code::Unavailable,
            "within a message",
        ),
        (
            Box::new(|_| [head(), headers(1, END_STREAM, &[("x", "y")])].concat()),
            Code::Unavailable,
            "ended the stream",
        ),
        (
            Box::new(|_| [head(), trailers("abc", "what")].concat()),
            Code::Unknown,
            "what",
        ),
        (
            Box::new(|_| [head(), trailers("99", "what")].concat()),
            Code::Unknown,
            "what",
        ),
        (
            Box::new(|_| [head(), trailers("9", "a%20b%zz%4")].concat()),
            Code::FailedPrecondition,
            "a b%zz%4",
        ),
        (
            Box::new(|_| [head(), trailers("9", "a%ffb")].concat()),
            Code::FailedPrecondition,
            "a\u{fffd}b",
        ),
        (
            Box::new(|_| [head(), reset(1, 7)].concat()),
            Code::Unavailable,
            "refused",
        ),
        // Heads.
        (
            Box::new(|_| {
                let head = [
                    &HEAD[..],
                    &[("grpc-status", "16"), ("grpc-message", "who%3f")],
                ]
                .concat();
                headers(1, END_STREAM, &head)
            }),
            Code::Unauthenticated,
            "who?",
        ),
        (
            Box::new(|_| headers(1, END_STREAM, &[HEAD[0], HEAD[1], ("grpc-status", "0")])),
            Code::Unavailable,
            "the node ended the stream",
        ),
        (
            Box::new(|_| headers(1, END_STREAM, &[(":status", "502")])),
            Code::Unavailable,
            "502",
        ),
        (
            Box::new(|_| {
                headers(
                    1,
                    0,
                    &[(":status", "200"), ("content-type", "application/grpc-web")],
                )
            }),
            Code::Unknown,
            "not gRPC",
        ),
        (
            Box::new(|_| headers(1, 0, &[HEAD[0], HEAD[1], ("x-long", &long)])),
            Code::Unavailable,
            "HTTP/2",
        ),
        // HTTP/2.
        (Box::new(|id| data(&reply(id))), Code::Unavailable, "HTTP/2"),
        (
            Box::new(|_| frame(DATA, 0, 2, b"x")),
            Code::Unavailable,
            "HTTP/2",
        ),
        (
            Box::new(|_| frame(PING, 0, 0, b"x")),
            Code::Unavailable,
            "HTTP/2",
        ),
        (
            Box::new(|_| frame(HEADERS, END_HEADERS, 1, &[0xff; 9])),
            Code::Unavailable,
            "HTTP/2",
        ),
        (
            Box::new(|_| frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])),
            Code::Unavailable,
            "HTTP/2",
        ),
        (
            Box::new(|_| frame_head(2 << 20, DATA, 0, 1)),
            Code::Unavailable,
            "HTTP/2",
        ),
        (
            Box::new(|_| window_update(0, u32::MAX >> 1)),
            Code::Unavailable,
            "HTTP/2",
        ),
        (
            Box::new(|_| settings(&[(INITIAL_WINDOW_SIZE, 1 << 31)])),
            Code::Unavailable,
            "HTTP/2",
        ),
        (Box::new(|_| go_away(0, 11)), Code::Unavailable, "HTTP/2"),
        (
            Box::new(|_| [head(), data(b"").repeat(1_000)].concat()),
            Code::Unavailable,
            "HTTP/2",
        ),
        (
            Box::new(|_| {
                let start = frame(HEADERS, 0, 1, &header_block(&HEAD));
                let more = frame(CONTINUATION, 0, 1, &header_block(&[("a", "b")]));
                [start, more.repeat(1_000)].concat()
            }),
            Code::Unavailable,
            "HTTP/2",
        ),
    ];
    let mut wrong = Vec::new();
    for (number, (answer, code, says)) in cases.into_iter().enumerate() {
        let (call, mut tcp, request) = nodes.called().await;
        // The connection stays open: the client itself has to find that this leads nowhere.
        let _ = tcp.write_all(&answer(request.id)).await;
        let error: NodeError = within(call).await.expect_err("that was no answer");
        if error.code() != code || !error.to_string().contains(says) {
            wrong.push((number, error.to_string(), code, says));
        }
        nodes.good_one_answers().await;
        // Where only the call has failed, the next one shall get a connection of its own as well.
        drop(tcp);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_peer_that_is_no_http_2_server_fails_the_call_and_the_other_node_answers() {
    let keep_alive = Duration::from_millis(20);
    let nodes = Nodes::start(|builder| builder.keep_alive(keep_alive, keep_alive)).await;
    let mut answers = vec![
        b"".to_vec(),
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(),
        // A TLS alert.
        vec![0x15, 3, 1, 0, 2, 2, 40],
        settings(&[])[..5].to_vec(),
        frame_head(100, SETTINGS, 0, 0),
    ];
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..30 {
        let len = rng.usize(1..2_000);
        answers.push(std::iter::repeat_with(|| rng.u8(..)).take(len).collect());
    }
    for answer in answers {
        let mut call = nodes.call(0, 1);
        // Not every connection comes to be used for a call.
        let mut open = Vec::new();
        let error = loop {
            tokio::select! {
                biased;
                reply = &mut call => break reply.expect_err("nobody answered"),
                accepted = nodes.foe.accept() => {
                    let (mut tcp, _) = accepted.expect("it listens");
                    let _ = tcp.write_all(&answer).await;
                    open.push(tcp);
                }
            }
        };
        assert_eq!(error.code(), Code::Unavailable, "{error}");
        assert_ne!(error.outcome(), Outcome::Refused);
        nodes.good_one_answers().await;
    }
}

/// What is known of a request that has arrived, where this and the end of the connection follow.
async fn outcome(nodes: &Nodes, answer: &[u8]) -> NodeError {
    let (call, mut tcp, _) = nodes.called().await;
    // The client may have seen enough before all is written.
    let _ = tcp.write_all(answer).await;
    let _ = tcp.shutdown().await;
    within(call).await.expect_err("that was no answer")
}

#[tokio::test]
async fn what_http_2_guarantees_as_unprocessed_is_not_sent() {
    const REFUSED_STREAM: u32 = 7;
    const CANCEL: u32 = 8;

    let nodes = Nodes::start(|builder| builder).await;
    for (answer, expected) in [
        (reset(1, REFUSED_STREAM), Outcome::NotSent),
        (go_away(0, 0), Outcome::NotSent),
        (go_away(0, 11), Outcome::NotSent),
        // First that it ends, then where.
        (
            [go_away(u32::MAX >> 1, 0), go_away(0, 0)].concat(),
            Outcome::NotSent,
        ),
        // It may have looked at what came.
        (reset(1, CANCEL), Outcome::Unknown),
        (go_away(1, 0), Outcome::Unknown),
        (vec![], Outcome::Unknown),
        // Whoever has answered a stream has not refused it.
        (
            [head(), reset(1, REFUSED_STREAM)].concat(),
            Outcome::Unknown,
        ),
        ([head(), go_away(0, 0)].concat(), Outcome::Unknown),
    ] {
        let error = outcome(&nodes, &answer).await;
        assert_eq!(error.outcome(), expected, "{error} after {answer:?}");
        assert_eq!(error.code(), Code::Unavailable, "{error}");
    }
}

#[tokio::test]
async fn what_a_server_writes_into_its_goodbye_does_not_fill_the_error() {
    let nodes = Nodes::start(|builder| builder).await;
    let goodbye = frame(GOAWAY, 0, 0, &[&[0; 8][..], &[b'x'; 10_000]].concat());
    let error = outcome(&nodes, &goodbye).await;
    assert!(error.to_string().len() < 300, "{error}");
}

#[tokio::test]
async fn a_stream_that_a_node_of_this_library_turns_away_is_refused() {
    const FEATURES: (&str, &str) = ("gorums-features", "");

    let nodes = Nodes::start(|builder| builder).await;
    let turned_away = |with: &[(&str, &str)]| {
        let head = [&HEAD[..], with].concat();
        headers(1, END_STREAM, &head)
    };
    let status = ("grpc-status", "16");
    for (answer, expected) in [
        (turned_away(&[status, FEATURES]), Outcome::Refused),
        // Go's servers also end a stream so on which they have done much.
        (turned_away(&[status]), Outcome::Unknown),
        (
            turned_away(&[("grpc-status", "0"), FEATURES]),
            Outcome::Unknown,
        ),
        // The end of a stream that was open.
        ([head(), trailers("16", "")].concat(), Outcome::Unknown),
    ] {
        let error = outcome(&nodes, &answer).await;
        assert_eq!(error.outcome(), expected, "{error}");
    }
}

#[tokio::test]
async fn a_request_to_a_peer_that_does_not_speak_http_2_is_not_sent_and_the_error_says_what_it_speaks()
 {
    let nodes = Nodes::start(|builder| builder).await;
    for (answer, says) in [
        // A TLS alert.
        (&[0x15, 3, 1, 0, 2, 2, 40][..], "seems to speak TLS"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "seems to speak HTTP/1"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "seems to speak SSH"),
        (b"+OK", "begins with \"+OK\""),
    ] {
        let mut call = nodes.call(0, 1);
        let error = loop {
            tokio::select! {
                biased;
                reply = &mut call => break reply.expect_err("that was no answer"),
                // A call that comes during an attempt has one of its own.
                accepted = nodes.foe.accept() => {
                    let (mut tcp, _) = accepted.expect("it listens");
                    // No request is written before the peer has spoken.
                    let mut preface = [0; PREFACE.len()];
                    if within(tcp.read_exact(&mut preface)).await.is_ok() {
                        let _ = tcp.write_all(answer).await;
                        let _ = tcp.shutdown().await;
                    }
                }
            }
        };
        assert_eq!(error.outcome(), Outcome::NotSent, "{error}");
        assert_eq!(error.code(), Code::Unavailable, "{error}");
        assert!(error.to_string().contains(says), "{error}");
        nodes.good_one_answers().await;
    }
}

#[tokio::test]
async fn what_a_server_has_no_business_to_send_is_ignored() {
    let nodes = Nodes::start(|builder| builder).await;
    let call = nodes.call(0, 5);
    let (mut tcp, request) = nodes.accept().await;
    let id = request.id;
    let control = |id, control| {
        let message = Envelope {
            control,
            ..envelope(id, ECHO, 99)
        };
        data(&message.framed())
    };
    let early_hints = headers(1, 0, &[(":status", "103"), ("link", "none")]);
    let nobodys = data(&envelope(id + 1_000, ECHO, 99).framed());
    let bytes = [
        early_hints.repeat(100),
        head(),
        nobodys.repeat(10_000),
        control(id, 1),
        control(id, 77),
        // It did not announce that it would say this.
        control(id, 4),
        control(0, 4),
        control(0, 5),
        control(id + 1_000, 2),
        ping().repeat(100),
        settings(&[]).repeat(100),
        frame(0x77, 0, 0, b"unknown").repeat(100),
        window_update(0, 1),
        data(&envelope(id, ECHO, 5).framed()),
        // Behind the reply: another one, an error, and an end.
        data(&envelope(id, ECHO, 99).framed()),
        control(id, 2),
    ]
    .concat();
    tcp.write_all(&bytes).await.expect("connected");
    assert_eq!(within(call).await.expect("answered").value, 5);
    nodes.good_one_answers().await;
}

#[tokio::test]
async fn a_server_that_takes_nothing_is_in_nobodys_way() {
    let nodes = Nodes::start(|builder| builder.outbox(10, 1 << 20)).await;
    let (mut tcp, _) = within(nodes.foe.accept()).await.expect("it listens");
    let no_window = settings(&[(INITIAL_WINDOW_SIZE, 0)]);
    tcp.write_all(&[no_window, settings_ack(), head()].concat())
        .await
        .expect("connected");
    let mut calls = Vec::new();
    let refused = loop {
        let node = nodes.client.configuration()[0].clone();
        let call = nodes.client.rpc::<_, Number>(&node, ECHO, number(1));
        let mut call = call.timeout(Duration::from_millis(300)).send();
        // What does not fit is known at once.
        tokio::select! {
            biased;
            reply = &mut call => break reply.expect_err("nobody answers"),
            () = std::future::ready(()) => calls.push(call),
        }
        nodes.good_one_answers().await;
        assert!(calls.len() < 20_000, "the outbox has no bound");
    };
    assert_eq!(refused.outcome(), Outcome::NotSent);
    assert_eq!(refused.code(), Code::ResourceExhausted);
    for call in calls {
        let error = within(call).await.expect_err("nobody answers");
        assert_eq!(error.code(), Code::DeadlineExceeded);
    }
}
