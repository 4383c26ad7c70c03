//! What a replica's process has to do with [whoever has started it](crate::replicas::Processes), where
//! it serves with the option `--controlled`.

use std::io::{self, Write};
use std::time::Duration;

use gorums::runtime::{Address, TcpAcceptor};
use tokio::sync::oneshot;

use crate::{Delay, replicas};

/// A listener on a port that whoever has started this replica holds for it.
///
/// # Errors
///
/// Where the host of the address is no IP address, or the system refuses.
pub fn listen(address: &Address) -> io::Result<TcpAcceptor> {
    let no_number = || io::Error::other("its host is no IP address");
    let address = address.socket_addr().ok_or_else(no_number)?;
    let listener = replicas::bind(address)?.listen(replicas::BACKLOG)?;
    Ok(TcpAcceptor::from(listener))
}

/// What whoever has started this replica has to say, line by line on standard input. The replica is
/// told to end by the end of that.
#[derive(Debug)]
pub struct Orders(oneshot::Receiver<()>);

impl Orders {
    /// Takes them from now on. Each is answered by a line on standard output.
    #[must_use]
    pub fn listen(delay: Delay) -> Self {
        let (at_end, end) = oneshot::channel::<()>();
        // Reading standard input keeps a thread.
        std::thread::spawn(move || {
            let _at_end = at_end;
            for line in io::stdin().lines() {
                let Ok(line) = line else { return };
                if let Some(millis) = line.strip_prefix("delay ").and_then(|ms| ms.parse().ok()) {
                    delay.set(Duration::from_millis(millis));
                }
                if writeln!(io::stdout(), "{line}").is_err() {
                    return;
                }
            }
        });
        Self(end)
    }

    /// Completes at the end of them.
    pub async fn end(&mut self) {
        // Nothing is ever sent: the other half is dropped.
        let _ = (&mut self.0).await;
    }
}
