//! What the tests share: messages, a counter of events, and clusters on loopback.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gorums::{Configuration, Server, ServerBuilder};
use prost::Message;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// Longer than any test: a server that ends has not been cut off.
pub const GRACE: Duration = Duration::from_secs(600);

#[derive(Clone, PartialEq, Message)]
pub struct Number {
    #[prost(uint64, tag = "1")]
    pub value: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub payload: bytes::Bytes,
}

pub fn number(value: u64) -> Number {
    Number {
        value,
        payload: bytes::Bytes::new(),
    }
}

/// A server on loopback, stopped when it is dropped.
pub struct TestServer {
    pub addr: SocketAddr,
    task: JoinHandle<()>,
}

impl TestServer {
    pub async fn start(builder: ServerBuilder) -> Self {
        Self::start_at(builder, "127.0.0.1:0").await
    }

    pub async fn start_at(builder: ServerBuilder, addr: &str) -> Self {
        Self::of(builder.bind(addr).await.expect("a free port"))
    }

    /// One that is bound already.
    pub fn of(server: Server) -> Self {
        let addr = server.local_addr().socket_addr().expect("it has one");
        Self {
            addr,
            task: tokio::spawn(server.serve()),
        }
    }

    /// Stops it at once, and waits until it is gone.
    pub async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A server that can be told to shut down.
pub struct Stoppable {
    pub address: String,
    stop: oneshot::Sender<()>,
    pub serving: JoinHandle<()>,
}

impl Stoppable {
    pub async fn start(builder: ServerBuilder, address: &str) -> Self {
        let server = builder.bind(address).await.expect("a free port");
        let local = server.local_addr().to_string();
        let (stop, asked) = oneshot::channel();
        let signal = async move {
            let _ = asked.await;
        };
        Self {
            address: local,
            stop,
            serving: tokio::spawn(server.serve_with_shutdown(signal, GRACE)),
        }
    }

    pub fn stop(self) -> JoinHandle<()> {
        self.stop.send(()).expect("it serves");
        self.serving
    }
}

/// Servers, each made by the function from its index, and a configuration of all.
pub async fn cluster(
    n: usize,
    make: impl Fn(usize) -> ServerBuilder,
) -> (Vec<TestServer>, Configuration) {
    let mut servers = Vec::new();
    for index in 0..n {
        servers.push(TestServer::start(make(index)).await);
    }
    let configuration = connect(&servers);
    within(configuration.connected(n))
        .await
        .expect("none is closed");
    (servers, configuration)
}

pub fn connect(servers: &[TestServer]) -> Configuration {
    Configuration::builder()
        .nodes(servers.iter().map(|server| server.addr.to_string()))
        .connect()
        .expect("legal addresses")
}

/// Fails a test that hangs, with a limit that no working machine comes near.
pub async fn within<F: IntoFuture>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(60), future.into_future())
        .await
        .expect("the test hangs")
}

/// Counts events, and lets a test wait for so many.
#[derive(Clone)]
pub struct Counter(Arc<watch::Sender<u64>>);

impl Counter {
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    pub fn add(&self) -> u64 {
        let mut new = 0;
        self.0.send_modify(|count| {
            *count += 1;
            new = *count;
        });
        new
    }

    pub fn get(&self) -> u64 {
        *self.0.borrow()
    }

    pub async fn reached(&self, count: u64) {
        let mut receiver = self.0.subscribe();
        within(receiver.wait_for(|now| *now >= count))
            .await
            .expect("the sender is here");
    }
}

/// A server with a method that echoes.
pub fn echo() -> ServerBuilder {
    Server::builder().unary("test.Test.Echo", |_ctx, request: Number| async move {
        Ok::<_, gorums::Status>(request)
    })
}
