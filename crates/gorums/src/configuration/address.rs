use std::fmt;
use std::str::FromStr;

use super::ConfigurationError;
use crate::node_id::NodeId;

/// The address of a node, with its id if one was given: `host:port` or `7=host:port`, and
/// `unix:/path` or `7=unix:/path`.
///
/// What an option of a program or a setting holds; [`ConfigurationBuilder::addresses`] takes many.
///
/// ```
/// use gorums::{NodeId, membership::NodeAddress};
///
/// let peers = "1=10.0.0.1:8080, 2=10.0.0.2:8080";
/// let peers: Vec<NodeAddress> = peers.split(',').map(str::parse).collect::<Result<_, _>>()?;
/// assert_eq!(peers[1].id, Some(NodeId::from(2)));
/// assert_eq!(peers[1].address, "10.0.0.2:8080");
/// # Ok::<_, gorums::ConfigurationError>(())
/// ```
///
/// [`ConfigurationBuilder::addresses`]: super::ConfigurationBuilder::addresses
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeAddress {
    /// Its id. Without one it gets the next one that is free.
    pub id: Option<NodeId>,
    /// Where it listens. Whether it is an [`Address`](crate::runtime::Address), or one of another
    /// [`Transport`](crate::runtime::Transport), is checked when it joins.
    pub address: String,
}

impl FromStr for NodeAddress {
    type Err = ConfigurationError;

    /// Reads an address, or an id, `=` and an address. Spaces around either part do not matter.
    fn from_str(text: &str) -> Result<Self, ConfigurationError> {
        let (id, address) = match text.split_once('=') {
            None => (None, text),
            // A path may have this character.
            Some((before, _)) if before.contains(':') => (None, text),
            Some((id, address)) => {
                let bad = || ConfigurationError::BadId {
                    id: id.trim().to_owned(),
                };
                let id: u32 = id.trim().parse().map_err(|_| bad())?;
                if id == 0 {
                    return Err(bad());
                }
                (Some(id.into()), address)
            }
        };
        Ok(Self {
            id,
            address: address.trim().to_owned(),
        })
    }
}

impl NodeAddress {
    /// Reads addresses with or without ids that have commas between them, as an option of a program
    /// has them.
    ///
    /// ```
    /// use gorums::membership::NodeAddress;
    ///
    /// assert_eq!(NodeAddress::list("1=10.0.0.1:8080, 2=unix:/run/replica")?.len(), 2);
    /// # Ok::<_, gorums::ConfigurationError>(())
    /// ```
    ///
    /// # Errors
    /// What stands before a `=` is not an id.
    pub fn list(text: &str) -> Result<Vec<Self>, ConfigurationError> {
        text.split(',').map(str::parse).collect()
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(id) = self.id {
            write!(f, "{id}=")?;
        }
        f.write_str(&self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_with_or_without_ids() {
        for (text, id, address) in [
            ("a:1", None, "a:1"),
            (" a:1 ", None, "a:1"),
            ("7=a:1", Some(7), "a:1"),
            (" 4294967295 = [::1]:2", Some(u32::MAX), "[::1]:2"),
            ("unix:/a=b", None, "unix:/a=b"),
            ("1=unix:/a=b", Some(1), "unix:/a=b"),
        ] {
            let read: NodeAddress = text.parse().expect("legal");
            assert_eq!(read.id, id.map(NodeId::from), "{text:?}");
            assert_eq!(read.address, address, "{text:?}");
            assert_eq!(read.to_string().parse::<NodeAddress>().ok(), Some(read));
        }
    }

    #[test]
    fn an_id_is_a_number_from_1() {
        for text in ["x=a:1", "0=a:1", "-1=a:1", "4294967296=a:1", "=a:1"] {
            let error = text.parse::<NodeAddress>().expect_err(text);
            let id = text.split('=').next().unwrap_or_default();
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("{id:?} is not an id")),
                "{error}"
            );
        }
    }
}
