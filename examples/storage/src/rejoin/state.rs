//! What a replica has written down of itself.

use std::collections::BTreeMap;
use std::io;

use prost::Message;

use super::proto::Standing;
use super::slate::Slate;

/// How many replicas there may be. A program has up to a hundred.
pub(super) const MOST_REPLICAS: usize = 1000;

/// What is on the slate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct State {
    /// How often this replica has lost its data. Until it has found that out, the most that it knows.
    pub(super) losses: u64,
    /// How often the others have.
    pub(super) known: BTreeMap<u32, u64>,
    pub(super) phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Phase {
    /// It has all that it ever acknowledged.
    Whole,
    /// It has not, and does not know which life this is.
    #[default]
    Lost,
    /// It gets them again from these others.
    CatchesUp(BTreeMap<u32, Sender>),
}

/// One of whom a replica gets its data again.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Sender {
    /// In which life it has sent what it has.
    #[prost(uint64, tag = "1")]
    pub(super) losses: u64,
    /// Everything up to this key has come.
    #[prost(string, optional, tag = "2")]
    pub(super) upto: Option<String>,
    /// How many records that was.
    #[prost(uint64, tag = "3")]
    pub(super) records: u64,
    /// Everything has come.
    #[prost(bool, tag = "4")]
    pub(super) is_done: bool,
}

impl State {
    /// What is on a slate, if anything is. Of one that is not whole nobody knows what was
    /// acknowledged, so that its replica is taken for lost, and not for new.
    pub(super) fn on(slate: &mut impl Slate) -> io::Result<Option<Self>> {
        let bytes = slate.read()?;
        Ok((!bytes.is_empty()).then(|| Self::decode(&bytes).unwrap_or_default()))
    }

    /// Takes over what another replica knows.
    pub(super) fn learn(&mut self, me: u32, other: &Standing) {
        let of_itself = (other.replica, other.losses);
        let known = other.known.iter().map(|loss| (loss.replica, loss.losses));
        for (replica, losses) in known.chain([of_itself]) {
            if losses == 0 {
                continue;
            }
            if replica == me {
                self.losses = self.losses.max(losses);
            } else if self.known.len() < MOST_REPLICAS || self.known.contains_key(&replica) {
                let known = self.known.entry(replica).or_default();
                *known = losses.max(*known);
            }
        }
    }

    /// Behind a checksum.
    pub(super) fn encode(&self) -> Vec<u8> {
        let written = Written {
            losses: self.losses,
            known: self.known.clone(),
            phase: match self.phase {
                Phase::Whole => 1,
                Phase::Lost => 2,
                Phase::CatchesUp(_) => 3,
            },
            senders: match &self.phase {
                Phase::CatchesUp(senders) => senders.clone(),
                Phase::Whole | Phase::Lost => BTreeMap::new(),
            },
        };
        let written = written.encode_to_vec();
        let mut bytes = crc32fast::hash(&written).to_le_bytes().to_vec();
        bytes.extend(written);
        bytes
    }

    /// None where it is not as it was written, or nothing was.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (sum, written) = bytes.split_first_chunk()?;
        if u32::from_le_bytes(*sum) != crc32fast::hash(written) {
            return None;
        }
        let Written {
            losses,
            known,
            phase,
            senders,
        } = Written::decode(written).ok()?;
        let phase = match phase {
            1 => Phase::Whole,
            2 => Phase::Lost,
            3 => Phase::CatchesUp(senders),
            _ => return None,
        };
        Some(Self {
            losses,
            known,
            phase,
        })
    }
}

/// The state as it stands on a slate.
#[derive(Clone, PartialEq, Message)]
struct Written {
    #[prost(uint64, tag = "1")]
    losses: u64,
    #[prost(btree_map = "uint32, uint64", tag = "2")]
    known: BTreeMap<u32, u64>,
    #[prost(uint32, tag = "3")]
    phase: u32,
    #[prost(btree_map = "uint32, message", tag = "4")]
    senders: BTreeMap<u32, Sender>,
}
