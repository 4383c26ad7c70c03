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
mod tests;
