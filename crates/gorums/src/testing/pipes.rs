//! A network of pipes.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::DuplexStream;
use tokio::sync::mpsc;

use crate::runtime::{Address, AddressError, BoxFuture, BoxIo, InProcess, Listener, Transport};

/// A network within the process, with pipes in the place of sockets. Clones are the same network.
///
/// Any text is an address, on which one server can listen at a time. Nothing here needs the system, and
/// so tokio's paused time passes whenever everything waits
/// ([`#[tokio::test(start_paused = true)]`](tokio::test)).
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(async {
/// use gorums::{Client, Configuration, Server, ServerCtx, Status, testing::Pipes};
///
/// let network = Pipes::default();
/// let server = Server::builder()
///     .unary("demo.Calc.Double", |_ctx: ServerCtx, n: u32| async move { Ok::<_, Status>(2 * n) })
///     .transport(network.clone());
/// tokio::spawn(server.bind("calc").await?.serve());
///
/// let nodes = Configuration::builder().transport(network).nodes(["calc"]).connect()?;
/// let double = Client::new(&nodes).quorum_call::<u32, u32>("demo.Calc.Double", 21);
/// assert_eq!(double.all().await?, 42);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # }).expect("it works");
/// ```
#[derive(Debug, Clone, Default)]
pub struct Pipes(Arc<Mutex<HashMap<String, InProcess>>>);

impl Pipes {
    /// No code panics while it holds the lock.
    fn listeners(&self) -> MutexGuard<'_, HashMap<String, InProcess>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport for Pipes {
    /// Pipes need nothing of it.
    fn check_runtime(&self) -> io::Result<()> {
        Ok(())
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move {
            let listener = self.listeners().get(address).cloned();
            let refused = || {
                let text = format!("nobody listens on the pipe {address:?}");
                io::Error::new(io::ErrorKind::ConnectionRefused, text)
            };
            listener.ok_or_else(refused)?.connect().await
        })
    }

    fn address(&self, text: &str) -> Result<Address, AddressError> {
        Ok(Address::custom(text))
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let mut listeners = self.listeners();
            if listeners.get(address).is_some_and(InProcess::is_open) {
                let text = format!("somebody listens on the pipe {address:?}");
                return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
            }
            let (way, arrivals) = InProcess::new();
            listeners.insert(address.to_owned(), way);
            drop(listeners);
            Ok(Box::new(PipeListener {
                address: Address::custom(address),
                arrivals,
            }) as Box<dyn Listener>)
        })
    }
}

struct PipeListener {
    address: Address,
    arrivals: mpsc::Receiver<DuplexStream>,
}

impl Listener for PipeListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxIo, Option<SocketAddr>)>> {
        Box::pin(async move {
            match self.arrivals.recv().await {
                Some(io) => Ok((Box::new(io) as BoxIo, None)),
                // Another one listens in its place, and so nobody can reach this one any more.
                None => std::future::pending().await,
            }
        })
    }

    fn local_addr(&self) -> io::Result<Address> {
        Ok(self.address.clone())
    }
}
