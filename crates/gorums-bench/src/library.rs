//! The calls of the library that are measured.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use gorums::{Client, Configuration};

use crate::args::{Calls, Plan};
use crate::load::{CallError, Caller, Work};
use crate::proto::benchmark_client::BenchmarkClient;
use crate::proto::nested_client::NestedClient;
use crate::proto::{Echo, TimedMsg};
use crate::secure::{self, Handshakes};
use crate::serve::message_size;
use crate::service::{SLOW_CYCLE, unix_nanos};

/// Called at one server, by its name: the service has it as a quorum call only.
const ECHO: &str = "benchmark.Benchmark.QuorumCall";

/// How long the connections may take.
const CONNECTING: Duration = Duration::from_secs(10);

/// Connects to servers, with bounds that the load of the plan does not reach.
pub(crate) async fn connect(addresses: &[String], plan: &Plan) -> Result<Configuration> {
    let in_flight = plan.load.in_flight();
    let messages = (2 * in_flight).max(16 * 1024);
    let bytes = (messages.min(2 * in_flight) * (plan.payload + 512)).max(16 << 20);
    let configuration = secure::configuration()
        .nodes(addresses.iter().map(String::as_str))
        .outbox(messages, bytes)
        .max_calls((2 * in_flight).max(1024 * 1024))
        .max_decoding_message_size(message_size(plan.payload))
        // Many nodes are measured with one server behind many addresses of the loopback.
        .allow_same_server(true)
        .connect()
        .context("the servers")?;
    let connected = configuration.connected(configuration.len());
    let connected = tokio::time::timeout(CONNECTING, connected).await;
    if !matches!(connected, Ok(Ok(()))) {
        for node in &configuration {
            if let Some(error) = node.last_error() {
                bail!("no connection to {}: {error}", node.address());
            }
        }
        bail!(
            "the servers cannot be reached within {} s",
            CONNECTING.as_secs()
        );
    }
    Ok(configuration)
}

/// Calls of the library. Clones are one.
#[derive(Clone)]
pub(crate) struct Library(Arc<Shared>);

struct Shared {
    calls: Calls,
    benchmark: BenchmarkClient,
    nested: NestedClient,
    /// For calls that the service has as quorum calls only: they look the same to a server.
    untyped: Client,
    quorum: usize,
    payload: Bytes,
}

impl Library {
    pub(crate) fn new(calls: Calls, configuration: &Configuration, plan: &Plan) -> Self {
        Self(Arc::new(Shared {
            calls,
            benchmark: BenchmarkClient::new(configuration).with_timeout(plan.timeout),
            nested: NestedClient::new(configuration).with_timeout(plan.timeout),
            untyped: Client::new(configuration).with_timeout(plan.timeout),
            quorum: plan.quorum,
            payload: vec![0; plan.payload].into(),
        }))
    }

    pub(crate) fn benchmark(&self) -> &BenchmarkClient {
        &self.0.benchmark
    }
}

impl Work for Library {
    type Caller = LibraryCaller;

    fn caller(&self, number: usize) -> LibraryCaller {
        LibraryCaller {
            library: self.clone(),
            turn: number,
        }
    }

    fn beginning(&self) -> Duration {
        match self.0.calls {
            Calls::SlowServer => SLOW_CYCLE,
            _ => Duration::ZERO,
        }
    }
}

pub(crate) struct LibraryCaller {
    library: Library,
    /// Where calls to one node each go in turn.
    turn: usize,
}

impl Caller for LibraryCaller {
    async fn call(&mut self) -> Result<(), CallError> {
        let shared = &*self.library.0;
        let request = || Echo {
            payload: shared.payload.clone(),
        };
        let reply = match shared.calls {
            Calls::QuorumCall => {
                let call = shared.benchmark.quorum_call(request());
                call.threshold(shared.quorum).await?
            }
            Calls::SlowServer => {
                let call = shared.benchmark.slow_server(request());
                call.threshold(shared.quorum).await?
            }
            Calls::Nested => {
                let call = shared.nested.nested_quorum_call(request());
                call.threshold(shared.quorum).await?
            }
            Calls::Correctable => {
                let call = shared.benchmark.quorum_call(request());
                call.correctable(shared.quorum).done().await?
            }
            Calls::Rpc => {
                let nodes = shared.untyped.configuration();
                let node = &nodes[self.turn % nodes.len()];
                self.turn += 1;
                shared.untyped.rpc::<_, Echo>(node, ECHO, request()).await?
            }
            Calls::Multicast => {
                let message = TimedMsg {
                    send_time: unix_nanos(),
                    payload: shared.payload.clone(),
                };
                shared.benchmark.multicast(message).await?;
                return Ok(());
            }
        };
        check(&reply, &shared.payload)
    }
}

/// Whether a reply has what was sent.
pub(crate) fn check(reply: &Echo, payload: &Bytes) -> Result<(), CallError> {
    if reply.payload.len() == payload.len() {
        return Ok(());
    }
    let (found, sent) = (reply.payload.len(), payload.len());
    Err(CallError(format!("{found} bytes came back of {sent}")))
}

/// New connections, each with a call to one of the servers in turn.
pub(crate) struct Connecting(Arc<Nodes>);

struct Nodes {
    addresses: Vec<String>,
    handshakes: Handshakes,
    payload: Bytes,
    timeout: Duration,
}

impl Connecting {
    pub(crate) fn new(addresses: &[String], handshakes: Handshakes, plan: &Plan) -> Self {
        Self(Arc::new(Nodes {
            addresses: addresses.to_vec(),
            handshakes,
            payload: vec![0; plan.payload].into(),
            timeout: plan.timeout,
        }))
    }
}

impl Work for Connecting {
    type Caller = ConnectingCaller;

    fn caller(&self, number: usize) -> ConnectingCaller {
        ConnectingCaller {
            nodes: Arc::clone(&self.0),
            turn: number,
        }
    }
}

pub(crate) struct ConnectingCaller {
    nodes: Arc<Nodes>,
    turn: usize,
}

impl Caller for ConnectingCaller {
    async fn call(&mut self) -> Result<(), CallError> {
        let nodes = &*self.nodes;
        let address = nodes.addresses[self.turn % nodes.addresses.len()].as_str();
        self.turn += 1;
        let failed = |error: anyhow::Error| CallError(format!("{error:#}"));
        let builder = secure::new_connection(nodes.handshakes).map_err(failed)?;
        let configuration = builder
            .nodes([address])
            .connect()
            .map_err(|error| failed(error.into()))?;
        let client = Client::new(&configuration).with_timeout(nodes.timeout);
        let request = Echo {
            payload: nodes.payload.clone(),
        };
        let reply = client
            .rpc::<_, Echo>(&configuration[0], ECHO, request)
            .await?;
        check(&reply, &nodes.payload)
    }
}
