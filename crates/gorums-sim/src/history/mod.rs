//! What the clients of a register, a key-value store or any other object did and saw, and whether
//! it may be so.
//!
//! A [`Recorder`] notes when each operation was called and what came of it, in a simulation or in a
//! program that talks to a live cluster. Its [`History`] is then judged:
//!
//! - [`History::linearizable`]: each operation takes effect at one moment between its call and its
//!   return, as if there were one copy of each key (Herlihy and Wing).
//! - [`History::regular`], which is weaker: for one writer, a read that begins after a write has
//!   been acknowledged returns that write or a later one (Lamport).
//! - [`History::linearizable_as`]: as the first one, for [operations](Recorder::operation) of any
//!   object, by a [`Model`] of it: a lock, a queue, a log, compare-and-set.
//!
//! Each key is judged by itself, which loses nothing: a history is linearizable where those of all
//! keys are. For registers of which no value is written twice, the check is that of Gibbons and
//! Korach by zones, which takes `n log n` steps; elsewhere it is the search of Wing and Gong with
//! Lowe's memory of states, which can take exponentially many, so that it has [`Limits`] and an
//! honest [`Verdict::Unknown`].
//!
//! What counts as what:
//!
//! - Operations precede each other where one's end is *less* than the other's start. With equal
//!   times they overlap. This holds for the operations of one client, too, which may overlap
//!   anyway.
//! - A write or an operation that failed, or whose outcome is unknown, takes effect at any time
//!   after its call, or never. One that was certainly not done is as if it had not been called.
//! - A read that failed, or whose outcome is unknown, says nothing.
//! - Before the first write, a key has no value: reads return `None`.
//!
//! ```
//! use gorums_sim::history::{Recorder, Verdict};
//!
//! let recorder = Recorder::new();
//! let write = recorder.write(1, "k", "a");
//! let read = recorder.read(2, "k"); // while the write is under way
//! read.ok(Some("a"));
//! write.ok();
//! recorder.read(2, "k").ok(None::<&str>); // and then it has gone
//!
//! let history = recorder.history();
//! let Verdict::Violation(violation) = history.linearizable() else {
//!     panic!("the last read is stale");
//! };
//! assert_eq!(violation.operations(), [0, 2]);
//! let picture = history.svg(&violation);
//! assert!(picture.starts_with("<svg"));
//! ```

mod check;
mod json;
mod model;
mod picture;
mod recorder;
mod register;
mod search;
mod zones;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::json::Shown;
pub use self::model::Model;
pub use self::recorder::{PendingOperation, PendingRead, PendingWrite, Recorder};
pub use self::search::Limits;

/// An operation of a client, with its call and its return.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Who called it.
    pub client: u32,
    /// The key, or the name of the register or object.
    pub key: String,
    /// What was to be done, and what was found or returned.
    #[serde(flatten)]
    pub action: Action,
    /// When it was called. Times are nanoseconds of any clock; only their order counts.
    pub start: u64,
    /// When it ended. `None` where nobody saw it end.
    pub end: Option<u64>,
    /// What came of it.
    pub outcome: Outcome,
}

/// What an operation does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Writes this value.
    Write(String),
    /// Reads, and has found this value, or none. Without meaning where the read is not
    /// [`Outcome::Ok`].
    Read(Option<String>),
    /// Does what a [`Model`] knows.
    Call {
        /// What is to be done.
        input: Value,
        /// What it has returned. Without meaning where the call is not [`Outcome::Ok`].
        output: Value,
    },
}

/// What came of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was acknowledged, or has returned.
    Ok,
    /// It ended with an error. A write or a call may have taken effect, or may do so later.
    Failed,
    /// It ended with an error, has had no effect, and will have none.
    NotDone,
    /// Nobody saw it end. A write or a call may have taken effect, or may do so later.
    Unknown,
}

/// The operations of some clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    operations: Vec<Operation>,
    /// Whether operations are missing, so that nothing can be said.
    truncated: bool,
}

/// What a check has found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// The history is as it should be.
    Valid,
    /// It is not, and these operations show it.
    Violation(Violation),
    /// It may or may not be, and this is why nobody knows.
    Unknown(String),
}

/// Operations that cannot all have happened as they were seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    reason: String,
    operations: Vec<usize>,
}

impl History {
    /// These operations, in any order.
    ///
    /// # Errors
    ///
    /// Where one ends before it starts, or is acknowledged without an end: which one, and why.
    pub fn new(operations: Vec<Operation>) -> Result<Self, String> {
        for (at, operation) in operations.iter().enumerate() {
            operation
                .validate()
                .map_err(|why| format!("operation {}: {why}", at + 1))?;
        }
        Ok(Self {
            operations,
            truncated: false,
        })
    }

    /// The operations. [`Violation::operations`] are places in this list.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// How many operations there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// This history and another one, whose times are of the same clock.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.operations.extend(other.operations);
        self.truncated |= other.truncated;
        self
    }

    /// Whether each key is a linearizable register, with the default [`Limits`].
    pub fn linearizable(&self) -> Verdict {
        self.linearizable_within(Limits::default())
    }

    /// Whether each key is a linearizable register. The limits are for each key where a value was
    /// written twice.
    pub fn linearizable_within(&self, limits: Limits) -> Verdict {
        check::linearizable(self, limits)
    }

    /// Whether each key is a linearizable object of this model, with the default [`Limits`]. A
    /// violation names the operation that no order lets return, with as few others as it takes.
    pub fn linearizable_as<M: Model>(&self, model: &M) -> Verdict {
        self.linearizable_as_within(model, Limits::default())
    }

    /// Whether each key is a linearizable object of this model. The limits are for each key.
    pub fn linearizable_as_within<M: Model>(&self, model: &M, limits: Limits) -> Verdict {
        model::linearizable(self, model, limits)
    }

    /// Whether each key is regular for each of its writers: every value read was written by a call
    /// that began before the read ended, and a read that began after an acknowledged write does not
    /// return what the same client wrote before, or nothing. Reads may go back behind each other
    /// where no acknowledged write is between them.
    ///
    /// The writes of one client to a key are ordered by their starts. A value that a key was given
    /// twice makes the verdict [`Unknown`](Verdict::Unknown).
    pub fn regular(&self) -> Verdict {
        check::regular(self)
    }

    /// A timeline of the operations of a violation, and of those of the same key around them, as an
    /// SVG picture.
    #[must_use]
    pub fn svg(&self, violation: &Violation) -> String {
        picture::draw(self, violation)
    }

    /// Writes each operation as one line of JSON, in the order of their starts.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn write_json_lines(&self, mut to: impl Write) -> io::Result<()> {
        let mut operations: Vec<_> = self.operations.iter().collect();
        operations.sort_by_key(|operation| operation.start);
        for operation in operations {
            serde_json::to_writer(&mut to, operation)?;
            to.write_all(b"\n")?;
        }
        to.flush()
    }

    /// Reads what [`write_json_lines`](Self::write_json_lines) has written. Empty lines are passed
    /// over.
    ///
    /// # Errors
    ///
    /// Those of the reader, and `InvalidData` with the number of the line where it is not an
    /// operation.
    pub fn read_json_lines(from: impl BufRead) -> io::Result<Self> {
        let mut operations = Vec::new();
        for (at, line) in from.lines().enumerate() {
            let line = line?;
            if line.trim().is_empty() {
                continue;
            }
            let bad = |why: String| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("line {}: {why}", at + 1),
                )
            };
            let operation: Operation =
                serde_json::from_str(&line).map_err(|error| bad(error.to_string()))?;
            operation.validate().map_err(bad)?;
            operations.push(operation);
        }
        Ok(Self {
            operations,
            truncated: false,
        })
    }

    /// The places of the operations of each key.
    fn keys(&self) -> BTreeMap<&str, Vec<usize>> {
        let mut keys: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (at, operation) in self.operations.iter().enumerate() {
            keys.entry(&operation.key).or_default().push(at);
        }
        keys
    }
}

impl Operation {
    fn validate(&self) -> Result<(), String> {
        match (self.end, self.outcome) {
            (Some(end), _) if end < self.start => Err(format!(
                "it ends at {end}, before its start at {}",
                self.start
            )),
            (None, Outcome::Ok) => Err("it is acknowledged, and has no end".to_owned()),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, key, .. } = self;
        match (&self.action, self.outcome) {
            (Action::Write(value), _) => write!(f, "client {client} writes {key} = {value}")?,
            (Action::Read(Some(value)), Outcome::Ok) => {
                write!(f, "client {client} reads {key} = {value}")?;
            }
            (Action::Read(None), Outcome::Ok) => write!(f, "client {client} reads {key}: nothing")?,
            (Action::Read(_), _) => write!(f, "client {client} reads {key}")?,
            (Action::Call { input, output }, outcome) => {
                write!(f, "client {client}: {} on {key}", Shown(input))?;
                if outcome == Outcome::Ok {
                    write!(f, " returns {}", Shown(output))?;
                }
            }
        }
        match self.outcome {
            Outcome::Ok => Ok(()),
            Outcome::Failed => f.write_str(" (failed)"),
            Outcome::NotDone => f.write_str(" (not done)"),
            Outcome::Unknown => f.write_str(" (outcome unknown)"),
        }
    }
}

impl Verdict {
    /// Whether the history is as it should be.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        *self == Self::Valid
    }

    /// The violation, if there is one.
    #[must_use]
    pub fn violation(&self) -> Option<&Violation> {
        match self {
            Self::Violation(violation) => Some(violation),
            Self::Valid | Self::Unknown(_) => None,
        }
    }
}

impl Violation {
    /// A violation that somebody else has found: why, and the places of the operations that show
    /// it.
    #[must_use]
    pub fn new(reason: impl Into<String>, operations: impl IntoIterator<Item = usize>) -> Self {
        let mut operations: Vec<_> = operations.into_iter().collect();
        operations.sort_unstable();
        operations.dedup();
        Self {
            reason: reason.into(),
            operations,
        }
    }

    /// Why these operations cannot all be, in words.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The places of the operations in [`History::operations`], in ascending order. Leaving any one
    /// out makes the rest possible, where the check is that by zones; the search leaves out what it
    /// can within its limits, and by a [`Model`] names a dozen at most.
    #[must_use]
    pub fn operations(&self) -> &[usize] {
        &self.operations
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}
