//! Replicas of this process.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use gorums::runtime::TcpAcceptor;
use gorums::testing::Gate;
use gorums::{Configuration, Server};
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;

use super::{BACKLOG, Condition, ReplicaError, bind};
use crate::command::Action;
use crate::{Delay, Program, ReplicaStore};

/// Replicas with the ids from 1, each on a loopback port of its own.
#[derive(Debug)]
pub struct Local<P: Program>(Vec<LocalReplica<P>>);

/// Where replicas store, if not in memory.
type Directory = Option<PathBuf>;

/// A replica of this process.
#[derive(Debug)]
struct LocalReplica<P: Program> {
    id: u32,
    address: SocketAddr,
    data: Directory,
    state: State<P::Store>,
}

#[derive(Debug)]
enum State<S> {
    Running(Running<S>),
    /// Its port stays bound, if that could be done.
    Stopped(Option<TcpSocket>),
}

#[derive(Debug)]
struct Running<S> {
    /// Holds the listener and the connections.
    serving: JoinHandle<()>,
    store: Arc<S>,
    gate: Gate,
    delay: Delay,
}

impl<P: Program> Local<P> {
    /// Starts so many replicas.
    pub fn start(count: u32, data: Directory) -> Result<Self, ReplicaError> {
        let mut replicas = Vec::new();
        // Each knows the addresses of all before any of them starts.
        for id in 1..=count {
            let address = (Ipv4Addr::LOCALHOST, 0).into();
            let failed = |cause| ReplicaError::Listen { id, address, cause };
            let socket = bind(address).map_err(failed)?;
            replicas.push(LocalReplica {
                id,
                address: socket.local_addr().map_err(failed)?,
                data: data.clone(),
                state: State::Stopped(Some(socket)),
            });
        }
        let mut local = Self(replicas);
        for id in 1..=count {
            local.start_one(id)?;
        }
        Ok(local)
    }

    fn start_one(&mut self, id: u32) -> Result<(), ReplicaError> {
        let addresses: Vec<_> = self.addresses().collect();
        self.replica(id)?.start(&addresses)
    }

    fn replica(&mut self, id: u32) -> Result<&mut LocalReplica<P>, ReplicaError> {
        let count = self.0.len();
        let found = self.0.iter_mut().find(|replica| replica.id == id);
        found.ok_or(ReplicaError::Unknown { id, count })
    }

    /// The addresses of the replicas, with their ids.
    pub fn addresses(&self) -> impl Iterator<Item = (u32, SocketAddr)> {
        self.0.iter().map(|replica| (replica.id, replica.address))
    }

    /// Whether they have files.
    pub fn are_durable(&self) -> bool {
        self.0.iter().any(|replica| replica.data.is_some())
    }

    /// Does something to a replica.
    pub async fn act(&mut self, id: u32, action: Action) -> Result<(), ReplicaError> {
        match action {
            Action::Start => self.start_one(id),
            Action::Stop => self.replica(id)?.stop().await,
            Action::Pause => {
                let gate = &self.replica(id)?.running()?.gate;
                if !gate.is_open() {
                    return Err(ReplicaError::Paused(id));
                }
                gate.close();
                Ok(())
            }
            Action::Resume => {
                let gate = &self.replica(id)?.running()?.gate;
                if gate.is_open() {
                    return Err(ReplicaError::NotPaused(id));
                }
                gate.open();
                Ok(())
            }
            Action::Delay(delay) => {
                self.replica(id)?.running()?.delay.set(delay);
                Ok(())
            }
        }
    }

    /// What was done to a replica, in a word or two.
    pub fn condition(&self, id: u32) -> Option<Condition> {
        let replica = self.0.iter().find(|replica| replica.id == id)?;
        Some(match &replica.state {
            State::Stopped(_) => Condition::Stopped,
            State::Running(running) if running.serving.is_finished() => Condition::Failed,
            State::Running(running) => Condition::Running {
                paused: !running.gate.is_open(),
                delay: running.delay.get(),
                process: None,
                trouble: running.store.trouble().map(|trouble| trouble.text),
            },
        })
    }
}

impl<P: Program> LocalReplica<P> {
    fn running(&self) -> Result<&Running<P::Store>, ReplicaError> {
        match &self.state {
            State::Running(running) => Ok(running),
            State::Stopped(_) => Err(ReplicaError::Stopped(self.id)),
        }
    }

    /// From now on the system accepts connections for it.
    fn start(&mut self, replicas: &[(u32, SocketAddr)]) -> Result<(), ReplicaError> {
        let State::Stopped(reserved) = &mut self.state else {
            return Err(ReplicaError::Running(self.id));
        };
        let address = self.address;
        let store = P::Store::open(self.data.as_deref(), self.id, Some(replicas.len()))
            .map_err(|error| ReplicaError::Open(error.into()))?;
        let socket = reserved.take().map_or_else(|| bind(address), Ok);
        let started =
            socket.and_then(|socket| Running::start::<P>(self.id, socket, store, replicas));
        let cause = match started {
            Ok(running) => {
                self.state = State::Running(running);
                return Ok(());
            }
            Err(cause) => cause,
        };
        Err(ReplicaError::Listen {
            id: self.id,
            address,
            cause,
        })
    }

    async fn stop(&mut self) -> Result<(), ReplicaError> {
        self.running()?;
        // Where the system allows it, the port is taken over before the listener gives it up.
        let reserved = bind(self.address).ok();
        // In one step, so that a command that is cancelled leaves nothing half done.
        let before = std::mem::replace(&mut self.state, State::Stopped(reserved));
        if let State::Running(running) = before {
            running.serving.abort();
            // How it ended does not matter any more.
            let _ = running.serving.await;
            // Its file is free for the one that is started next.
            running.store.close().await;
        }
        if let State::Stopped(reserved @ None) = &mut self.state {
            *reserved = bind(self.address).ok();
        }
        Ok(())
    }
}

impl<S: ReplicaStore> Running<S> {
    fn start<P: Program<Store = S>>(
        id: u32,
        socket: TcpSocket,
        store: S,
        replicas: &[(u32, SocketAddr)],
    ) -> io::Result<Self> {
        let peers = replicas
            .iter()
            .fold(Configuration::builder(), |peers, (id, address)| {
                peers.node(*id, address.to_string())
            });
        let peers = peers.connect().map_err(io::Error::other)?;
        let listener = TcpAcceptor::from(socket.listen(BACKLOG)?);
        let gate = Gate::new();
        let delay = Delay::default();
        let store = Arc::new(store);
        let server = Server::builder()
            .peers(id, &peers)
            .add_service(P::service(Arc::clone(&store), delay.clone()))
            .add_service(store.source())
            .with_incoming(gate.guard(listener))
            .map_err(io::Error::other)?;
        let failing = Arc::clone(&store);
        // `nodes` tells how far it has come.
        let catching_up = Arc::clone(&store).catch_up(peers.without(id), |_| ());
        let serving = tokio::spawn(async move {
            let caught_up = async {
                catching_up.await;
                std::future::pending().await
            };
            tokio::select! {
                biased;
                () = server.serve() => {}
                _ = failing.failed() => {}
                () = caught_up => {}
            }
        });
        Ok(Self {
            serving,
            store,
            gate,
            delay,
        })
    }
}
