//! What both ends of a streamed reply reckon by: what a reply costs, and what may be sent before
//! the caller has said how much it takes.

/// What a reply costs beside its payload: an entry in the caller's queue, and the allocation of the
/// payload.
const OVERHEAD: u64 = 256;

/// The credit that every streamed call begins with. A reply is sent where any credit is left, so
/// this is one reply of any size: a handler need not wait for the caller to have heard what the
/// peer understands.
pub(crate) const FIRST_CREDIT: u64 = 1;

/// Credit that is never used up. More than this counts as this.
pub(crate) const NO_BOUND: u64 = i64::MAX as u64;

/// What a reply with a payload of so many bytes takes of the credit of its call.
pub(crate) fn reply_cost(payload: usize) -> u64 {
    OVERHEAD + payload as u64
}
