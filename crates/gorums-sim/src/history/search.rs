//! Any object: the search of Wing and Gong ("Testing and Verifying Concurrent Objects", 1993), which
//! does not try a set of operations and a state again, as Lowe improved it ("Testing for
//! Linearizability", 2017).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

use super::{Operation, Outcome};

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

/// When an operation may take effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u64,
    /// `u64::MAX` where it may take effect at any time after its start.
    pub(super) end: u64,
    /// Whether it may also never take effect.
    pub(super) optional: bool,
    /// One that does the same, began before, and has no end, as this one: it is the first one of
    /// them to take effect.
    pub(super) twin: Option<usize>,
}

impl Span {
    pub(super) fn of(operation: &Operation) -> Self {
        // Moved by one, so that 0 is before everything.
        let moved = |time: u64| time.saturating_add(1);
        let start = moved(operation.start);
        match (operation.outcome, operation.end) {
            (Outcome::Ok, Some(end)) => Self {
                start,
                end: moved(end),
                optional: false,
                twin: None,
            },
            _ => Self::open(start),
        }
    }

    /// May take effect at any time after its start, or never.
    pub(super) fn open(start: u64) -> Self {
        Self {
            start,
            end: u64::MAX,
            optional: true,
            twin: None,
        }
    }
}

/// Finds the twins of those without an end, by what they do; none for one that has none.
pub(super) fn find_twins<K: Eq + Hash>(spans: &mut [Span], what: impl Fn(usize) -> Option<K>) {
    let mut latest = HashMap::new();
    for (at, span) in spans.iter_mut().enumerate() {
        if span.optional
            && span.end == u64::MAX
            && let Some(what) = what(at)
        {
            span.twin = latest.insert(what, at);
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<S> {
    /// An order in which all that are not optional may have taken effect, and the state after it.
    Order(Vec<usize>, S),
    /// There is none: none of what began before this operation ended lets it end.
    None {
        stops_at: usize,
    },
    Unknown(String),
}

/// No call or return.
const END: usize = usize::MAX;

/// Calls and returns in the order of their times, as lists from which the operations that have
/// taken effect are taken out, and into which they are put back: one of those that are required,
/// and one of the calls of those that are not.
struct Events {
    /// Event `2 * n` is the call of operation `n`, `2 * n + 1` its return. The last two are the
    /// heads of the lists.
    next: Vec<usize>,
    previous: Vec<usize>,
    /// When each event is, among all.
    position: Vec<usize>,
}

/// The required operations that have taken effect, and the state after them and some of those that
/// are optional.
#[derive(PartialEq, Eq, Hash)]
struct Tried<S> {
    required: Key,
    state: S,
}

/// Looks for an order in which operations may have taken effect. They are given in the order of
/// their starts. `step` is the state after one of them, or none where it cannot be next; `bytes`
/// what a state takes in memory. Adds to `steps` how many were made.
pub(super) fn search<S: Clone + Eq + Hash>(
    spans: &[Span],
    initial: S,
    mut step: impl FnMut(&S, usize) -> Option<S>,
    bytes: impl Fn(&S) -> usize,
    limits: Limits,
    steps: &mut u64,
) -> Found<S> {
    let last_step = steps.saturating_add(limits.steps);
    let mut events = Events::new(spans);
    let mut required = spans.iter().filter(|span| !span.optional).count();
    let mut done = Done::new(spans.len());
    let mut open = Done::new(spans.len());
    let mut state = initial;
    // What is optional only adds to what is still possible while it has not taken effect. So of
    // the sets of those that had, before the same state, only the least are tried.
    let mut tried: HashMap<Tried<S>, Vec<Key>> = HashMap::new();
    let mut memory = 0;
    // The last start of those that have taken effect: what ended before cannot follow.
    let mut latest = 0;
    // The operations that have taken effect, each with the state and the last start before it.
    let mut way: Vec<(usize, S, u64)> = Vec::new();
    let mut furthest: Option<usize> = None;
    let mut event = events.first_required();
    while required > 0 {
        if event != END && !event.is_multiple_of(2) {
            // An operation returns. What may never take effect is tried last: mostly it need not.
            event = events.first_optional();
            continue;
        }
        if event == END || events.is_late(event) {
            // All that might come before that operation returns was tried.
            let stop = events.first_return() / 2;
            if furthest.is_none_or(|known| spans[known].end < spans[stop].end) {
                furthest = Some(stop);
            }
            let Some((last, before, earlier)) = way.pop() else {
                let stops_at = furthest.unwrap_or(stop);
                return Found::None { stops_at };
            };
            (state, latest) = (before, earlier);
            let optional = spans[last].optional;
            if optional { &mut open } else { &mut done }.set(last, false);
            required += usize::from(!optional);
            events.unlift(last, optional);
            event = events.next[2 * last];
            continue;
        }
        let op = event / 2;
        *steps += 1;
        if *steps > last_step {
            return Found::Unknown(format!("not decided within {} steps", limits.steps));
        }
        let Span {
            start,
            end,
            optional,
            twin,
        } = spans[op];
        let after = match twin {
            Some(twin) if !open.has(twin) => None,
            _ if end < latest => None,
            // What may never take effect need not where it changes nothing.
            _ => step(&state, op).filter(|after| !(optional && *after == state)),
        };
        if let Some(after) = after {
            if optional { &mut open } else { &mut done }.set(op, true);
            let new = Tried {
                required: done.key(),
                state: after.clone(),
            };
            let opened = open.key();
            let mut takes = size_of::<Key>() + opened.bytes();
            let known = match tried.entry(new) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    takes += size_of::<(Tried<S>, Vec<Key>)>() + new.key().required.bytes();
                    takes += bytes(&after);
                    new.insert(Vec::new())
                }
            };
            if !known.iter().any(|known| known.is_part_of(&opened)) {
                known.push(opened);
                memory += takes;
                if memory > limits.memory {
                    return Found::Unknown(format!(
                        "not decided within {} bytes of memory",
                        limits.memory
                    ));
                }
                way.push((op, std::mem::replace(&mut state, after), latest));
                latest = latest.max(start);
                required -= usize::from(!optional);
                events.lift(op, optional);
                event = events.first_required();
                continue;
            }
            if optional { &mut open } else { &mut done }.set(op, false);
        }
        event = events.next[event];
    }
    Found::Order(way.into_iter().map(|(op, ..)| op).collect(), state)
}

impl Events {
    fn new(spans: &[Span]) -> Self {
        let mut order: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * spans.len());
        for (op, span) in spans.iter().enumerate() {
            order.push((span.start, false, 2 * op));
            if !span.optional {
                order.push((span.end, true, 2 * op + 1));
            }
        }
        // Where times are equal, calls come first: operations that touch overlap.
        order.sort_unstable();
        let heads = 2 * spans.len();
        let mut events = Self {
            next: vec![END; heads + 2],
            previous: vec![END; heads + 2],
            position: vec![END; heads],
        };
        let mut last = [heads, heads + 1];
        for (position, (_, _, event)) in order.into_iter().enumerate() {
            let last = &mut last[usize::from(spans[event / 2].optional)];
            events.next[*last] = event;
            events.previous[event] = *last;
            events.position[event] = position;
            *last = event;
        }
        events
    }

    fn first_required(&self) -> usize {
        self.next[self.next.len() - 2]
    }

    fn first_optional(&self) -> usize {
        self.next[self.next.len() - 1]
    }

    /// Of what is required and has not taken effect, the operation that returns first. There is
    /// such a one.
    fn first_return(&self) -> usize {
        let mut event = self.first_required();
        while event.is_multiple_of(2) {
            event = self.next[event];
        }
        event
    }

    /// Whether the call, which is not required, comes after that return.
    fn is_late(&self, call: usize) -> bool {
        let is_optional = self.position[call + 1] == END;
        is_optional && self.position[call] > self.position[self.first_return()]
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

/// What is kept of a set of operations.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    /// How many words at the beginning are full.
    full: u32,
    words: Box<[u64]>,
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

    fn has(&self, op: usize) -> bool {
        self.words[op / 64] & (1 << (op % 64)) != 0
    }

    /// Only the words that are neither full nor behind the last operation are kept.
    fn key(&self) -> Key {
        Key {
            full: u32::try_from(self.full).expect("a recorder takes fewer operations"),
            words: self.words[self.full..self.used.max(self.full)].into(),
        }
    }
}

impl Key {
    /// Whether all that is in this set is in the other, too.
    fn is_part_of(&self, other: &Self) -> bool {
        let word = |key: &Self, at: usize| match at.checked_sub(key.full as usize) {
            None => u64::MAX,
            Some(at) => key.words.get(at).copied().unwrap_or_default(),
        };
        let words = self.full as usize + self.words.len();
        (0..words).all(|at| word(self, at) & !word(other, at) == 0)
    }

    /// What it takes elsewhere.
    fn bytes(&self) -> usize {
        8 * self.words.len()
    }
}
