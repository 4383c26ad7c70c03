//! Maelstrom's messages: one JSON object in each line.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

/// A message of the network.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Message {
    /// Who sends it.
    pub src: String,
    /// Whom it is for.
    pub dest: String,
    /// What it says. `type` says how to read the rest.
    pub body: Map<String, Value>,
}

/// Why a request is not answered with what it asked for, by Maelstrom's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Nobody knows whether it was or will be done.
    Timeout = 0,
    /// The node does not know such requests.
    NotSupported = 10,
    /// It cannot be done now, and was not.
    TemporarilyUnavailable = 11,
    /// It is not what such a request looks like.
    MalformedRequest = 12,
    /// There is no such key.
    KeyDoesNotExist = 20,
    /// The key has another value than was expected.
    PreconditionFailed = 22,
}

/// An answer that says why there is none.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) text: String,
}

impl Refusal {
    pub(crate) fn new(code: Code, text: impl fmt::Display) -> Self {
        let text = text.to_string();
        Self { code, text }
    }

    pub(crate) fn malformed(text: impl fmt::Display) -> Self {
        Self::new(Code::MalformedRequest, text)
    }
}

impl Message {
    /// The text of a field.
    pub(crate) fn text(&self, field: &str) -> Option<&str> {
        self.body.get(field)?.as_str()
    }

    /// What kind of message it is; empty where it does not say.
    pub(crate) fn kind(&self) -> &str {
        self.text("type").unwrap_or_default()
    }

    /// A field that a request of this kind has.
    pub(crate) fn field(&self, field: &str) -> Result<&Value, Refusal> {
        let value = self.body.get(field);
        value.ok_or_else(|| Refusal::malformed(format_args!("{} needs {field:?}", self.kind())))
    }
}

/// The way to the other nodes and to Maelstrom's clients.
#[derive(Debug, Clone)]
pub(crate) struct Outbound {
    me: Arc<str>,
    messages: mpsc::Sender<Message>,
}

impl Outbound {
    pub(crate) fn new(me: &str, messages: mpsc::Sender<Message>) -> Self {
        let me = me.into();
        Self { me, messages }
    }

    /// Sends a message. Waits while standard output is behind; after its end, nobody misses the
    /// message.
    pub(crate) async fn send(&self, dest: &str, body: Map<String, Value>) {
        let message = Message {
            src: self.me.to_string(),
            dest: dest.to_owned(),
            body,
        };
        let _ = self.messages.send(message).await;
    }

    /// Answers a request. One without an id does not want that.
    pub(crate) async fn answer(
        &self,
        request: &Message,
        answer: Result<Map<String, Value>, Refusal>,
    ) {
        let Some(id) = request.body.get("msg_id") else {
            return;
        };
        let mut body = answer.unwrap_or_else(|Refusal { code, text }| {
            object(json!({"type": "error", "code": code as u32, "text": text}))
        });
        body.insert("in_reply_to".to_owned(), id.clone());
        self.send(&request.src, body).await;
    }
}

/// The fields of a JSON object.
pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        other => Map::from_iter([("value".to_owned(), other)]),
    }
}
