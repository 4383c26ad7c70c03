use super::peer::TlsPeer;
use crate::error::{Status, excerpt};
use crate::node_id::NodeId;
use crate::runtime::{Evidence, NodeProof};

const SCHEME: &str = "gorums://";

/// Nodes are those whose certificates name them by a URI: `gorums://CLUSTER/node/ID`, as an
/// alternative name of the subject. `cargo xtask certs` makes such certificates.
///
/// Who has a certificate without such a URI, or none, is a client and no node. It may have another
/// one of the cluster, such as `gorums://CLUSTER/client`. Refused with
/// [`PermissionDenied`](crate::Code::PermissionDenied) is who has only URIs of other clusters, one of
/// this cluster below `node` that is no id, or those of several nodes.
///
/// ```no_run
/// # fn run(tls: gorums::tls::Tls) -> Result<(), Box<dyn std::error::Error>> {
/// use gorums::tls::NodeUris;
/// use gorums::{Configuration, Server};
///
/// let peers = Configuration::builder()
///     .transport(tls.clone())
///     .node_proof(NodeUris::of("accounts"))
///     .node(1, "one.example.com:9001")
///     .node(2, "two.example.com:9001")
///     .connect()?;
/// let server = Server::builder()
///     .transport(tls)
///     .node_proof(NodeUris::of("accounts"))
///     .peers(1, &peers);
/// # drop(server);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeUris {
    cluster: String,
}

impl NodeUris {
    /// Those of this cluster, whose name is compared as it is.
    #[must_use]
    pub fn of(cluster: impl Into<String>) -> Self {
        Self {
            cluster: cluster.into(),
        }
    }

    fn among<'a>(&self, uris: impl Iterator<Item = &'a str>) -> Result<Option<NodeId>, Status> {
        let (mut found, mut is_ours) = (None, false);
        let mut other = None;
        for uri in uris {
            let Some(rest) = uri.strip_prefix(SCHEME) else {
                continue;
            };
            let (cluster, path) = rest.split_once('/').unwrap_or((rest, ""));
            if cluster != self.cluster {
                other = Some(uri);
                continue;
            }
            is_ours = true;
            let Some(id) = path.strip_prefix("node/") else {
                continue;
            };
            let id = number(id).ok_or_else(|| {
                denied(format!(
                    "the certificate's {:?} names no node",
                    excerpt(uri)
                ))
            })?;
            if found.is_some_and(|found| found != id) {
                return Err(denied("the certificate names several nodes".to_owned()));
            }
            found = Some(id);
        }
        match other.filter(|_| !is_ours) {
            Some(other) => Err(denied(format!(
                "the certificate is of another cluster than {:?}: it has {:?}",
                self.cluster,
                excerpt(other)
            ))),
            None => Ok(found),
        }
    }
}

impl NodeProof for NodeUris {
    fn node(&self, evidence: Evidence<'_>) -> Result<Option<NodeId>, Status> {
        match evidence.get::<TlsPeer>() {
            Some(peer) => self.among(peer.uris()),
            None => Ok(None),
        }
    }
}

/// An id as one writes it: 1, and neither 01 nor +1.
fn number(text: &str) -> Option<NodeId> {
    let number: u32 = text.parse().ok()?;
    (number > 0 && number.to_string() == text).then(|| number.into())
}

fn denied(reason: String) -> Status {
    Status::permission_denied(reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn uris_name_a_node_of_the_cluster_or_none() {
        let uris = NodeUris::of("accounts");
        let node = |id: u32| Ok(Some(NodeId::from(id)));
        for (given, expected) in [
            (&[][..], Ok(None)),
            (&["https://example.com/node/1"], Ok(None)),
            (&["gorums://accounts/node/1"], node(1)),
            (
                &["gorums://other/node/2", "gorums://accounts/node/1"],
                node(1),
            ),
            (
                &["gorums://accounts/node/7", "gorums://accounts/node/7"],
                node(7),
            ),
            (&["gorums://accounts/node/4294967295"], node(u32::MAX)),
            (
                &["gorums://accounts/node/1", "gorums://accounts/node/2"],
                Err(()),
            ),
            (&["gorums://other/node/1"], Err(())),
            (&["gorums://accountsx/node/1"], Err(())),
            (&["gorums://accounts"], Ok(None)),
            (&["gorums://accounts/client"], Ok(None)),
            (
                &["gorums://accounts/client", "gorums://other/node/1"],
                Ok(None),
            ),
            (
                &["gorums://accounts/client", "gorums://accounts/node/3"],
                node(3),
            ),
            (&["gorums://"], Err(())),
            (&["gorums://accounts/node/"], Err(())),
            (&["gorums://accounts/node/0"], Err(())),
            (&["gorums://accounts/node/01"], Err(())),
            (&["gorums://accounts/node/+1"], Err(())),
            (&["gorums://accounts/node/1/"], Err(())),
            (&["gorums://accounts/node/4294967296"], Err(())),
        ] {
            let found = uris.among(given.iter().copied());
            let found = found.map_err(|status| assert_eq!(status.code(), Code::PermissionDenied));
            assert_eq!(found, expected, "{given:?}");
        }
    }
}
