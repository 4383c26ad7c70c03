//! The server and the client against peers that are made by hand of `h2` and raw TCP, and do what
//! our own side would never do.

mod common;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use common::{Counter, Number, TestServer, echo, number, within};
use gorums::{
    Client, Code, Configuration, ConfigurationBuilder, NodeState, Outcome, Server, ServerBuilder,
    ServerCtx, Status,
};
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{Ping, PingPong, Reason, RecvStream, SendStream};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use prost::Message;
use prost_types::Any;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

const PATH: &str = "/stream.Gorums/NodeStream";
const ECHO: &str = "test.Test.Echo";
const NOTE: &str = "test.Test.Note";
/// What says that the other side began a call.
const HIGH_BIT: u64 = 1 << 63;

// ---- the wire, written down a second time

/// `stream.Message`.
#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    method: String,
    #[prost(message, optional, tag = "3")]
    status: Option<WireStatus>,
    #[prost(message, repeated, tag = "4")]
    entries: Vec<Entry>,
    #[prost(bytes = "bytes", tag = "5")]
    payload: Bytes,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct WireStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// A request or a reply with a number.
fn envelope(id: u64, method: &str, value: u64) -> Envelope {
    Envelope {
        id,
        method: method.to_owned(),
        payload: number(value).encode_to_vec().into(),
        ..Envelope::default()
    }
}

/// One with so many bytes of payload beside the number.
fn envelope_of_size(id: u64, method: &str, bytes: usize) -> Envelope {
    let payload = Number {
        value: id,
        payload: Bytes::from(vec![7; bytes]),
    };
    Envelope {
        payload: payload.encode_to_vec().into(),
        ..envelope(id, method, 0)
    }
}

/// A gRPC message.
fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(message);
    frame.freeze()
}

impl Envelope {
    fn framed(&self) -> Bytes {
        framed(&self.encode_to_vec())
    }

    fn number(&self) -> u64 {
        Number::decode(self.payload.clone())
            .expect("a number")
            .value
    }

    /// The code and the message of an error.
    fn error(&self) -> (i32, &str) {
        let status = self.status.as_ref().expect("an error");
        (status.code, &status.message)
    }
}

/// The envelopes in a stream's DATA frames, whatever the frames' bounds.
struct Reader {
    recv: RecvStream,
    bytes: BytesMut,
}

impl Reader {
    fn new(recv: RecvStream) -> Self {
        Self {
            recv,
            bytes: BytesMut::new(),
        }
    }

    /// None when the peer has ended its side.
    async fn next(&mut self) -> Option<Envelope> {
        loop {
            if let Some(envelope) = self.take() {
                return Some(envelope);
            }
            let chunk = within(self.recv.data()).await?.expect("the stream is up");
            let released = self.recv.flow_control().release_capacity(chunk.len());
            released.expect("it was received");
            self.bytes.extend_from_slice(&chunk);
        }
    }

    fn take(&mut self) -> Option<Envelope> {
        let len = (&mut self.bytes.get(1..5)?).get_u32() as usize;
        if self.bytes.len() < 5 + len {
            return None;
        }
        self.bytes.advance(5);
        Some(Envelope::decode(self.bytes.split_to(len)).expect("an envelope"))
    }

    /// Whether anything has come.
    async fn has_some(&mut self) -> bool {
        poll_fn(|cx| Poll::Ready(self.recv.poll_data(cx).is_ready())).await
    }

    async fn expect(&mut self) -> Envelope {
        self.next().await.expect("the stream goes on")
    }

    /// The trailers of a stream that says no more.
    async fn trailers(&mut self) -> HeaderMap {
        assert_eq!(self.next().await, None);
        let trailers = within(self.recv.trailers())
            .await
            .expect("the stream is up");
        trailers.expect("a gRPC stream ends with trailers")
    }
}

fn grpc_status(headers: &HeaderMap) -> i32 {
    let status = headers.get("grpc-status").expect("a gRPC status");
    status.to_str().expect("ASCII").parse().expect("a number")
}

fn grpc_message(headers: &HeaderMap) -> &str {
    let message = headers.get("grpc-message").expect("a message");
    message.to_str().expect("ASCII")
}

// ---- a client made by hand

fn stream_request() -> Request<()> {
    Request::post(format!("http://gorums{PATH}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("well-formed")
}

struct RawClient {
    requests: SendRequest<Bytes>,
    ping_pong: PingPong,
    /// A ping is on its way.
    pinging: bool,
    /// Ends with the connection.
    connection: JoinHandle<Result<(), h2::Error>>,
}

impl RawClient {
    async fn connect(addr: SocketAddr) -> Self {
        Self::connect_with(addr, &h2::client::Builder::new()).await
    }

    async fn connect_with(addr: SocketAddr, builder: &h2::client::Builder) -> Self {
        let tcp = within(TcpStream::connect(addr)).await.expect("it listens");
        tcp.set_nodelay(true).expect("a TCP socket");
        let (requests, mut connection) = within(builder.handshake(tcp)).await.expect("HTTP/2");
        let ping_pong = connection.ping_pong().expect("taken once");
        let connection = tokio::spawn(connection);
        let requests = within(requests.ready()).await.expect("HTTP/2");
        Self {
            requests,
            ping_pong,
            pinging: false,
            connection,
        }
    }

    /// Waits until the server has closed the connection, and not because of an error.
    async fn closed(self) {
        let ended = within(self.connection).await.expect("no panic");
        ended.expect("closed without an error");
    }

    fn request(&mut self, request: Request<()>) -> RawStream {
        let (head, send) = self
            .requests
            .send_request(request, false)
            .expect("the connection is up");
        RawStream { head, send }
    }

    fn open(&mut self) -> RawStream {
        self.request(stream_request())
    }

    /// The answer to a request that opens no stream, which is all in its head.
    async fn refusal(&mut self, request: Request<()>) -> Response<()> {
        let mut stream = self.request(request);
        let response = within(&mut stream.head)
            .await
            .expect("the connection is up");
        assert!(response.body().is_end_stream());
        response.map(|_| ())
    }

    /// Ready when the server has answered a ping that was sent after the last time this was ready.
    fn poll_ping(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.pinging {
            let sent = self.ping_pong.send_ping(Ping::opaque());
            sent.expect("the connection is up");
            self.pinging = true;
        }
        let pong = ready!(self.ping_pong.poll_pong(cx));
        pong.expect("the connection is up");
        self.pinging = false;
        Poll::Ready(())
    }

    async fn ping(&mut self) {
        within(poll_fn(|cx| self.poll_ping(cx))).await;
    }
}

struct RawStream {
    head: ResponseFuture,
    send: SendStream<Bytes>,
}

impl RawStream {
    /// Sends bytes in a DATA frame of their own.
    fn send_bytes(&mut self, bytes: impl Into<Bytes>) {
        self.send
            .send_data(bytes.into(), false)
            .expect("the stream is up");
    }

    fn send(&mut self, envelope: &Envelope) {
        self.send_bytes(envelope.framed());
    }

    fn half_close(&mut self) {
        self.send
            .send_data(Bytes::new(), true)
            .expect("the stream is up");
    }

    async fn head(&mut self) -> Response<RecvStream> {
        within(&mut self.head).await.expect("the stream is up")
    }

    async fn reader(&mut self) -> Reader {
        Reader::new(self.head().await.into_body())
    }

    /// Sends a request, and expects the server's next message to be the reply to it.
    async fn call(&mut self, replies: &mut Reader, id: u64) {
        self.send(&envelope(id, ECHO, id));
        let reply = replies.expect().await;
        assert_eq!((reply.id, reply.method.as_str()), (id, ECHO));
        assert_eq!((reply.status.is_none(), reply.number()), (true, id));
    }

    /// Waits until flow control lets so many bytes be sent.
    fn poll_may_send(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<()> {
        self.send.reserve_capacity(bytes);
        while self.send.capacity() < bytes {
            let granted = ready!(self.send.poll_capacity(cx));
            granted
                .expect("the stream is up")
                .expect("the stream is up");
        }
        Poll::Ready(())
    }

    async fn may_send(&mut self, bytes: usize) {
        within(poll_fn(|cx| self.poll_may_send(cx, bytes))).await;
    }

    /// False where the server holds its client back: it has seen all that was sent, and gives no
    /// leave for more.
    async fn may_send_at_once(&mut self, client: &mut RawClient, bytes: usize) -> bool {
        // One ping may be on its way already. Leave that is given for what was sent before a ping
        // comes before the pong of the second one after it.
        let mut pongs = 0;
        let may_send = poll_fn(|cx| {
            while pongs < 4 {
                if self.poll_may_send(cx, bytes).is_ready() {
                    return Poll::Ready(true);
                }
                ready!(client.poll_ping(cx));
                pongs += 1;
            }
            Poll::Ready(false)
        });
        within(may_send).await
    }
}

// ---- a server made by hand

type Accepted = (Request<RecvStream>, SendResponse<Bytes>);

enum Goodbye {
    Graceful,
    Abrupt(Reason),
}

/// Listens on loopback, for one client at a time. Clients of other tests that still look for a server
/// that had the same port are told from its own by a header.
struct RawServer {
    listener: TcpListener,
    token: String,
}

/// The header.
const TOKEN: &str = "x-test-token";

impl RawServer {
    /// A server, and a client for it.
    async fn start() -> (Self, Configuration) {
        Self::start_with(|builder| builder).await
    }

    /// A server, and a client for it that is told more.
    async fn start_with(
        tell: impl FnOnce(ConfigurationBuilder) -> ConfigurationBuilder,
    ) -> (Self, Configuration) {
        static TOKENS: AtomicU64 = AtomicU64::new(0);
        let number = TOKENS.fetch_add(1, Ordering::Relaxed);
        let server = Self {
            listener: TcpListener::bind("127.0.0.1:0").await.expect("a free port"),
            token: format!("{}-{number}", std::process::id()),
        };
        let builder = Configuration::builder()
            .nodes([server.addr().to_string()])
            .metadata(TOKEN, &server.token);
        let configuration = tell(builder).connect().expect("a legal address");
        (server, configuration)
    }

    fn addr(&self) -> SocketAddr {
        self.listener.local_addr().expect("it listens")
    }

    async fn accept_tcp(&self) -> TcpStream {
        let (tcp, _) = within(self.listener.accept()).await.expect("it listens");
        tcp.set_nodelay(true).expect("a TCP socket");
        tcp
    }

    /// A connection and the stream that the client opens on it.
    async fn accept(&self) -> RawPeer {
        loop {
            let tcp = self.accept_tcp().await;
            if let Some(peer) = Self::handshake(tcp).await
                && peer
                    .head
                    .headers
                    .get(TOKEN)
                    .is_some_and(|token| *token == self.token)
            {
                return peer;
            }
        }
    }

    /// None for a peer that does not get so far.
    async fn handshake(tcp: TcpStream) -> Option<RawPeer> {
        let mut h2 = within(h2::server::handshake(tcp)).await.ok()?;
        let (streams, mut opened) = mpsc::unbounded_channel::<Accepted>();
        let (goodbye, mut said) = mpsc::unbounded_channel();
        tokio::spawn(poll_fn(move |cx| {
            while let Poll::Ready(Some(goodbye)) = said.poll_recv(cx) {
                match goodbye {
                    Goodbye::Graceful => h2.graceful_shutdown(),
                    Goodbye::Abrupt(reason) => h2.abrupt_shutdown(reason),
                }
            }
            while let Some(accepted) = ready!(h2.poll_accept(cx)) {
                let Ok(accepted) = accepted else { break };
                let _ = streams.send(accepted);
            }
            Poll::Ready(())
        }));
        let (request, respond) = within(opened.recv()).await?;
        let (head, recv) = request.into_parts();
        Some(RawPeer {
            head,
            requests: Reader::new(recv),
            respond,
            goodbye,
        })
    }
}

/// A client that opened its stream.
struct RawPeer {
    head: Parts,
    requests: Reader,
    respond: SendResponse<Bytes>,
    goodbye: mpsc::UnboundedSender<Goodbye>,
}

impl RawPeer {
    /// Sends the response head.
    fn respond(&mut self) -> RawReplies {
        let head = Response::builder()
            .header("content-type", "application/grpc")
            .body(())
            .expect("well-formed");
        let send = self.respond.send_response(head, false);
        RawReplies(send.expect("the stream is up"))
    }

    /// Waits until the client has closed the connection.
    async fn client_is_gone(&mut self) {
        while let Some(Ok(_)) = within(self.requests.recv.data()).await {}
    }

    /// Answers with a head and nothing else.
    fn refuse(&mut self, head: Response<()>) {
        self.respond
            .send_response(head, true)
            .expect("the stream is up");
    }
}

struct RawReplies(SendStream<Bytes>);

impl RawReplies {
    fn send_bytes(&mut self, bytes: impl Into<Bytes>) {
        self.0
            .send_data(bytes.into(), false)
            .expect("the stream is up");
    }

    fn send(&mut self, envelope: &Envelope) {
        self.send_bytes(envelope.framed());
    }

    fn end(&mut self, status: &str, message: &str) {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", status.parse().expect("ASCII"));
        trailers.insert("grpc-message", message.parse().expect("ASCII"));
        self.0.send_trailers(trailers).expect("the stream is up");
    }
}

/// Calls of a client to its only node.
struct Caller(Client);

impl Caller {
    fn new(configuration: &Configuration) -> Self {
        Self(Client::new(configuration))
    }

    /// Queues a call that ends even where the peer is silent.
    fn call(&self, value: u64) -> gorums::Unary<Number> {
        let node = &self.0.configuration()[0];
        self.0.rpc(node, ECHO, number(value)).send()
    }
}

// ---- the server under test

#[tokio::test]
async fn an_unknown_path_is_unimplemented() {
    let server = TestServer::start(echo()).await;
    let mut client = RawClient::connect(server.addr).await;
    let mut request = stream_request();
    *request.uri_mut() = "http://gorums/proto.Storage/ReadRPC"
        .parse()
        .expect("a URI");
    let response = client.refusal(request).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/grpc");
    assert_eq!(grpc_status(response.headers()), 12);
    assert!(grpc_message(response.headers()).contains("/proto.Storage/ReadRPC"));
}

#[tokio::test]
async fn a_second_stream_on_a_connection_is_unimplemented_and_the_first_goes_on() {
    let server = TestServer::start(echo()).await;
    let mut client = RawClient::connect(server.addr).await;
    let mut stream = client.open();
    let mut replies = stream.reader().await;
    let response = client.refusal(stream_request()).await;
    assert_eq!(grpc_status(response.headers()), 12);
    stream.call(&mut replies, 1).await;
}

#[tokio::test]
async fn requests_that_are_not_grpc_get_an_http_status_and_the_connection_goes_on() {
    let server = TestServer::start(echo()).await;
    let mut client = RawClient::connect(server.addr).await;
    let mut get = stream_request();
    *get.method_mut() = Method::GET;
    let response = client.refusal(get).await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    for content_type in ["text/html", "application/grpc-web", "application/grpc+json"] {
        let mut request = stream_request();
        let value = content_type.parse().expect("ASCII");
        request.headers_mut().insert("content-type", value);
        let response = client.refusal(request).await;
        let status = response.status();
        assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{content_type}");
    }
    let mut untyped = stream_request();
    untyped.headers_mut().remove("content-type");
    let response = client.refusal(untyped).await;
    assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let mut stream = client.open();
    let mut replies = stream.reader().await;
    stream.call(&mut replies, 1).await;
}

#[tokio::test]
async fn the_response_head_comes_before_any_request() {
    let server = TestServer::start(echo()).await;
    let mut stream = RawClient::connect(server.addr).await.open();
    let head = stream.head().await;
    assert_eq!(head.status(), StatusCode::OK);
    assert_eq!(head.headers()["content-type"], "application/grpc");
    assert!(head.headers().get("grpc-status").is_none());
    assert!(!head.body().is_end_stream());
}

#[tokio::test]
async fn after_a_half_close_all_replies_come_and_then_trailers_with_status_0() {
    let held = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&held);
    let builder = Server::builder().unary(ECHO, move |ctx: ServerCtx, request: Number| {
        let gate = Arc::clone(&gate);
        async move {
            // Handlers with and without their turn are waited for.
            if request.value.is_multiple_of(2) {
                ctx.release();
            }
            gate.acquire().await.expect("open").forget();
            Ok::<_, Status>(request)
        }
    });
    let server = TestServer::start(builder).await;
    let mut client = RawClient::connect(server.addr).await;
    let mut stream = client.open();
    let mut replies = stream.reader().await;
    for id in 1..=10 {
        stream.send(&envelope(id, ECHO, id));
    }
    stream.half_close();
    // The server has seen the end when it answers this.
    client.ping().await;
    held.add_permits(10);
    let mut ids = Vec::new();
    for _ in 1..=10 {
        ids.push(replies.expect().await.id);
    }
    ids.sort_unstable();
    assert_eq!(ids, (1..=10).collect::<Vec<_>>());
    assert_eq!(grpc_status(&replies.trailers().await), 0);
    // The connection is good for another stream.
    let mut stream = client.open();
    let mut replies = stream.reader().await;
    held.add_permits(1);
    stream.call(&mut replies, 11).await;
}

#[tokio::test]
async fn a_stream_that_ends_within_a_message_ends_with_status_13() {
    let server = TestServer::start(echo()).await;
    let mut stream = RawClient::connect(server.addr).await.open();
    let mut replies = stream.reader().await;
    stream.call(&mut replies, 1).await;
    stream.send_bytes(envelope(2, ECHO, 2).framed().slice(..7));
    stream.half_close();
    assert_eq!(grpc_status(&replies.trailers().await), 13);
}

#[tokio::test]
async fn a_reset_by_the_client_is_a_normal_end_and_handlers_hear_of_it() {
    let (started, cancelled) = (Counter::new(), Counter::new());
    let (start, cancel) = (started.clone(), cancelled.clone());
    let builder = echo().unary("test.Test.Wait", move |ctx: ServerCtx, request: Number| {
        let (start, cancel) = (start.clone(), cancel.clone());
        async move {
            start.add();
            ctx.release();
            ctx.cancelled().await;
            cancel.add();
            Ok::<_, Status>(request)
        }
    });
    let server = TestServer::start(builder).await;
    let mut client = RawClient::connect(server.addr).await;
    let mut stream = client.open();
    stream.send(&envelope(1, "test.Test.Wait", 1));
    started.reached(1).await;
    stream.send.send_reset(Reason::CANCEL);
    cancelled.reached(1).await;
    let mut stream = client.open();
    let mut replies = stream.reader().await;
    stream.call(&mut replies, 2).await;
}

#[tokio::test]
async fn a_new_stream_may_follow_right_behind_a_reset() {
    let server = TestServer::start(echo()).await;
    let mut client = RawClient::connect(server.addr).await;
    for id in 1..=20 {
        let mut stream = client.open();
        let mut replies = stream.reader().await;
        stream.call(&mut replies, id).await;
        // Both frames are written at once.
        stream.send.send_reset(Reason::CANCEL);
    }
}

#[tokio::test]
async fn a_reset_is_noticed_while_reading_is_paused() {
    let (started, cancelled) = (Counter::new(), Counter::new());
    let (start, cancel) = (started.clone(), cancelled.clone());
    let builder = Server::builder().max_waiting_bytes(1).unary(
        ECHO,
        move |ctx: ServerCtx, request: Number| {
            let (start, cancel) = (start.clone(), cancel.clone());
            async move {
                start.add();
                ctx.cancelled().await;
                cancel.add();
                Ok::<_, Status>(request)
            }
        },
    );
    let server = TestServer::start(builder).await;
    let mut client = RawClient::connect(server.addr).await;
    let mut stream = client.open();
    for id in 1..=10 {
        stream.send(&envelope(id, ECHO, id));
    }
    started.reached(1).await;
    stream.send.send_reset(Reason::CANCEL);
    cancelled.reached(1).await;
}

#[tokio::test]
async fn a_reset_is_noticed_after_a_half_close() {
    let (started, cancelled) = (Counter::new(), Counter::new());
    let (start, cancel) = (started.clone(), cancelled.clone());
    let builder = Server::builder().unary(ECHO, move |ctx: ServerCtx, request: Number| {
        let (start, cancel) = (start.clone(), cancel.clone());
        async move {
            start.add();
            ctx.cancelled().await;
            cancel.add();
            Ok::<_, Status>(request)
        }
    });
    let server = TestServer::start(builder).await;
    let mut client = RawClient::connect(server.addr).await;
    let mut stream = client.open();
    stream.send(&envelope(1, ECHO, 1));
    stream.half_close();
    started.reached(1).await;
    client.ping().await;
    stream.send.send_reset(Reason::CANCEL);
    cancelled.reached(1).await;
}

#[tokio::test]
async fn an_unknown_method_is_unimplemented_and_the_stream_goes_on() {
    let server = TestServer::start(echo()).await;
    let mut stream = RawClient::connect(server.addr).await.open();
    let mut replies = stream.reader().await;
    for method in ["test.Test.None", "/test.Test/Echo", ""] {
        stream.send(&envelope(1, method, 1));
        let reply = replies.expect().await;
        assert_eq!((reply.id, reply.method.as_str()), (1, method));
        let message = format!("no handler registered for method {method}");
        assert_eq!(reply.error(), (12, message.as_str()));
    }
    stream.call(&mut replies, 2).await;
}

#[tokio::test]
async fn a_payload_that_cannot_be_decoded_is_an_invalid_argument_and_the_stream_goes_on() {
    let server = TestServer::start(echo()).await;
    let mut stream = RawClient::connect(server.addr).await.open();
    let mut replies = stream.reader().await;
    // A field that ends before its value.
    let payload = Bytes::from_static(&[0x08]);
    let reason = Number::decode(payload.clone())
        .expect_err("no number")
        .to_string();
    stream.send(&Envelope {
        payload,
        ..envelope(1, ECHO, 0)
    });
    let reply = replies.expect().await;
    let (code, message) = reply.error();
    assert_eq!((reply.id, code), (1, 3));
    assert!(
        message.contains(&reason),
        "{message:?} does not say {reason:?}"
    );
    stream.call(&mut replies, 2).await;
}

#[tokio::test]
async fn an_oversized_two_way_request_is_answered_and_the_stream_goes_on() {
    let server = TestServer::start(echo().max_decoding_message_size(10_000)).await;
    let mut stream = RawClient::connect(server.addr).await.open();
    let mut replies = stream.reader().await;
    for id in [1, 3] {
        stream.send(&envelope_of_size(id, ECHO, 60_000));
        let reply = replies.expect().await;
        assert_eq!((reply.id, reply.method.as_str()), (id, ECHO));
        assert_eq!(reply.error().0, 8);
        stream.call(&mut replies, id + 1).await;
    }
}

#[tokio::test]
async fn an_oversized_two_way_request_with_id_0_is_answered_as_well() {
    let server = TestServer::start(echo().max_decoding_message_size(10_000)).await;
    let mut stream = RawClient::connect(server.addr).await.open();
    let mut replies = stream.reader().await;
    stream.send(&envelope_of_size(0, ECHO, 60_000));
    let reply = replies.expect().await;
    assert_eq!((reply.id, reply.error().0), (0, 8));
    stream.call(&mut replies, 1).await;
}

#[tokio::test]
async fn an_oversized_one_way_request_ends_the_stream_with_status_8() {
    let builder = echo()
        .max_decoding_message_size(10_000)
        .one_way(NOTE, |_ctx, _request: Number| async {});
    let server = TestServer::start(builder).await;
    let mut client = RawClient::connect(server.addr).await;
    let mut stream = client.open();
    let mut replies = stream.reader().await;
    stream.send(&envelope(1, ECHO, 1));
    stream.send(&envelope_of_size(2, NOTE, 60_000));
    stream.send(&envelope(3, ECHO, 3));
    assert_eq!(replies.expect().await.id, 1, "what came before is answered");
    assert_eq!(grpc_status(&replies.trailers().await), 8);
}

#[tokio::test]
async fn a_malformed_envelope_ends_the_stream_with_status_13() {
    let server = TestServer::start(echo()).await;
    // A field longer than the message, a method that is no text, a field of another type.
    for malformed in [&[0x2a, 9, 1][..], &[0x12, 1, 0xff], &[0x10, 1]] {
        let mut stream = RawClient::connect(server.addr).await.open();
        let mut replies = stream.reader().await;
        stream.send(&envelope(1, ECHO, 1));
        stream.send_bytes(framed(malformed));
        stream.send(&envelope(2, ECHO, 2));
        assert_eq!(replies.expect().await.id, 1, "what came before is answered");
        let trailers = replies.trailers().await;
        assert_eq!(grpc_status(&trailers), 13, "{malformed:x?}");
        assert!(grpc_message(&trailers).contains("malformed"));
    }
}

/// Waits until the server has closed a connection, and returns what it said.
async fn closed(tcp: &mut TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    // A reset closes as well.
    let _ = within(tcp.read_to_end(&mut said)).await;
    said
}

#[tokio::test]
async fn a_peer_that_speaks_http_1_is_disconnected() {
    let server = TestServer::start(echo()).await;
    let mut tcp = TcpStream::connect(server.addr).await.expect("it listens");
    tcp.write_all(b"GET / HTTP/1.1\r\nHost: gorums\r\n\r\n")
        .await
        .expect("connected");
    closed(&mut tcp).await;
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_disconnected() {
    let builder = echo().stream_timeout(Duration::from_millis(50));
    let server = TestServer::start(builder).await;
    for said in [&b""[..], b"PRI * HT"] {
        let mut tcp = TcpStream::connect(server.addr).await.expect("it listens");
        tcp.write_all(said).await.expect("connected");
        closed(&mut tcp).await;
    }
}

#[tokio::test]
async fn a_connection_without_a_stream_is_closed() {
    let builder = echo().stream_timeout(Duration::from_millis(50));
    let server = TestServer::start(builder).await;
    RawClient::connect(server.addr).await.closed().await;
}

#[tokio::test]
async fn a_connection_whose_stream_has_ended_is_closed() {
    let builder = echo().stream_timeout(Duration::from_millis(50));
    let server = TestServer::start(builder).await;
    let mut client = RawClient::connect(server.addr).await;
    let mut stream = client.open();
    let mut replies = stream.reader().await;
    stream.half_close();
    assert_eq!(grpc_status(&replies.trailers().await), 0);
    drop((stream, replies));
    client.closed().await;
}

/// A server whose one-way handler notes what comes, after it was let go for the first time.
fn noting(seen: &Arc<Mutex<Vec<u64>>>, all: &Counter, gate: &Arc<Semaphore>) -> ServerBuilder {
    let (seen, all, gate) = (Arc::clone(seen), all.clone(), Arc::clone(gate));
    echo().one_way(NOTE, move |_ctx: ServerCtx, request: Number| {
        let (seen, all, gate) = (Arc::clone(&seen), all.clone(), Arc::clone(&gate));
        async move {
            // Closed once the first handler is let go.
            let _ = gate.acquire().await;
            seen.lock().expect("not poisoned").push(request.value);
            all.add();
        }
    })
}

/// A server that notes what comes, all of it once its gate is closed.
async fn noting_server(
    limit: impl FnOnce(ServerBuilder) -> ServerBuilder,
) -> (TestServer, Arc<Mutex<Vec<u64>>>, Counter, Arc<Semaphore>) {
    let (seen, all, gate) = (Arc::default(), Counter::new(), Arc::new(Semaphore::new(0)));
    let server = TestServer::start(limit(noting(&seen, &all, &gate))).await;
    (server, seen, all, gate)
}

#[tokio::test]
async fn a_flood_of_small_frames_is_held_back_by_a_blocked_handler_and_then_handled_in_order() {
    const MESSAGES: u64 = 100_000;
    let (server, seen, all, gate) = noting_server(|builder| builder).await;
    let mut client = RawClient::connect(server.addr).await;
    let mut stream = client.open();
    let mut bytes = 0;
    let mut held_back = None;
    for value in 0..MESSAGES {
        let mut message = envelope(value + 1, NOTE, value);
        message.entries = vec![Entry {
            key: "padding".to_owned(),
            value: "x".repeat(150),
        }];
        let frame = message.framed();
        if held_back.is_some() {
            stream.may_send(frame.len()).await;
        } else if !stream.may_send_at_once(&mut client, frame.len()).await {
            held_back = Some(bytes);
            assert_eq!(all.get(), 0, "the first handler has its turn");
            gate.close();
            stream.may_send(frame.len()).await;
        }
        bytes += frame.len();
        stream.send_bytes(frame);
        if value % 100 == 0 {
            // For the connection to write.
            tokio::task::yield_now().await;
        }
    }
    let held_back = held_back.expect("flow control holds the client back");
    // The window, and what was read before the bound was reached.
    assert!(held_back < bytes / 2, "{held_back} of {bytes} bytes");
    all.reached(MESSAGES).await;
    let seen = std::mem::take(&mut *seen.lock().expect("not poisoned"));
    assert_eq!(seen, (0..MESSAGES).collect::<Vec<_>>());
    let mut replies = stream.reader().await;
    stream.call(&mut replies, 1).await;
}

#[tokio::test]
async fn what_came_before_the_client_went_is_handled_in_order_however_much_waits() {
    const MESSAGES: u64 = 2_000;
    for reset in [true, false] {
        let (server, seen, all, gate) =
            noting_server(|builder| builder.max_waiting_bytes(1_000)).await;
        let mut client = RawClient::connect(server.addr).await;
        let mut stream = client.open();
        for value in 0..MESSAGES {
            stream.send(&envelope(value + 1, NOTE, value));
        }
        // The server has all of it, and the first handler has its turn.
        for _ in 0..3 {
            client.ping().await;
        }
        if reset {
            stream.send.send_reset(Reason::CANCEL);
            client.ping().await;
        } else {
            client.connection.abort();
        }
        gate.close();
        all.reached(MESSAGES).await;
        let seen = std::mem::take(&mut *seen.lock().expect("not poisoned"));
        assert_eq!(seen, (0..MESSAGES).collect::<Vec<_>>(), "reset: {reset}");
    }
}

#[tokio::test]
async fn streams_wait_until_the_requests_of_earlier_ones_have_started() {
    let (server, _seen, all, gate) =
        noting_server(|builder| builder.max_waiting_bytes(1_000)).await;
    let mut client = RawClient::connect(server.addr).await;
    let mut stream = client.open();
    for id in 1..=100 {
        stream.send(&envelope(id, NOTE, id));
    }
    for _ in 0..3 {
        client.ping().await;
    }
    stream.send.send_reset(Reason::CANCEL);
    let response = client.refusal(stream_request()).await;
    assert_eq!(grpc_status(response.headers()), 8);
    assert!(grpc_message(response.headers()).contains("earlier streams"));
    gate.close();
    all.reached(100).await;
    let mut stream = client.open();
    let mut replies = stream.reader().await;
    stream.call(&mut replies, 1).await;
}

#[tokio::test]
async fn reading_pauses_at_the_bound_however_many_frames_come_at_once() {
    const WAITING: u64 = 200;
    let (started, gate) = (Counter::new(), Arc::new(Semaphore::new(0)));
    let (start, held) = (started.clone(), Arc::clone(&gate));
    let builder = Server::builder()
        .max_waiting_bytes(10_000)
        .max_decoding_message_size(1_000)
        .unary(ECHO, move |_ctx: ServerCtx, request: Number| {
            let held = Arc::clone(&held);
            start.add();
            async move {
                // Closed once the first handler is let go.
                let _ = held.acquire().await;
                Ok::<_, Status>(request)
            }
        });
    let server = TestServer::start(builder).await;
    let mut client = RawClient::connect(server.addr).await;
    let mut stream = client.open();
    let mut replies = stream.reader().await;
    for id in 1..=WAITING {
        stream.send(&envelope(id, ECHO, id));
    }
    // Is answered when it is read, before the others.
    stream.send(&envelope_of_size(WAITING + 1, ECHO, 5_000));
    started.reached(1).await;
    for _ in 0..4 {
        client.ping().await;
    }
    assert!(
        !replies.has_some().await,
        "more was read than the bound allows"
    );
    gate.close();
    let mut ids = Vec::new();
    for _ in 0..=WAITING {
        let reply = replies.expect().await;
        assert_eq!(reply.status.is_some(), reply.id == WAITING + 1);
        ids.push(reply.id);
    }
    ids.sort_unstable();
    assert_eq!(ids, (1..=WAITING + 1).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_window_full_of_tiny_frames_does_not_end_the_connection() {
    let (server, _seen, all, gate) = noting_server(|builder| builder).await;
    let mut client = RawClient::connect(server.addr).await;
    let mut stream = client.open();
    let frame = envelope(1, NOTE, 1).framed();
    let mut sent = 0;
    while stream.may_send_at_once(&mut client, frame.len()).await {
        stream.send_bytes(frame.clone());
        sent += 1;
        if sent % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    gate.close();
    all.reached(sent).await;
}

#[tokio::test]
async fn messages_may_be_cut_anywhere_into_frames() {
    let server = TestServer::start(echo()).await;
    let mut stream = RawClient::connect(server.addr).await.open();
    let mut replies = stream.reader().await;
    let messages = [
        envelope(1, ECHO, 300),
        envelope(2, ECHO, 0),
        envelope(3, ECHO, 5),
    ];
    let bytes: Vec<u8> = messages.iter().flat_map(Envelope::framed).collect();
    let bytes = Bytes::from(bytes);
    let mut frames: Vec<Vec<Bytes>> = (0..=bytes.len())
        .map(|cut| vec![bytes.slice(..cut), bytes.slice(cut..)])
        .collect();
    frames.push((0..bytes.len()).map(|at| bytes.slice(at..=at)).collect());
    for frames in frames {
        for frame in frames {
            if !frame.is_empty() {
                stream.send_bytes(frame);
            }
        }
        for message in &messages {
            let reply = replies.expect().await;
            assert_eq!((reply.id, reply.number()), (message.id, message.number()));
        }
    }
}

#[tokio::test]
async fn message_id_0_and_ids_used_twice_are_answered_as_usual() {
    let server = TestServer::start(echo()).await;
    let mut stream = RawClient::connect(server.addr).await.open();
    let mut replies = stream.reader().await;
    for (id, value) in [(0, 1), (7, 2), (7, 3), (0, 4)] {
        stream.send(&envelope(id, ECHO, value));
    }
    for (id, value) in [(0, 1), (7, 2), (7, 3), (0, 4)] {
        let reply = replies.expect().await;
        assert_eq!((reply.id, reply.number()), (id, value));
    }
}

#[tokio::test]
async fn a_reply_has_id_and_method_of_its_request_and_no_metadata() {
    let server = TestServer::start(echo()).await;
    let mut stream = RawClient::connect(server.addr).await.open();
    let mut replies = stream.reader().await;
    let entry = |key: &str| Entry {
        key: key.to_owned(),
        value: "of the request".to_owned(),
    };
    for method in [ECHO, "test.Test.Nothing"] {
        let request = Envelope {
            entries: vec![entry("trace"), entry("tenant")],
            ..envelope(77, method, 5)
        };
        stream.send(&request);
        let reply = replies.expect().await;
        assert_eq!((reply.id, reply.method.as_str()), (77, method));
        assert_eq!(reply.entries, []);
        // An error has no payload either.
        assert_eq!(reply.payload.is_empty(), reply.status.is_some());
        assert_eq!(reply.status.is_none(), method == ECHO);
    }
}

#[tokio::test]
async fn ids_with_the_high_bit_are_requests_of_clients_that_cannot_be_called() {
    let server = TestServer::start(echo()).await;
    let mut stream = RawClient::connect(server.addr).await.open();
    let mut replies = stream.reader().await;
    for id in [HIGH_BIT, HIGH_BIT | 1, u64::MAX] {
        stream.call(&mut replies, id).await;
    }
}

#[tokio::test]
async fn ids_with_the_high_bit_are_absorbed_from_clients_that_can_be_called() {
    let server = TestServer::start(echo()).await;
    for node_id in ["0", "3", "abc"] {
        let mut request = stream_request();
        let value = node_id.parse().expect("ASCII");
        request.headers_mut().insert("gorums-node-id", value);
        let mut stream = RawClient::connect(server.addr).await.request(request);
        let mut replies = stream.reader().await;
        stream.send(&envelope(HIGH_BIT | 1, ECHO, 1));
        stream.call(&mut replies, 2).await;
    }
}

/// Calls back to a client, as the client has them on the wire.
#[tokio::test]
async fn a_call_to_a_client_has_the_high_bit_and_its_reply_may_be_late_wrong_or_broken() {
    let server = echo().bind("127.0.0.1:0").await.expect("a free port");
    let (addr, clients) = (server.local_addr(), server.clients());
    let serving = tokio::spawn(server.serve());
    let mut request = stream_request();
    let headers = request.headers_mut();
    headers.insert("gorums-node-id", http::HeaderValue::from_static("0"));
    let mut client = RawClient::connect(addr).await;
    let mut stream = client.request(request);
    let mut requests = stream.reader().await;
    let config = within(clients.wait_for(|clients| clients.len() == 1))
        .await
        .expect("it serves");
    let caller = Caller::new(&config);

    let call = caller
        .0
        .rpc::<Number, Number>(&config[0], ECHO, number(5))
        .metadata("key", "value")
        .send();
    let asked = requests.expect().await;
    assert!(asked.id & HIGH_BIT != 0, "{asked:?}");
    assert_eq!((asked.method.as_str(), asked.number()), (ECHO, 5));
    assert_eq!(asked.entries.len(), 1);
    // A request of the client's own with the same number, and replies to calls that nobody made.
    stream.call(&mut requests, asked.id & !HIGH_BIT).await;
    stream.send(&envelope(u64::MAX, ECHO, 1));
    stream.send(&envelope(HIGH_BIT, ECHO, 1));
    stream.send(&envelope(asked.id, ECHO, 6));
    assert_eq!(within(call).await.expect("answered").value, 6);
    stream.send(&envelope(asked.id, ECHO, 7));

    let call = caller.call(5);
    let asked = requests.expect().await;
    stream.send(&envelope(asked.id, "test.Test.Other", 1));
    assert_eq!(
        within(call).await.expect_err("another method").code(),
        Code::Internal
    );

    let call = caller.call(5);
    let asked = requests.expect().await;
    stream.send(&envelope_of_size(asked.id, ECHO, 5 << 20));
    let error = within(call).await.expect_err("too large");
    assert_eq!(error.code(), Code::ResourceExhausted);
    stream.call(&mut requests, 9).await;

    let call = caller.call(5);
    requests.expect().await;
    stream.half_close();
    let error = within(call).await.expect_err("the client says no more");
    assert_eq!(
        (error.code(), error.outcome()),
        (Code::Unavailable, Outcome::Unknown)
    );
    assert!(clients.config().is_empty());
    serving.abort();
}

#[tokio::test]
async fn the_last_bytes_of_a_client_that_leaves_still_answer() {
    let server = echo().bind("127.0.0.1:0").await.expect("a free port");
    let (addr, clients) = (server.local_addr(), server.clients());
    let serving = tokio::spawn(server.serve());
    let mut request = stream_request();
    let headers = request.headers_mut();
    headers.insert("gorums-node-id", http::HeaderValue::from_static("0"));
    let mut client = RawClient::connect(addr).await;
    let mut stream = client.request(request);
    let mut requests = stream.reader().await;
    let config = within(clients.wait_for(|clients| clients.len() == 1))
        .await
        .expect("it serves");
    let call = Caller::new(&config).call(5);
    let asked = requests.expect().await;
    stream.send(&envelope(asked.id, ECHO, 6));
    stream.send.send_reset(Reason::CANCEL);
    // Whichever comes first to the server, it does not wait.
    match within(call).await {
        Ok(reply) => assert_eq!(reply.value, 6),
        Err(error) => assert_eq!(error.code(), Code::Unavailable),
    }
    within(clients.wait_for(Configuration::is_empty))
        .await
        .expect("it serves");
    serving.abort();
}

#[tokio::test]
async fn a_client_that_can_be_called_says_so_and_answers_with_the_id_of_the_request() {
    let (server, configuration) = RawServer::start_with(|builder| builder.serve(echo())).await;
    let caller = Caller::new(&configuration);
    let mut peer = server.accept().await;
    assert_eq!(peer.head.headers["gorums-node-id"], "0");
    let mut replies = peer.respond();
    for id in [HIGH_BIT, HIGH_BIT | 1, u64::MAX] {
        replies.send(&envelope(id, ECHO, 8));
        let answer = peer.requests.expect().await;
        assert_eq!(
            (answer.id, answer.method.as_str(), answer.number()),
            (id, ECHO, 8)
        );
        assert_eq!(answer.entries, []);
    }
    // One that this client made may have the same number.
    let call = caller.call(1);
    let asked = peer.requests.expect().await;
    replies.send(&envelope(asked.id | HIGH_BIT, ECHO, 3));
    assert_eq!(peer.requests.expect().await.number(), 3);
    replies.send(&asked);
    assert_eq!(within(call).await.expect("answered").value, 1);
    // Too large to be read, and yet answered.
    replies.send(&envelope_of_size(HIGH_BIT | 9, ECHO, 5 << 20));
    let answer = peer.requests.expect().await;
    assert_eq!((answer.id, answer.error().0), (HIGH_BIT | 9, 8));
}

#[tokio::test]
async fn a_peer_says_who_it_is_also_on_connections_that_it_had() {
    let (server, configuration) = RawServer::start().await;
    let peer = server.accept().await;
    assert!(peer.head.headers.get("gorums-node-id").is_none());
    let other = Configuration::builder()
        .node(7, "127.0.0.1:1")
        .connect()
        .expect("legal");
    let peers = configuration.with(&other[0]).expect("two ids");
    let bound = echo()
        .peers(7, &peers)
        .bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let peer = server.accept().await;
    assert_eq!(peer.head.headers["gorums-node-id"], "7");
    drop(bound);
}

#[tokio::test]
async fn a_peer_that_reads_no_replies_holds_up_its_own_handlers_only() {
    const REQUESTS: u64 = 1_000;
    const REPLY: usize = 10_000;
    let started = Counter::new();
    let start = started.clone();
    let builder = Server::builder().max_reply_bytes(100_000).unary(
        ECHO,
        move |_ctx: ServerCtx, request: Number| {
            start.add();
            async move {
                Ok::<_, Status>(Number {
                    value: request.value,
                    payload: Bytes::from(vec![7; REPLY]),
                })
            }
        },
    );
    let server = TestServer::start(builder).await;
    let mut client = RawClient::connect(server.addr).await;
    let mut stream = client.open();
    let mut replies = stream.reader().await;
    for id in 1..=REQUESTS {
        stream.send(&envelope(id, ECHO, id));
    }
    // The replies fill the window and then the queue.
    started.reached(16).await;
    for _ in 0..3 {
        client.ping().await;
    }
    let mut other = RawClient::connect(server.addr).await.open();
    let mut others = other.reader().await;
    for id in 1..=100 {
        other.send(&envelope(id, ECHO, id));
        assert_eq!(others.expect().await.number(), id);
    }
    let started = started.get() - 100;
    assert!(
        started < 50,
        "{started} handlers started, and nobody reads their replies"
    );
    for id in 1..=REQUESTS {
        let reply = replies.expect().await;
        assert_eq!((reply.id, reply.number()), (id, id));
    }
}

#[test]
fn pings_are_answered_while_a_handler_blocks_its_thread() {
    let workers = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let started = Counter::new();
    let start = started.clone();
    let builder = Server::builder().unary(ECHO, move |_ctx: ServerCtx, request: Number| {
        start.add();
        let _ = wait.lock().expect("not poisoned").recv();
        async move { Ok::<_, Status>(request) }
    });
    let server = workers.block_on(TestServer::start(builder));
    // The client has a thread of its own.
    let client = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    client.block_on(async {
        let mut client = RawClient::connect(server.addr).await;
        let mut stream = client.open();
        let mut replies = stream.reader().await;
        stream.send(&envelope(1, ECHO, 1));
        started.reached(1).await;
        for _ in 0..10 {
            client.ping().await;
        }
        go_on.send(()).expect("the handler waits");
        assert_eq!(replies.expect().await.id, 1);
    });
}

// ---- the client under test

#[tokio::test]
async fn the_request_head_is_as_documented() {
    let (server, configuration) = RawServer::start_with(|builder| {
        let builder = builder.metadata("Cluster", "blue");
        builder.metadata("cluster", "green")
    })
    .await;
    let peer = server.accept().await;
    assert_eq!(peer.head.method, Method::POST);
    let uri = format!("http://{}{PATH}", server.addr());
    assert_eq!(peer.head.uri.to_string(), uri);
    let mut headers: Vec<_> = peer
        .head
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().expect("ASCII")))
        .filter(|(name, _)| !["user-agent", TOKEN].contains(name))
        .collect();
    headers.sort_unstable();
    let expected = [
        ("cluster", "blue"),
        ("cluster", "green"),
        ("content-type", "application/grpc"),
        ("gorums-features", "cancel,stream-end"),
        ("te", "trailers"),
    ];
    assert_eq!(headers, expected);
    let user_agent = peer.head.headers["user-agent"].to_str().expect("ASCII");
    assert!(user_agent.starts_with("gorums-rust/"), "{user_agent}");
    drop(configuration);
}

#[tokio::test]
async fn calls_do_not_wait_for_the_response_head() {
    let (server, configuration) = RawServer::start().await;
    let caller = Caller::new(&configuration);
    let calls = [caller.call(1), caller.call(2)];
    let mut peer = server.accept().await;
    let first = peer.requests.expect().await;
    let second = peer.requests.expect().await;
    assert_eq!((first.number(), second.number()), (1, 2));
    // The head comes with the first reply, as from a Go server.
    let mut replies = peer.respond();
    for (request, call) in [first, second].into_iter().zip(calls) {
        assert_eq!(request.method, ECHO);
        replies.send(&request);
        let reply = within(call).await.expect("answered");
        assert_eq!(reply.value, request.number());
    }
}

#[tokio::test]
async fn one_way_calls_need_no_response_head_at_all() {
    let (server, configuration) = RawServer::start().await;
    let client = Client::new(&configuration);
    let mut peer = None;
    for value in 0..10 {
        let unicast = client.unicast(&configuration[0], NOTE, number(value));
        within(unicast).await.expect("handed over");
        let multicast = client.multicast(NOTE, number(value));
        within(multicast).await.expect("handed over");
        // The first ones do not even wait for the server's HTTP/2 settings.
        if peer.is_none() {
            peer = Some(server.accept().await);
        }
        let requests = &mut peer.as_mut().expect("accepted").requests;
        assert_eq!(requests.expect().await.number(), value);
        assert_eq!(requests.expect().await.number(), value);
    }
}

#[tokio::test]
async fn a_streamed_call_to_a_server_that_marks_no_end_has_its_replies_and_goes_on() {
    let (server, configuration) = RawServer::start().await;
    let call = Client::new(&configuration).streamed_quorum_call::<_, Number>(ECHO, number(1));
    let mut responses = call.responses();
    let mut peer = server.accept().await;
    let mut replies = peer.respond();
    let request = peer.requests.expect().await;
    // An empty reply is a reply: only servers that say so end a stream with one.
    for value in [1, 0, 3] {
        replies.send(&envelope(request.id, ECHO, value));
        let response = within(responses.next()).await.expect("it goes on");
        assert_eq!(response.result.expect("a reply").value, value);
    }
    assert_eq!(responses.outstanding(), 1);
    drop(responses);
    assert_eq!(configuration[0].pending(), 0);
    // It is not told either, since it would not understand: the next that it hears is a call.
    let caller = Caller::new(&configuration);
    let call = caller.call(2);
    let request = peer.requests.expect().await;
    assert_eq!((request.method.as_str(), request.number()), (ECHO, 2));
    replies.send(&request);
    assert_eq!(within(call).await.expect("answered").value, 2);
}

#[tokio::test]
async fn replies_with_unknown_ids_and_second_replies_are_ignored() {
    let (server, configuration) = RawServer::start().await;
    let caller = Caller::new(&configuration);
    let calls: Vec<_> = (0..3).map(|value| caller.call(value)).collect();
    let mut peer = server.accept().await;
    let mut replies = peer.respond();
    for call in calls {
        let request = peer.requests.expect().await;
        for id in [0, request.id + 1000, !HIGH_BIT] {
            replies.send(&envelope(id, ECHO, 99));
        }
        replies.send(&request);
        replies.send(&envelope(request.id, ECHO, 99));
        replies.send(&envelope(request.id, ECHO, 99));
        let reply = within(call).await.expect("answered");
        assert_eq!(reply.value, request.number());
    }
    assert_eq!(configuration[0].pending(), 0);
    assert_eq!(configuration[0].state(), NodeState::Connected);
}

#[tokio::test]
async fn a_reply_of_another_method_fails_its_call_only() {
    let (server, configuration) = RawServer::start().await;
    let caller = Caller::new(&configuration);
    let calls = [caller.call(1), caller.call(2)];
    let mut peer = server.accept().await;
    let mut replies = peer.respond();
    let [first, second] = calls;
    let request = peer.requests.expect().await;
    replies.send(&envelope(request.id, "test.Test.Other", 1));
    let error = within(first).await.expect_err("that was no answer");
    assert_eq!(error.outcome(), Outcome::Unknown);
    let text = error.to_string();
    assert!(
        text.contains(ECHO) && text.contains("test.Test.Other"),
        "{text}"
    );
    replies.send(&peer.requests.expect().await);
    assert_eq!(within(second).await.expect("answered").value, 2);
}

#[tokio::test]
async fn an_error_reply_arrives_whole() {
    let (server, configuration) = RawServer::start().await;
    let call = Caller::new(&configuration).call(1);
    let mut peer = server.accept().await;
    let mut replies = peer.respond();
    let details = vec![
        Any {
            type_url: "type.googleapis.com/test.Detail".to_owned(),
            value: vec![1, 2, 3],
        },
        Any::default(),
    ];
    let request = peer.requests.expect().await;
    replies.send(&Envelope {
        status: Some(WireStatus {
            code: 5,
            message: "abc\u{fc}".to_owned(),
            details: details.clone(),
        }),
        ..envelope(request.id, ECHO, 0)
    });
    let error = within(call).await.expect_err("refused");
    assert_eq!(error.outcome(), Outcome::Refused);
    let status = error.status();
    assert_eq!(
        (status.code(), status.message()),
        (Code::NotFound, "abc\u{fc}")
    );
    assert_eq!(status.details(), details);
}

#[tokio::test]
async fn a_status_with_code_0_is_success() {
    let (server, configuration) = RawServer::start().await;
    let call = Caller::new(&configuration).call(1);
    let mut peer = server.accept().await;
    let mut replies = peer.respond();
    let mut reply = peer.requests.expect().await;
    reply.status = Some(WireStatus::default());
    replies.send(&reply);
    assert_eq!(within(call).await.expect("answered").value, 1);
}

#[tokio::test]
async fn replies_may_be_cut_and_joined_anywhere() {
    let (server, configuration) = RawServer::start().await;
    let caller = Caller::new(&configuration);
    let mut accepted = None;
    for cut in 0.. {
        let calls: Vec<_> = (0..3).map(|value| caller.call(value)).collect();
        if accepted.is_none() {
            let mut peer = server.accept().await;
            let replies = peer.respond();
            accepted = Some((peer, replies));
        }
        let (peer, replies) = accepted.as_mut().expect("accepted");
        let mut bytes = BytesMut::new();
        for _ in 0..3 {
            bytes.put(peer.requests.expect().await.framed());
        }
        let mut bytes = bytes.freeze();
        let end = cut >= bytes.len();
        let first = bytes.split_to(cut.min(bytes.len()));
        for frame in [first, bytes] {
            if !frame.is_empty() {
                replies.send_bytes(frame);
            }
        }
        for (value, call) in (0..).zip(calls) {
            assert_eq!(within(call).await.expect("answered").value, value);
        }
        if end {
            return;
        }
    }
}

#[tokio::test]
async fn a_reply_above_the_limit_fails_its_call_only() {
    let (server, configuration) =
        RawServer::start_with(|builder| builder.max_decoding_message_size(10_000)).await;
    let caller = Caller::new(&configuration);
    let calls = [caller.call(1), caller.call(2)];
    let mut peer = server.accept().await;
    let mut replies = peer.respond();
    let [first, second] = calls;
    let request = peer.requests.expect().await;
    replies.send(&envelope_of_size(request.id, ECHO, 60_000));
    let error = within(first).await.expect_err("too large");
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(error.to_string().contains("10000"), "{error}");
    replies.send(&peer.requests.expect().await);
    assert_eq!(within(second).await.expect("answered").value, 2);
}

#[tokio::test]
async fn large_requests_pass_a_small_window() {
    let (server, configuration) = RawServer::start().await;
    let client = Client::new(&configuration);
    let request = Number {
        value: 1,
        payload: Bytes::from(vec![7; 1_000_000]),
    };
    let call = client
        .rpc::<Number, Number>(&configuration[0], ECHO, request.clone())
        .send();
    let mut peer = server.accept().await;
    let received = peer.requests.expect().await;
    assert_eq!(Number::decode(received.payload.clone()), Ok(request));
    let mut replies = peer.respond();
    replies.send(&envelope(received.id, ECHO, 2));
    assert_eq!(within(call).await.expect("answered").value, 2);
}

/// The client's next call reaches the next connection.
async fn expect_reconnect(server: &RawServer, caller: &Caller) {
    let call = caller.call(77);
    let mut peer = server.accept().await;
    let mut replies = peer.respond();
    replies.send(&peer.requests.expect().await);
    assert_eq!(within(call).await.expect("answered").value, 77);
}

#[tokio::test]
async fn trailers_fail_written_calls_with_their_status() {
    let (server, configuration) = RawServer::start().await;
    let caller = Caller::new(&configuration);
    let calls = [caller.call(1), caller.call(2), caller.call(3)];
    let mut peer = server.accept().await;
    let mut replies = peer.respond();
    let [answered, second, third] = calls;
    for value in 1..=3 {
        let request = peer.requests.expect().await;
        assert_eq!(request.number(), value);
        if value == 1 {
            replies.send(&request);
        }
    }
    replies.end("8", "too%20much");
    assert_eq!(within(answered).await.expect("answered").value, 1);
    for call in [second, third] {
        let error = within(call).await.expect_err("the stream has ended");
        assert_eq!(error.outcome(), Outcome::Unknown);
        assert_eq!(error.code(), Code::ResourceExhausted);
        assert_eq!(error.status().message(), "too much");
    }
    assert_eq!(configuration[0].pending(), 0);
    drop((peer, replies));
    expect_reconnect(&server, &caller).await;
}

#[tokio::test]
async fn an_end_with_status_0_fails_written_calls_too() {
    let (server, configuration) = RawServer::start().await;
    let caller = Caller::new(&configuration);
    let call = caller.call(1);
    let mut peer = server.accept().await;
    peer.requests.expect().await;
    peer.respond().end("0", "");
    let error = within(call).await.expect_err("the stream has ended");
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert_eq!(error.code(), Code::Unavailable);
    expect_reconnect(&server, &caller).await;
}

#[tokio::test]
async fn a_server_that_refuses_the_stream_is_quoted() {
    let (server, configuration) = RawServer::start().await;
    let caller = Caller::new(&configuration);
    let head = |status: u16, headers: &[(&str, &str)]| {
        let mut head = Response::builder().status(status);
        for (name, value) in headers {
            head = head.header(*name, *value);
        }
        head.body(()).expect("well-formed")
    };
    let grpc = ("content-type", "application/grpc");
    for (head, code, says) in [
        (head(404, &[]), Code::Unimplemented, "404"),
        (head(401, &[]), Code::Unauthenticated, "401"),
        (head(503, &[grpc]), Code::Unavailable, "503"),
        (head(200, &[]), Code::Unknown, "not gRPC"),
        (
            head(200, &[("content-type", "text/html")]),
            Code::Unknown,
            "not gRPC",
        ),
        (
            head(
                200,
                &[
                    grpc,
                    ("grpc-status", "12"),
                    ("grpc-message", "unknown service"),
                ],
            ),
            Code::Unimplemented,
            "unknown service",
        ),
    ] {
        let call = caller.call(1);
        let mut peer = server.accept().await;
        // The request is written: what becomes of it is not known.
        peer.requests.expect().await;
        peer.refuse(head);
        let error = within(call).await.expect_err("there is no stream");
        assert_eq!((error.outcome(), error.code()), (Outcome::Unknown, code));
        assert!(
            error.to_string().contains(says),
            "{error} does not say {says:?}"
        );
        let last = configuration[0].last_error().expect("it failed");
        assert!(
            last.message().contains(says),
            "{last} does not say {says:?}"
        );
    }
    expect_reconnect(&server, &caller).await;
}

#[tokio::test]
async fn a_reset_by_the_server_fails_written_calls() {
    let (server, configuration) = RawServer::start().await;
    let caller = Caller::new(&configuration);
    let call = caller.call(1);
    let mut peer = server.accept().await;
    peer.requests.expect().await;
    peer.respond().0.send_reset(Reason::INTERNAL_ERROR);
    let error = within(call).await.expect_err("the stream was reset");
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert_eq!(error.code(), Code::Unavailable);
    expect_reconnect(&server, &caller).await;
}

#[tokio::test]
async fn a_server_that_closes_right_after_accepting_fails_calls_and_is_tried_again() {
    let (server, configuration) = RawServer::start().await;
    let caller = Caller::new(&configuration);
    let close_all = async || -> () {
        loop {
            drop(server.accept_tcp().await);
        }
    };
    for _ in 0..3 {
        let error = tokio::select! {
            biased;
            () = close_all() => unreachable!("it goes on for ever"),
            reply = within(caller.call(1)) => reply.expect_err("the connection was closed"),
        };
        assert_eq!(error.code(), Code::Unavailable);
        assert_ne!(error.outcome(), Outcome::Refused);
    }
    expect_reconnect(&server, &caller).await;
}

#[tokio::test]
async fn a_server_that_does_not_speak_http_2_fails_calls() {
    let (server, configuration) = RawServer::start().await;
    let caller = Caller::new(&configuration);
    let call = caller.call(1);
    let mut tcp = server.accept_tcp().await;
    tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        .await
        .expect("connected");
    let error = within(call).await.expect_err("no HTTP/2");
    assert_eq!(error.code(), Code::Unavailable);
    drop(tcp);
    expect_reconnect(&server, &caller).await;
}

#[tokio::test]
async fn after_a_graceful_goaway_calls_under_way_are_answered() {
    let (server, configuration) = RawServer::start().await;
    let caller = Caller::new(&configuration);
    let call = caller.call(1);
    let mut peer = server.accept().await;
    let request = peer.requests.expect().await;
    let mut replies = peer.respond();
    peer.goodbye.send(Goodbye::Graceful).expect("connected");
    replies.send(&request);
    assert_eq!(within(call).await.expect("answered").value, 1);
    replies.end("14", "shutting down");
    peer.client_is_gone().await;
    expect_reconnect(&server, &caller).await;
}

#[tokio::test]
async fn a_goaway_with_an_error_fails_written_calls() {
    let (server, configuration) = RawServer::start().await;
    let caller = Caller::new(&configuration);
    let call = caller.call(1);
    let mut peer = server.accept().await;
    peer.requests.expect().await;
    let goodbye = Goodbye::Abrupt(Reason::ENHANCE_YOUR_CALM);
    peer.goodbye.send(goodbye).expect("connected");
    let error = within(call).await.expect_err("the connection has ended");
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert_eq!(error.code(), Code::Unavailable);
    expect_reconnect(&server, &caller).await;
}

#[tokio::test]
async fn a_call_by_the_server_is_unimplemented_and_the_stream_goes_on() {
    let (server, configuration) = RawServer::start().await;
    let caller = Caller::new(&configuration);
    let mut peer = server.accept().await;
    let mut replies = peer.respond();
    for id in [HIGH_BIT | 1, u64::MAX] {
        replies.send(&envelope(id, "test.Test.Back", 1));
        let answer = peer.requests.expect().await;
        assert_eq!((answer.id, answer.method.as_str()), (id, "test.Test.Back"));
        let message = "no handler registered for method test.Test.Back";
        assert_eq!(answer.error(), (12, message));
    }
    let call = caller.call(1);
    replies.send(&peer.requests.expect().await);
    assert_eq!(within(call).await.expect("answered").value, 1);
}

#[tokio::test]
async fn a_malformed_reply_ends_the_connection_and_fails_written_calls() {
    let (server, configuration) = RawServer::start().await;
    let caller = Caller::new(&configuration);
    let call = caller.call(1);
    let mut peer = server.accept().await;
    peer.requests.expect().await;
    peer.respond().send_bytes(framed(&[0x2a, 9, 1]));
    let error = within(call).await.expect_err("malformed");
    assert_eq!(
        (error.outcome(), error.code()),
        (Outcome::Unknown, Code::Internal)
    );
    assert!(error.to_string().contains("malformed"), "{error}");
    expect_reconnect(&server, &caller).await;
}
