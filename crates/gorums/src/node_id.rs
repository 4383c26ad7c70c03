use std::fmt;

/// The first id of those that a server gives to clients that have none. Nobody who claims one of
/// them is believed.
pub(crate) const DYNAMIC_IDS: u32 = 1 << 20;

/// The id of a node, unique within a configuration. 0 is not a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

impl NodeId {
    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl From<u32> for NodeId {
    fn from(id: u32) -> Self {
        Self(id)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
