//! Who a client is, as far as it is believed.

use http::request::Parts;
use http::uri::Authority;
use http::{Extensions, HeaderMap};

use super::connection::Origin;
use super::settings::ConnectionSettings;
use crate::configuration::Node;
use crate::error::{Status, excerpt};
use crate::node_id::{DYNAMIC_IDS, NodeId};
use crate::wire::{NODE_ID, TO};

/// Who a client says it is.
pub(super) enum Claim {
    /// It cannot be called back.
    Nobody,
    /// It has an id, and nobody vouches for it.
    Unproven,
    /// A node of the server's configuration, which is called there, over a stream that this process
    /// opened or over this one.
    Peer(NodeId),
    /// It can be called back, by this id or by one that the server gives it.
    Client(Option<NodeId>),
}

impl Claim {
    /// Which node the client is, which has proved to be this one.
    pub(super) fn node(&self, proven: Option<NodeId>) -> Option<NodeId> {
        match *self {
            Self::Peer(id) | Self::Client(Some(id)) => Some(id),
            Self::Nobody | Self::Unproven | Self::Client(None) => proven,
        }
    }
}

impl ConnectionSettings {
    /// Which node a client has proved to be, where it is asked. This process is not.
    ///
    /// # Errors
    /// It has proved to be one that nobody can be, or the rule refuses it.
    pub(super) fn proven_node(
        &self,
        origin: Origin,
        proven: &Extensions,
    ) -> Result<Option<NodeId>, Status> {
        let (Some(proof), Origin::Outside(_)) = (&self.node_proof, origin) else {
            return Ok(None);
        };
        let node = proof.node(proven)?;
        if let Some(why) = node.and_then(|id| self.why_reserved(id)) {
            let text = format!("the client has proved to be a node, {why}");
            return Err(Status::permission_denied(text));
        }
        Ok(node)
    }

    /// Who this process is to itself.
    pub(super) fn own_claim(&self) -> Claim {
        let peers = self.peers.as_ref();
        peers.map_or(Claim::Nobody, |(me, _)| Claim::Peer(*me))
    }

    /// Who a client is that says this of itself, and has proved to be this node.
    ///
    /// # Errors
    /// It is to prove who it is, and is not the one that it says.
    pub(super) fn classify(
        &self,
        headers: &HeaderMap,
        proven: Option<NodeId>,
    ) -> Result<Claim, Status> {
        let Some(claim) = headers.get(NODE_ID) else {
            return Ok(Claim::Nobody);
        };
        let id = claim.to_str().ok().and_then(|text| text.parse().ok());
        let id = match id {
            None | Some(0) => return Ok(Claim::Client(None)),
            Some(id) => NodeId::from(id),
        };
        let reserved = self.why_reserved(id);
        if self.node_proof.is_some() {
            let why = match (reserved, proven) {
                (Some(why), _) => why.to_owned(),
                (None, Some(proven)) if proven == id => return Ok(self.believed(id)),
                (None, Some(proven)) => format!("and has proved to be node {proven}"),
                (None, None) => "and has proved to be no node".to_owned(),
            };
            let text = format!("the client claims to be node {id}, {why}");
            return Err(Status::permission_denied(text));
        }
        if !self.trust_claimed_ids || reserved.is_some() {
            return Ok(Claim::Unproven);
        }
        Ok(self.believed(id))
    }

    /// Why nobody who connects can be this node, if so.
    pub(super) fn why_reserved(&self, id: NodeId) -> Option<&'static str> {
        if self.peers.as_ref().is_some_and(|(me, _)| *me == id) {
            Some("which is this server itself")
        } else if id.get() >= DYNAMIC_IDS {
            Some("with an id of those that servers give")
        } else {
            None
        }
    }

    fn believed(&self, id: NodeId) -> Claim {
        let peers = self.peers.as_ref();
        let is_peer = peers.is_some_and(|(_, peers)| peers.config().node(id).is_some());
        if is_peer || self.that_connects(id).is_some() {
            return Claim::Peer(id);
        }
        Claim::Client(Some(id))
    }

    /// Whether this server is the node that the client of this request wants to reach. Nobody knows
    /// that where it is no peer, or the client does not say.
    pub(super) fn check_meant(&self, head: &Parts) -> Result<(), Status> {
        let Some((me, _)) = &self.peers else {
            return Ok(());
        };
        let meant = head.headers.get(TO).and_then(|id| id.to_str().ok());
        let meant = meant.and_then(|text| text.parse::<u32>().ok());
        let Some(meant) = meant.map(NodeId::from) else {
            return Ok(());
        };
        if meant == *me {
            return Ok(());
        }
        let address = head.uri.authority().map_or("", Authority::as_str);
        Err(Status::failed_precondition(format!(
            "the server at {} is node {me}, and was connected to as node {meant}: give its address \
             to node {me}, or see ConfigurationBuilder::allow_other_ids",
            excerpt(address)
        )))
    }

    /// The node with this id that is called over the stream that it opens, if there is one.
    pub(super) fn that_connects(&self, id: NodeId) -> Option<Node> {
        let (_, peers) = self.peers.as_ref()?;
        let members = peers.members();
        members.iter().find_map(|members| members.that_connects(id))
    }
}
