//! The disk of the simulation, as the stores of the examples want it.

use std::collections::HashMap;
use std::time::Duration;

use gorums_sim::{Disk, DiskError, Replica};
use storage::disk::{Commit, Record, Volume};
use storage::store::Store;

/// What a replica keeps for each key.
pub(crate) type Records<E> = HashMap<String, E>;

#[derive(Debug)]
struct SimVolume<E> {
    disk: Disk<Records<E>>,
    /// What was answered and is not on the disk yet, where the disk lies.
    cache: Option<Records<E>>,
}

/// A store on the replica's disk.
pub(crate) fn store<E: Record>(node: &Replica) -> Store<E> {
    on(SimVolume {
        disk: node.disk(),
        cache: None,
    })(node)
}

/// A store on the replica's disk, which answers before what it has is durable: a mistake.
pub(crate) fn lying_store<E: Record>(node: &Replica) -> Store<E> {
    on(SimVolume {
        disk: node.disk(),
        cache: Some(HashMap::new()),
    })(node)
}

fn on<E: Record>(volume: SimVolume<E>) -> impl FnOnce(&Replica) -> Store<E> {
    |node| {
        let (disk, work) = storage::disk::Disk::on(volume, node.id());
        tokio::spawn(work);
        Store::Disk(disk)
    }
}

impl<E: Record> Volume<E> for SimVolume<E> {
    type Error = DiskError;

    async fn read(&mut self, key: &str) -> Result<Option<E>, DiskError> {
        let found = self.disk.read(|records| records.get(key).cloned()).await?;
        let cached = self.cache.as_ref().and_then(|cache| cache.get(key));
        Ok(cached.cloned().or(found))
    }

    async fn commit(&mut self, records: &[(&str, &E)]) -> Result<Commit, DiskError> {
        let new = records
            .iter()
            .map(|&(key, record)| (key.to_owned(), record.clone()));
        let new: Records<E> = new.collect();
        if let Some(cache) = &mut self.cache {
            cache.extend(new.clone());
            let disk = self.disk.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                disk.commit(|records| records.extend(new)).await
            });
            return Ok(Commit::Done);
        }
        self.disk.commit(|records| records.extend(new)).await?;
        Ok(Commit::Done)
    }
}
