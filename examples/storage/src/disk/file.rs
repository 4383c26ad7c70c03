//! The file of a replica: made where there is none, and refused where it is not as it was written.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, fs, io};

use gorums::server::{Answered, CallKey, KeyedCall};
use redb::StorageBackend;

use super::caught::caught;
use super::database::{Open, create, fill_backend, open_whole};
use super::directory;
use super::error::{FileError, Loss, OpenError};
use super::held::is_no_room;
use super::native::{Backend, Native, Within, as_it_is};
use super::reserve::RESERVE;
use super::seal::{Identity, Seal};
use super::{Commit, Found, Page, Record, Volume};
use crate::planted::{Bug, Planted};

/// How many syncs may fail, without a commit that succeeds in between, before the disk counts as
/// broken.
const FAILED_SYNCS: u32 = 3;

/// How many bytes are verified at a time.
const VERIFIED: u64 = 1 << 20;

/// The file of a replica. Its calls wait for the disk, and keep the thread meanwhile.
pub struct File<E: Record> {
    /// `None` when it is being closed, or opened again.
    open: Option<Open<E>>,
    /// What the database is in. It keeps the file locked while the database is opened again.
    backend: Arc<dyn Backend>,
    named: Option<Named>,
    /// How many syncs have failed since the last commit that succeeded.
    failed_syncs: u32,
    /// Whether the reserve is there.
    has_reserve: bool,
    /// A commit had no room, and there was too little since.
    had_no_room: bool,
    planted: Planted<Bug>,
}

/// A file in a directory, and what is beside it.
struct Named {
    path: PathBuf,
    seal: Seal,
    /// What the seal says.
    sealed: Identity,
    found: Found,
}

impl<E: Record> File<E> {
    /// Opens the file of a replica in this directory. Both are made where there is none.
    pub(super) fn open(directory: &Path, id: u32, within: Within<'_>) -> Result<Self, OpenError> {
        directory::make(directory).map_err(|error| OpenError::at(directory, error))?;
        let path = directory::path(directory, id);
        let seal = Seal::at(directory::seal(&path));
        let sealed = seal.read();
        let sealed = sealed.map_err(|error| OpenError::at(seal.path(), error))?;
        let is_there = path.try_exists();
        let is_there = is_there.map_err(|error| OpenError::at(&path, error))?;
        if !is_there && sealed.is_none() {
            let created = caught(|| create::<E>(directory, &path, Identity::new(id)));
            created.map_err(|error| OpenError::at(&path, error))?;
        }
        let mut file = Self::whole(&path, id, &seal, sealed, within)?;
        let identity = file.opened().identity;
        let found = match sealed {
            None => Found::New,
            Some(sealed) if sealed.commits == identity.commits => Found::Closed,
            Some(_) => Found::Interrupted,
        };
        file.has_reserve = file.backend.take_reserve();
        let released = caught(|| file.release());
        released.map_err(|error| OpenError::at(&path, error))?;
        if sealed != Some(identity) {
            match file.sealing(|| seal.write(identity)) {
                // The one that is there is right as well.
                Err(error) if sealed.is_some() && is_no_room(&error) => {}
                written => written.map_err(|error| OpenError::at(seal.path(), error))?,
            }
        }
        file.named = Some(Named {
            path,
            seal,
            sealed: identity,
            found,
        });
        Ok(file)
    }

    /// Opens the file at this path without changing anything, where it is the one that it should be.
    fn whole(
        path: &Path,
        id: u32,
        seal: &Seal,
        sealed: Option<Identity>,
        within: Within<'_>,
    ) -> Result<Self, OpenError> {
        let opened = caught(|| {
            let file = fs::File::options().read(true).write(true).open(path);
            let backend = Native::new(file?, &directory::reserve(path))?;
            let backend = within(Arc::new(backend));
            refresh(&*backend)?;
            File::planted(backend, Planted::default())
        });
        let mut file = match opened {
            Err(error) if error.is_not_found() => {
                return Err(OpenError::lost(
                    path,
                    Loss::Missing,
                    format!(
                        "is gone: {} is there, and tells of it",
                        seal.path().display(),
                    ),
                ));
            }
            opened => opened.map_err(|error| OpenError::at(path, error))?,
        };
        let Identity {
            replica, commits, ..
        } = file.opened().identity;
        let lost = |loss, text| Err(OpenError::lost(path, loss, text));
        match sealed {
            _ if replica != id => lost(Loss::Foreign, format!("is the file of replica {replica}")),
            None if commits == 0 => Ok(file),
            None => {
                let text = format!("is gone, which belongs to {}", path.display());
                Err(OpenError::lost(seal.path(), Loss::Missing, text))
            }
            Some(sealed) if sealed.file != file.opened().identity.file => lost(
                Loss::Foreign,
                format!(
                    "is another file than the one that {} tells of",
                    seal.path().display()
                ),
            ),
            Some(sealed) if sealed.commits > commits => lost(
                Loss::Older,
                format!(
                    "is an older copy: it has {commits} commits, and {} tells of {}",
                    seal.path().display(),
                    sealed.commits
                ),
            ),
            Some(_) => Ok(file),
        }
    }

    /// Looks at all of the file of a replica that does not run, and changes nothing.
    pub(super) fn verify_closed(directory: &Path, id: u32) -> Result<Verified, OpenError> {
        let path = directory::path(directory, id);
        let seal = Seal::at(directory::seal(&path));
        let sealed = seal.read();
        let sealed = sealed.map_err(|error| OpenError::at(seal.path(), error))?;
        if sealed.is_none() {
            let there = fs::metadata(&path);
            there.map_err(|error| OpenError::at(&path, error))?;
        }
        let mut file = Self::whole(&path, id, &seal, sealed, &as_it_is)?;
        let verified = caught(|| {
            let open = file.opened();
            Ok(Verified {
                records: open.count()?,
                answers: open.count_answers()?,
                bytes: open.held.len()?,
                commits: open.identity.commits,
            })
        });
        verified.map_err(|error| OpenError::at(&path, error))
    }

    /// What was there when it was opened. Of a file without a directory nothing is known.
    pub(super) fn found(&self) -> Option<Found> {
        self.named.as_ref().map(|named| named.found)
    }

    /// The file of a replica that is kept there, wherever that is. One that is new has to be
    /// [filled](Self::fill) before.
    ///
    /// # Errors
    ///
    /// Where it cannot be read, or is not as it was written. It is left as it is.
    pub fn on(backend: Arc<dyn Backend>) -> Result<Self, FileError> {
        Self::released(backend, Planted::default())
    }

    /// The same with a mistake in it.
    ///
    /// # Errors
    ///
    /// As for [`on`](Self::on).
    #[cfg(feature = "planted-bugs")]
    pub fn on_with_bug(backend: Arc<dyn Backend>, bug: Bug) -> Result<Self, FileError> {
        Self::released(backend, Planted::one(bug))
    }

    /// Makes an empty place the file of a replica that has no records yet, and no number. A crash
    /// may leave a part of it, so it is to be given its name afterwards.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub fn fill(backend: impl StorageBackend) -> Result<(), FileError> {
        let nobody = Identity {
            replica: 0,
            file: 0,
            commits: 0,
        };
        caught(|| fill_backend::<E>(backend, nobody))
    }

    fn released(backend: Arc<dyn Backend>, planted: Planted<Bug>) -> Result<Self, FileError> {
        caught(|| {
            refresh(&*backend)?;
            let mut file = Self::planted(backend, planted)?;
            file.has_reserve = file.backend.take_reserve();
            file.release()?;
            Ok(file)
        })
    }

    /// A file of which nothing is changed yet.
    fn planted(backend: Arc<dyn Backend>, planted: Planted<Bug>) -> Result<Self, FileError> {
        let open = Some(open_whole(Arc::clone(&backend), planted)?);
        Ok(Self {
            open,
            backend,
            named: None,
            failed_syncs: 0,
            has_reserve: false,
            had_no_room: false,
            planted,
        })
    }

    fn opened(&mut self) -> &mut Open<E> {
        let open = self.open.as_mut();
        open.expect("it is there until the file is dropped, or its volume has failed")
    }

    /// Makes the changes that opening the file has left to be made, where there is room: with the
    /// reserve, if need be. Whether they are made. Otherwise it can be read, and not written to.
    fn release(&mut self) -> Result<bool, FileError> {
        let held = self.opened().held.clone();
        Ok(held.release()? || self.give_reserve() && held.release()?)
    }

    /// Does something for which the reserve is kept.
    fn sealing(&mut self, work: impl Fn() -> io::Result<()>) -> io::Result<()> {
        match work() {
            Err(error) if is_no_room(&error) && self.give_reserve() => work(),
            done => done,
        }
    }

    fn give_reserve(&mut self) -> bool {
        self.has_reserve = false;
        self.backend.release_reserve()
    }

    /// Opens the file again, since redb does nothing more with one that it could not write to.
    fn open_again(&mut self) -> Result<(), FileError> {
        self.open = Some(open_whole(Arc::clone(&self.backend), self.planted)?);
        self.release()?;
        Ok(())
    }

    /// Gives up what did not fit.
    fn without_room(&mut self) -> Result<(), FileError> {
        if let Some(Open { held, database, .. }) = self.open.take() {
            // Before that it could still write.
            drop(database);
            held.give_back();
        }
        self.open_again()
    }

    /// After a sync that has failed the system may have in memory what is not on the disk, and take
    /// it for written: another sync would succeed, and mean nothing. So what is in memory is given
    /// up, and what is on the disk is looked at as after a loss of power.
    fn without_sync(&mut self, cause: FileError) -> Result<String, FileError> {
        self.failed_syncs += 1;
        if self.failed_syncs >= FAILED_SYNCS {
            return Err(cause);
        }
        self.open = None;
        if !matches!(refresh(&*self.backend), Ok(true)) {
            // Nobody can say what is on the disk.
            return Err(cause);
        }
        self.open_again()?;
        Ok(cause.to_string())
    }
}

/// What a look at all of a file has found, where it is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// How many records there are.
    pub records: u64,
    /// How many calls there are whose answers are kept.
    pub answers: u64,
    /// How long the file is.
    pub bytes: u64,
    /// How many commits there were.
    pub commits: u64,
}

impl<E: Record> Volume<E> for File<E> {
    type Error = FileError;

    async fn read(&mut self, key: &str) -> Result<Option<E>, FileError> {
        let read = caught(|| self.opened().read(key));
        read.map_err(|error| error.of(self.place()))
    }

    async fn page(&mut self, after: Option<&str>) -> Result<Page<E>, FileError> {
        let page = caught(|| self.opened().page(after));
        page.map_err(|error| error.of(self.place()))
    }

    async fn answered(&mut self, call: KeyedCall) -> Result<Answered<Vec<u8>>, FileError> {
        let answered = caught(|| self.opened().answered(call));
        answered.map_err(|error| error.of(self.place()))
    }

    async fn commit(
        &mut self,
        records: &[(&str, &E)],
        answers: &[(CallKey, &[u8])],
    ) -> Result<Commit, FileError> {
        let committed = self.try_commit(records, answers);
        committed.map_err(|error| error.of(self.place()))
    }

    async fn verify(&mut self, from: u64) -> Result<Option<u64>, FileError> {
        let held = &self.opened().held;
        let verified = caught(|| Ok(held.verify(from, VERIFIED)?));
        let verified = match verified {
            // Nothing may be in this page any more.
            Err(error) if error.is_damage() => {
                let opened = caught(|| {
                    self.open = None;
                    self.open_again()
                });
                opened.map(|()| from.checked_add(VERIFIED))
            }
            verified => verified,
        };
        verified.map_err(|error| error.of(self.place()))
    }

    fn place(&self) -> Option<&Path> {
        self.named.as_ref().map(|named| &*named.path)
    }

    fn is_full(&self) -> bool {
        !self.has_reserve || self.had_no_room
    }
}

impl<E: Record> File<E> {
    fn try_commit(
        &mut self,
        records: &[(&str, &E)],
        answers: &[(CallKey, &[u8])],
    ) -> Result<Commit, FileError> {
        if !self.opened().held.is_released() && !caught(|| self.release())? {
            return Ok(Commit::NoRoom);
        }
        let open = self.opened();
        let Err(error) = caught(|| open.commit(records, answers)) else {
            self.failed_syncs = 0;
            self.has_reserve = self.backend.take_reserve();
            if self.had_no_room {
                self.had_no_room = !self.backend.has_room(RESERVE);
            }
            return Ok(Commit::Done);
        };
        if open.held.has_not_synced() {
            let text = caught(|| self.without_sync(error))?;
            Ok(Commit::NotSynced(text))
        } else if open.held.had_no_room() {
            self.had_no_room = true;
            caught(|| self.without_room())?;
            Ok(Commit::NoRoom)
        } else {
            Err(error)
        }
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
        let Some(open) = self.open.take() else { return };
        let identity = open.identity;
        let closed = caught(|| {
            drop(open);
            Ok(())
        });
        let Some(Named { seal, sealed, .. }) = self.named.take() else {
            return;
        };
        if closed.is_ok() && sealed != identity {
            // Where this cannot be done the old one is right, and knows of less.
            let _ = self.sealing(|| seal.write(identity));
        }
    }
}

/// Sees to it that the file is read from the disk, whatever was in memory. Whether that can be had.
fn refresh(file: &dyn Backend) -> Result<bool, FileError> {
    // What another process has written, and was killed before it could sync it.
    file.sync_data(false)?;
    Ok(file.forget(0, file.len()?)?)
}

#[cfg(test)]
pub(super) mod simulated;
#[cfg(test)]
mod tests;
