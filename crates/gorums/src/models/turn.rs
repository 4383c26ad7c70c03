//! The turn: held by one, given up once, and the lane hears of it.

use std::future::poll_fn;
use std::sync::Arc;

use super::{join, spawn};
use crate::handler::turn::Turn;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Semaphore, block_on};

#[test]
fn the_next_handler_sees_what_was_done_before_the_release() {
    super::explore(|| {
        let turn = Arc::new(Turn::new(None));
        let done = Arc::new(AtomicUsize::new(0));
        let handler = {
            let (turn, done) = (Arc::clone(&turn), Arc::clone(&done));
            spawn(move || {
                // As unordered as a plain field is.
                done.store(1, Ordering::Relaxed);
                turn.release();
            })
        };
        block_on(poll_fn(|cx| turn.poll_released(cx)));
        assert_eq!(done.load(Ordering::Relaxed), 1);
        join(handler);
    });
}

#[test]
fn a_release_from_anywhere_wakes_the_lane() {
    super::explore(|| {
        let turn = Arc::new(Turn::new(None));
        let threads = [(); 2].map(|()| {
            let turn = Arc::clone(&turn);
            spawn(move || turn.release())
        });
        block_on(poll_fn(|cx| turn.poll_released(cx)));
        assert!(turn.is_released());
        threads.into_iter().for_each(join);
    });
}

#[test]
fn the_permit_of_the_server_is_given_back_once() {
    super::explore(|| {
        let semaphore = Arc::new(Semaphore::new(1));
        let permit = block_on(Arc::clone(&semaphore).acquire_owned()).expect("open");
        let turn = Arc::new(Turn::new(Some(permit)));
        // Whoever releases, wherever: by then the permit is there for the next.
        let threads = [(); 2].map(|()| {
            let turn = Arc::clone(&turn);
            spawn(move || turn.release())
        });
        threads.into_iter().for_each(join);
        assert_eq!(semaphore.available_permits(), 1);
    });
}

#[test]
fn the_turn_of_the_server_is_held_by_one_at_a_time() {
    super::explore(|| {
        let semaphore = Arc::new(Semaphore::new(1));
        let holders = Arc::new(AtomicUsize::new(0));
        let threads = [(); 2].map(|()| {
            let (semaphore, holders) = (Arc::clone(&semaphore), Arc::clone(&holders));
            spawn(move || {
                let permit = block_on(semaphore.acquire_owned()).expect("open");
                let turn = Turn::new(Some(permit));
                assert_eq!(holders.fetch_add(1, Ordering::Relaxed), 0);
                holders.fetch_sub(1, Ordering::Relaxed);
                // The handler and its end.
                turn.release();
                turn.release();
            })
        });
        threads.into_iter().for_each(join);
        assert_eq!(semaphore.available_permits(), 1);
    });
}
