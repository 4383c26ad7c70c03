//! What a client does: the two phases of a read and of a write.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gorums::runtime::{Clock, SystemClock};
use gorums::{Outcome, QuorumError};
use storage::rejoin::count_together;
use tokio::time::Instant;

use crate::planted::{Bug, Planted};
use crate::proto::register_client::RegisterClient;
use crate::proto::{LatestRequest, ReadRequest, ReadResponse, WriteRequest};
use crate::version::{Version, Versioned, Writer};

/// How long an operation may take, where nobody says otherwise.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A client of the registers that the replicas of a configuration keep.
///
/// Each operation is linearizable: it takes effect at one moment between its call and its return,
/// for all clients. The first phase is queued on every replica by the method itself, before
/// anything is awaited; operations that run at the same time, of one client too, take effect in any
/// order. Clones are the same client, and may be used by several tasks.
///
/// Dropping the future gives the operation up: a write may take effect nevertheless, now or later.
#[derive(Debug, Clone)]
pub struct Register {
    replicas: RegisterClient,
    incarnation: Arc<Incarnation>,
    timeout: Duration,
    clock: Arc<dyn Clock>,
    planted: Planted,
}

/// What the clones of a client share.
#[derive(Debug)]
struct Incarnation {
    writer: Writer,
    /// The greatest number of a version that was made. Two writes that run at once may find the
    /// same newest version.
    last: AtomicU64,
}

impl Register {
    /// A client of the replicas that `replicas` calls, with two seconds for each operation. Each
    /// client needs a writer of its own, and a new one when it is started again:
    /// [`Writer::random`].
    #[must_use]
    pub fn new(replicas: RegisterClient, writer: Writer) -> Self {
        Self {
            replicas,
            incarnation: Arc::new(Incarnation {
                writer,
                last: AtomicU64::new(0),
            }),
            timeout: TIMEOUT,
            clock: Arc::new(SystemClock),
            planted: Planted::default(),
        }
    }

    /// The same client, with so much time for each operation, both phases together.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The same client, which measures that time with this clock: the one of the configuration.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The same client, with a mistake.
    #[cfg(feature = "planted-bugs")]
    #[must_use]
    pub fn with_bug(mut self, bug: Bug) -> Self {
        self.planted = Planted::one(bug);
        self
    }

    /// The calls that the operations are made of.
    #[must_use]
    pub fn replicas(&self) -> &RegisterClient {
        &self.replicas
    }

    /// The value of a register; none where none was written.
    ///
    /// It is at least as new as every write that was acknowledged, and every read that returned,
    /// before this call.
    ///
    /// # Errors
    ///
    /// Where no majority answers in time. No register has changed then, except that a write of
    /// somebody else, whose outcome was open, may be done.
    pub fn read(
        &self,
        key: &str,
    ) -> impl Future<Output = Result<Option<Versioned>, RegisterError>> + Send + use<> {
        let (client, key, deadline) = (self.clone(), key.to_owned(), self.deadline());
        let request = ReadRequest { key: key.clone() };
        let call = self.replicas.read(request);
        let replies = call.deadline(deadline).threshold(self.quorum()).replies();
        async move {
            let failed = |cause| RegisterError::new(Operation::Read, &key, Effect::NotDone, cause);
            let replies = replies.await.map_err(failed)?;
            let version = |reply: &ReadResponse| reply.version.map(Version::from);
            let newest = replies.values().max_by_key(|reply| version(reply));
            let Some((newest, found)) = newest.and_then(|reply| Some((reply, version(reply)?)))
            else {
                return Ok(None);
            };
            let found = Versioned {
                value: newest.value.clone(),
                version: found,
            };
            // A majority has it already: nobody finds less from now on.
            let agreed = replies
                .values()
                .all(|reply| version(reply) == Some(found.version))
                && count_together(replies.values().map(|reply| reply.standing.as_ref()));
            if !agreed && !client.planted.is(Bug::NoWriteBack) {
                let stored = client.store(&key, &found, deadline);
                stored.await.map_err(failed)?;
            }
            Ok(Some(found))
        }
    }

    /// Writes a register. Returns the version that the value got.
    ///
    /// Every read that is called from now on returns this value or a newer one, whichever replicas
    /// fail, as long as a majority answers.
    ///
    /// # Errors
    ///
    /// Where no majority answers in time. [`RegisterError::effect`] says whether the value may be
    /// written nevertheless.
    pub fn write(
        &self,
        key: &str,
        value: &str,
    ) -> impl Future<Output = Result<Version, RegisterError>> + Send + use<> {
        let (client, key, deadline) = (self.clone(), key.to_owned(), self.deadline());
        let value = value.to_owned();
        let request = LatestRequest { key: key.clone() };
        let call = self.replicas.latest(request);
        let replies = call.deadline(deadline).threshold(self.quorum()).replies();
        async move {
            let failed = |effect, cause| RegisterError::new(Operation::Write, &key, effect, cause);
            let replies = replies
                .await
                .map_err(|cause| failed(Effect::NotDone, cause.into()))?;
            let versions = replies.values().filter_map(|reply| reply.version);
            let newest = versions.map(|version| version.number).max();
            let number = client.incarnation.number_after(newest.unwrap_or(0));
            let number = number.ok_or_else(|| failed(Effect::NotDone, Cause::NumbersUsedUp))?;
            let writer = match client.planted.is(Bug::NoWriterId) {
                false => client.incarnation.writer,
                true => Writer::from(0),
            };
            let version = Version { number, writer };
            let written = Versioned { value, version };
            let stored = client.store(&key, &written, deadline);
            stored
                .await
                .map_err(|cause| failed(Effect::of_write(&cause), cause.into()))?;
            Ok(version)
        }
    }

    /// Has a majority take a value, unless they have a newer one.
    ///
    /// Where one of them has lost its data meanwhile, all are asked again: it may have got them again
    /// without the value.
    async fn store(
        &self,
        key: &str,
        Versioned { value, version }: &Versioned,
        deadline: Instant,
    ) -> Result<(), QuorumError> {
        let request = WriteRequest {
            key: key.to_owned(),
            version: Some((*version).into()),
            value: value.clone(),
        };
        loop {
            let call = self.replicas.write(request.clone()).deadline(deadline);
            let replies = call.threshold(self.quorum()).replies().await?;
            if count_together(replies.values().map(|reply| reply.standing.as_ref())) {
                return Ok(());
            }
        }
    }

    fn quorum(&self) -> usize {
        let replicas = self.replicas.configuration().len();
        match self.planted.is(Bug::HalfQuorum) {
            false => replicas / 2 + 1,
            true => replicas / 2,
        }
    }

    fn deadline(&self) -> Instant {
        /// Longer than any operation takes, and not too long for the clock.
        const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
        self.clock.now() + self.timeout.min(LONGEST)
    }
}

impl Incarnation {
    /// A number for a version that is greater than this one and than all before. None where there
    /// is none.
    fn number_after(&self, newest: u64) -> Option<u64> {
        let next = |last: u64| last.max(newest).checked_add(1);
        // Only the number itself is shared.
        let last = self
            .last
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        next(last.ok()?)
    }
}

/// An operation that failed.
#[derive(Debug)]
pub struct RegisterError {
    operation: Operation,
    key: String,
    effect: Effect,
    cause: Cause,
}

/// What is known of an operation that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It has no effect and never will. Trying again is safe.
    NotDone,
    /// It may have taken effect, or may do so later, when a read finds the value at some replica.
    /// Trying again may write the value twice, with writes of others in between.
    Unknown,
}

#[derive(Debug, Clone, Copy)]
enum Operation {
    Read,
    Write,
}

#[derive(Debug)]
enum Cause {
    Call(QuorumError),
    NumbersUsedUp,
}

impl Effect {
    /// What is known when no majority has acknowledged a value.
    fn of_write(error: &QuorumError) -> Self {
        match error.outcome() {
            Outcome::NotSent => Self::NotDone,
            // A replica that refuses may have the value on its disk: it says that it does not know.
            Outcome::Refused | Outcome::Unknown => Self::Unknown,
        }
    }
}

impl RegisterError {
    fn new(operation: Operation, key: &str, effect: Effect, cause: impl Into<Cause>) -> Self {
        Self {
            operation,
            key: key.to_owned(),
            effect,
            cause: cause.into(),
        }
    }

    /// What is known of the operation. A read that failed is never [`Unknown`](Effect::Unknown).
    #[must_use]
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// The call that failed, with every replica's cause.
    #[must_use]
    pub fn call(&self) -> Option<&QuorumError> {
        match &self.cause {
            Cause::Call(error) => Some(error),
            Cause::NumbersUsedUp => None,
        }
    }
}

impl From<QuorumError> for Cause {
    fn from(error: QuorumError) -> Self {
        Self::Call(error)
    }
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match (self.operation, self.effect) {
            (Operation::Read, _) => write!(f, "{key:?} could not be read: ")?,
            (Operation::Write, Effect::NotDone) => write!(f, "{key:?} was not written: ")?,
            (Operation::Write, Effect::Unknown) => {
                write!(f, "it is unknown whether {key:?} was or will be written: ")?;
            }
        }
        match &self.cause {
            Cause::Call(error) => error.fmt(f),
            Cause::NumbersUsedUp => {
                f.write_str("its version has the greatest number that there is")
            }
        }
    }
}

impl Error for RegisterError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.call().map(|error| error as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_makes_no_number_twice_and_none_beyond_the_last() {
        let incarnation = Incarnation {
            writer: Writer::from(1),
            last: AtomicU64::new(0),
        };
        let numbers = [0, 0, 7, 3, u64::MAX - 2].map(|newest| incarnation.number_after(newest));
        assert_eq!(numbers, [1, 2, 8, 9, u64::MAX - 1].map(Some));
        assert_eq!(incarnation.number_after(0), Some(u64::MAX));
        assert_eq!(incarnation.number_after(0), None);
        assert_eq!(incarnation.number_after(u64::MAX), None);
    }
}
