//! Services of tower, which answer at paths that are not Gorums'.
//!
//! A request is a task: it waits until the service is ready, has it answer, and writes the body of the
//! answer as far as flow control lets it, one frame after the other. All of that is dropped when the
//! client resets the stream or its connection ends.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, TE};
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tower_service::Service;

use super::bodies::{Rest, poll_frame, poll_send};
use super::builder::ServerBuilder;
use super::grpc_call::{batch_of, late, passed};
use super::mounted::{Mounted, MountedCall};
use crate::error::Status;
use crate::handler::{ConnectionInfo, panicked};
use crate::log::{self, Peer, Throttle};
use crate::node_id::NodeId;
use crate::runtime::{BoxFuture, Clock, bounded};
use crate::wire::{Batch, remove_headers_of_connection};

type BoxError = Box<dyn Error + Send + Sync>;

impl ServerBuilder {
    /// Has a service answer all requests at paths that are not Gorums' own: those of the stream, of the
    /// methods of the server, and of what else was added to it. It is any service of `tower` for HTTP,
    /// such as the services of a tonic server or a `Router` of axum, with whatever layers it has. The
    /// last one that is set counts.
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), gorums::ServerError> {
    /// use axum::Router;
    /// use axum::routing::get;
    /// use gorums::Server;
    ///
    /// // With services of tonic: `tonic::service::Routes::new(…)`.
    /// let router = Router::new().route("/version", get(|| async { "1.0.0" }));
    /// Server::builder().fallback(router).serve("0.0.0.0:8080").await
    /// # }
    /// ```
    ///
    /// Requests come over HTTP/2 alone, with any method and any type of content. Each is a task of its
    /// own, answered by a clone of the service once that is [ready](Service::poll_ready).
    ///
    /// * **Who asks** is in the extensions of the request, as [`ClientInfo`]. The [connect
    ///   callback](Self::on_connect) is asked about each request, and [node proof](Self::node_proof)
    ///   holds. Interceptors, [`Roles`](super::Roles) among them, see handlers of Gorums alone: what is
    ///   to be guarded here, a layer of the service guards.
    /// * **What ends early.** When the client resets the stream or its connection ends, the future of
    ///   the service, or the body of its answer, is dropped. So it is when a gRPC client's
    ///   `grpc-timeout` has passed, which is answered with
    ///   [`DeadlineExceeded`](crate::Code::DeadlineExceeded). An error of the service is answered with
    ///   HTTP status 500, to a gRPC client with [`Internal`](crate::Code::Internal), and so is a panic;
    ///   within a body either resets the stream. Both are logged; neither text is told, but for that of
    ///   a panic where it is [exposed](Self::expose_panics).
    /// * **Bounds.** Requests count as calls of ordinary gRPC clients do: 100 of a connection at a time,
    ///   and 200 with those whose handlers go on, or
    ///   [`concurrency_limit_per_connection`](Self::concurrency_limit_per_connection) where that is
    ///   less. What a client has sent and the service has not read is at most 4 MiB for all requests of
    ///   a connection, by flow control: a service that does not read a body keeps other requests of the
    ///   same connection waiting, but no other client. Of each answer there are 400 KiB at most that are
    ///   not written, and one frame of its body. A service reads as much of a request as it likes, and
    ///   takes as long as it likes.
    /// * **Shutting down**, the server waits for answers as for handlers, within the grace.
    ///
    /// A client that serves ([`ConfigurationBuilder::serve`](crate::ConfigurationBuilder::serve)) has no
    /// port, and no use for this.
    #[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
    pub fn fallback<S, B>(mut self, service: S) -> Self
    where
        S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        self.mounts.set_fallback(TowerService::new(service));
        self
    }
}

/// Who asks a [fallback service](ServerBuilder::fallback): a value in the extensions of its requests.
/// Handlers of tonic find it there, too.
///
/// ```
/// use axum::{Extension, Router, routing::get};
/// use gorums::server::ClientInfo;
///
/// async fn who(Extension(client): Extension<ClientInfo>) -> String {
///     format!("{:?}, node {:?}", client.peer_addr(), client.node_id())
/// }
///
/// let router: Router = Router::new().route("/who", get(who));
/// ```
#[derive(Clone)]
pub struct ClientInfo(Arc<ConnectionInfo>);

impl ClientInfo {
    /// The client's address, where the transport has addresses.
    #[must_use]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.0.peer_addr
    }

    /// Which node the client has proved to be ([`ServerBuilder::node_proof`]).
    #[must_use]
    pub fn node_id(&self) -> Option<NodeId> {
        self.0.node
    }

    /// What the transport has proved of the client, as a value of this type: see
    /// [`ServerCtx::proven`](crate::ServerCtx::proven).
    #[must_use]
    pub fn proven<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.0.proven.get()
    }

    /// A value that the [connect callback](ServerBuilder::on_connect) set for the request.
    #[must_use]
    pub fn value<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        self.0.values.get::<T>().cloned()
    }
}

impl fmt::Debug for ClientInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientInfo")
            .field("peer_addr", &self.peer_addr())
            .field("node_id", &self.node_id())
            .finish_non_exhaustive()
    }
}

/// The body of a request to a [fallback service](ServerBuilder::fallback). The client may send more
/// as it is read: what was sent and not read is bounded by flow control.
///
/// Its errors are those of HTTP/2, by which the client has reset the stream or the connection has
/// ended. tonic tells its handlers the fitting code.
pub struct RequestBody {
    /// None once it is let go of.
    recv: Option<RecvStream>,
    /// What reads what is left of it then.
    unread: Unread,
    /// Ready when the request ends, whether or not the client has ended it.
    until: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// How much is left, where the client has said it.
    left: Option<u64>,
    /// All data were read.
    is_read: bool,
}

impl RequestBody {
    fn new(recv: RecvStream, headers: &HeaderMap, unread: Unread) -> Self {
        let length = headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok());
        Self {
            left: length.and_then(|length| length.parse().ok()),
            is_read: recv.is_end_stream(),
            recv: Some(recv),
            unread,
            until: None,
        }
    }
}

impl Drop for RequestBody {
    /// A service need not read all of a request. A stream that is let go of before its end is reset, and
    /// `h2` ends a connection on which frames of many such streams come.
    fn drop(&mut self) {
        let Some(recv) = self.recv.take() else { return };
        let rest = Rest::of(recv);
        if !rest.is_over() {
            let Unread {
                runtime,
                clock,
                patience,
                stopping,
            } = self.unread.clone();
            // There are as many at the most as there are streams of the connection. A server that shuts
            // down waits for none of them.
            runtime.spawn(async move {
                let _ = stopping
                    .run_until_cancelled(rest.read(&*clock, patience))
                    .await;
            });
        }
    }
}

/// What reads what is left of a request.
#[derive(Clone)]
struct Unread {
    runtime: Handle,
    clock: Arc<dyn Clock>,
    patience: Duration,
    stopping: CancellationToken,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(until) = &mut self.until
            && until.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(None);
        }
        let Self {
            recv,
            is_read,
            left,
            ..
        } = &mut *self;
        let recv = recv
            .as_mut()
            .expect("it is there until the body is dropped");
        let frame = ready!(poll_frame(recv, is_read, cx));
        if let (Some(left), Some(Ok(frame))) = (left, &frame)
            && let Some(data) = frame.data_ref()
        {
            *left = left.saturating_sub(data.len() as u64);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.recv.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match self.left {
            _ if self.is_end_stream() => SizeHint::with_exact(0),
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody")
            .field("left", &self.left)
            .field("is_end_stream", &self.is_end_stream())
            .finish()
    }
}

/// A service of tower that is mounted.
pub(super) struct TowerService<S>(Arc<Shared<S>>);

struct Shared<S> {
    service: S,
    /// Its requests end when the server shuts down.
    ends_at_shutdown: bool,
    failures: Throttle,
}

impl<S> TowerService<S> {
    pub(super) fn new(service: S) -> Self {
        Self::with(service, false)
    }

    /// One whose requests end when the server shuts down: their clients may keep them open for ever,
    /// and want nothing but answers to what they have sent.
    #[cfg(feature = "reflection")]
    pub(super) fn until_shutdown(service: S) -> Self {
        Self::with(service, true)
    }

    fn with(service: S, ends_at_shutdown: bool) -> Self {
        Self(Arc::new(Shared {
            service,
            ends_at_shutdown,
            failures: Throttle::default(),
        }))
    }
}

impl<S, B> Mounted for TowerService<S>
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    fn serve(&self, call: MountedCall) -> BoxFuture<'static, ()> {
        Box::pin(serve(Arc::clone(&self.0), call))
    }
}

/// Why there is no answer, or no more of it.
enum Failure {
    Error(BoxError),
    Panic(Box<dyn Any + Send>),
    /// The caller's time has passed.
    Late,
}

impl Failure {
    fn error(error: impl Into<BoxError>) -> Self {
        Self::Error(error.into())
    }
}

/// The future's output, or what it panicked with.
async fn caught<F: Future>(future: F) -> Result<F::Output, Failure> {
    let mut future = pin!(future);
    // What a service shares with others is theirs to keep consistent, as with handlers.
    poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
        match polled {
            Ok(polled) => polled.map(Ok),
            Err(panic) => Poll::Ready(Err(Failure::Panic(panic))),
        }
    })
    .await
}

async fn serve<S, B>(shared: Arc<Shared<S>>, call: MountedCall)
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone,
    S::Error: Into<BoxError>,
    B: Body,
    B::Error: Into<BoxError>,
{
    let MountedCall {
        request,
        mut respond,
        dialect,
        info,
        clock,
        timeout,
        patience,
        stopping,
        expose_panics,
    } = call;
    let unread = Unread {
        runtime: Handle::current(),
        clock: Arc::clone(&clock),
        patience,
        stopping: stopping.clone(),
    };
    let (mut head, recv) = request.into_parts();
    let asked = Asked {
        peer: info.peer(),
        uri: head.uri.clone(),
        clock: &*clock,
        failures: &shared.failures,
        expose_panics,
    };
    let is_head = head.method == Method::HEAD;
    head.extensions.insert(ClientInfo(info));
    let mut body = RequestBody::new(recv, &head.headers, unread);
    if shared.ends_at_shutdown {
        body.until = Some(Box::pin(stopping.cancelled_owned()));
    }
    let request = Request::from_parts(head, body);

    let until = timeout.map(|timeout| clock.now() + bounded(timeout));
    let mut deadline = pin!(passed(&*clock, until));
    let answer = {
        let answering = caught(async {
            let mut service = shared.service.clone();
            poll_fn(|cx| service.poll_ready(cx)).await?;
            service.call(request).await
        });
        tokio::select! {
            biased;
            _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
            answer = answering => answer.and_then(|answer| answer.map_err(Failure::error)),
            () = &mut deadline => Err(Failure::Late),
        }
    };
    let answer = match answer {
        Ok(answer) => match caught(async { checked(answer, is_head) }).await {
            Ok(checked) => checked,
            Err(failure) => Err(failure),
        },
        Err(failure) => Err(failure),
    };
    let (head, body, is_empty) = match answer {
        Ok(answer) => answer,
        Err(failure) => {
            let status = asked.tell(failure);
            return dialect.refuse(&status, &mut respond);
        }
    };
    let mut body = pin!(body);
    // Where the client has gone meanwhile, there is nobody to tell.
    let Ok(mut send) = respond.send_response(head, is_empty) else {
        return;
    };
    if is_empty {
        return;
    }
    let written = tokio::select! {
        biased;
        written = write(&mut send, body.as_mut()) => written,
        () = &mut deadline => Err(Failure::Late),
    };
    if let Err(failure) = written {
        let reason = match failure {
            Failure::Late => Reason::CANCEL,
            Failure::Error(_) | Failure::Panic(_) => Reason::INTERNAL_ERROR,
        };
        asked.tell(failure);
        send.send_reset(reason);
    }
}

/// The head of an answer as HTTP/2 takes it, its body, and whether there is nothing in that to send.
fn checked<B: Body>(
    answer: Response<B>,
    is_head: bool,
) -> Result<(Response<()>, B, bool), Failure> {
    let (mut head, body) = answer.into_parts();
    if head.status.is_informational() {
        let status = head.status;
        let text = format!("its answer has the status {status}, behind which another one comes");
        return Err(Failure::error(text));
    }
    remove_headers_of_connection(&mut head.headers);
    head.headers.remove(TE);
    let is_empty = is_head || body.is_end_stream();
    Ok((Response::from_parts(head, ()), body, is_empty))
}

/// Writes the body until it ends, or nobody reads it.
async fn write<B>(send: &mut SendStream<Batch>, mut body: Pin<&mut B>) -> Result<(), Failure>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    loop {
        let frame = {
            let next = caught(poll_fn(|cx| body.as_mut().poll_frame(cx)));
            tokio::select! {
                biased;
                _ = poll_fn(|cx| send.poll_reset(cx)) => return Ok(()),
                frame = next => frame?.transpose().map_err(Failure::error)?,
            }
        };
        // Where nobody reads what is sent here, there is nobody to tell.
        let Some(frame) = frame else {
            let _ = send.send_data(batch_of(Bytes::new()), true);
            return Ok(());
        };
        match frame.into_data() {
            Ok(mut data) => {
                let mut data = data.copy_to_bytes(data.remaining());
                let sent = poll_fn(|cx| {
                    if send.poll_reset(cx).is_ready() {
                        return Poll::Ready(false);
                    }
                    poll_send(send, &mut data, batch_of, cx)
                });
                if !sent.await {
                    return Ok(());
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    let _ = send.send_trailers(trailers);
                    return Ok(());
                }
                // A kind of frame that is not known yet has nothing for HTTP/2.
            }
        }
    }
}

/// What is told of a request that fails.
struct Asked<'a> {
    peer: Peer,
    uri: Uri,
    clock: &'a dyn Clock,
    failures: &'a Throttle,
    expose_panics: bool,
}

impl Asked<'_> {
    /// Logs the failure. Returned is what whoever asks is told.
    fn tell(&self, failure: Failure) -> Status {
        const WHAT: &str = "the service at this path";
        match failure {
            Failure::Late => late(),
            Failure::Error(error) => {
                let admission = self.failures.admit(self.clock.now());
                log::event!(
                    admission.is_told => warn or debug,
                    target: log::SERVER,
                    peer = %self.peer,
                    path = %log::text(self.uri.path()),
                    error = %log::text(&error),
                    left_out = admission.left_out,
                    "a mounted service failed"
                );
                Status::internal(format!("{WHAT} failed"))
            }
            Failure::Panic(panic) => {
                let text = log::panic_text(&*panic);
                tracing::error!(
                    target: log::SERVER,
                    peer = %self.peer,
                    path = %log::text(self.uri.path()),
                    panic = %log::text(text),
                    "a mounted service panicked"
                );
                panicked(WHAT, text, self.expose_panics)
            }
        }
    }
}
