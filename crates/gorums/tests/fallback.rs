//! Services of tower on the port of a server: of tonic, of axum, and made by hand.
#![cfg(feature = "tower")]

mod common;
#[path = "common/log.rs"]
mod log;
#[path = "common/raw_client.rs"]
mod raw_client;
#[path = "common/wire.rs"]
mod wire;

use std::convert::Infallible;
use std::error::Error;
use std::fmt::Display;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body as AxumBody, HttpBody};
use axum::extract::{Extension, Request as AxumRequest};
use axum::response::Response as AxumResponse;
use axum::routing::{any, get, post};
use bytes::Bytes;
use common::{Counter, Number, Stoppable, TestServer, echo, number, within};
use gorums::server::{ClientInfo, RequestBody};
use gorums::{Client, Code, Configuration, Server, ServerBuilder, ServerCtx, Status};
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use log::Log;
use prost::Message;
use raw_client::RawClient;
use tokio::sync::Notify;
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;
use tower_service::Service;
use tracing::Level;
use wire::framed;

const ECHO: &str = "/test.Test/Echo";
/// How much a client may send that nobody has read.
const WINDOW: usize = 4 * 1024 * 1024;
/// As many bytes as no queue and no window on the way has room for.
const MUCH: usize = 32 * 1024 * 1024;

/// A service of tonic as `tonic-prost-build` would generate one.
#[derive(Clone)]
struct Greeter {
    /// Replies of a stream that were asked for.
    made: Counter,
    /// A call has begun to wait.
    started: Counter,
    go_on: Arc<Notify>,
    /// What a call held was dropped.
    dropped: Counter,
}

/// Counts that it is dropped.
struct OnDrop(Counter);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.add();
    }
}

type BoxFuture<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

type Numbers = Pin<Box<dyn Stream<Item = Result<Number, tonic::Status>> + Send>>;

impl Greeter {
    fn new() -> Self {
        Self {
            made: Counter::new(),
            started: Counter::new(),
            go_on: Arc::default(),
            dropped: Counter::new(),
        }
    }

    fn routes(&self) -> Routes {
        Routes::new(self.clone())
    }

    async fn unary(self, request: tonic::Request<Number>) -> Result<Number, tonic::Status> {
        let info = request.extensions().get::<ClientInfo>().expect("it is set");
        assert!(info.peer_addr().is_some());
        match request.get_ref().value {
            13 => Err(tonic::Status::already_exists("100 % größer")),
            14 => panic!("on purpose"),
            _ => Ok(request.into_inner()),
        }
    }

    /// Waits until it is told to go on.
    async fn hold(self, request: tonic::Request<Number>) -> Result<Number, tonic::Status> {
        let _held = OnDrop(self.dropped.clone());
        self.started.add();
        self.go_on.notified().await;
        Ok(request.into_inner())
    }

    /// So many numbers, each with 64 KiB.
    fn count(self, request: &Number) -> Numbers {
        let held = OnDrop(self.dropped.clone());
        let numbers = tokio_stream::iter(0..request.value);
        Box::pin(numbers.map(move |value| {
            let _ = &held;
            self.made.add();
            Ok(Number {
                value,
                payload: Bytes::from(vec![7; 64 * 1024]),
            })
        }))
    }
}

impl NamedService for Greeter {
    const NAME: &'static str = "demo.Greeter";
}

type Streams = Result<tonic::Response<Numbers>, tonic::Status>;

struct Unary(Greeter);

impl tonic::server::UnaryService<Number> for Unary {
    type Response = Number;
    type Future = BoxFuture<tonic::Response<Number>, tonic::Status>;

    fn call(&mut self, request: tonic::Request<Number>) -> Self::Future {
        let greeter = self.0.clone();
        Box::pin(async move { greeter.unary(request).await.map(tonic::Response::new) })
    }
}

struct Hold(Greeter);

impl tonic::server::UnaryService<Number> for Hold {
    type Response = Number;
    type Future = BoxFuture<tonic::Response<Number>, tonic::Status>;

    fn call(&mut self, request: tonic::Request<Number>) -> Self::Future {
        let greeter = self.0.clone();
        Box::pin(async move { greeter.hold(request).await.map(tonic::Response::new) })
    }
}

struct Count(Greeter);

impl tonic::server::ServerStreamingService<Number> for Count {
    type Response = Number;
    type ResponseStream = Numbers;
    type Future = std::future::Ready<Streams>;

    fn call(&mut self, request: tonic::Request<Number>) -> Self::Future {
        let numbers = self.0.clone().count(request.get_ref());
        std::future::ready(Ok(tonic::Response::new(numbers)))
    }
}

/// The sum of what comes, once it is told to look.
struct Sum(Greeter);

impl tonic::server::ClientStreamingService<Number> for Sum {
    type Response = Number;
    type Future = BoxFuture<tonic::Response<Number>, tonic::Status>;

    fn call(&mut self, request: tonic::Request<tonic::Streaming<Number>>) -> Self::Future {
        let greeter = self.0.clone();
        Box::pin(async move {
            greeter.started.add();
            greeter.go_on.notified().await;
            let mut numbers = request.into_inner();
            let mut sum = 0;
            while let Some(number) = numbers.message().await? {
                sum += number.value;
            }
            Ok(tonic::Response::new(number(sum)))
        })
    }
}

/// Each number, and what follows it.
struct Chat;

impl tonic::server::StreamingService<Number> for Chat {
    type Response = Number;
    type ResponseStream = Numbers;
    type Future = std::future::Ready<Streams>;

    fn call(&mut self, request: tonic::Request<tonic::Streaming<Number>>) -> Self::Future {
        let numbers = request.into_inner();
        let answers = numbers.map(|came| came.map(|came| number(came.value + 1)));
        std::future::ready(Ok(tonic::Response::new(Box::pin(answers))))
    }
}

impl<B> Service<Request<B>> for Greeter
where
    B: HttpBody + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let greeter = self.clone();
        Box::pin(async move {
            let codec = ProstCodec::<Number, Number>::default();
            let mut grpc = tonic::server::Grpc::new(codec);
            Ok(match request.uri().path() {
                "/demo.Greeter/Unary" => grpc.unary(Unary(greeter), request).await,
                "/demo.Greeter/Hold" => grpc.unary(Hold(greeter), request).await,
                "/demo.Greeter/Count" => grpc.server_streaming(Count(greeter), request).await,
                "/demo.Greeter/Sum" => grpc.client_streaming(Sum(greeter), request).await,
                "/demo.Greeter/Chat" => grpc.streaming(Chat, request).await,
                path => tonic::Status::unimplemented(path).into_http(),
            })
        })
    }
}

/// An ordinary gRPC client.
#[derive(Clone)]
struct Ordinary(tonic::client::Grpc<Channel>);

impl Ordinary {
    async fn connect(address: impl Display) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}"));
        let channel = within(endpoint.expect("a URI").connect()).await;
        Self(tonic::client::Grpc::new(channel.expect("it serves")))
    }

    async fn ready(&mut self) -> ProstCodec<Number, Number> {
        within(self.0.ready()).await.expect("it is connected");
        ProstCodec::default()
    }

    async fn call(&mut self, path: &'static str, request: Number) -> Result<u64, tonic::Status> {
        let codec = self.ready().await;
        let path = PathAndQuery::from_static(path);
        let reply = within(self.0.unary(tonic::Request::new(request), path, codec)).await;
        reply.map(|reply| reply.into_inner().value)
    }

    async fn count(&mut self, until: u64) -> tonic::Streaming<Number> {
        let codec = self.ready().await;
        let path = PathAndQuery::from_static("/demo.Greeter/Count");
        let request = tonic::Request::new(number(until));
        let replies = within(self.0.server_streaming(request, path, codec)).await;
        replies.expect("it streams").into_inner()
    }
}

async fn mounted(greeter: &Greeter) -> (TestServer, Ordinary) {
    let server = TestServer::start(echo().fallback(greeter.routes())).await;
    let client = Ordinary::connect(server.addr).await;
    (server, client)
}

fn gorums_client(address: impl Display) -> Client {
    let configuration = Configuration::builder()
        .nodes([address.to_string()])
        .connect();
    Client::new(configuration.expect("a legal address"))
}

/// That calls of Gorums are answered, in their order.
async fn assert_gorums_goes_on(address: impl Display) {
    let client = gorums_client(address);
    assert_in_order(&client, "test.Test.Echo", 100).await;
}

/// Makes so many calls at once, with the numbers from 1 on.
async fn assert_in_order(client: &Client, method: &'static str, calls: u64) {
    let calls: Vec<_> = (1..=calls)
        .map(|value| {
            let call = client.quorum_call::<Number, Number>(method, number(value));
            (value, call.all())
        })
        .collect();
    for (value, call) in calls {
        let replies = within(call.replies()).await.expect("it is answered");
        let replies: Vec<_> = replies.values().map(|reply| reply.value).collect();
        assert_eq!(replies, [value]);
    }
}

fn request(method: Method, path: &str) -> Request<()> {
    Request::builder()
        .method(method)
        .uri(format!("http://gorums{path}"))
        .body(())
        .expect("well-formed")
}

fn grpc_request(path: &str) -> Request<()> {
    let mut request = request(Method::POST, path);
    let kind = HeaderValue::from_static("application/grpc");
    request.headers_mut().insert("content-type", kind);
    request
}

/// All that came of a request.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    head: HeaderMap,
    body: Bytes,
    trailers: Option<HeaderMap>,
}

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// The code of gRPC, wherever it is.
    fn grpc(&self) -> Option<&str> {
        let headers = self.trailers.as_ref().unwrap_or(&self.head);
        headers.get("grpc-status")?.to_str().ok()
    }

    async fn of(head: ResponseFuture) -> Self {
        let (head, mut recv) = within(head).await.expect("it is answered").into_parts();
        let mut body = Vec::new();
        while let Some(chunk) = within(recv.data()).await {
            let chunk = chunk.expect("the stream is up");
            let released = recv.flow_control().release_capacity(chunk.len());
            released.expect("it was received");
            body.extend_from_slice(&chunk);
        }
        Self {
            status: head.status,
            head: head.headers,
            body: body.into(),
            trailers: within(recv.trailers()).await.expect("the stream is up"),
        }
    }
}

/// What comes of a request with this body.
async fn answered(client: &mut RawClient, request: Request<()>, body: &'static [u8]) -> Answer {
    let (head, mut send) = client.request(request);
    send.send_data(Bytes::from_static(body), true)
        .expect("the stream is up");
    Answer::of(head).await
}

/// Why the stream was reset.
async fn reset(recv: &mut RecvStream) -> Option<Reason> {
    loop {
        match within(recv.data()).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => return error.reason(),
            None => return None,
        }
    }
}

/// Sends as much as it may, and then no more. Returned is how much.
async fn fill(client: &mut RawClient, send: &mut SendStream<Bytes>, most: usize) -> usize {
    let mut sent = 0;
    let mut pings = 0;
    while sent < most && pings < 4 {
        send.reserve_capacity(most - sent);
        let granted = poll_fn(|cx| match send.poll_capacity(cx) {
            Poll::Ready(granted) => Poll::Ready(granted),
            Poll::Pending => Poll::Ready(None),
        });
        if let Some(granted) = granted.await {
            let bytes = granted.expect("the stream is up");
            send.send_data(Bytes::from(vec![7; bytes]), false)
                .expect("the stream is up");
            sent += bytes;
            pings = 0;
        } else {
            // Leave that was given for what came before it comes before the answer.
            client.ping().await;
            pings += 1;
        }
    }
    sent
}

#[tokio::test]
async fn a_tonic_service_answers_on_the_port_of_gorums() {
    let greeter = Greeter::new();
    let (server, mut client) = mounted(&greeter).await;
    for value in 0..12 {
        let reply = client.call("/demo.Greeter/Unary", number(value)).await;
        assert_eq!(reply.expect("it echoes"), value);
        // Beside methods of Gorums on the same connection.
        let reply = client.call(ECHO, number(value)).await;
        assert_eq!(reply.expect("it echoes"), value);
    }
    let refused = client.call("/demo.Greeter/Unary", number(13)).await;
    let refused = refused.expect_err("it refuses");
    assert_eq!(refused.code(), tonic::Code::AlreadyExists);
    assert_eq!(refused.message(), "100 % größer");
    for unknown in ["/demo.Greeter/Other", "/test.Test/Other", "/other/Path"] {
        let refused = client.call(unknown, number(1)).await;
        let refused = refused.expect_err("there is none");
        assert_eq!(refused.code(), tonic::Code::Unimplemented, "{unknown}");
    }
    assert_gorums_goes_on(server.addr).await;
}

#[tokio::test]
async fn large_messages_pass_both_ways() {
    let greeter = Greeter::new();
    let (_server, mut client) = mounted(&greeter).await;
    let codec = client.ready().await;
    let request = Number {
        value: 1,
        payload: Bytes::from(vec![7; 3 * 1024 * 1024]),
    };
    let path = PathAndQuery::from_static("/demo.Greeter/Unary");
    let reply = within(
        client
            .0
            .unary(tonic::Request::new(request.clone()), path, codec),
    )
    .await;
    assert_eq!(reply.expect("it echoes").into_inner(), request);
}

#[tokio::test]
async fn a_stream_of_replies_is_made_as_it_is_read() {
    let greeter = Greeter::new();
    let (server, mut client) = mounted(&greeter).await;
    // Its client has a window of 64 KiB, and 64 KiB for the connection.
    let mut raw = RawClient::connect(server.addr).await;
    let (head, mut send) = raw.request(grpc_request("/demo.Greeter/Count"));
    let many = 4_000;
    let body = framed(&number(many).encode_to_vec());
    send.send_data(body.into(), true).expect("the stream is up");
    let mut recv = within(head).await.expect("it is answered").into_body();
    raw.is_read().await;
    assert_gorums_goes_on(server.addr).await;
    raw.is_read().await;
    // What its window and the server's buffer of 400 KiB have room for, and what tonic buffers.
    let made = greeter.made.get();
    assert!((1..=16).contains(&made), "{made}");
    let mut read = 0;
    while let Some(chunk) = within(recv.data()).await {
        let chunk = chunk.expect("the stream is up");
        let released = recv.flow_control().release_capacity(chunk.len());
        released.expect("it was received");
        read += chunk.len();
    }
    assert!(read > many as usize * 64 * 1024);
    let trailers = within(recv.trailers()).await.expect("the stream is up");
    assert_eq!(trailers.expect("they end it")["grpc-status"], "0");
    assert_eq!(greeter.made.get(), many);
    // A reader that keeps up gets all of them in order.
    let mut numbers = client.count(100).await;
    for value in 0..100 {
        let number = within(numbers.message()).await.expect("no error");
        assert_eq!(number.expect("there are more").value, value);
    }
    assert_eq!(within(numbers.message()).await.expect("no error"), None);
}

#[tokio::test]
async fn a_stream_of_requests_is_read_while_its_answers_are_written() {
    let greeter = Greeter::new();
    let (_server, mut client) = mounted(&greeter).await;
    let codec = client.ready().await;
    let (numbers, taken) = tokio::sync::mpsc::unbounded_channel();
    let mut taken = taken;
    let requests = futures_stream(move |cx| taken.poll_recv(cx));
    let path = PathAndQuery::from_static("/demo.Greeter/Chat");
    let call = client
        .0
        .streaming(tonic::Request::new(requests), path, codec);
    let mut answers = within(call).await.expect("it streams").into_inner();
    for value in 0..100 {
        numbers.send(number(value)).expect("it is read");
        let answer = within(answers.message()).await.expect("no error");
        assert_eq!(answer.expect("one for each").value, value + 1);
    }
    drop(numbers);
    assert_eq!(within(answers.message()).await.expect("no error"), None);
}

/// A stream of what the function polls.
fn futures_stream<T>(
    poll: impl FnMut(&mut Context<'_>) -> Poll<Option<T>> + Unpin,
) -> impl Stream<Item = T> {
    struct Polled<F>(F);
    impl<T, F: FnMut(&mut Context<'_>) -> Poll<Option<T>> + Unpin> Stream for Polled<F> {
        type Item = T;

        fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
            (self.0)(cx)
        }
    }
    Polled(poll)
}

#[tokio::test]
async fn a_service_that_does_not_read_holds_its_client_back_and_nobody_else() {
    let greeter = Greeter::new();
    let (server, mut client) = mounted(&greeter).await;
    let mut raw = RawClient::connect(server.addr).await;
    let (head, mut send) = raw.request(grpc_request("/demo.Greeter/Sum"));
    greeter.started.reached(1).await;
    // A message of one byte each.
    let unread = fill(&mut raw, &mut send, MUCH).await;
    assert!(unread <= WINDOW, "{unread}");
    let reply = client.call("/demo.Greeter/Unary", number(1)).await;
    assert_eq!(reply.expect("it echoes"), 1);
    assert_gorums_goes_on(server.addr).await;
    greeter.go_on.notify_one();
    // Seven is no flag of a message, and is refused once it is read.
    let answer = Answer::of(head).await;
    assert_eq!(answer.grpc(), Some("13"), "{answer:?}");
}

#[tokio::test]
async fn a_client_may_send_more_as_its_requests_are_read() {
    let greeter = Greeter::new();
    let (_server, mut client) = mounted(&greeter).await;
    greeter.go_on.notify_one();
    let codec = client.ready().await;
    let requests = tokio_stream::iter((0..512).map(|value| Number {
        value,
        payload: Bytes::from(vec![7; MUCH / 512]),
    }));
    let path = PathAndQuery::from_static("/demo.Greeter/Sum");
    let call = client
        .0
        .client_streaming(tonic::Request::new(requests), path, codec);
    let sum = within(call).await.expect("it is read").into_inner();
    assert_eq!(sum.value, 511 * 512 / 2);
}

/// A router of axum that says back what it is sent.
fn router() -> Router {
    Router::new()
        .route("/hello", get(|| async { "hello" }))
        .route(
            "/echo",
            post(|request: AxumRequest| async { AxumResponse::new(request.into_body()) }),
        )
        .route(
            "/method",
            any(|method: Method| async move { method.to_string() }),
        )
        .route(
            "/who",
            get(|Extension(info): Extension<ClientInfo>| async move {
                let addr = info.peer_addr().expect("it has one");
                format!("{addr} {:?} {:?}", info.node_id(), info.value::<u32>())
            }),
        )
}

#[tokio::test]
async fn an_axum_router_answers_plain_http() {
    let server = TestServer::start(echo().fallback(router())).await;
    let mut client = RawClient::connect(server.addr).await;
    let answer = answered(&mut client, request(Method::GET, "/hello"), b"").await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, "hello"));
    assert_eq!(answer.head["content-length"], "5");
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let answer = answered(&mut client, request(method.clone(), "/method"), b"").await;
        assert_eq!(answer.text(), method.as_str());
    }
    let answer = answered(&mut client, request(Method::HEAD, "/hello"), b"").await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, ""));
    assert_eq!(answer.head["content-length"], "5");
    let answer = answered(&mut client, request(Method::GET, "/nothing"), b"").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    let answer = answered(&mut client, request(Method::POST, "/echo"), b"said").await;
    assert_eq!(answer.text(), "said");
    let browsers = {
        let mut request = request(Method::POST, "/echo");
        let kind = HeaderValue::from_static("application/grpc-web");
        request.headers_mut().insert("content-type", kind);
        request
    };
    let answer = answered(&mut client, browsers, b"said").await;
    assert_eq!(answer.text(), "said");
    assert_gorums_goes_on(server.addr).await;
}

#[tokio::test]
async fn paths_of_gorums_are_not_for_the_fallback() {
    let server = TestServer::start(echo().fallback(router())).await;
    let mut client = RawClient::connect(server.addr).await;
    for path in [ECHO, wire::PATH] {
        let answer = answered(&mut client, request(Method::GET, path), b"").await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        let answer = answered(&mut client, request(Method::POST, path), b"").await;
        assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{path}");
    }
}

#[tokio::test]
async fn bodies_larger_than_all_windows_pass_both_ways_at_once() {
    let server = TestServer::start(echo().fallback(router())).await;
    let mut client = RawClient::connect(server.addr).await;
    let (head, mut send) = client.request(request(Method::POST, "/echo"));
    let sending = async {
        let mut left = MUCH;
        while left > 0 {
            send.reserve_capacity(left.min(1 << 20));
            let granted = within(poll_fn(|cx| send.poll_capacity(cx))).await;
            let bytes = granted.expect("it is open").expect("the stream is up");
            left -= bytes;
            let sent = send.send_data(Bytes::from(vec![7; bytes]), left == 0);
            sent.expect("the stream is up");
        }
    };
    let (answer, ()) = tokio::join!(Answer::of(head), sending);
    assert_eq!(answer.body.len(), MUCH);
    assert!(answer.body.iter().all(|byte| *byte == 7));
}

#[tokio::test]
async fn trailers_of_a_request_reach_the_service_and_those_of_an_answer_the_client() {
    let server = TestServer::start(echo().fallback(router())).await;
    let mut client = RawClient::connect(server.addr).await;
    let (head, mut send) = client.request(request(Method::POST, "/echo"));
    send.send_data(Bytes::from_static(b"said"), false)
        .expect("the stream is up");
    let mut trailers = HeaderMap::new();
    trailers.insert("checksum", HeaderValue::from_static("42"));
    send.send_trailers(trailers).expect("the stream is up");
    let answer = Answer::of(head).await;
    assert_eq!(answer.text(), "said");
    assert_eq!(answer.trailers.expect("there are some")["checksum"], "42");
}

/// A service that does what a function says.
#[derive(Clone)]
struct ByHand<F>(F);

impl<F, Fut, B> Service<Request<RequestBody>> for ByHand<F>
where
    F: Fn(Request<RequestBody>) -> Fut,
    Fut: Future<Output = Result<Response<B>, &'static str>>,
{
    type Response = Response<B>;
    type Error = &'static str;
    type Future = Fut;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Fut {
        (self.0)(request)
    }
}

/// A body that a function makes, frame by frame.
struct Made<F>(F);

impl<F> HttpBody for Made<F>
where
    F: FnMut() -> Poll<Option<Result<Frame<Bytes>, &'static str>>> + Unpin,
{
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        (self.0)()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// A service that fails in all ways, by path.
fn failing() -> ServerBuilder {
    echo().fallback(ByHand(|request: Request<RequestBody>| {
        let path = request.uri().path().to_owned();
        if path == "/call" {
            panic!("in call");
        }
        async move {
            let mut response = Response::new(());
            let mut frames = 0;
            match path.as_str() {
                "/error" => return Err("no\nluck"),
                "/future" => panic!("in the future"),
                "/informational" => *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS,
                "/connection" => {
                    for (name, value) in [
                        ("connection", "x-hop, close"),
                        ("x-hop", "1"),
                        ("keep-alive", "timeout=5"),
                        ("transfer-encoding", "chunked"),
                        ("upgrade", "h2c"),
                        ("x-end", "1"),
                    ] {
                        let value = HeaderValue::from_static(value);
                        response.headers_mut().insert(name, value);
                    }
                }
                _ => {}
            }
            Ok(response.map(|()| {
                Made(move || {
                    frames += 1;
                    match (path.as_str(), frames) {
                        (_, 1) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"begun"))))),
                        ("/body-error", _) => Poll::Ready(Some(Err("no more"))),
                        ("/body-panic", _) => panic!("in the body"),
                        _ => Poll::Ready(None),
                    }
                })
            }))
        }
    }))
}

#[tokio::test]
async fn a_service_that_fails_or_panics_is_answered_for_and_logged() {
    let log = Log::of(Level::WARN);
    let server = TestServer::start(failing()).await;
    let mut client = RawClient::connect(server.addr).await;
    for (path, told) in [
        ("/error", "internal: the service at this path failed\n"),
        ("/call", "internal: the service at this path panicked\n"),
        ("/future", "internal: the service at this path panicked\n"),
        (
            "/informational",
            "internal: the service at this path failed\n",
        ),
    ] {
        let answer = answered(&mut client, request(Method::GET, path), b"").await;
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{path}");
        assert_eq!(answer.text(), told);
        let answer = answered(&mut client, request(Method::HEAD, path), b"").await;
        assert_eq!(answer.text(), "");
        let answer = answered(&mut client, grpc_request(path), b"").await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.grpc(), Some("13"), "{answer:?}");
    }
    for path in ["/body-error", "/body-panic"] {
        let (head, _send) = client.request(request(Method::GET, path));
        // What was not written by then goes with the stream.
        let reason = match within(head).await {
            Ok(head) => reset(&mut head.into_body()).await,
            Err(error) => error.reason(),
        };
        assert_eq!(reason, Some(Reason::INTERNAL_ERROR));
    }
    let mut told: Vec<_> = log.told(&["gorums::server"]);
    for line in &mut told {
        let (before, after) = line.split_once(" peer=").expect("it names the peer");
        let (_, after) = after.split_once(' ').expect("more follows");
        *line = format!("{before} {after}");
    }
    told.dedup();
    assert_eq!(
        told,
        [
            "WARN server: a mounted service failed path=/error error=no\\nluck",
            "ERROR server: a mounted service panicked path=/call panic=in call",
            "ERROR server: a mounted service panicked path=/future panic=in the future",
            "WARN server: a mounted service failed path=/informational error=its answer has the \
             status 101 Switching Protocols, behind which another one comes",
            "WARN server: a mounted service failed path=/body-error error=no more",
            "ERROR server: a mounted service panicked path=/body-panic panic=in the body",
        ]
    );
    let answer = answered(&mut client, request(Method::GET, "/good"), b"").await;
    assert_eq!(answer.text(), "begun");
    assert_gorums_goes_on(server.addr).await;
}

#[tokio::test]
async fn a_panic_of_a_service_is_told_where_that_was_asked_for() {
    let server = TestServer::start(failing().expose_panics(true)).await;
    let mut client = RawClient::connect(server.addr).await;
    let answer = answered(&mut client, request(Method::GET, "/call"), b"").await;
    assert_eq!(
        answer.text(),
        "internal: the service at this path panicked: in call\n"
    );
}

#[tokio::test]
async fn headers_that_http_2_has_no_place_for_are_left_out() {
    let server = TestServer::start(failing()).await;
    let mut client = RawClient::connect(server.addr).await;
    let answer = answered(&mut client, request(Method::GET, "/connection"), b"").await;
    assert_eq!(answer.text(), "begun");
    let names: Vec<_> = answer.head.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["x-end"]);
}

#[tokio::test]
async fn what_a_client_gives_up_is_dropped() {
    let greeter = Greeter::new();
    let (server, mut client) = mounted(&greeter).await;
    let mut raw = RawClient::connect(server.addr).await;
    let body = framed(&number(u64::MAX).encode_to_vec());
    // Before it is answered, and within the answer.
    for (path, dropped) in [("/demo.Greeter/Hold", 1), ("/demo.Greeter/Count", 2)] {
        let (head, mut send) = raw.request(grpc_request(path));
        send.send_data(body.clone().into(), true)
            .expect("the stream is up");
        if dropped == 1 {
            greeter.started.reached(1).await;
        } else {
            greeter.made.reached(1).await;
        }
        assert_eq!(greeter.dropped.get(), dropped - 1);
        send.send_reset(Reason::CANCEL);
        greeter.dropped.reached(dropped).await;
        drop(head);
    }
    // By the end of the connection.
    let (_head, mut send) = raw.request(grpc_request("/demo.Greeter/Hold"));
    send.send_data(body.into(), true).expect("the stream is up");
    greeter.started.reached(2).await;
    raw.cut();
    greeter.dropped.reached(3).await;
    let reply = client.call("/demo.Greeter/Unary", number(1)).await;
    assert_eq!(reply.expect("it echoes"), 1);
}

#[tokio::test]
async fn a_call_of_grpc_ends_at_its_deadline() {
    let greeter = Greeter::new();
    let (server, _client) = mounted(&greeter).await;
    let mut raw = RawClient::connect(server.addr).await;
    let timed = |path, timeout| {
        let mut request = grpc_request(path);
        let value = HeaderValue::from_static(timeout);
        request.headers_mut().insert("grpc-timeout", value);
        request
    };
    let (head, mut send) = raw.request(timed("/demo.Greeter/Hold", "20m"));
    let body = framed(&number(u64::MAX).encode_to_vec());
    send.send_data(body.clone().into(), true)
        .expect("the stream is up");
    let answer = Answer::of(head).await;
    assert_eq!(answer.grpc(), Some("4"), "{answer:?}");
    greeter.dropped.reached(1).await;
    // Within the answer, of which this client reads no more than the beginning.
    let (head, mut send) = raw.request(timed("/demo.Greeter/Count", "20m"));
    send.send_data(body.into(), true).expect("the stream is up");
    let mut recv = within(head).await.expect("it is answered").into_body();
    greeter.dropped.reached(2).await;
    assert_eq!(reset(&mut recv).await, Some(Reason::CANCEL));
    let answer = answered(&mut raw, timed("/demo.Greeter/Unary", "soon"), b"").await;
    assert_eq!(answer.grpc(), Some("3"), "{answer:?}");
}

#[tokio::test]
async fn the_connect_callback_is_asked_about_each_request() {
    let builder = echo().fallback(router()).on_connect(|connecting| {
        match connecting.metadata().get("user") {
            Some("mallory") => Err(Status::permission_denied("not you")),
            _ => {
                connecting.set_value(7_u32);
                Ok(())
            }
        }
    });
    let server = TestServer::start(builder).await;
    let mut client = RawClient::connect(server.addr).await;
    let answer = answered(&mut client, request(Method::GET, "/who"), b"").await;
    assert!(answer.text().ends_with(" None Some(7)"), "{answer:?}");
    assert!(answer.text().starts_with("127.0.0.1:"), "{answer:?}");
    let by_mallory = |mut request: Request<()>| {
        let value = HeaderValue::from_static("mallory");
        request.headers_mut().insert("user", value);
        request
    };
    let refused = by_mallory(request(Method::GET, "/who"));
    let answer = answered(&mut client, refused, b"").await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert_eq!(answer.text(), "permission denied: not you\n");
    let refused = by_mallory(grpc_request("/who"));
    let answer = answered(&mut client, refused, b"").await;
    assert_eq!(answer.grpc(), Some("7"), "{answer:?}");
}

#[tokio::test]
async fn requests_of_a_connection_are_bounded() {
    let greeter = Greeter::new();
    let builder = echo()
        .fallback(greeter.routes())
        .concurrency_limit_per_connection(2);
    let server = TestServer::start(builder).await;
    let mut client = RawClient::connect(server.addr).await;
    let mut held = Vec::new();
    for begun in 1..=2 {
        let (head, mut send) = client.request(grpc_request("/demo.Greeter/Hold"));
        let body = framed(&number(1).encode_to_vec());
        send.send_data(body.into(), true).expect("the stream is up");
        greeter.started.reached(begun).await;
        held.push(head);
    }
    let answer = answered(&mut client, grpc_request("/demo.Greeter/Unary"), b"").await;
    assert_eq!(answer.grpc(), Some("8"), "{answer:?}");
    let answer = answered(&mut client, request(Method::GET, "/other"), b"").await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    // Methods of Gorums have the same places.
    let answer = answered(&mut client, grpc_request(ECHO), b"").await;
    assert_eq!(answer.grpc(), Some("8"), "{answer:?}");
    assert_gorums_goes_on(server.addr).await;
    for head in held {
        greeter.go_on.notify_one();
        assert_eq!(Answer::of(head).await.grpc(), Some("0"));
    }
}

type Place = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A service that is ready when it has a place.
#[derive(Clone)]
struct InPlaces {
    asked: Counter,
    places: Arc<Notify>,
    waiting: Arc<Mutex<Option<Place>>>,
    /// This clone was ready, and was not called since.
    is_ready: bool,
}

impl Service<Request<RequestBody>> for InPlaces {
    type Response = Response<AxumBody>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        let mut waiting = self.waiting.lock().expect("nothing panics with it");
        let place = waiting.get_or_insert_with(|| {
            self.asked.add();
            Box::pin(Arc::clone(&self.places).notified_owned())
        });
        ready!(place.as_mut().poll(cx));
        *waiting = None;
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<RequestBody>) -> Self::Future {
        assert!(std::mem::take(&mut self.is_ready));
        std::future::ready(Ok(Response::new("ready".into())))
    }
}

#[tokio::test]
async fn a_service_is_called_when_it_is_ready() {
    let service = InPlaces {
        asked: Counter::new(),
        places: Arc::default(),
        waiting: Arc::default(),
        is_ready: false,
    };
    let server = TestServer::start(echo().fallback(service.clone())).await;
    let mut client = RawClient::connect(server.addr).await;
    for asked in 1..=3 {
        let (head, _send) = client.request(request(Method::GET, "/"));
        let mut head = std::pin::pin!(head);
        service.asked.reached(asked).await;
        client.is_read().await;
        let early = poll_fn(|cx| Poll::Ready(head.as_mut().poll(cx).is_ready())).await;
        assert!(!early);
        service.places.notify_one();
        let answer = within(head).await.expect("it is answered");
        assert_eq!(answer.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn a_request_in_flight_outlives_the_limit_without_a_stream() {
    let greeter = Greeter::new();
    let builder = echo()
        .fallback(greeter.routes())
        .stream_timeout(Duration::from_millis(100));
    let server = TestServer::start(builder).await;
    let mut client = RawClient::connect(server.addr).await;
    let (head, mut send) = client.request(grpc_request("/demo.Greeter/Hold"));
    let body = framed(&number(1).encode_to_vec());
    send.send_data(body.into(), true).expect("the stream is up");
    greeter.started.reached(1).await;
    // One that is connected later, and does nothing, has had its time.
    RawClient::connect(server.addr).await.closed().await;
    greeter.go_on.notify_one();
    assert_eq!(Answer::of(head).await.grpc(), Some("0"));
    client.closed().await;
}

#[tokio::test]
async fn requests_in_flight_are_answered_when_the_server_shuts_down() {
    let greeter = Greeter::new();
    let server = Stoppable::start(echo().fallback(greeter.routes()), "127.0.0.1:0").await;
    let addr: SocketAddr = server.address.parse().expect("it has one");
    let mut client = RawClient::connect(addr).await;
    let (held, mut send) = client.request(grpc_request("/demo.Greeter/Hold"));
    let body = framed(&number(1).encode_to_vec());
    send.send_data(body.into(), true).expect("the stream is up");
    greeter.started.reached(1).await;
    let (counted, mut send) = client.request(grpc_request("/demo.Greeter/Count"));
    let many = 200;
    let body = framed(&number(many).encode_to_vec());
    send.send_data(body.into(), true).expect("the stream is up");
    greeter.made.reached(1).await;
    let serving = server.stop();
    client.is_told_to_go().await;
    greeter.go_on.notify_one();
    // Both have the one window of their connection.
    let (held, counted) = tokio::join!(Answer::of(held), Answer::of(counted));
    assert_eq!(held.grpc(), Some("0"));
    assert_eq!(counted.grpc(), Some("0"));
    assert!(counted.body.len() > many as usize * 64 * 1024);
    client.closed().await;
    within(serving).await.expect("it ends");
}

#[tokio::test]
async fn requests_that_outlast_the_grace_are_cut_off() {
    let greeter = Greeter::new();
    let server = echo()
        .fallback(greeter.routes())
        .bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let addr = server.local_addr().socket_addr().expect("it has one");
    let stop = Arc::new(Notify::new());
    let asked = Arc::clone(&stop).notified_owned();
    let serving = tokio::spawn(server.serve_with_shutdown(asked, Duration::from_millis(20)));
    let mut client = RawClient::connect(addr).await;
    let (head, mut send) = client.request(grpc_request("/demo.Greeter/Hold"));
    let body = framed(&number(1).encode_to_vec());
    send.send_data(body.into(), true).expect("the stream is up");
    greeter.started.reached(1).await;
    stop.notify_one();
    within(serving).await.expect("it ends");
    greeter.dropped.reached(1).await;
    within(head).await.expect_err("it was cut off");
}

#[tokio::test]
async fn calls_of_gorums_keep_their_order_beside_a_flood_of_requests() {
    let last = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&last);
    let builder = Server::builder()
        .unary("test.Test.Next", move |_: ServerCtx, request: Number| {
            let before = seen.swap(request.value, Ordering::SeqCst);
            async move {
                // Others may have their turn meanwhile.
                tokio::task::yield_now().await;
                match before + 1 == request.value {
                    true => Ok(request),
                    false => Err(Status::new(Code::OutOfRange, format!("behind {before}"))),
                }
            }
        })
        .fallback(router());
    let server = TestServer::start(builder).await;
    let flood = tokio::spawn({
        let addr = server.addr;
        async move {
            let mut client = RawClient::connect(addr).await;
            for _ in 0..20 {
                let mut heads = Vec::new();
                for _ in 0..50 {
                    let (head, mut send) = client.request(request(Method::POST, "/echo"));
                    send.send_data(Bytes::from(vec![7; 1000]), true)
                        .expect("the stream is up");
                    heads.push(head);
                }
                for head in heads {
                    assert_eq!(Answer::of(head).await.body.len(), 1000);
                }
            }
        }
    });
    let client = gorums_client(server.addr);
    assert_in_order(&client, "test.Test.Next", 1000).await;
    within(flood).await.expect("no panic");
}

#[tokio::test]
async fn requests_that_a_service_does_not_read_and_that_end_late_do_not_end_their_connection() {
    // It knows no path, and reads no body.
    let server = TestServer::start(echo().fallback(Router::new())).await;
    let mut client = RawClient::connect(server.addr).await;
    for _ in 0..1_200 {
        let request = Request::post("http://gorums/unknown").body(());
        let (answer, mut send) = client.request(request.expect("well-formed"));
        let answer = within(answer).await.expect("the connection is up");
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
        send.send_data(Bytes::from_static(b"more"), false)
            .expect("it is open");
        send.send_data(Bytes::new(), true).expect("it is open");
    }
    client.ping().await;
}
