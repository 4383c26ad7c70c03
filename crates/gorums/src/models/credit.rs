//! Credit: whoever waits for it is woken when there is some, or when nobody reads any more.

use std::sync::Arc;

use super::{join, spawn};
use crate::handler::{ConnectionInfo, Credit, ServerCtx};
use crate::metadata::Metadata;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::block_on;

fn ctx() -> ServerCtx {
    let info = Arc::new(ConnectionInfo::default());
    ServerCtx::new("m".into(), Metadata::new(), info, None)
}

/// One whose first reply was sent.
fn used_up() -> Arc<Credit> {
    let credit = Credit::new();
    credit.try_take(10).expect("the first").spend();
    Arc::new(credit)
}

#[test]
fn whoever_waits_is_woken_by_credit() {
    super::explore(|| {
        let (credit, ctx) = (used_up(), ctx());
        let giver = {
            let credit = Arc::clone(&credit);
            spawn(move || {
                credit.give(5);
                credit.give(5);
            })
        };
        let taken = block_on(credit.take(10, &ctx, || false));
        taken.expect("it was given").spend();
        join(giver);
        assert!(credit.try_take(1).is_err(), "credit was made up");
    });
}

#[test]
fn two_that_wait_each_take_what_was_given() {
    super::explore(|| {
        let (credit, ctx) = (used_up(), ctx());
        let other = {
            let (credit, ctx) = (Arc::clone(&credit), ctx.clone());
            spawn(move || {
                let taken = block_on(credit.take(1, &ctx, || false));
                taken.expect("it was given").spend();
            })
        };
        credit.give(11);
        let taken = block_on(credit.take(1, &ctx, || false));
        taken.expect("it was given").spend();
        join(other);
        assert!(credit.try_take(1).is_err(), "credit was made up");
    });
}

#[test]
fn whoever_waits_is_told_that_the_caller_gave_up_or_the_handler_returned() {
    for returns in [true, false] {
        super::explore(move || {
            let (credit, ctx) = (used_up(), ctx());
            let returned = Arc::new(AtomicBool::new(false));
            let teller = {
                let (credit, ctx) = (Arc::clone(&credit), ctx.clone());
                let returned = Arc::clone(&returned);
                spawn(move || {
                    if returns {
                        returned.store(true, Ordering::Release);
                        credit.wake();
                    } else {
                        ctx.cancel();
                    }
                })
            };
            let is_over = || ctx.is_cancelled() || returned.load(Ordering::Acquire);
            assert!(block_on(credit.take(1, &ctx, is_over)).is_none());
            join(teller);
        });
    }
}
