//! Mistakes that can be planted, to see whether tests find them. Only with the feature
//! `planted-bugs` can anybody do so.

/// A mistake in the protocol.
#[cfg_attr(
    not(feature = "planted-bugs"),
    expect(unreachable_pub, reason = "nobody can plant one without the feature")
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// In a client: a read returns the newest value that it finds, and leaves it at that.
    NoWriteBack,
    /// In a client: half of the replicas are enough, where two halves need not have one in common.
    HalfQuorum,
    /// In a client: versions name no writer, so that two values may have the same.
    NoWriterId,
    /// In a replica: it answers a write before the value is on its disk.
    ReplyBeforeDurable,
    /// In a replica: the next request may start before this one has its place among those for the
    /// store.
    ReleaseBeforeOrder,
}

/// The mistake that a client or a replica makes, if any.
pub(crate) type Planted = storage::Planted<Bug>;
