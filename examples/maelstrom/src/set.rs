//! A set that only grows. Every node has a copy; what a client adds at one is sent to the others
//! until each has it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gorums::{Configuration, Node, NodeId, ServerCtx, Status};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::proto::set_client::SetClient;
use crate::proto::{AddRequest, AddResponse, set_server};

/// How many elements a message takes at most.
const BATCH: usize = 1000;

/// How long a node may take to answer before it is asked again.
const PATIENCE: Duration = Duration::from_millis(500);

/// The pause after a node did not answer.
const PAUSE: Duration = Duration::from_millis(100);

/// The copy of a node. Clones are the same one.
#[derive(Debug, Clone)]
pub struct GrowingSet(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    elements: Mutex<BTreeSet<String>>,
    /// What clients added here, in order: this node sees to it that the others get it.
    added: watch::Sender<Vec<String>>,
}

impl GrowingSet {
    /// An empty one, that sends what is added here to these nodes, itself excepted.
    #[must_use]
    pub fn new(me: NodeId, nodes: &Configuration) -> Self {
        let set = Self(Arc::new(Inner {
            elements: Mutex::default(),
            added: watch::Sender::default(),
        }));
        for node in nodes.iter().filter(|node| node.id() != me) {
            let client = SetClient::new(nodes).with_timeout(PATIENCE);
            tokio::spawn(spread(client, node.clone(), set.0.added.subscribe()));
        }
        set
    }

    /// Adds an element. It reaches the other nodes sooner or later, and is there from now on.
    pub fn add(&self, element: String) {
        if self.elements().insert(element.clone()) {
            self.0.added.send_modify(|added| added.push(element));
        }
    }

    /// What is there now, in the order of the texts.
    #[must_use]
    pub fn elements_now(&self) -> Vec<String> {
        self.elements().iter().cloned().collect()
    }

    /// No code panics while it holds the lock.
    fn elements(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0
            .elements
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends a node what it has not acknowledged, until the set is gone. Adding twice is adding once,
/// so that it matters not whether a request without an answer has arrived.
async fn spread(client: SetClient, node: Node, mut added: watch::Receiver<Vec<String>>) {
    let mut acknowledged = 0;
    while added.wait_for(|all| acknowledged < all.len()).await.is_ok() {
        let elements: Vec<_> = {
            let all = added.borrow();
            all[acknowledged..].iter().take(BATCH).cloned().collect()
        };
        let count = elements.len();
        match client.add(&node, AddRequest { elements }).await {
            Ok(AddResponse {}) => acknowledged += count,
            Err(_) => sleep(PAUSE).await,
        }
    }
}

impl set_server::Set for GrowingSet {
    /// Takes what a client has added at another node, which sends it to all.
    async fn add(&self, _ctx: ServerCtx, request: AddRequest) -> Result<AddResponse, Status> {
        self.elements().extend(request.elements);
        Ok(AddResponse {})
    }
}
