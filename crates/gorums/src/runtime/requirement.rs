//! What the library needs of a tokio runtime.

use std::cell::Cell;
use std::io;
use std::panic::catch_unwind;

use tokio::runtime::{Handle, Id};

/// Which runtime a thread has asked last, and whether it has what was asked for.
type Asked = Cell<Option<(Id, bool)>>;

thread_local! {
    static TIMERS: Asked = const { Cell::new(None) };
    static SOCKETS: Asked = const { Cell::new(None) };
}

/// An error where tokio's timers are disabled.
pub(super) fn timers() -> io::Result<()> {
    let has = TIMERS.with(|asked| {
        has(asked, || {
            drop(tokio::time::sleep(std::time::Duration::ZERO));
        })
    });
    has.then_some(())
        .ok_or_else(|| lacking("timers", "enable_time"))
}

/// An error where tokio's sockets are disabled.
pub(crate) fn sockets() -> io::Result<()> {
    // A socket that the system refuses is told where it is wanted.
    let has = SOCKETS.with(|asked| {
        has(asked, || {
            #[cfg(unix)]
            drop(tokio::net::UnixDatagram::unbound());
            #[cfg(not(unix))]
            if let Ok(socket) = std::net::UdpSocket::bind("127.0.0.1:0")
                && socket.set_nonblocking(true).is_ok()
            {
                drop(tokio::net::UdpSocket::from_std(socket));
            }
        })
    });
    has.then_some(()).ok_or_else(|| lacking("I/O", "enable_io"))
}

/// Whether the present runtime has something, which `act` panics without: tokio has no other way to
/// ask. That panic is reported as any other, once for each thread. Where there is no runtime, or
/// where a panic ends the process, nothing is asked, and nothing is said to be missing.
fn has(asked: &Asked, act: fn()) -> bool {
    let Ok(runtime) = Handle::try_current() else {
        return true;
    };
    if cfg!(panic = "abort") {
        return true;
    }
    let id = runtime.id();
    if let Some((_, has)) = asked.get().filter(|(last, _)| *last == id) {
        return has;
    }
    let has = catch_unwind(act).is_ok();
    asked.set(Some((id, has)));
    has
}

fn lacking(what: &str, enable: &str) -> io::Error {
    let text =
        format!("the tokio runtime has no {what}: build it with {enable}(), or with enable_all()");
    io::Error::new(io::ErrorKind::Unsupported, text)
}
