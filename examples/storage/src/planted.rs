//! Mistakes that can be planted, to see whether tests find them. Only with the feature
//! `planted-bugs` can anybody do so.

/// A mistake in what is written to a disk.
#[cfg_attr(
    not(feature = "planted-bugs"),
    expect(unreachable_pub, reason = "nobody can plant one without the feature")
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// The last sync of a commit is left out, the one after the header.
    NoCommitSync,
    /// Where the file grows, its length is not synced before the header names it, and a file that
    /// is shorter than its header says is refused.
    UnsyncedGrowth,
}

/// The mistake that is made, if any.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Planted(Option<Bug>);

impl Planted {
    #[cfg(feature = "planted-bugs")]
    pub(crate) fn one(bug: Bug) -> Self {
        Self(Some(bug))
    }

    pub(crate) fn is(self, bug: Bug) -> bool {
        cfg!(feature = "planted-bugs") && self.0 == Some(bug)
    }
}
