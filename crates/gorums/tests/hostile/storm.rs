//! A million hostile frames.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fastrand::Rng;

use crate::common::echo;
use crate::foe::{Foe, GoodClient};
use crate::frames::*;
use crate::process::{ServerProcess, serve_if_asked};

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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
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
        let mut batch = Vec::new();
        let (mut frames, mut data) = (0, 0);
        while frames < 400 && data + 8_000 < foe.window() {
            let (bytes, count, len) = hostile(rng, &mut stream);
            batch.extend(bytes);
            frames += count;
            data += len;
        }
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
    let message = |envelope: Envelope| message(&envelope.framed());
    let bytes = match rng.u8(..17) {
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
