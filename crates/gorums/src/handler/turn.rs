//! The turn: at most one handler of a connection (or of the server) holds it.

use std::pin::Pin;
use std::task::{Context, Poll};

use super::context::ServerCtx;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{AtomicWaker, Mutex, OwnedSemaphorePermit};

/// One handler's turn. Given up once, however often it is released.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    released: AtomicBool,
    /// The handler has ended.
    ended: AtomicBool,
    /// Its handler awaited the release.
    own_task: AtomicBool,
    /// The lane, while it waits for the handler that holds the turn.
    lane: AtomicWaker,
    /// The lane has waited for it.
    has_waited: AtomicBool,
    /// The server's only permit, where one turn is for all connections.
    permit: Mutex<Option<OwnedSemaphorePermit>>,
    of_server: bool,
}

impl Turn {
    pub(crate) fn new(permit: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            of_server: permit.is_some(),
            permit: Mutex::new(permit),
            ..Self::default()
        }
    }

    /// As if it were new: nobody else has it.
    pub(crate) fn renew(&mut self, permit: Option<OwnedSemaphorePermit>) {
        self.released.store(false, Ordering::Relaxed);
        self.ended.store(false, Ordering::Relaxed);
        self.own_task.store(false, Ordering::Relaxed);
        if self.has_waited.load(Ordering::Relaxed) {
            self.has_waited.store(false, Ordering::Relaxed);
            self.lane = AtomicWaker::new();
        }
        if self.of_server || permit.is_some() {
            self.of_server = permit.is_some();
            *self.permit.get_mut() = permit;
        }
    }

    pub(crate) fn release(&self) {
        if self.give_up() {
            self.lane.wake();
        }
    }

    /// The handler has ended. Whoever polled it goes on by itself, and need not be woken.
    pub(crate) fn end(&self) {
        // Whoever looks at this does so on its own account: nothing is ordered by it.
        self.ended.store(true, Ordering::Relaxed);
        self.give_up();
    }

    /// False where it was given up before.
    fn give_up(&self) -> bool {
        let held = !self.released.swap(true, Ordering::AcqRel);
        if held && self.of_server {
            let permit = self.permit.lock().take();
            drop(permit);
        }
        held
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Whether all connections share it.
    pub(crate) fn is_of_server(&self) -> bool {
        self.of_server
    }

    pub(crate) fn is_released(&self) -> bool {
        self.released.load(Ordering::Acquire)
    }

    /// Whether the rest of the handler is to run on a task of its own.
    pub(crate) fn wants_own_task(&self) -> bool {
        self.own_task.load(Ordering::Relaxed)
    }

    /// Ready when the turn was released.
    pub(crate) fn poll_released(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.has_waited.store(true, Ordering::Relaxed);
        self.lane.register(cx.waker());
        if self.is_released() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

/// What [`ServerCtx::release`](super::ServerCtx::release) returns. The turn is given up already.
///
/// Awaiting it moves the rest of the handler to a task of its own, so that it runs beside later
/// handlers even if it never suspends again. Dropping it does nothing.
#[derive(Debug)]
pub struct Released {
    pub(crate) ctx: ServerCtx,
    pub(crate) suspended: bool,
}

impl Future for Released {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.suspended, true) {
            Poll::Ready(())
        } else {
            // A handler that suspends without the turn is moved by whoever polls it.
            self.ctx.turn().own_task.store(true, Ordering::Relaxed);
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sync::Semaphore;

    #[tokio::test]
    async fn the_permit_is_given_back_once() {
        let semaphore = Arc::new(Semaphore::new(1));
        let permit = Arc::clone(&semaphore).acquire_owned().await.expect("open");
        let turn = Turn::new(Some(permit));
        assert_eq!(semaphore.available_permits(), 0);
        turn.release();
        turn.release();
        assert_eq!(semaphore.available_permits(), 1);
        assert!(turn.is_released());
    }
}
