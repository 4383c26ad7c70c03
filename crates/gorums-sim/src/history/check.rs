//! Registers: the operations of a key as numbers, which both rules share, and the choice of the
//! check.

use std::collections::{BTreeMap, HashMap};

use super::search::{Found, Span};
use super::{Action, History, Limits, Outcome, Verdict, Violation, register, zones};

/// The value of a key before the first write.
pub(super) const NOTHING: u32 = 0;

/// An operation of one key that says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Op {
    /// Its place in the history.
    pub(super) at: usize,
    pub(super) start: u64,
    /// `u64::MAX` where it may take effect at any time.
    pub(super) end: u64,
    pub(super) write: bool,
    pub(super) value: u32,
    /// Whether it may also never take effect.
    pub(super) optional: bool,
}

impl Op {
    /// When it may take effect.
    pub(super) fn span(&self) -> Span {
        Span {
            start: self.start,
            end: self.end,
            optional: self.optional,
            twin: None,
        }
    }
}

pub(super) fn linearizable(history: &History, limits: Limits) -> Verdict {
    if let Some(unknown) = truncated(history) {
        return unknown;
    }
    let mut unknown = None;
    for (key, places) in history.keys() {
        let (ops, values) = match ops(history, &places) {
            Ok(known) => known,
            Err(why) => {
                unknown = Some(why);
                continue;
            }
        };
        if let Err(violation) = reads_have_writes(history, &ops) {
            return Verdict::Violation(violation);
        }
        if zones::applies(&ops, values) {
            if let Err(conflict) = zones::check(&ops, values) {
                return Verdict::Violation(conflict.describe(history));
            }
            continue;
        }
        match register::check(&ops, limits) {
            Found::Order(..) => {}
            Found::None { .. } => {
                let core = register::core(&ops, limits);
                let reason = format!(
                    "no order of these operations on {key:?} agrees with when they began and ended and with what was read"
                );
                return Verdict::Violation(Violation::new(reason, core));
            }
            Found::Unknown(why) => {
                unknown = Some(format!("key {key:?}: {why}"));
            }
        }
    }
    unknown.map_or(Verdict::Valid, Verdict::Unknown)
}

pub(super) fn regular(history: &History) -> Verdict {
    if let Some(unknown) = truncated(history) {
        return unknown;
    }
    let mut unknown = None;
    for (key, places) in history.keys() {
        let (ops, values) = match ops(history, &places) {
            Ok(known) => known,
            Err(why) => {
                unknown = Some(why);
                continue;
            }
        };
        if let Err(violation) = reads_have_writes(history, &ops) {
            return Verdict::Violation(violation);
        }
        if !zones::applies(&ops, values) {
            unknown = Some(format!("a value was written twice to key {key:?}"));
            continue;
        }
        if let Err(violation) = no_older_read(history, &ops) {
            return Verdict::Violation(violation);
        }
    }
    unknown.map_or(Verdict::Valid, Verdict::Unknown)
}

pub(super) fn truncated(history: &History) -> Option<Verdict> {
    history
        .truncated
        .then(|| Verdict::Unknown("the recorder was full, and operations are missing".to_owned()))
}

/// The operations of a key that say something, and how many values there are, [`NOTHING`] included.
/// An error where it is no register.
fn ops(history: &History, places: &[usize]) -> Result<(Vec<Op>, usize), String> {
    let mut numbers: HashMap<&str, u32> = HashMap::new();
    let mut number = |value| {
        let next = u32::try_from(numbers.len() + 1).expect("a recorder takes fewer operations");
        *numbers.entry(value).or_insert(next)
    };
    let mut ops = Vec::with_capacity(places.len());
    for &at in places {
        let operation = &history.operations[at];
        let done = operation.outcome == Outcome::Ok;
        let (write, value) = match &operation.action {
            Action::Call { .. } => {
                return Err(format!(
                    "{operation}: that is neither a read nor a write of a register, and judged by History::linearizable_as"
                ));
            }
            _ if operation.outcome == Outcome::NotDone => continue,
            Action::Write(value) => (true, number(value)),
            Action::Read(_) if !done => continue,
            Action::Read(None) => (false, NOTHING),
            Action::Read(Some(value)) => (false, number(value)),
        };
        let Span {
            start,
            end,
            optional,
            ..
        } = Span::of(operation);
        ops.push(Op {
            at,
            start,
            end,
            write,
            value,
            optional,
        });
    }
    Ok((ops, numbers.len() + 1))
}

/// Every value read was written by a call that began before the read ended.
fn reads_have_writes(history: &History, ops: &[Op]) -> Result<(), Violation> {
    let mut first: HashMap<u32, &Op> = HashMap::new();
    for op in ops.iter().filter(|op| op.write) {
        first
            .entry(op.value)
            .and_modify(|known| {
                if op.start < known.start {
                    *known = op;
                }
            })
            .or_insert(op);
    }
    for op in ops.iter().filter(|op| !op.write && op.value != NOTHING) {
        let shown = &history.operations[op.at];
        match first.get(&op.value) {
            None => {
                return Err(Violation::new(
                    format!("{shown}, which was never written"),
                    [op.at],
                ));
            }
            Some(write) if op.end < write.start => {
                return Err(Violation::new(
                    format!("{shown}, and ends before that is first written"),
                    [op.at, write.at],
                ));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// No read that began after an acknowledged write returns what the same client wrote before it, or
/// nothing. Values are unique.
fn no_older_read(history: &History, ops: &[Op]) -> Result<(), Violation> {
    // The writes of each client, and the place of each value's write among those.
    let mut writers: BTreeMap<u32, Vec<&Op>> = BTreeMap::new();
    for op in ops.iter().filter(|op| op.write) {
        let client = history.operations[op.at].client;
        writers.entry(client).or_default().push(op);
    }
    let mut place: HashMap<u32, (u32, u64)> = HashMap::new();
    for (client, writes) in &mut writers {
        writes.sort_by_key(|op| op.start);
        for op in writes.iter() {
            place.insert(op.value, (*client, op.start));
        }
    }
    // For each client, its acknowledged writes by their ends, each with the latest write that had
    // ended by then.
    let mut newest: BTreeMap<u32, Vec<(u64, &Op)>> = BTreeMap::new();
    for (client, writes) in &writers {
        let mut ended: Vec<&Op> = writes.iter().copied().filter(|op| !op.optional).collect();
        ended.sort_by_key(|op| op.end);
        let mut best: Option<&Op> = None;
        let steps = ended.into_iter().map(|op| {
            let latest = best.filter(|best| best.start > op.start).unwrap_or(op);
            best = Some(latest);
            (op.end, latest)
        });
        newest.insert(*client, steps.collect());
    }
    for read in ops.iter().filter(|op| !op.write) {
        let written = place.get(&read.value).copied();
        for (client, steps) in &newest {
            let before = steps.partition_point(|(end, _)| *end < read.start);
            let Some((_, latest)) = before.checked_sub(1).map(|last| steps[last]) else {
                continue;
            };
            let older = match written {
                None => true,
                Some((writer, start)) => writer == *client && start < latest.start,
            };
            if older {
                let write = ops.iter().find(|op| op.write && op.value == read.value);
                let places = [read.at, latest.at].into_iter();
                let reason = format!(
                    "{}, though {} had been acknowledged before that read began",
                    history.operations[read.at], history.operations[latest.at]
                );
                return Err(Violation::new(reason, places.chain(write.map(|op| op.at))));
            }
        }
    }
    Ok(())
}
