//! A server that is made by hand of `h2`, and our client of it.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, ready};

use bytes::Bytes;
use gorums::call::Unary;
use gorums::{Client, Code, Configuration, ConfigurationBuilder, Node, NodeError, Outcome};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::common::{Number, number, within};
use crate::wire::{ECHO, Envelope, Reader};

type Accepted = (Request<RecvStream>, SendResponse<Bytes>);

pub enum Goodbye {
    Graceful,
    Abrupt(Reason),
}

/// Listens on loopback, for one client at a time. Clients of other tests that still look for a
/// server that had the same port are told from its own by a header.
pub struct RawServer {
    listener: TcpListener,
    token: String,
    client: Client,
}

/// The header.
pub const TOKEN: &str = "x-test-token";

impl RawServer {
    /// A server, and a client for it.
    pub async fn start() -> Self {
        Self::start_with(|builder| builder).await
    }

    /// A server, and a client for it that is told more.
    pub async fn start_with(
        tell: impl FnOnce(ConfigurationBuilder) -> ConfigurationBuilder,
    ) -> Self {
        static TOKENS: AtomicU64 = AtomicU64::new(0);
        let token = TOKENS.fetch_add(1, Ordering::Relaxed);
        let token = format!("{}-{token}", std::process::id());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it listens");
        let builder = Configuration::builder()
            .nodes([addr.to_string()])
            .metadata(TOKEN, &token);
        let configuration = tell(builder).connect().expect("a legal address");
        Self {
            listener,
            token,
            client: Client::new(&configuration),
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.listener.local_addr().expect("it listens")
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// This server, as the client has it.
    pub fn node(&self) -> Node {
        self.client.configuration()[0].clone()
    }

    /// Queues a call that ends even where the server is silent.
    pub fn call(&self, value: u64) -> Unary<Number> {
        self.client.rpc(&self.node(), ECHO, number(value)).send()
    }

    /// A call of the client, and the request on a connection that it has made for it.
    pub async fn called(&self) -> (Unary<Number>, RawPeer, Envelope) {
        let call = self.call(1);
        let mut peer = self.accept().await;
        let request = peer.request().await;
        (call, peer, request)
    }

    pub async fn accept_tcp(&self) -> TcpStream {
        let (tcp, _) = within(self.listener.accept()).await.expect("it listens");
        tcp.set_nodelay(true).expect("a TCP socket");
        tcp
    }

    /// A connection and the stream that the client opens on it.
    pub async fn accept(&self) -> RawPeer {
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
            replies: None,
            goodbye,
        })
    }

    /// The client's next call reaches the next connection.
    pub async fn is_reached_again(&self) {
        let call = self.call(77);
        let mut peer = self.accept().await;
        peer.echo().await;
        answered(call, 77).await;
    }
}

/// A client that opened its stream.
pub struct RawPeer {
    pub head: Parts,
    requests: Reader,
    respond: SendResponse<Bytes>,
    /// What the response head has opened.
    replies: Option<SendStream<Bytes>>,
    goodbye: mpsc::UnboundedSender<Goodbye>,
}

impl RawPeer {
    /// The client's next message.
    pub async fn request(&mut self) -> Envelope {
        self.requests.expect().await
    }

    /// Sends the response head, if that has not been done. All that is sent to the client does it.
    pub fn respond(&mut self) -> &mut SendStream<Bytes> {
        self.respond_with("")
    }

    /// The same, and announces these features.
    pub fn respond_with(&mut self, features: &str) -> &mut SendStream<Bytes> {
        self.replies.get_or_insert_with(|| {
            let mut head = Response::builder().header("content-type", "application/grpc");
            if !features.is_empty() {
                head = head.header("gorums-features", features);
            }
            let head = head.body(()).expect("well-formed");
            let send = self.respond.send_response(head, false);
            send.expect("the stream is up")
        })
    }

    pub fn send_bytes(&mut self, bytes: impl Into<Bytes>) {
        let sent = self.respond().send_data(bytes.into(), false);
        sent.expect("the stream is up");
    }

    pub fn send(&mut self, envelope: &Envelope) {
        self.send_bytes(envelope.framed());
    }

    /// Answers the client's next message with itself.
    pub async fn echo(&mut self) -> Envelope {
        let request = self.request().await;
        self.send(&request);
        request
    }

    /// The same, and announces these features with the first answer.
    pub async fn echo_with(&mut self, features: &str) -> Envelope {
        let request = self.request().await;
        self.respond_with(features);
        self.send(&request);
        request
    }

    /// Ends the stream with trailers.
    pub fn end(&mut self, status: &str, message: &str) {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", status.parse().expect("ASCII"));
        trailers.insert("grpc-message", message.parse().expect("ASCII"));
        let sent = self.respond().send_trailers(trailers);
        sent.expect("the stream is up");
    }

    /// Answers with a head and nothing else.
    pub fn refuse(&mut self, head: Response<()>) {
        self.respond
            .send_response(head, true)
            .expect("the stream is up");
    }

    pub fn say(&self, goodbye: Goodbye) {
        self.goodbye.send(goodbye).expect("connected");
    }

    /// Waits until the client has closed the connection.
    pub async fn client_is_gone(&mut self) {
        self.requests.closed().await;
    }
}

/// A call that is answered with this number.
pub async fn answered(call: Unary<Number>, value: u64) {
    assert_eq!(within(call).await.expect("answered").value, value);
}

/// A call that fails, with what is known of it and this code.
pub async fn failed(call: Unary<Number>, outcome: Outcome, code: Code) -> NodeError {
    let error = within(call).await.expect_err("that was no answer");
    assert_eq!((error.outcome(), error.code()), (outcome, code), "{error}");
    error
}
