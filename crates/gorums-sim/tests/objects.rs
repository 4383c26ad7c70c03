//! Histories of objects by their models: known ones, and random ones against brute force.

mod models;

use gorums_sim::history::{
    Action, History, Limits, Model, Operation, Outcome, Recorder, Verdict, Violation,
};
use models::{
    CasInput, CompareAndSet, Lock, LockInput, Log, LogInput, LogOutput, Queue, QueueInput,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn json(value: impl Serialize) -> Value {
    serde_json::to_value(value).expect("these are JSON")
}

fn call(
    client: u32,
    input: impl Serialize,
    output: impl Serialize,
    start: u64,
    end: u64,
) -> Operation {
    Operation {
        client,
        key: "object".to_owned(),
        action: Action::Call {
            input: json(input),
            output: json(output),
        },
        start,
        end: Some(end),
        outcome: Outcome::Ok,
    }
}

fn with(outcome: Outcome, operation: Operation) -> Operation {
    Operation {
        outcome,
        ..operation
    }
}

fn history(operations: Vec<Operation>) -> History {
    History::new(operations).expect("well formed")
}

/// A history that has to pass.
fn passes(model: &impl Model, name: &str, operations: Vec<Operation>) {
    let verdict = history(operations).linearizable_as(model);
    assert_eq!(verdict, Verdict::Valid, "{name}");
}

/// One that must not: what it is that cannot be, and the places of the operations that show it.
fn fails(
    model: &impl Model,
    name: &str,
    operations: Vec<Operation>,
    reason: &str,
    places: &[usize],
) -> Violation {
    let verdict = history(operations).linearizable_as(model);
    let violation = verdict
        .violation()
        .unwrap_or_else(|| panic!("{name}: {verdict:?}"));
    assert_eq!(
        (violation.reason(), violation.operations()),
        (reason, places),
        "{name}"
    );
    violation.clone()
}

#[test]
fn a_lock_has_one_holder() {
    use LockInput::{Acquire, Release};
    passes(
        &Lock,
        "handed on",
        vec![
            call(1, Acquire(1), true, 1, 2),
            call(2, Acquire(2), false, 3, 4),
            call(1, Release(1), true, 5, 8),
            call(2, Acquire(2), true, 6, 7),
            call(2, Release(2), true, 9, 10),
        ],
    );
    passes(
        &Lock,
        "refused though it is free",
        vec![call(1, Acquire(1), false, 1, 2)],
    );
    fails(
        &Lock,
        "two have it",
        vec![
            call(3, Acquire(3), true, 1, 2),
            call(3, Release(3), true, 3, 4),
            call(1, Acquire(1), true, 5, 6),
            call(3, Acquire(3), false, 6, 9),
            call(2, Acquire(2), true, 7, 8),
            call(1, Release(1), true, 9, 10),
        ],
        "client 2: Acquire(2) on object returns true, which cannot be: after 1 the state is Some(1)",
        &[2, 4],
    );
}

#[test]
fn a_queue_is_first_in_first_out() {
    use QueueInput::{Dequeue, Enqueue};
    let nothing = None::<u32>;
    passes(
        &Queue,
        "overlapping enqueues have either order",
        vec![
            call(1, Enqueue(1), nothing, 1, 4),
            call(2, Enqueue(2), nothing, 2, 3),
            call(1, Dequeue, Some(2), 5, 6),
            call(1, Dequeue, Some(1), 7, 8),
            call(1, Dequeue, nothing, 9, 10),
        ],
    );
    fails(
        &Queue,
        "out of order",
        vec![
            call(1, Enqueue(1), nothing, 1, 2),
            call(2, Enqueue(2), nothing, 3, 4),
            call(3, Dequeue, Some(2), 5, 6),
        ],
        "client 3: Dequeue on object returns 2, which cannot be: after 1 the state is [1]",
        &[0, 2],
    );
    fails(
        &Queue,
        "taken out twice",
        vec![
            call(1, Enqueue(7), nothing, 1, 2),
            call(1, Enqueue(8), nothing, 3, 4),
            call(2, Dequeue, Some(7), 5, 8),
            call(3, Dequeue, Some(7), 9, 12),
        ],
        "client 3: Dequeue on object returns 7, which cannot be: after 1, 2 the state is []",
        &[0, 2, 3],
    );
    fails(
        &Queue,
        "never put in",
        vec![call(3, Dequeue, Some(9), 5, 6)],
        "client 3: Dequeue on object returns 9, which cannot be: at the beginning the state is []",
        &[0],
    );
}

#[test]
fn a_log_gives_each_place_once_and_keeps_it() {
    use LogInput::{Append, Read};
    use LogOutput::{Appended, Found};
    let append = |client, entry: &str, place, start, end| {
        call(
            client,
            Append(entry.to_owned()),
            Appended { place },
            start,
            end,
        )
    };
    let read = |place, found: Option<&str>, start, end| {
        let found = Found(found.map(ToOwned::to_owned));
        call(3, Read(place), found, start, end)
    };
    passes(
        &Log,
        "overlapping appends",
        vec![
            append(1, "a", 1, 1, 4),
            append(2, "b", 0, 2, 3),
            read(0, Some("b"), 5, 6),
            read(1, Some("a"), 7, 8),
            read(2, None, 9, 10),
        ],
    );
    fails(
        &Log,
        "one place for two",
        vec![append(1, "a", 0, 1, 4), append(2, "b", 0, 2, 3)],
        "client 1: Append(a) on object returns Appended {place: 0}, which cannot be: after 2 the state is [\"b\"]",
        &[0, 1],
    );
    fails(
        &Log,
        "an acknowledged entry is lost",
        vec![
            append(1, "a", 0, 1, 2),
            append(2, "b", 1, 3, 4),
            read(0, Some("a"), 5, 6),
            read(1, None, 7, 8),
        ],
        "client 3: Read(1) on object returns Found(nothing), which cannot be: after 1, 2 the state is [\"a\", \"b\"]",
        &[0, 1, 3],
    );
}

#[test]
fn a_compare_and_set_is_done_once() {
    use CasInput::{CompareAndSet as Set, Get};
    let set = |client, from, to, found: u32, start, end| {
        call(client, Set { from, to }, found, start, end)
    };
    passes(
        &CompareAndSet,
        "one of two is done",
        vec![
            set(1, 0, 1, 0, 1, 5),
            set(2, 0, 2, 1, 2, 6),
            call(3, Get, 1, 7, 8),
        ],
    );
    fails(
        &CompareAndSet,
        "both are done",
        vec![
            call(3, Get, 0, 1, 2),
            set(1, 0, 1, 0, 3, 6),
            set(2, 0, 2, 0, 4, 7),
        ],
        "client 2: CompareAndSet {from: 0, to: 2} on object returns 0, which cannot be: after 1 the state is 1",
        &[1, 2],
    );
}

#[test]
fn what_failed_may_have_been_done_and_what_was_not_done_was_not() {
    use QueueInput::{Dequeue, Enqueue};
    let nothing = None::<u32>;
    let open = |outcome| with(outcome, call(1, Enqueue(1), nothing, 1, 2));
    let never_ended = Operation {
        end: None,
        ..open(Outcome::Unknown)
    };
    for operation in [open(Outcome::Failed), open(Outcome::Unknown), never_ended] {
        passes(
            &Queue,
            "late",
            vec![
                operation.clone(),
                call(2, Dequeue, nothing, 3, 4),
                call(2, Dequeue, Some(1), 5, 6),
            ],
        );
        passes(
            &Queue,
            "never",
            vec![operation.clone(), call(2, Dequeue, nothing, 3, 4)],
        );
        fails(
            &Queue,
            "once at most",
            vec![
                operation,
                call(2, Dequeue, Some(1), 3, 4),
                call(2, Dequeue, Some(1), 5, 6),
            ],
            "client 2: Dequeue on object returns 1, which cannot be: after 1, 2 the state is []",
            &[0, 1, 2],
        );
    }
    fails(
        &Queue,
        "certainly not done",
        vec![open(Outcome::NotDone), call(2, Dequeue, Some(1), 3, 4)],
        "client 2: Dequeue on object returns 1, which cannot be: at the beginning the state is []",
        &[1],
    );
}

/// Tries every order of every choice of the operations that may never have taken effect.
fn brute_force<M: Model>(model: &M, operations: &[Operation]) -> bool {
    fn go<M: Model>(
        model: &M,
        operations: &[Operation],
        left: &mut Vec<usize>,
        state: &M::State,
    ) -> bool {
        let ok = |at: &usize| operations[*at].outcome == Outcome::Ok;
        if !left.iter().any(ok) {
            return true;
        }
        for index in 0..left.len() {
            let at = left[index];
            let candidate = &operations[at];
            // Nothing that is left may have ended before this one began.
            let blocked = left.iter().any(|&other| {
                ok(&other) && operations[other].end.expect("it has returned") < candidate.start
            });
            if blocked || candidate.outcome == Outcome::NotDone {
                continue;
            }
            let Action::Call { input, output } = &candidate.action else {
                unreachable!("these are calls");
            };
            let input: M::Input = parsed(input);
            let output = ok(&at).then(|| parsed::<M::Output>(output));
            let Some(after) = model.step(state, &input, output.as_ref()) else {
                continue;
            };
            left.remove(index);
            let found = go(model, operations, left, &after);
            left.insert(index, at);
            if found {
                return true;
            }
        }
        false
    }
    let mut left = (0..operations.len()).collect();
    go(model, operations, &mut left, &model.initial())
}

fn parsed<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).expect("as written")
}

/// A sort of object, with operations to choose from at random.
struct Kind<M: Model> {
    model: M,
    /// Of so many values.
    input: fn(&mut Random, u64) -> M::Input,
    /// Does it, and says what it returns.
    apply: fn(&mut M::State, &M::Input) -> M::Output,
    /// Some output, mostly a wrong one.
    output: fn(&mut Random) -> M::Output,
}

fn locks() -> Kind<Lock> {
    Kind {
        model: Lock,
        input: |random, _| {
            let client = random.below(3) as u32;
            match random.below(2) {
                0 => LockInput::Acquire(client),
                _ => LockInput::Release(client),
            }
        },
        apply: |holder, input| match *input {
            LockInput::Acquire(client) => {
                let granted = holder.is_none();
                *holder = holder.or(Some(client));
                granted
            }
            LockInput::Release(client) => {
                let held = *holder == Some(client);
                *holder = holder.filter(|holder| *holder != client);
                held
            }
        },
        output: |random| random.below(2) == 0,
    }
}

fn queues() -> Kind<Queue> {
    Kind {
        model: Queue,
        input: |random, values| match random.below(5) {
            // So that it does not become long: the orders of what is in it are many.
            0 | 1 => QueueInput::Enqueue(random.below(values) as u32),
            _ => QueueInput::Dequeue,
        },
        apply: |queue, input| match *input {
            QueueInput::Enqueue(value) => {
                queue.push(value);
                None
            }
            QueueInput::Dequeue => (!queue.is_empty()).then(|| queue.remove(0)),
        },
        output: |random| Some(random.below(6) as u32).filter(|value| *value < 5),
    }
}

fn logs() -> Kind<Log> {
    Kind {
        model: Log,
        input: |random, values| match random.below(2) {
            0 => LogInput::Append(random.below(values).to_string()),
            _ => LogInput::Read(random.below(3) as usize),
        },
        apply: |log, input| match input {
            LogInput::Append(entry) => {
                log.push(entry.clone());
                LogOutput::Appended {
                    place: log.len() - 1,
                }
            }
            LogInput::Read(place) => LogOutput::Found(log.get(*place).cloned()),
        },
        output: |random| match random.below(2) {
            0 => LogOutput::Appended {
                place: random.below(3) as usize,
            },
            _ => LogOutput::Found(Some(random.below(4).to_string())),
        },
    }
}

fn values() -> Kind<CompareAndSet> {
    Kind {
        model: CompareAndSet,
        input: |random, _| match random.below(2) {
            0 => CasInput::Get,
            _ => CasInput::CompareAndSet {
                from: random.below(3) as u32,
                to: random.below(3) as u32,
            },
        },
        apply: |value, input| {
            let found = *value;
            if let CasInput::CompareAndSet { from, to } = *input
                && from == found
            {
                *value = to;
            }
            found
        },
        output: |random| random.below(4) as u32,
    }
}

/// As of an object that works: each operation takes effect at one moment between its call and its
/// return. Some have failed, of which some had an effect.
fn concurrent<M: Model>(
    kind: &Kind<M>,
    random: &mut Random,
    (clients, count): (u64, u64),
    failing: u64,
    values: u64,
) -> Vec<Operation>
where
    M::Input: Serialize,
    M::Output: Serialize,
{
    let mut free = vec![0; clients as usize];
    let mut effects = Vec::new();
    for n in 0..count {
        let client = n % clients;
        let start = free[client as usize] + random.below(4);
        let effect = start + random.below(4);
        let end = effect + random.below(4);
        free[client as usize] = end;
        effects.push((effect, n, client as u32, start, end));
    }
    effects.sort_unstable();
    let mut state = kind.model.initial();
    let operations = effects.into_iter().map(|(_, _, client, start, end)| {
        let input = (kind.input)(random, values);
        let outcome = match random.below(failing) {
            0 => Outcome::Failed,
            1 => Outcome::Unknown,
            2 => Outcome::NotDone,
            _ => Outcome::Ok,
        };
        let done = match outcome {
            Outcome::Ok => true,
            Outcome::NotDone => false,
            _ => random.below(2) == 0,
        };
        let output = match done {
            true => json((kind.apply)(&mut state, &input)),
            false => Value::Null,
        };
        with(outcome, call(client, input, output, start, end))
    });
    let mut operations: Vec<_> = operations.collect();
    operations.sort_by_key(|operation| operation.start);
    operations
}

/// Gives one that has returned another output.
fn plant<M: Model>(kind: &Kind<M>, random: &mut Random, operations: &mut [Operation])
where
    M::Output: Serialize,
{
    let planted = json((kind.output)(random));
    let returned: Vec<usize> = (0..operations.len())
        .filter(|at| operations[*at].outcome == Outcome::Ok)
        .collect();
    if returned.is_empty() {
        return;
    }
    let at = returned[random.below(returned.len() as u64) as usize];
    if let Action::Call { output, .. } = &mut operations[at].action {
        *output = planted;
    }
}

fn small_ones_are_judged_as_by_brute_force<M: Model>(kind: &Kind<M>)
where
    M::Input: Serialize,
    M::Output: Serialize,
{
    let mut random = Random(1);
    let mut violations = 0;
    for round in 0..3_000 {
        let count = 2 + random.below(5);
        let mut operations = concurrent(kind, &mut random, (3, count), 8, 4);
        let planted = round % 3 > 0;
        if planted {
            plant(kind, &mut random, &mut operations);
        }
        let expected = brute_force(&kind.model, &operations);
        assert!(expected || planted, "{operations:#?}");
        let history = history(operations);
        let verdict = history.linearizable_as(&kind.model);
        assert_eq!(verdict.is_valid(), expected, "{history:#?}\n{verdict:?}");
        let Some(violation) = verdict.violation() else {
            assert_eq!(verdict, Verdict::Valid);
            continue;
        };
        violations += 1;
        // What it names cannot be by itself, either.
        let named = violation.operations().iter();
        let named: Vec<_> = named.map(|at| history.operations()[*at].clone()).collect();
        assert!(!brute_force(&kind.model, &named), "{violation}\n{named:#?}");
    }
    assert!((300..2_000).contains(&violations), "{violations}");
}

#[test]
fn small_histories_of_locks() {
    small_ones_are_judged_as_by_brute_force(&locks());
}

#[test]
fn small_histories_of_queues() {
    small_ones_are_judged_as_by_brute_force(&queues());
}

#[test]
fn small_histories_of_logs() {
    small_ones_are_judged_as_by_brute_force(&logs());
}

#[test]
fn small_histories_of_values() {
    small_ones_are_judged_as_by_brute_force(&values());
}

/// Many operations of a working object pass, and do not once two at the end have returned
/// what both cannot have.
fn large_ones_are_judged<M: Model>(kind: &Kind<M>, both: [(M::Input, M::Output); 2])
where
    M::Input: Serialize,
    M::Output: Serialize,
{
    let mut random = Random(2);
    for _ in 0..5 {
        let mut operations = concurrent(kind, &mut random, (4, 120), 100, 1 << 30);
        let verdict = history(operations.clone()).linearizable_as(&kind.model);
        assert_eq!(verdict, Verdict::Valid, "{operations:#?}");
        let last = operations.iter().filter_map(|operation| operation.end);
        let last = last.max().expect("some");
        for (at, (input, output)) in (last + 1..).zip(&both) {
            operations.push(call(9, input, output, 2 * at, 2 * at + 1));
        }
        let history = history(operations);
        let verdict = history.linearizable_as(&kind.model);
        let violation = verdict
            .violation()
            .unwrap_or_else(|| panic!("{verdict:?}\n{history:#?}"));
        let planted = history.len() - 2;
        let last = violation.operations().last();
        assert!(last.is_some_and(|last| *last >= planted), "{violation}");
        assert!(violation.operations().len() <= 12, "{violation}");
    }
}

#[test]
fn large_histories_of_locks() {
    let acquire = |client| (LockInput::Acquire(client), true);
    large_ones_are_judged(&locks(), [acquire(100), acquire(101)]);
}

#[test]
fn large_histories_of_queues() {
    large_ones_are_judged(
        &queues(),
        [
            (QueueInput::Enqueue(100), None),
            (QueueInput::Dequeue, Some(u32::MAX)),
        ],
    );
}

#[test]
fn large_histories_of_logs() {
    let found = |entry: &str| (LogInput::Read(0), LogOutput::Found(Some(entry.to_owned())));
    large_ones_are_judged(&logs(), [found("100"), found("101")]);
}

#[test]
fn large_histories_of_values() {
    large_ones_are_judged(&values(), [(CasInput::Get, 100), (CasInput::Get, 101)]);
}

#[test]
fn each_key_is_an_object_by_itself() {
    let other = |operation: Operation| Operation {
        key: "other".to_owned(),
        ..operation
    };
    let acquire = |client| LockInput::Acquire(client);
    passes(
        &Lock,
        "two locks",
        vec![
            call(1, acquire(1), true, 1, 2),
            other(call(2, acquire(2), true, 3, 4)),
        ],
    );
    fails(
        &Lock,
        "the other lock",
        vec![
            call(1, acquire(1), true, 1, 2),
            other(call(2, acquire(2), true, 3, 4)),
            other(call(3, acquire(3), true, 5, 6)),
        ],
        "client 3: Acquire(3) on other returns true, which cannot be: after 1 the state is Some(2)",
        &[1, 2],
    );
}

#[test]
fn a_search_gives_up_at_its_limits_and_says_so() {
    // All overlap, and the last one has found what was never put in.
    let mut operations: Vec<_> = (0..30)
        .map(|n| call(n, QueueInput::Enqueue(n), None::<u32>, 1, 100))
        .collect();
    operations.push(call(99, QueueInput::Dequeue, Some(99), 200, 201));
    let history = history(operations);
    for (limits, expected) in [
        (
            Limits {
                steps: 1000,
                ..Limits::default()
            },
            "key \"object\": not decided within 1000 steps",
        ),
        (
            Limits {
                memory: 10_000,
                ..Limits::default()
            },
            "key \"object\": not decided within 10000 bytes of memory",
        ),
    ] {
        let verdict = history.linearizable_as_within(&Queue, limits);
        assert_eq!(verdict, Verdict::Unknown(expected.to_owned()));
    }
}

#[test]
fn operations_of_another_object_are_not_judged() {
    let recorder = Recorder::with_clock(|| 0);
    recorder
        .operation(1, "lock", LockInput::Acquire(1))
        .returned(true);
    let locks = recorder.history();
    let unknown = |why: &str| Verdict::Unknown(why.to_owned());
    let why = "client 1: Acquire(1) on lock returns true: that is neither a read nor a write of a register, and judged by History::linearizable_as";
    assert_eq!(locks.linearizable(), unknown(why));
    assert_eq!(locks.regular(), unknown(why));
    assert_eq!(
        locks.linearizable_as(&Queue),
        unknown(
            "client 1: Acquire(1) on lock returns true: its input is none of the model's: unknown variant `Acquire`, expected `Enqueue` or `Dequeue`"
        )
    );
    recorder
        .operation(1, "lock", LockInput::Acquire(1))
        .returned("yes");
    assert_eq!(
        recorder.history().linearizable_as(&Lock),
        unknown(
            "client 1: Acquire(1) on lock returns yes: its output is none of the model's: invalid type: string \"yes\", expected a boolean"
        )
    );
    let recorder = Recorder::with_clock(|| 0);
    recorder.write(1, "register", "a").ok();
    assert_eq!(
        recorder.history().linearizable_as(&Lock),
        unknown(
            "client 1 writes register = a: that is a read or a write of a register, and judged by History::linearizable"
        )
    );
    // Keys of objects are objects, and JSON has none but texts there.
    let recorder = Recorder::with_clock(|| 0);
    let odd = std::collections::BTreeMap::from([((1, 2), 3)]);
    recorder.operation(1, "lock", odd).returned(true);
    let verdict = recorder.history().linearizable_as(&Lock);
    assert!(
        matches!(&verdict, Verdict::Unknown(why) if why.contains("no JSON: key must be a string")),
        "{verdict:?}"
    );
}

#[test]
fn operations_are_the_same_after_they_were_written_and_read() {
    let recorder = Recorder::new();
    let queue = |input| recorder.operation(1, "queue", input);
    queue(QueueInput::Enqueue(5)).returned(None::<u32>);
    queue(QueueInput::Enqueue(6)).not_done();
    queue(QueueInput::Enqueue(7)).failed();
    drop(queue(QueueInput::Dequeue));
    queue(QueueInput::Dequeue).returned(Some(5));
    let history = recorder.history();
    let outcomes = history.operations().iter().map(|op| op.outcome);
    assert_eq!(
        outcomes.collect::<Vec<_>>(),
        [
            Outcome::Ok,
            Outcome::NotDone,
            Outcome::Failed,
            Outcome::Unknown,
            Outcome::Ok
        ]
    );
    let mut lines = Vec::new();
    history.write_json_lines(&mut lines).expect("memory");
    let read = History::read_json_lines(&*lines).expect("as written");
    assert_eq!(read, history);
    assert_eq!(read.linearizable_as(&Queue), Verdict::Valid);
}

#[test]
fn a_violation_is_drawn_with_what_was_done_and_returned() {
    let operations = vec![
        call(1, LockInput::Acquire(1), true, 1_000_000, 2_000_000),
        with(
            Outcome::Failed,
            call(3, LockInput::Release(3), (), 1_500_000, 4_500_000),
        ),
        call(2, LockInput::Acquire(2), true, 3_000_000, 4_000_000),
    ];
    let history = history(operations);
    let verdict = history.linearizable_as(&Lock);
    let svg = history.svg(verdict.violation().expect("two have it"));
    for text in [
        "operations on \"object\" that cannot be",
        ">Acquire(1) → true</text>",
        ">Acquire(2) → true</text>",
        ">Release(3) failed</text>",
        "which cannot be: after 1 the state is Some(1)",
        "colours: what is done",
    ] {
        assert!(svg.contains(text), "{text}\n{svg}");
    }
}
