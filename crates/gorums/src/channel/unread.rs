//! What a node may send of a streamed reply before it is taken, and what becomes of more.
//!
//! ```text
//!   the node's    ┌─────────────── window ───────────────┐
//!   replies:      │ unread │ taken, not given back │ left │  the node sends while some is left
//!                 └────────┴───────────────────────┴──────┘
//! ```
//!
//! Nothing here knows a lock, a clock or a connection.

use crate::wire::{FIRST_CREDIT, NO_BOUND};

/// What becomes of replies that nobody takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// None is lost. A node that knows credit is held back; one that does not fails at its bound.
    All,
    /// The oldest make room for the newest.
    Newest,
}

/// What a call wants of each node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unread {
    /// How much of a node's replies may wait to be taken, in bytes.
    pub(crate) window: u64,
    pub(crate) keep: Keep,
}

/// What a call has unless it says otherwise.
pub(crate) const WINDOW: u64 = 1024 * 1024;

impl Default for Unread {
    fn default() -> Self {
        Self {
            window: WINDOW,
            keep: Keep::All,
        }
    }
}

/// How many replies wait where only the newest are kept.
pub(crate) const NEWEST: usize = 64;

/// How many windows a node may fill that cannot be held back. It sends as fast as the connection
/// takes it, so that even a caller who takes its replies at once is behind by what the task of the
/// connection reads in one go, which is a window of HTTP/2 and more.
pub(crate) const WINDOWS_WITHOUT_CREDIT: u64 = 16;

/// Why a reply is not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMuch {
    /// The bound.
    pub(super) window: u64,
    /// The node knows credit, and has sent more than it was given.
    pub(super) against_credit: bool,
}

/// The account of one node in one streamed call.
#[derive(Debug, Default)]
pub(super) struct Account {
    wanted: u64,
    /// What the call has of the bound of its node.
    reserved: u64,
    /// How many replies wait, and what they cost.
    waiting: usize,
    unread: u64,
    /// What the replies cost that were taken since the node was last given credit.
    owed: u64,
    keeps_newest: bool,
    /// Replies that made room for newer ones.
    pub(super) dropped: u64,
}

impl Account {
    pub(super) fn new(unread: Unread) -> Self {
        Self {
            wanted: unread.window,
            keeps_newest: unread.keep == Keep::Newest,
            ..Self::default()
        }
    }

    /// The window: enough for one reply where nothing of the node's bound is left.
    fn window(&self) -> u64 {
        self.reserved.max(FIRST_CREDIT)
    }

    /// The request is about to be queued. `reserve` takes some of what is asked for, or nothing,
    /// from the bound of the node.
    pub(super) fn open(&mut self, reserve: impl FnOnce(u64) -> u64) {
        self.reserved += reserve(self.wanted - self.reserved);
    }

    /// The node's part is over. What is returned goes back to the bound of the node.
    pub(super) fn close(&mut self) -> u64 {
        std::mem::take(&mut self.reserved)
    }

    /// The request is about to be written: the credit that goes behind it.
    pub(super) fn first_credit(&self) -> u64 {
        if self.keeps_newest {
            NO_BOUND
        } else {
            self.window() - FIRST_CREDIT
        }
    }

    /// A reply has come that costs so much, from a node that is `held` back by credit or is not.
    pub(super) fn received(
        &mut self,
        cost: u64,
        held: bool,
        mut reserve: impl FnMut(u64) -> u64,
    ) -> Result<(), TooMuch> {
        // What was taken and not given back cannot have been sent, either.
        let used = self.unread + if held { self.owed } else { 0 };
        if used >= self.window() && !self.keeps_newest {
            let most = match held {
                true => self.reserved,
                false => self.wanted.saturating_mul(WINDOWS_WITHOUT_CREDIT),
            };
            // Each time as much as it has, or what there is.
            while used >= self.window() && self.reserved < most {
                let more = self.reserved.max(self.wanted).min(most - self.reserved);
                let got = reserve(more);
                if got == 0 {
                    break;
                }
                self.reserved += got;
            }
            if used >= self.window() {
                return Err(TooMuch {
                    window: self.window(),
                    against_credit: held,
                });
            }
        }
        self.waiting += 1;
        self.unread += cost;
        Ok(())
    }

    /// Whether an older reply has to go before one that costs so much is kept.
    pub(super) fn is_crowded(&self, cost: u64) -> bool {
        self.keeps_newest
            && self.waiting > 0
            && (self.waiting >= NEWEST || self.unread.saturating_add(cost) > self.window())
    }

    /// A reply that costs so much has made room for a newer one.
    pub(super) fn dropped(&mut self, cost: u64) {
        self.waiting -= 1;
        self.unread -= cost;
        self.dropped += 1;
    }

    /// A reply that costs so much was taken: the credit that the node is given for it and for those
    /// before, if it is worth a message.
    pub(super) fn taken(&mut self, cost: u64, reserve: impl FnOnce(u64) -> u64) -> Option<u64> {
        self.waiting -= 1;
        self.unread -= cost;
        if self.keeps_newest {
            return None;
        }
        self.owed += cost;
        if self.owed < self.window().div_ceil(2) {
            return None;
        }
        let before = self.window();
        // Other calls may have left more than when this one began.
        if self.reserved < self.wanted {
            self.reserved += reserve(self.wanted - self.reserved);
        }
        let grown = self.window() - before;
        Some(std::mem::take(&mut self.owed) + grown)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn account(window: u64, keep: Keep, reserved: u64) -> Account {
        let mut account = Account::new(Unread { window, keep });
        account.open(|wanted| wanted.min(reserved));
        account
    }

    /// A node that keeps to its credit, and the bytes of its replies on their way.
    struct Node {
        credit: u64,
        overdrawn: u64,
        sent: Vec<u64>,
    }

    impl Node {
        fn new() -> Self {
            Self {
                credit: FIRST_CREDIT,
                overdrawn: 0,
                sent: Vec::new(),
            }
        }

        fn give(&mut self, credit: u64) {
            let pays = credit.min(self.overdrawn);
            self.overdrawn -= pays;
            self.credit += credit - pays;
        }

        /// False where it is held back.
        fn send(&mut self, cost: u64) -> bool {
            let may = self.credit > 0;
            if may {
                self.overdrawn += cost.saturating_sub(self.credit);
                self.credit = self.credit.saturating_sub(cost);
                self.sent.push(cost);
            }
            may
        }
    }

    proptest! {
        /// Whatever is sent and taken when, a node that keeps to its credit is never failed, never
        /// held back where all was taken, and never more than a reply beyond the window.
        #[test]
        fn credit_is_neither_lost_nor_made_up(
            window in 0..5_000_u64,
            reserved in 0..5_000_u64,
            more in 0..5_000_u64,
            steps in prop::collection::vec((any::<bool>(), 1..2_000_u64), 1..300),
        ) {
            let mut account = account(window, Keep::All, reserved);
            let (mut node, mut waiting) = (Node::new(), std::collections::VecDeque::new());
            node.give(account.first_credit());
            for (sends, cost) in steps {
                if sends {
                    node.send(cost);
                    for cost in node.sent.drain(..) {
                        prop_assert_eq!(account.received(cost, true, |_| 0), Ok(()));
                        waiting.push_back(cost);
                    }
                } else if let Some(cost) = waiting.pop_front()
                    && let Some(credit) = account.taken(cost, |wanted| wanted.min(more))
                {
                    node.give(credit);
                }
                let most = waiting.iter().max().copied().unwrap_or_default();
                let waits: u64 = waiting.iter().sum();
                prop_assert!(waits < account.window() + most.max(1));
                prop_assert!(account.window() <= window.max(FIRST_CREDIT));
            }
            while let Some(cost) = waiting.pop_front() {
                if let Some(credit) = account.taken(cost, |wanted| wanted.min(more)) {
                    node.give(credit);
                }
            }
            prop_assert!(node.send(1), "all was taken, and the node is held back");
        }
    }

    #[test]
    fn a_node_that_sends_more_than_its_credit_is_failed() {
        let mut account = account(1_000, Keep::All, 1_000);
        assert_eq!(account.first_credit(), 1_000 - FIRST_CREDIT);
        for _ in 0..2 {
            assert_eq!(account.received(500, true, |_| 0), Ok(()));
        }
        let too_much = TooMuch {
            window: 1_000,
            against_credit: true,
        };
        assert_eq!(account.received(1, true, |_| 9_999), Err(too_much));
        // What was taken and not given back is no credit either.
        assert_eq!(account.taken(400, |_| 0), None);
        assert_eq!(account.received(1, true, |_| 9_999), Err(too_much));
        assert_eq!(account.taken(100, |_| 0), Some(500));
        assert_eq!(account.received(9_000, true, |_| 0), Ok(()));
    }

    #[test]
    fn a_node_that_knows_no_credit_fills_sixteen_windows_as_far_as_there_is_room() {
        for (room, windows) in [(u64::MAX, 16), (0, 1), (2_500, 3)] {
            let mut account = account(1_000, Keep::All, 1_000);
            let mut left = room;
            let mut reserve = |wanted: u64| {
                let got = wanted.min(left);
                left -= got;
                got
            };
            let mut count = 0;
            while account.received(1_000, false, &mut reserve).is_ok() {
                count += 1;
            }
            // One reply may begin below the bound and end above it.
            assert_eq!(count, windows + u64::from(room == 2_500), "room for {room}");
            assert_eq!(account.close(), account_total(room));
            assert_eq!(account.close(), 0);
        }
    }

    fn account_total(room: u64) -> u64 {
        1_000 + room.min(15_000)
    }

    #[test]
    fn only_the_newest_are_kept_where_that_is_wanted() {
        let mut account = account(1_000, Keep::Newest, 1_000);
        assert_eq!(account.first_credit(), NO_BOUND);
        assert!(!account.is_crowded(5_000), "the newest is always kept");
        for cost in [600, 300] {
            assert!(!account.is_crowded(cost));
            assert_eq!(account.received(cost, true, |_| 0), Ok(()));
        }
        assert!(account.is_crowded(101) && !account.is_crowded(100));
        account.dropped(600);
        assert_eq!(account.dropped, 1);
        assert!(!account.is_crowded(700));
        for _ in 1..NEWEST {
            assert!(!account.is_crowded(1));
            assert_eq!(account.received(1, true, |_| 0), Ok(()));
        }
        assert!(account.is_crowded(1));
        assert_eq!(account.taken(300, |_| 0), None, "nobody is held back");
    }

    #[test]
    fn a_call_that_began_with_less_than_it_wanted_grows() {
        let mut account = account(1_000, Keep::All, 0);
        assert_eq!(account.first_credit(), 0);
        assert_eq!(account.received(300, true, |_| 0), Ok(()));
        assert_eq!(account.taken(300, |wanted| wanted), Some(300 + 999));
        assert_eq!(account.close(), 1_000);
    }
}
