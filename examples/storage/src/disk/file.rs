//! The file of a replica: made where there is none, and refused where it is not as it was written.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};
use std::{fmt, fs, io};

use redb::{Database, ReadOnlyTable, StorageBackend, TableDefinition};

use super::held::Held;
use super::native::{Backend, Native};
use super::{Commit, Record, Volume};
use crate::planted::{Bug, Planted};

/// The records by their keys. Their type is part of the file: it cannot be opened as one of another
/// program.
fn table<E: Record>() -> TableDefinition<'static, &'static str, E::Stored> {
    TableDefinition::new("values")
}

/// How much of a file is kept in memory, in bytes.
const CACHE: usize = 64 << 20;

/// The file of a replica. Its calls wait for the disk, and keep the thread meanwhile.
pub struct File<E: Record> {
    /// `None` when it is being closed, or opened again.
    open: Option<Open<E>>,
    /// What the database is in. It keeps the file locked while the database is opened again.
    backend: Arc<dyn Backend>,
    planted: Planted<Bug>,
}

/// A file that was found whole.
struct Open<E: Record> {
    /// What was committed, for reading. It is made where there is none.
    committed: Option<Records<E>>,
    database: Database,
    held: Held,
}

type Records<E> = ReadOnlyTable<&'static str, <E as Record>::Stored>;

impl<E: Record> File<E> {
    /// Opens the file of a replica in this directory. Both are made where there is none.
    pub(super) fn open(directory: &Path, id: u32) -> Result<Self, OpenError> {
        make_directory(directory).map_err(|error| OpenError {
            path: directory.to_owned(),
            cause: error.into(),
        })?;
        let path = directory.join(format!("replica-{id}.redb"));
        let opened = caught(|| {
            if !path.try_exists()? {
                create::<E>(directory, &path)?;
            }
            let file = fs::File::options().read(true).write(true).open(&path)?;
            File::planted(Arc::new(Native::new(file)?), Planted::default())
        });
        opened.map_err(|cause| OpenError { path, cause })
    }

    /// The file of a replica that is kept there, wherever that is. One that is new has to be
    /// [filled](Self::fill) before.
    ///
    /// # Errors
    ///
    /// Where it cannot be read, or is not as it was written. It is left as it is.
    pub fn on(backend: Arc<dyn Backend>) -> Result<Self, FileError> {
        caught(|| Self::planted(backend, Planted::default()))
    }

    /// The same with a mistake in it.
    ///
    /// # Errors
    ///
    /// As for [`on`](Self::on).
    #[cfg(feature = "planted-bugs")]
    pub fn on_with_bug(backend: Arc<dyn Backend>, bug: Bug) -> Result<Self, FileError> {
        caught(|| Self::planted(backend, Planted::one(bug)))
    }

    /// Makes an empty place the file of a replica that has no records yet. A crash may leave a part
    /// of it, so it is to be given its name afterwards.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub fn fill(backend: impl StorageBackend) -> Result<(), FileError> {
        caught(|| fill::<E>(&builder().create_with_backend(backend)?))
    }

    fn planted(backend: Arc<dyn Backend>, planted: Planted<Bug>) -> Result<Self, FileError> {
        let open = Some(open_whole(Arc::clone(&backend), planted)?);
        Ok(Self {
            open,
            backend,
            planted,
        })
    }

    fn opened(&mut self) -> &mut Open<E> {
        let open = self.open.as_mut();
        open.expect("it is there until the file is dropped, or its volume has failed")
    }

    /// Opens the file again, since redb does nothing more with one that it could not write to.
    fn open_again(&mut self) -> Result<(), FileError> {
        if let Some(Open { held, database, .. }) = self.open.take() {
            // Before that it could still write.
            drop(database);
            held.give_back();
        }
        self.open = Some(open_whole(Arc::clone(&self.backend), self.planted)?);
        Ok(())
    }
}

impl<E: Record> Volume<E> for File<E> {
    type Error = FileError;

    async fn read(&mut self, key: &str) -> Result<Option<E>, FileError> {
        caught(|| self.opened().read(key))
    }

    async fn commit(&mut self, records: &[(&str, &E)]) -> Result<Commit, FileError> {
        let open = self.opened();
        match caught(|| open.commit(records)) {
            Ok(()) => Ok(Commit::Done),
            Err(_) if open.held.had_no_room() => {
                caught(|| self.open_again())?;
                Ok(Commit::NoRoom)
            }
            Err(cause) => Err(cause),
        }
    }
}

impl<E: Record> Open<E> {
    fn read(&mut self, key: &str) -> Result<Option<E>, FileError> {
        let committed = match &mut self.committed {
            Some(committed) => committed,
            none => none.insert(self.database.begin_read()?.open_table(table::<E>())?),
        };
        let found = committed.get(key)?;
        Ok(found.map(|found| E::from_stored(found.value())))
    }

    fn commit(&mut self, records: &[(&str, &E)]) -> Result<(), FileError> {
        // What is replaced can be used again when nobody reads it any more.
        self.committed = None;
        let mut transaction = self.database.begin_write()?;
        // So a commit is never taken back when the file is opened after a crash.
        transaction.set_two_phase_commit(true);
        let mut values = transaction.open_table(table::<E>())?;
        for (key, record) in records {
            values.insert(*key, record.stored())?;
        }
        drop(values);
        transaction.commit()?;
        Ok(())
    }
}

impl<E: Record> fmt::Debug for File<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let backend = &self.backend;
        f.debug_struct("File")
            .field("backend", backend)
            .finish_non_exhaustive()
    }
}

impl<E: Record> Drop for File<E> {
    fn drop(&mut self) {
        // What was committed is there, whatever becomes of this.
        let _ = caught(|| {
            self.open = None;
            Ok(())
        });
    }
}

/// Does something with redb, which panics on some damage; this is an error here.
fn caught<T>(work: impl FnOnce() -> Result<T, FileError>) -> Result<T, FileError> {
    static HOOK: Once = Once::new();
    thread_local! {
        static CATCHING: Cell<bool> = const { Cell::new(false) };
    }
    HOOK.call_once(|| {
        let report = panic::take_hook();
        // The error is the report.
        panic::set_hook(Box::new(move |info| {
            if !CATCHING.get() {
                report(info);
            }
        }));
    });
    CATCHING.set(true);
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(false);
    done.unwrap_or_else(|panic| Err(damaged(message(&*panic))))
}

fn message(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(message), _) => message,
        (_, Some(message)) => message,
        (None, None) => "a panic without a message",
    }
}

fn damaged(message: &str) -> FileError {
    redb::Error::Corrupted(message.to_owned()).into()
}

/// Opens a file after a look at all of it. One that is refused is left as it is.
fn open_whole<E: Record>(
    file: Arc<dyn Backend>,
    planted: Planted<Bug>,
) -> Result<Open<E>, FileError> {
    let held = Held::new(file, planted);
    if held.len()? == 0 {
        // redb would begin a new one here.
        return Err(damaged("it is empty"));
    }
    extend_to_layout(&held, planted)?;
    let mut database = builder().create_with_backend(held.clone())?;
    // Every page has a checksum, and all of them are looked at. Since each commit has two phases,
    // the last one is never given up for the one before. What is set right is which pages are free.
    database.check_integrity()?;
    database.begin_read()?.open_table(table::<E>())?;
    held.release()?;
    Ok(Open {
        committed: None,
        database,
        held,
    })
}

/// How redb divides a file: the size of a page, and how many pages of a region are its header and
/// its data.
const LAYOUT: [u32; 3] = [4096, 130, 1 << 20];

/// Where these are in the file, and behind them how many regions are full, and how many pages the
/// last one has.
const LAYOUT_AT: u64 = 12;

/// Looks at the part of the header that no checksum covers, and by which redb goes: with some other
/// values there it neither opens the file nor refuses it.
///
/// A file may be shorter than its header says, where the power was lost while it grew: a disk may
/// keep the header and lose the length, and with it nothing that was committed. Then it gets the
/// length, in memory as yet, and its checksums say whether it is whole.
fn extend_to_layout(file: &Held, planted: Planted<Bug>) -> Result<(), FileError> {
    let bytes = file.read(LAYOUT_AT, 20)?;
    let mut fields = bytes.chunks_exact(4).map(|field| {
        let number = field.iter().rev();
        number.fold(0, |number, byte| number << 8 | u64::from(*byte))
    });
    let layout: Vec<u64> = fields.by_ref().take(3).collect();
    if layout != LAYOUT.map(u64::from) {
        return Err(damaged("its header does not say how it is divided"));
    }
    let [page, header, data] = LAYOUT.map(u64::from);
    let (full, last) = (fields.next().unwrap_or(0), fields.next().unwrap_or(0));
    let last_region = if last == 0 { 0 } else { header + last };
    // The file's own first page, and the regions. After a crash there may be more of it.
    let pages = 1 + full * (header + data) + last_region;
    let (needed, has) = (pages.saturating_mul(page), file.len()?);
    // redb makes a file twice as large when it grows, or larger by a region.
    let most = has
        .saturating_mul(2)
        .max(has.saturating_add((header + data) * page));
    if last > data || needed > most {
        return Err(damaged("it is much shorter than its header says"));
    }
    if needed > has {
        if planted.is(Bug::UnsyncedGrowth) {
            return Err(damaged("it is shorter than its header says"));
        }
        file.set_len(needed)?;
    }
    Ok(())
}

/// Makes an empty file under another name first: one with this name is whole.
fn create<E: Record>(directory: &Path, path: &Path) -> Result<(), FileError> {
    let new = path.with_extension(format!("new-{}", std::process::id()));
    // Half made by a process that died, and had the same number.
    if new.try_exists()? {
        fs::remove_file(&new)?;
    }
    fill::<E>(&builder().create(&new)?)?;
    // Where another process was quicker, its file stays.
    match fs::hard_link(&new, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        linked => linked?,
    }
    fs::remove_file(&new)?;
    sync_directory(directory)?;
    Ok(())
}

fn fill<E: Record>(database: &Database) -> Result<(), FileError> {
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    transaction.open_table(table::<E>())?;
    transaction.commit()?;
    Ok(())
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    // The newer format has checksums also for what is free, and later versions of redb read no
    // other.
    builder.create_with_file_format_v3(true);
    builder.set_cache_size(CACHE);
    builder
}

/// Makes a directory, and those above it, so that their names last.
fn make_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let above = match directory.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
    make_directory(above)?;
    match fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Another process may have been quicker.
            if !directory.is_dir() {
                return Err(io::ErrorKind::NotADirectory.into());
            }
        }
        made => made?,
    }
    sync_directory(above)
}

/// Makes the names in a directory last.
fn sync_directory(directory: &Path) -> io::Result<()> {
    // Elsewhere a directory cannot be opened, and need not be.
    if cfg!(unix) {
        fs::File::open(directory)?.sync_all()?;
    }
    Ok(())
}

/// Why a replica has no file.
#[derive(Debug)]
pub struct OpenError {
    path: PathBuf,
    cause: FileError,
}

/// Why the file of a replica cannot be used.
// Those of redb are large.
#[derive(Debug)]
pub struct FileError(Box<redb::Error>);

impl FileError {
    /// Whether the file is not as it was written, rather than out of reach.
    pub fn is_damage(&self) -> bool {
        use io::ErrorKind::{InvalidData, UnexpectedEof};

        match &*self.0 {
            redb::Error::DatabaseAlreadyOpen | redb::Error::PreviousIo => false,
            // These two are redb's, about what it reads.
            redb::Error::Io(error) => matches!(error.kind(), InvalidData | UnexpectedEof),
            _ => true,
        }
    }
}

impl<E: Into<redb::Error>> From<E> for FileError {
    fn from(error: E) -> Self {
        Self(Box::new(error.into()))
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &*self.cause.0 {
            redb::Error::DatabaseAlreadyOpen => {
                write!(f, "{path} is in use by another replica")
            }
            // Without redb's words before the system's.
            redb::Error::Io(error) if !self.cause.is_damage() => write!(f, "{path}: {error}"),
            error if !self.cause.is_damage() => write!(f, "{path}: {error}"),
            cause => write!(
                f,
                "{path} is damaged, or not the file of a replica ({cause}); it was left as it is: restore it from \
                 a backup, or move it away to start empty, without what the replica acknowledged"
            ),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.cause.0)
    }
}

#[cfg(test)]
mod tests {
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
}
