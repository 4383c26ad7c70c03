use std::io;
use std::net::SocketAddr;

#[cfg(unix)]
pub use sockets::{Unix, UnixAcceptor};

use super::{Address, BoxFuture, BoxIo, Listener, Tcp, Transport, requirement};

/// TCP for `host:port` and unix sockets for `unix:/path`, on systems that have these. The default
/// transport.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sockets;

impl Sockets {
    /// Which transport an address belongs to.
    fn of(address: &str) -> Result<&'static dyn Transport, io::Error> {
        let address: Address = address.parse().map_err(invalid)?;
        match address.unix_path() {
            #[cfg(unix)]
            Some(_) => Ok(&Unix),
            #[cfg(not(unix))]
            Some(_) => Err(io::ErrorKind::Unsupported.into()),
            None => Ok(&Tcp),
        }
    }
}

impl Transport for Sockets {
    fn check_runtime(&self) -> io::Result<()> {
        requirement::sockets()?;
        // For the pause between the addresses of a name.
        requirement::timers()
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move { Self::of(address)?.connect(address).await })
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move { Self::of(address)?.listen(address).await })
    }
}

pub(super) fn invalid(error: super::AddressError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

#[cfg(unix)]
mod sockets {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    use std::path::{Path, PathBuf};

    use tokio::net::{UnixListener, UnixStream};

    use super::*;

    /// Unix sockets: the addresses are `unix:/path`, and `unix:@name` on Linux.
    ///
    /// A peer has no address: handlers find none in
    /// [`ServerCtx::peer_addr`](crate::ServerCtx::peer_addr). Who may connect is a matter of the
    /// permissions of the socket's file and its folder.
    #[derive(Debug, Clone, Copy, Default)]
    pub struct Unix;

    impl Transport for Unix {
        fn check_runtime(&self) -> io::Result<()> {
            requirement::sockets()
        }

        fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxIo>> {
            Box::pin(async move {
                let (_, path) = read(address)?;
                Ok(Box::new(UnixStream::connect(path).await?) as BoxIo)
            })
        }

        fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
            Box::pin(async move {
                Ok(Box::new(UnixAcceptor::bind(address).await?) as Box<dyn Listener>)
            })
        }
    }

    /// A listening unix socket. Its file is removed when it is dropped.
    #[derive(Debug)]
    pub struct UnixAcceptor {
        listener: UnixListener,
        address: Address,
        /// The file that was made, by its device and number: another one at its path is somebody
        /// else's. None where the name is an abstract one.
        file: Option<(PathBuf, (u64, u64))>,
    }

    impl UnixAcceptor {
        /// Listens on `unix:/path`. Where a socket is there that nobody listens on, which a server
        /// leaves behind that was killed, it is removed. Two servers that do so at the same moment
        /// may both listen then, and clients reach only one of them.
        ///
        /// # Errors
        /// The address has another form, somebody listens on it, a file is there that is no socket,
        /// or the system refuses it; the error names the address.
        pub async fn bind(address: &str) -> io::Result<Self> {
            let named = |error: io::Error| super::super::tcp::named(address, &error);
            let (parsed, path) = read(address).map_err(named)?;
            let listener = match UnixListener::bind(&path) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    if !is_stale(&path).await {
                        return Err(named(error));
                    }
                    std::fs::remove_file(&path).map_err(named)?;
                    UnixListener::bind(&path)
                }
                bound => bound,
            };
            let listener = listener.map_err(named)?;
            // Absolute, since the program may change its folder.
            let file = std::path::absolute(&path).ok().and_then(|path| {
                let number = number(&path)?;
                Some((path, number))
            });
            Ok(Self {
                listener,
                address: parsed,
                file,
            })
        }
    }

    impl Drop for UnixAcceptor {
        fn drop(&mut self) {
            if let Some((path, own)) = &self.file
                && number(path) == Some(*own)
            {
                // Whoever listens here next removes what is left.
                let _ = std::fs::remove_file(path);
            }
        }
    }

    impl Listener for UnixAcceptor {
        fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxIo, Option<SocketAddr>)>> {
            Box::pin(async move {
                let (stream, _) = self.listener.accept().await?;
                Ok((Box::new(stream) as BoxIo, None))
            })
        }

        fn local_addr(&self) -> io::Result<Address> {
            Ok(self.address.clone())
        }
    }

    fn read(address: &str) -> io::Result<(Address, PathBuf)> {
        let address: Address = address.parse().map_err(invalid)?;
        match address.unix_path().map(Path::to_owned) {
            Some(path) => Ok((address, path)),
            None => Err(invalid(super::super::AddressError::new(
                address.as_str(),
                "a unix socket has another form; expected unix:/path",
            ))),
        }
    }

    /// Whether it is a socket that nobody listens on.
    async fn is_stale(path: &Path) -> bool {
        let is_socket =
            std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
        let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        is_socket && UnixStream::connect(path).await.is_err_and(refused)
    }

    /// What tells a file from others.
    fn number(path: &Path) -> Option<(u64, u64)> {
        let file = std::fs::symlink_metadata(path).ok()?;
        Some((file.dev(), file.ino()))
    }
}
