use std::collections::BTreeMap;

use gorums::NodeId;

/// What is so of each node: of some something of their own, and of all others the same.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PerNode<T> {
    others: T,
    by_node: BTreeMap<NodeId, T>,
}

impl<T: Copy> PerNode<T> {
    pub(crate) fn each(others: T) -> Self {
        Self {
            others,
            by_node: BTreeMap::new(),
        }
    }

    pub(crate) fn with(mut self, node: NodeId, own: T) -> Self {
        self.by_node.insert(node, own);
        self
    }

    pub(crate) fn of(&self, node: NodeId) -> T {
        self.by_node.get(&node).copied().unwrap_or(self.others)
    }
}
