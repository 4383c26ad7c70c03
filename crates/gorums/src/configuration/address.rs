use std::fmt;
use std::str::FromStr;

use super::ConfigurationError;
use crate::node_id::NodeId;

/// The address of a node, with its id if one was given: `host:port` or `7=host:port`.
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
    /// Where it listens, `host:port`. Whether it has this form is checked when it joins.
    pub address: String,
}

impl FromStr for NodeAddress {
    type Err = ConfigurationError;

    /// Reads `host:port` or `id=host:port`. Spaces around either part do not matter.
    fn from_str(text: &str) -> Result<Self, ConfigurationError> {
        let (id, address) = match text.split_once('=') {
            None => (None, text),
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

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(id) = self.id {
            write!(f, "{id}=")?;
        }
        f.write_str(&self.address)
    }
}

/// The form in which addresses are compared: lower case, and 127.0.0.1 for `localhost`.
pub(super) fn normalized(address: &str) -> String {
    let address = address.to_ascii_lowercase();
    match address.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => address,
    }
}

/// Whether it is `host:port`.
pub(super) fn check(address: &str) -> Result<(), ConfigurationError> {
    let bad = |reason| ConfigurationError::BadAddress {
        address: address.to_owned(),
        reason,
    };
    let (host, port) = address
        .rsplit_once(':')
        .ok_or_else(|| bad("there is no port"))?;
    if host.is_empty() {
        return Err(bad("there is no host"));
    }
    match port.parse::<u16>() {
        Err(_) => return Err(bad("the port is not a number from 1 to 65535")),
        Ok(0) => return Err(bad("port 0 cannot be connected to")),
        Ok(_) => {}
    }
    match host.strip_prefix('[') {
        Some(v6) => {
            let v6 = v6
                .strip_suffix(']')
                .ok_or_else(|| bad("the closing ] of an IPv6 address is missing"))?;
            v6.split('%')
                .next()
                .unwrap_or(v6)
                .parse::<std::net::Ipv6Addr>()
                .map_err(|_| bad("the IPv6 address is malformed"))?;
        }
        None if host.contains(':') => {
            return Err(bad(
                "an IPv6 address is written in brackets, as in [::1]:8080",
            ));
        }
        None if !host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) =>
        {
            return Err(bad("the host has a character that no host name has"));
        }
        None => {}
    }
    Ok(())
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
