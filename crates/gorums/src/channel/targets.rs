//! The nodes of a call, by position.

use std::sync::Arc;

use super::{Channel, Pool};
use crate::node_id::NodeId;

/// The nodes that a call is for, by position.
pub(crate) struct Targets {
    channels: Box<[Arc<Channel>]>,
    /// Ids with their positions, sorted, for configurations too large to look through.
    by_id: Box<[(NodeId, usize)]>,
    /// One channel of each pool.
    pools: Box<[Arc<Pool>]>,
}

impl Targets {
    pub(crate) fn new(channels: impl IntoIterator<Item = Arc<Channel>>) -> Arc<Self> {
        let channels: Box<[_]> = channels.into_iter().collect();
        let mut by_id: Box<[_]> = channels
            .iter()
            .enumerate()
            .map(|(position, channel)| (channel.id(), position))
            .collect();
        by_id.sort_unstable();
        let mut pools: Vec<Arc<Pool>> = Vec::new();
        for channel in &channels {
            if !pools.iter().any(|pool| Arc::ptr_eq(pool, channel.pool())) {
                pools.push(Arc::clone(channel.pool()));
            }
        }
        Arc::new(Self {
            channels,
            by_id,
            pools: pools.into(),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.channels.len()
    }

    pub(crate) fn channels(&self) -> &[Arc<Channel>] {
        &self.channels
    }

    /// The pools that the channels belong to; more than one after a union across pools.
    pub(crate) fn pools(&self) -> &[Arc<Pool>] {
        &self.pools
    }

    pub(crate) fn position(&self, id: NodeId) -> Option<usize> {
        if self.channels.len() <= 8 {
            return self.channels.iter().position(|channel| channel.id() == id);
        }
        let index = self.by_id.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(self.by_id[index].1)
    }

    /// The position of this very channel, and not of another one with its id.
    pub(crate) fn position_of(&self, channel: &Arc<Channel>) -> Option<usize> {
        self.position(channel.id())
            .filter(|position| Arc::ptr_eq(&self.channels[*position], channel))
    }
}
