//! The disk of the simulation, as the stores of the examples want it.

use std::collections::HashMap;
use std::time::Duration;

use gorums_sim::{Disk, DiskError, Replica};
use storage::disk::{Record, Volume};
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

    async fn read(&mut self, keys: &[String]) -> Result<Vec<Option<E>>, DiskError> {
        let found = self
            .disk
            .read(|records| keys.iter().map(|key| records.get(key).cloned()).collect());
        let mut found: Vec<Option<E>> = found.await?;
        if let Some(cache) = &self.cache {
            for (key, found) in keys.iter().zip(&mut found) {
                if let Some(cached) = cache.get(key) {
                    *found = Some(cached.clone());
                }
            }
        }
        Ok(found)
    }

    async fn commit(&mut self, entries: HashMap<String, E>) -> Result<(), DiskError> {
        if let Some(cache) = &mut self.cache {
            cache.extend(entries.clone());
            let disk = self.disk.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                disk.commit(|records| records.extend(entries)).await
            });
            return Ok(());
        }
        self.disk.commit(|records| records.extend(entries)).await
    }
}
