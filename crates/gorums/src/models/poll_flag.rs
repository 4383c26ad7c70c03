//! Whether a connection has to be polled: nothing that came is left in it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use super::{join, spawn};
use crate::stream::PollFlag;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::block_on;

#[test]
fn whatever_comes_while_the_task_polls_or_falls_asleep_has_it_poll_again() {
    super::explore(|| {
        let flag = PollFlag::default();
        let came = Arc::new(AtomicUsize::new(0));
        let sources = [(); 2].map(|()| {
            let (came, waker) = (Arc::clone(&came), flag.context().waker().clone());
            spawn(move || {
                came.fetch_add(1, Ordering::Relaxed);
                waker.wake();
            })
        });
        let mut read = 0;
        block_on(poll_fn(|cx| {
            flag.register(cx.waker());
            if flag.take() {
                read = came.load(Ordering::Relaxed);
            }
            if read == 2 {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }));
        sources.into_iter().for_each(join);
    });
}

#[test]
fn a_task_that_has_set_the_flag_itself_and_polls_again_misses_nothing_from_elsewhere() {
    super::explore(|| {
        let flag = PollFlag::default();
        let came = Arc::new(AtomicUsize::new(0));
        let source = {
            let (came, waker) = (Arc::clone(&came), flag.context().waker().clone());
            spawn(move || {
                came.fetch_add(1, Ordering::Relaxed);
                waker.wake();
            })
        };
        let (mut read, mut to_write) = (0, 1);
        block_on(poll_fn(|cx| {
            loop {
                flag.register(cx.waker());
                if flag.take() {
                    read = came.load(Ordering::Relaxed);
                }
                if read == 1 {
                    return Poll::Ready(());
                }
                if to_write == 0 {
                    return Poll::Pending;
                }
                to_write -= 1;
                flag.set();
            }
        }));
        join(source);
    });
}
