//! Unique writes: Gibbons and Korach, "Testing Shared Memories", SIAM Journal on Computing 26
//! (1997).
//!
//! In any linearization the write of a value and the reads of it are one block, a *cluster*. So all
//! that counts of a cluster is when its first operation ends (`end`) and when its last one starts
//! (`start`): it has to be before another cluster where its `end` is less than the other's `start`.
//! The history is linearizable where no two clusters have to be before each other. Longer circles
//! always contain such a pair.
//!
//! A cluster whose `end` is less than its `start` is a *forward zone*, the interval in which its
//! value is surely there; the others are *backward zones*. Two forward zones conflict where they
//! overlap, a forward and a backward zone where the forward one contains the other, and two
//! backward zones never. Forward zones without conflict are in a row, so each backward zone is
//! compared with one of them.

use super::check::{NOTHING, Op};
use super::{History, Violation};

/// The operations of one value.
#[derive(Debug, Clone, Copy)]
struct Cluster<'a> {
    write: Option<&'a Op>,
    /// The operation that ends first. None where the value was there before everything.
    first: Option<&'a Op>,
    /// The operation that starts last. None where there is none.
    last: Option<&'a Op>,
}

/// Two values that would have to be before each other.
#[derive(Debug)]
pub(super) struct Conflict<'a>(Cluster<'a>, Cluster<'a>);

/// Whether no value is written twice. Values are numbers below `values`.
pub(super) fn applies(ops: &[Op], values: usize) -> bool {
    let mut written = vec![false; values];
    ops.iter()
        .filter(|op| op.write)
        .all(|op| !std::mem::replace(&mut written[op.value as usize], true))
}

/// Looks for two values that would have to be before each other. Every value read has a write that
/// starts before the read ends.
pub(super) fn check(ops: &[Op], values: usize) -> Result<(), Conflict<'_>> {
    let clusters = clusters(ops, values);
    let mut forward: Vec<&Cluster<'_>> = clusters.iter().filter(|c| c.is_forward()).collect();
    forward.sort_unstable_by_key(|cluster| cluster.end());
    for pair in forward.windows(2) {
        if pair[1].end() < pair[0].start() {
            return Err(Conflict(*pair[0], *pair[1]));
        }
    }
    for cluster in clusters.iter().filter(|c| !c.is_forward()) {
        let before = forward.partition_point(|zone| zone.end() < cluster.start());
        let Some(zone) = before.checked_sub(1).map(|last| forward[last]) else {
            continue;
        };
        if cluster.end() < zone.start() {
            return Err(Conflict(*zone, *cluster));
        }
    }
    Ok(())
}

/// The clusters of the values that were read or surely written.
fn clusters(ops: &[Op], values: usize) -> Vec<Cluster<'_>> {
    let empty = Cluster {
        write: None,
        first: None,
        last: None,
    };
    let mut clusters = vec![empty; values];
    let mut counts = vec![false; values];
    for op in ops {
        counts[op.value as usize] |= !op.optional;
        let cluster = &mut clusters[op.value as usize];
        if op.write {
            cluster.write = Some(op);
        }
        if op.value != NOTHING && cluster.first.is_none_or(|first| op.end < first.end) {
            cluster.first = Some(op);
        }
        if cluster.last.is_none_or(|last| op.start > last.start) {
            cluster.last = Some(op);
        }
    }
    let mut counts = counts.into_iter();
    clusters.retain(|_| counts.next() == Some(true));
    clusters
}

impl<'a> Cluster<'a> {
    fn end(&self) -> u64 {
        self.first.map_or(0, |op| op.end)
    }

    fn start(&self) -> u64 {
        self.last.map_or(0, |op| op.start)
    }

    fn is_forward(&self) -> bool {
        self.end() < self.start()
    }

    /// The operations of this cluster of which one may end before one of the other starts; none is
    /// the beginning.
    fn firsts(&self) -> [Option<&'a Op>; 3] {
        match self.first {
            None => [None; 3],
            first => [self.write, first, self.last],
        }
    }

    fn lasts(&self) -> [Option<&'a Op>; 3] {
        [self.write, self.last, self.first].map(|op| op.or(self.last))
    }
}

impl Conflict<'_> {
    /// Says it with as few operations as it takes.
    pub(super) fn describe(&self, history: &History) -> Violation {
        let Self(one, other) = self;
        let mut best: Option<([Option<&Op>; 4], Vec<usize>)> = None;
        for a in one.firsts() {
            for b in other.lasts() {
                for c in other.firsts() {
                    for d in one.lasts() {
                        if !(before(a, b) && before(c, d)) {
                            continue;
                        }
                        let named = [one.write, other.write, a, b, c, d];
                        let mut places: Vec<_> = named.iter().flatten().map(|op| op.at).collect();
                        places.sort_unstable();
                        places.dedup();
                        if best
                            .as_ref()
                            .is_none_or(|(_, known)| places.len() < known.len())
                        {
                            best = Some(([a, b, c, d], places));
                        }
                    }
                }
            }
        }
        let (said, places) = best.expect("the operations that end first and start last will do");
        let [a, b, c, d] = said.map(|op| match op {
            Some(op) => history.operations[op.at].to_string(),
            None => "the beginning, when there is nothing,".to_owned(),
        });
        let reason = match (said[0], said[2]) {
            (None, _) => format!("{c} is over before {d} begins"),
            (_, None) => format!("{a} is over before {b} begins"),
            _ => format!(
                "neither value can be the older one: {a} is over before {b} begins, and {c} is over before {d} begins"
            ),
        };
        Violation::new(reason, places)
    }
}

/// Whether one operation, or the beginning, is over before another one begins.
fn before(one: Option<&Op>, other: Option<&Op>) -> bool {
    other.is_some_and(|other| one.map_or(0, |one| one.end) < other.start)
}
