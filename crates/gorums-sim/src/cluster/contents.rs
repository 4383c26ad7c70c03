//! What is in a simulated file: for its program, and after a loss of power.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::Random;

/// A disk writes so many bytes whole, and no more than that.
const SECTOR: u64 = 512;

const PAGE: u64 = 4096;

/// How many operations wait for a sync. Beyond that the oldest are written out without one, as a
/// system does when its memory is full.
const UNSYNCED: usize = 10_000;

/// A file, without time or faults of its own: both come with the calls.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// What its program sees.
    now: Image,
    /// What no loss of power takes back.
    durable: Image,
    /// What makes one of the other, in its order.
    log: VecDeque<Entry>,
    /// How many of that are syncs.
    syncs: usize,
    /// When the last operation is done.
    busy_until: Duration,
}

#[derive(Debug)]
struct Entry {
    done_at: Duration,
    change: Change,
    /// A sync that was to write it has failed, and it is in the memory of the system alone, as if
    /// it were written.
    is_lost: bool,
}

#[derive(Debug)]
enum Change {
    Write { offset: u64, bytes: Box<[u8]> },
    Length(u64),
    Replace(Image),
    Sync,
}

/// Bytes, of which the pages that are not there are zero.
#[derive(Debug, Clone, Default)]
struct Image {
    pages: BTreeMap<u64, Arc<[u8; PAGE as usize]>>,
    length: u64,
}

impl Contents {
    pub(crate) fn len(&self) -> u64 {
        self.now.length
    }

    /// So many bytes from there on, where the file has them.
    pub(crate) fn read(&self, offset: u64, len: usize) -> Option<Vec<u8>> {
        let end = offset.checked_add(len as u64)?;
        (end <= self.now.length).then(|| self.now.read(offset, len))
    }

    /// Time passes for an operation that changes nothing.
    pub(crate) fn pass(&mut self, now: Duration, takes: Duration) {
        self.busy_until = self.busy_until.max(now) + takes;
        self.settle(now);
    }

    pub(crate) fn write(&mut self, now: Duration, takes: Duration, offset: u64, bytes: &[u8]) {
        let end = offset.saturating_add(bytes.len() as u64);
        if end > self.now.length {
            self.push(now, Duration::ZERO, Change::Length(end));
        }
        let bytes = bytes.into();
        self.push(now, takes, Change::Write { offset, bytes });
    }

    pub(crate) fn set_len(&mut self, now: Duration, takes: Duration, length: u64) {
        if length != self.now.length {
            self.push(now, takes, Change::Length(length));
        }
    }

    pub(crate) fn replace(&mut self, now: Duration, takes: Duration, bytes: &[u8]) {
        self.push(now, takes, Change::Replace(Image::of(bytes)));
    }

    pub(crate) fn sync(&mut self, now: Duration, takes: Duration) {
        self.push(now, takes, Change::Sync);
    }

    /// A sync fails. Of what it was to write, any part is not written, and no later sync will write
    /// it. It can still be read.
    pub(crate) fn fail_sync(&mut self, now: Duration, takes: Duration, mut random: Random) {
        self.pass(now, takes);
        let writes = self.log.iter_mut();
        for entry in writes.filter(|entry| matches!(entry.change, Change::Write { .. })) {
            entry.is_lost |= random.one_in(2);
        }
    }

    /// What is in the memory of the system, and counts as written, is given up: what is on the disk
    /// is read from now on. What is to be written yet stays.
    pub(crate) fn forget(&mut self, now: Duration, takes: Duration) {
        self.pass(now, takes);
        self.log.retain(|entry| !entry.is_lost);
        self.show();
    }

    /// When all that was begun is done.
    pub(crate) fn busy_until(&self) -> Duration {
        self.busy_until
    }

    /// Whether there is something that a loss of power may take.
    pub(crate) fn is_unsynced(&mut self, now: Duration) -> bool {
        self.settle(now);
        !self.log.is_empty()
    }

    /// Whether the length is among it.
    pub(crate) fn grows(&mut self, now: Duration) -> bool {
        self.settle(now);
        let length = |entry: &Entry| match entry.change {
            Change::Length(length) => length > self.durable.length,
            _ => false,
        };
        self.log.iter().any(length)
    }

    /// The process is killed: what it has written is there, and what it has not is not.
    pub(crate) fn kill(&mut self, at: Duration) {
        self.settle(at);
        let done = self.log.partition_point(|entry| entry.done_at <= at);
        self.log.truncate(done);
        self.restart();
    }

    /// The power is lost: what was synced is there, and any part of what was written since.
    ///
    /// Each sector is as it was at any moment since the last sync, and each change of the length is
    /// kept or not; nothing says which, but the random numbers.
    pub(crate) fn lose_power(&mut self, at: Duration, random: Random) {
        self.settle(at);
        let done = self.log.partition_point(|entry| entry.done_at <= at);
        // What is under way may be there as well, in part. What follows has not begun.
        self.log.truncate(done + 1);
        self.log.retain(|entry| !entry.is_lost);
        let log = std::mem::take(&mut self.log);
        self.durable.keep_any(&log, random);
        self.restart();
    }

    /// What its next program sees.
    fn restart(&mut self) {
        self.syncs = self.log.iter().filter(|entry| entry.change.syncs()).count();
        self.busy_until = Duration::ZERO;
        self.show();
    }

    /// What its program sees is what is on the disk, with what is to be written.
    fn show(&mut self) {
        self.now = self.durable.clone();
        for entry in &self.log {
            self.now.change(&entry.change);
        }
    }

    fn push(&mut self, now: Duration, takes: Duration, change: Change) {
        self.now.change(&change);
        self.syncs += usize::from(change.syncs());
        let done_at = self.busy_until.max(now) + takes;
        self.log.push_back(Entry {
            done_at,
            change,
            is_lost: false,
        });
        self.pass(now, takes);
        while self.log.len() > UNSYNCED {
            if let Some(oldest) = self.log.pop_front() {
                self.syncs -= usize::from(oldest.change.syncs());
                self.durable.change_unless_lost(&oldest);
            }
        }
    }

    /// What was synced by now is durable.
    fn settle(&mut self, now: Duration) {
        if self.syncs == 0 {
            return;
        }
        let done = self.log.partition_point(|entry| entry.done_at <= now);
        let mut done = self.log.range(..done);
        if let Some(last) = done.rposition(|entry| entry.change.syncs()) {
            for entry in self.log.drain(..=last) {
                self.syncs -= usize::from(entry.change.syncs());
                self.durable.change_unless_lost(&entry);
            }
        }
    }
}

impl Change {
    /// Whether it makes last what was done before.
    fn syncs(&self) -> bool {
        matches!(self, Self::Sync | Self::Replace(_))
    }
}

impl Image {
    fn of(bytes: &[u8]) -> Self {
        let mut image = Self {
            pages: BTreeMap::new(),
            length: bytes.len() as u64,
        };
        for (page, bytes) in (0..).zip(bytes.chunks(PAGE as usize)) {
            if bytes != &[0; PAGE as usize][..bytes.len()] {
                image.write(page * PAGE, bytes);
            }
        }
        image
    }

    fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut found = vec![0; len];
        for (page, in_page, in_bytes) in parts(offset, len, PAGE) {
            if let Some(page) = self.pages.get(&page) {
                found[in_bytes].copy_from_slice(&page[in_page]);
            }
        }
        found
    }

    /// Leaves the length as it is.
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (page, in_page, in_bytes) in parts(offset, bytes.len(), PAGE) {
            let page = self.pages.entry(page);
            let page = page.or_insert_with(|| Arc::new([0; PAGE as usize]));
            Arc::make_mut(page)[in_page].copy_from_slice(&bytes[in_bytes]);
        }
    }

    /// What is cut off is zero when the file grows again.
    fn set_len(&mut self, length: u64) {
        self.length = length;
        drop(self.pages.split_off(&length.div_ceil(PAGE)));
        let last = self.pages.get_mut(&(length / PAGE));
        if let Some(page) = last {
            Arc::make_mut(page)[(length % PAGE) as usize..].fill(0);
        }
    }

    fn change(&mut self, change: &Change) {
        match change {
            Change::Write { offset, bytes } => self.write(*offset, bytes),
            Change::Length(length) => self.set_len(*length),
            Change::Replace(image) => self.clone_from(image),
            Change::Sync => {}
        }
    }

    fn change_unless_lost(&mut self, entry: &Entry) {
        if !entry.is_lost {
            self.change(&entry.change);
        }
    }

    /// Any part of these changes, torn at sectors.
    fn keep_any(&mut self, log: &VecDeque<Entry>, mut random: Random) {
        if let Some(Change::Replace(image)) = log.back().map(|entry| &entry.change)
            && random.one_in(2)
        {
            self.clone_from(image);
            return;
        }
        // From nothing to all of it. What lies where decides, so that it makes no difference in
        // which order a program has written what it has synced at once.
        let (of_bytes, of_lengths) = (random.below(5), random.below(5));
        let salt = random.next();
        let kept = |what: u64, time: u64, chances: u64| {
            let mixed = Random::of(salt ^ what.wrapping_mul(3), time).below(4);
            mixed < chances
        };
        // How often each sector was written, and which time is the last that is kept.
        let mut written: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for entry in log {
            if let Change::Write { offset, bytes } = &entry.change {
                for (sector, ..) in parts(*offset, bytes.len(), SECTOR) {
                    let (times, last) = written.entry(sector).or_default();
                    *times += 1;
                    if kept(sector, *times, of_bytes) {
                        *last = *times;
                    }
                }
            }
        }
        let mut times: BTreeMap<u64, u64> = BTreeMap::new();
        let mut length = self.length;
        for (number, entry) in (0..).zip(log) {
            match &entry.change {
                Change::Write { offset, bytes } => {
                    for (sector, in_sector, in_bytes) in parts(*offset, bytes.len(), SECTOR) {
                        let time = times.entry(sector).or_default();
                        *time += 1;
                        if *time <= written[&sector].1 {
                            let at = sector * SECTOR + in_sector.start as u64;
                            self.write(at, &bytes[in_bytes]);
                        }
                    }
                }
                Change::Length(new) if kept(u64::MAX, number, of_lengths) => {
                    if *new < length {
                        self.set_len(*new);
                    }
                    length = *new;
                }
                Change::Length(_) | Change::Replace(_) | Change::Sync => {}
            }
        }
        // What lies behind the end is lost.
        self.set_len(length);
    }
}

/// These bytes by the pieces of a file that they lie in: the number of the piece, where they are in
/// it, and where among the bytes.
fn parts(
    offset: u64,
    len: usize,
    size: u64,
) -> impl Iterator<Item = (u64, std::ops::Range<usize>, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        (done < len).then(|| {
            let at = offset + done as u64;
            let from = (at % size) as usize;
            let bytes = (size as usize - from).min(len - done);
            let part = (at / size, from..from + bytes, done..done + bytes);
            done += bytes;
            part
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const TAKES: Duration = Duration::from_millis(1);

    /// A file whose program waits until each operation is done, unless it has it wait.
    #[derive(Default)]
    struct Tried {
        contents: Contents,
        now: Duration,
    }

    impl Tried {
        fn write(&mut self, offset: u64, bytes: &[u8]) {
            self.contents.write(self.now, TAKES, offset, bytes);
            self.wait();
        }

        fn set_len(&mut self, length: u64) {
            self.contents.set_len(self.now, TAKES, length);
            self.wait();
        }

        fn sync(&mut self) {
            self.contents.sync(self.now, TAKES);
            self.wait();
        }

        fn wait(&mut self) {
            self.now = self.contents.busy_until().max(self.now);
        }

        fn all(&self) -> Vec<u8> {
            let len = self.contents.len() as usize;
            self.contents.read(0, len).expect("it is so long")
        }

        /// What a loss of power leaves, by its seed.
        fn left(make: impl Fn() -> Self, seed: u64) -> Vec<u8> {
            let mut tried = make();
            tried.contents.lose_power(tried.now, Random::new(seed));
            tried.all()
        }
    }

    fn lefts(make: impl Fn() -> Tried) -> BTreeSet<Vec<u8>> {
        (0..400).map(|seed| Tried::left(&make, seed)).collect()
    }

    fn strings(lefts: BTreeSet<Vec<u8>>) -> Vec<String> {
        let text = |left: Vec<u8>| String::from_utf8(left).expect("letters");
        lefts.into_iter().map(text).collect()
    }

    #[test]
    fn a_program_sees_what_it_has_done() {
        let mut file = Tried::default();
        file.write(2, b"abc");
        assert_eq!(file.all(), b"\0\0abc");
        file.write(4, b"XY");
        assert_eq!(file.all(), b"\0\0abXY");
        file.set_len(3);
        file.set_len(5);
        assert_eq!(file.all(), b"\0\0a\0\0");
        assert_eq!(file.contents.read(3, 3), None);
        assert_eq!(file.contents.read(u64::MAX, 1), None);
        file.write(10_000, b"far");
        assert_eq!(
            file.contents.read(9_998, 5).as_deref(),
            Some(&b"\0\0far"[..])
        );
        file.contents.replace(file.now, TAKES, &[7; 5000]);
        assert_eq!(file.all(), [7; 5000]);
        file.contents.replace(file.now, TAKES, &[0; 5000]);
        assert_eq!(file.all(), [0; 5000]);
    }

    #[test]
    fn of_what_was_not_synced_a_loss_of_power_keeps_any_part() {
        let lefts = lefts(|| {
            let mut file = Tried::default();
            file.set_len(3 * SECTOR);
            file.sync();
            for sector in 0..3 {
                file.write(sector * SECTOR, b"x");
            }
            file
        });
        let sectors = |left: &Vec<u8>| [0, 1, 2].map(|sector| left[sector * SECTOR as usize]);
        let all: BTreeSet<_> = lefts.iter().map(sectors).collect();
        assert_eq!(all.len(), 8, "{all:?}");
    }

    #[test]
    fn a_write_is_torn_at_sectors_and_nowhere_else() {
        let lefts = lefts(|| {
            let mut file = Tried::default();
            file.set_len(2 * SECTOR);
            file.sync();
            file.write(SECTOR - 2, b"abcd");
            file
        });
        let around = |left: Vec<u8>| left[SECTOR as usize - 2..][..4].to_owned();
        let lefts: BTreeSet<_> = lefts.into_iter().map(around).collect();
        let expected: [&[u8]; 4] = [b"\0\0\0\0", b"\0\0cd", b"ab\0\0", b"abcd"];
        assert_eq!(lefts, expected.map(<[u8]>::to_owned).into());
    }

    #[test]
    fn a_sector_is_as_it_was_at_some_moment_since_the_last_sync() {
        let lefts = lefts(|| {
            let mut file = Tried::default();
            file.write(0, b"----");
            file.sync();
            file.write(0, b"a");
            file.write(1, b"b");
            file.write(2, b"c");
            file
        });
        assert_eq!(strings(lefts), ["----", "a---", "ab--", "abc-"]);
    }

    #[test]
    fn what_a_failed_sync_has_lost_is_read_until_it_is_forgotten_and_no_sync_writes_it() {
        let make = |seed| {
            let mut file = Tried::default();
            file.write(0, b"----");
            file.sync();
            file.write(0, b"a");
            file.write(1, b"b");
            let random = Random::new(seed);
            file.contents.fail_sync(file.now, TAKES, random);
            file.wait();
            file
        };
        let mut left = BTreeSet::new();
        for seed in 0..100 {
            let mut file = make(seed);
            file.write(3, b"d");
            file.sync();
            // The next program reads it, too.
            file.contents.kill(file.now);
            assert_eq!(&file.all()[2..], b"-d");
            let mut forgets = make(seed);
            assert_eq!(forgets.all(), b"ab--");
            forgets.contents.forget(forgets.now, TAKES);
            forgets.wait();
            let read = forgets.all();
            forgets.sync();
            forgets.contents.lose_power(forgets.now, Random::new(0));
            assert_eq!(forgets.all(), read, "what is read is on the disk");
            file.contents.lose_power(file.now, Random::new(0));
            assert_eq!(
                (&file.all()[..3], &file.all()[3..]),
                (&read[..3], &b"d"[..])
            );
            left.insert(read);
        }
        assert_eq!(strings(left), ["----", "-b--", "a---", "ab--"]);
    }

    #[test]
    fn the_length_is_kept_apart_from_what_was_written() {
        let lefts = lefts(|| {
            let mut file = Tried::default();
            file.write(0, b"old.");
            file.sync();
            // In another sector each, so that either may be there without the other.
            file.write(0, b"new");
            file.write(SECTOR, b"more");
            file
        });
        let short = |left: &Vec<u8>| {
            (
                left[..4].to_owned(),
                left.get(SECTOR as usize..).map(<[u8]>::to_owned),
            )
        };
        let lefts: BTreeSet<_> = lefts.iter().map(short).collect();
        let mut expected = BTreeSet::new();
        for beginning in [b"old.", b"new."] {
            for end in [None, Some(b"more"), Some(b"\0\0\0\0")] {
                expected.insert((beginning.to_vec(), end.map(|end| end.to_vec())));
            }
        }
        assert_eq!(lefts, expected);
    }

    #[test]
    fn a_file_that_was_cut_may_be_as_long_as_before() {
        let lefts = lefts(|| {
            let mut file = Tried::default();
            file.write(0, b"abcd");
            file.sync();
            file.set_len(2);
            file
        });
        assert_eq!(strings(lefts), ["ab", "abcd"]);
    }

    #[test]
    fn what_was_synced_is_there_after_any_loss_of_power() {
        let lefts = lefts(|| {
            let mut file = Tried::default();
            file.write(0, &[b'a'; 5000]);
            file.set_len(4999);
            file.sync();
            file
        });
        assert_eq!(lefts, [vec![b'a'; 4999]].into());
    }

    #[test]
    fn a_sync_that_is_under_way_promises_nothing_and_nothing_behind_it_has_begun() {
        let lefts = lefts(|| {
            let mut file = Tried::default();
            file.write(0, b"-");
            file.set_len(2 * SECTOR);
            file.sync();
            file.write(0, b"a");
            // Nobody waits for it, so neither is the write behind it done.
            file.contents.sync(file.now, TAKES);
            file.contents.write(file.now, TAKES, SECTOR, b"b");
            file
        });
        let firsts: BTreeSet<_> = lefts
            .iter()
            .map(|left| (left[0], left[SECTOR as usize]))
            .collect();
        assert_eq!(firsts, [(b'-', 0), (b'a', 0)].into());
    }

    #[test]
    fn a_process_that_is_killed_leaves_all_that_it_had_done() {
        let mut file = Tried::default();
        file.write(0, b"written");
        file.write(2 * SECTOR, b"and more");
        file.set_len(2 * SECTOR + 3);
        let before = file.all();
        file.contents.write(file.now, TAKES, 0, b"W");
        assert_eq!(file.all()[0], b'W');
        file.contents.kill(file.now);
        assert_eq!(file.all(), before);
        // It is not synced for that.
        file.contents.kill(file.now);
        assert!(file.contents.is_unsynced(file.now));
        let make = || {
            let mut file = Tried::default();
            file.write(0, b"written");
            file.contents.kill(file.now);
            file
        };
        assert!(lefts(make).len() > 1);
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_or_not_at_all() {
        let make = |wait: bool| {
            move || {
                let mut file = Tried::default();
                file.write(0, b"old");
                file.sync();
                let new = vec![b'n'; 3000];
                file.contents.replace(file.now, TAKES, &new);
                if wait {
                    file.wait();
                }
                file
            }
        };
        let new = vec![b'n'; 3000];
        assert_eq!(lefts(make(true)), [new.clone()].into());
        assert_eq!(lefts(make(false)), [new, b"old".to_vec()].into());
    }

    #[test]
    fn what_waits_for_a_sync_is_bounded() {
        let mut file = Tried::default();
        for number in 0..2 * UNSYNCED as u64 {
            file.contents
                .write(file.now, Duration::ZERO, number % 100, b"x");
        }
        assert_eq!(file.contents.log.len(), UNSYNCED);
    }

    #[test]
    fn a_file_grows_until_its_length_is_synced() {
        let mut file = Tried::default();
        assert!(!file.contents.grows(file.now));
        file.write(0, b"x");
        assert!(file.contents.grows(file.now));
        file.sync();
        assert!(!file.contents.grows(file.now));
        file.set_len(0);
        assert!(!file.contents.grows(file.now) && file.contents.is_unsynced(file.now));
    }
}
