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
use crate::secure;
use crate::serve::message_size;
use crate::service::{SLOW_CYCLE, unix_nanos};

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
                let method = "benchmark.Benchmark.QuorumCall";
                shared
                    .untyped
                    .rpc::<_, Echo>(node, method, request())
                    .await?
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
        if reply.payload.len() != shared.payload.len() {
            let (found, sent) = (reply.payload.len(), shared.payload.len());
            return Err(CallError(format!("{found} bytes came back of {sent}")));
        }
        Ok(())
    }
}
