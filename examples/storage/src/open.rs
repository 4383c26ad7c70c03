//! How the store of a replica is set up and opened by a program.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use cluster_shell::{ReplicaStore, Trouble};
use gorums::runtime::SystemClock;
use gorums::{Configuration, Status};

use crate::disk::{self, Disk, Health, Verified};
use crate::rejoin::proto::FILE_DESCRIPTOR_SET;
use crate::rejoin::proto::rejoin_server::RejoinServer;
use crate::rejoin::{self, Found, Seat, SlateFile, Source, Transfer};
use crate::store::Store;

impl<E: Transfer> ReplicaStore for Store<E> {
    type OpenError = OpenError;
    type Source = RejoinServer<Source<E>>;

    const SOURCE_DESCRIPTORS: &'static [u8] = FILE_DESCRIPTOR_SET;

    fn open(directory: Option<&Path>, id: u32, replicas: Option<usize>) -> Result<Self, OpenError> {
        let Some(directory) = directory else {
            return Ok(Self::in_memory());
        };
        if let Some(replicas) = replicas {
            return open_among(directory, id, replicas);
        }
        match with(&mut SlateFile::new(directory, id), Seat::look)? {
            // It was never set up, so that nothing says whether it had data.
            Found::Nothing => {}
            Found::Whole if Disk::<E>::is_there(directory, id)? => {}
            Found::Whole | Found::Lost(_) => return Err(OpenError::Alone(id)),
        }
        Ok(Self::on_disk(Disk::open(directory, id)?, None))
    }

    fn is_set_up(directory: &Path, id: u32) -> Result<bool, OpenError> {
        let found = with(&mut SlateFile::new(directory, id), Seat::look)?;
        Ok(found != Found::Nothing)
    }

    fn set_up(directory: &Path, id: u32, accept_loss: bool) -> Result<String, OpenError> {
        let mut slate = SlateFile::new(directory, id);
        let is_there = Disk::<E>::is_there(directory, id)?;
        let found = with(&mut slate, Seat::look)?;
        let is_lost = match found {
            Found::Nothing => false,
            Found::Whole | Found::Lost(_) if !is_there => true,
            Found::Whole | Found::Lost(_) => accept_loss && is_lost::<E>(directory, id)?,
        };
        let found = match is_lost {
            true => Found::Lost(Vec::new()),
            false => found,
        };
        let mut text = match (&found, is_there) {
            (Found::Nothing, false) => format!("replica {id} is set up, with no data"),
            (Found::Nothing, true) => format!("replica {id} is set up, with the data that it has"),
            (Found::Whole, _) => return Err(OpenError::IsSetUp(id)),
            (Found::Lost(_), _) if !accept_loss => return Err(OpenError::Lost(id)),
            (Found::Lost(from), _) => accepted(id, from),
        };
        if is_lost {
            // Before there is a new file, which would be taken for the data.
            with(&mut slate, Seat::declare_lost)?;
        }
        if found != Found::Nothing || !is_there {
            // It cannot be opened where the replica runs. Data that are there are looked at when it
            // is started.
            match Disk::<E>::make(directory, id) {
                Err(error) if error.loss().is_some() && is_lost => {
                    let kept = set_aside::<E>(directory, id)?;
                    Disk::<E>::make(directory, id)?;
                    text += &format!(". {}", error.finding());
                    if let Some(kept) = kept {
                        text += &format!("; {kept}");
                    }
                }
                made => made?,
            }
        }
        with(&mut slate, Seat::declare_whole)?;
        Ok(text)
    }

    fn verify(directory: &Path, id: u32) -> Result<String, OpenError> {
        let verified = Disk::<E>::verify_closed(directory, id)?;
        let Verified {
            records,
            answers,
            commits,
            bytes,
        } = verified;
        Ok(format!(
            "its file is whole: {records} records, {answers} answers to calls, {commits} commits, {bytes} bytes"
        ))
    }

    fn source(self: &Arc<Self>) -> Self::Source {
        RejoinServer::new(Source::new(Arc::clone(self)))
    }

    async fn catch_up(self: Arc<Self>, others: Configuration, mut tell: impl FnMut(String) + Send) {
        if let Some(loss) = self.loss() {
            tell(loss.to_owned());
        }
        rejoin::catch_up(&self, &others, Arc::new(SystemClock), tell).await;
    }

    async fn notes(replicas: &Configuration) -> BTreeMap<u32, String> {
        rejoin::notes(replicas).await
    }

    fn trouble(&self) -> Option<Trouble> {
        let (text, is_serving) = match self.health() {
            Health::Healthy => return None,
            Health::Full => ("its disk is full", true),
            Health::Stalled(_) => ("its disk stalls", false),
            // It answers what it has, and the next write tells whether the disk is well again.
            Health::Failing => ("its disk fails", true),
        };
        Some(Trouble { text, is_serving })
    }

    async fn failed(&self) -> Status {
        self.failed().await
    }

    async fn close(&self) {
        self.close().await;
    }
}

/// Opens the store of one of so many replicas. Where its data are lost, because they are gone or not
/// what they were, its seat says so, and it begins with nothing.
fn open_among<E: Transfer>(
    directory: &Path,
    id: u32,
    replicas: usize,
) -> Result<Store<E>, OpenError> {
    let has_others = replicas > 1;
    // A file that is not there is not made yet: a new one that a crash leaves before the slate says
    // that the data are lost would be taken for them.
    let opened = match Disk::<E>::is_there(directory, id)? {
        true => Disk::open(directory, id).map(Some),
        false => Ok(None),
    };
    let (disk, finding) = match opened {
        Err(error) if error.loss().is_some() && has_others => (None, error.finding()),
        opened => (opened?, format!("the file of replica {id} is gone")),
    };
    let found = disk.as_ref().and_then(Disk::found);
    let has_data = found.is_some_and(|found| found != disk::Found::New);
    let slate = SlateFile::new(directory, id);
    let path = slate.path().to_owned();
    let seat = Seat::open(id, replicas, slate, has_data);
    let seat = seat.map_err(|cause| OpenError::Slate { path, cause })?;
    if let Some(disk) = disk {
        return Ok(Store::on_disk(disk, Some(seat)));
    }
    let kept = match has_others {
        true => set_aside::<E>(directory, id)?,
        false => None,
    };
    let loss = kept.map(|kept| format!("{finding}; {kept}"));
    let store = Store::on_disk(Disk::open(directory, id)?, Some(seat));
    Ok(store.with_loss(loss))
}

/// Whether what a replica has on its disk is lost, of one that does not run.
fn is_lost<E: Transfer>(directory: &Path, id: u32) -> Result<bool, OpenError> {
    match Disk::<E>::verify_closed(directory, id) {
        Ok(_) => Ok(false),
        Err(error) if error.loss().is_some() => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Makes room for a new file, and says under which names there is what was left of the old one, if
/// anything was.
fn set_aside<E: Transfer>(directory: &Path, id: u32) -> Result<Option<String>, OpenError> {
    let kept = Disk::<E>::set_aside(directory, id)?;
    let names: Vec<_> = kept.iter().map(|path| path.display().to_string()).collect();
    let kept = || format!("what is left is kept as {}", names.join(" and "));
    Ok((!names.is_empty()).then(kept))
}

/// Does something with the slate in a file.
fn with<T>(
    slate: &mut SlateFile,
    work: impl FnOnce(&mut SlateFile) -> io::Result<T>,
) -> Result<T, OpenError> {
    work(slate).map_err(|cause| OpenError::Slate {
        path: slate.path().to_owned(),
        cause,
    })
}

/// What is told of a replica that answers though it has not got its data again.
fn accepted(id: u32, from: &[u32]) -> String {
    let from: Vec<_> = from.iter().map(u32::to_string).collect();
    let has = match from.as_slice() {
        [] => "no other replica has given it all of its data".to_owned(),
        from => format!("all the data of replica {}", from.join(" and replica ")),
    };
    format!(
        "replica {id} answers from now on with what it has ({has}). Whatever was acknowledged, and is neither there \
         nor with the others, is lost: reads may return older values than before, or none. Others that have lost \
         theirs catch up by themselves as soon as there are enough to catch up from"
    )
}

/// Why a replica has no store.
#[derive(Debug)]
pub enum OpenError {
    /// What it has stored cannot be had.
    Disk(disk::OpenError),
    /// What it has written down of itself cannot be read or written.
    Slate {
        /// Where that is.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// The replica has lost its data, and is not told whom to ask.
    Alone(u32),
    /// It is not new.
    IsSetUp(u32),
    /// It is not new, and has lost its data.
    Lost(u32),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(error) if error.loss().is_some() => write!(
                f,
                "{error}; or start it with --peers, so that it gets its data again from the others"
            ),
            Self::Disk(error) => error.fmt(f),
            Self::Slate { path, cause } => write!(f, "{}: {cause}", path.display()),
            Self::Alone(id) => write!(
                f,
                "replica {id} has lost its data: start it with --peers, so that it gets them again from the others"
            ),
            Self::IsSetUp(id) => write!(f, "replica {id} is set up already, and has its data"),
            Self::Lost(id) => write!(
                f,
                "replica {id} has lost its data, or was served before it was set up: \"serve\" with --peers gets them \
                 again from the others. Only where too many have lost theirs, so that this cannot end, --accept-loss lets it answer \
                 with what it has; whatever was acknowledged and is with nobody else is lost then"
            ),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Disk(error) => Some(error),
            Self::Slate { cause, .. } => Some(cause),
            Self::Alone(_) | Self::IsSetUp(_) | Self::Lost(_) => None,
        }
    }
}

impl From<disk::OpenError> for OpenError {
    fn from(error: disk::OpenError) -> Self {
        Self::Disk(error)
    }
}
