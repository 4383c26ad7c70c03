//! The file of a replica: made where there is none, and refused where it is not as it was written.

use std::any::Any;
use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::marker::PhantomData;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Once;

use redb::backends::FileBackend;
use redb::{Database, StorageBackend, TableDefinition};

use super::held::Held;
use super::{Record, Volume};

/// The records by their keys. Their type is part of the file: it cannot be opened as one of another
/// program.
fn table<E: Record>() -> TableDefinition<'static, &'static str, E::Stored> {
    TableDefinition::new("values")
}

/// How much of a file is kept in memory, in bytes.
const CACHE: usize = 64 << 20;

/// The file of a replica. Its calls wait for the disk, and keep the thread meanwhile.
pub(super) struct File<E> {
    /// `None` when it is being closed.
    database: Option<Database>,
    records: PhantomData<fn(E)>,
}

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
            open_whole::<E>(FileBackend::new(file)?)
        });
        match opened {
            Ok(database) => Ok(Self {
                database: Some(database),
                records: PhantomData,
            }),
            Err(cause) => Err(OpenError { path, cause }),
        }
    }

    fn database(&self) -> &Database {
        let database = self.database.as_ref();
        database.expect("it is there until the file is dropped")
    }
}

impl<E: Record> Volume<E> for File<E> {
    type Error = Cause;

    async fn read(&mut self, keys: &[String]) -> Result<Vec<Option<E>>, Cause> {
        caught(|| {
            let values = self.database().begin_read()?.open_table(table::<E>())?;
            let found = keys.iter().map(|key| {
                let found = values.get(&**key)?;
                Ok(found.map(|found| E::from_stored(found.value())))
            });
            found.collect()
        })
    }

    async fn commit(&mut self, entries: HashMap<String, E>) -> Result<(), Cause> {
        caught(|| {
            let mut transaction = self.database().begin_write()?;
            // So a commit is never taken back when the file is opened after a crash.
            transaction.set_two_phase_commit(true);
            let mut values = transaction.open_table(table::<E>())?;
            for (key, entry) in &entries {
                values.insert(&**key, entry.stored())?;
            }
            drop(values);
            transaction.commit()?;
            Ok(())
        })
    }
}

impl<E> Drop for File<E> {
    fn drop(&mut self) {
        // What was committed is there, whatever becomes of this.
        let _ = caught(|| {
            self.database = None;
            Ok(())
        });
    }
}

/// Does something with redb, which panics on some damage; this is an error here.
fn caught<T>(work: impl FnOnce() -> Result<T, Cause>) -> Result<T, Cause> {
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

fn damaged(message: &str) -> Cause {
    redb::Error::Corrupted(message.to_owned()).into()
}

/// Opens a file after a look at all of it. One that is refused is left as it is.
fn open_whole<E: Record>(file: impl StorageBackend) -> Result<Database, Cause> {
    let held = Held::new(file);
    if held.len()? == 0 {
        // redb would begin a new one here.
        return Err(damaged("it is empty"));
    }
    check_layout(&held)?;
    let mut database = builder().create_with_backend(held.clone())?;
    // Every page has a checksum, and all of them are looked at. Since each commit has two phases,
    // the last one is never given up for the one before. What is set right is which pages are free.
    database.check_integrity()?;
    database.begin_read()?.open_table(table::<E>())?;
    held.release()?;
    Ok(database)
}

/// How redb divides a file: the size of a page, and how many pages of a region are its header and
/// its data.
const LAYOUT: [u32; 3] = [4096, 130, 1 << 20];

/// Where these are in the file, and behind them how many regions are full, and how many pages the
/// last one has.
const LAYOUT_AT: u64 = 12;

/// Looks at the part of the header that no checksum covers, and by which redb goes: with some other
/// values there it neither opens the file nor refuses it.
fn check_layout(file: &Held) -> Result<(), Cause> {
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
    let last = if last == 0 { 0 } else { header + last };
    // The file's own first page, and the regions. After a crash there may be more of it.
    let pages = 1 + full * (header + data) + last;
    if pages.saturating_mul(page) > file.len()? {
        return Err(damaged("it is shorter than its header says"));
    }
    Ok(())
}

/// Makes an empty file under another name first: one with this name is whole.
fn create<E: Record>(directory: &Path, path: &Path) -> Result<(), Cause> {
    let new = path.with_extension(format!("new-{}", std::process::id()));
    // Half made by a process that died, and had the same number.
    if new.try_exists()? {
        fs::remove_file(&new)?;
    }
    let database = builder().create(&new)?;
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    transaction.open_table(table::<E>())?;
    transaction.commit()?;
    drop(database);
    // Where another process was quicker, its file stays.
    match fs::hard_link(&new, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        linked => linked?,
    }
    fs::remove_file(&new)?;
    sync_directory(directory)?;
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
    cause: Cause,
}

/// An error of redb's, which are large.
#[derive(Debug)]
pub(super) struct Cause(Box<redb::Error>);

impl<E: Into<redb::Error>> From<E> for Cause {
    fn from(error: E) -> Self {
        Self(Box::new(error.into()))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use io::ErrorKind::{InvalidData, UnexpectedEof};

        let path = self.path.display();
        match &*self.cause.0 {
            redb::Error::DatabaseAlreadyOpen => {
                write!(f, "{path} is in use by another replica")
            }
            // These two are redb's, about what it reads.
            redb::Error::Io(error) if !matches!(error.kind(), InvalidData | UnexpectedEof) => {
                write!(f, "{path}: {error}")
            }
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
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::store::{Entry, Time};

    /// A file of which a loss of power leaves what was synced.
    #[derive(Debug, Clone)]
    struct Powered(Arc<Mutex<Contents>>);

    #[derive(Debug)]
    struct Contents {
        now: Vec<u8>,
        synced: Vec<u8>,
    }

    impl Powered {
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
            self.with(|contents| contents.now.resize(len as usize, 0));
            Ok(())
        }

        fn sync_data(&self, eventual: bool) -> io::Result<()> {
            // What is synced at some time is not yet.
            if !eventual {
                self.with(|contents| contents.synced = contents.now.clone());
            }
            Ok(())
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.with(|contents| {
                contents.now[offset as usize..][..data.len()].copy_from_slice(data)
            });
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_was_committed_is_there_after_a_loss_of_power() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("replica-1.redb");
        drop(File::<Entry>::open(directory.path(), 1).expect("it can be opened"));
        let now = fs::read(&path).expect("a file");
        let synced = now.clone();
        let powered = Powered(Arc::new(Mutex::new(Contents { now, synced })));
        let mut file = File::<Entry> {
            database: Some(open_whole::<Entry>(powered.clone()).expect("it is whole")),
            records: PhantomData,
        };
        let keys = ["a".to_owned(), "b".to_owned()];
        for seconds in 1..=20 {
            let entry = Entry {
                // More of the file is used with each, and what was is free again.
                value: "v".repeat(1000 * seconds as usize),
                time: Time::from_parts(seconds, 0),
            };
            let entries = keys.iter().map(|key| (key.clone(), entry.clone()));
            file.commit(entries.collect()).await.expect("there is room");
            fs::write(&path, powered.with(|contents| contents.synced.clone())).expect("written");
            let mut left = File::<Entry>::open(directory.path(), 1).expect("it is whole");
            let found = left.read(&keys).await.expect("it is whole");
            assert!(found == [Some(entry.clone()), Some(entry)], "{seconds}");
        }
    }
}
