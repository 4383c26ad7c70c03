//! Models of four objects, to be copied: a lock, a queue, a log, and a value with compare-and-set.

use gorums_sim::history::Model;
use serde::{Deserialize, Serialize};

/// At most one client has it. It may refuse though it is free, as where a majority has to grant it
/// and two clients ask at once.
pub(crate) struct Lock;

/// What is done with a [`Lock`], by which client. Whether it is granted, or was given back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum LockInput {
    Acquire(u32),
    Release(u32),
}

impl Model for Lock {
    /// Who has it.
    type State = Option<u32>;
    type Input = LockInput;
    type Output = bool;

    fn initial(&self) -> Self::State {
        None
    }

    fn step(
        &self,
        holder: &Self::State,
        input: &LockInput,
        output: Option<&bool>,
    ) -> Option<Self::State> {
        match *input {
            LockInput::Acquire(_) if output == Some(&false) => Some(*holder),
            LockInput::Acquire(client) => holder
                .is_none_or(|holder| holder == client)
                .then_some(Some(client)),
            // It had the lock, or not.
            LockInput::Release(client) => {
                let held = *holder == Some(client);
                let after = if held { None } else { *holder };
                output.is_none_or(|output| *output == held).then_some(after)
            }
        }
    }
}

/// First in, first out.
pub(crate) struct Queue;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum QueueInput {
    Enqueue(u32),
    Dequeue,
}

impl Model for Queue {
    /// The oldest first.
    type State = Vec<u32>;
    type Input = QueueInput;
    /// What was taken out, if anything was.
    type Output = Option<u32>;

    fn initial(&self) -> Self::State {
        Vec::new()
    }

    fn step(
        &self,
        queue: &Self::State,
        input: &QueueInput,
        output: Option<&Option<u32>>,
    ) -> Option<Self::State> {
        let returns = match input {
            QueueInput::Enqueue(_) => None,
            QueueInput::Dequeue => queue.first().copied(),
        };
        if output.is_some_and(|output| *output != returns) {
            return None;
        }
        let mut after = queue.clone();
        match *input {
            QueueInput::Enqueue(value) => after.push(value),
            QueueInput::Dequeue if after.is_empty() => {}
            QueueInput::Dequeue => {
                after.remove(0);
            }
        }
        Some(after)
    }

    fn bytes(&self, queue: &Self::State) -> usize {
        size_of_val(queue) + size_of_val(queue.as_slice())
    }
}

/// Entries have their places for ever.
pub(crate) struct Log;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum LogInput {
    Append(String),
    Read(usize),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum LogOutput {
    Appended { place: usize },
    Found(Option<String>),
}

impl Model for Log {
    type State = Vec<String>;
    type Input = LogInput;
    type Output = LogOutput;

    fn initial(&self) -> Self::State {
        Vec::new()
    }

    fn step(
        &self,
        log: &Self::State,
        input: &LogInput,
        output: Option<&LogOutput>,
    ) -> Option<Self::State> {
        let returns = match input {
            LogInput::Append(_) => LogOutput::Appended { place: log.len() },
            LogInput::Read(place) => LogOutput::Found(log.get(*place).cloned()),
        };
        if output.is_some_and(|output| *output != returns) {
            return None;
        }
        let mut after = log.clone();
        if let LogInput::Append(entry) = input {
            after.push(entry.clone());
        }
        Some(after)
    }

    fn bytes(&self, log: &Self::State) -> usize {
        log.iter()
            .map(|entry| size_of_val(entry) + entry.len())
            .sum()
    }
}

/// A value, which starts at 0.
pub(crate) struct CompareAndSet;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum CasInput {
    Get,
    CompareAndSet { from: u32, to: u32 },
}

/// The value that was found, which for a compare-and-set says whether it was done.
pub(crate) type Found = u32;

impl Model for CompareAndSet {
    type State = u32;
    type Input = CasInput;
    type Output = Found;

    fn initial(&self) -> u32 {
        0
    }

    fn step(&self, value: &u32, input: &CasInput, output: Option<&Found>) -> Option<u32> {
        let after = match *input {
            CasInput::CompareAndSet { from, to } if from == *value => to,
            _ => *value,
        };
        output.is_none_or(|found| found == value).then_some(after)
    }
}
