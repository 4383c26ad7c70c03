//! Calls of servers to their clients, as either side has them on the wire.

use gorums::call::Rpc;
use gorums::server::Clients;
use gorums::{Client, Code, Configuration, Outcome};
use tokio::task::JoinHandle;

use crate::common::{Number, TestServer, echo, number, within};
use crate::raw_client::{RawClient, Stream, callable_request};
use crate::raw_server::{RawServer, answered, failed};
use crate::wire::{ECHO, HIGH_BIT, envelope, envelope_of_size};

/// A server that calls its only client.
struct Caller {
    clients: Clients,
    client: Client,
    /// The connection lives as long as this.
    _connected: RawClient,
    serving: JoinHandle<()>,
}

impl Caller {
    /// A server, and the stream of a client that can be called.
    async fn called() -> (Self, Stream) {
        let server = echo().bind("127.0.0.1:0").await.expect("a free port");
        let (addr, clients) = (server.local_addr(), server.clients());
        let addr = addr.socket_addr().expect("it has one");
        let serving = tokio::spawn(server.serve());
        let mut connected = RawClient::connect(addr).await;
        let stream = connected.open_with(callable_request("0")).await;
        let config = within(clients.wait_for(|clients| clients.len() == 1))
            .await
            .expect("it serves");
        let caller = Self {
            clients,
            client: Client::new(&config),
            _connected: connected,
            serving,
        };
        (caller, stream)
    }

    fn rpc(&self) -> Rpc<Number, Number> {
        let node = self.client.configuration()[0].clone();
        self.client.rpc(&node, ECHO, number(5))
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[tokio::test]
async fn ids_with_the_high_bit_are_absorbed_from_clients_that_can_be_called() {
    let server = TestServer::start(echo()).await;
    for node_id in ["0", "3", "abc"] {
        let mut client = RawClient::connect(server.addr).await;
        let mut stream = client.open_with(callable_request(node_id)).await;
        stream.send(&envelope(HIGH_BIT | 1, ECHO, 1));
        stream.call(2).await;
    }
}

#[tokio::test]
async fn a_call_to_a_client_has_the_high_bit_and_its_reply_may_be_late_wrong_or_broken() {
    let (server, mut stream) = Caller::called().await;
    let call = server.rpc().metadata("key", "value").send();
    let asked = stream.reply().await;
    assert!(asked.id & HIGH_BIT != 0, "{asked:?}");
    assert_eq!((asked.method.as_str(), asked.number()), (ECHO, 5));
    assert_eq!(asked.entries.len(), 1);
    // A request of the client's own with the same number, and replies to calls that nobody made.
    stream.call(asked.id & !HIGH_BIT).await;
    stream.send(&envelope(u64::MAX, ECHO, 1));
    stream.send(&envelope(HIGH_BIT, ECHO, 1));
    stream.send(&envelope(asked.id, ECHO, 6));
    answered(call, 6).await;
    stream.send(&envelope(asked.id, ECHO, 7));

    let call = server.rpc().send();
    let asked = stream.reply().await;
    stream.send(&envelope(asked.id, "test.Test.Other", 1));
    failed(call, Outcome::Unknown, Code::Internal).await;

    let call = server.rpc().send();
    let asked = stream.reply().await;
    stream.send(&envelope_of_size(asked.id, ECHO, 5 << 20));
    failed(call, Outcome::Unknown, Code::ResourceExhausted).await;
    stream.call(9).await;

    let call = server.rpc().send();
    stream.reply().await;
    stream.half_close();
    failed(call, Outcome::Unknown, Code::Unavailable).await;
    assert!(server.clients.config().is_empty());
}

#[tokio::test]
async fn the_last_bytes_of_a_client_that_leaves_still_answer() {
    let (server, mut stream) = Caller::called().await;
    let call = server.rpc().send();
    let asked = stream.reply().await;
    stream.send(&envelope(asked.id, ECHO, 6));
    stream.reset();
    // Whichever comes first to the server, it does not wait.
    match within(call).await {
        Ok(reply) => assert_eq!(reply.value, 6),
        Err(error) => assert_eq!(error.code(), Code::Unavailable),
    }
    within(server.clients.wait_for(Configuration::is_empty))
        .await
        .expect("it serves");
}

#[tokio::test]
async fn a_client_that_can_be_called_says_so_and_answers_with_the_id_of_the_request() {
    let server = RawServer::start_with(|builder| builder.serve(echo())).await;
    let mut peer = server.accept().await;
    assert_eq!(peer.head.headers["gorums-node-id"], "0");
    for id in [HIGH_BIT, HIGH_BIT | 1, u64::MAX] {
        peer.send(&envelope(id, ECHO, 8));
        let answer = peer.request().await;
        assert_eq!(
            (answer.id, answer.method.as_str(), answer.number()),
            (id, ECHO, 8)
        );
        assert_eq!(answer.entries, []);
    }
    // One that this client made may have the same number.
    let call = server.call(1);
    let asked = peer.request().await;
    peer.send(&envelope(asked.id | HIGH_BIT, ECHO, 3));
    assert_eq!(peer.request().await.number(), 3);
    peer.send(&asked);
    answered(call, 1).await;
    // Too large to be read, and yet answered.
    peer.send(&envelope_of_size(HIGH_BIT | 9, ECHO, 5 << 20));
    let answer = peer.request().await;
    assert_eq!((answer.id, answer.error().0), (HIGH_BIT | 9, 8));
}

#[tokio::test]
async fn a_peer_says_who_it_is_also_on_connections_that_it_had() {
    let server = RawServer::start().await;
    let peer = server.accept().await;
    assert!(peer.head.headers.get("gorums-node-id").is_none());
    let other = Configuration::builder()
        .node(7, "127.0.0.1:1")
        .connect()
        .expect("legal");
    let peers = server
        .client()
        .configuration()
        .with(&other[0])
        .expect("two ids");
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
async fn a_call_by_the_server_is_unimplemented_and_the_stream_goes_on() {
    let server = RawServer::start().await;
    let mut peer = server.accept().await;
    for id in [HIGH_BIT | 1, u64::MAX] {
        peer.send(&envelope(id, "test.Test.Back", 1));
        let answer = peer.request().await;
        assert_eq!((answer.id, answer.method.as_str()), (id, "test.Test.Back"));
        let message = "no handler registered for method test.Test.Back";
        assert_eq!(answer.error(), (12, message));
    }
    let call = server.call(1);
    peer.echo().await;
    answered(call, 1).await;
}
