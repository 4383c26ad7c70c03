//! A node: what it is sent, and what it answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fmt, io};

use gorums::{Configuration, ConfigurationError, NodeId, Server, ServerError};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::kv::{Acceptor, Failure, Registers};
use crate::message::{Code, Message, Outbound, Refusal, object};
use crate::proto::acceptor_server::AcceptorServer;
use crate::proto::set_server::SetServer;
use crate::set::GrowingSet;
use crate::tunnel::{PORT, Tunnel};

/// The longest line that is read, in bytes.
const LINE: u64 = 16 << 20;

/// How many messages may wait for standard output.
const WAITING: usize = 1024;

/// How many requests are carried out at once. No more are read meanwhile.
const AT_ONCE: usize = 1024;

/// A node, from its `init` message to the end of its input.
///
/// # Errors
///
/// Where input or output fail, or `init` does not describe a system that can be.
pub async fn run(
    input: impl AsyncBufRead + Unpin,
    output: impl AsyncWrite + Send + Unpin + 'static,
) -> Result<(), RunError> {
    let (messages, waiting) = mpsc::channel(WAITING);
    let mut writing = tokio::spawn(write(output, waiting));
    let reading = read(input, messages);
    tokio::select! {
        done = reading => {
            // What was read is answered, also where a later line cannot be read.
            let written = written(writing.await);
            done.and(written)
        }
        ended = &mut writing => written(ended),
    }
}

fn written(ended: Result<io::Result<()>, tokio::task::JoinError>) -> Result<(), RunError> {
    ended.map_err(io::Error::other)?.map_err(RunError::from)
}

/// Writes messages, one in each line, until nobody has any.
async fn write(
    mut output: impl AsyncWrite + Unpin,
    mut waiting: mpsc::Receiver<Message>,
) -> io::Result<()> {
    while let Some(message) = waiting.recv().await {
        let mut line = serde_json::to_vec(&message)?;
        line.push(b'\n');
        output.write_all(&line).await?;
        if waiting.is_empty() {
            output.flush().await?;
        }
    }
    Ok(())
}

/// Reads messages, and answers them.
async fn read(
    mut input: impl AsyncBufRead + Unpin,
    messages: mpsc::Sender<Message>,
) -> Result<(), RunError> {
    let mut node = None;
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut line = Vec::new();
    loop {
        line.clear();
        (&mut input).take(LINE).read_until(b'\n', &mut line).await?;
        if line.is_empty() {
            return Ok(());
        }
        if line.len() as u64 == LINE {
            return Err(RunError::Line(format!("it is longer than {LINE} bytes")));
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let message: Message =
            serde_json::from_slice(&line).map_err(|error| RunError::Line(error.to_string()))?;
        match &node {
            None => node = begin(&message, &messages).await?,
            Some(node) if Tunnel::concerns(&message) => node.tunnel.deliver(&message).await,
            Some(node) => {
                let place = Arc::clone(&places).acquire_owned().await;
                let place = place.expect("nobody closes it");
                let node = Arc::clone(node);
                tokio::spawn(async move {
                    node.handle(&message).await;
                    drop(place);
                });
            }
        }
    }
}

/// Becomes the node that `init` describes, and says so. Whatever else comes before is refused.
async fn begin(
    message: &Message,
    messages: &mpsc::Sender<Message>,
) -> Result<Option<Arc<Node>>, RunError> {
    let outbound = Outbound::new(&message.dest, messages.clone());
    if Tunnel::concerns(message) {
        Tunnel::refuse(&outbound, message).await;
        return Ok(None);
    }
    if message.kind() != "init" {
        let refusal = Refusal::new(Code::TemporarilyUnavailable, "init has not come yet");
        outbound.answer(message, Err(refusal)).await;
        return Ok(None);
    }
    let names = message.body.get("node_ids").and_then(Value::as_array);
    let names: Option<Vec<_>> = names.and_then(|names| names.iter().map(Value::as_str).collect());
    let (Some(me), Some(names)) = (message.text("node_id"), names) else {
        return Err(RunError::Init("init needs node_id and node_ids"));
    };
    let outbound = Outbound::new(me, messages.clone());
    let node = Arc::new(Node::new(me, &names, outbound.clone()).await?);
    outbound.answer(message, Ok(reply("init_ok"))).await;
    Ok(Some(node))
}

/// A node of a system.
struct Node {
    outbound: Outbound,
    tunnel: Tunnel,
    set: GrowingSet,
    registers: Registers,
    /// The workload is broadcast: what a read without a key asks for is called `messages` there.
    broadcasts: AtomicBool,
    serving: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Node {
    async fn new(me: &str, names: &[&str], outbound: Outbound) -> Result<Self, RunError> {
        let place = names.iter().position(|name| *name == me);
        let place = place.ok_or(RunError::Init("node_id is not one of node_ids"))?;
        let id = |place: usize| u32::try_from(place + 1).map(NodeId::from);
        let too_many = |_| RunError::Init("there are too many nodes");
        let me_id = id(place).map_err(too_many)?;
        let tunnel = Tunnel::new(me, outbound.clone());
        let mut builder = Configuration::builder().transport(tunnel.clone());
        for (place, name) in names.iter().enumerate() {
            let id = id(place).map_err(too_many)?;
            builder = builder.node(id, format!("{name}:{PORT}"));
        }
        let nodes = builder.connect()?;
        let set = GrowingSet::new(me_id, &nodes);
        let server = Server::builder()
            .transport(tunnel.clone())
            .peers(me_id, &nodes)
            .add_service(SetServer::new(set.clone()))
            .add_service(AcceptorServer::new(Acceptor::default()))
            .bind(&format!("{me}:{PORT}"))
            .await?;
        Ok(Self {
            outbound,
            tunnel,
            set,
            registers: Registers::new(me_id, &nodes),
            broadcasts: AtomicBool::new(false),
            serving: tokio::spawn(server.serve()),
        })
    }

    async fn handle(&self, message: &Message) {
        // An answer to us is nothing to answer.
        if !message.body.contains_key("in_reply_to") {
            let answer = self.answer(message).await;
            self.outbound.answer(message, answer).await;
        }
    }

    async fn answer(&self, request: &Message) -> Result<Map<String, Value>, Refusal> {
        match request.kind() {
            "echo" => {
                let echo = request.field("echo")?;
                Ok(object(json!({"type": "echo_ok", "echo": echo})))
            }
            // Every node is everybody's neighbour: that way a message takes one step.
            "topology" => {
                self.broadcasts.store(true, Ordering::Relaxed);
                Ok(reply("topology_ok"))
            }
            "broadcast" => {
                self.set.add(request.field("message")?.to_string());
                Ok(reply("broadcast_ok"))
            }
            "add" => {
                self.set.add(request.field("element")?.to_string());
                Ok(reply("add_ok"))
            }
            "read" if request.body.contains_key("key") => self.read(request).await,
            "read" => self.read_set(),
            "write" => {
                let (key, value) = (request.field("key")?, request.field("value")?);
                let value = value.to_string();
                let write = |_: Option<&str>| (Some(value.clone()), ());
                self.change(key, write).await?;
                Ok(reply("write_ok"))
            }
            "cas" => self.compare_and_set(request).await,
            other => Err(Refusal::new(
                Code::NotSupported,
                format_args!("this node does not know {other:?}"),
            )),
        }
    }

    fn read_set(&self) -> Result<Map<String, Value>, Refusal> {
        let elements = self.set.elements_now();
        let elements = elements.iter().map(|element| parse(element));
        let elements: Vec<Value> = elements.collect::<Result<_, _>>()?;
        let name = match self.broadcasts.load(Ordering::Relaxed) {
            true => "messages",
            false => "value",
        };
        Ok(object(json!({"type": "read_ok", name: elements})))
    }

    async fn read(&self, request: &Message) -> Result<Map<String, Value>, Refusal> {
        let same = |value: Option<&str>| {
            let value = value.map(str::to_owned);
            (value.clone(), value)
        };
        let key = request.field("key")?;
        let value = self.change(key, same).await?;
        let value = value.ok_or_else(|| no_such(key))?;
        Ok(object(json!({"type": "read_ok", "value": parse(&value)?})))
    }

    async fn compare_and_set(&self, request: &Message) -> Result<Map<String, Value>, Refusal> {
        let key = request.field("key")?;
        let (from, to) = (request.field("from")?, request.field("to")?.to_string());
        let create = request.body.get("create_if_not_exists");
        let create = create.and_then(Value::as_bool).unwrap_or(false);
        let set = |value: Option<&str>| {
            // Two texts may be the same value.
            let found = value.map(|value| serde_json::from_str::<Value>(value).ok());
            let refused = match found {
                None if create => None,
                None => Some(no_such(key)),
                Some(found) if found.as_ref() == Some(from) => None,
                Some(_) => Some(Refusal::new(
                    Code::PreconditionFailed,
                    format_args!("expected {from}, but had {}", value.unwrap_or_default()),
                )),
            };
            let refused = refused.map(Arc::new);
            match refused {
                None => (Some(to.clone()), None),
                Some(refused) => (value.map(str::to_owned), Some(refused)),
            }
        };
        match self.change(key, set).await? {
            None => Ok(reply("cas_ok")),
            Some(refused) => Err(Refusal::new(refused.code, &refused.text)),
        }
    }

    async fn change<T: Clone>(
        &self,
        key: &Value,
        change: impl Fn(Option<&str>) -> (Option<String>, T),
    ) -> Result<T, Refusal> {
        let done = self.registers.change(&key.to_string(), change).await;
        done.map_err(|failure| match failure {
            Failure::NotDone => Refusal::new(
                Code::TemporarilyUnavailable,
                "no majority of the nodes answers, or others were quicker; nothing was done",
            ),
            Failure::Unknown => Refusal::new(
                Code::Timeout,
                "no majority of the nodes answers, or others were quicker; it may be done, now or later",
            ),
        })
    }
}

/// An answer that says no more than what kind it is.
fn reply(kind: &str) -> Map<String, Value> {
    object(json!({"type": kind}))
}

fn no_such(key: &Value) -> Refusal {
    Refusal::new(Code::KeyDoesNotExist, format_args!("there is no key {key}"))
}

/// A value that came as JSON.
fn parse(text: &str) -> Result<Value, Refusal> {
    serde_json::from_str(text).map_err(Refusal::malformed)
}

/// Why a node cannot go on.
#[derive(Debug)]
pub enum RunError {
    /// What it reads or writes has failed.
    Io(io::Error),
    /// A line is not a message.
    Line(String),
    /// The `init` message does not describe a node of a system.
    Init(&'static str),
    /// The nodes contradict each other.
    Configuration(ConfigurationError),
    /// It cannot serve.
    Server(ServerError),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Line(error) => write!(f, "a line is not a message of Maelstrom's: {error}"),
            Self::Init(error) => f.write_str(error),
            Self::Configuration(error) => write!(f, "init: {error}"),
            Self::Server(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RunError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Configuration(error) => Some(error),
            Self::Server(error) => Some(error),
            Self::Line(_) | Self::Init(_) => None,
        }
    }
}

impl From<io::Error> for RunError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<ConfigurationError> for RunError {
    fn from(error: ConfigurationError) -> Self {
        Self::Configuration(error)
    }
}

impl From<ServerError> for RunError {
    fn from(error: ServerError) -> Self {
        Self::Server(error)
    }
}
