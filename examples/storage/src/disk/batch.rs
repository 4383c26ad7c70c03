//! Carries out requests in batches, of which each is on disk before any of it is answered.

use std::collections::{BTreeMap, HashMap, VecDeque};

use gorums::Status;
use gorums::server::{Answered, CallKey};
use tokio::sync::{mpsc, oneshot};

use super::change::{Change, Changed, Giving, forgotten};
use super::health::Pulse;
use super::room::{Place, Room};
use super::{Answer, Commit, FOUND_BYTES, REQUESTS, Read, Record, Request, Volume};

/// Who has the disk.
pub(super) struct Worker<E, V> {
    volume: V,
    requests: mpsc::Receiver<Request<E>>,
    /// What comes before them: it was begun, and put back.
    put_back: VecDeque<Request<E>>,
    /// Room for the bytes of records that were found.
    found: Room,
    pulse: Pulse,
    id: u32,
}

impl<E: Record, V: Volume<E>> Worker<E, V> {
    pub(super) fn new(
        volume: V,
        requests: mpsc::Receiver<Request<E>>,
        pulse: Pulse,
        id: u32,
    ) -> Self {
        pulse.full(volume.is_full());
        Self {
            volume,
            requests,
            put_back: VecDeque::new(),
            // A record may be there twice: as what is known of its key, and as an answer.
            found: Room::new(FOUND_BYTES, FOUND_BYTES / 2),
            pulse,
            id,
        }
    }

    /// What a write is told for which there is no room.
    fn no_room(&self) -> Status {
        let id = self.id;
        let mut text = format!("the disk of replica {id} has no room for this write");
        if let Some(path) = self.volume.place() {
            let path = path.display();
            text += &format!(": make room for {path}; it is used as soon as it is there");
        }
        Status::resource_exhausted(text)
    }

    /// What a write is told whose sync has failed.
    fn not_synced(&self, error: &str) -> Status {
        let id = self.id;
        let text =
            format!("the disk of replica {id} may have lost this write, or have it: {error}");
        Status::internal(text)
    }

    /// Carries out requests until nobody can send any, or the disk is to be closed. Returns who
    /// waits for that.
    pub(super) async fn work(&mut self) -> Result<Option<oneshot::Sender<()>>, V::Error> {
        while let Some(first) = self.next().await {
            match first {
                Request::Close(closed) => return Ok(Some(closed)),
                Request::Verify(from, reply) => {
                    let next = self.pulse.time(self.volume.verify(from)).await?;
                    // Whoever asked may have gone.
                    let _ = reply.send(next);
                }
                Request::Page(paging) => {
                    let after = paging.after.as_deref();
                    let page = self.pulse.time(self.volume.page(after)).await?;
                    paging.give(page);
                }
                first => {
                    let batch = self.collect(first).await?;
                    self.carry_out(batch).await?;
                }
            }
        }
        Ok(None)
    }

    /// The next request, when there is one.
    async fn next(&mut self) -> Option<Request<E>> {
        match self.put_back.pop_front() {
            Some(request) => Some(request),
            None => self.requests.recv().await,
        }
    }

    /// A batch of this request and of those that wait, up to its bounds.
    async fn collect(&mut self, first: Request<E>) -> Result<Batch<E>, V::Error> {
        let mut batch = Batch {
            known: HashMap::new(),
            kept: BTreeMap::new(),
            answers: Vec::new(),
        };
        let mut next = Some(first);
        while let Some(request) = next {
            if let Some(rest) = self.add(request, &mut batch).await? {
                self.put_back.push_front(rest);
                break;
            }
            if batch.answers.len() == REQUESTS {
                break;
            }
            let put_back = self.put_back.pop_front();
            next = put_back.or_else(|| self.requests.try_recv().ok());
        }
        Ok(batch)
    }

    /// Makes a request part of the batch, or gives it back where the batch has to end before it.
    async fn add(
        &mut self,
        request: Request<E>,
        batch: &mut Batch<E>,
    ) -> Result<Option<Request<E>>, V::Error> {
        match request {
            Request::Read(read) => {
                if !self.look_up(&read.key, batch).await? {
                    return Ok(Some(Request::Read(read)));
                }
                let known = batch.record(&read.key);
                let Some(place) = place(&self.found, batch.is_empty(), known).await else {
                    return Ok(Some(Request::Read(read)));
                };
                let found = Answer {
                    result: known.cloned(),
                    _place: Some(place),
                };
                batch.answers.push(Pending::Read(read, found));
                Ok(None)
            }
            Request::Change(change) => self.add_change(change, batch).await,
            // These end it: they see what is on disk, and nothing else.
            Request::Page(_) | Request::Verify(..) | Request::Close(_) => Ok(Some(request)),
        }
    }

    /// The same of a change, which has its effect unless its call was answered before.
    async fn add_change(
        &mut self,
        change: Change<E>,
        batch: &mut Batch<E>,
    ) -> Result<Option<Request<E>>, V::Error> {
        if let Some(call) = change.call {
            if let Some(answer) = batch.kept.get(&call.key) {
                let answer = Ok(answer.clone());
                batch.answers.push(Pending::Change(change.giving, answer));
                return Ok(None);
            }
            let answered = self.pulse.time(self.volume.answered(call)).await?;
            let answer = match answered {
                Answered::No => None,
                Answered::Yes(answer) => Some(Ok(answer)),
                Answered::Forgotten => Some(Err(forgotten())),
            };
            if let Some(answer) = answer {
                batch.answers.push(Pending::Again(change.giving, answer));
                return Ok(None);
            }
        }
        if !self.look_up(&change.key, batch).await? {
            return Ok(Some(Request::Change(change)));
        }
        let Change {
            key,
            call,
            work,
            giving,
        } = change;
        let changed = work(batch.record(&key)).map(|Changed { records, answer }| {
            for (key, record) in records {
                let known = Known {
                    record: Some(record),
                    changed: true,
                    _place: None,
                };
                batch.known.insert(key, known);
            }
            if let Some(call) = call {
                batch.kept.insert(call.key, answer.clone());
            }
            answer
        });
        batch.answers.push(Pending::Change(giving, changed));
        Ok(None)
    }

    /// Finds out what there is for a key. Whether the batch has room for it.
    async fn look_up(&mut self, key: &str, batch: &mut Batch<E>) -> Result<bool, V::Error> {
        if !batch.known.contains_key(key) {
            let record = self.pulse.time(self.volume.read(key)).await?;
            let Some(place) = place(&self.found, batch.is_empty(), record.as_ref()).await else {
                return Ok(false);
            };
            let known = Known {
                record,
                changed: false,
                _place: Some(place),
            };
            batch.known.insert(key.to_owned(), known);
        }
        Ok(true)
    }

    /// Makes a batch durable and answers it. After an error the disk may or may not have what it
    /// writes.
    async fn carry_out(&mut self, batch: Batch<E>) -> Result<(), V::Error> {
        let Batch {
            known,
            kept,
            answers,
        } = batch;
        let mut changed = Vec::new();
        for (key, known) in &known {
            if let (Some(record), true) = (&known.record, known.changed) {
                changed.push((&**key, record));
            }
        }
        // What is written follows from the requests, and not from the order of a map.
        changed.sort_unstable_by_key(|(key, _)| *key);
        let kept: Vec<_> = kept
            .iter()
            .map(|(call, answer)| (*call, &**answer))
            .collect();
        let commit = match changed.is_empty() && kept.is_empty() {
            true => Commit::Done,
            false => {
                let commit = self.volume.commit(&changed, &kept);
                let commit = self.pulse.time(commit).await?;
                self.note(&commit);
                commit
            }
        };
        drop(changed);
        drop(known);
        let refused = match commit {
            Commit::Done => {
                answers.into_iter().for_each(Pending::give);
                return Ok(());
            }
            Commit::NoRoom => self.no_room(),
            Commit::NotSynced(error) => self.not_synced(&error),
        };
        // The last one is put back first, so that they are in their order again.
        for answer in answers.into_iter().rev() {
            match answer {
                // It may have found what was to be written.
                Pending::Read(read, _) => self.put_back.push_front(Request::Read(read)),
                Pending::Change(giving, _) => giving.give(Err(refused.clone())),
                Pending::Again(..) => answer.give(),
            }
        }
        Ok(())
    }

    /// Notes what a commit says of the disk.
    fn note(&self, commit: &Commit) {
        match commit {
            Commit::Done => {
                self.pulse.failing(false);
                self.pulse.full(self.volume.is_full());
            }
            Commit::NoRoom => self.pulse.full(true),
            Commit::NotSynced(_) => self.pulse.failing(true),
        }
    }
}

/// Requests that are carried out together.
struct Batch<E> {
    /// What there is for each key that they are about.
    known: HashMap<String, Known<E>>,
    /// The answers to be kept, in an order that is always the same.
    kept: BTreeMap<CallKey, Vec<u8>>,
    answers: Vec<Pending<E>>,
}

impl<E: Record> Batch<E> {
    /// What there is for a key that was looked up.
    fn record(&self, key: &str) -> Option<&E> {
        self.known.get(key)?.record.as_ref()
    }

    fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }
}

/// A place for a record that was found. A batch that has begun does not wait for it: those who are to
/// take what is found may be waiting for this batch.
async fn place<E: Record>(room: &Room, is_first: bool, record: Option<&E>) -> Option<Place> {
    let bytes = record.map_or(0, Record::size);
    match is_first {
        true => Some(room.take(bytes).await),
        false => room.try_take(bytes),
    }
}

/// What there is for a key.
struct Known<E> {
    record: Option<E>,
    /// Whether it is to be written.
    changed: bool,
    /// Where the bytes of the record are counted. Those of one that is to be written are with its
    /// answer.
    _place: Option<Place>,
}

/// An answer that is given when everything before it is on disk.
enum Pending<E> {
    Read(Read<E>, Answer<Option<E>>),
    /// Of a change in this batch, whose answer comes true with it.
    Change(Giving, Result<Vec<u8>, Status>),
    /// Of a call that has come again, whatever becomes of this batch.
    Again(Giving, Result<Vec<u8>, Status>),
}

impl<E> Pending<E> {
    fn give(self) {
        match self {
            // Whoever asked may have gone.
            Self::Read(read, found) => drop(read.reply.send(Ok(found))),
            Self::Change(giving, answer) | Self::Again(giving, answer) => {
                giving.give(answer.as_deref().map_err(Clone::clone));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use gorums::server::KeyedCall;

    use super::super::{Coming, Disk, Page};
    use super::*;

    const MIB: usize = 1 << 20;

    /// How many bytes of records there are, and how many there were at most.
    #[derive(Debug, Default)]
    struct Gauge {
        now: AtomicUsize,
        most: AtomicUsize,
    }

    /// A record that says how large it is, and counts.
    #[derive(Debug)]
    struct Weight {
        bytes: usize,
        gauge: Arc<Gauge>,
    }

    impl Weight {
        fn new(bytes: usize, gauge: &Arc<Gauge>) -> Self {
            let now = gauge.now.fetch_add(bytes, Ordering::Relaxed) + bytes;
            gauge.most.fetch_max(now, Ordering::Relaxed);
            let gauge = Arc::clone(gauge);
            Self { bytes, gauge }
        }
    }

    impl Clone for Weight {
        fn clone(&self) -> Self {
            Self::new(self.bytes, &self.gauge)
        }
    }

    impl Drop for Weight {
        fn drop(&mut self) {
            self.gauge.now.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }

    impl Record for Weight {
        type Stored = u64;

        fn size(&self) -> usize {
            self.bytes
        }

        fn is_newer_than(&self, known: Option<&Self>) -> bool {
            known.is_none_or(|known| known.bytes < self.bytes)
        }

        fn stored(&self) -> u64 {
            self.bytes as u64
        }

        fn from_stored(bytes: u64) -> Self {
            Self::new(bytes as usize, &Arc::default())
        }
    }

    /// Has a record of this size for each key, and takes a second for a commit.
    struct Weights {
        bytes: usize,
        gauge: Arc<Gauge>,
    }

    impl Volume<Weight> for Weights {
        type Error = &'static str;

        async fn read(&mut self, _: &str) -> Result<Option<Weight>, Self::Error> {
            Ok(Some(Weight::new(self.bytes, &self.gauge)))
        }

        async fn page(&mut self, _: Option<&str>) -> Result<Page<Weight>, Self::Error> {
            Err("nobody asks for it")
        }

        async fn answered(&mut self, _: KeyedCall) -> Result<Answered<Vec<u8>>, Self::Error> {
            Ok(Answered::No)
        }

        async fn commit(
            &mut self,
            _: &[(&str, &Weight)],
            _: &[(CallKey, &[u8])],
        ) -> Result<Commit, Self::Error> {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(Commit::Done)
        }
    }

    fn disk(bytes: usize) -> (Disk<Weight>, Arc<Gauge>) {
        let gauge = Arc::new(Gauge::default());
        let weights = Weights {
            bytes,
            gauge: Arc::clone(&gauge),
        };
        let (disk, work) = Disk::on(weights, 1);
        tokio::spawn(work);
        (disk, gauge)
    }

    /// Waits until nothing happens any more before a commit ends.
    async fn settle() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    /// Asks so many times for records, of one key or of many, while nobody takes what is found;
    /// then takes all of it.
    async fn read_without_taking(count: usize, key: fn(usize) -> String) {
        let (disk, gauge) = disk(MIB);
        let asked = Arc::new(Mutex::new(VecDeque::new()));
        let reader = {
            let asked = Arc::clone(&asked);
            async move {
                for number in 0..count {
                    let coming = disk.read(key(number)).await.expect("open");
                    asked
                        .lock()
                        .expect("no test panics with it")
                        .push_back(coming);
                }
            }
        };
        let reader = tokio::spawn(reader);
        settle().await;
        let waiting = asked.lock().expect("no test panics with it").len();
        assert!((1..=64).contains(&waiting), "{waiting} are past the queue");
        let mut taken = 0;
        while taken < count {
            let next = asked.lock().expect("no test panics with it").pop_front();
            match next {
                Some(coming) => {
                    let found = coming.result().await.expect("the disk works");
                    assert_eq!(found.expect("a record").bytes, MIB);
                    taken += 1;
                }
                None => settle().await,
            }
        }
        reader.await.expect("it has asked for all");
        let most = gauge.most.load(Ordering::Relaxed);
        // What is taken out of it is counted here a moment longer.
        assert!(most <= 18 * MIB, "{} MiB", most / MIB);
        assert_eq!(gauge.now.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn many_reads_of_a_large_record_hold_few_copies_of_it() {
        read_without_taking(16_000, |_| "k".to_owned()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn reads_of_many_large_records_hold_few_of_them() {
        read_without_taking(4_000, |number| number.to_string()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn writes_that_come_too_late_for_large_records_hold_few_of_them() {
        let (disk, gauge) = disk(MIB);
        let mut coming = Vec::new();
        for number in 0..1_000 {
            let record = Weight::new(1, &gauge);
            let written = disk.write(number.to_string(), record).await;
            coming.push(written.expect("open"));
        }
        for written in coming {
            assert!(!written.result().await.expect("the disk works"));
        }
        let most = gauge.most.load(Ordering::Relaxed);
        assert!(most <= 18 * MIB, "{} MiB", most / MIB);
    }

    #[tokio::test(start_paused = true)]
    async fn writers_wait_while_eight_mebibytes_wait_for_the_disk() {
        let (disk, gauge) = disk(0);
        let taken = Arc::new(AtomicUsize::new(0));
        let mut writers = tokio::task::JoinSet::new();
        for number in 0..100 {
            let (disk, gauge, taken) = (disk.clone(), Arc::clone(&gauge), Arc::clone(&taken));
            writers.spawn(async move {
                let record = Weight::new(MIB, &gauge);
                let coming = disk.write(number.to_string(), record).await;
                taken.fetch_add(1, Ordering::Relaxed);
                coming
                    .expect("open")
                    .result()
                    .await
                    .expect("the disk works")
            });
        }
        settle().await;
        // Each of them has its key, too.
        assert_eq!(taken.load(Ordering::Relaxed), 7);
        assert!(writers.join_all().await.into_iter().all(|taken| taken));
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_that_is_larger_than_all_bounds_is_written_and_read() {
        let (disk, gauge) = disk(100 * MIB);
        let both = async || {
            let record = Weight::new(150 * MIB, &gauge);
            let written = disk.write("k".to_owned(), record).await.expect("open");
            let found = disk.read("l".to_owned()).await.expect("open");
            (written, found)
        };
        let (written, found) = both().await;
        assert!(written.result().await.expect("the disk works"));
        let found = found.result().await.expect("the disk works");
        assert_eq!(found.expect("a record").bytes, 100 * MIB);
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_takes_any_more_keeps_nobody_waiting() {
        let (disk, gauge) = disk(8 * MIB);
        let mut given_up: Vec<Coming<_, _>> = Vec::new();
        for _ in 0..4 {
            given_up.push(disk.read("k".to_owned()).await.expect("open"));
        }
        settle().await;
        drop(given_up);
        let found = disk.read("k".to_owned()).await.expect("open");
        assert!(found.result().await.expect("the disk works").is_some());
        settle().await;
        assert_eq!(gauge.now.load(Ordering::Relaxed), 0);
    }
}
