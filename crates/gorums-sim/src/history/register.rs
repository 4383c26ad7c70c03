//! A register to which values may be written again: an object of the [search](super::search).

use std::collections::HashSet;

use super::check::{NOTHING, Op};
use super::search::{Found, Limits, Span, find_twins, search};

/// Looks for an order in which these operations may have taken effect.
pub(super) fn check(ops: &[Op], limits: Limits) -> Found<u32> {
    let ops = that_matter(ops);
    let mut spans: Vec<Span> = ops.iter().map(Op::span).collect();
    find_twins(&mut spans, |op| Some(ops[op].value));
    let step = |value: &u32, op: usize| {
        let op = &ops[op];
        (op.write || op.value == *value).then_some(op.value)
    };
    search(&spans, NOTHING, step, |_| 0, limits, &mut 0)
}

/// Few of these operations, for which there is no order either: their places in the history. There
/// is none for all.
pub(super) fn core(ops: &[Op], limits: Limits) -> Vec<usize> {
    // A part of the whole effort for each of the many searches that follow.
    let mut budget = limits.steps;
    let limits = Limits {
        steps: limits.steps / 100,
        ..limits
    };
    let fails = |ops: &[Op]| matches!(check(ops, limits), Found::None { .. });
    // What is wrong at some time stays wrong: look for the first return at which it is.
    let mut ends: Vec<u64> = ops.iter().map(|op| op.end).collect();
    ends.sort_unstable();
    let (mut low, mut high) = (0, ends.len() - 1);
    while low < high {
        let middle = usize::midpoint(low, high);
        if fails(&until(ops, ends[middle])) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    let mut core = until(ops, ends[high]);
    if !fails(&core) {
        return places(ops);
    }
    // Then leave out values with all their operations, reads, and writes of what is not read.
    let mut leave_out = |core: &mut Vec<Op>, kept: &dyn Fn(&Op) -> bool| {
        let rest: Vec<Op> = core.iter().filter(|op| kept(op)).copied().collect();
        budget = budget.saturating_sub(core.len() as u64);
        if budget > 0 && rest.len() < core.len() && fails(&rest) {
            *core = rest;
        }
    };
    let mut values: Vec<u32> = core.iter().map(|op| op.value).collect();
    values.sort_unstable();
    values.dedup();
    for value in values {
        leave_out(&mut core, &|op| op.value != value);
    }
    for read in core.clone().iter().filter(|op| !op.write) {
        leave_out(&mut core, &|op| op.at != read.at);
    }
    let read: HashSet<u32> = values_read(&core);
    for write in core.clone().iter().filter(|op| op.write) {
        if !read.contains(&write.value) {
            leave_out(&mut core, &|op| op.at != write.at);
        }
    }
    places(&that_matter(&core))
}

/// What was known at this time: what had not returned is open.
fn until(ops: &[Op], time: u64) -> Vec<Op> {
    let known = ops.iter().filter(|op| op.start <= time);
    known
        .filter_map(|&op| match op.end <= time {
            true => Some(op),
            false if op.write => Some(Op {
                end: u64::MAX,
                optional: true,
                ..op
            }),
            false => None,
        })
        .collect()
}

fn places(ops: &[Op]) -> Vec<usize> {
    ops.iter().map(|op| op.at).collect()
}

/// Leaves out writes that may never have taken effect and that nobody has read.
fn that_matter(ops: &[Op]) -> Vec<Op> {
    let read: HashSet<u32> = ops
        .iter()
        .filter(|op| !op.write)
        .map(|op| op.value)
        .collect();
    let mut kept: Vec<Op> = ops
        .iter()
        .filter(|op| !op.optional || read.contains(&op.value))
        .copied()
        .collect();
    // So that what has taken effect is mostly a prefix.
    kept.sort_by_key(|op| op.start);
    kept
}

fn values_read(ops: &[Op]) -> HashSet<u32> {
    let reads = ops.iter().filter(|op| !op.write);
    reads.map(|op| op.value).collect()
}
