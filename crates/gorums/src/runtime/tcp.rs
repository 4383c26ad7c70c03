use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::time::{Instant, sleep};

use super::unix::invalid;
use super::{Address, AddressError, BoxFuture, BoxIo, Listener, Transport, requirement};
use crate::log;

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;

/// How long an address of a name has before the next one is tried beside it: the "Connection Attempt
/// Delay" of RFC 8305.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// How many addresses of a name are tried.
const ADDRESSES: usize = 64;

/// TCP without Nagle's delay: the addresses are `host:port`.
///
/// Where a name has several addresses, the next one is tried as soon as the one before has failed,
/// and else 250 ms after it, beside it; the first connection is taken, and the other attempts are
/// given up. IPv6 and IPv4 take turns, in the order in which the system names them (RFC 8305, "Happy
/// Eyeballs"). Of one name 64 addresses are tried at the most.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tcp;

impl Transport for Tcp {
    fn check_runtime(&self) -> io::Result<()> {
        requirement::sockets()?;
        // For the pause between the addresses of a name.
        requirement::timers()
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move {
            let (host, port) = read(address)?;
            let addresses = alternating(lookup_host((&*host, port)).await?);
            let stream = first_of(addresses, TcpStream::connect).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as BoxIo)
        })
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(
            async move { Ok(Box::new(TcpAcceptor::bind(address).await?) as Box<dyn Listener>) },
        )
    }
}

/// The addresses, with both families in turn.
fn alternating(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut addresses = addresses.peekable();
    let first_is_v6 = addresses.peek().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.partition(|address| address.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut in_turn = Vec::new();
    loop {
        let next = [first.next(), second.next()];
        if next == [None, None] {
            break;
        }
        in_turn.extend(next.into_iter().flatten());
    }
    in_turn.truncate(ADDRESSES);
    in_turn
}

/// Connects to the addresses, each after the one before it has failed or had its time. The first
/// that succeeds is taken.
///
/// # Errors
/// That of the last one to fail; there is no address.
async fn first_of<T, Fut: Future<Output = io::Result<T>>>(
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> Fut,
) -> io::Result<T> {
    let mut addresses = addresses.into_iter();
    let mut attempts: Vec<Pin<Box<Fut>>> = Vec::new();
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let mut next = pin!(sleep(Duration::ZERO));
    let mut is_due = true;
    poll_fn(|cx| {
        loop {
            if is_due && let Some(address) = addresses.next() {
                attempts.push(Box::pin(connect(address)));
                next.as_mut().reset(Instant::now() + NEXT_ADDRESS);
            }
            let before = attempts.len();
            let mut connected = None;
            attempts.retain_mut(|attempt| match attempt.as_mut().poll(cx) {
                _ if connected.is_some() => true,
                Poll::Ready(Ok(connection)) => {
                    connected = Some(connection);
                    false
                }
                Poll::Ready(Err(error)) => {
                    failed = error;
                    false
                }
                Poll::Pending => true,
            });
            if let Some(connection) = connected {
                return Poll::Ready(Ok(connection));
            }
            if attempts.is_empty() && addresses.len() == 0 {
                let none = io::Error::from(io::ErrorKind::NotFound);
                return Poll::Ready(Err(std::mem::replace(&mut failed, none)));
            }
            let has_failed = attempts.len() < before;
            is_due = addresses.len() > 0 && (has_failed || next.as_mut().poll(cx).is_ready());
            if !is_due {
                return Poll::Pending;
            }
        }
    })
    .await
}

/// A listening TCP socket.
#[derive(Debug)]
pub struct TcpAcceptor(TcpListener);

impl TcpAcceptor {
    /// Listens on an address, with `SO_REUSEADDR`, so that a server can take its port again right
    /// after it was stopped.
    ///
    /// # Errors
    /// The address cannot be resolved, or the system refuses it; the error names the address.
    pub async fn bind(address: &str) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
        let (host, port) = read(address).map_err(|error| named(address, &error))?;
        let candidates = lookup_host((&*host, port))
            .await
            .map_err(|error| named(address, &error))?;
        for candidate in candidates {
            match Self::listen_on(candidate) {
                Ok(listener) => return Ok(listener),
                Err(error) => last = error,
            }
        }
        Err(named(address, &last))
    }

    fn listen_on(address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self(socket.listen(BACKLOG)?))
    }
}

impl From<TcpListener> for TcpAcceptor {
    fn from(listener: TcpListener) -> Self {
        Self(listener)
    }
}

impl Listener for TcpAcceptor {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxIo, Option<SocketAddr>)>> {
        Box::pin(async move {
            loop {
                let (stream, peer) = self.0.accept().await?;
                match stream.set_nodelay(true) {
                    Ok(()) => return Ok((Box::new(stream) as BoxIo, Some(peer))),
                    // On some systems this is how one learns that the peer has gone meanwhile.
                    Err(error) => tracing::debug!(
                        target: log::SERVER,
                        %error,
                        "a connection was gone before it was accepted"
                    ),
                }
            }
        })
    }

    fn local_addr(&self) -> io::Result<Address> {
        self.0.local_addr().map(Into::into)
    }
}

/// The host, without brackets, and the port.
fn read(address: &str) -> io::Result<(String, u16)> {
    let address: Address = address.parse().map_err(invalid)?;
    let (host, port) = address.host_and_port().ok_or_else(|| {
        let reason = "TCP has another form of address; expected host:port";
        invalid(AddressError::new(address.as_str(), reason))
    })?;
    Ok((host.to_owned(), port))
}

pub(super) fn named(address: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn address(number: u8) -> SocketAddr {
        match number {
            0..100 => SocketAddr::from(([127, 0, 0, number], 1)),
            _ => SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, u16::from(number)], 1)),
        }
    }

    #[test]
    fn both_families_take_turns() {
        for (named, in_turn) in [
            (&[101, 102, 103, 1][..], &[101, 1, 102, 103][..]),
            (&[1, 2, 101, 102], &[1, 101, 2, 102]),
            (&[1, 2], &[1, 2]),
            (&[], &[]),
        ] {
            let named = named.iter().map(|number| address(*number));
            let in_turn: Vec<_> = in_turn.iter().map(|number| address(*number)).collect();
            assert_eq!(alternating(named), in_turn);
        }
        let many = (0..100).map(address);
        assert_eq!(alternating(many).len(), ADDRESSES);
    }

    #[derive(Clone, Copy)]
    enum Behaves {
        Takes(u64),
        Refuses,
        Swallows,
    }
    use Behaves::{Refuses, Swallows, Takes};

    /// Which address was connected to, when each one was tried, and how long it took, in
    /// milliseconds.
    async fn raced(behave: &[Behaves]) -> (io::Result<u8>, Vec<u64>, u64) {
        let began = Instant::now();
        let tried = Mutex::new(Vec::new());
        let addresses = (1..).take(behave.len()).map(address).collect();
        let connected = first_of(addresses, |address| {
            let now = began.elapsed().as_millis() as u64;
            tried.lock().expect("no panic").push(now);
            let SocketAddr::V4(v4) = address else {
                panic!("all are of one family");
            };
            let number = v4.ip().octets()[3];
            let behaves = behave[usize::from(number) - 1];
            async move {
                match behaves {
                    Takes(millis) => {
                        sleep(Duration::from_millis(millis)).await;
                        Ok(number)
                    }
                    Refuses => Err(io::Error::other(format!("refused by {number}"))),
                    Swallows => std::future::pending().await,
                }
            }
        })
        .await;
        let tried = tried.into_inner().expect("no panic");
        (connected, tried, began.elapsed().as_millis() as u64)
    }

    #[tokio::test(start_paused = true)]
    async fn each_address_is_tried_and_the_first_connection_is_taken() {
        for (behave, winner, tried, took) in [
            (&[Takes(10), Takes(0)][..], 1, &[0][..], 10),
            (&[Swallows, Takes(10)], 2, &[0, 250], 260),
            (&[Swallows, Swallows, Takes(0)], 3, &[0, 250, 500], 500),
            (&[Refuses, Takes(10)], 2, &[0, 0], 10),
            (&[Swallows, Refuses, Takes(10)], 3, &[0, 250, 250], 260),
            // The one that was first may still win.
            (&[Takes(400), Takes(200)], 1, &[0, 250], 400),
            (&[Takes(600), Takes(200)], 2, &[0, 250], 450),
            (&[Swallows, Takes(300), Takes(10)], 3, &[0, 250, 500], 510),
        ] {
            let (connected, at, took_now) = raced(behave).await;
            assert_eq!(connected.expect("one takes it"), winner);
            assert_eq!((&at[..], took_now), (tried, took));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_none_takes_it_the_last_error_says_why() {
        let (failed, tried, took) = raced(&[Refuses, Refuses]).await;
        assert_eq!(
            failed.expect_err("none takes it").to_string(),
            "refused by 2"
        );
        assert_eq!((&tried[..], took), (&[0, 0][..], 0));
        let (none, ..) = raced(&[]).await;
        assert_eq!(
            none.expect_err("there is none").to_string(),
            "the name has no address"
        );
    }
}
