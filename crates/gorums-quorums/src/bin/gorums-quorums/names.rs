//! Names of nodes.

use std::collections::HashMap;
use std::fmt;

use gorums::NodeId;

/// The names of the nodes of a system, whose ids are counted from one on in the order in which they are
/// named.
#[derive(Debug, Default)]
pub(crate) struct Names {
    names: Vec<String>,
    ids: HashMap<String, u32>,
}

impl Names {
    /// `1` to the number of nodes.
    pub(crate) fn numbers(count: u32) -> Self {
        let mut names = Self::default();
        for number in 1..=count {
            names.id(&number.to_string());
        }
        names
    }

    /// Of a node that may be named for the first time.
    pub(crate) fn id(&mut self, name: &str) -> NodeId {
        let next = self.ids.len() as u32 + 1;
        let id = *self.ids.entry(name.to_owned()).or_insert(next);
        if id == next {
            self.names.push(name.to_owned());
        }
        id.into()
    }

    /// Of a node that is named already.
    pub(crate) fn known(&self, name: &str) -> Option<NodeId> {
        self.ids.get(name).map(|id| (*id).into())
    }

    pub(crate) fn of(&self, node: NodeId) -> &str {
        let at = (node.get() as usize).checked_sub(1);
        at.and_then(|at| self.names.get(at))
            .map_or("?", String::as_str)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (NodeId, &str)> {
        let names = (1u32..).zip(&self.names);
        names.map(|(id, name)| (id.into(), name.as_str()))
    }

    /// A set as it is shown.
    pub(crate) fn set<'a>(&'a self, nodes: &'a [NodeId]) -> Set<'a> {
        Set { names: self, nodes }
    }

    /// A set as others read it.
    pub(crate) fn list(&self, nodes: &[NodeId]) -> Vec<&str> {
        nodes.iter().map(|node| self.of(*node)).collect()
    }
}

pub(crate) struct Set<'a> {
    names: &'a Names,
    nodes: &'a [NodeId],
}

impl fmt::Display for Set<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// So many nodes are shown; the rest are counted.
        const SHOWN: usize = 12;
        let mut text = self
            .names
            .list(&self.nodes[..self.nodes.len().min(SHOWN)])
            .join(", ");
        if let Some(more) = self.nodes.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            text += &format!(" and {more} more");
        }
        f.pad(&format!("{{{text}}}"))
    }
}
