use std::fmt;

use crate::configuration::Configuration;
use crate::node_id::NodeId;
use crate::quorum::{Bits, NodeSet, QuorumSystem};

/// The replies of a call so far, one for each node that answered: of a streamed call the node's
/// latest.
pub struct Replies<Resp> {
    configuration: Configuration,
    /// In the order of each node's first reply.
    values: Vec<(usize, Resp)>,
    latest: Option<usize>,
}

impl<Resp> Replies<Resp> {
    pub(crate) fn new(configuration: Configuration) -> Self {
        Self {
            configuration,
            values: Vec::new(),
            latest: None,
        }
    }

    pub(crate) fn insert(&mut self, part: usize, reply: Resp) {
        self.latest = Some(part);
        match self.values.iter_mut().find(|(other, _)| *other == part) {
            Some((_, value)) => *value = reply,
            None => self.values.push((part, reply)),
        }
    }

    /// The number of nodes with a reply.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The configuration that was called.
    #[must_use]
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// This node's reply.
    #[must_use]
    pub fn get(&self, node: NodeId) -> Option<&Resp> {
        let part = self.configuration.position(node)?;
        self.values
            .iter()
            .find(|(other, _)| *other == part)
            .map(|(_, value)| value)
    }

    /// The replies with their nodes, in the order of arrival.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Resp)> {
        self.values
            .iter()
            .map(|(part, value)| (self.configuration[*part].id(), value))
    }

    /// The replies, in the order of arrival.
    pub fn values(&self) -> impl Iterator<Item = &Resp> {
        self.values.iter().map(|(_, value)| value)
    }

    /// The reply that came last, if it was not moved out.
    #[must_use]
    pub fn latest(&self) -> Option<(NodeId, &Resp)> {
        let part = self.latest?;
        let (_, value) = self.values.iter().find(|(other, _)| *other == part)?;
        Some((self.configuration[part].id(), value))
    }

    /// Whether the nodes with a reply are a quorum of this system.
    #[must_use]
    pub fn is_quorum(&self, system: &impl QuorumSystem) -> bool {
        let members: Bits = self.values.iter().map(|(part, _)| *part).collect();
        system.is_quorum(&NodeSet::new(&self.configuration, &members))
    }

    /// Moves all replies out.
    pub fn drain(&mut self) -> impl Iterator<Item = (NodeId, Resp)> {
        self.latest = None;
        let configuration = &self.configuration;
        self.values
            .drain(..)
            .map(|(part, value)| (configuration[part].id(), value))
    }
}

impl<Resp> IntoIterator for Replies<Resp> {
    type Item = (NodeId, Resp);
    type IntoIter = std::vec::IntoIter<(NodeId, Resp)>;

    fn into_iter(mut self) -> Self::IntoIter {
        self.drain().collect::<Vec<_>>().into_iter()
    }
}

impl<Resp: fmt::Debug> fmt::Debug for Replies<Resp> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
