//! What has happened to a call and was not taken by its caller.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::time::Instant;

use crate::error::NodeError;

/// Something that happened at a node.
pub(crate) struct Event {
    pub(crate) part: usize,
    pub(crate) kind: EventKind,
    /// When it happened, in a call that is timed.
    pub(crate) at: Option<Instant>,
}

pub(crate) enum EventKind {
    Reply(Bytes),
    /// A streamed reply ended well, or a one-way request was handed over.
    Ended,
    Failed(NodeError),
}

impl Event {
    #[inline]
    pub(super) fn is_reply(&self) -> bool {
        matches!(self.kind, EventKind::Reply(_))
    }

    fn into_payload(self) -> Option<Bytes> {
        match self.kind {
            EventKind::Reply(payload) => Some(payload),
            EventKind::Ended | EventKind::Failed(_) => None,
        }
    }

    fn is_reply_of(&self, part: usize) -> bool {
        self.part == part && self.is_reply()
    }
}

/// A queue of events. A few lie in the queue itself, so that most calls allocate nothing for them.
#[derive(Default)]
pub(super) struct Events {
    /// A ring.
    few: [Option<Event>; FEW],
    /// Where the ring begins, and how many events it has.
    first: usize,
    count: usize,
    /// The events behind those of the ring.
    rest: VecDeque<Event>,
}

const FEW: usize = 4;

impl Events {
    #[inline]
    pub(super) fn push(&mut self, event: Event) {
        if self.count < FEW && self.rest.is_empty() {
            self.few[(self.first + self.count) % FEW] = Some(event);
            self.count += 1;
        } else {
            self.rest.push_back(event);
        }
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<Event> {
        if self.count == 0 {
            return self.rest.pop_front();
        }
        let event = self.few[self.first].take();
        self.first = (self.first + 1) % FEW;
        self.count -= 1;
        event
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0 && self.rest.is_empty()
    }

    fn iter(&self) -> impl Iterator<Item = &Event> {
        let few = (0..self.count).filter_map(|at| self.few[(self.first + at) % FEW].as_ref());
        few.chain(&self.rest)
    }

    /// Takes out the first reply of this part; none where there is none.
    pub(super) fn remove_first_reply_of(&mut self, part: usize) -> Option<Bytes> {
        let at = self.iter().position(|event| event.is_reply_of(part))?;
        if let Some(at) = at.checked_sub(self.count) {
            return self.rest.remove(at)?.into_payload();
        }
        let removed = self.few[(self.first + at) % FEW].take()?;
        for hole in at..self.count - 1 {
            let hole = self.first + hole;
            self.few.swap(hole % FEW, (hole + 1) % FEW);
        }
        self.count -= 1;
        removed.into_payload()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_order_whatever_is_taken_out_between() {
        for removed in 0..3 * FEW {
            let (mut events, mut expected) = (Events::default(), VecDeque::new());
            for part in 0..3 * FEW {
                events.push(Event {
                    part,
                    kind: EventKind::Reply(Bytes::new()),
                    at: None,
                });
                expected.push_back(part);
                // So that the ring begins at every place.
                if part % 3 == 2 {
                    assert_eq!(events.pop().map(|event| event.part), expected.pop_front());
                }
            }
            let at = expected.iter().position(|part| *part == removed);
            assert_eq!(
                events.remove_first_reply_of(removed).is_some(),
                at.is_some()
            );
            at.map(|at| expected.remove(at));
            let parts: Vec<usize> = events.iter().map(|event| event.part).collect();
            assert_eq!(parts, Vec::from(expected.clone()));
            while let Some(part) = expected.pop_front() {
                assert!(!events.is_empty());
                assert_eq!(events.pop().map(|event| event.part), Some(part));
            }
            assert!(events.is_empty() && events.pop().is_none());
        }
    }
}
