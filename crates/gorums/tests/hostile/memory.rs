//! What hostile clients can make a server keep.
//!
//! The server runs in a process of its own. The most memory that it had is known on Linux; on other
//! systems these tests show only that the clients are held back and others are served.

use gorums::{ServerBuilder, Status};

use crate::common::{Number, echo};
use crate::foe::{Foe, GoodClient};
use crate::frames::*;
use crate::process::{ServerProcess, serve_if_asked};

const HOLD: &str = "test.Test.Hold";

const MIB: usize = 1 << 20;

/// A server with a method that never ends.
fn holding() -> ServerBuilder {
    echo().unary(HOLD, |_ctx, _request: Number| {
        std::future::pending::<Result<Number, Status>>()
    })
}

/// Runs an attack on a server in another process, by a client whose first request holds its turn, and
/// sees that the server's memory grows by no more than this.
#[track_caller]
fn attacked(test: &str, at_most: usize, attack: impl AsyncFnOnce(Foe)) {
    if serve_if_asked(holding) {
        return;
    }
    let server = ServerProcess::start(test);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let good = GoodClient::connect(server.addr);
        good.is_served().await;
        let before = server.peak_memory();
        let mut foe = Foe::open(server.addr).await;
        foe.is_read().await;
        foe.send_data(&data(&envelope(1, HOLD, 1).framed())).await;
        attack(foe).await;
        good.is_served().await;
        if let (Some(before), Some(after)) = (before, server.peak_memory()) {
            let grown = after - before;
            assert!(grown < at_most, "{} KiB more", grown / 1024);
        }
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
    let test = "memory::a_request_that_waits_does_not_keep_the_frames_around_it";
    attacked(test, 32 * MIB, async |mut foe| {
        let unknown = frame(0x77, 0, 0, &[7; 8_000]);
        let request = data(&envelope(1, ECHO, 1).framed());
        for _ in 0..16_000 {
            foe.send(&unknown).await;
            foe.send_data(&request).await;
        }
        foe.is_read().await;
    });
}

#[test]
fn a_request_that_waits_counts_with_all_that_came_in_its_frame() {
    let test = "memory::a_request_that_waits_counts_with_all_that_came_in_its_frame";
    attacked(test, 32 * MIB, async |mut foe| {
        let request = envelope(1, ECHO, 1).framed();
        let bytes = data(&[request, nonsense(MIB - 1_000)].concat());
        let mut frames = 0;
        while foe.may_send(bytes.len()).await {
            foe.send_data(&bytes).await;
            frames += 1;
            assert!(frames < 100, "the client is not held back");
        }
    });
}

#[test]
fn frames_of_four_bytes_that_wait_take_bounded_memory() {
    let test = "memory::frames_of_four_bytes_that_wait_take_bounded_memory";
    attacked(test, 64 * MIB, async |mut foe| {
        let message = envelope(1, ECHO, 1).framed();
        let bytes: Vec<u8> = message.chunks(4).flat_map(data).collect();
        let mut sent = 0;
        while foe.may_send(message.len()).await {
            foe.send_frames(&bytes, message.len()).await;
            sent += message.len();
            assert!(sent < 20 * MIB, "the client is not held back");
        }
    });
}

#[test]
fn metadata_and_details_of_two_bytes_take_no_memory_to_speak_of() {
    let test = "memory::metadata_and_details_of_two_bytes_take_no_memory_to_speak_of";
    attacked(test, 32 * MIB, async |mut foe| {
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

#[test]
fn streams_that_are_reset_one_after_the_other_leave_bounded_memory_behind() {
    let test = "memory::streams_that_are_reset_one_after_the_other_leave_bounded_memory_behind";
    attacked(test, 64 * MIB, async |mut foe| {
        // Requests of five bytes, of a method that nobody knows.
        let requests = framed(&[]).repeat(1_000);
        for stream in (1..60).step_by(2) {
            if stream > 1 {
                foe.next_stream();
                foe.send(&headers(stream, 0, &REQUEST)).await;
                let hold = frame(DATA, 0, stream, &envelope(1, HOLD, 1).framed());
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
