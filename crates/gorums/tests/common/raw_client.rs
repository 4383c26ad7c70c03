//! A client that is made by hand of `h2`.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use gorums::ServerBuilder;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Ping, PingPong, Reason, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::common::{TestServer, within};
use crate::wire::{ECHO, Envelope, PATH, Reader, envelope, grpc_status};

/// A server, a client that is connected to it, and the stream that the client has opened.
pub async fn opened(builder: ServerBuilder) -> (TestServer, RawClient, Stream) {
    let server = TestServer::start(builder).await;
    let mut client = RawClient::connect(server.addr).await;
    let stream = client.open().await;
    (server, client, stream)
}

/// What opens the stream.
pub fn stream_request() -> Request<()> {
    Request::post(format!("http://gorums{PATH}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("well-formed")
}

/// What opens the stream of a client that says this id of its own, and so can be called.
pub fn callable_request(node_id: &str) -> Request<()> {
    let mut request = stream_request();
    let value = node_id.parse().expect("ASCII");
    request.headers_mut().insert("gorums-node-id", value);
    request
}

pub struct RawClient {
    requests: SendRequest<Bytes>,
    ping_pong: PingPong,
    /// A ping is on its way.
    pinging: bool,
    /// Ends with the connection.
    connection: JoinHandle<Result<(), h2::Error>>,
}

impl RawClient {
    pub async fn connect(addr: SocketAddr) -> Self {
        let tcp = within(TcpStream::connect(addr)).await.expect("it listens");
        tcp.set_nodelay(true).expect("a TCP socket");
        Self::over(tcp).await
    }

    /// A client on a connection of any kind.
    pub async fn over(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let handshake = h2::client::handshake(io);
        let (requests, mut connection) = within(handshake).await.expect("HTTP/2");
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
    pub async fn closed(self) {
        let ended = within(self.connection).await.expect("no panic");
        ended.expect("closed without an error");
    }

    /// Waits until the server has ended the connection for this reason.
    pub async fn ended_for(self, reason: Reason) {
        let ended = within(self.connection).await.expect("no panic");
        assert_eq!(ended.expect_err("it was ended").reason(), Some(reason));
    }

    /// Breaks the connection.
    pub fn cut(&self) {
        self.connection.abort();
    }

    /// Sends the head of a request.
    pub fn request(&mut self, request: Request<()>) -> (ResponseFuture, SendStream<Bytes>) {
        let sent = self.requests.send_request(request, false);
        sent.expect("the connection is up")
    }

    /// Makes an ordinary call that is answered, and ends its request behind the answer.
    pub async fn call_and_end_late(&mut self, request: Request<()>, message: Bytes) {
        let (answer, mut send) = self.request(request);
        send.send_data(message, false).expect("it is open");
        let mut replies = within(answer).await.expect("it answers").into_body();
        while let Some(reply) = within(replies.data()).await {
            reply.expect("the connection is up");
        }
        let trailers = within(replies.trailers()).await;
        let trailers = trailers.expect("the connection is up").expect("some");
        assert_eq!(grpc_status(&trailers).0, 0);
        send.send_data(Bytes::new(), true).expect("it is open");
    }

    /// Opens the stream.
    pub async fn open(&mut self) -> Stream {
        self.open_with(stream_request()).await
    }

    /// Opens the stream, and announces these features.
    pub async fn announcing(&mut self, features: &str) -> Stream {
        let mut request = stream_request();
        let value = features.parse().expect("ASCII");
        request.headers_mut().insert("gorums-features", value);
        self.open_with(request).await
    }

    /// Opens the stream with this request.
    pub async fn open_with(&mut self, request: Request<()>) -> Stream {
        self.answered(request).await.0
    }

    /// The same, and the headers of the answer.
    pub async fn answered(&mut self, request: Request<()>) -> (Stream, HeaderMap) {
        let (head, requests) = self.request(request);
        let (head, body) = within(head).await.expect("the stream is up").into_parts();
        let replies = Reader::new(body);
        (Stream { requests, replies }, head.headers)
    }

    /// The answer to a request that opens no stream, which is all in its head.
    pub async fn refusal(&mut self, request: Request<()>) -> Response<()> {
        let (head, _requests) = self.request(request);
        let response = within(head).await.expect("the connection is up");
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

    /// Waits until the server has said that it takes no other stream.
    pub async fn is_told_to_go(&mut self) {
        within(async {
            while poll_fn(|cx| self.requests.poll_ready(cx)).await.is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    pub async fn ping(&mut self) {
        within(poll_fn(|cx| self.poll_ping(cx))).await;
    }

    /// Waits until the server has read what it means to read of all that was sent.
    pub async fn is_read(&mut self) {
        for _ in 0..4 {
            self.ping().await;
        }
    }
}

/// The stream of a client.
pub struct Stream {
    requests: SendStream<Bytes>,
    replies: Reader,
}

impl Stream {
    /// Sends bytes in a DATA frame of their own.
    pub fn send_bytes(&mut self, bytes: impl Into<Bytes>) {
        self.requests
            .send_data(bytes.into(), false)
            .expect("the stream is up");
    }

    pub fn send(&mut self, envelope: &Envelope) {
        self.send_bytes(envelope.framed());
    }

    pub fn half_close(&mut self) {
        self.requests
            .send_data(Bytes::new(), true)
            .expect("the stream is up");
    }

    pub fn reset(&mut self) {
        self.requests.send_reset(Reason::CANCEL);
    }

    /// The server's next message.
    pub async fn reply(&mut self) -> Envelope {
        self.replies.expect().await
    }

    /// Whether the server has sent anything more.
    pub async fn has_reply(&mut self) -> bool {
        self.replies.has_some().await
    }

    /// The status with which the server has ended the stream, and its message.
    pub async fn status(&mut self) -> (i32, String) {
        self.replies.status().await
    }

    /// Sends a request, and expects the server's next message to be the reply to it.
    pub async fn call(&mut self, id: u64) {
        self.send(&envelope(id, ECHO, id));
        let reply = self.reply().await;
        assert_eq!((reply.id, reply.method.as_str()), (id, ECHO));
        assert_eq!((reply.status.is_none(), reply.number()), (true, id));
    }

    /// Waits until flow control lets so many bytes be sent.
    fn poll_may_send(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<()> {
        self.requests.reserve_capacity(bytes);
        while self.requests.capacity() < bytes {
            let granted = ready!(self.requests.poll_capacity(cx));
            granted
                .expect("the stream is up")
                .expect("the stream is up");
        }
        Poll::Ready(())
    }

    pub async fn may_send(&mut self, bytes: usize) {
        within(poll_fn(|cx| self.poll_may_send(cx, bytes))).await;
    }

    /// False where the server holds its client back: it has seen all that was sent, and gives no
    /// leave for more.
    pub async fn may_send_at_once(&mut self, client: &mut RawClient, bytes: usize) -> bool {
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
