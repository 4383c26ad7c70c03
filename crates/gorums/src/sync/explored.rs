//! The locks, atomics and wakers of builds in which every order is explored.
//!
//! For those of `std` there are loom's. Types of other crates are written down here by their
//! meaning, with loom's locks: how these crates get there is for their own tests.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

pub(crate) use loom::sync::atomic;

use super::Mutex;

/// A task is a thread of the model.
pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    loom::thread::spawn(move || block_on(task));
}

/// Polls a future on this thread, and only when it was woken: one whose wake-up is lost never ends,
/// which loom reports as a deadlock.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let parked = Arc::new(Parked(loom::sync::Notify::new()));
    let waker = Waker::from(Arc::clone(&parked));
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        parked.0.wait();
    }
}

struct Parked(loom::sync::Notify);

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.notify();
    }
}

/// Means the same as the one of the crate `atomic-waker`.
#[derive(Debug, Default)]
pub(crate) struct AtomicWaker(Mutex<Option<Waker>>);

impl AtomicWaker {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn register(&self, waker: &Waker) {
        self.0.lock().replace(waker.clone());
    }

    pub(crate) fn wake(&self) {
        let waker = self.0.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Means the same as `tokio::sync::Notify`, where at most one waits for `notify_one`.
#[derive(Debug, Default)]
pub(crate) struct Notify(Mutex<Notices>);

#[derive(Debug, Default)]
struct Notices {
    /// How often all waiters were notified at once.
    rounds: usize,
    /// Somebody was notified while nobody waited.
    permit: bool,
    waiting: Vec<Waker>,
}

impl Notify {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn notified(&self) -> Notified<'_> {
        Notified {
            round: self.0.lock().rounds,
            notify: self,
        }
    }

    pub(crate) fn notify_one(&self) {
        let waiting = {
            let mut notices = self.0.lock();
            notices.permit = true;
            std::mem::take(&mut notices.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn notify_waiters(&self) {
        let waiting = {
            let mut notices = self.0.lock();
            notices.rounds += 1;
            std::mem::take(&mut notices.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

pub(crate) struct Notified<'a> {
    notify: &'a Notify,
    round: usize,
}

impl Notified<'_> {
    /// A future that was not polled yet counts as waiting as it is.
    pub(crate) fn enable(self: Pin<&mut Self>) -> bool {
        self.notify.0.lock().rounds != self.round
    }
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut notices = self.notify.0.lock();
        if notices.rounds != self.round || std::mem::take(&mut notices.permit) {
            return Poll::Ready(());
        }
        notices.waiting.push(cx.waker().clone());
        Poll::Pending
    }
}

/// Means the same as `tokio::sync::Semaphore`: permits go to those that wait, in their order.
#[derive(Debug)]
pub(crate) struct Semaphore(Mutex<Permits>);

#[derive(Debug)]
struct Permits {
    free: usize,
    tickets: usize,
    waiting: VecDeque<(usize, Waker)>,
    /// Tickets of waiters that were given a permit and have not taken it yet.
    given: Vec<usize>,
}

/// The semaphore was closed, which no semaphore here ever is.
#[derive(Debug)]
pub(crate) struct AcquireError;

impl Semaphore {
    pub(crate) fn new(permits: usize) -> Self {
        Self(Mutex::new(Permits {
            free: permits,
            tickets: 0,
            waiting: VecDeque::new(),
            given: Vec::new(),
        }))
    }

    pub(crate) fn available_permits(&self) -> usize {
        self.0.lock().free
    }

    pub(crate) fn acquire_owned(self: Arc<Self>) -> Acquire {
        Acquire {
            semaphore: self,
            ticket: None,
        }
    }

    fn give_back(&self) {
        let next = {
            let mut permits = self.0.lock();
            let next = permits.waiting.pop_front();
            match &next {
                Some((ticket, _)) => permits.given.push(*ticket),
                None => permits.free += 1,
            }
            next
        };
        if let Some((_, waker)) = next {
            waker.wake();
        }
    }
}

pub(crate) struct Acquire {
    semaphore: Arc<Semaphore>,
    ticket: Option<usize>,
}

impl Future for Acquire {
    type Output = Result<OwnedSemaphorePermit, AcquireError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let semaphore = Arc::clone(&self.semaphore);
        let mut permits = semaphore.0.lock();
        let acquired = match self.ticket {
            None if permits.free > 0 => {
                permits.free -= 1;
                true
            }
            None => {
                permits.tickets += 1;
                self.ticket = Some(permits.tickets);
                let waiting = (permits.tickets, cx.waker().clone());
                permits.waiting.push_back(waiting);
                false
            }
            Some(ticket) => {
                let given = permits.given.iter().position(|given| *given == ticket);
                if let Some(given) = given {
                    permits.given.remove(given);
                    self.ticket = None;
                } else if let Some((_, waker)) =
                    permits.waiting.iter_mut().find(|(own, _)| *own == ticket)
                {
                    waker.clone_from(cx.waker());
                }
                given.is_some()
            }
        };
        drop(permits);
        if acquired {
            Poll::Ready(Ok(OwnedSemaphorePermit(semaphore)))
        } else {
            Poll::Pending
        }
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else {
            return;
        };
        let was_given = {
            let mut permits = self.semaphore.0.lock();
            permits.waiting.retain(|(other, _)| *other != ticket);
            let given = permits.given.len();
            permits.given.retain(|other| *other != ticket);
            permits.given.len() < given
        };
        if was_given {
            self.semaphore.give_back();
        }
    }
}

#[derive(Debug)]
pub(crate) struct OwnedSemaphorePermit(Arc<Semaphore>);

impl Drop for OwnedSemaphorePermit {
    fn drop(&mut self) {
        self.0.give_back();
    }
}
