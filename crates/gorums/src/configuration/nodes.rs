use super::{Configuration, Membership, Node};
use crate::handler::Running;

/// The nodes that a client calls: a configuration, or those that a [`Membership`] has at the time
/// of each call.
///
/// Made of either of them, or of a single node.
#[derive(Debug, Clone)]
pub struct Nodes(Source);

#[derive(Debug, Clone)]
enum Source {
    Fixed(Configuration),
    Following(Membership),
}

impl Nodes {
    /// The request from which calls inherit, where the nodes are of a handler.
    pub(crate) fn caller(&self) -> Option<&Running> {
        match &self.0 {
            Source::Fixed(configuration) => configuration.caller(),
            Source::Following(_) => None,
        }
    }

    /// The configuration of the moment.
    #[must_use]
    pub fn config(&self) -> Configuration {
        match &self.0 {
            Source::Fixed(configuration) => configuration.clone(),
            Source::Following(membership) => membership.config(),
        }
    }
}

impl From<Configuration> for Nodes {
    fn from(configuration: Configuration) -> Self {
        Self(Source::Fixed(configuration))
    }
}

impl From<&Configuration> for Nodes {
    fn from(configuration: &Configuration) -> Self {
        configuration.clone().into()
    }
}

impl From<Node> for Nodes {
    fn from(node: Node) -> Self {
        Configuration::from(node).into()
    }
}

impl From<&Node> for Nodes {
    fn from(node: &Node) -> Self {
        Configuration::from(node).into()
    }
}

impl From<Membership> for Nodes {
    fn from(membership: Membership) -> Self {
        Self(Source::Following(membership))
    }
}

impl From<&Membership> for Nodes {
    fn from(membership: &Membership) -> Self {
        membership.clone().into()
    }
}
