//! The calls that wait for replies.

use std::sync::Arc;

use super::{epoch, join, late, spawn};
use crate::channel::table::{Table, TooManyCalls};

/// Two ids with one place.
const OLD: u64 = 2;
const NEW: u64 = OLD + 1024;

#[test]
fn an_old_id_never_finds_the_call_that_has_its_place() {
    super::explore(|| {
        let table = Arc::new(Table::new(4));
        assert_eq!(table.insert(OLD, &Arc::new(OLD), None), Ok(true));
        let caller = {
            let table = Arc::clone(&table);
            spawn(move || {
                // The old call is over, and a new one comes.
                let removed = table.remove(OLD).map(|value| *value);
                let inserted = table.insert(NEW, &Arc::new(NEW), None);
                (removed, inserted)
            })
        };
        let sweeper = {
            let table = Arc::clone(&table);
            spawn(move || table.remove(OLD).map(|value| *value))
        };
        // Replies to both.
        for id in [OLD, NEW, OLD] {
            if let Some(value) = table.get(id) {
                assert_eq!(*value, id);
            }
        }
        let (removed, inserted) = join(caller);
        let swept = join(sweeper);
        assert_eq!(
            [removed, swept].iter().flatten().collect::<Vec<_>>(),
            [&OLD]
        );
        assert_eq!(inserted, Ok(true));
        assert_eq!(table.remove(OLD), None);
        assert_eq!(table.remove(NEW).as_deref(), Some(&NEW));
        assert_eq!(table.len(), 0);
    });
}

#[test]
fn a_taken_place_is_left_to_the_older_call() {
    super::explore(|| {
        let table = Arc::new(Table::new(4));
        let threads = [OLD, NEW].map(|id| {
            let table = Arc::clone(&table);
            spawn(move || {
                let inserted = table.insert(id, &Arc::new(id), None) == Ok(true);
                assert_eq!(table.get(id).map(|value| *value), inserted.then_some(id));
                inserted
            })
        });
        let inserted = threads.map(join);
        assert_eq!(inserted.iter().filter(|inserted| **inserted).count(), 1);
        assert_eq!((table.len(), table.all().len()), (1, 1));
    });
}

#[test]
fn a_call_comes_out_once_by_its_reply_or_at_its_deadline() {
    super::explore(|| {
        let table = Arc::new(Table::new(4));
        for id in [OLD, OLD + 1] {
            assert_eq!(table.insert(id, &Arc::new(id), Some(epoch())), Ok(true));
        }
        let sweeper = {
            let table = Arc::clone(&table);
            spawn(move || table.expire(late()))
        };
        let caller = {
            let table = Arc::clone(&table);
            // A call that comes meanwhile.
            spawn(move || table.insert(OLD + 2, &Arc::new(OLD + 2), Some(late())))
        };
        let removed = table.remove(OLD);
        let (expired, next) = join(sweeper);
        assert_eq!(join(caller), Ok(true));
        let out: Vec<_> = removed.into_iter().chain(expired.clone()).collect();
        let last = OLD + 2;
        let mut out: Vec<_> = out.iter().map(|value| **value).collect();
        out.sort_unstable();
        let all = [OLD, OLD + 1, last];
        let left = table.get(last).is_some();
        assert_eq!(out, all[..if left { 2 } else { 3 }]);
        assert_eq!(next, None, "what is due at once is not due later");
        assert_eq!(table.len(), usize::from(left));
    });
}

#[test]
fn the_table_never_holds_more_than_its_limit() {
    super::explore(|| {
        let table = Arc::new(Table::new(1));
        let threads = [1, 2].map(|id| {
            let table = Arc::clone(&table);
            spawn(move || {
                let inserted = table.insert(id, &Arc::new(id), None);
                assert!(table.all().len() <= 1);
                match inserted {
                    Ok(free) => {
                        assert!(free);
                        assert_eq!(table.remove(id).as_deref(), Some(&id));
                        true
                    }
                    Err(TooManyCalls) => false,
                }
            })
        });
        assert!(threads.map(join).contains(&true));
        assert_eq!(table.insert(3, &Arc::new(3), None), Ok(true), "it is empty");
    });
}
