//! How a reply finds its call.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::Channel;
use crate::error::Status;
use crate::wire::{Control, Envelope};

/// Gives a reply to the call with this id, if somebody still waits for it: then its method is
/// returned, which the next reply is likely to have as well.
pub(crate) fn deliver(
    channel: &Arc<Channel>,
    id: u64,
    envelope: &Envelope<'_>,
    frame: &Bytes,
    now: Instant,
) -> Option<&'static str> {
    // None: a reply that nobody waits for any more, or ever did.
    let call = channel.pool().calls.get(id)?;
    let part = call.targets().position_of(channel)?;
    let method = call.method();
    if let Some(excess) = &envelope.excess {
        let status = Status::resource_exhausted(format!("the reply has {excess}"));
        call.unreadable(part, status);
        return Some(method);
    }
    match envelope.control {
        Control::Unknown | Control::Cancel => {}
        Control::End => call.ended(part, envelope.status.clone()),
        Control::Message if envelope.method != method => {
            let status = Status::internal(format!(
                "the node answered a call of {method} with a reply of {:?}",
                envelope.method
            ));
            call.unreadable(part, status);
        }
        Control::Message => match &envelope.status {
            Some(status) => call.refused(part, status.clone()),
            None => {
                // A streamed reply tells how long its handler went on, and not how near the node is.
                if call.replied(part, frame.slice_ref(envelope.payload)) && !call.is_streamed() {
                    channel.record_latency(now.saturating_duration_since(call.started()));
                }
            }
        },
    }
    Some(method)
}

/// The reply to this call was not taken.
pub(crate) fn skipped(channel: &Arc<Channel>, id: u64, status: Status) {
    if let Some(call) = channel.pool().calls.get(id)
        && let Some(part) = call.targets().position_of(channel)
    {
        call.unreadable(part, status);
    }
}
