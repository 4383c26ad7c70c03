//! Hostile frames, as many as can be and as many in a second.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use tokio::time::{Instant, interval};

use crate::common::echo;
use crate::foe::{Foe, GoodClient};
use crate::frames::*;
use crate::process::{ServerProcess, serve_if_asked, two_threads};

const FRAMES: u64 = 1_000_000;

/// So many clients mean harm at a time.
const FOES: u64 = 4;

/// What the server may grow by in all: what docs/limits.md states for a single connection at its
/// worst, which frames at random come nowhere near.
const MEMORY: usize = 64 << 20;

/// Replays a storm.
const SEED: &str = "GORUMS_STORM_SEED";

#[test]
fn a_million_hostile_frames_of_random_kind_leave_a_good_client_served() {
    if serve_if_asked(echo) {
        return;
    }
    let seed = std::env::var(SEED).map_or_else(
        |_| fastrand::u64(..),
        |seed| seed.parse().expect("a seed is a number"),
    );
    println!("{SEED}={seed}");
    let test = "storm::a_million_hostile_frames_of_random_kind_leave_a_good_client_served";
    let mut server = ServerProcess::start(test);
    let runtime = two_threads();
    let before = server.peak_memory();
    let (sent, served) = runtime.block_on(weather(server.addr, seed));
    assert!(server.is_alive(), "the server has died");
    assert!(sent >= FRAMES, "the server has seen only {sent} frames");
    assert!(served > 0, "the good client made no call meanwhile");
    if let (Some(before), Some(after)) = (before, server.peak_memory()) {
        let grown = after - before;
        println!(
            "{sent} frames, {served} calls of the good client, {} KiB more",
            grown / 1024
        );
        assert!(grown < MEMORY, "the server grew by {} KiB", grown / 1024);
    }
}

/// Sends all the frames, and returns how many, and how many calls a good client made meanwhile.
async fn weather(addr: SocketAddr, seed: u64) -> (u64, u64) {
    let sent = Arc::new(AtomicU64::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let good = tokio::spawn({
        let over = Arc::clone(&over);
        async move {
            let client = GoodClient::connect(addr);
            let mut served = 0;
            while !over.load(Ordering::Relaxed) {
                client.is_served().await;
                served += 10;
            }
            served
        }
    });
    let foes: Vec<_> = (0..FOES)
        .map(|foe| {
            let sent = Arc::clone(&sent);
            tokio::spawn(async move {
                let mut rng = Rng::with_seed(seed.wrapping_add(foe));
                while sent.load(Ordering::Relaxed) < FRAMES {
                    connection(addr, &mut rng, &sent).await;
                }
            })
        })
        .collect();
    for foe in foes {
        foe.await.expect("a foe finds a server that listens");
    }
    over.store(true, Ordering::Relaxed);
    let served = good.await.expect("every call of the good client succeeds");
    (sent.load(Ordering::Relaxed), served)
}

/// How many frames come in a second while what they cost is measured, and for how long.
const RATE: u64 = 10_000;
const MEASURED: Duration = Duration::from_secs(2);

/// How often frames come meanwhile.
const TICK: Duration = Duration::from_millis(5);

/// The time between two calls of the good client meanwhile.
const CALLS: Duration = Duration::from_millis(5);

/// Prints what the server's processor does for a bad frame, kind by kind, and fails where the good
/// client has an error. It takes a while, and the figures are worth nothing without optimization:
///
/// cargo test --release -p gorums --test hostile -- --ignored --nocapture what_bad_frames_cost
#[test]
#[ignore = "a measurement: the numbers are for people to read"]
fn what_bad_frames_cost_at_ten_thousand_in_a_second() {
    if serve_if_asked(echo) {
        return;
    }
    let mut server =
        ServerProcess::start("storm::what_bad_frames_cost_at_ten_thousand_in_a_second");
    let runtime = two_threads();
    let before = server.peak_memory();
    let good = runtime.block_on(async { GoodClient::connect(server.addr) });
    let mut served = 0;
    let cpu = |server: &ServerProcess| server.cpu().expect("this system tells what a process does");
    let idle = runtime.block_on(async {
        let began = cpu(&server);
        served += good.called_for(MEASURED, CALLS).await;
        cpu(&server) - began
    });
    println!("| frames | in a second | µs of the server's CPU for each |");
    println!("|---|---|---|");
    // After the last kind come those that end a connection, each on a new one.
    for (kind, name) in (0..).zip(NAMES.into_iter().chain(["what ends a connection"])) {
        let (sent, took, calls, used) = runtime.block_on(async {
            let (addr, began, start) = (server.addr, cpu(&server), Instant::now());
            let foe = tokio::spawn(async move { paced(addr, kind).await });
            let calls = good.called_for(MEASURED, CALLS).await;
            let sent = foe.await.expect("a foe finds a server that listens");
            (sent, start.elapsed(), calls, cpu(&server) - began)
        });
        served += calls;
        let own = used.saturating_sub(idle.mul_f64(took.as_secs_f64() / MEASURED.as_secs_f64()));
        let (rate, each) = (
            sent as f64 / took.as_secs_f64(),
            own.as_secs_f64() * 1e6 / sent as f64,
        );
        println!("| {name} | {rate:.0} | {each:.2} |");
        assert!(server.is_alive(), "the server has died");
    }
    let grown = server
        .peak_memory()
        .zip(before)
        .map(|(now, then)| now - then);
    let grown = grown.expect("this system tells what a process has");
    println!(
        "{served} calls of the good client, no error; {} KiB more",
        grown / 1024
    );
    assert!(grown < MEMORY, "the server grew by {} KiB", grown / 1024);
}

/// Sends frames of this kind for a while, no more than so many in a second. How many they were.
async fn paced(addr: SocketAddr, kind: usize) -> u64 {
    let (mut rng, mut stream) = (Rng::with_seed(kind as u64), 1);
    let (start, mut ticks) = (Instant::now(), interval(TICK));
    let (mut sent, mut due) = (0, 0);
    let mut foe: Option<Foe> = None;
    while start.elapsed() < MEASURED {
        if sent >= due {
            ticks.tick().await;
            due = (start.elapsed().as_secs_f64() * RATE as f64) as u64;
            continue;
        }
        let mut on = match foe.take() {
            Some(foe) => foe,
            None => {
                stream = 1;
                Foe::open_with(addr, &[]).await
            }
        };
        let (batch, frames, data) = match kind {
            ..KINDS => batch(due - sent, on.window(), || {
                let id = rng.u64(1..1 << 40);
                of_kind(kind, id, &mut rng, &mut stream)
            }),
            _ => fatal(&mut rng),
        };
        let survived = frames > 0 && on.survives(&batch, data).await;
        sent += frames;
        foe = survived.then_some(on);
    }
    sent
}

/// Frames until there are so many, or no more DATA may be sent; how many, and how many bytes of DATA
/// they are.
fn batch(
    most: u64,
    window: usize,
    mut next: impl FnMut() -> (Vec<u8>, u64, usize),
) -> (Vec<u8>, u64, usize) {
    let (mut batch, mut frames, mut data) = (Vec::new(), 0, 0);
    while frames < most && data + 8_000 < window {
        let (bytes, count, len) = next();
        batch.extend(bytes);
        frames += count;
        data += len;
    }
    (batch, frames, data)
}

/// What a foe does until the server ends the connection, or the storm is over.
async fn connection(addr: SocketAddr, rng: &mut Rng, sent: &AtomicU64) {
    if rng.u8(..50) == 0 {
        // Not even HTTP/2.
        let mut foe = Foe::connect(addr).await;
        let len = rng.usize(1..2_000);
        let bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(len).collect();
        foe.send(&bytes).await;
        return;
    }
    let settings: &[(u16, u32)] = match rng.u8(..20) {
        // Never takes an answer.
        0 => &[(INITIAL_WINDOW_SIZE, 0)],
        _ => &[],
    };
    let mut foe = Foe::open_with(addr, settings).await;
    let mut stream = 1;
    while sent.load(Ordering::Relaxed) < FRAMES {
        let (batch, frames, data) = batch(400, foe.window(), || hostile(rng, &mut stream));
        // A server that does not read on, or a window that an oversized message has used up.
        if frames == 0 {
            return;
        }
        // Those that the server has seen. Where it ended the connection, nobody knows how many it
        // has.
        if !foe.survives(&batch, data).await {
            return;
        }
        sent.fetch_add(frames, Ordering::Relaxed);
    }
}

/// Frames that nobody should send, how many, and how many bytes of DATA they are.
fn hostile(rng: &mut Rng, stream: &mut u32) -> (Vec<u8>, u64, usize) {
    let id = match rng.u8(..4) {
        0 => 0,
        1 => u64::MAX,
        2 => 1,
        _ => rng.u64(..),
    };
    // One in some hundred leaves the server no choice but to end the stream or the connection.
    if rng.u16(..500) == 0 {
        return fatal(rng);
    }
    let kind = rng.usize(..KINDS);
    of_kind(kind, id, rng, stream)
}

/// How many kinds of frames there are that nobody should send.
const KINDS: usize = 17;

/// What frames of each kind are.
const NAMES: [&str; KINDS] = [
    "request of an unknown method",
    "request without a method",
    "request that cannot be decoded",
    "control that is not there, or a cancellation",
    "reply that nobody asked for",
    "request with empty metadata",
    "piece of an honest request",
    "request with an id that is in use",
    "PING",
    "SETTINGS that nobody knows",
    "PRIORITY",
    "frame of an unknown type",
    "WINDOW_UPDATE of the connection",
    "WINDOW_UPDATE of the stream",
    "DATA without any",
    "stream opened and reset (2 frames)",
    "SETTINGS acknowledged that were not sent",
];

/// Frames of this kind, how many, and how many bytes of DATA they are.
fn of_kind(kind: usize, id: u64, rng: &mut Rng, stream: &mut u32) -> (Vec<u8>, u64, usize) {
    let message = |envelope: Envelope| message(&envelope.framed());
    let bytes = match kind {
        0 => return message(envelope(id, "no.such.Method", 1)),
        1 => return message(envelope(id, "", 1)),
        2 => {
            return message(Envelope {
                payload: vec![0xff; rng.usize(1..100)].into(),
                ..envelope(id, ECHO, 1)
            });
        }
        // A cancellation, an end, and controls that are not there.
        3 => {
            return message(Envelope {
                control: rng.u32(1..100),
                ..envelope(id, ECHO, 1)
            });
        }
        // A reply that nobody asked for.
        4 => {
            let status = WireStatus {
                code: rng.i32(..),
                message: "?".repeat(rng.usize(..50)),
                details: vec![prost_types::Any::default(); rng.usize(..20)],
            };
            return message(Envelope {
                status: Some(status),
                ..envelope(id | 1 << 63, ECHO, 1)
            });
        }
        5 => {
            let count = if rng.u8(..100) == 0 { 3_000 } else { 20 };
            return message(Envelope {
                entries: vec![Entry::default(); rng.usize(..count)],
                ..envelope(id, ECHO, 1)
            });
        }
        // An honest request, cut in many frames.
        6 => {
            let framed = envelope(id, ECHO, 1).framed();
            let frames: Vec<_> = framed.chunks(rng.usize(1..20)).map(data).collect();
            return (frames.concat(), frames.len() as u64, framed.len());
        }
        // The same id many times.
        7 => {
            let times = rng.usize(2..20);
            let framed = envelope(7, ECHO, 1).framed();
            return (
                data(&framed).repeat(times),
                times as u64,
                framed.len() * times,
            );
        }
        8 => ping(),
        9 => settings(&[(rng.u16(10..), rng.u32(..))]),
        10 => frame(PRIORITY, 0, 1, &[0, 0, 0, 3, rng.u8(..)]),
        11 => frame(
            rng.u8(10..),
            rng.u8(..),
            rng.u32(..9),
            &vec![7; rng.usize(..100)],
        ),
        12 => window_update(0, 1),
        13 => window_update(1, rng.u32(1..100)),
        14 => data(b""),
        // Opened and reset at once.
        15 => {
            *stream += 2;
            let open = headers(*stream, 0, &REQUEST);
            return ([open, reset(*stream, 8)].concat(), 2, 0);
        }
        _ => settings_ack(),
    };
    (bytes, 1, 0)
}

fn message(framed: &[u8]) -> (Vec<u8>, u64, usize) {
    (data(framed), 1, framed.len())
}

/// What ends a stream or a connection.
fn fatal(rng: &mut Rng) -> (Vec<u8>, u64, usize) {
    let noise: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(40).collect();
    let bytes = match rng.u8(..10) {
        0 => return message(&framed(&noise)),
        1 => return message(&noise),
        // 4 GiB, it says.
        2 => return message(&[0, 0xff, 0xff, 0xff, 0xff, 8, 1, 18]),
        3 => frame(rng.u8(..10), rng.u8(..), rng.u32(..5), &noise),
        // Larger than any that the server takes: of a smaller one it would wait for the rest.
        4 => frame_head(rng.usize((1 << 20) + 1..1 << 24), rng.u8(..10), 0, 1),
        5 => headers(2, 0, &REQUEST),
        6 => frame(CONTINUATION, 0, 1, &noise),
        7 => reset(1, 8),
        8 => go_away(0, 0),
        _ => frame(HEADERS, END_STREAM | END_HEADERS, 1, &noise),
    };
    (bytes, 1, 0)
}
