//! Any writes: the search of Wing and Gong ("Testing and Verifying Concurrent Objects", 1993),
//! which does not try a set of operations and a value again, as Lowe improved it ("Testing for
//! Linearizability", 2017).

use std::collections::HashSet;

use super::check::{NOTHING, Op};

/// How far a search goes before it gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many operations may be tried next, over all ways.
    pub steps: u64,
    /// How many bytes the memory of what was tried may take.
    pub memory: usize,
}

impl Default for Limits {
    /// Ten million steps, a few seconds, and 256 MiB.
    fn default() -> Self {
        Self {
            steps: 10_000_000,
            memory: 256 << 20,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Linearization,
    None,
    Unknown(String),
}

/// No call or return.
const END: usize = usize::MAX;

/// Calls and returns in the order of their times, as a list from which the operations that have
/// taken effect are taken out, and into which they are put back.
struct Events {
    /// Event `2 * n` is the call of operation `n`, `2 * n + 1` its return. The last one is the
    /// head.
    next: Vec<usize>,
    previous: Vec<usize>,
}

/// The operations that have taken effect, and the value after them.
#[derive(PartialEq, Eq, Hash)]
struct State(Box<[u64]>);

/// Looks for an order in which these operations may have taken effect.
pub(super) fn check(ops: &[Op], limits: Limits) -> Found {
    let ops = that_matter(ops);
    let mut events = Events::new(&ops);
    let head = events.head();
    let mut required = ops.iter().filter(|op| !op.optional).count();
    let mut done = Done::new(ops.len());
    let mut value = NOTHING;
    let mut tried = HashSet::new();
    let mut memory = 0;
    let mut steps = 0_u64;
    // The operations that have taken effect, each with the value before it.
    let mut way: Vec<(usize, u32)> = Vec::new();
    let mut event = events.next[head];
    while required > 0 {
        if event != END && event.is_multiple_of(2) {
            let op = &ops[event / 2];
            steps += 1;
            if steps > limits.steps {
                return Found::Unknown(format!("nothing was found in {} steps", limits.steps));
            }
            if op.write || op.value == value {
                let after = if op.write { op.value } else { value };
                done.set(event / 2, true);
                let state = done.state(after);
                let bytes = state.bytes();
                if tried.insert(state) {
                    memory += bytes;
                    if memory > limits.memory {
                        return Found::Unknown(format!(
                            "nothing was found with {} bytes of memory",
                            limits.memory
                        ));
                    }
                    way.push((event / 2, value));
                    value = after;
                    required -= usize::from(!op.optional);
                    events.lift(event / 2, op.optional);
                    event = events.next[head];
                    continue;
                }
                done.set(event / 2, false);
            }
            event = events.next[event];
        } else {
            // An operation has returned, and all that might come before it was tried.
            let Some((last, before)) = way.pop() else {
                return Found::None;
            };
            value = before;
            done.set(last, false);
            required += usize::from(!ops[last].optional);
            events.unlift(last, ops[last].optional);
            event = events.next[2 * last];
        }
    }
    Found::Linearization
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
    let fails = |ops: &[Op]| check(ops, limits) == Found::None;
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

impl Events {
    fn new(ops: &[Op]) -> Self {
        let calls = ops.iter().enumerate().map(|(n, op)| (op.start, 2 * n));
        let returns = ops.iter().enumerate().filter(|(_, op)| !op.optional);
        let mut order: Vec<(u64, bool, usize)> = calls
            .map(|(time, event)| (time, false, event))
            .chain(returns.map(|(n, op)| (op.end, true, 2 * n + 1)))
            .collect();
        // Where times are equal, calls come first: operations that touch overlap.
        order.sort_unstable();
        let head = 2 * ops.len();
        let mut events = Self {
            next: vec![END; head + 1],
            previous: vec![END; head + 1],
        };
        let mut last = head;
        for (_, _, event) in order {
            events.next[last] = event;
            events.previous[event] = last;
            last = event;
        }
        events
    }

    fn head(&self) -> usize {
        self.next.len() - 1
    }

    fn lift(&mut self, op: usize, optional: bool) {
        self.take_out(2 * op);
        if !optional {
            self.take_out(2 * op + 1);
        }
    }

    fn unlift(&mut self, op: usize, optional: bool) {
        if !optional {
            self.put_back(2 * op + 1);
        }
        self.put_back(2 * op);
    }

    fn take_out(&mut self, event: usize) {
        let (previous, next) = (self.previous[event], self.next[event]);
        self.next[previous] = next;
        if next != END {
            self.previous[next] = previous;
        }
    }

    fn put_back(&mut self, event: usize) {
        let (previous, next) = (self.previous[event], self.next[event]);
        self.next[previous] = event;
        if next != END {
            self.previous[next] = event;
        }
    }
}

/// A set of operations.
struct Done {
    words: Vec<u64>,
    /// How many words at the beginning are full.
    full: usize,
    /// All words from here on are empty.
    used: usize,
}

impl Done {
    fn new(ops: usize) -> Self {
        Self {
            words: vec![0; ops.div_ceil(64)],
            full: 0,
            used: 0,
        }
    }

    fn set(&mut self, op: usize, done: bool) {
        let word = op / 64;
        if done {
            self.words[word] |= 1 << (op % 64);
            self.used = self.used.max(word + 1);
            while self.words.get(self.full) == Some(&u64::MAX) {
                self.full += 1;
            }
        } else {
            self.words[word] &= !(1 << (op % 64));
            self.full = self.full.min(word);
            while self.used > 0 && self.words[self.used - 1] == 0 {
                self.used -= 1;
            }
        }
    }

    /// Only the words that are neither full nor behind the last operation are kept.
    fn state(&self, value: u32) -> State {
        let middle = &self.words[self.full..self.used.max(self.full)];
        let mut state = Vec::with_capacity(middle.len() + 1);
        state.push((self.full as u64) << 32 | u64::from(value));
        state.extend_from_slice(middle);
        State(state.into_boxed_slice())
    }
}

impl State {
    /// What it takes in the set, its place there included.
    fn bytes(&self) -> usize {
        8 * self.0.len() + 40
    }
}
