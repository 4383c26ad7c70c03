//! How a process reaches its own server without a network.

use std::io;

use tokio::io::DuplexStream;
use tokio::sync::mpsc;

use super::BoxIo;

/// How many bytes may be on their way in each direction. A writer waits beyond that, as with a
/// socket.
pub(crate) const PIPE: usize = 256 * 1024;

/// Connects a process to its own server. Clones lead to the same server.
///
/// Such a connection is one like any other, over a pair of pipes instead of a socket: a process'
/// own node is called with the same bytes, bounds and order as nodes elsewhere.
#[derive(Debug, Clone)]
pub(crate) struct InProcess(mpsc::Sender<DuplexStream>);

impl InProcess {
    /// Returns also where the connections arrive.
    pub(crate) fn new() -> (Self, mpsc::Receiver<DuplexStream>) {
        let (sender, arrivals) = mpsc::channel(1);
        (Self(sender), arrivals)
    }

    pub(crate) async fn connect(&self) -> io::Result<BoxIo> {
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let stopped = |_| io::Error::new(io::ErrorKind::ConnectionRefused, STOPPED);
        self.0.send(theirs).await.map_err(stopped)?;
        Ok(Box::new(ours))
    }

    /// Whether the server is there.
    pub(crate) fn is_open(&self) -> bool {
        !self.0.is_closed()
    }

    pub(crate) fn leads_where(&self, other: &Self) -> bool {
        self.0.same_channel(&other.0)
    }
}

/// The two ends of a connection within the process.
#[cfg(feature = "tower")]
pub(crate) fn pipe() -> (BoxIo, BoxIo) {
    let (ours, theirs) = tokio::io::duplex(PIPE);
    (Box::new(ours), Box::new(theirs))
}

const STOPPED: &str = "the server of this process has stopped";
