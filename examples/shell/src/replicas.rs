//! The replicas that this program runs, and what can be done to them.

mod local;
mod process;

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;
use std::{fmt, io};

use tokio::net::TcpSocket;

pub use self::local::Local;
pub use self::process::{Plan, Processes};
use crate::command::Action;
use crate::{Program, ReplicaStore};

/// How many connections may wait to be accepted by a replica.
pub const BACKLOG: u32 = 128;

/// Replicas with the ids from 1.
#[derive(Debug)]
pub enum Replicas<P: Program> {
    /// In this process.
    Local(Local<P>),
    /// Each in a process of its own.
    Processes(Processes),
}

impl<P: Program> Replicas<P> {
    /// The addresses of the replicas, with their ids.
    pub fn addresses(&self) -> Vec<(u32, SocketAddr)> {
        match self {
            Self::Local(local) => local.addresses().collect(),
            Self::Processes(processes) => processes.addresses().collect(),
        }
    }

    /// Does something to a replica.
    pub async fn act(&mut self, id: u32, action: Action) -> Result<(), ReplicaError> {
        match self {
            Self::Local(local) => local.act(id, action).await,
            Self::Processes(processes) => processes.act(id, action).await,
        }
    }

    /// What was done to a replica, in a few words.
    pub async fn condition(&mut self, id: u32) -> Option<Condition> {
        match self {
            Self::Local(local) => local.condition(id),
            Self::Processes(processes) => processes.condition(id).await,
        }
    }

    /// Whether they have what they acknowledged when they are started again.
    pub fn are_durable(&self) -> bool {
        match self {
            Self::Local(local) => local.are_durable(),
            Self::Processes(processes) => processes.are_durable(),
        }
    }

    /// Whether messages that are on their way would be lost if this process ended.
    pub fn outlive_messages(&self) -> bool {
        matches!(self, Self::Processes(_))
    }

    /// Ends them all, and waits for that.
    pub async fn end(self) {
        match self {
            // They end with this process, as if they had been killed.
            Self::Local(_) => {}
            Self::Processes(processes) => processes.end().await,
        }
    }
}

/// Sets up so many replicas in this directory, if there is one and none of them was set up in it: all
/// of them are new then, and not one has lost anything.
///
/// # Errors
///
/// Where the directory or what is in it cannot be used.
pub fn set_up_all<S: ReplicaStore>(
    directory: Option<&Path>,
    count: u32,
) -> Result<(), ReplicaError> {
    let Some(directory) = directory else {
        return Ok(());
    };
    let set_up = || {
        for id in 1..=count {
            if S::is_set_up(directory, id)? {
                return Ok(());
            }
        }
        for id in 1..=count {
            S::set_up(directory, id, false)?;
        }
        Ok(())
    };
    set_up().map_err(|error: S::OpenError| ReplicaError::Open(error.into()))
}

/// A socket for a replica to listen with.
///
/// A second one can be bound to the same address by the same user, where the system allows it: one
/// that does not listen holds the port while the replica is stopped, so that nobody else gets it;
/// neither another process, nor a connection that somebody makes to the replica's own port.
pub fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Connections that have ended do not keep the port from the replica that starts again.
    // Elsewhere than on Unix this would let others have the port as well.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    #[cfg(unix)]
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// What was done to a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It serves.
    Running {
        /// It does nothing.
        paused: bool,
        /// It answers so late.
        delay: Duration,
        /// The id of its process, if it has one of its own.
        process: Option<u32>,
        /// What is wrong with its store, if that can be seen from here.
        trouble: Option<&'static str>,
    },
    /// It was stopped.
    Stopped,
    /// It ended by itself.
    Failed,
    /// Its process has ended, and nobody here told it to.
    Ended(ExitStatus),
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Running {
                paused,
                delay,
                process,
                trouble,
            } => {
                f.write_str(if paused { "paused" } else { "running" })?;
                if !delay.is_zero() {
                    write!(f, ", {} ms late", delay.as_millis())?;
                }
                if let Some(process) = process {
                    write!(f, ", process {process}")?;
                }
                trouble.map_or(Ok(()), |text| write!(f, ", {text}"))
            }
            Self::Stopped => f.write_str("stopped"),
            Self::Failed => f.write_str("failed"),
            Self::Ended(status) => write!(f, "ended: {status}"),
        }
    }
}

/// Why nothing was done to a replica.
#[derive(Debug)]
pub enum ReplicaError {
    /// There is no such replica.
    Unknown {
        /// Which replica.
        id: u32,
        /// How many replicas there are to be.
        count: usize,
    },
    /// It is running already.
    Running(u32),
    /// It is stopped.
    Stopped(u32),
    /// It is paused already.
    Paused(u32),
    /// It is not paused.
    NotPaused(u32),
    /// What it has stored cannot be had.
    Open(Box<dyn Error + Send + Sync>),
    /// It cannot listen.
    Listen {
        /// Which replica.
        id: u32,
        /// Where it is to listen.
        address: SocketAddr,
        /// What the system says.
        cause: io::Error,
    },
    /// There are fewer ports than replicas.
    Ports {
        /// The first port.
        first: u16,
        /// How many replicas there are to be.
        count: u32,
    },
    /// Its process did not get so far as to serve. The text is what it said.
    Start {
        /// Which replica.
        id: u32,
        /// How its process ended.
        status: ExitStatus,
        /// What it said.
        text: String,
    },
    /// The system does not do what is asked of a process.
    Process {
        /// Which replica.
        id: u32,
        /// What is to happen to it.
        what: &'static str,
        /// What the system says.
        cause: io::Error,
    },
}

impl fmt::Display for ReplicaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { id, count } => {
                write!(f, "there is no replica {id}; the replicas are 1 to {count}")
            }
            Self::Running(id) => write!(f, "replica {id} is running"),
            Self::Stopped(id) => write!(f, "replica {id} is stopped; \"start {id}\" starts it"),
            Self::Paused(id) => write!(f, "replica {id} is paused; \"resume {id}\" ends it"),
            Self::NotPaused(id) => write!(f, "replica {id} is not paused"),
            Self::Open(error) => error.fmt(f),
            Self::Listen { id, address, cause } => {
                write!(f, "replica {id} cannot listen on {address}: {cause}")
            }
            Self::Ports { first, count } => {
                write!(f, "there are no {count} ports from {first} on")
            }
            Self::Start { id, status, text } => {
                write!(f, "replica {id} has not started ({status})")?;
                text.lines().try_for_each(|line| write!(f, "\n  {line}"))
            }
            Self::Process { id, what, cause } => {
                write!(f, "the process of replica {id} cannot be {what}: {cause}")
            }
        }
    }
}

impl Error for ReplicaError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Listen { cause, .. } | Self::Process { cause, .. } => Some(cause),
            Self::Open(error) => Some(&**error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_says_all_that_is_not_as_it_should_be() {
        let running = |paused, delay, process, trouble| Condition::Running {
            paused,
            delay: Duration::from_millis(delay),
            process,
            trouble,
        };
        for (condition, expected) in [
            (running(false, 0, None, None), "running"),
            (
                running(false, 0, None, Some("its disk is full")),
                "running, its disk is full",
            ),
            (
                running(true, 20, Some(7), Some("its disk stalls")),
                "paused, 20 ms late, process 7, its disk stalls",
            ),
        ] {
            assert_eq!(condition.to_string(), expected);
        }
    }
}
