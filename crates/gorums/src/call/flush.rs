use super::dispatch::flush;
use super::sent::Sent;
use crate::configuration::Configuration;
use crate::error::QuorumError;

impl Configuration {
    /// Waits until everything that was queued before has reached its node's host, or has failed
    /// because the node is down. Bound it with a timeout: a silent node is waited for until
    /// keep-alive finds it dead.
    ///
    /// What was written to a node that is shutting down is not waited for: the node takes it, unless
    /// the connection is lost before. Then calls fail, and nobody is told of one-way messages. What
    /// was queued since is waited for, on the node's next connection.
    ///
    /// Where a server of the Go library has answered nothing since the last flush, it waits only
    /// until everything is written to the socket, since such a server ends connections that ask too
    /// often.
    pub async fn flush(&self) {
        let sent = Sent::<QuorumError>::new(flush(self), "", self.len());
        // A node that is down has nothing left to flush.
        let _ = sent.await;
    }
}
