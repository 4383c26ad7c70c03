use std::fmt;

use crate::configuration::{Configuration, Node};
use crate::node_id::NodeId;

/// Some nodes of a configuration: those that have answered, say.
#[derive(Clone, Copy)]
pub struct NodeSet<'a> {
    configuration: &'a Configuration,
    members: &'a Bits,
}

impl<'a> NodeSet<'a> {
    pub(crate) fn new(configuration: &'a Configuration, members: &'a Bits) -> Self {
        Self {
            configuration,
            members,
        }
    }

    /// The configuration that this is a subset of.
    #[must_use]
    pub fn configuration(&self) -> &'a Configuration {
        self.configuration
    }

    /// The size of that configuration.
    #[must_use]
    pub fn total(&self) -> usize {
        self.configuration.len()
    }

    /// The number of nodes in the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this node is in the set.
    #[must_use]
    pub fn contains(&self, id: NodeId) -> bool {
        self.configuration
            .position(id)
            .is_some_and(|index| self.members.contains(index))
    }

    /// The nodes of the set, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &'a Node> + use<'a> {
        let members = self.members;
        self.configuration
            .iter()
            .enumerate()
            .filter(move |(index, _)| members.contains(*index))
            .map(|(_, node)| node)
    }
}

impl fmt::Debug for NodeSet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Node::id)).finish()
    }
}

/// A set of positions. Up to 64 need no allocation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Bits {
    first: u64,
    rest: Vec<u64>,
    /// How many positions there are, which is asked at every reply.
    len: usize,
}

impl Bits {
    /// The positions from 0 to `len`.
    pub(crate) fn all(len: usize) -> Self {
        let word = |len: usize| match len {
            0..64 => (1 << len) - 1,
            _ => u64::MAX,
        };
        let rest = len.saturating_sub(64);
        Self {
            first: word(len),
            rest: (0..rest).step_by(64).map(|at| word(rest - at)).collect(),
            len,
        }
    }

    /// The positions of this set that are not in the other one.
    pub(crate) fn without(mut self, other: &Self) -> Self {
        if other.len == 0 {
            return self;
        }
        self.first &= !other.first;
        for (word, other) in self.rest.iter_mut().zip(&other.rest) {
            *word &= !other;
        }
        self.count();
        self
    }

    /// The positions of both sets.
    pub(crate) fn with(mut self, other: &Self) -> Self {
        if self.rest.len() < other.rest.len() {
            self.rest.resize(other.rest.len(), 0);
        }
        self.first |= other.first;
        for (word, other) in self.rest.iter_mut().zip(&other.rest) {
            *word |= other;
        }
        self.count();
        self
    }

    pub(crate) fn remove(&mut self, index: usize) -> bool {
        if !self.contains(index) {
            return false;
        }
        let (word, mask) = self.word(index);
        *word &= !mask;
        self.len -= 1;
        true
    }

    fn count(&mut self) {
        let rest = self.rest.iter().map(|word| word.count_ones() as usize);
        self.len = self.first.count_ones() as usize + rest.sum::<usize>();
    }

    pub(crate) fn insert(&mut self, index: usize) -> bool {
        let (word, mask) = self.word(index);
        let new = *word & mask == 0;
        *word |= mask;
        self.len += usize::from(new);
        new
    }

    pub(crate) fn contains(&self, index: usize) -> bool {
        let word = match (index / 64).checked_sub(1) {
            None => self.first,
            Some(rest) => self.rest.get(rest).copied().unwrap_or(0),
        };
        word & (1 << (index % 64)) != 0
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn word(&mut self, index: usize) -> (&mut u64, u64) {
        let word = match (index / 64).checked_sub(1) {
            None => &mut self.first,
            Some(rest) => {
                if self.rest.len() <= rest {
                    self.rest.resize(rest + 1, 0);
                }
                &mut self.rest[rest]
            }
        };
        (word, 1 << (index % 64))
    }
}

impl FromIterator<usize> for Bits {
    fn from_iter<I: IntoIterator<Item = usize>>(positions: I) -> Self {
        let mut bits = Self::default();
        for position in positions {
            bits.insert(position);
        }
        bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_hold_any_number_of_positions() {
        let mut bits = Bits::default();
        for index in [0, 63, 64, 200] {
            assert!(bits.insert(index));
            assert!(!bits.insert(index));
            assert!(bits.contains(index));
        }
        assert!(!bits.contains(1) && !bits.contains(1000));
        assert_eq!(bits.len(), 4);
        let mut only = Bits::default();
        only.insert(64);
        let bits = bits.without(&only);
        assert!(bits.contains(200) && !bits.contains(64));
        for len in [0, 1, 63, 64, 65, 127, 128, 129, 130] {
            let all = Bits::all(len);
            assert_eq!(all.len(), len);
            assert!((0..len).all(|index| all.contains(index)) && !all.contains(len));
        }
        let both = bits.clone().with(&only).with(&Bits::all(2));
        assert_eq!((both.len(), both.contains(64)), (5, true));
        let mut fewer = Bits::all(2).with(&both);
        assert!(fewer.remove(200) && !fewer.remove(200) && !fewer.remove(1000));
        assert_eq!((fewer.len(), fewer.contains(200)), (4, false));
        let mut left = Bits::all(130).without(&bits);
        assert_eq!(left.len(), 128);
        assert!(!left.contains(0) && !left.contains(63) && left.contains(64));
        left = Bits::all(3).without(&bits);
        assert_eq!((left.len(), left.contains(0)), (2, false));
    }
}
