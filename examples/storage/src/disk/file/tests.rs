use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::store::{Entry, Time};

/// A file on a disk that keeps no promise but one: what was synced is there. Of what was changed
/// since, a loss of power leaves any part.
#[derive(Debug, Clone)]
struct Powered(Arc<Mutex<Contents>>);

#[derive(Debug)]
struct Contents {
    now: Vec<u8>,
    lasting: Lasting,
    /// What there was before each sync.
    before_syncs: Vec<Lasting>,
}

#[derive(Debug, Clone)]
struct Lasting {
    synced: Vec<u8>,
    /// What was changed since, in parts of which each may survive without the others.
    unsynced: Vec<Unsynced>,
}

#[derive(Debug, Clone)]
enum Unsynced {
    /// A disk writes sectors whole, and no more than that.
    Sector {
        offset: usize,
        bytes: Vec<u8>,
    },
    Length(usize),
}

const SECTOR: usize = 512;

impl Lasting {
    fn synced(now: &[u8]) -> Self {
        Self {
            synced: now.to_owned(),
            unsynced: Vec::new(),
        }
    }

    /// What a loss of power may leave: `survives` says of each part whether it does. The length
    /// is a part of its own, and what lies behind it is lost.
    fn left(&self, mut survives: impl FnMut(&Unsynced) -> bool) -> Vec<u8> {
        let mut left = self.synced.clone();
        let mut length = left.len();
        for part in self.unsynced.iter().filter(|part| survives(part)) {
            match part {
                Unsynced::Length(new) => {
                    left.truncate(*new);
                    length = *new;
                }
                Unsynced::Sector { offset, bytes } => {
                    let end = offset + bytes.len();
                    left.resize(left.len().max(end), 0);
                    left[*offset..end].copy_from_slice(bytes);
                }
            }
        }
        left.resize(length, 0);
        left
    }
}

impl Powered {
    fn new(now: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Contents {
            lasting: Lasting::synced(&now),
            now,
            before_syncs: Vec::new(),
        })))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Contents) -> T) -> T {
        work(&mut self.0.lock().expect("no test panics with it"))
    }
}

impl StorageBackend for Powered {
    fn len(&self) -> io::Result<u64> {
        Ok(self.with(|contents| contents.now.len() as u64))
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        Ok(self.with(|contents| contents.now[offset as usize..][..len].to_owned()))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|contents| {
            contents.now.resize(len as usize, 0);
            let length = Unsynced::Length(len as usize);
            contents.lasting.unsynced.push(length);
        });
        Ok(())
    }

    fn sync_data(&self, eventual: bool) -> io::Result<()> {
        // What is synced at some time is not yet.
        if !eventual {
            self.with(|contents| {
                let synced = Lasting::synced(&contents.now);
                let before = std::mem::replace(&mut contents.lasting, synced);
                contents.before_syncs.push(before);
            });
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|contents| {
            let (mut at, end) = (offset as usize, offset as usize + data.len());
            contents.now[at..end].copy_from_slice(data);
            while at < end {
                let next = ((at / SECTOR + 1) * SECTOR).min(end);
                let bytes = contents.now[at..next].to_owned();
                let sector = Unsynced::Sector { offset: at, bytes };
                contents.lasting.unsynced.push(sector);
                at = next;
            }
        });
        Ok(())
    }
}

/// A new file of a replica, and the folder that it was made in.
fn new_file() -> (Vec<u8>, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    drop(File::<Entry>::open(directory.path(), 1).expect("it can be opened"));
    let now = fs::read(directory.path().join("replica-1.redb")).expect("a file");
    (now, directory)
}

/// The file as a loss of power left it.
fn after(left: Vec<u8>) -> Result<File<Entry>, FileError> {
    File::on(Arc::new(Powered::new(left)))
}

#[tokio::test]
async fn what_was_committed_is_there_whatever_a_loss_of_power_leaves_of_the_rest() {
    let (now, _directory) = new_file();
    let powered = Powered::new(now);
    let mut file = File::<Entry>::on(Arc::new(powered.clone())).expect("it is whole");
    let mut random = fastrand::Rng::with_seed(1);
    let mut old = None;
    let mut grown = 0;
    for seconds in 1..=12 {
        let length = powered.with(|contents| {
            contents.before_syncs.clear();
            contents.now.len()
        });
        // The file grows with some of these, and what was replaced is used again.
        let new = of_size(120_000 + 1000 * seconds as usize, seconds);
        let kept = format!("key-{seconds}");
        let entries = [("a", &new), ("b", &new), (&*kept, &new)];
        let committed = file.commit(&entries).await.expect("the disk works");
        assert_eq!(committed, Commit::Done);
        let (moments, end, has_grown) = powered.with(|contents| {
            let has_grown = contents.now.len() > length;
            let moments = std::mem::take(&mut contents.before_syncs);
            (moments, contents.lasting.clone(), has_grown)
        });
        grown += usize::from(has_grown);
        if !has_grown && seconds % 4 != 0 {
            // As any other.
            old = Some(new);
            continue;
        }
        let moments = moments.into_iter().map(|moment| (moment, false));
        for (moment, acknowledged) in moments.chain([(end, true)]) {
            for (case, left) in lefts(&moment, &mut random).into_iter().enumerate() {
                let case = format!("commit {seconds}, case {case}");
                let left = after(left);
                let mut left = left.unwrap_or_else(|error| panic!("{case}: {error}"));
                let a = left.read("a").await.expect("it is whole");
                let b = left.read("b").await.expect("it is whole");
                assert!(a == b, "{case}: half of it");
                let is_new = a.as_ref() == Some(&new);
                assert!(is_new || !acknowledged && a == old, "{case}");
                for before in 1..seconds {
                    let found = left.read(&format!("key-{before}")).await;
                    let found = found.expect("it is whole").map(|entry| entry.time);
                    assert_eq!(found, Some(Time::from_parts(before, 0)), "{case}");
                }
            }
        }
        old = Some(new);
    }
    assert!(grown > 0, "no commit has made the file grow");
}

/// Nothing of what was not synced, all of it, the header or the length with or without the
/// rest, and any part.
fn lefts(moment: &Lasting, random: &mut fastrand::Rng) -> Vec<Vec<u8>> {
    let is_header = |part: &Unsynced| {
        matches!(
            part,
            Unsynced::Sector {
                offset: 0..4096,
                ..
            }
        )
    };
    let is_length = |part: &Unsynced| matches!(part, Unsynced::Length(_));
    let mut lefts = vec![
        moment.left(|_| false),
        moment.left(|_| true),
        moment.left(is_header),
        moment.left(is_length),
        moment.left(|part| !is_header(part)),
        moment.left(|part| !is_length(part)),
    ];
    lefts.extend((1..=3).map(|quarters| moment.left(|_| random.u8(0..4) < quarters)));
    lefts
}

/// A file on a disk with so many pages, which says what has no room, and whether in a sync.
#[derive(Debug)]
struct Small {
    file: Powered,
    /// The pages that something was written to. The others take no room.
    used: Mutex<BTreeSet<u64>>,
    pages: AtomicUsize,
    /// Syncs fail as well when there is no room.
    late: AtomicBool,
}

impl StorageBackend for Small {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.file.read(offset, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self, eventual: bool) -> io::Result<()> {
        let used = self.used.lock().expect("no test panics with it").len();
        if self.late.load(Ordering::Relaxed) && used > self.pages.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.sync_data(eventual)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut used = self.used.lock().expect("no test panics with it");
        for (page, data) in (offset / PAGE..).zip(data.chunks(PAGE as usize)) {
            let full = used.len() >= self.pages.load(Ordering::Relaxed);
            if full && !used.contains(&page) && !self.late.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            used.insert(page);
            self.file.write(page * PAGE + offset % PAGE, data)?;
        }
        Ok(())
    }
}

impl Backend for Small {
    fn give_back(&self, offset: u64, len: u64) {
        let end = offset + len;
        let pages = offset.div_ceil(PAGE)..end / PAGE;
        let mut used = self.used.lock().expect("no test panics with it");
        used.retain(|page| !pages.contains(page));
        self.file.with(|contents| {
            let end = contents.now.len().min(end as usize);
            contents.now[offset as usize..end].fill(0);
        });
    }
}

impl Backend for Powered {
    fn give_back(&self, _: u64, _: u64) {}
}

const PAGE: u64 = 4096;

/// A new file of a replica, on a disk that has room for so many more pages.
fn small(more: usize) -> (Arc<Small>, tempfile::TempDir) {
    let (now, directory) = new_file();
    let used: BTreeSet<_> = (0..)
        .zip(now.chunks(PAGE as usize))
        .filter(|(_, page)| page.iter().any(|byte| *byte != 0))
        .map(|(page, _)| page)
        .collect();
    let pages = AtomicUsize::new(used.len() + more);
    let file = Powered::new(now);
    let small = Small {
        file,
        used: Mutex::new(used),
        pages,
        late: AtomicBool::new(false),
    };
    (Arc::new(small), directory)
}

fn of_size(bytes: usize, seconds: i64) -> Entry {
    Entry {
        value: "v".repeat(bytes),
        time: Time::from_parts(seconds, 0),
    }
}

#[tokio::test]
async fn a_full_disk_takes_what_fits_and_keeps_what_it_had() {
    let (small, _directory) = small(100);
    let mut file = File::<Entry>::on(Arc::<Small>::clone(&small)).expect("it is whole");
    let mut kept = of_size(10, 0);
    let large = of_size(900_000, 100);
    let mut refused = 0;
    for seconds in 1..=8 {
        if seconds % 2 == 0 {
            let both = [("k", &large), ("l", &large)];
            let committed = file.commit(&both).await.expect("it goes on");
            assert_eq!(committed, Commit::NoRoom, "{seconds}");
            refused += 1;
        } else {
            kept = of_size(100 * seconds as usize, seconds);
            let committed = file.commit(&[("k", &kept)]).await.expect("it goes on");
            assert_eq!(committed, Commit::Done, "{seconds}");
        }
        assert!(file.read("k").await.expect("it goes on").as_ref() == Some(&kept));
        assert!(file.read("l").await.expect("it goes on").is_none());
        // The same after a loss of power.
        let synced = small.file.with(|contents| contents.lasting.left(|_| false));
        let mut left = after(synced).expect("it is whole");
        assert!(left.read("k").await.expect("it is whole").as_ref() == Some(&kept));
        assert!(left.read("l").await.expect("it is whole").is_none());
    }
    assert_eq!(refused, 4);
    // When there is room again, it is used.
    small.pages.store(10_000, Ordering::Relaxed);
    let committed = file.commit(&[("l", &large)]).await.expect("it goes on");
    assert_eq!(committed, Commit::Done);
    assert!(file.read("l").await.expect("it goes on") == Some(large));
    assert!(file.read("k").await.expect("it goes on") == Some(kept));
}

#[tokio::test]
async fn a_disk_that_is_filled_to_its_last_page_can_still_be_read() {
    let (small, _directory) = small(15);
    let mut file = File::<Entry>::on(Arc::<Small>::clone(&small)).expect("it is whole");
    let mut kept = Vec::new();
    let mut refused = 0;
    for number in 0..60 {
        let key = format!("key-{number}");
        let entry = of_size(1500, number);
        match file.commit(&[(&key, &entry)]).await.expect("it goes on") {
            Commit::Done => kept.push((key, entry)),
            Commit::NoRoom => refused += 1,
        }
    }
    assert!(!kept.is_empty() && refused > 0, "{refused} refused");
    for (key, entry) in kept {
        assert!(file.read(&key).await.expect("it goes on") == Some(entry));
    }
}

#[tokio::test]
async fn a_sync_without_room_is_no_lack_of_room_but_the_end() {
    let (small, _directory) = small(100);
    let mut file = File::<Entry>::on(Arc::<Small>::clone(&small)).expect("it is whole");
    small.late.store(true, Ordering::Relaxed);
    let large = of_size(900_000, 1);
    let failed = file.commit(&[("k", &large)]).await;
    failed.expect_err("nobody knows what is on the disk");
}
