//! What the library needs of a tokio runtime.

use std::io;
use std::panic::catch_unwind;

/// Tries what panics where the runtime that this is called in lacks a driver, as tokio does: it has
/// no way to ask. The panic's own message appears as any other's.
fn tried(what: &str, enable: &str, act: fn()) -> io::Result<()> {
    catch_unwind(act).map_err(|_| {
        io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "the tokio runtime has no {what}: build it with {enable}(), or with enable_all()"
            ),
        )
    })
}

/// An error where tokio's timers are disabled.
pub(super) fn timers() -> io::Result<()> {
    tried("timers", "enable_time", || {
        drop(tokio::time::sleep(std::time::Duration::ZERO));
    })
}

/// An error where tokio's sockets are disabled.
pub(super) fn sockets() -> io::Result<()> {
    // A socket that the system refuses is told where it is wanted.
    tried("I/O", "enable_io", || {
        #[cfg(unix)]
        drop(tokio::net::UnixDatagram::unbound());
        #[cfg(not(unix))]
        if let Ok(socket) = std::net::UdpSocket::bind("127.0.0.1:0")
            && socket.set_nonblocking(true).is_ok()
        {
            drop(tokio::net::UdpSocket::from_std(socket));
        }
    })
}
