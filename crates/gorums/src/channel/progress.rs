//! How far a call has come, and when whoever waits for it is woken.

use std::task::{Context, Waker};

use super::early::Early;
use super::events::{Event, EventKind, Events};
use super::kept::Kept;
use super::unread::Account;
use crate::sync::MutexGuard;
use crate::wire::reply_cost;

/// What the waiting task wants to be woken for, beside the end of the call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WakeAfter {
    /// This many replies that it has not taken.
    pub(crate) replies: usize,
    /// This many failures since the call began.
    pub(crate) failures: usize,
}

impl WakeAfter {
    /// Whatever happens.
    pub(crate) const ANY: Self = Self {
        replies: 1,
        failures: 0,
    };
}

/// What a call's lock guards.
pub(super) struct Progress {
    pub(super) events: Events,
    /// Parts that more events may come from; and one more, while the call may ask nodes that it has
    /// not asked.
    pub(super) open: usize,
    /// The call may ask nodes that it has not asked.
    pub(super) may_widen: bool,
    /// Replies among the events.
    unread: usize,
    failures: usize,
    wake_after: WakeAfter,
    waker: Option<Waker>,
    pub(super) early: Option<Early>,
    /// Of the nodes of a streamed call, by position; none in other calls.
    pub(super) accounts: Box<[Account]>,
    /// By position: what is written again where a stream breaks; none in other calls.
    pub(super) kept: Box<[Option<Kept>]>,
    /// The parts that were to be written again, each once.
    pub(super) again: Vec<usize>,
}

impl Progress {
    pub(super) fn new(open: usize, accounts: Box<[Account]>) -> Self {
        Self {
            events: Events::default(),
            open,
            may_widen: false,
            unread: 0,
            failures: 0,
            wake_after: WakeAfter::ANY,
            waker: None,
            early: None,
            accounts,
            kept: Box::default(),
            again: Vec::new(),
        }
    }

    #[inline]
    pub(super) fn push(&mut self, event: Event) {
        match &event.kind {
            EventKind::Reply(_) => self.unread += 1,
            EventKind::Failed(_) => self.failures += 1,
            EventKind::Ended => {}
        }
        self.events.push(event);
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop()?;
        self.unread -= usize::from(event.is_reply());
        Some(event)
    }

    /// No more events come from this many of the open parts.
    #[inline]
    pub(super) fn close(&mut self, parts: usize) {
        self.open = self.open.saturating_sub(parts);
    }

    /// No nodes are asked any more that were not.
    #[inline]
    pub(super) fn close_held(&mut self) {
        let held = std::mem::take(&mut self.may_widen);
        self.close(usize::from(held));
    }

    /// Makes room for one more reply of a part, where older ones make room for newer. Returns how many
    /// did.
    pub(super) fn make_room(&mut self, part: usize, cost: u64) -> u64 {
        let mut made = 0;
        while self.accounts[part].is_crowded(cost) {
            let Some(payload) = self.events.remove_first_reply_of(part) else {
                break;
            };
            self.unread -= 1;
            self.accounts[part].dropped(reply_cost(payload.len()));
            made += 1;
        }
        made
    }

    #[inline]
    pub(super) fn register(&mut self, cx: &Context<'_>, wake_after: WakeAfter) {
        self.wake_after = wake_after;
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waker = Some(cx.waker().clone()),
        }
    }

    /// Wakes the task that waits, if that is what it waits for.
    #[inline]
    pub(super) fn wake(mut this: MutexGuard<'_, Self>) {
        let wanted = this.open == 0
            || this.unread >= this.wake_after.replies
            || (this.failures >= this.wake_after.failures && !this.events.is_empty());
        if wanted && let Some(waker) = this.waker.take() {
            drop(this);
            waker.wake();
        }
    }
}
