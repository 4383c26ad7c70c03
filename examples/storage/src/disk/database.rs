//! redb in the file of a replica: opened after a look at all of it, read, and written to.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use gorums::server::{Answered, CallKey, KeyedCall};
use redb::{Database, ReadOnlyTable, ReadableTableMetadata, StorageBackend, TableDefinition};

use super::answers::{self, Answers};
use super::caught::caught;
use super::directory;
use super::error::{FileError, damaged};
use super::held::Held;
use super::layout::extend_to_layout;
use super::native::Backend;
use super::seal::Identity;
use super::{Page, Record};
use crate::planted::{Bug, Planted};

/// The records by their keys. Their type is part of the file: it cannot be opened as one of another
/// program.
fn table<E: Record>() -> TableDefinition<'static, &'static str, E::Stored> {
    TableDefinition::new("values")
}

/// What the file says of itself: whose it is, and how many commits there were.
const ABOUT: TableDefinition<'static, &'static str, u128> = TableDefinition::new("about");

/// How much of a file is kept in memory, in bytes.
const CACHE: usize = 64 << 20;

/// A file that was found whole.
pub(super) struct Open<E: Record> {
    /// What was committed, for reading. It is made where there is none.
    committed: Option<Committed<E>>,
    pub(super) database: Database,
    pub(super) held: Held,
    pub(super) identity: Identity,
}

/// What there is as of a commit.
struct Committed<E: Record> {
    records: ReadOnlyTable<&'static str, E::Stored>,
    answers: Option<Answers>,
}

impl<E: Record> Committed<E> {
    fn of(database: &Database) -> Result<Self, FileError> {
        let transaction = database.begin_read()?;
        Ok(Self {
            records: transaction.open_table(table::<E>())?,
            answers: Answers::of(&transaction)?,
        })
    }
}

impl<E: Record> Open<E> {
    /// How many records there are.
    pub(super) fn count(&mut self) -> Result<u64, FileError> {
        Ok(self.committed()?.records.len()?)
    }

    /// How many calls there are whose answers are kept.
    pub(super) fn count_answers(&mut self) -> Result<u64, FileError> {
        let answers = self.committed()?.answers.as_ref();
        answers.map_or(Ok(0), Answers::count)
    }

    fn committed(&mut self) -> Result<&Committed<E>, FileError> {
        Ok(match &mut self.committed {
            Some(committed) => committed,
            none => none.insert(Committed::of(&self.database)?),
        })
    }

    /// What is known of a call.
    pub(super) fn answered(&mut self, call: KeyedCall) -> Result<Answered<Vec<u8>>, FileError> {
        let answers = self.committed()?.answers.as_ref();
        answers.map_or(Ok(Answered::No), |answers| answers.find(call))
    }

    pub(super) fn read(&mut self, key: &str) -> Result<Option<E>, FileError> {
        let found = self.committed()?.records.get(key)?;
        Ok(found.map(|found| E::from_stored(found.value())))
    }

    /// The records behind this key, or the first ones.
    pub(super) fn page(&mut self, after: Option<&str>) -> Result<Page<E>, FileError> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self
            .committed()?
            .records
            .range::<&str>((after, Bound::Unbounded))?;
        Page::of(behind.map(|found| {
            let (key, record) = found?;
            Ok((key.value().to_owned(), E::from_stored(record.value())))
        }))
    }

    pub(super) fn commit(
        &mut self,
        records: &[(&str, &E)],
        answers: &[(CallKey, &[u8])],
    ) -> Result<(), FileError> {
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
        answers::keep(&transaction, answers)?;
        let commits = self.identity.commits + 1;
        let mut about = transaction.open_table(ABOUT)?;
        about.insert("commits", u128::from(commits))?;
        drop(about);
        transaction.commit()?;
        self.identity.commits = commits;
        Ok(())
    }
}

/// Opens a file after a look at all of it. One that is refused is left as it is.
pub(super) fn open_whole<E: Record>(
    file: Arc<dyn Backend>,
    planted: Planted<Bug>,
) -> Result<Open<E>, FileError> {
    let held = Held::new(Arc::clone(&file), planted);
    let opened = caught(|| open_held(held, CACHE, planted));
    match opened {
        Err(error) if error.is_damage() => {
            // redb does not say where. Without a cache it reads each page when it looks at it.
            let held = Held::new(file, planted);
            let again = caught(|| open_held::<E>(held.clone(), 0, planted).map(drop));
            let damage = again.err().filter(FileError::is_damage);
            // Of a panic it is not noted yet.
            Err(damage.unwrap_or(error).after_reading(held.last_read()))
        }
        opened => opened,
    }
}

pub(super) fn open_held<E: Record>(
    held: Held,
    cache: usize,
    planted: Planted<Bug>,
) -> Result<Open<E>, FileError> {
    if held.len()? == 0 {
        // redb would begin a new one here.
        return Err(damaged("it is empty"));
    }
    extend_to_layout(&held, planted)?;
    // Before redb closes what it has opened, and reads more.
    let noted = |error| FileError::from(error).after_reading(held.last_read());
    let opened = builder(cache).create_with_backend(held.clone());
    let mut database = opened.map_err(noted)?;
    // Every page has a checksum, and all of them are looked at. Since each commit has two phases,
    // the last one is never given up for the one before. What is set right is which pages are free.
    database.check_integrity().map_err(noted)?;
    let transaction = database.begin_read()?;
    transaction.open_table(table::<E>())?;
    Answers::of(&transaction)?;
    let about = transaction.open_table(ABOUT)?;
    let number = |name: &str| {
        let number = about.get(name)?.map(|number| number.value());
        number.ok_or_else(|| damaged("it does not say whose it is"))
    };
    let too_large = |_| damaged("it does not say whose it is in numbers that there are");
    let identity = Identity {
        replica: number("replica")?.try_into().map_err(too_large)?,
        file: number("file")?,
        commits: number("commits")?.try_into().map_err(too_large)?,
    };
    Ok(Open {
        committed: None,
        database,
        held,
        identity,
    })
}

/// Makes an empty file under another name first: one with this name is whole.
pub(super) fn create<E: Record>(
    directory: &Path,
    path: &Path,
    identity: Identity,
) -> Result<(), FileError> {
    let new = path.with_extension(format!("new-{}", std::process::id()));
    // Half made by a process that died, and had the same number.
    if new.try_exists()? {
        fs::remove_file(&new)?;
    }
    let filled = builder(CACHE).create(&new).map_err(FileError::from);
    let filled = filled.and_then(|database| fill::<E>(&database, identity));
    filled.inspect_err(|_| {
        // What is left of it takes room.
        let _ = fs::remove_file(&new);
    })?;
    // Where another process was quicker, its file stays.
    match fs::hard_link(&new, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        linked => linked?,
    }
    fs::remove_file(&new)?;
    directory::sync(directory)?;
    Ok(())
}

/// Makes an empty place the file of a replica.
pub(super) fn fill_backend<E: Record>(
    backend: impl StorageBackend,
    identity: Identity,
) -> Result<(), FileError> {
    fill::<E>(&builder(CACHE).create_with_backend(backend)?, identity)
}

fn fill<E: Record>(database: &Database, identity: Identity) -> Result<(), FileError> {
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    transaction.open_table(table::<E>())?;
    let mut about = transaction.open_table(ABOUT)?;
    about.insert("replica", u128::from(identity.replica))?;
    about.insert("file", identity.file)?;
    about.insert("commits", u128::from(identity.commits))?;
    drop(about);
    transaction.commit()?;
    Ok(())
}

/// How redb works here, with so many bytes of cache.
fn builder(cache: usize) -> redb::Builder {
    let mut builder = Database::builder();
    // The newer format has checksums also for what is free, and later versions of redb read no
    // other.
    builder.create_with_file_format_v3(true);
    builder.set_cache_size(cache);
    builder
}
