//! Mistakes that can be planted, to see whether tests find them. Only with the feature
//! `planted-bugs` can anybody do so.

/// A mistake in what is written to a disk, or in what a replica does that has lost its own.
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
    /// A sync that has failed is tried again, and taken for done when that succeeds.
    SyncAgain,
    /// A replica that has lost its data answers at once.
    AnswersWithoutData,
    /// A replica that has lost its data counts as one from whom others get theirs.
    CountsWhoHasNoData,
}

/// The mistake that is made, if any: one of this crate or, as it is told, of another.
#[derive(Debug, Clone, Copy)]
pub struct Planted<B>(Option<B>);

impl<B> Default for Planted<B> {
    fn default() -> Self {
        Self(None)
    }
}

impl<B: Copy + PartialEq> Planted<B> {
    /// This mistake.
    #[cfg(feature = "planted-bugs")]
    pub fn one(bug: B) -> Self {
        Self(Some(bug))
    }

    /// Whether it is this one.
    pub fn is(self, bug: B) -> bool {
        cfg!(feature = "planted-bugs") && self.0 == Some(bug)
    }
}
