//! A replica as a process of its own.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use gorums::runtime::Address;
use gorums::server::{Health, Service, ServingStatus};
use gorums::tls::TlsError;
use gorums::{Configuration, ConfigurationError, Server, ServerError, Status};
use tokio::sync::mpsc;

use crate::args::Serve;
use crate::controlled::{self, Orders};
use crate::screen::Screen;
use crate::tls::Security;
use crate::{Delay, Program, ReplicaStore, Trouble};

/// How long requests that are being handled may take to end when the replica is told to end.
const GRACE: Duration = Duration::from_secs(2);

/// How often a replica looks at how its store is.
const LOOK: Duration = Duration::from_millis(250);

/// Serves until the process is told to end. A second signal ends it at once.
pub(super) async fn serve<P: Program>(
    options: Serve,
    screen: &mut Screen,
) -> Result<(), ServeError> {
    let Serve {
        id,
        listen,
        peers,
        data,
        tls,
        controlled: is_controlled,
    } = options;
    // From here on a signal does not kill: whoever reads that the replica listens may send one.
    let mut signals = Signals::listen().map_err(ServeError::Signals)?;
    let security = Security::read(&tls).map_err(ServeError::Tls)?;
    let mut server = security.of_server(Server::builder());
    let mut others = None;
    if !peers.is_empty() {
        let peers = Configuration::builder().addresses(peers);
        let peers = security.of_client(peers).connect();
        let peers = peers.map_err(ServeError::Peers)?;
        let named = peers.node(id).map(|node| node.address().parse());
        if let Some(Ok(named)) = named
            && let Some(contradiction) = Contradiction::of(id, &listen, &named)
        {
            if contradiction.is_certain {
                return Err(ServeError::Contradiction(contradiction));
            }
            screen.message(format_args!("warning: {contradiction}"));
        }
        server = server.peers(id, &peers);
        others = Some(peers.without(id));
    }
    let replicas = others.as_ref().map(|others| others.len() + 1);
    let store = P::Store::open(data.as_deref(), id, replicas);
    let store = Arc::new(store.map_err(|error| ServeError::Open(error.into()))?);
    let delay = Delay::default();
    let service = P::service(Arc::clone(&store), delay.clone());
    let names = ["", service.name()];
    let health = Health::new();
    let server = server
        .add_service(service)
        .add_service(store.source())
        .health(&health)
        .reflection(P::DESCRIPTORS)
        .reflection(P::Store::SOURCE_DESCRIPTORS);
    let server = match is_controlled {
        true => {
            let shared = controlled::listen(&listen);
            let failed = |error| ServeError::Listen(id, listen.to_string(), error);
            server.with_incoming(shared.map_err(failed)?)?
        }
        false => server.bind(listen.as_str()).await?,
    };
    let mut orders = is_controlled.then(|| Orders::listen(delay));
    let address = server.local_addr();
    screen
        .result(format_args!("replica {id} listening on {address}"))
        .map_err(ServeError::Output)?;
    let mut failure = None;
    let told = async {
        tokio::select! {
            biased;
            () = signals.next() => {}
            () = ended(&mut orders) => {}
            status = store.failed() => {
                failure = Some(status);
                return;
            }
        }
        tokio::spawn(async move {
            signals.next().await;
            std::process::exit(1);
        });
    };
    // What is told is shown at once, and there is little of it.
    let (tell, mut news) = mpsc::unbounded_channel();
    let tell = move |text| drop(tell.send(text));
    let caught_up = async {
        if let Some(others) = others {
            let store = Arc::clone(&store);
            store.catch_up(others, tell.clone()).await;
        }
        std::future::pending().await
    };
    let shown = async {
        while let Some(text) = news.recv().await {
            screen.message(text);
        }
        std::future::pending().await
    };
    tokio::select! {
        biased;
        () = server.serve_with_shutdown(told, GRACE) => {}
        () = shown => {}
        () = caught_up => {}
        never = tell_trouble(|| store.trouble(), id, &health, &names, &tell) => match never {},
    }
    if let Some(status) = failure {
        return Err(ServeError::Disk(status));
    }
    store.close().await;
    if !is_controlled {
        screen.message(format_args!("replica {id} has ended"));
    }
    Ok(())
}

/// Completes when whoever has started this replica wants its end. Without orders nobody does.
async fn ended(orders: &mut Option<Orders>) {
    match orders {
        Some(orders) => orders.end().await,
        None => std::future::pending().await,
    }
}

/// Tells probes and the user what is wrong with the store, as soon as that changes.
async fn tell_trouble(
    trouble: impl Fn() -> Option<Trouble>,
    id: u32,
    health: &Health,
    services: &[&str],
    tell: impl Fn(String),
) -> Infallible {
    let mut told = None;
    loop {
        let trouble = trouble();
        if trouble != told {
            let status = match trouble {
                Some(Trouble {
                    is_serving: false, ..
                }) => ServingStatus::NotServing,
                _ => ServingStatus::Serving,
            };
            services.iter().for_each(|name| health.set(name, status));
            match trouble {
                Some(Trouble { text, .. }) => tell(format!("replica {id}: {text}")),
                None => tell(format!("replica {id}: its store is well again")),
            }
            told = trouble;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// `--listen` and `--peers` say two things of one replica.
#[derive(Debug)]
pub(super) struct Contradiction {
    id: u32,
    listen: String,
    peer: String,
    /// The addresses cannot lead to the same server: each names a host by its number.
    is_certain: bool,
}

impl Contradiction {
    fn of(id: u32, listens: &Address, named: &Address) -> Option<Self> {
        if listens.canonical() == named.canonical() {
            return None;
        }
        let is_certain = match (listens.socket_addr(), named.socket_addr()) {
            (Some(listens), Some(named)) => {
                !listens.ip().is_unspecified() && !named.ip().is_unspecified()
            }
            _ => false,
        };
        // The host may be another name of the same one, and the port says nothing against it.
        if !is_certain && listens.port().is_some() && listens.port() == named.port() {
            return None;
        }
        Some(Self {
            id,
            listen: listens.to_string(),
            peer: named.to_string(),
            is_certain,
        })
    }
}

impl std::fmt::Display for Contradiction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            id, listen, peer, ..
        } = self;
        write!(
            f,
            "--listen is {listen}, but --peers say that replica {id} is at {peer}: each replica has an --id of its \
             own, and listens where the others look for it"
        )
    }
}

/// Why a replica does not serve.
#[derive(Debug)]
pub(super) enum ServeError {
    /// The server cannot listen, or can no longer accept.
    Server(ServerError),
    /// A replica with this id cannot listen on this address, which was held for it.
    Listen(u32, String, io::Error),
    /// The peers contradict each other.
    Peers(ConfigurationError),
    /// The files for TLS are not good.
    Tls(TlsError),
    /// They contradict where it is to listen.
    Contradiction(Contradiction),
    /// What it has stored cannot be had.
    Open(Box<dyn Error + Send + Sync>),
    /// It can store no more.
    Disk(Status),
    /// The system does not say when the process is told to end.
    Signals(io::Error),
    /// Nobody can be told that it listens.
    Output(io::Error),
}

impl std::fmt::Display for ServeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Server(error) => error.fmt(f),
            Self::Listen(id, address, error) => {
                write!(f, "replica {id} cannot listen on {address}: {error}")
            }
            Self::Peers(error) => write!(f, "--peers: {error}"),
            Self::Tls(error) => error.fmt(f),
            Self::Contradiction(contradiction) => contradiction.fmt(f),
            Self::Open(error) => error.fmt(f),
            Self::Disk(status) => f.write_str(status.message()),
            Self::Signals(error) => write!(f, "signals cannot be handled: {error}"),
            Self::Output(error) => write!(f, "standard output: {error}"),
        }
    }
}

impl Error for ServeError {}

impl From<ServerError> for ServeError {
    fn from(error: ServerError) -> Self {
        Self::Server(error)
    }
}

/// The ways of telling a process to end.
#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// The ways of telling a process to end.
#[cfg(windows)]
struct Signals {
    ctrl_c: tokio::signal::windows::CtrlC,
    ctrl_break: tokio::signal::windows::CtrlBreak,
}

#[cfg(windows)]
impl Signals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::windows::{ctrl_break, ctrl_c};
        Ok(Self {
            ctrl_c: ctrl_c()?,
            ctrl_break: ctrl_break()?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            biased;
            _ = self.ctrl_c.recv() => {}
            _ = self.ctrl_break.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn probes_are_told_while_a_store_answers_nothing() {
        let now = Mutex::new(None);
        let trouble = || *now.lock().expect("no test panics with it");
        let health = Health::new();
        let names = ["", "a.Service"];
        let told = Mutex::new(Vec::new());
        let tell = |text| told.lock().expect("no test panics with it").push(text);
        let telling = tell_trouble(trouble, 1, &health, &names, tell);
        let asking = async {
            let stalls = Trouble {
                text: "its disk stalls",
                is_serving: false,
            };
            let full = Trouble {
                text: "its disk is full",
                is_serving: true,
            };
            for (trouble, expected) in [
                (Some(stalls), ServingStatus::NotServing),
                (Some(full), ServingStatus::Serving),
                (Some(stalls), ServingStatus::NotServing),
                (None, ServingStatus::Serving),
            ] {
                *now.lock().expect("no test panics with it") = trouble;
                tokio::time::sleep(2 * LOOK).await;
                for name in names {
                    assert_eq!(health.get(name), Some(expected), "{trouble:?}");
                }
            }
        };
        tokio::select! {
            biased;
            never = telling => match never {},
            () = asking => {}
        }
        let told = told.into_inner().expect("no test panics with it");
        let expected = [
            "replica 1: its disk stalls",
            "replica 1: its disk is full",
            "replica 1: its disk stalls",
            "replica 1: its store is well again",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_replica_listens_where_its_peers_look_for_it() {
        for (listen, peer, certain) in [
            ("127.0.0.1:8081", "127.0.0.1:8081", None),
            ("127.0.0.1:8084", "127.0.0.1:8081", Some(true)),
            ("127.0.0.1:8081", "127.0.0.2:8081", Some(true)),
            ("[::1]:8081", "[0:0:0:0:0:0:0:1]:08081", None),
            ("0.0.0.0:8081", "10.0.0.1:8081", None),
            ("0.0.0.0:8082", "10.0.0.1:8081", Some(false)),
            ("10.0.0.1:8081", "one.example.com:8081", None),
            ("10.0.0.1:8082", "one.example.com:8081", Some(false)),
            ("unix:/run/one", "unix:/run/one", None),
            ("unix:/run/one", "unix:/run/two", Some(false)),
        ] {
            let [listens, named] = [listen, peer].map(|text| text.parse().expect("legal"));
            let found = Contradiction::of(1, &listens, &named);
            let found = found.map(|found| found.is_certain);
            assert_eq!(found, certain, "{listen} {peer}");
        }
    }
}
