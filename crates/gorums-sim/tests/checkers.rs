//! The checkers against brute force on small histories, against histories known to be broken, and
//! at their size.

use gorums_sim::history::{Action, History, Limits, Operation, Outcome, Recorder, Verdict};

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

fn history(operations: Vec<Operation>) -> History {
    History::new(operations).expect("well formed")
}

fn write(client: u32, value: &str, start: u64, end: u64) -> Operation {
    operation(
        client,
        Action::Write(value.to_owned()),
        start,
        Some(end),
        Outcome::Ok,
    )
}

fn failed(client: u32, value: &str, start: u64, end: u64) -> Operation {
    operation(
        client,
        Action::Write(value.to_owned()),
        start,
        Some(end),
        Outcome::Failed,
    )
}

fn unknown(client: u32, value: &str, start: u64) -> Operation {
    operation(
        client,
        Action::Write(value.to_owned()),
        start,
        None,
        Outcome::Unknown,
    )
}

/// An empty value is none.
fn read(client: u32, value: &str, start: u64, end: u64) -> Operation {
    let found = (!value.is_empty()).then(|| value.to_owned());
    operation(client, Action::Read(found), start, Some(end), Outcome::Ok)
}

fn operation(
    client: u32,
    action: Action,
    start: u64,
    end: Option<u64>,
    outcome: Outcome,
) -> Operation {
    Operation {
        client,
        key: "k".to_owned(),
        action,
        start,
        end,
        outcome,
    }
}

/// Tries every order of every choice of the writes that may never have taken effect.
fn brute_force(operations: &[Operation]) -> bool {
    fn go(operations: &[Operation], left: &mut Vec<usize>, value: Option<&str>) -> bool {
        let ok = |at: &usize| operations[*at].outcome == Outcome::Ok;
        if !left.iter().any(ok) {
            return true;
        }
        for index in 0..left.len() {
            let at = left[index];
            let candidate = &operations[at];
            // Nothing that is left may have ended before this one began.
            let blocked = left.iter().any(|&other| {
                ok(&other) && operations[other].end.expect("acknowledged") < candidate.start
            });
            if blocked {
                continue;
            }
            let after = match &candidate.action {
                Action::Write(written) => Some(written.as_str()),
                Action::Read(found) => {
                    if candidate.outcome == Outcome::Ok && found.as_deref() != value {
                        continue;
                    }
                    value
                }
                Action::Call { .. } => unreachable!("these are registers"),
            };
            left.remove(index);
            let found = go(operations, left, after);
            left.insert(index, at);
            if found {
                return true;
            }
        }
        false
    }
    go(operations, &mut (0..operations.len()).collect(), None)
}

/// A few operations of a few clients, with few times, so that many are equal.
fn small(random: &mut Random, unique: bool) -> Vec<Operation> {
    let count = 2 + random.below(5);
    let times = 3 + random.below(10);
    let mut written = 0;
    let mut operations = Vec::new();
    for _ in 0..count {
        let client = random.below(3) as u32;
        let (mut start, mut end) = (random.below(times), random.below(times));
        if end < start {
            std::mem::swap(&mut start, &mut end);
        }
        let values = if unique { 4 } else { 2 };
        let action = if random.below(2) == 0 {
            written += 1;
            let value = if unique {
                written
            } else {
                1 + random.below(values)
            };
            Action::Write(value.to_string())
        } else {
            let value = random.below(values + 1);
            Action::Read((value > 0).then(|| value.to_string()))
        };
        let (end, outcome) = match random.below(6) {
            0 => (Some(end), Outcome::Failed),
            1 => (None, Outcome::Unknown),
            _ => (Some(end), Outcome::Ok),
        };
        operations.push(operation(client, action, start, end, outcome));
    }
    operations
}

#[test]
fn small_histories_are_judged_as_by_brute_force() {
    let mut random = Random(1);
    let mut valid = [0, 0];
    for round in 0..20_000 {
        let unique = round % 2 == 0;
        let operations = small(&mut random, unique);
        let expected = brute_force(&operations);
        let history = history(operations);
        let verdict = history.linearizable();
        assert_eq!(verdict.is_valid(), expected, "{history:#?}\n{verdict:?}");
        assert!(!matches!(verdict, Verdict::Unknown(_)));
        valid[usize::from(unique)] += usize::from(expected);
    }
    // Both outcomes are common, in both kinds.
    assert!(
        valid.iter().all(|valid| (1_000..9_000).contains(valid)),
        "{valid:?}"
    );
}

#[test]
fn a_violation_names_operations_of_which_none_can_be_spared() {
    let mut random = Random(2);
    let mut violations = 0;
    for round in 0..10_000 {
        let unique = round % 2 == 0;
        let history = history(small(&mut random, unique));
        let verdict = history.linearizable();
        let Some(violation) = verdict.violation() else {
            continue;
        };
        violations += 1;
        let named: Vec<Operation> = violation
            .operations()
            .iter()
            .map(|&at| history.operations()[at].clone())
            .collect();
        assert!(!brute_force(&named), "{violation}\n{named:#?}");
        for spared in 0..named.len() {
            let mut rest = named.clone();
            let gone = rest.remove(spared);
            let unwritten = |op: &Operation| match (&op.action, &gone.action) {
                (Action::Read(Some(value)), Action::Write(gone)) => value == gone,
                _ => false,
            };
            // Without a write its reads are wrong for another reason.
            if !rest.iter().any(unwritten) {
                assert!(
                    brute_force(&rest),
                    "{violation}\n{named:#?}\nwithout {gone}"
                );
            }
        }
    }
    assert!(violations > 1_000, "{violations}");
}

#[test]
fn known_histories() {
    let valid = [
        ("nothing", vec![]),
        ("one client", vec![write(1, "a", 1, 2), read(1, "a", 3, 4)]),
        (
            "before the first write",
            vec![read(2, "", 1, 5), write(1, "a", 2, 3)],
        ),
        (
            "a read that overlaps returns the old value",
            vec![write(1, "a", 1, 2), write(1, "b", 3, 6), read(2, "a", 4, 5)],
        ),
        (
            "a read that overlaps returns the new value",
            vec![write(1, "a", 1, 2), write(1, "b", 3, 6), read(2, "b", 4, 5)],
        ),
        (
            "a failed write is read",
            vec![failed(1, "a", 1, 2), read(2, "a", 5, 6)],
        ),
        (
            "a failed write is never read",
            vec![failed(1, "a", 1, 2), read(2, "", 5, 6)],
        ),
        (
            "a failed write takes effect late",
            vec![
                failed(1, "a", 1, 2),
                read(2, "", 3, 4),
                write(2, "b", 5, 6),
                read(2, "b", 7, 8),
                read(2, "a", 9, 10),
            ],
        ),
        (
            "an unknown write is read",
            vec![unknown(1, "a", 1), read(2, "", 2, 3), read(2, "a", 4, 5)],
        ),
        (
            "equal times overlap",
            vec![write(1, "a", 1, 2), read(2, "", 2, 3)],
        ),
        (
            "equal times of one client overlap",
            vec![read(1, "a", 1, 2), write(1, "a", 2, 3)],
        ),
        (
            "a value written twice",
            vec![
                write(1, "a", 1, 2),
                write(2, "b", 3, 4),
                write(1, "a", 5, 6),
                read(2, "a", 7, 8),
            ],
        ),
    ];
    for (name, operations) in valid {
        assert_eq!(history(operations).linearizable(), Verdict::Valid, "{name}");
    }
    let broken = [
        ("never written", vec![read(1, "a", 1, 2)], vec![0]),
        (
            "from the future",
            vec![read(1, "a", 1, 2), write(2, "a", 3, 4)],
            vec![0, 1],
        ),
        (
            "stale read",
            vec![
                write(1, "a", 1, 2),
                write(1, "b", 3, 4),
                write(1, "c", 3, 9),
                read(2, "a", 5, 6),
            ],
            vec![0, 1, 3],
        ),
        (
            "lost write",
            vec![write(1, "a", 1, 2), read(2, "", 3, 4)],
            vec![0, 1],
        ),
        (
            "new-old inversion",
            vec![
                write(1, "a", 1, 2),
                write(1, "b", 3, 20),
                read(2, "b", 4, 5),
                read(3, "a", 6, 7),
            ],
            vec![0, 1, 2, 3],
        ),
        (
            "two readers disagree on the order",
            vec![
                write(1, "a", 1, 4),
                write(2, "b", 1, 4),
                read(3, "a", 5, 6),
                read(4, "b", 7, 8),
                read(3, "a", 9, 10),
            ],
            vec![0, 1, 2, 3, 4],
        ),
        (
            "a failed write comes and goes",
            vec![
                write(1, "a", 1, 2),
                failed(2, "b", 1, 2),
                read(3, "b", 3, 4),
                read(3, "a", 5, 6),
                read(3, "b", 7, 8),
            ],
            vec![0, 1, 2, 3, 4],
        ),
        (
            "back to nothing",
            vec![failed(1, "a", 1, 2), read(2, "a", 3, 4), read(2, "", 5, 6)],
            vec![0, 1, 2],
        ),
        (
            "stale though written twice",
            vec![
                write(1, "a", 1, 2),
                write(1, "b", 3, 4),
                write(1, "b", 5, 6),
                read(2, "a", 7, 8),
            ],
            vec![0, 1, 2, 3],
        ),
    ];
    for (name, operations, offending) in broken {
        let history = history(operations);
        let verdict = history.linearizable();
        let violation = verdict
            .violation()
            .unwrap_or_else(|| panic!("{name}: {verdict:?}"));
        for at in violation.operations() {
            assert!(
                offending.contains(at),
                "{name}: {violation} {:?}",
                violation.operations()
            );
        }
        assert!(
            violation.operations().len() + 1 >= offending.len(),
            "{name}: {violation}"
        );
    }
}

#[test]
fn regular_allows_inversions_and_nothing_older_than_what_was_acknowledged() {
    let inversion = vec![
        write(1, "a", 1, 2),
        write(1, "b", 3, 20),
        read(2, "b", 4, 5),
        read(3, "a", 6, 7),
    ];
    assert!(
        history(inversion.clone())
            .linearizable()
            .violation()
            .is_some()
    );
    assert_eq!(history(inversion).regular(), Verdict::Valid);
    let valid = [
        (
            "another writer's",
            vec![write(1, "a", 1, 2), write(2, "b", 3, 4), read(3, "a", 5, 6)],
        ),
        (
            "began before the end",
            vec![write(1, "a", 1, 2), write(1, "b", 3, 6), read(3, "a", 6, 9)],
        ),
        (
            "newer",
            vec![
                write(1, "a", 1, 2),
                failed(1, "b", 3, 4),
                read(3, "b", 5, 6),
            ],
        ),
        (
            "failed and gone",
            vec![
                write(1, "a", 1, 2),
                failed(1, "b", 3, 4),
                read(3, "a", 5, 6),
            ],
        ),
    ];
    for (name, operations) in valid {
        assert_eq!(history(operations).regular(), Verdict::Valid, "{name}");
    }
    let broken = [
        ("never written", vec![read(3, "x", 1, 2)], vec![0]),
        (
            "older",
            vec![write(1, "a", 1, 2), write(1, "b", 3, 4), read(3, "a", 5, 6)],
            vec![0, 1, 2],
        ),
        (
            "nothing",
            vec![write(1, "a", 1, 2), read(3, "", 5, 6)],
            vec![0, 1],
        ),
        (
            "older than one in between",
            vec![
                failed(1, "a", 1, 2),
                write(1, "b", 3, 10),
                write(1, "c", 4, 5),
                read(3, "b", 11, 12),
            ],
            vec![1, 2, 3],
        ),
    ];
    for (name, operations, offending) in broken {
        let history = history(operations);
        let verdict = history.regular();
        let violation = verdict
            .violation()
            .unwrap_or_else(|| panic!("{name}: {verdict:?}"));
        assert_eq!(violation.operations(), offending, "{name}: {violation}");
    }
}

#[test]
fn keys_are_judged_by_themselves() {
    let other = |operation: Operation| Operation {
        key: "other".to_owned(),
        ..operation
    };
    let separate = history(vec![write(1, "a", 1, 2), other(read(1, "", 3, 4))]);
    assert_eq!(separate.linearizable(), Verdict::Valid);
    let broken = history(vec![
        write(1, "a", 1, 2),
        other(write(1, "a", 3, 4)),
        other(read(1, "", 5, 6)),
    ]);
    let verdict = broken.linearizable();
    assert_eq!(verdict.violation().expect("stale").operations(), [1, 2]);
}

#[test]
fn a_search_gives_up_at_its_limits_and_says_so() {
    // All overlap, no value is unique, and the last read is impossible.
    let mut operations: Vec<_> = (0..40)
        .map(|n| write(n, if n % 2 == 0 { "a" } else { "b" }, 1, 100))
        .collect();
    operations.extend((0..40).map(|n| read(n, if n % 3 == 0 { "a" } else { "b" }, 1, 100)));
    operations.push(read(99, "", 200, 201));
    let history = history(operations);
    for (limits, text) in [
        (
            Limits {
                steps: 1000,
                ..Limits::default()
            },
            "1000 steps",
        ),
        (
            Limits {
                memory: 10_000,
                ..Limits::default()
            },
            "10000 bytes",
        ),
    ] {
        let Verdict::Unknown(why) = history.linearizable_within(limits) else {
            panic!("it is too large");
        };
        assert!(why.contains(text), "{why}");
    }
}

#[test]
fn a_history_is_the_same_after_it_was_written_and_read() {
    let recorder = Recorder::new();
    recorder.write(1, "k \"quoted\"", "a").ok();
    recorder.read(2, "k").ok(None::<String>);
    recorder.read(2, "k").failed();
    drop(recorder.write(3, "k", "ü\n"));
    let history = recorder.history();
    let mut lines = Vec::new();
    history.write_json_lines(&mut lines).expect("memory");
    assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), 4);
    assert_eq!(
        History::read_json_lines(&*lines).expect("as written"),
        history
    );
    for (text, expected) in [
        ("{}", "line 1: missing field"),
        (
            "\n{\"client\":1,\"key\":\"k\",\"write\":\"v\",\"start\":5,\"end\":4,\"outcome\":\"ok\"}",
            "line 2: it ends at 4, before its start at 5",
        ),
        (
            "{\"client\":1,\"key\":\"k\",\"read\":null,\"start\":5,\"end\":null,\"outcome\":\"ok\"}",
            "line 1: it is acknowledged, and has no end",
        ),
    ] {
        let error = History::read_json_lines(text.as_bytes())
            .expect_err("bad")
            .to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

/// As of a register that works: each operation takes effect at some moment between its call and its
/// return.
fn large(clients: u64, count: u64, values: Option<u64>) -> Vec<Operation> {
    let mut random = Random(3);
    let mut free = vec![0; clients as usize];
    let mut effects = Vec::new();
    for n in 0..count {
        let client = n % clients;
        let start = free[client as usize] + 1 + random.below(50);
        let effect = start + random.below(100);
        let end = effect + random.below(100);
        free[client as usize] = end;
        effects.push((effect, n, client as u32, start, end, random.below(2) == 0));
    }
    effects.sort_unstable();
    let mut value = String::new();
    let mut operations: Vec<_> = effects
        .into_iter()
        .map(|(_, n, client, start, end, writes)| {
            if writes {
                value = values.map_or(n, |values| n % values).to_string();
                write(client, &value, start, end)
            } else {
                read(client, &value, start, end)
            }
        })
        .collect();
    operations.sort_by_key(|operation| operation.start);
    operations
}

#[test]
fn a_hundred_thousand_operations_are_checked() {
    // How long it takes in a release build is measured by the example `checker_speed`.
    let history = history(large(20, 100_000, None));
    assert_eq!(history.linearizable(), Verdict::Valid);
}

#[test]
fn thousands_of_operations_with_values_that_come_again_are_searched() {
    let mut operations = large(5, 3_000, Some(7));
    assert_eq!(history(operations.clone()).linearizable(), Verdict::Valid);
    // A read of a value that was not there since long.
    let last = operations
        .iter()
        .filter_map(|operation| operation.end)
        .max()
        .expect("some");
    operations.push(read(1, "", last + 1, last + 2));
    let history = history(operations);
    let verdict = history.linearizable();
    let violation = verdict.violation().expect("a lost value");
    assert!(
        violation.operations().len() <= 3,
        "{violation} {:?}",
        violation.operations()
    );
}
