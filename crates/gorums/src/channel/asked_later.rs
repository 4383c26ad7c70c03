//! When nodes were asked that a call has not asked at first.

use tokio::time::Instant;

use crate::sync::Mutex;

/// The parts of a call that were begun after the others.
#[derive(Default)]
pub(super) struct AskedLater(Mutex<Vec<(usize, Instant)>>);

impl AskedLater {
    /// This part begins at this time.
    pub(super) fn note(&self, part: usize, at: Instant) {
        self.0.lock().push((part, at));
    }

    /// When this part began; none where it began with the call.
    pub(super) fn since(&self, part: usize) -> Option<Instant> {
        let asked = self.0.lock();
        let asked = asked.iter().find(|(other, _)| *other == part);
        asked.map(|(_, at)| *at)
    }
}
