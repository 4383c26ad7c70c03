use std::collections::{BTreeMap, VecDeque};

use super::request::Request;

/// Cancellations of requests that have not started.
///
/// The ids of the requests that wait, each with how many of them there are and how many of these
/// were given up. Kept from the first cancellation on until none waits: most connections never pay
/// for it, and looking through all that waits at each cancellation would let a client that sends
/// nothing else take the thread.
#[derive(Default)]
pub(super) struct Unstarted(Option<BTreeMap<u64, (usize, usize)>>);

impl Unstarted {
    pub(super) fn add(&mut self, id: u64) {
        if let Some(ids) = &mut self.0 {
            ids.entry(id).or_default().0 += 1;
        }
    }

    /// The caller of one more request with this id gave up, where there is one.
    pub(super) fn cancel(&mut self, id: u64, waiting: &VecDeque<Request>) {
        if waiting.is_empty() {
            return;
        }
        let ids = self.0.get_or_insert_with(|| {
            let mut ids = BTreeMap::<_, (usize, usize)>::new();
            for request in waiting {
                ids.entry(request.id).or_default().0 += 1;
            }
            ids
        });
        if let Some((waiting, cancelled)) = ids.get_mut(&id) {
            *cancelled = (*cancelled + 1).min(*waiting);
        }
    }

    /// The first request with this id starts. True if its caller gave up.
    pub(super) fn remove(&mut self, id: u64) -> bool {
        let Some(ids) = &mut self.0 else {
            return false;
        };
        let Some((waiting, cancelled)) = ids.get_mut(&id) else {
            return false;
        };
        let was_cancelled = *cancelled > 0;
        *waiting -= 1;
        *cancelled = cancelled.saturating_sub(1);
        if *waiting == 0 {
            ids.remove(&id);
        }
        was_cancelled
    }
}
