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
///   [sets](Self::set) the flag before it gives `h2` something, which silences the wake-up that
///   follows.
/// * A task that is woken because there is something to write need not look for something to read.
///   It polls the connection only where the flag is set, by the socket or by itself.
pub(crate) struct PollFlag {
    shared: Arc<Shared>,
    waker: Waker,
}

struct Shared {
    task: AtomicWaker,
    is_set: AtomicBool,
}

impl Default for PollFlag {
    /// A new connection has to be polled.
    fn default() -> Self {
        let shared = Arc::new(Shared {
            task: AtomicWaker::new(),
            is_set: AtomicBool::new(true),
        });
        Self {
            waker: Waker::from(Arc::clone(&shared)),
            shared,
        }
    }
}

impl PollFlag {
    /// Wakes this task from now on.
    pub(crate) fn register(&self, task: &Waker) {
        self.shared.task.register(task);
    }

    /// Notes that the connection has to be polled, before the task that says so sleeps: it is not
    /// woken for it, not even by others.
    pub(crate) fn set(&self) {
        // Not a plain store, which would hide what another thread had done before it set the flag:
        // the poll might not see that, and the wake-up that follows would find the flag set.
        self.shared.is_set.swap(true, Ordering::Release);
    }

    /// Whether the connection has to be polled. The caller does so now, with
    /// [`context`](Self::context).
    pub(crate) fn take(&self) -> bool {
        // Whoever sets it from now on wakes the task. What happened before is seen by the poll.
        self.shared.is_set.swap(false, Ordering::AcqRel)
    }

    /// What the connection is to be polled with.
    pub(crate) fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }
}

/// What streams and pings are polled with: they change only when the connection is polled, and that
/// has just been done.
pub(crate) fn noop_context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_set.swap(true, Ordering::AcqRel) {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Woken;

    #[test]
    fn the_task_is_woken_once_until_it_takes_the_flag() {
        let woken = Arc::new(Woken::default());
        let count = || woken.count();
        let flag = PollFlag::default();
        assert!(flag.take(), "a new connection is polled");
        for round in 1..=2 {
            flag.register(&woken.waker());
            flag.context().waker().wake_by_ref();
            flag.context().waker().wake_by_ref();
            assert_eq!(count(), round);
            assert!(flag.take());
            assert!(!flag.take());
        }
    }

    #[test]
    fn a_task_that_has_set_the_flag_itself_is_not_woken() {
        let woken = Arc::new(Woken::default());
        let flag = PollFlag::default();
        flag.register(&woken.waker());
        flag.set();
        flag.context().waker().wake_by_ref();
        assert_eq!(woken.count(), 0);
        assert!(flag.take());
    }
}
