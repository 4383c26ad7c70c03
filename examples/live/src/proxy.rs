//! A proxy before a replica, that does to its connections what networks do.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use cluster_shell::replicas::Processes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::tally::{Kind, Tally};

/// How long the proxy tries to reach its replica for a client.
const CONNECTING: Duration = Duration::from_secs(1);

/// How long one side of a connection stays open at most after the other was closed without its
/// knowledge.
const ABANDONED: Duration = Duration::from_secs(10);

/// How many bytes are read at once.
const CHUNK: usize = 16 * 1024;

/// Passes bytes between clients and a replica. Closed when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    break_off: watch::Sender<Break>,
    accepting: JoinHandle<()>,
}

/// What happens to bytes that pass.
#[derive(Debug, Clone, Default)]
pub struct Weather {
    delay: Duration,
    stalled: bool,
    /// They go nowhere.
    swallowed: bool,
    /// It has touched some.
    fired: Arc<AtomicBool>,
}

/// What last happened to all connections at once.
#[derive(Debug, Clone, Default)]
struct Break {
    half: bool,
    fired: Arc<AtomicBool>,
}

impl Weather {
    /// Each piece that comes, of 16 KiB at the most, is passed on so late, and the next one after it.
    #[must_use]
    pub fn late(delay: Duration) -> Self {
        Self {
            delay,
            ..Self::default()
        }
    }

    /// Nothing comes.
    #[must_use]
    pub fn stalled() -> Self {
        Self {
            stalled: true,
            ..Self::default()
        }
    }

    /// All that comes is read, and goes nowhere; on a connection on which anything came, until it is
    /// [cut](Proxy::cut), since what comes after that would make no sense to anybody.
    #[must_use]
    pub fn black_hole() -> Self {
        Self {
            swallowed: true,
            ..Self::default()
        }
    }
}

impl Proxy {
    /// A proxy on a port of its own.
    async fn start(replica: SocketAddr, tally: Arc<Tally>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (weather, _) = watch::channel(Weather::default());
        let (break_off, _) = watch::channel(Break::default());
        let (of_weather, of_breaks) = (weather.clone(), break_off.clone());
        let accepting = tokio::spawn(async move {
            loop {
                // Where there is no place for one more, the client tries again.
                let Ok((client, _)) = listener.accept().await else {
                    sleep(Duration::from_millis(10)).await;
                    continue;
                };
                let passage = Passage {
                    weather: of_weather.subscribe(),
                    tally: Arc::clone(&tally),
                };
                let connection = connect(client, replica, passage, of_breaks.subscribe());
                tokio::spawn(connection);
            }
        });
        Ok(Self {
            address,
            weather,
            break_off,
            accepting,
        })
    }

    /// A proxy before each of these replicas.
    ///
    /// # Errors
    ///
    /// Where the system has no ports for them.
    pub async fn before_each(processes: &Processes, tally: &Arc<Tally>) -> Result<Vec<Self>> {
        let mut proxies = Vec::new();
        for (_, address) in processes.addresses() {
            let proxy = Self::start(address, Arc::clone(tally)).await;
            proxies.push(proxy.context("a proxy")?);
        }
        Ok(proxies)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets this happen to all that passes from now on.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Lets all pass.
    pub fn heal(&self) {
        self.set(Weather::default());
    }

    /// Closes all connections, on both sides.
    pub fn cut(&self) {
        self.break_off.send_replace(Break::default());
    }

    /// Closes one side of each connection; the other side is not told, and what it sends
    /// disappears.
    pub fn half_open(&self) {
        self.break_off.send_replace(Break {
            half: true,
            ..Break::default()
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A client's connection, until it ends or is broken.
async fn connect(
    mut client: TcpStream,
    replica: SocketAddr,
    passage: Passage,
    mut breaks: watch::Receiver<Break>,
) {
    let tally = Arc::clone(&passage.tally);
    // Where there is no replica, the client's connection is closed, too.
    let Ok(Ok(mut server)) = timeout(CONNECTING, TcpStream::connect(replica)).await else {
        return;
    };
    // As the library does at both ends.
    let _ = client.set_nodelay(true).and(server.set_nodelay(true));
    let broken = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            biased;
            changed = breaks.changed() => changed.is_ok(),
            // One direction that ends takes the other with it, as when a process ends.
            () = passage.clone().pass(from_client, to_server) => false,
            () = passage.pass(from_server, to_client) => false,
        }
    };
    if !broken {
        return;
    }
    let last = breaks.borrow_and_update().clone();
    if !last.fired.swap(true, Ordering::Relaxed) {
        tally.add(if last.half { Kind::HalfOpen } else { Kind::Cut });
    }
    if last.half {
        // Which side is left, the port of the client decides.
        let odd = client
            .peer_addr()
            .is_ok_and(|client| client.port() % 2 == 1);
        let (left, closed) = if odd {
            (client, server)
        } else {
            (server, client)
        };
        drop(closed);
        let _ = timeout(ABANDONED, swallow(left)).await;
    }
}

/// Reads until the other side has noticed that nobody answers.
async fn swallow(mut left: TcpStream) {
    let mut bytes = vec![0; CHUNK];
    while left.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
}

/// One direction of a connection.
#[derive(Clone)]
struct Passage {
    weather: watch::Receiver<Weather>,
    tally: Arc<Tally>,
}

impl Passage {
    /// Passes bytes on, as the weather allows, until one of both sides ends.
    async fn pass(mut self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) {
        let mut bytes = vec![0; CHUNK];
        let mut is_lost = false;
        loop {
            let Ok(count @ 1..) = from.read(&mut bytes).await else {
                return;
            };
            // What comes after bytes that are gone makes no sense: this goes on until it is cut.
            is_lost |= self.wait().await;
            if is_lost {
                continue;
            }
            if to.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    }

    /// Waits as long as bytes have to. Whether they go nowhere.
    async fn wait(&mut self) -> bool {
        let weather = self.weather.borrow_and_update().clone();
        if weather.stalled {
            self.note(&weather, Kind::Stall);
            // The proxy ends with the program.
            let _ = self.weather.wait_for(|weather| !weather.stalled).await;
        } else if !weather.delay.is_zero() {
            self.note(&weather, Kind::Delay);
            sleep(weather.delay).await;
        } else if weather.swallowed {
            self.note(&weather, Kind::BlackHole);
        }
        weather.swallowed
    }

    fn note(&self, weather: &Weather, kind: Kind) {
        if !weather.fired.swap(true, Ordering::Relaxed) {
            self.tally.add(kind);
        }
    }
}
