//! Whether a ledger has every call once.

use std::collections::BTreeMap;

use gorums_sim::history::{Action, Operation, Outcome};
use gorums_sim::{History, Verdict, Violation};
use serde::Deserialize;

use super::{Asked, Given, line};

/// How many amounts of unknown outcome are searched for those that the counter has. Clients see to it
/// that there are no more.
const MOST_UNSURE: usize = 24;

/// What a client asked of a replica.
#[derive(Debug)]
struct Call {
    place: usize,
    client: u32,
    number: u64,
    asked: Asked,
    given: Option<Given>,
    start: u64,
    /// The end of time where it was not acknowledged: it may take effect whenever.
    end: u64,
    outcome: Outcome,
}

impl Call {
    fn of(place: usize, operation: &Operation) -> Option<Self> {
        let Action::Call { input, output } = &operation.action else {
            return None;
        };
        let asked = Asked::deserialize(input).ok()?;
        let (Asked::Add(number, _) | Asked::Append(number) | Asked::Read(number, _)) = asked;
        let given = match operation.outcome {
            Outcome::Ok => Some(Given::deserialize(output).ok()?),
            _ => None,
        };
        let end = operation.end.filter(|_| given.is_some());
        Some(Self {
            place,
            client: operation.client,
            number,
            asked,
            given,
            start: operation.start,
            end: end.unwrap_or(u64::MAX),
            outcome: operation.outcome,
        })
    }
}

/// Whether each replica has had each call at most once, those of each client in their order, and all
/// that it acknowledged.
pub(super) fn check(history: &History) -> Verdict {
    let mut ledgers: BTreeMap<&str, Vec<Call>> = BTreeMap::new();
    for (place, operation) in history.operations().iter().enumerate() {
        let Some(call) = Call::of(place, operation) else {
            return Verdict::Unknown(format!("operation {place} is none of a ledger"));
        };
        ledgers.entry(&operation.key).or_default().push(call);
    }
    for (ledger, calls) in &ledgers {
        for verdict in [log(ledger, calls), counter(ledger, calls)] {
            if !verdict.is_valid() {
                return verdict;
            }
        }
    }
    Verdict::Valid
}

fn violation<'a>(reason: String, calls: impl IntoIterator<Item = &'a Call>) -> Verdict {
    let places = calls.into_iter().map(|call| call.place);
    Verdict::Violation(Violation::new(reason, places))
}

/// Each line that anybody saw has one position, it is that of a call, and all that were acknowledged
/// are there as long as anybody looks.
fn log(ledger: &str, calls: &[Call]) -> Verdict {
    let appends = calls
        .iter()
        .filter(|call| matches!(call.asked, Asked::Append(_)));
    let appends: BTreeMap<String, &Call> = appends
        .map(|call| (line(call.client, call.number), call))
        .collect();
    let mut log: BTreeMap<u64, (&str, &Call)> = BTreeMap::new();
    for (text, position, seen) in seen_lines(&appends, calls) {
        let (other, before) = *log.entry(position).or_insert((text, seen));
        if other != text {
            let what =
                format!("{ledger} has had line {other} and line {text} at position {position}");
            return violation(what, [before, seen]);
        }
    }
    let mut positions: BTreeMap<&str, (u64, &Call)> = BTreeMap::new();
    let mut in_order = Vec::new();
    for (position, (text, seen)) in &log {
        let Some(append) = appends.get(*text) else {
            return violation(
                format!("{ledger} has line {text}, which nobody appended"),
                [*seen],
            );
        };
        if append.outcome == Outcome::NotDone {
            let what = format!("{ledger} has line {text}, of a call that was not sent");
            return violation(what, [*append, *seen]);
        }
        if let Some((other, before)) = positions.insert(text, (*position, seen)) {
            let what =
                format!("{ledger} has line {text} twice, at positions {other} and {position}");
            return violation(what, [*append, before, seen]);
        }
        in_order.push(*append);
    }
    let verdict = had_in_order(ledger, &in_order);
    if !verdict.is_valid() {
        return verdict;
    }
    lines_are_there(ledger, &log, calls)
}

/// The lines that were acknowledged or read, their positions, and the calls that tell.
fn seen_lines<'a>(
    appends: &'a BTreeMap<String, &'a Call>,
    calls: &'a [Call],
) -> impl Iterator<Item = (&'a str, u64, &'a Call)> {
    let acknowledged = appends.iter().filter_map(|(text, call)| match call.given {
        Some(Given::Position(position)) => Some((&**text, position, *call)),
        _ => None,
    });
    let read = calls.iter().flat_map(|call| {
        let (from, lines) = match (call.asked, &call.given) {
            (Asked::Read(_, from), Some(Given::Found(_, lines, _))) => (from, &lines[..]),
            _ => (0, &[][..]),
        };
        (from..)
            .zip(lines)
            .map(move |(position, text)| (&**text, position, call))
    });
    acknowledged.chain(read)
}

/// A read that has found the end of the log has all lines of calls that were acknowledged before it, and
/// at the end no position is without a line.
fn lines_are_there(ledger: &str, log: &BTreeMap<u64, (&str, &Call)>, calls: &[Call]) -> Verdict {
    for read in calls {
        let (Asked::Read(_, from), Some(Given::Found(_, lines, true))) = (read.asked, &read.given)
        else {
            continue;
        };
        let end = from + lines.len() as u64;
        let missing = log
            .range(end..)
            .find(|(_, (_, seen))| seen.end < read.start);
        if let Some((position, (text, seen))) = missing {
            let what = format!("{ledger} has lost line {text} at position {position}");
            return violation(what, [*seen, read]);
        }
    }
    for (expected, (position, (_, seen))) in (0..).zip(log) {
        if *position != expected {
            return violation(
                format!("{ledger} has no line at position {expected}"),
                [*seen],
            );
        }
    }
    Verdict::Valid
}

/// Whether calls, by the order in which they took effect, did so in the order of each client, and none
/// before one that was acknowledged when it was called.
fn had_in_order(ledger: &str, calls: &[&Call]) -> Verdict {
    let mut latest: Option<&Call> = None;
    let mut of_clients: BTreeMap<u32, &Call> = BTreeMap::new();
    for call in calls {
        if let Some(latest) = latest.filter(|latest| call.end < latest.start) {
            let what = format!("{ledger} has a call before one that it had acknowledged earlier");
            return violation(what, [*call, latest]);
        }
        if latest.is_none_or(|latest| latest.start < call.start) {
            latest = Some(call);
        }
        let before = of_clients.insert(call.client, call);
        if let Some(before) = before.filter(|before| before.number > call.number) {
            let what = format!("{ledger} has calls of client {} out of order", call.client);
            return violation(what, [*call, before]);
        }
    }
    Verdict::Valid
}

/// What the counter was when a call had had its effect, and before it.
fn counts(call: &Call) -> Option<(u64, u64)> {
    match (call.asked, &call.given) {
        (Asked::Add(_, amount), Some(Given::Count(after))) => {
            Some((*after, after.checked_sub(amount)?))
        }
        (Asked::Read(..), Some(Given::Found(count, ..))) => Some((*count, *count)),
        _ => None,
    }
}

/// What the counter has grown by between two answers is the sum of amounts of calls with an unknown
/// outcome, each of them once and those of each client in their order.
fn counter(ledger: &str, calls: &[Call]) -> Verdict {
    let mut steps = Vec::new();
    for call in calls.iter().filter(|call| call.given.is_some()) {
        match (counts(call), call.asked) {
            (Some((after, before)), _) => steps.push((after, before, call)),
            (None, Asked::Append(_)) => {}
            (None, _) => return violation(format!("{ledger} has not what was added"), [call]),
        }
    }
    // What changes nothing has come after what it has found.
    steps.sort_by_key(|(after, before, call)| (*after, before == after, call.start));
    let in_order: Vec<_> = steps.iter().map(|(.., call)| *call).collect();
    let verdict = had_in_order(ledger, &in_order);
    if !verdict.is_valid() {
        return verdict;
    }
    let unknown = calls.iter().filter(|call| {
        matches!(call.asked, Asked::Add(..))
            && !matches!(call.outcome, Outcome::Ok | Outcome::NotDone)
    });
    let unknown: Vec<_> = unknown.collect();
    let mut count = 0;
    // Up to which of its calls each client's have had their effect, or never will.
    let mut passed: BTreeMap<u32, u64> = BTreeMap::new();
    for (at, (after, before, call)) in steps.iter().enumerate() {
        let previous = at.checked_sub(1).map(|at| steps[at].2);
        let shown = [*call].into_iter().chain(previous);
        let Some(grown) = before.checked_sub(count) else {
            let what = format!("{ledger} counted from {before} on, where it had {count} already");
            return violation(what, shown);
        };
        if grown > 0 {
            let mut next = BTreeMap::new();
            for (.., call) in &steps[at..] {
                next.entry(call.client).or_insert(call.number);
            }
            let may_be = unknown.iter().filter(|unknown| {
                let first = passed.get(&unknown.client);
                let last = next.get(&unknown.client);
                unknown.start < call.end
                    && first.is_none_or(|first| *first < unknown.number)
                    && last.is_none_or(|last| unknown.number < *last)
            });
            let may_be: Vec<_> = may_be.collect();
            if may_be.len() > MOST_UNSURE {
                let many = may_be.len();
                return Verdict::Unknown(format!(
                    "{ledger} may have any of {many} amounts at once"
                ));
            }
            let amounts: Vec<_> = may_be.iter().map(|unknown| amount(unknown)).collect();
            let Some(those) = with_sum(grown, &amounts) else {
                let what = format!("{ledger} counted {grown} that no calls account for");
                return violation(what, shown);
            };
            for at in those {
                let last = passed.entry(may_be[at].client).or_default();
                *last = may_be[at].number.max(*last);
            }
        }
        passed.insert(call.client, call.number);
        count = *after;
    }
    Verdict::Valid
}

fn amount(call: &Call) -> u64 {
    match call.asked {
        Asked::Add(_, amount) => amount,
        Asked::Append(_) | Asked::Read(..) => 0,
    }
}

/// The places of numbers with this sum, if there are any.
fn with_sum(sum: u64, numbers: &[u64]) -> Option<Vec<usize>> {
    let Some((last, others)) = numbers.split_last() else {
        return (sum == 0).then(Vec::new);
    };
    let with_last = sum.checked_sub(*last).and_then(|rest| {
        let mut places = with_sum(rest, others)?;
        places.push(others.len());
        Some(places)
    });
    with_last.or_else(|| with_sum(sum, others))
}
