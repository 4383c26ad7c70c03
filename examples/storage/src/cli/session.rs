//! Carries out commands and shows what came of them.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::client::{Client, newest, version};
use crate::proto::storage_client::StorageClient;
use crate::proto::storage_server::StorageServer;
use crate::proto::{FILE_DESCRIPTOR_SET, ReadRequest, ReadResponse, WriteRequest, WriteResponse};
use crate::rejoin::count_together;
use crate::service::Replica;
use crate::store::{Store, Time, Times};
use cluster_shell::command::{ParseError, Spec, Words, Write};
use cluster_shell::screen::{Key, REMARK, Screen};
use cluster_shell::session::{Failure, Interrupt, node};
use cluster_shell::{Delay, Program};
use gorums::call::{Correction, QuorumCall};
use gorums::{Configuration, NodeError, NodeId, QuorumError, Replies};
use prost::Message;

use crate::cli::command::{COMMANDS, Command, Many, Rpc, Selection};
use crate::cli::load;

/// How long nodes are waited for that a call does not need, where it is explained.
const OTHERS: Duration = Duration::from_secs(1);

/// This program: a client of the replicas.
pub struct Storage {
    client: Client,
    screen: Screen,
}

impl Program for Storage {
    const NAME: &'static str = "storage";
    const COMMANDS: &'static [Spec] = COMMANDS;
    const DESCRIPTORS: &'static [u8] = FILE_DESCRIPTOR_SET;
    const SESSIONS: Option<Duration> = Some(Duration::from_secs(30));

    type Own = Command;
    type Store = Store;
    type Service = StorageServer<Replica>;

    fn parse(words: &mut Words) -> Result<Command, ParseError> {
        Command::parse(words)
    }

    fn key(command: &Command) -> &str {
        command.key()
    }

    fn service(store: Arc<Store>, delay: Delay) -> Self::Service {
        StorageServer::new(Replica::new(store, delay))
    }

    fn client(configuration: Configuration, timeout: Duration, screen: Screen) -> Self {
        let storage = StorageClient::new(configuration).with_timeout(timeout);
        let client = Client::new(storage, Times::default());
        Self { client, screen }
    }

    fn configuration(&self) -> Configuration {
        self.client.storage().configuration()
    }

    fn screen(&mut self) -> &mut Screen {
        &mut self.screen
    }

    async fn run(&mut self, command: Command, interrupt: Interrupt) -> Result<(), Failure> {
        match command {
            Command::Rpc { node, call } => self.rpc(node, call).await,
            Command::Unicast { node, write } => self.unicast(node, write).await,
            Command::Many {
                on,
                call,
                explained,
            } => self.many(on.as_ref(), call, explained).await,
            Command::Load { in_flight, time } => {
                let storage = self.client.storage();
                let load = load::run(storage, in_flight, time, &mut self.screen, interrupt);
                let report = load.await?;
                Ok(self.screen.result(report)?)
            }
        }
    }
}

impl Storage {
    async fn rpc(&mut self, id: u32, call: Rpc) -> Result<(), Failure> {
        let node = node(&self.configuration(), id)?;
        match call {
            Rpc::Read(key) => {
                let request = ReadRequest { key: key.clone() };
                let response = self.client.storage().read_rpc(&node, request).await?;
                let remark = format!("node {id}");
                Ok(self.screen.result(Answer::new(&key, &response, remark))?)
            }
            Rpc::Write(write) => {
                let request = self.request(write);
                let response = self.client.storage().write_rpc(&node, request).await?;
                let text = match response.new {
                    true => format!("written to node {id}"),
                    false => format!("not written: node {id} has a newer value"),
                };
                Ok(self.screen.result(text)?)
            }
        }
    }

    async fn unicast(&mut self, id: u32, write: Write) -> Result<(), Failure> {
        let node = node(&self.configuration(), id)?;
        let request = self.request(write);
        self.client.storage().write_unicast(&node, request).await?;
        Ok(self.screen.result(format_args!("sent to node {id}"))?)
    }

    async fn many(
        &mut self,
        on: Option<&Selection>,
        call: Many,
        explained: bool,
    ) -> Result<(), Failure> {
        let storage = match on {
            None => self.client.storage().clone(),
            Some(selection) => {
                let all = self.configuration();
                let known: Vec<_> = all.ids().map(NodeId::get).collect();
                self.client.storage().on(all.select(selection.ids(&known))?)
            }
        };
        match call {
            Many::Read(key) => {
                let request = ReadRequest { key: key.clone() };
                self.read(&key, storage.read_qc(request), explained).await
            }
            Many::NestedRead(key) => {
                let request = ReadRequest { key: key.clone() };
                self.read(&key, storage.read_nested_qc(request), explained)
                    .await
            }
            Many::Write(write) => {
                let request = self.request(write);
                self.write(storage.write_qc(request), false, explained)
                    .await
            }
            Many::NestedWrite(write) => {
                let request = self.request(write);
                self.write(storage.write_nested_multicast(request), true, explained)
                    .await
            }
            Many::CorrectableRead(key) => {
                let request = ReadRequest { key: key.clone() };
                self.correctable_read(&key, storage.read_correctable(request))
                    .await
            }
            Many::Multicast(write) => {
                let request = self.request(write);
                let nodes = storage.configuration().len();
                storage
                    .write_multicast(request)
                    .await
                    .map_err(|error| Failure::of(SentToSome(error)))?;
                Ok(self
                    .screen
                    .result(format_args!("sent to {nodes} of {nodes}"))?)
            }
        }
    }

    /// The replies of a majority.
    async fn replies<Req: Message, Resp: Message + Default>(
        &mut self,
        call: QuorumCall<Req, Resp>,
        explained: bool,
    ) -> Result<Replies<Resp>, Failure> {
        let call = call.majority().replies();
        if !explained {
            return Ok(call.await?);
        }
        let explanation = call.explain().wait_for_others(OTHERS).await;
        self.screen.result(&explanation)?;
        Ok(explanation.result?)
    }

    /// The newest value of a majority.
    async fn read(
        &mut self,
        key: &str,
        call: QuorumCall<ReadRequest, ReadResponse>,
        explained: bool,
    ) -> Result<(), Failure> {
        let nodes = call.configuration().len();
        let replies = self.replies(call, explained).await?;
        let nothing = ReadResponse::default();
        let newest = newest(replies.values());
        let remark = format!("{} of {nodes} nodes answered", replies.len());
        let answer = Answer::new(key, newest.unwrap_or(&nothing), remark);
        Ok(self.screen.result(answer)?)
    }

    async fn write(
        &mut self,
        call: QuorumCall<WriteRequest, WriteResponse>,
        nested: bool,
        explained: bool,
    ) -> Result<(), Failure> {
        let nodes = call.configuration().len();
        let replies = self.replies(call, explained).await?;
        if !count_together(replies.values().map(|reply| reply.standing.as_ref())) {
            return Err(Failure::of(LostMeanwhile));
        }
        let newer = replies.iter().filter(|(_, response)| !response.new);
        let newer: Vec<_> = newer.map(|(node, _)| node).collect();
        let taken = replies.len() - newer.len();
        let written = Written {
            nodes,
            taken,
            newer,
            nested,
        };
        Ok(self.screen.result(written)?)
    }

    /// Shows each answer that is better than the one before.
    async fn correctable_read(
        &mut self,
        key: &str,
        call: QuorumCall<ReadRequest, ReadResponse>,
    ) -> Result<(), Failure> {
        let nodes = call.configuration().len();
        // The newest value so far, with its node and all that have answered; done when every node
        // has.
        let mut read = call.correctable_fn(move |_, replies| {
            let answered: BTreeSet<_> = replies.iter().map(|(node, _)| node).collect();
            let newest = replies.iter().max_by_key(|(_, reply)| version(reply));
            let newest = newest.map(|(node, reply)| (node, reply.clone()));
            let level = answered.len();
            ((newest, answered), level, level == nodes)
        });
        let mut shown = None;
        let mut failures = Vec::new();
        while let Some(answer) = read.changed().await {
            match answer {
                Ok(Correction { value, level, .. }) => {
                    // No answer at all is below one that says that there is nothing.
                    let newest = value.0.as_ref().map(|(_, reply)| version(reply));
                    if let Some((node, reply)) = value.0.as_ref().filter(|_| shown < newest) {
                        shown = newest;
                        let remark = format!("level {level} of {nodes}, node {node}");
                        self.screen.result(Answer::new(key, reply, remark))?;
                    }
                }
                Err(error) => failures = error.failures().to_vec(),
            }
        }
        let answered = read.level().unwrap_or(0);
        if let Some(Correction {
            value: (_, nodes), ..
        }) = read.latest()
        {
            // A node whose stream ends badly after an answer has answered all the same.
            failures.retain(|failure| !nodes.contains(&failure.node()));
        }
        if answered * 2 <= nodes {
            return Err(Failure::of(MajorityLost {
                nodes,
                answered,
                failures,
            }));
        }
        self.screen
            .result(format_args!("done: {answered} of {nodes} nodes answered"))?;
        for failure in failures {
            self.screen.message(format_args!("{failure}"));
        }
        Ok(())
    }

    fn request(&mut self, write: Write) -> WriteRequest {
        self.client.request(write.key, write.value)
    }
}

/// What a read came to.
struct Answer<'a> {
    key: Key<'a>,
    /// Value and time.
    found: Option<(&'a str, Time)>,
    remark: String,
}

impl<'a> Answer<'a> {
    fn new(key: &'a str, response: &'a ReadResponse, remark: String) -> Self {
        Self {
            key: Key(key),
            found: version(response).map(|time| (response.value.as_str(), time)),
            remark,
        }
    }
}

impl fmt::Display for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, found, remark } = self;
        match found {
            Some((value, time)) => {
                write!(f, "{key} = {value:?}  {REMARK}({time}, {remark}){REMARK:#}")
            }
            None => write!(f, "key {:?} not found  {REMARK}({remark}){REMARK:#}", key.0),
        }
    }
}

/// What a write came to.
struct Written {
    nodes: usize,
    /// How many have taken it.
    taken: usize,
    /// The nodes that have not, because they have a newer value, or have it from another node.
    newer: Vec<NodeId>,
    /// Nodes pass it on to each other, so that one may have it before it is asked.
    nested: bool,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            nodes,
            taken,
            newer,
            nested,
        } = self;
        let (not, already) = match nested {
            false => ("not written: ", ""),
            true => ("", "had it already, or "),
        };
        match (taken, newer.as_slice()) {
            (_, []) => write!(f, "written to a majority ({taken} of {nodes} nodes)"),
            (0, _) => write!(
                f,
                "{not}all of the {} nodes that answered, of {nodes}, {already}have a newer value",
                newer.len()
            ),
            (_, [node]) => write!(
                f,
                "written to {taken} of {nodes} nodes; node {node} {already}has a newer value"
            ),
            (_, [first, rest @ ..]) => {
                write!(f, "written to {taken} of {nodes} nodes; nodes {first}")?;
                for node in rest {
                    write!(f, ", {node}")?;
                }
                write!(f, " {already}have a newer value")
            }
        }
    }
}

/// A write of which one does not know whether a majority has it.
#[derive(Debug)]
struct LostMeanwhile;

impl fmt::Display for LostMeanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "perhaps not written: a replica that acknowledged it has lost its data meanwhile; write it again",
        )
    }
}

impl Error for LostMeanwhile {}

/// A multicast that did not reach all.
#[derive(Debug)]
struct SentToSome(QuorumError);

impl fmt::Display for SentToSome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sent to {} of {}", self.0.replies(), self.0.nodes())?;
        for failure in self.0.failures() {
            let (node, outcome) = (failure.node(), failure.outcome());
            write!(f, "; node {node}: {outcome}: {}", failure.status())?;
        }
        Ok(())
    }
}

impl Error for SentToSome {}

/// A correctable read that ended with the answers of fewer nodes than a majority.
#[derive(Debug)]
struct MajorityLost {
    nodes: usize,
    answered: usize,
    failures: Vec<NodeError>,
}

impl fmt::Display for MajorityLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            nodes, answered, ..
        } = self;
        let needed = nodes / 2 + 1;
        write!(
            f,
            "no majority: {answered} of {nodes} nodes answered, {needed} needed"
        )?;
        for failure in &self.failures {
            write!(f, "\n  {failure}")?;
        }
        Ok(())
    }
}

impl Error for MajorityLost {}

#[cfg(test)]
mod tests {
    use cluster_shell::session::help;

    use super::*;

    fn written(taken: usize, newer: &[u32], nested: bool) -> String {
        let newer = newer.iter().map(|&id| NodeId::from(id)).collect();
        let nodes = 5;
        Written {
            nodes,
            taken,
            newer,
            nested,
        }
        .to_string()
    }

    #[test]
    fn a_write_says_who_has_a_newer_value() {
        let written = |taken, newer: &[u32]| written(taken, newer, false);
        assert_eq!(written(3, &[]), "written to a majority (3 of 5 nodes)");
        assert_eq!(
            written(2, &[4]),
            "written to 2 of 5 nodes; node 4 has a newer value"
        );
        assert_eq!(
            written(1, &[4, 5]),
            "written to 1 of 5 nodes; nodes 4, 5 have a newer value"
        );
        assert_eq!(
            written(0, &[1, 4, 5]),
            "not written: all of the 3 nodes that answered, of 5, have a newer value"
        );
    }

    #[test]
    fn a_nested_write_says_nowhere_that_it_is_lost_where_nodes_have_it_from_each_other() {
        let written = |taken, newer: &[u32]| written(taken, newer, true);
        assert_eq!(written(3, &[]), "written to a majority (3 of 5 nodes)");
        assert_eq!(
            written(2, &[4]),
            "written to 2 of 5 nodes; node 4 had it already, or has a newer value"
        );
        assert_eq!(
            written(1, &[4, 5]),
            "written to 1 of 5 nodes; nodes 4, 5 had it already, or have a newer value"
        );
        assert_eq!(
            written(0, &[1, 4, 5]),
            "all of the 3 nodes that answered, of 5, had it already, or have a newer value"
        );
    }

    #[test]
    fn help_fits_a_terminal_of_80_columns() {
        for text in help(COMMANDS) {
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{line}");
            }
        }
    }
}
