use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use crate::sync::AtomicWaker;
use crate::sync::atomic::{AtomicBool, Ordering};

/// Tells whether an HTTP/2 connection has to be polled, and spares its task the wake-ups that it
/// would give itself.
///
/// One task polls a connection, what comes on its stream, and what is queued to be written. Two
/// things cost more than the work itself there:
///
/// * `h2` wakes that task whenever it hands it something: a frame that came, or a batch that it is
///   given to write. The task is running then, and knows. So it polls the stream with a waker that
///   does nothing, each time after it has polled the connection (nothing comes in between); and it
///   [rings](Self::ring) before it gives `h2` something, which makes the wake-up that follows one of
///   many.
/// * A task that is woken because there is something to write need not look for something to read.
///   It polls the connection only where this has been rung, by the socket or by itself.
pub(crate) struct Bell {
    shared: Arc<Shared>,
    waker: Waker,
}

struct Shared {
    task: AtomicWaker,
    rung: AtomicBool,
}

impl Default for Bell {
    /// A new connection has to be polled.
    fn default() -> Self {
        let shared = Arc::new(Shared {
            task: AtomicWaker::new(),
            rung: AtomicBool::new(true),
        });
        Self {
            waker: Waker::from(Arc::clone(&shared)),
            shared,
        }
    }
}

impl Bell {
    /// Wakes this task from now on.
    pub(crate) fn register(&self, task: &Waker) {
        self.shared.task.register(task);
    }

    /// Notes that the connection has to be polled, before the task that says so sleeps: it is not
    /// woken for it, not even by others.
    pub(crate) fn ring(&self) {
        // Not a plain store, which would hide what another thread had done before it rang: the poll
        // might not see that, and the wake-up that follows finds nothing rung.
        self.shared.rung.swap(true, Ordering::Release);
    }

    /// Whether the connection has to be polled. The caller does so now, with [`context`](Self::context).
    pub(crate) fn answer(&self) -> bool {
        // Whoever rings from now on wakes the task. What happened before is seen by the poll.
        self.shared.rung.swap(false, Ordering::AcqRel)
    }

    /// What the connection is to be polled with.
    pub(crate) fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }
}

/// What everything of a connection that can only change when the connection is polled is to be polled
/// with, after it.
pub(crate) fn quiet() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_task_is_woken_once_until_it_answers() {
        let woken = Arc::new(Woken::default());
        let count = || woken.0.load(Ordering::Relaxed);
        let bell = Bell::default();
        assert!(bell.answer(), "a new connection is polled");
        for round in 1..=2 {
            bell.register(&Waker::from(Arc::clone(&woken)));
            bell.context().waker().wake_by_ref();
            bell.context().waker().wake_by_ref();
            assert_eq!(count(), round);
            assert!(bell.answer());
            assert!(!bell.answer());
        }
    }

    #[test]
    fn a_task_that_has_rung_itself_is_not_woken() {
        let woken = Arc::new(Woken::default());
        let bell = Bell::default();
        bell.register(&Waker::from(Arc::clone(&woken)));
        bell.ring();
        bell.context().waker().wake_by_ref();
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        assert!(bell.answer());
    }
}
