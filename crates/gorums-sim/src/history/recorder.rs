use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use serde::Serialize;
use serde_json::Value;

use super::{Action, History, Operation, Outcome};

/// How many operations a recorder takes. Some 150 bytes each.
const LIMIT: usize = 10_000_000;

/// Notes operations as they begin and end. Clones write to one history, from any thread.
///
/// Its times are those of a clock, moved on where it stands still: no two calls and returns have
/// the same time, and their times are in the order in which they were noted.
///
/// It takes ten million operations. A history that would have more is
/// [unknown](super::Verdict::Unknown) to every check.
#[derive(Clone)]
pub struct Recorder {
    recorded: Arc<Mutex<Recorded>>,
    clock: Arc<dyn Fn() -> u64 + Send + Sync>,
}

#[derive(Default)]
struct Recorded {
    operations: Vec<Operation>,
    last: u64,
    truncated: bool,
}

/// A write that has been called and has not ended. Where it is dropped, its outcome is unknown.
#[derive(Debug)]
#[must_use = "the operation ends when its outcome is told"]
pub struct PendingWrite(Pending);

/// A read that has been called and has not ended. Where it is dropped, its outcome is unknown.
#[derive(Debug)]
#[must_use = "the operation ends when its outcome is told"]
pub struct PendingRead(Pending);

/// An operation of any object that has been called and has not ended. Where it is dropped, its
/// outcome is unknown.
#[derive(Debug)]
#[must_use = "the operation ends when its outcome is told"]
pub struct PendingOperation(Pending);

struct Pending {
    recorder: Recorder,
    /// None beyond the limit.
    at: Option<usize>,
}

impl Recorder {
    /// A recorder by the time of day as it was now, from here on by the monotonic clock. Histories
    /// of several processes of one machine can be [merged](History::merge) if nobody sets its clock
    /// between their starts.
    #[must_use]
    pub fn new() -> Self {
        let epoch = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let start = Instant::now();
        Self::with_clock(move || {
            u64::try_from((epoch + start.elapsed()).as_nanos()).unwrap_or(u64::MAX)
        })
    }

    /// A recorder by this clock, in nanoseconds.
    #[must_use]
    pub fn with_clock(clock: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self {
            recorded: Arc::default(),
            clock: Arc::new(clock),
        }
    }

    /// A client begins to write. Call it before the request is sent.
    pub fn write(
        &self,
        client: u32,
        key: impl Into<String>,
        value: impl Into<String>,
    ) -> PendingWrite {
        PendingWrite(self.begin(client, key.into(), Action::Write(value.into())))
    }

    /// A client begins to read. Call it before the request is sent.
    pub fn read(&self, client: u32, key: impl Into<String>) -> PendingRead {
        PendingRead(self.begin(client, key.into(), Action::Read(None)))
    }

    /// A client begins an operation of any object, of which each key names one: what it is to do,
    /// for a [`Model`](super::Model). Call it before the request is sent. The input, and what the
    /// operation returns, are kept as JSON; what cannot be JSON makes the verdict
    /// [`Unknown`](super::Verdict::Unknown).
    pub fn operation(
        &self,
        client: u32,
        key: impl Into<String>,
        input: impl Serialize,
    ) -> PendingOperation {
        let action = Action::Call {
            input: json(input),
            output: Value::Null,
        };
        PendingOperation(self.begin(client, key.into(), action))
    }

    /// What was recorded up to now. What has not ended has an unknown outcome.
    #[must_use]
    pub fn history(&self) -> History {
        let recorded = self.lock();
        History {
            operations: recorded.operations.clone(),
            truncated: recorded.truncated,
        }
    }

    /// How many operations have begun.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().operations.len()
    }

    /// Whether none has begun.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn begin(&self, client: u32, key: String, action: Action) -> Pending {
        let mut recorded = self.lock();
        let start = recorded.next((self.clock)());
        let at = recorded.operations.len();
        let room = at < LIMIT;
        if room {
            recorded.operations.push(Operation {
                client,
                key,
                action,
                start,
                end: None,
                outcome: Outcome::Unknown,
            });
        } else {
            recorded.truncated = true;
        }
        drop(recorded);
        Pending {
            recorder: self.clone(),
            at: room.then_some(at),
        }
    }

    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder")
            .field("len", &self.len())
            .finish()
    }
}

impl Recorded {
    fn next(&mut self, now: u64) -> u64 {
        self.last = now.max(self.last + 1);
        self.last
    }
}

impl PendingWrite {
    /// Its place in [`History::operations`], unless the history is full.
    #[must_use]
    pub fn place(&self) -> Option<usize> {
        self.0.at
    }

    /// It was acknowledged. Returns when the operation has ended, in the recorder's time.
    pub fn ok(self) -> u64 {
        self.0.end(Outcome::Ok, |_| {})
    }

    /// It failed, and may have taken effect, or may do so later.
    pub fn failed(self) -> u64 {
        self.0.end(Outcome::Failed, |_| {})
    }

    /// It failed, and has certainly had no effect, nor will it have one: it is as if it had not
    /// been called.
    pub fn not_done(self) {
        self.0.end(Outcome::NotDone, |_| {});
    }
}

impl PendingRead {
    /// Its place in [`History::operations`], unless the history is full.
    #[must_use]
    pub fn place(&self) -> Option<usize> {
        self.0.at
    }

    /// It has found this value, or none. Returns when the operation has ended, in the recorder's
    /// time.
    pub fn ok(self, value: Option<impl Into<String>>) -> u64 {
        let found = Action::Read(value.map(Into::into));
        self.0.end(Outcome::Ok, |action| *action = found)
    }

    /// It failed.
    pub fn failed(self) -> u64 {
        self.0.end(Outcome::Failed, |_| {})
    }
}

impl PendingOperation {
    /// Its place in [`History::operations`], unless the history is full.
    #[must_use]
    pub fn place(&self) -> Option<usize> {
        self.0.at
    }

    /// It has returned this. Returns when the operation has ended, in the recorder's time.
    pub fn returned(self, output: impl Serialize) -> u64 {
        let returned = json(output);
        self.0.end(Outcome::Ok, |action| {
            if let Action::Call { output, .. } = action {
                *output = returned;
            }
        })
    }

    /// It failed, and may have taken effect, or may do so later. Returns when it has ended.
    pub fn failed(self) -> u64 {
        self.0.end(Outcome::Failed, |_| {})
    }

    /// It failed, and has certainly had no effect, nor will it have one: it is as if it had not
    /// been called.
    pub fn not_done(self) {
        self.0.end(Outcome::NotDone, |_| {});
    }
}

impl Pending {
    fn end(self, outcome: Outcome, note: impl FnOnce(&mut Action)) -> u64 {
        let now = (self.recorder.clock)();
        let mut recorded = self.recorder.lock();
        let end = recorded.next(now);
        if let Some(at) = self.at {
            let operation = &mut recorded.operations[at];
            operation.end = Some(end);
            operation.outcome = outcome;
            note(&mut operation.action);
        }
        end
    }
}

/// What cannot be JSON becomes a text that says so, which is none of the model's.
fn json(value: impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_else(|error| Value::String(format!("no JSON: {error}")))
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("at", &self.at).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_distinct_and_in_order_though_the_clock_stands_still() {
        let recorder = Recorder::with_clock(|| 7);
        let write = recorder.write(1, "k", "a");
        let read = recorder.read(2, "k");
        write.ok();
        read.ok(None::<String>);
        let times: Vec<_> = recorder
            .history()
            .operations()
            .iter()
            .map(|operation| (operation.start, operation.end))
            .collect();
        assert_eq!(times, [(7, Some(9)), (8, Some(10))]);
    }

    #[test]
    fn what_is_dropped_has_an_unknown_outcome() {
        let recorder = Recorder::new();
        drop(recorder.write(1, "k", "a"));
        let history = recorder.history();
        let operation = &history.operations()[0];
        assert_eq!((operation.end, operation.outcome), (None, Outcome::Unknown));
    }

    #[test]
    fn a_write_that_was_not_done_was_never_written() {
        let recorder = Recorder::new();
        recorder.write(1, "k", "a").not_done();
        assert!(recorder.history().linearizable().is_valid());
        recorder.read(1, "k").ok(Some("a"));
        assert!(recorder.history().linearizable().violation().is_some());
    }
}
