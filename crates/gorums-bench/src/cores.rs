//! How far the cores are from each other: what threads share travels between them.
//!
//! On a virtual machine that changes under way. Its host moves the cores that it lends, and where
//! two of them share a cache of the processor a line goes there and back in some 60 ns, and
//! elsewhere in some 300. Threads that share much, as those of one runtime do, are then slower by
//! half or more, and nothing in the machine tells why.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long is measured.
const TIME: Duration = Duration::from_millis(20);

/// How often a line goes there and back between two looks at the clock.
const BATCH: u64 = 50;

/// More nanoseconds than a line takes between cores: it waits for the scheduler.
const SHARED_CORE: f64 = 1e3;

/// After how many looks in vain the core is given away: the other thread may be on the same one,
/// until the system moves it.
const PATIENCE: u32 = 200;

/// Alone on a line, whatever the length of one.
#[repr(align(128))]
struct Line(AtomicU64);

/// How many nanoseconds a cache line takes to another core and back; of several tries the best,
/// since everything else that goes on only adds to it. None on a single core.
pub(crate) fn round_trip_ns() -> Option<f64> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    (cores > 1).then(measure)
}

fn measure() -> f64 {
    const END: u64 = u64::MAX;
    let line = Line(AtomicU64::new(0));
    let wait_for_other_than = |old: u64| {
        let mut looks = 0_u32;
        loop {
            let now = line.0.load(Ordering::Acquire);
            if now != old {
                return now;
            }
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(PATIENCE) {
                thread::yield_now();
            }
            std::hint::spin_loop();
        }
    };
    thread::scope(|scope| {
        // Even numbers are sent, and come back odd.
        scope.spawn(|| {
            let mut last = 0;
            loop {
                let sent = wait_for_other_than(last);
                if sent == END {
                    return;
                }
                last = sent + 1;
                line.0.store(last, Ordering::Release);
            }
        });
        let (start, mut best, mut number) = (Instant::now(), f64::INFINITY, 0);
        // Longer where both threads are still on one core.
        while start.elapsed() < TIME || (best > SHARED_CORE && start.elapsed() < 10 * TIME) {
            let batch = Instant::now();
            for _ in 0..BATCH {
                number += 2;
                line.0.store(number, Ordering::Release);
                wait_for_other_than(number);
            }
            best = best.min(batch.elapsed().as_nanos() as f64 / BATCH as f64);
        }
        line.0.store(END, Ordering::Release);
        best
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_goes_there_and_back_where_there_is_another_core() {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let found = round_trip_ns();
        assert_eq!(found.is_some(), cores > 1);
        assert!(found.is_none_or(|nanos| nanos > 0.0), "{found:?}");
    }
}
