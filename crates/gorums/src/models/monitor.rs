//! The monitor: a stretch of polling that lasts is noticed, whatever the monitor does when it
//! begins.

use std::sync::Arc;

use loom::thread;
use tokio::runtime::Handle;

use super::{Gate, join, spawn};
use crate::handler::{Monitor, Polling, Watchlist};
use crate::sync::block_on;

/// A lane, and what opens when the monitor has noticed that it blocks.
fn lane() -> (Arc<Polling>, Gate) {
    let noticed = Gate::default();
    let opens = noticed.clone();
    let polling = Polling::new(Handle::current(), move || opens.open());
    (polling, noticed)
}

/// A stretch that lasts until the monitor has noticed it. Where it never does, all threads wait in
/// the end.
fn block(polling: &Arc<Polling>, monitor: &Monitor, noticed: &Gate) {
    polling.watched(monitor, || block_on(noticed.opened()));
}

/// The monitor's thread, until these were noticed. It waits whenever it finds nobody who polls.
fn ticks(monitor: &Monitor, noticed: &[Gate]) {
    let mut watchlist = Watchlist::default();
    while !noticed.iter().all(Gate::is_open) {
        monitor.tick(&mut watchlist);
        thread::yield_now();
    }
}

#[test]
fn a_stretch_that_lasts_is_noticed_whether_the_monitor_waits_or_looks_or_is_about_to_wait() {
    super::explore(|| {
        let monitor = Arc::new(Monitor::new());
        let (polling, noticed) = lane();
        let blocks = {
            let (monitor, noticed) = (Arc::clone(&monitor), noticed.clone());
            spawn(move || {
                // It is listed by this one, and may be taken off the list when the next one begins.
                polling.watched(&monitor, || {});
                block(&polling, &monitor, &noticed);
            })
        };
        ticks(&monitor, &[noticed]);
        join(blocks);
    });
}

#[test]
fn two_lanes_that_block_are_both_noticed() {
    super::explore(|| {
        let monitor = Arc::new(Monitor::new());
        let (lanes, noticed): (Vec<_>, Vec<_>) = [lane(), lane()].into_iter().unzip();
        let blocks: Vec<_> = lanes
            .into_iter()
            .zip(noticed.clone())
            .map(|(polling, noticed)| {
                let monitor = Arc::clone(&monitor);
                spawn(move || block(&polling, &monitor, &noticed))
            })
            .collect();
        ticks(&monitor, &noticed);
        blocks.into_iter().for_each(join);
    });
}

#[test]
fn of_two_tasks_of_a_lane_the_one_that_blocks_is_noticed() {
    super::explore(|| {
        let monitor = Arc::new(Monitor::new());
        let (polling, noticed) = lane();
        let blocks = {
            let (polling, monitor) = (Arc::clone(&polling), Arc::clone(&monitor));
            let noticed = noticed.clone();
            spawn(move || block(&polling, &monitor, &noticed))
        };
        let does_not = {
            let monitor = Arc::clone(&monitor);
            spawn(move || polling.watched(&monitor, || {}))
        };
        ticks(&monitor, &[noticed]);
        join(blocks);
        join(does_not);
    });
}
