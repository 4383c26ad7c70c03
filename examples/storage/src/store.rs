//! The state of a replica: a value and a time for each key.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use gorums::server::{Answered, AnsweredCalls, KeyedCall};
use gorums::{ServerCtx, Status};
use prost::{DecodeError, Message};
use prost_types::Timestamp;

use crate::disk::change::{decoded, encoded, forgotten, newer};
use crate::disk::{CALLS_OF_CLIENT, CLIENTS, Changed, Coming, Disk, Health, Page, Record};
use crate::proto::WriteRequest;
use crate::rejoin::proto::Standing;
use crate::rejoin::{Seat, Transfer};

/// When a value was written, by the clock of the client that wrote it. The newest value of a key
/// wins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    seconds: i64,
    nanos: i32,
}

/// A value, and when it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: String,
    /// When it was written.
    pub time: Time,
}

impl Record for Entry {
    /// Seconds and nanoseconds of the time, and the value.
    type Stored = (i64, i32, &'static str);

    fn size(&self) -> usize {
        size_of::<Self>() + self.value.len()
    }

    fn is_newer_than(&self, known: Option<&Self>) -> bool {
        known.is_none_or(|known| known.time < self.time)
    }

    fn stored(&self) -> (i64, i32, &str) {
        let Time { seconds, nanos } = self.time;
        (seconds, nanos, &self.value)
    }

    fn from_stored((seconds, nanos, value): (i64, i32, &str)) -> Self {
        Self {
            value: value.to_owned(),
            time: Time { seconds, nanos },
        }
    }
}

impl Transfer for Entry {
    fn to_message(&self, key: &str) -> Vec<u8> {
        let Self { value, time } = self.clone();
        let message = WriteRequest {
            key: key.to_owned(),
            value,
            time: Some(time.to_wire()),
        };
        message.encode_to_vec()
    }

    fn from_message(message: &[u8]) -> Result<(String, Self), DecodeError> {
        let WriteRequest { key, value, time } = WriteRequest::decode(message)?;
        let time = Time::from_wire(time);
        Ok((key, Self { value, time }))
    }
}

/// What a replica has stored.
#[derive(Debug)]
pub struct Store<E = Entry> {
    records: Records<E>,
    /// None where a replica that has lost its data is not to know it.
    seat: Option<Seat>,
    loss: Option<String>,
}

#[derive(Debug)]
enum Records<E> {
    /// In memory: a replica that is stopped forgets them.
    Memory(Memory<E>),
    /// On a disk: what was answered is there.
    Disk(Disk<E>),
}

/// The result of a request to a [`Store`].
#[derive(Debug)]
pub enum Stored<T, E = Entry> {
    /// It is known.
    Known(T),
    /// It comes with the disk.
    Coming(Coming<T, E>),
}

impl<T, E: Record> Stored<T, E> {
    /// The result. Where that takes time, the next request of the client may start meanwhile.
    ///
    /// # Errors
    ///
    /// As for [`Coming::result`].
    pub async fn done(self, ctx: &ServerCtx) -> Result<T, Status> {
        match self {
            Self::Known(result) => Ok(result),
            Self::Coming(coming) => {
                ctx.release();
                coming.result().await
            }
        }
    }
}

impl<E: Record> Store<E> {
    /// An empty store in memory.
    #[must_use]
    pub fn in_memory() -> Self {
        Self {
            records: Records::Memory(Memory::default()),
            seat: None,
            loss: None,
        }
    }

    /// A store on a disk. Where it has a seat, it refuses everything until that
    /// [says](Seat::is_whole) that it has what it acknowledged.
    #[must_use]
    pub fn on_disk(disk: Disk<E>, seat: Option<Seat>) -> Self {
        Self {
            records: Records::Disk(disk),
            seat,
            loss: None,
        }
    }

    /// The same, with what was found of its data, which are lost.
    pub(crate) fn with_loss(self, loss: Option<String>) -> Self {
        Self { loss, ..self }
    }

    /// What was found of its data when it was opened, where they were lost and something was left.
    pub(crate) fn loss(&self) -> Option<&str> {
        self.loss.as_deref()
    }

    /// Where the replica stands, if it keeps data that it can lose and get again.
    #[must_use]
    pub fn seat(&self) -> Option<&Seat> {
        self.seat.as_ref()
    }

    /// What goes along with an answer, to be asked for when that is [done](Stored::done).
    #[must_use]
    pub fn standing(&self) -> Option<Standing> {
        self.seat.as_ref().map(Seat::standing)
    }

    /// The newest value of a key. Reads and writes take effect in the order of these calls.
    ///
    /// # Errors
    ///
    /// `Unavailable` while the replica has lost its data; when the disk has failed, or the store is
    /// closed.
    pub async fn read(&self, key: String) -> Result<Stored<Option<E>, E>, Status> {
        self.admit()?;
        Ok(match &self.records {
            Records::Memory(memory) => Stored::Known(memory.read(&key)),
            Records::Disk(disk) => Stored::Coming(disk.read(key).await?),
        })
    }

    /// Takes a value if there is none for its key, or an older one. Whether it was taken.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read).
    pub async fn write(&self, key: String, entry: E) -> Result<Stored<bool, E>, Status> {
        self.write_once(None, key, entry).await
    }

    /// The same for a call, as [`ServerCtx::keyed_call`](gorums::ServerCtx::keyed_call) names it: when that
    /// comes again it is answered as at first, and changes nothing. Without a name it is a
    /// [`write`](Self::write).
    ///
    /// A replica that has lost its data has lost its answers with them, and those of others are not its
    /// own. So it takes a call that comes again in its new life for a new one, which does no harm: it
    /// finds what it has written, or writes it. It may answer otherwise than at first.
    ///
    /// # Errors
    ///
    /// As for [`change`](Self::change), but for the last one.
    pub async fn write_once(
        &self,
        call: Option<KeyedCall>,
        key: String,
        entry: E,
    ) -> Result<Stored<bool, E>, Status> {
        self.admit()?;
        Ok(match &self.records {
            Records::Memory(memory) => Stored::Known(memory.write(call, key, entry)?),
            Records::Disk(disk) => Stored::Coming(disk.write_once(call, key, entry).await?),
        })
    }

    /// Changes records by what is there for this key, and keeps the answer with them where it is of a
    /// call, as [`Disk::change`] does: each call has its effect once. `bytes` is how much it holds,
    /// about.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read); `Aborted` for a call so old that what it was answered has gone, while
    /// others of its client are kept; and
    /// `FailedPrecondition` where the store has a [seat](Self::seat): what follows from what was there
    /// before differs from replica to replica, and none can have it again from others.
    pub async fn change<T: Message + Default + 'static>(
        &self,
        call: Option<KeyedCall>,
        key: String,
        bytes: usize,
        change: impl FnOnce(Option<&E>) -> Result<Changed<E, T>, Status> + Send + 'static,
    ) -> Result<Stored<T, E>, Status> {
        if self.seat.is_some() {
            return Err(Status::failed_precondition(
                "a replica that gets lost data again from others takes values, and no changes",
            ));
        }
        Ok(match &self.records {
            Records::Memory(memory) => Stored::Known(memory.change(call, &key, change)?),
            Records::Disk(disk) => Stored::Coming(disk.change(call, key, bytes, change).await?),
        })
    }

    /// How it is with the disk. It costs a lock that nobody holds for long. Memory is healthy.
    pub fn health(&self) -> Health {
        match &self.records {
            Records::Memory(_) => Health::Healthy,
            Records::Disk(disk) => disk.health(),
        }
    }

    /// The values behind this key, or the first ones, in the order of their keys.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read).
    pub async fn page(&self, after: Option<String>) -> Result<Stored<Page<E>, E>, Status> {
        self.admit()?;
        Ok(match &self.records {
            Records::Memory(memory) => Stored::Known(memory.page(after.as_deref())),
            Records::Disk(disk) => Stored::Coming(disk.page(after).await?),
        })
    }

    /// The same for a replica that has lost its own, also where this one has.
    pub(crate) async fn lend_page(&self, after: Option<String>) -> Result<Page<E>, Status> {
        self.disk()?.page(after).await?.result().await
    }

    /// Takes a value that another replica has, also while this one has lost its data.
    pub(crate) async fn restore(&self, key: String, entry: E) -> Result<Coming<bool, E>, Status> {
        self.disk()?.write(key, entry).await
    }

    fn disk(&self) -> Result<&Disk<E>, Status> {
        match &self.records {
            Records::Disk(disk) => Ok(disk),
            Records::Memory(_) => Err(Status::failed_precondition(
                "this replica keeps its data in memory",
            )),
        }
    }

    fn admit(&self) -> Result<(), Status> {
        self.seat.as_ref().map_or(Ok(()), Seat::admit)
    }

    /// Completes when everything that was written is where it shall be.
    pub async fn close(&self) {
        match &self.records {
            Records::Memory(_) => {}
            Records::Disk(disk) => disk.close().await,
        }
    }

    /// Completes with the reason when nothing can be stored any more.
    pub async fn failed(&self) -> Status {
        match &self.records {
            Records::Memory(_) => std::future::pending().await,
            Records::Disk(disk) => disk.ended().await,
        }
    }
}

/// What a replica knows as long as it runs.
#[derive(Debug)]
pub struct Memory<E = Entry>(Mutex<Kept<E>>);

#[derive(Debug)]
struct Kept<E> {
    records: BTreeMap<String, E>,
    /// As messages, as on a disk.
    answered: AnsweredCalls<Vec<u8>>,
}

impl<E> Default for Memory<E> {
    fn default() -> Self {
        Self(Mutex::new(Kept {
            records: BTreeMap::new(),
            answered: AnsweredCalls::new(CALLS_OF_CLIENT, CLIENTS),
        }))
    }
}

impl<E: Record> Memory<E> {
    fn read(&self, key: &str) -> Option<E> {
        self.lock().records.get(key).cloned()
    }

    fn page(&self, after: Option<&str>) -> Page<E> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let kept = self.lock();
        let behind = kept.records.range::<str, _>((after, Bound::Unbounded));
        let behind = behind.map(|(key, record)| Ok((key.clone(), record.clone())));
        let page: Result<_, Infallible> = Page::of(behind);
        match page {
            Ok(page) => page,
        }
    }

    fn write(&self, call: Option<KeyedCall>, key: String, entry: E) -> Result<bool, Status> {
        self.change(call, &key, newer(&key, entry))
    }

    fn change<T: Message + Default>(
        &self,
        call: Option<KeyedCall>,
        key: &str,
        change: impl FnOnce(Option<&E>) -> Result<Changed<E, T>, Status>,
    ) -> Result<T, Status> {
        let mut kept = self.lock();
        match call.map_or(Answered::No, |call| kept.answered.find(call)) {
            Answered::Yes(answer) => return decoded(answer),
            Answered::Forgotten => return Err(forgotten()),
            Answered::No => {}
        }
        let Changed { records, answer } = encoded(change(kept.records.get(key))?)?;
        kept.records.extend(records);
        let result = decoded(&answer);
        if let Some(call) = call {
            kept.answered.insert(call.key, answer);
        }
        result
    }

    /// Where code panics while it holds the lock, nothing is changed yet.
    fn lock(&self) -> MutexGuard<'_, Kept<E>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Time {
    /// A time as it came. Without one it is the beginning of 1970, as in the Go library.
    pub fn from_wire(time: Option<Timestamp>) -> Self {
        let Timestamp { seconds, nanos } = time.unwrap_or_default().normalized();
        Self { seconds, nanos }
    }

    /// A time in its parts, as they stand in a file.
    pub fn from_parts(seconds: i64, nanos: i32) -> Self {
        Self { seconds, nanos }
    }

    /// The time as it is sent.
    pub fn to_wire(self) -> Timestamp {
        Timestamp {
            seconds: self.seconds,
            nanos: self.nanos,
        }
    }
}

impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Self {
        Self::from_wire(Some(Timestamp::from(time)))
    }
}

/// Gives each write of a client a time that is later than those of all its writes before.
pub struct Times {
    clock: Box<dyn FnMut() -> SystemTime + Send + Sync>,
    last: Time,
}

impl Times {
    /// Times by this clock, which need not go forward.
    pub fn of(clock: impl FnMut() -> SystemTime + Send + Sync + 'static) -> Self {
        Self {
            clock: Box::new(clock),
            last: Time::default(),
        }
    }

    /// The time for the next write: now, unless the clock stands still or was set back.
    #[expect(clippy::should_implement_trait, reason = "there is no end of them")]
    pub fn next(&mut self) -> Time {
        let Time { seconds, nanos } = self.last;
        let least = Time::from_wire(Some(Timestamp {
            seconds,
            nanos: nanos + 1,
        }));
        self.last = Time::from((self.clock)()).max(least);
        self.last
    }
}

impl Default for Times {
    /// Times by the clock of the system.
    fn default() -> Self {
        Self::of(SystemTime::now)
    }
}

impl std::fmt::Debug for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let last = &self.last;
        f.debug_struct("Times")
            .field("last", last)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.to_wire().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64, nanos: i32) -> Time {
        Time { seconds, nanos }
    }

    fn entry(value: &str, time: Time) -> Entry {
        Entry {
            value: value.to_owned(),
            time,
        }
    }

    fn write(store: &Memory, key: String, entry: Entry) -> bool {
        let taken = store.write(None, key, entry);
        taken.expect("it is no call that has come before")
    }

    #[test]
    fn a_key_that_was_never_written_has_no_value() {
        assert_eq!(Memory::<Entry>::default().read("k"), None);
    }

    #[test]
    fn a_write_is_taken_where_it_is_newer() {
        let cases = [
            ("the first", at(5, 5), true),
            ("older", at(5, 4), false),
            ("older, more nanoseconds", at(4, 9), false),
            ("as old", at(5, 5), false),
            ("newer by a nanosecond", at(5, 6), true),
            ("newer, fewer nanoseconds", at(6, 0), true),
        ];
        let store = Memory::default();
        let mut newest = None;
        for (value, time, taken) in cases {
            let entry = entry(value, time);
            assert_eq!(
                write(&store, "k".to_owned(), entry.clone()),
                taken,
                "{value}"
            );
            if taken {
                newest = Some(entry);
            }
            assert_eq!(store.read("k"), newest, "{value}");
        }
    }

    #[test]
    fn keys_are_separate_and_an_empty_one_is_a_key() {
        let store = Memory::default();
        assert!(write(&store, String::new(), entry("", at(2, 0))));
        assert!(write(&store, "k".to_owned(), entry("v", at(1, 0))));
        assert_eq!(store.read(""), Some(entry("", at(2, 0))));
        assert_eq!(store.read("k"), Some(entry("v", at(1, 0))));
    }

    #[test]
    fn a_first_write_without_a_time_is_taken_and_any_time_is_newer() {
        let store = Memory::default();
        let timeless = Time::from_wire(None);
        assert!(write(&store, "k".to_owned(), entry("a", timeless)));
        assert!(!write(&store, "k".to_owned(), entry("b", timeless)));
        assert!(write(&store, "k".to_owned(), entry("c", at(0, 1))));
    }

    #[test]
    fn times_are_compared_in_their_normal_form() {
        let wire = |seconds, nanos| Time::from_wire(Some(Timestamp { seconds, nanos }));
        assert_eq!(wire(1, 2_000_000_000), at(3, 0));
        assert_eq!(wire(1, -1), at(0, 999_999_999));
        assert!(wire(i64::MAX, i32::MAX) >= at(i64::MAX, 0));
        assert!(wire(i64::MIN, i32::MIN) < at(0, 0));
    }

    #[test]
    fn each_write_is_later_than_the_one_before_though_the_clock_is_not() {
        let clock = [(7, 999_999_999), (7, 999_999_999), (3, 0), (9, 0)];
        let mut readings = clock.into_iter().map(|(seconds, nanos)| {
            SystemTime::UNIX_EPOCH + std::time::Duration::new(seconds, nanos)
        });
        let mut times = Times::of(move || readings.next().expect("no more are needed"));
        for time in [at(7, 999_999_999), at(8, 0), at(8, 1), at(9, 0)] {
            assert_eq!(times.next(), time);
        }
        assert!(Times::default().next() > at(9, 0));
    }

    #[test]
    fn a_time_reads_as_a_date() {
        assert_eq!(
            at(1_700_000_000, 5_000_000).to_string(),
            "2023-11-14T22:13:20.005Z"
        );
        assert!(!at(i64::MAX, 0).to_string().is_empty());
        assert!(!at(i64::MIN, 0).to_string().is_empty());
    }
}
