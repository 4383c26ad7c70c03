//! The connections of a node that goes away, until they have answered what was written on them.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::connected::{Connected, End};
use crate::bounds::Bound;
use crate::channel::Channel;
use crate::error::Status;
use crate::log;
use crate::stream::Fired;

/// How many connections of a node may wind down at a time. A node that goes away once more ends the
/// oldest.
const CONNECTIONS: usize = 4;

/// The connections of one node that wind down, the oldest first.
#[derive(Default)]
pub(super) struct WindingDown(VecDeque<Connected>);

impl WindingDown {
    /// The node goes away. It is called over another connection from now on.
    pub(super) fn begin(&mut self, mut connected: Connected, channel: &Arc<Channel>) {
        connected.wind_down(channel);
        self.add(connected, channel);
    }

    /// The node is another one perhaps. The same, and this end ends the connection.
    pub(super) fn end(&mut self, mut connected: Connected, channel: &Arc<Channel>) {
        connected.end_by_itself(channel);
        self.add(connected, channel);
    }

    fn add(&mut self, connected: Connected, channel: &Arc<Channel>) {
        self.0.push_back(connected);
        if self.0.len() > CONNECTIONS
            && let Some(oldest) = self.0.pop_front()
        {
            channel.pool().reached.add(Bound::WindingDown);
            let status = Status::unavailable("the node goes away again and again");
            end(oldest, channel, &status);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, channel: &Arc<Channel>) {
        for _ in 0..self.0.len() {
            let Some(mut connected) = self.0.pop_front() else {
                return;
            };
            let status = match connected.poll(cx, channel) {
                Poll::Pending => {
                    self.0.push_back(connected);
                    continue;
                }
                Poll::Ready(End::Lost(status)) => status,
                Poll::Ready(End::Dead) => Status::unavailable(Fired::DEAD),
                Poll::Ready(End::Closed | End::GoingAway | End::Outdated | End::Unproven) => {
                    Status::unavailable("the connection is closed")
                }
            };
            end(connected, channel, &status);
        }
    }

    /// Does what is to be done meanwhile.
    pub(super) async fn beside<T>(
        &mut self,
        channel: &Arc<Channel>,
        work: impl Future<Output = T>,
    ) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| {
            self.poll(cx, channel);
            work.as_mut().poll(cx)
        })
        .await
    }

    /// Waits until all have ended.
    pub(super) async fn finish(&mut self, channel: &Arc<Channel>) {
        poll_fn(|cx| {
            self.poll(cx, channel);
            if self.0.is_empty() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

fn end(connected: Connected, channel: &Arc<Channel>, status: &Status) {
    tracing::debug!(
        target: log::CLIENT,
        node = channel.id().get(),
        address = %channel.address(),
        reason = %log::text(status),
        "the connection of a node that went away has ended"
    );
    let stream = connected.winding_down;
    connected.give_back(channel);
    if let Some(stream) = stream {
        channel.end_winding_down(stream, status);
    }
}
