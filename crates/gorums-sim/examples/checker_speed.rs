//! How long the check of 100,000 operations of 20 clients on one register takes: less than a
//! second, or the exit code is 1.
//!
//! ```console
//! $ cargo run --release -p gorums-sim --example checker_speed
//! ```

use std::process::ExitCode;
use std::time::{Duration, Instant};

use gorums_sim::history::{Action, History, Operation, Outcome};

const OPERATIONS: u64 = 100_000;
const CLIENTS: usize = 20;
const LIMIT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let valid = operations();
    // A read of the first value after all else, the latest that can be found.
    let mut broken = valid.clone();
    let end = valid.iter().filter_map(|operation| operation.end).max();
    let end = end.unwrap_or_default();
    let first = valid.iter().find_map(|operation| match &operation.action {
        Action::Write(value) => Some(value.clone()),
        _ => None,
    });
    broken.push(operation(0, Action::Read(first), end + 1, end + 2));

    let mut passed = true;
    for (name, operations, expected) in [("linearizable", valid, true), ("broken", broken, false)] {
        let history = History::new(operations).expect("each operation ends after its start");
        let start = Instant::now();
        let verdict = history.linearizable();
        let took = start.elapsed();
        let as_expected = verdict.is_valid() == expected && took < LIMIT;
        passed &= as_expected;
        println!(
            "{} operations of {CLIENTS} clients, {name}: {:.0} ms{}",
            history.len(),
            took.as_secs_f64() * 1e3,
            if as_expected { "" } else { ", FAILED" }
        );
    }
    if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Of a register that works: each operation takes effect at some moment between its call and its
/// return. About half of them write, each another value.
fn operations() -> Vec<Operation> {
    let mut random = 1_u64;
    let mut below = |bound: u64| {
        // Xorshift (Marsaglia, 2003).
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % bound
    };
    let mut free = [0; CLIENTS];
    let mut times: Vec<_> = (0..OPERATIONS)
        .map(|number| {
            let client = number as usize % CLIENTS;
            let start = free[client] + 1 + below(50);
            let effect = start + below(100);
            let end = effect + below(100);
            free[client] = end;
            (effect, number, client as u32, start, end, below(2) == 0)
        })
        .collect();
    times.sort_unstable();
    let mut value = None;
    let operations = times
        .into_iter()
        .map(|(_, number, client, start, end, writes)| {
            let action = if writes {
                value = Some(number.to_string());
                Action::Write(number.to_string())
            } else {
                Action::Read(value.clone())
            };
            operation(client, action, start, end)
        });
    let mut operations: Vec<_> = operations.collect();
    operations.sort_by_key(|operation| operation.start);
    operations
}

fn operation(client: u32, action: Action, start: u64, end: u64) -> Operation {
    Operation {
        client,
        key: "register".to_owned(),
        action,
        start,
        end: Some(end),
        outcome: Outcome::Ok,
    }
}
