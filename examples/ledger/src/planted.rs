//! A mistake that can be planted, to see whether tests find it. Only with the feature `planted-bugs`
//! can anybody do so.

/// A mistake in a replica.
#[cfg_attr(
    not(feature = "planted-bugs"),
    expect(unreachable_pub, reason = "nobody can plant one without the feature")
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// It does not keep what it has answered.
    ForgetsAnswers,
}

/// The mistake that a replica makes, if any.
pub(crate) type Planted = storage::Planted<Bug>;
