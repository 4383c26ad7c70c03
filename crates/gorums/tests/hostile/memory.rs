//! What hostile peers can make a process keep.
//!
//! The foe and its victim share a thread, a network in memory, and a clock that goes on only when
//! both wait. All that they allocate is counted, with what the foe needs for its attack. So a test
//! finds the same on every machine.

use allocation_counter::measure;
use gorums::runtime::{Listener, Transport};
use gorums::{Configuration, ServerBuilder, ServerCtx, Status};
use prost::Message;
use prost::encoding::encode_varint;

use crate::common::{Counter, Number, echo, within};
use crate::foe::{Foe, GoodClient};
use crate::frames::*;
use crate::network::{Network, settle};

const HOLD: &str = "test.Test.Hold";

const MIB: usize = 1 << 20;

/// Where the good server and the foe listen.
const SERVER: &str = "server:1";
const FOE: &str = "foe:1";

/// Who is attacked.
#[derive(Debug, Clone, Copy)]
enum Victim {
    /// A server, of which the foe is a client.
    Server,
    /// A client that serves calls of its servers, of which the foe is one.
    Client,
}

const BOTH: [Victim; 2] = [Victim::Server, Victim::Client];

impl Victim {
    /// A foe that is connected to a victim with these handlers, and a good client. It calls the
    /// victim, or is the victim and calls another server.
    async fn meets(self, handlers: ServerBuilder, settings: &[(u16, u32)]) -> (Foe, GoodClient) {
        let network = Network::new();
        let mut foes = network.listen(FOE).await.expect("a network in memory");
        let (server, nodes) = match self {
            Self::Server => (handlers, Configuration::builder().nodes([SERVER])),
            Self::Client => {
                let nodes = Configuration::builder().nodes([SERVER, FOE]);
                (echo(), nodes.serve(handlers))
            }
        };
        let server = server.transport(network.clone()).bind(SERVER);
        tokio::spawn(server.await.expect("a network in memory").serve());
        let nodes = nodes.transport(network.clone()).connect();
        let good = GoodClient::new(&nodes.expect("legal addresses"));
        let foe = match self {
            Self::Server => {
                let io = network.connect(SERVER).await.expect("it listens");
                Foe::open_over(io, settings).await
            }
            Self::Client => {
                let (io, _) = within(foes.accept()).await.expect("it connects");
                Foe::accept_over(io, settings).await
            }
        };
        (foe, good)
    }
}

/// Runs what a foe does to each of these victims, and sees that what is allocated at a time is less
/// than this.
#[track_caller]
fn bounded(victims: &[Victim], at_most: usize, run: impl AsyncFn(Victim)) {
    for victim in victims {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let most = measure(|| runtime.block_on(run(*victim))).bytes_max as usize;
        println!("{victim:?}: {} KiB", most / 1024);
        assert!(most < at_most, "{victim:?}: {} KiB", most / 1024);
    }
}

/// Runs an attack by a foe whose first request holds its turn for ever.
#[track_caller]
fn attacked(victims: &[Victim], at_most: usize, attack: impl AsyncFn(&mut Foe)) {
    bounded(victims, at_most, async |victim| {
        let holding = echo().unary(HOLD, |_ctx, _request: Number| {
            std::future::pending::<Result<Number, Status>>()
        });
        let (mut foe, good) = victim.meets(holding, &[]).await;
        good.is_served().await;
        foe.is_read().await;
        let hold = data(&foe.request(1, HOLD).framed());
        foe.send_data(&hold).await;
        attack(&mut foe).await;
        good.is_served().await;
    });
}

/// A message that means nothing to anybody.
fn nonsense(bytes: usize) -> Vec<u8> {
    let nonsense = Envelope {
        control: 99,
        payload: vec![7; bytes].into(),
        ..Envelope::default()
    };
    nonsense.framed()
}

#[test]
fn a_request_that_waits_does_not_keep_the_frames_around_it() {
    attacked(&BOTH, 32 * MIB, async |foe| {
        let unknown = frame(0x77, 0, 0, &[7; 8_000]);
        let request = data(&foe.request(1, ECHO).framed());
        for _ in 0..16_000 {
            foe.send(&unknown).await;
            foe.send_data(&request).await;
        }
        foe.is_read().await;
    });
}

/// Requests in frames that carry more besides, in both orders.
fn in_frames_of(bytes: usize) {
    attacked(&BOTH, 32 * MIB, async |foe| {
        let request = foe.request(1, ECHO).framed();
        let rest = nonsense(bytes - 100);
        let mut sent = 0;
        'held_back: loop {
            for payload in [[&*request, &*rest].concat(), [&*rest, &*request].concat()] {
                if !foe.may_send(payload.len()).await {
                    break 'held_back;
                }
                foe.send_data(&data(&payload)).await;
                sent += payload.len();
                assert!(sent < 100 * MIB, "the peer is not held back");
            }
        }
        foe.is_read().await;
    });
}

#[test]
fn a_request_that_waits_counts_with_all_that_came_in_its_frame() {
    in_frames_of(MIB - 1_000);
}

#[test]
fn a_request_that_waits_counts_with_all_that_came_in_its_frame_of_8_kib() {
    in_frames_of(8 << 10);
}

#[test]
fn a_request_that_waits_counts_with_all_that_came_in_its_frame_of_64_kib() {
    in_frames_of(64 << 10);
}

#[test]
fn a_request_that_waits_counts_with_its_fields_that_nobody_knows() {
    attacked(&BOTH, 32 * MIB, async |foe| {
        let mut request = foe.request(1, ECHO).encode_to_vec();
        // A field of bytes with the number 11.
        request.push(11 << 3 | 2);
        encode_varint(MIB as u64 - 1_000, &mut request);
        request.resize(request.len() + MIB - 1_000, 7);
        for bytes in framed(&request).chunks(MIB).cycle() {
            if !foe.may_send(bytes.len()).await {
                break;
            }
            foe.send_data(&data(bytes)).await;
        }
        foe.is_read().await;
    });
}

#[test]
fn frames_of_four_bytes_that_wait_take_bounded_memory() {
    attacked(&BOTH, 64 * MIB, async |foe| {
        let message = foe.request(1, ECHO).framed();
        let bytes: Vec<u8> = message.chunks(4).flat_map(data).collect();
        let mut sent = 0;
        while foe.may_send(message.len()).await && foe.send_frames(&bytes, message.len()).await {
            sent += message.len();
            assert!(sent < 20 * MIB, "the peer is not held back");
        }
    });
}

#[test]
fn metadata_and_details_of_two_bytes_take_no_memory_to_speak_of() {
    attacked(&BOTH, 32 * MIB, async |foe| {
        let entries = [0x22, 0].repeat(MIB);
        // A status of so many bytes, of details.
        let details = [&[0x1a, 0x80, 0x80, 0x80, 1][..], &[0x1a, 0].repeat(MIB)].concat();
        for message in [entries, details] {
            for part in framed(&message).chunks(MIB) {
                let part = data(part);
                assert!(foe.may_send(part.len()).await, "these do not wait");
                foe.send_data(&part).await;
            }
        }
        foe.is_read().await;
    });
}

/// Only clients open streams.
#[test]
fn streams_that_are_reset_one_after_the_other_leave_bounded_memory_behind() {
    attacked(&[Victim::Server], 64 * MIB, async |foe| {
        // Requests of five bytes, of a method that nobody knows.
        let requests = framed(&[]).repeat(1_000);
        for stream in (1..60).step_by(2) {
            if stream > 1 {
                foe.next_stream();
                foe.send(&headers(stream, 0, &REQUEST)).await;
                let hold = frame(DATA, 0, stream, &foe.request(1, HOLD).framed());
                foe.send_data(&hold).await;
            }
            let bytes = frame(DATA, 0, stream, &requests);
            while foe.may_send(requests.len()).await {
                if !foe.survives_on(stream, &bytes, requests.len()).await {
                    return;
                }
            }
            foe.send(&reset(stream, 8)).await;
            foe.is_read().await;
        }
    });
}

const ANSWER: &str = "test.Test.Answer";

/// So many requests fit in a window.
const REQUESTS: u64 = 16_000;

/// Handlers that release their turn and make large replies. Only the first replies are large, so
/// that a victim that keeps all of them fails the test and not the machine.
fn answering(bytes: usize, suspends: bool, made: &Counter) -> ServerBuilder {
    let made = made.clone();
    let large = (64 * MIB / bytes) as u64;
    echo().unary(ANSWER, move |ctx: ServerCtx, request: Number| {
        let made = made.clone();
        async move {
            ctx.release();
            if suspends {
                tokio::task::yield_now().await;
            }
            let bytes = if made.add() <= large { bytes } else { 0 };
            Ok::<_, Status>(Number {
                payload: vec![7; bytes].into(),
                ..request
            })
        }
    })
}

/// A foe asks for large replies and takes none of them, until it takes all.
#[track_caller]
fn replies_wait(bytes: usize, suspends: bool, at_most: usize) {
    bounded(&BOTH, at_most, async |victim| {
        let made = Counter::new();
        let handlers = answering(bytes, suspends, &made);
        let no_window = [(INITIAL_WINDOW_SIZE, 0)];
        let (mut foe, good) = victim.meets(handlers, &no_window).await;
        foe.is_read().await;
        let requests = foe.request(1, ANSWER).framed().repeat(REQUESTS as usize);
        assert!(foe.may_send(requests.len()).await);
        foe.send_data(&data(&requests)).await;
        settle().await;
        let held = made.get() as usize * bytes;
        assert!(held < at_most, "{victim:?}: {} replies wait", made.get());
        good.is_served().await;
        // No handler is forgotten.
        let much = i32::MAX as u32;
        foe.send(&[window_update(1, much), window_update(0, much - 65_535)].concat())
            .await;
        let mut rest = REQUESTS;
        let mut unread = Vec::new();
        while rest > 0 {
            let frame = foe.read().await.expect("the connection is up");
            if frame.kind == DATA {
                unread.extend(frame.payload);
                let mut at = 0;
                while let Some(head) = unread.get(at + 1..at + 5) {
                    let len = u32::from_be_bytes(head.try_into().expect("four bytes"));
                    let end = at + 5 + len as usize;
                    if end > unread.len() {
                        break;
                    }
                    at = end;
                    rest -= 1;
                }
                unread.drain(..at);
            }
        }
        assert_eq!(made.get(), REQUESTS);
    });
}

/// The bound of replies, and a few in the making; besides, the requests that wait.
#[test]
fn replies_of_released_handlers_that_nobody_takes_are_within_the_bound() {
    replies_wait(256 << 10, false, 20 * MIB);
}

/// As many as may run at once are in the making, 1,024 by default.
#[test]
fn replies_of_released_handlers_that_suspended_are_within_the_bound() {
    replies_wait(16 << 10, true, 40 * MIB);
}

/// Foes that each make the server keep as much as one connection may.
#[test]
fn connections_that_are_filled_hold_together_what_the_server_may_hold_for_all() {
    const ALL: usize = 16 * MIB;
    // What the foes and the buffers of the network have comes on top.
    bounded(&[Victim::Server], ALL + 16 * MIB, async |_| {
        let network = Network::new();
        let holding = echo()
            .max_buffered_bytes(ALL)
            .transport(network.clone())
            .unary(HOLD, |_ctx, _request: Number| {
                std::future::pending::<Result<Number, Status>>()
            });
        let server = holding.bind(SERVER).await.expect("a network in memory");
        tokio::spawn(server.serve());
        let nodes = Configuration::builder()
            .transport(network.clone())
            .nodes([SERVER])
            .connect();
        let good = GoodClient::new(&nodes.expect("legal addresses"));
        let mut kept = Vec::new();
        for _ in 0..20 {
            let io = network.connect(SERVER).await.expect("it listens");
            let mut foe = Foe::open_over(io, &[]).await;
            let hold = data(&foe.request(1, HOLD).framed());
            foe.is_read().await;
            foe.send_data(&hold).await;
            let mut request = foe.request(2, ECHO);
            request.payload = vec![7; 60_000].into();
            let bytes = request.framed();
            let frame = data(&bytes);
            // Until it is held back or cut off.
            while foe.may_send(bytes.len()).await {
                if !foe.survives(&frame, bytes.len()).await {
                    break;
                }
            }
            good.is_served().await;
            kept.push(foe);
        }
        // Those that are cut off need not be those that come last.
        settle().await;
        let mut ended = 0;
        for foe in &mut kept {
            ended += usize::from(!foe.is_up().await);
        }
        assert!((10..20).contains(&ended), "{ended} of 20 were cut off");
    });
}
