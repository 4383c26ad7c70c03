//! Clients that go on ever so slowly, or not at all, and answer pings all the same.

mod common;
#[path = "common/log.rs"]
mod log;
#[path = "common/memory.rs"]
mod memory;
#[path = "common/raw_client.rs"]
mod raw_client;
#[path = "common/wire.rs"]
mod wire;

use std::time::Duration;

use common::{TestServer, echo, number, within};
use gorums::bounds::{Bound, Reached};
use gorums::runtime::Transport;
use gorums::{Client, Code, Configuration};
use h2::Reason;
use http::Request;
use log::Log;
use memory::Network;
use raw_client::{RawClient, Stream, callable_request, stream_request};
use tokio::time::Instant;
use tracing::Level;
use wire::{ECHO, envelope_of_size};

const SECOND: Duration = Duration::from_secs(1);

/// In which a client has to go on.
const TIMEOUT: Duration = Duration::from_secs(10);

const KIB: usize = 1024;

struct Served {
    _server: TestServer,
    network: Network,
    reached: Reached,
}

impl Served {
    async fn start() -> Self {
        let network = Network::new();
        let builder = echo().transport(network.clone()).trust_claimed_ids(true);
        let server = builder.slow_peer_timeout(TIMEOUT).bind("a:1").await;
        let server = server.expect("it is free");
        let reached = server.reached();
        Self {
            _server: TestServer::of(server),
            network,
            reached,
        }
    }

    async fn client(&self) -> (RawClient, Stream) {
        self.opened(stream_request()).await
    }

    /// A client that has opened its stream with this.
    async fn opened(&self, request: Request<()>) -> (RawClient, Stream) {
        let io = self.network.connect("a:1").await.expect("it is up");
        let mut client = RawClient::over(io).await;
        let stream = client.open_with(request).await;
        (client, stream)
    }

    /// Others are served.
    async fn serves(&self) {
        let nodes = Configuration::builder()
            .transport(self.network.clone())
            .nodes(["a:1"])
            .connect()
            .expect("legal");
        let call = Client::new(&nodes).rpc::<_, common::Number>(&nodes[0], ECHO, number(7));
        assert_eq!(within(call).await.expect("it is up").value, 7);
    }
}

/// Sends these bytes in parts of this size, each a second after the one before.
async fn trickle(stream: &mut Stream, message: &[u8], part: usize) {
    for part in message.chunks(part) {
        stream.send_bytes(part.to_vec());
        tokio::time::sleep(SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_go_on_with_a_message_is_cut_off() {
    let log = Log::of(Level::WARN);
    for part in [0, 1, 1_000] {
        let served = Served::start().await;
        let (_client, mut stream) = served.client().await;
        stream.call(1).await;
        let message = envelope_of_size(2, ECHO, 1_000_000).framed();
        let began = Instant::now();
        // It is within the message from its first byte on.
        stream.send_bytes(message[..7].to_vec());
        if part > 0 {
            trickle(&mut stream, &message[7..7 + 9 * part], part).await;
        }
        let (code, text) = stream.status().await;
        assert_eq!(code, Code::DeadlineExceeded.number());
        assert!(text.contains("slow_peer_timeout"), "{text}");
        let lasted = began.elapsed();
        assert!(TIMEOUT <= lasted && lasted <= 2 * TIMEOUT, "{lasted:?}");
        assert_eq!(served.reached.count(Bound::SlowSender), 1);
        let told = log.told(&["gorums::server"]);
        assert!(
            told.iter().any(|line| line.contains("a client was cut off")
                && line.contains("has begun a message")),
            "{told:#?}"
        );
        served.serves().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_on_with_a_message_takes_the_time_that_it_needs() {
    let served = Served::start().await;
    let (_client, mut stream) = served.client().await;
    let message = envelope_of_size(1, ECHO, 50 * 8 * KIB).framed();
    let began = Instant::now();
    trickle(&mut stream, &message, 8 * KIB).await;
    assert!(began.elapsed() > 4 * TIMEOUT);
    assert!(stream.has_reply().await);
    assert_eq!(served.reached.count(Bound::SlowSender), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_is_cut_off() {
    let served = Served::start().await;
    let (client, mut stream) = served.client().await;
    stream.call(1).await;
    let began = Instant::now();
    for id in 2..10 {
        // More of them than its window takes.
        stream.send(&envelope_of_size(id, ECHO, 16 * KIB));
    }
    client.ended_for(Reason::ENHANCE_YOUR_CALM).await;
    let lasted = began.elapsed();
    assert!(TIMEOUT <= lasted && lasted <= 2 * TIMEOUT, "{lasted:?}");
    assert_eq!(served.reached.count(Bound::SlowReader), 1);
    served.serves().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_is_not() {
    let served = Served::start().await;
    let (_client, mut stream) = served.client().await;
    let count = 40;
    let each = 16 * KIB;
    stream.may_send(each).await;
    for id in 0..count {
        let message = envelope_of_size(id, ECHO, each);
        stream.may_send(each + 100).await;
        stream.send(&message);
    }
    let began = Instant::now();
    for _ in 0..count {
        tokio::time::sleep(SECOND).await;
        stream.reply().await;
    }
    assert!(began.elapsed() >= 4 * TIMEOUT);
    assert_eq!(served.reached.count(Bound::SlowReader), 0);
}

/// It may have the same disk.
#[tokio::test(start_paused = true)]
async fn a_node_that_is_believed_takes_the_time_that_it_takes() {
    let served = Served::start().await;
    let (mut client, mut stream) = served.opened(callable_request("7")).await;
    stream.call(1).await;
    for id in 2..10 {
        stream.send(&envelope_of_size(id, ECHO, 16 * KIB));
    }
    stream.send_bytes(envelope_of_size(10, ECHO, KIB).framed()[..100].to_vec());
    tokio::time::sleep(5 * TIMEOUT).await;
    client.ping().await;
    for bound in [Bound::SlowReader, Bound::SlowSender] {
        assert_eq!(served.reached.count(bound), 0, "{bound}");
    }
    assert!(stream.has_reply().await);
}
