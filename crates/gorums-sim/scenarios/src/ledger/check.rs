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
/// before one that was acknowledged when it was called. A read comes no earlier than in the order of its
/// client. It may come later: its answer is not kept, and so a read that comes again to a replica that
/// was started anew finds what was done then, of its client too.
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
        let last = of_clients.entry(call.client).or_insert(call);
        if last.number < call.number {
            *last = call;
        } else if last.number > call.number && !matches!(call.asked, Asked::Read(..)) {
            let what = format!("{ledger} has calls of client {} out of order", call.client);
            return violation(what, [*call, *last]);
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
///
/// That sum belongs to one set of calls, as good as always ([`UNSURE`](super::UNSURE)), so that the first
/// set that is found is the right one.
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
            let may_be = may_be(&unknown, &steps[at..], &passed);
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
        let last = passed.entry(call.client).or_default();
        *last = call.number.max(*last);
        count = *after;
    }
    Verdict::Valid
}

/// Those of these calls that may have had their effect before all of `rest`, where each client's up to
/// the number that is `passed` have had it, or never will: clients make more than that only when they
/// have an answer that is behind them.
fn may_be<'a>(
    unknown: &[&'a Call],
    rest: &[(u64, u64, &Call)],
    passed: &BTreeMap<u32, u64>,
) -> Vec<&'a Call> {
    let first_end = rest.iter().map(|(.., call)| call.end).min();
    let mut next = BTreeMap::new();
    let adds = rest.iter().filter(|(after, before, _)| before < after);
    for (.., call) in adds {
        next.entry(call.client).or_insert(call.number);
    }
    let may_be = unknown.iter().filter(|call| {
        let passed = passed.get(&call.client);
        let next = next.get(&call.client);
        first_end.is_none_or(|end| call.start < end)
            && passed.is_none_or(|passed| *passed < call.number)
            && next.is_none_or(|next| call.number < *next)
    });
    may_be.copied().collect()
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

#[cfg(test)]
mod tests {
    use gorums_sim::history::Recorder;

    use super::*;

    type Told = Result<Given, Outcome>;

    /// The verdict on calls to one ledger, one after the other.
    fn verdict(calls: &[(u32, Asked, Told)]) -> Verdict {
        let recorder = Recorder::new();
        for (client, asked, told) in calls {
            let operation = recorder.operation(*client, "it", asked);
            match told {
                Ok(given) => drop(operation.returned(given)),
                Err(Outcome::NotDone) => operation.not_done(),
                Err(_) => drop(operation.failed()),
            }
        }
        check(&recorder.history())
    }

    fn is_refused(why: &str, calls: &[(u32, Asked, Told)]) {
        let verdict = verdict(calls);
        let violation = verdict.violation().map(ToString::to_string);
        assert!(
            violation.is_some_and(|shown| shown.contains(why)),
            "{why}: {verdict:?}"
        );
    }

    fn add(client: u32, number: u64, amount: u64, count: u64) -> (u32, Asked, Told) {
        (client, Asked::Add(number, amount), Ok(Given::Count(count)))
    }

    fn add_in_vain(client: u32, number: u64, amount: u64) -> (u32, Asked, Told) {
        (client, Asked::Add(number, amount), Err(Outcome::Failed))
    }

    fn append(client: u32, number: u64, position: u64) -> (u32, Asked, Told) {
        (client, Asked::Append(number), Ok(Given::Position(position)))
    }

    fn append_in_vain(client: u32, number: u64) -> (u32, Asked, Told) {
        (client, Asked::Append(number), Err(Outcome::Failed))
    }

    fn read(client: u32, number: u64, count: u64, lines: &[&str]) -> (u32, Asked, Told) {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        (
            client,
            Asked::Read(number, 0),
            Ok(Given::Found(count, lines, true)),
        )
    }

    #[test]
    fn each_call_of_unknown_outcome_may_have_had_its_effect_or_not() {
        let calls = [
            add(1, 1, 5, 5),
            append(1, 2, 0),
            add_in_vain(1, 3, 7),
            add_in_vain(1, 4, 8),
            append_in_vain(1, 5),
            append_in_vain(1, 6),
            read(2, 1, 5, &["1/2"]),
            read(2, 2, 13, &["1/2", "1/6"]),
            add(2, 3, 1, 14),
            append(2, 4, 2),
            read(1, 7, 14, &["1/2", "1/6", "2/4"]),
        ];
        assert_eq!(verdict(&calls), Verdict::Valid);
    }

    #[test]
    fn an_amount_that_is_counted_twice_or_by_nobody_is_found() {
        let why = "that no calls account for";
        is_refused(why, &[add(1, 1, 5, 5), read(1, 2, 10, &[])]);
        is_refused(why, &[add(1, 1, 5, 10)]);
        let twice = [
            add_in_vain(1, 1, 7),
            read(2, 1, 7, &[]),
            read(2, 2, 14, &[]),
        ];
        is_refused(why, &twice);
        let unsent = (1, Asked::Add(1, 7), Err(Outcome::NotDone));
        is_refused(why, &[unsent, read(2, 1, 7, &[])]);
        is_refused(why, &[read(2, 1, 7, &[]), add_in_vain(1, 1, 7)]);
    }

    #[test]
    fn an_amount_that_is_counted_behind_a_later_call_of_its_client_is_found() {
        let why = "that no calls account for";
        let behind_a_read = [add_in_vain(1, 1, 7), read(1, 2, 0, &[]), read(2, 1, 7, &[])];
        is_refused(why, &behind_a_read);
        let behind_another = [
            add_in_vain(1, 1, 7),
            add_in_vain(1, 2, 8),
            read(2, 1, 8, &[]),
            read(2, 2, 15, &[]),
        ];
        is_refused(why, &behind_another);
        let calls = [add(1, 2, 5, 5), add(1, 1, 5, 10)];
        is_refused("calls of client 1 out of order", &calls);
    }

    #[test]
    fn an_acknowledged_amount_that_is_gone_is_found() {
        is_refused(
            "acknowledged earlier",
            &[add(1, 1, 5, 5), read(2, 1, 0, &[])],
        );
        let calls = [add(1, 1, 5, 5), add(2, 1, 6, 6)];
        is_refused("from 0 on, where it had 5", &calls);
        is_refused("has not what was added", &[add(1, 1, 5, 4)]);
    }

    #[test]
    fn a_line_that_is_there_twice_or_of_nobody_is_found() {
        let calls = [append(1, 1, 0), read(1, 2, 0, &["1/1", "1/1"])];
        is_refused("line 1/1 twice, at positions 0 and 1", &calls);
        is_refused("which nobody appended", &[read(1, 1, 0, &["1/9"])]);
        let unsent = (1, Asked::Append(1), Err(Outcome::NotDone));
        let calls = [unsent, read(2, 1, 0, &["1/1"])];
        is_refused("of a call that was not sent", &calls);
    }

    #[test]
    fn an_acknowledged_line_that_is_gone_is_found() {
        let calls = [append(1, 1, 0), read(2, 1, 0, &[])];
        is_refused("has lost line 1/1 at position 0", &calls);
        let calls = [append(1, 1, 0), append(2, 1, 0)];
        is_refused("line 1/1 and line 2/1 at position 0", &calls);
        is_refused("no line at position 0", &[append(1, 1, 1)]);
    }

    #[test]
    fn lines_that_are_not_in_the_order_of_their_calls_are_found() {
        let calls = [
            append_in_vain(1, 1),
            append_in_vain(1, 2),
            read(2, 1, 0, &["1/2", "1/1"]),
        ];
        is_refused("calls of client 1 out of order", &calls);
        let calls = [append(1, 1, 1), append(2, 1, 0)];
        is_refused("before one that it had acknowledged earlier", &calls);
    }

    /// A read that is under way while its client goes on.
    fn verdict_on_slow_read(count: u64) -> Verdict {
        let recorder = Recorder::new();
        let read = recorder.operation(1, "it", Asked::Read(2, 0));
        for (number, amount, count) in [(1, 4, 4), (3, 5, 9)] {
            let add = recorder.operation(1, "it", Asked::Add(number, amount));
            add.returned(Given::Count(count));
        }
        let lines: Vec<String> = Vec::new();
        read.returned(Given::Found(count, lines, true));
        check(&recorder.history())
    }

    #[test]
    fn a_read_may_come_later_than_in_the_order_of_its_client_and_no_earlier() {
        for count in [4, 9] {
            assert_eq!(verdict_on_slow_read(count), Verdict::Valid, "{count}");
        }
        let early = verdict_on_slow_read(0);
        let why = early.violation().expect("it is too early").to_string();
        assert!(why.contains("calls of client 1 out of order"), "{why}");
    }

    #[test]
    fn with_too_many_unknown_amounts_nothing_is_said() {
        let mut calls: Vec<_> = (1..=24)
            .map(|number| add_in_vain(1, number, 1 << number))
            .collect();
        calls.push(read(2, 1, 10, &[]));
        assert_eq!(verdict(&calls), Verdict::Valid);
        calls.insert(0, add_in_vain(1, 0, 1));
        assert!(matches!(verdict(&calls), Verdict::Unknown(_)));
    }
}
