//! Quorum calls that are written by hand on tonic, as somebody would who does not use this library:
//! a unary call to each server, the first majority, a deadline.
//!
//! The messages are those of this library's side, so that neither side copies what the other does
//! not. Client and server do what `tonic-prost-build` would generate, which needs no build script
//! here; the server has no router of paths before it, since it has one path.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::uri::PathAndQuery;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::server::UnaryService;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower_service::Service;

use crate::args::Plan;
use crate::load::{CallError, Caller, Work};
use crate::proto::Echo;
use crate::serve::message_size;

/// What is called. It is unary, where the library's own service has a stream.
const PATH: PathAndQuery = PathAndQuery::from_static("/benchmark.Benchmark/QuorumCall");

/// Calls that a server may know to be cancelled before it has looked at them. Every quorum call
/// cancels what it does not wait for, and beyond the 20 that are usual a server takes a client for
/// an attacker (CVE-2023-44487) and ends the connection.
const CANCELLED: usize = 1 << 20;

/// Streams of one connection. Every call in flight is one, and at the usual 200 the others wait.
const STREAMS: u32 = 1 << 20;

/// Sends back what comes, on every connection, for ever.
pub(crate) async fn serve(listener: TcpListener, payload: usize) {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let served = Server::builder()
        .max_concurrent_streams(STREAMS)
        .http2_max_pending_accept_reset_streams(Some(CANCELLED))
        .http2_max_local_error_reset_streams(Some(CANCELLED))
        .serve_with_incoming(EchoServer { payload }, incoming)
        .await;
    if let Err(error) = served {
        eprintln!("gorums-bench: tonic's server has ended: {error}");
    }
}

type Boxed<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// What `tonic-prost-build` generates for a service, with one method.
#[derive(Clone)]
struct EchoServer {
    payload: usize,
}

impl Service<http::Request<Body>> for EchoServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Boxed<Self::Response, Infallible>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let size = message_size(self.payload);
        Box::pin(async move {
            if request.uri().path() != PATH.path() {
                return Ok(Status::unimplemented("this server has one method").into_http());
            }
            let codec = ProstCodec::<Echo, Echo>::default();
            let mut grpc = tonic::server::Grpc::new(codec).max_decoding_message_size(size);
            Ok(grpc.unary(EchoMethod, request).await)
        })
    }
}

struct EchoMethod;

impl UnaryService<Echo> for EchoMethod {
    type Response = Echo;
    type Future = Boxed<Response<Echo>, Status>;

    fn call(&mut self, request: Request<Echo>) -> Self::Future {
        Box::pin(async move { Ok(Response::new(request.into_inner())) })
    }
}

/// What `tonic-prost-build` generates for a client, with one method.
#[derive(Clone)]
struct EchoClient(tonic::client::Grpc<Channel>);

impl EchoClient {
    async fn connect(address: &str, payload: usize) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .tcp_nodelay(true)
            .http2_max_local_error_reset_streams(CANCELLED);
        let channel = endpoint.connect().await;
        let channel = channel.with_context(|| format!("no connection to {address}"))?;
        let grpc = tonic::client::Grpc::new(channel);
        Ok(Self(grpc.max_decoding_message_size(message_size(payload))))
    }

    async fn quorum_call(&mut self, request: Echo) -> Result<Response<Echo>, Status> {
        let ready = self.0.ready().await;
        ready.map_err(|error| Status::unavailable(error.to_string()))?;
        let codec = ProstCodec::default();
        self.0.unary(Request::new(request), PATH, codec).await
    }
}

/// A client of some servers, with a channel for each. Clones share them.
#[derive(Clone)]
pub(crate) struct ByHand {
    clients: Vec<EchoClient>,
    quorum: usize,
    payload: Bytes,
    timeout: Duration,
}

impl ByHand {
    pub(crate) async fn connect(addresses: &[String], plan: &Plan) -> anyhow::Result<Self> {
        let mut clients = Vec::new();
        for address in addresses {
            clients.push(EchoClient::connect(address, plan.payload).await?);
        }
        Ok(Self {
            clients,
            quorum: plan.quorum,
            payload: vec![0; plan.payload].into(),
            timeout: plan.timeout,
        })
    }

    /// A request to all servers, done with the replies of a quorum, or as soon as there cannot be
    /// one. What is still under way then is dropped, and by that cancelled.
    async fn quorum_call(&self, request: &Echo) -> Result<Vec<Echo>, CallError> {
        let mut calls: FuturesUnordered<_> = self
            .clients
            .iter()
            .cloned()
            .map(|mut client| {
                let request = request.clone();
                async move { client.quorum_call(request).await }
            })
            .collect();
        let mut replies = Vec::with_capacity(self.quorum);
        let mut failed = 0;
        let quorum = async {
            while let Some(result) = calls.next().await {
                match result {
                    Ok(reply) => replies.push(reply.into_inner()),
                    Err(status) => {
                        failed += 1;
                        if self.clients.len() - failed < self.quorum {
                            return Err(CallError(format!("{failed} servers failed: {status}")));
                        }
                    }
                }
                if replies.len() == self.quorum {
                    break;
                }
            }
            Ok(())
        };
        match tokio::time::timeout(self.timeout, quorum).await {
            Ok(done) => done.map(|()| replies),
            Err(_) => Err(CallError(format!("no quorum within {:?}", self.timeout))),
        }
    }
}

impl Work for ByHand {
    type Caller = Self;

    fn caller(&self, _number: usize) -> Self {
        self.clone()
    }
}

impl Caller for ByHand {
    async fn call(&mut self) -> Result<(), CallError> {
        let request = Echo {
            payload: self.payload.clone(),
        };
        let replies = self.quorum_call(&request).await?;
        let found = replies.first().map_or(0, |reply| reply.payload.len());
        if found != self.payload.len() {
            let sent = self.payload.len();
            return Err(CallError(format!("{found} bytes came back of {sent}")));
        }
        Ok(())
    }
}

/// A listener of the system, which both this and the library take.
pub(crate) async fn listen(address: &str) -> io::Result<TcpListener> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
    TcpListener::bind(address).await.map_err(named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Load;
    use crate::servers::{Place, Role, Servers};

    fn plan(quorum: usize, payload: usize, timeout: Duration) -> Plan {
        Plan {
            place: Place::Here,
            tls: false,
            nodes: 3,
            quorum,
            load: Load::Closed { in_flight: 8 },
            payload,
            duration: Duration::from_millis(50),
            warm_up: Duration::ZERO,
            repeats: 1,
            threads: 1,
            timeout,
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn what_is_sent_comes_back() {
        for payload in [0, 1, 100_000, 5 << 20] {
            let plan = plan(2, payload, LONG);
            let servers = Servers::start(&plan.place, Role::Tonic, 3, payload).await;
            let servers = servers.expect("servers start");
            let client = ByHand::connect(servers.addresses(), &plan).await;
            let client = client.expect("connects");
            let outcome = plan.load.run(&client, plan.duration).await;
            let outcome = outcome.expect("no call fails");
            assert!(
                outcome.calls >= 8,
                "{} calls of {payload} bytes",
                outcome.calls
            );
        }
    }

    #[tokio::test]
    async fn a_quorum_is_enough_and_fewer_replies_are_not() {
        let servers = Servers::start(&Place::Here, Role::Tonic, 3, 0).await;
        let mut servers = servers.expect("servers start");
        let both = plan(2, 0, LONG);
        let two = ByHand::connect(servers.addresses(), &both).await;
        let all = ByHand::connect(servers.addresses(), &plan(3, 0, LONG)).await;
        let (two, all) = (two.expect("connects"), all.expect("connects"));
        let request = Echo::default();
        assert_eq!(
            all.quorum_call(&request).await.expect("all answer").len(),
            3
        );
        servers.kill(2).await.expect("it can be ended");
        assert_eq!(two.quorum_call(&request).await.expect("two do").len(), 2);
        // Connections outlive the listener. A server of another address is none at all.
        let mut without = all.clone();
        let gone = servers.addresses()[2].clone();
        let endpoint = Endpoint::from_shared(format!("http://{gone}")).expect("an address");
        without.clients[2] = EchoClient(tonic::client::Grpc::new(endpoint.connect_lazy()));
        let error = without
            .quorum_call(&request)
            .await
            .expect_err("one is gone");
        assert!(error.to_string().contains("1 servers failed"), "{error}");
    }

    #[tokio::test]
    async fn a_call_that_has_no_quorum_in_time_fails() {
        let servers = Servers::start(&Place::Here, Role::Tonic, 2, 0).await;
        let servers = servers.expect("servers start");
        // It takes connections and never answers.
        let silent = listen("127.0.0.1:0").await.expect("listens");
        let mut addresses = servers.addresses().to_vec();
        addresses.push(silent.local_addr().expect("it has one").to_string());
        let soon = plan(3, 0, Duration::from_millis(20));
        let client = ByHand::connect(&addresses, &soon).await.expect("connects");
        let error = client.quorum_call(&Echo::default()).await;
        let error = error.expect_err("the third is silent").to_string();
        assert!(error.contains("no quorum within 20ms"), "{error}");
    }

    #[tokio::test]
    async fn a_server_has_one_method() {
        let servers = Servers::start(&Place::Here, Role::Tonic, 1, 0).await;
        let servers = servers.expect("servers start");
        let client = EchoClient::connect(&servers.addresses()[0], 0).await;
        let mut client = client.expect("connects");
        client.0.ready().await.expect("it is connected");
        let other = PathAndQuery::from_static("/benchmark.Benchmark/Multicast");
        let codec = ProstCodec::<Echo, Echo>::default();
        let result = client.0.unary(Request::new(Echo::default()), other, codec);
        let status = result.await.expect_err("there is no such method");
        assert_eq!(status.code(), tonic::Code::Unimplemented);
    }
}
