//! Which value is newer.

use std::fmt;

use prost::{DecodeError, Message};
use storage::disk::Record;
use storage::rejoin::Transfer;

use crate::proto;

/// Orders the values of a register: by number, and those with the same number by writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// One more than the newest that its writer found.
    pub number: u64,
    /// Who made it. No writer makes two with one number, and so no two values have one version.
    pub writer: Writer,
}

/// The id of a writer: of one client from its start to its end. The same program gets another one
/// when it is started again, since it does not know which versions it has made before, and which of
/// them are still on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Writer(u128);

/// A value and its version, as a replica keeps them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// The value.
    pub value: String,
    /// Its version.
    pub version: Version,
}

impl Writer {
    /// An id that nobody else has: 128 random bits of the system. With a billion clients the odds
    /// that any two have the same are below 1 to 10^20.
    ///
    /// # Panics
    ///
    /// Where the system has no random numbers.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the system has random numbers");
        Self(u128::from_ne_bytes(bytes))
    }
}

/// For simulations, where nothing is random. The ids of two clients, and of one that was started
/// twice, must differ.
impl From<u128> for Writer {
    fn from(id: u128) -> Self {
        Self(id)
    }
}

impl Record for Versioned {
    /// Number and writer of the version, and the value.
    type Stored = (u64, u128, &'static str);

    fn size(&self) -> usize {
        size_of::<Self>() + self.value.len()
    }

    fn is_newer_than(&self, known: Option<&Self>) -> bool {
        known.is_none_or(|known| known.version < self.version)
    }

    fn stored(&self) -> (u64, u128, &str) {
        let Version { number, writer } = self.version;
        (number, writer.0, &self.value)
    }

    fn from_stored((number, writer, value): (u64, u128, &str)) -> Self {
        Self {
            value: value.to_owned(),
            version: Version {
                number,
                writer: Writer(writer),
            },
        }
    }
}

impl Transfer for Versioned {
    fn to_message(&self, key: &str) -> Vec<u8> {
        let Self { value, version } = self.clone();
        let message = proto::WriteRequest {
            key: key.to_owned(),
            version: Some(version.into()),
            value,
        };
        message.encode_to_vec()
    }

    fn from_message(message: &[u8]) -> Result<(String, Self), DecodeError> {
        let proto::WriteRequest {
            key,
            version,
            value,
        } = proto::WriteRequest::decode(message)?;
        let version = version.unwrap_or_default().into();
        Ok((key, Self { value, version }))
    }
}

impl From<proto::Version> for Version {
    fn from(wire: proto::Version) -> Self {
        let writer = u128::from(wire.writer_high) << 64 | u128::from(wire.writer_low);
        Self {
            number: wire.number,
            writer: Writer(writer),
        }
    }
}

impl From<Version> for proto::Version {
    fn from(Version { number, writer }: Version) -> Self {
        Self {
            number,
            writer_high: (writer.0 >> 64) as u64,
            writer_low: writer.0 as u64,
        }
    }
}

/// The writer by its first eight digits, enough to tell those of one system apart.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {:08x}", self.number, self.writer.0 >> 96)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u64, writer: u128) -> Version {
        Version {
            number,
            writer: Writer(writer),
        }
    }

    #[test]
    fn the_number_counts_first_and_the_writer_decides_between_equals() {
        let rising = [(0, 9), (1, 0), (1, 1), (1, u128::MAX), (2, 0)];
        assert!(rising.is_sorted_by_key(|(number, writer)| version(*number, *writer)));
        let known = Versioned {
            value: "v".to_owned(),
            version: version(1, 1),
        };
        assert!(known.is_newer_than(None));
        assert!(!known.is_newer_than(Some(&known)));
    }

    #[test]
    fn a_version_is_the_same_on_the_wire_and_in_a_file() {
        for version in [
            version(0, 0),
            version(7, 1 << 64 | 2),
            version(u64::MAX, u128::MAX),
        ] {
            assert_eq!(Version::from(proto::Version::from(version)), version);
            let value = "v".to_owned();
            let versioned = Versioned { value, version };
            assert_eq!(Versioned::from_stored(versioned.stored()), versioned);
        }
    }

    #[test]
    fn two_writers_have_two_ids() {
        assert_ne!(Writer::random(), Writer::random());
    }
}
