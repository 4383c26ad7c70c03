//! Maelstrom's side of the protocol: messages between nodes and clients, as its documentation says.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use maelstrom::{Message, RunError};
use serde_json::{Map, Value};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, duplex};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Longer than any request takes on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Nodes that were told who they are, and the network between them.
pub(crate) struct Workbench {
    pub(crate) network: Network,
    count: usize,
}

impl Workbench {
    pub(crate) async fn start(count: usize) -> Self {
        let network = Network::new();
        let bench = Self { network, count };
        for node in bench.nodes() {
            bench.network.add_node(&node);
        }
        let nodes = bench.nodes();
        for node in &nodes {
            let init = serde_json::json!({"type": "init", "node_id": node, "node_ids": nodes});
            assert_eq!(bench.ask(node, init).await["type"], "init_ok");
        }
        bench
    }

    pub(crate) fn nodes(&self) -> Vec<String> {
        (1..=self.count).map(|node| format!("n{node}")).collect()
    }

    pub(crate) async fn ask(&self, node: &str, request: Value) -> Map<String, Value> {
        self.network.ask(node, request).await
    }
}

/// Clones are the same network.
#[derive(Clone)]
pub(crate) struct Network(Arc<Shared>);

struct Shared {
    nodes: Mutex<HashMap<String, mpsc::UnboundedSender<Message>>>,
    waiting: Mutex<HashMap<String, oneshot::Sender<Map<String, Value>>>>,
    clients: AtomicU64,
    weather: Mutex<Weather>,
}

/// What the network does to messages between nodes. Those of clients always arrive, as with
/// Maelstrom.
#[derive(Default)]
struct Weather {
    /// The part of the system in which each node is.
    parts: BTreeMap<String, usize>,
    loss: f64,
    delay: Duration,
    lost: u64,
    overtaken: u64,
    sent: u64,
    newest: u64,
}

impl Network {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            nodes: Mutex::default(),
            waiting: Mutex::default(),
            clients: AtomicU64::new(1),
            weather: Mutex::default(),
        }))
    }

    /// Starts a node, whose standard input and output are pipes of this process.
    pub(crate) fn add_node(&self, name: &str) -> JoinHandle<Result<(), RunError>> {
        let (input, mut to_node) = duplex(1 << 20);
        let (output, from_node) = duplex(1 << 20);
        let (sender, mut messages) = mpsc::unbounded_channel::<Message>();
        self.0
            .nodes
            .lock()
            .expect("no panic")
            .insert(name.to_owned(), sender);
        tokio::spawn(async move {
            while let Some(message) = messages.recv().await {
                let mut line = serde_json::to_vec(&message).expect("it is JSON");
                line.push(b'\n');
                if to_node.write_all(&line).await.is_err() {
                    break;
                }
            }
        });
        let network = self.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(from_node).lines();
            while let Some(line) = lines.next_line().await.expect("it is text") {
                network.route(serde_json::from_str(&line).expect("it is a message"));
            }
        });
        tokio::spawn(maelstrom::run(BufReader::new(input), output))
    }

    fn route(&self, message: Message) {
        if message.dest.starts_with('c') {
            let waiting = self.waiting().remove(&message.dest);
            let waiting = waiting.expect("clients ask once");
            let _ = waiting.send(message.body);
            return;
        }
        let mut weather = self.weather();
        let cut = weather.parts.get(&message.src) != weather.parts.get(&message.dest);
        if cut || fastrand::f64() < weather.loss {
            weather.lost += 1;
            return;
        }
        if weather.delay.is_zero() {
            drop(weather);
            return self.deliver(message);
        }
        weather.sent += 1;
        let (number, delay) = (weather.sent, weather.delay.mul_f64(fastrand::f64()));
        let network = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            {
                let mut weather = network.weather();
                weather.overtaken += u64::from(number < weather.newest);
                weather.newest = weather.newest.max(number);
            }
            network.deliver(message);
        });
    }

    fn deliver(&self, message: Message) {
        let nodes = self.0.nodes.lock().expect("no panic");
        // One that has ended reads no more.
        let _ = nodes.get(&message.dest).map(|node| node.send(message));
    }

    pub(crate) fn send(&self, node: &str, body: Value) {
        self.deliver(Message {
            src: "c0".to_owned(),
            dest: node.to_owned(),
            body: body.as_object().expect("an object").clone(),
        });
    }

    /// Asks a node as a client of its own, and waits for the answer.
    pub(crate) async fn ask(&self, node: &str, mut request: Value) -> Map<String, Value> {
        let client = format!("c{}", self.0.clients.fetch_add(1, Ordering::Relaxed));
        request["msg_id"] = 1.into();
        let (sender, answer) = oneshot::channel();
        self.waiting().insert(client.clone(), sender);
        self.deliver(Message {
            src: client,
            dest: node.to_owned(),
            body: request.as_object().expect("an object").clone(),
        });
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        let answer = answer
            .expect("it is answered")
            .expect("the network is there");
        assert_eq!(answer["in_reply_to"], 1, "{answer:?}");
        answer
    }

    /// From now on messages arrive in the part of the system from which they come.
    pub(crate) fn partition(&self, parts: &[&[&str]]) {
        let parts = parts.iter().enumerate();
        let parts = parts.flat_map(|(part, nodes)| nodes.iter().map(move |node| (node, part)));
        self.weather().parts = parts
            .map(|(node, part)| ((*node).to_owned(), part))
            .collect();
    }

    pub(crate) fn heal(&self) {
        self.weather().parts.clear();
    }

    /// Loses so much of what nodes send to each other.
    pub(crate) fn lose_between_nodes(&self, part: f64) {
        self.weather().loss = part;
    }

    /// Delivers each message up to so late, and so in another order.
    pub(crate) fn delay_between_nodes(&self, delay: Duration) {
        self.weather().delay = delay;
    }

    pub(crate) fn lost(&self) -> u64 {
        self.weather().lost
    }

    /// How many messages came behind one that was sent later.
    pub(crate) fn overtaken(&self) -> u64 {
        self.weather().overtaken
    }

    fn weather(&self) -> MutexGuard<'_, Weather> {
        self.0.weather.lock().expect("no panic")
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Map<String, Value>>>> {
        self.0.waiting.lock().expect("no panic")
    }
}
