use std::error::Error;
use std::fmt;

use crate::node_id::NodeId;

/// So many nodes of a set are shown in a text; the rest are counted.
const SHOWN: usize = 16;

/// A quorum system that would not keep what it promises; the text says why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumSystemError {
    text: String,
    quorums: Option<Box<[Vec<NodeId>; 2]>>,
}

impl QuorumSystemError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            quorums: None,
        }
    }

    /// Two quorums with fewer nodes in common than was promised. `kinds` says what each of them is.
    pub(super) fn apart(kinds: [&str; 2], quorums: [Vec<NodeId>; 2], promised: usize) -> Self {
        let [one, other] = &quorums;
        let shared: Vec<_> = one.iter().filter(|id| other.contains(id)).collect();
        let have = match shared.len() {
            0 => "miss each other".to_owned(),
            count => format!("have {count} of {promised} nodes in common that were promised"),
        };
        Self {
            text: format!(
                "the {} quorum {} and the {} quorum {} {have}",
                kinds[0],
                Shown(one),
                kinds[1],
                Shown(other)
            ),
            quorums: Some(Box::new(quorums)),
        }
    }

    /// The two quorums that miss each other, or have too few nodes in common, if that is what is
    /// wrong. The text shows the first 16 nodes of each.
    #[must_use]
    pub fn quorums(&self) -> Option<[&[NodeId]; 2]> {
        let [one, other] = &**self.quorums.as_ref()?;
        Some([one, other])
    }
}

impl fmt::Display for QuorumSystemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for QuorumSystemError {}

/// Refuses a count that every set has, or that none can have.
pub(super) fn check_count<T: PartialOrd + From<u8> + fmt::Display>(
    count: T,
    of: T,
    what: &str,
) -> Result<(), QuorumSystemError> {
    match count >= T::from(1) && count <= of {
        true => Ok(()),
        false => Err(QuorumSystemError::new(format!(
            "{count} of {of} {what} are not a quorum: it is 1 at least, and no more than there are"
        ))),
    }
}

/// Nodes in a text.
pub(super) struct Shown<'a>(pub(super) &'a [NodeId]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, node) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{}{node}", if index == 0 { "" } else { ", " })?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => f.write_str("}"),
            more => write!(f, " and {more} more}}"),
        }
    }
}
