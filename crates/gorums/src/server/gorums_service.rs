//! A server that answers within another one, in the place of a port of its own.
//!
//! Each request goes to the server over a connection of its own, within the process:
//!
//! ```text
//! a server of HTTP/2      GorumsService                        Server
//! (tonic, axum, hyper)
//!   request body ───────► Upload ──────► h2 ──► pipe ──► h2 ──► as from a socket
//!   response body ◄────── ResponseBody ◄ h2 ◄── pipe ◄── h2 ◄──
//! ```
//!
//! So there is one implementation of streams and calls, whatever they come over. A connection has one
//! request because address, proof and bounds are those of a connection, and those of two requests
//! need not be the same.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, io};

use http::header::{HOST, TE};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Extensions, Request, Response, Uri, Version};
use http_body::Body;
use tokio::sync::{mpsc, oneshot};

use super::peer_info::PeerInfo;
use super::response_body::ResponseBody;
use super::upload::{Chunk, Upload};
use crate::error::Status;
use crate::runtime::{
    Address, BoxFuture, BoxIo, Clock, Handshake, Listener, Proven, bounded, pipe,
};
use crate::stream::{FairIo, h2_status};
use crate::wire::{
    H2Settings, grpc_head, is_unprocessed, remove_headers_of_connection, trailers, trailers_only,
};

/// Answers the requests of a [`Server`](crate::Server) within another server of HTTP/2, as that of
/// tonic, axum or hyper: a service of [tower](https://docs.rs/tower-service) that
/// [`ServerBuilder::into_service`](crate::ServerBuilder::into_service) makes. Clones are of the same
/// server.
///
/// It answers the stream of Gorums (`/stream.Gorums/NodeStream`), each method at
/// `/package.Service/Method`, and whatever else with `UNIMPLEMENTED`: so it is mounted as the fallback
/// of a router, or alone. Prefixes are not taken off paths. Requests are those of HTTP/2: a server of
/// HTTP/1 has no trailers to say how they ended.
///
/// It is always ready. A request that the server has not taken within
/// [`stream_timeout`](crate::ServerBuilder::stream_timeout), because it does not serve yet, is answered
/// with `UNAVAILABLE`, and so is each once the server has stopped. Where the server has as many
/// connections as it may, the answer is `RESOURCE_EXHAUSTED`, or `UNAVAILABLE` where something is proven
/// of whoever asks. A request counts as a connection of its own, and as one from the address of its
/// [`PeerInfo`]. Dropping the future of a request or the body of its response tells the server that
/// nobody waits any more.
#[derive(Clone)]
pub struct GorumsService {
    arrivals: mpsc::Sender<Arrival>,
    clock: Arc<dyn Clock>,
    stream_timeout: Duration,
    peer_info: Arc<dyn Fn(&Extensions) -> PeerInfo + Send + Sync>,
}

/// A connection of one request.
struct Arrival {
    io: BoxIo,
    from: Option<SocketAddr>,
}

impl GorumsService {
    /// Returns also where the connections arrive.
    pub(super) fn new(clock: Arc<dyn Clock>, stream_timeout: Duration) -> (Self, impl Listener) {
        let (sender, arrivals) = mpsc::channel(1);
        let service = Self {
            arrivals: sender,
            clock,
            stream_timeout,
            peer_info: Arc::new(|extensions| {
                let known = extensions.get::<PeerInfo>();
                known.cloned().unwrap_or_default()
            }),
        };
        (service, Arrivals(arrivals))
    }

    /// Who sent a request, by the extensions that the server around this one and its layers have
    /// given it: tonic's `TcpConnectInfo`, axum's `ConnectInfo<SocketAddr>`, and what a layer of yours
    /// puts there. By default a [`PeerInfo`] among them counts, and without one nothing is known.
    ///
    /// It is called for each request, and must be quick.
    #[must_use]
    pub fn peer_info(
        mut self,
        peer_info: impl Fn(&Extensions) -> PeerInfo + Send + Sync + 'static,
    ) -> Self {
        self.peer_info = Arc::new(peer_info);
        self
    }

    async fn answer<B>(self, request: Request<B>) -> Response<ResponseBody>
    where
        B: Body + Send + 'static,
    {
        let answered = self.try_answer(request).await;
        answered.unwrap_or_else(|failure| {
            let head = match failure {
                Failure::NothingDone(status) => trailers_only(&status),
                Failure::Unknown(status) => {
                    let mut head = grpc_head();
                    let status = status.as_error();
                    let trailers = trailers(status.code(), status.message());
                    head.headers_mut().extend(trailers);
                    head
                }
            };
            head.map(|()| ResponseBody::empty())
        })
    }

    async fn try_answer<B>(self, request: Request<B>) -> Result<Response<ResponseBody>, Failure>
    where
        B: Body + Send + 'static,
    {
        if tokio::runtime::Handle::try_current().is_err() {
            let text = "a GorumsService answers within a runtime of tokio alone";
            return Err(Failure::NothingDone(Status::internal(text)));
        }
        let (head, body) = request.into_parts();
        let from = (self.peer_info)(&head.extensions);
        let request = head_of(head).map_err(Failure::NothingDone)?;
        let (ours, theirs) = pipe();
        self.open(theirs, from)
            .await
            .map_err(Failure::NothingDone)?;

        let (ours, first_bytes) = FairIo::remembering(ours);
        // Whatever goes wrong before the server has said anything, it has done nothing; and HTTP/2 may
        // say so.
        let failed = |error: &h2::Error| {
            if first_bytes.is_empty() || is_unprocessed(error) {
                let text = "the server did not take the request: it is shutting down, or has as many \
                            connections as it may (max_connections, max_connections_per_address, \
                            max_connections_per_node)";
                return Failure::NothingDone(Status::unavailable(text));
            }
            Failure::Unknown(h2_status(error))
        };
        let handshake = H2Settings::within_process().handshake::<FairIo, Chunk>(ours);
        let (client, connection) = handshake.await.map_err(|error| failed(&error))?;
        let mut client = client.ready().await.map_err(|error| failed(&error))?;
        let is_whole = body.is_end_stream();
        let (response, send) = client.send_request(request, is_whole).map_err(|error| {
            let text = format!("the request cannot be handed on: {error}");
            Failure::NothingDone(Status::invalid_argument(text))
        })?;
        // The connection ends with its stream.
        drop(client);
        let (reader, is_read) = oneshot::channel();
        let (clock, patience) = (self.clock, self.stream_timeout);
        tokio::spawn(async move {
            let mut connection = std::pin::pin!(connection);
            if is_whole {
                // Who holds this keeps the stream from ending where nobody reads the response.
                drop((body, send));
            } else {
                let upload = Upload::new(body, send);
                tokio::select! {
                    biased;
                    // What ends it, the response says.
                    _ = &mut connection => return,
                    () = upload.run(is_read, clock, patience) => {}
                }
            }
            let _ = connection.await;
        });
        let response = response.await.map_err(|error| failed(&error))?;
        let (mut head, recv) = response.into_parts();
        head.extensions = Extensions::new();
        let body = ResponseBody::new(recv, reader);
        Ok(Response::from_parts(head, body))
    }

    /// Hands the server its end of a connection.
    async fn open(&self, io: BoxIo, from: PeerInfo) -> Result<(), Status> {
        let PeerInfo { addr, proven } = from;
        let io = match proven.is_empty() {
            true => io,
            false => Box::new(Handshake::done(Proven::from_parts(io, proven))),
        };
        let arrival = Arrival { io, from: addr };
        let limit = self.clock.now() + bounded(self.stream_timeout);
        tokio::select! {
            biased;
            taken = self.arrivals.send(arrival) => {
                taken.map_err(|_| Status::unavailable("the server has stopped"))
            }
            () = self.clock.sleep_until(limit) => Err(Status::unavailable(format!(
                "the server has not taken the request within {:?}: it does not serve yet (Server::serve)",
                self.stream_timeout
            ))),
        }
    }
}

/// Why there is no response.
enum Failure {
    /// The server has not seen the request, and a client may know that.
    NothingDone(Status),
    /// It may have seen it.
    Unknown(Status),
}

/// The head of a request as `h2` sends it.
fn head_of(head: Parts) -> Result<Request<()>, Status> {
    let mut headers = head.headers;
    let host = headers.remove(HOST);
    let authority = head.uri.authority().cloned().or_else(|| {
        let host = host?;
        host.to_str().ok()?.parse().ok()
    });
    let uri = Uri::builder()
        .scheme(Scheme::HTTP)
        .authority(authority.unwrap_or_else(|| Authority::from_static("localhost")))
        .path_and_query(
            head.uri
                .path_and_query()
                .cloned()
                .unwrap_or_else(|| PathAndQuery::from_static("/")),
        )
        .build()
        .map_err(|error| Status::invalid_argument(format!("the URI of the request: {error}")))?;
    remove_headers_of_connection(&mut headers);
    if headers.get(TE).is_some_and(|te| te != "trailers") {
        headers.remove(TE);
    }
    let mut request = Request::new(());
    *request.method_mut() = head.method;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(request)
}

impl<B> tower_service::Service<Request<B>> for GorumsService
where
    B: Body + Send + 'static,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<ResponseBody>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { Ok(service.answer(request).await) })
    }
}

impl fmt::Debug for GorumsService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GorumsService")
            .field("is_stopped", &self.arrivals.is_closed())
            .finish_non_exhaustive()
    }
}

/// Where the requests of a service come in as connections.
struct Arrivals(mpsc::Receiver<Arrival>);

impl Listener for Arrivals {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxIo, Option<SocketAddr>)>> {
        Box::pin(async {
            match self.0.recv().await {
                Some(Arrival { io, from }) => Ok((io, from)),
                // The service is gone, and what it has begun goes on.
                None => std::future::pending().await,
            }
        })
    }

    fn local_addr(&self) -> io::Result<Address> {
        Ok(Address::custom("within another server"))
    }
}
