//! The way from a process to its own server, without a network.

use std::io;

use tokio::io::DuplexStream;
use tokio::sync::mpsc;

use super::BoxIo;

/// How many bytes may be on their way in each direction. What is written beyond waits, as it does
/// for a socket.
const PIPE: usize = 256 * 1024;

/// Lets a server's own process in. Clones lead to the same server.
///
/// What comes through is a connection like any other, over a pair of pipes instead of a socket: a
/// process' own node is called with the same bytes, bounds and order as the nodes elsewhere.
#[derive(Debug, Clone)]
pub(crate) struct InProcess(mpsc::Sender<DuplexStream>);

impl InProcess {
    /// A door, and where those who come through it arrive.
    pub(crate) fn new() -> (Self, mpsc::Receiver<DuplexStream>) {
        let (door, arrivals) = mpsc::channel(1);
        (Self(door), arrivals)
    }

    pub(crate) async fn connect(&self) -> io::Result<BoxIo> {
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let stopped = |_| io::Error::new(io::ErrorKind::ConnectionRefused, STOPPED);
        self.0.send(theirs).await.map_err(stopped)?;
        Ok(Box::new(ours))
    }

    pub(crate) fn leads_where(&self, other: &Self) -> bool {
        self.0.same_channel(&other.0)
    }
}

const STOPPED: &str = "the server of this process has stopped";
