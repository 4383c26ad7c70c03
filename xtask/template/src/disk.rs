//! Where a replica keeps its votes.

use std::fmt::Display;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use gorums::Status;
use prost::Message;
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;

use crate::proto::Votes;

/// A disk keeps what was saved last, also where the process is killed or loses its power. A
/// simulation has one of its own: see `tests/simulation.rs`.
pub trait Disk: Send + Sync + 'static {
    /// What was saved; nothing on a new disk.
    fn load(&self) -> impl Future<Output = Result<Votes, Status>> + Send;

    /// Returns when no failure takes it back. After an error, the disk has the old votes or the new
    /// ones.
    fn save(&self, votes: &Votes) -> impl Future<Output = Result<(), Status>> + Send;
}

/// A file, which is replaced as a whole, since a rename is done or not done.
pub struct VotesFile {
    folder: PathBuf,
}

impl VotesFile {
    /// The file in this folder, which is made where there is none.
    pub async fn open(folder: &Path) -> Result<Self, Status> {
        let made = fs::create_dir_all(folder).await;
        made.map_err(|error| failed(folder, &error))?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }
}

impl Disk for VotesFile {
    async fn load(&self) -> Result<Votes, Status> {
        let path = self.folder.join("votes");
        match fs::read(&path).await {
            Ok(bytes) => Votes::decode(&*bytes).map_err(|error| failed(&path, &error)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Votes::default()),
            Err(error) => Err(failed(&path, &error)),
        }
    }

    async fn save(&self, votes: &Votes) -> Result<(), Status> {
        let replaced = async {
            let (new, path) = (self.folder.join("votes.new"), self.folder.join("votes"));
            let mut file = File::create(&new).await?;
            file.write_all(&votes.encode_to_vec()).await?;
            file.sync_all().await?;
            fs::rename(&new, &path).await?;
            // The name is in the folder, which has to reach the disk, too.
            File::open(&self.folder).await?.sync_all().await
        };
        replaced.await.map_err(|error| failed(&self.folder, &error))
    }
}

fn failed(path: &Path, error: &dyn Display) -> Status {
    Status::internal(format!("{}: {error}", path.display()))
}
