//! Carries out commands and shows what came of them.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use gorums::{
    Configuration, ConfigurationError, Correction, Node, NodeError, NodeId, NodeState, QuorumCall,
    QuorumError,
};
use tokio::time::{sleep, timeout};

use crate::cli::command::{Action, Arg, COMMANDS, Command, Many, Rpc, Selection, Spec, Write};
use crate::cli::replicas::{Condition, ReplicaError, Replicas};
use crate::cli::screen::{BAD, BOLD, GOOD, HELD, Key, REMARK, Screen, Table};
use storage::client::{Client, newest, version};
use storage::proto::{ReadRequest, ReadResponse, WriteRequest, WriteResponse};
use storage::store::Time;

/// How long `nodes` waits for connections that are being made.
const CONNECTING: Duration = Duration::from_millis(300);

/// How long `stop` waits for this client to see that its connection is gone.
const NOTICING: Duration = Duration::from_secs(1);

/// A client of the replicas, and the replicas themselves where this program has started them.
pub(crate) struct Session {
    client: Client,
    replicas: Option<Replicas>,
    screen: Screen,
}

/// Why a command was not carried out.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It failed. The text names who and why.
    Command(Box<dyn Error>),
    /// Its result could not be written.
    Output(io::Error),
}

impl Session {
    /// A session of this client, and with the replicas that this program has started.
    pub(crate) fn new(client: Client, replicas: Option<Replicas>, screen: Screen) -> Self {
        Self {
            client,
            replicas,
            screen,
        }
    }

    /// Where it shows what it has to show.
    pub(crate) fn screen(&mut self) -> &mut Screen {
        &mut self.screen
    }

    /// Whether it has started processes.
    pub(crate) fn has_processes(&self) -> bool {
        matches!(self.replicas, Some(Replicas::Processes(_)))
    }

    /// The nodes that it calls.
    pub(crate) fn configuration(&self) -> &Configuration {
        self.client.storage().configuration()
    }

    /// Waits until what was sent to replicas of other processes has reached them, or that long, and ends those
    /// that this program has started.
    pub(crate) async fn leave(self, limit: Duration) {
        let replicas = self.replicas.as_ref();
        if replicas.is_none_or(Replicas::outlive_messages) {
            let _ = timeout(limit, self.configuration().flush()).await;
        }
        if let Some(replicas) = self.replicas {
            replicas.end().await;
        }
    }

    /// Carries out a command. It may be given up at any time.
    pub(crate) async fn run(&mut self, command: Command) -> Result<(), Failure> {
        match command {
            Command::Nodes => self.nodes().await,
            Command::Rpc { node, call } => self.rpc(node, call).await,
            Command::Unicast { node, write } => self.unicast(node, write).await,
            Command::Many { on, call } => self.many(on.as_ref(), call).await,
            Command::Replica { id, action } => self.replica(id, action).await,
            Command::Help(None) => Ok(self.screen.result(Overview)?),
            Command::Help(Some(spec)) => Ok(self.screen.result(Page(spec))?),
            // There is nothing to carry out; whoever reads the commands stops reading.
            Command::Exit => Ok(()),
        }
    }

    async fn nodes(&mut self) -> Result<(), Failure> {
        let configuration = self.configuration().clone();
        let connecting = |node: &Node| node.state() == NodeState::Connecting;
        if configuration.iter().any(connecting) {
            let _ = timeout(CONNECTING, configuration.connected(configuration.len())).await;
        }
        let mut headings = vec!["node", "address", "state", "latency", "last error"];
        if self.replicas.is_some() {
            headings.insert(4, "replica");
        }
        let mut table = Table::new(&headings);
        for node in &configuration {
            let plain = anstyle::Style::new();
            let state = node.state();
            let style = match state {
                NodeState::Connected => GOOD,
                NodeState::Connecting => HELD,
                _ => BAD,
            };
            let latency = node.latency().map(|latency| format!("{latency:.1?}"));
            let error = node.last_error().map(|error| error.to_string());
            let mut row = vec![
                (plain, node.id().to_string()),
                (plain, node.address().to_owned()),
                (style, state.to_string()),
                (plain, latency.unwrap_or_else(|| "-".to_owned())),
                (plain, error.unwrap_or_default()),
            ];
            if let Some(replicas) = &mut self.replicas
                && let Some(condition) = replicas.condition(node.id().get()).await
            {
                row.insert(4, (style_of(condition), condition.to_string()));
            }
            table.row(row);
        }
        Ok(self.screen.result(table)?)
    }

    async fn rpc(&mut self, id: u32, call: Rpc) -> Result<(), Failure> {
        let node = self.node(id)?;
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
        let node = self.node(id)?;
        let request = self.request(write);
        self.client.storage().write_unicast(&node, request).await?;
        Ok(self.screen.result(format_args!("sent to node {id}"))?)
    }

    async fn many(&mut self, on: Option<&Selection>, call: Many) -> Result<(), Failure> {
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
                self.read(&key, storage.read_qc(request)).await
            }
            Many::NestedRead(key) => {
                let request = ReadRequest { key: key.clone() };
                self.read(&key, storage.read_nested_qc(request)).await
            }
            Many::Write(write) => {
                let request = self.request(write);
                self.write(storage.write_qc(request)).await
            }
            Many::NestedWrite(write) => {
                let request = self.request(write);
                self.write(storage.write_nested_multicast(request)).await
            }
            Many::CorrectableRead(key) => {
                let request = ReadRequest { key: key.clone() };
                self.correctable_read(&key, storage.read_correctable(request))
                    .await
            }
            Many::Multicast(write) => {
                let request = self.request(write);
                let nodes = storage.configuration().len();
                storage.write_multicast(request).await.map_err(SentToSome)?;
                Ok(self
                    .screen
                    .result(format_args!("sent to {nodes} of {nodes}"))?)
            }
        }
    }

    /// The newest value of a majority.
    async fn read(
        &mut self,
        key: &str,
        call: QuorumCall<ReadRequest, ReadResponse>,
    ) -> Result<(), Failure> {
        let nodes = call.configuration().len();
        let replies = call.majority().replies().await?;
        let nothing = ReadResponse::default();
        let newest = newest(replies.values());
        let remark = format!("{} of {nodes} nodes answered", replies.len());
        let answer = Answer::new(key, newest.unwrap_or(&nothing), remark);
        Ok(self.screen.result(answer)?)
    }

    async fn write(
        &mut self,
        call: QuorumCall<WriteRequest, WriteResponse>,
    ) -> Result<(), Failure> {
        let nodes = call.configuration().len();
        let replies = call.majority().replies().await?;
        let newer = replies.iter().filter(|(_, response)| !response.new);
        let newer: Vec<_> = newer.map(|(node, _)| node).collect();
        let taken = replies.len() - newer.len();
        let written = Written {
            nodes,
            taken,
            newer,
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
        // The newest value so far, with its node and all that have answered; done when every node has.
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
            return Err(MajorityLost {
                nodes,
                answered,
                failures,
            }
            .into());
        }
        self.screen
            .result(format_args!("done: {answered} of {nodes} nodes answered"))?;
        for failure in failures {
            self.screen.message(format_args!("{failure}"));
        }
        Ok(())
    }

    async fn replica(&mut self, id: u32, action: Action) -> Result<(), Failure> {
        let replicas = self.replicas.as_mut().ok_or(NotHere)?;
        replicas.act(id, action).await?;
        let durable = replicas.are_durable();
        let text = match action {
            Action::Stop => {
                self.notice(id).await?;
                format!("replica {id} is stopped")
            }
            Action::Start if durable => {
                format!("replica {id} is running, with what it had on disk")
            }
            Action::Start => format!("replica {id} is running, and empty"),
            Action::Pause => format!("replica {id} is paused"),
            Action::Resume => format!("replica {id} goes on"),
            Action::Delay(Duration::ZERO) => format!("replica {id} answers at once"),
            Action::Delay(delay) => format!("replica {id} answers {} ms late", delay.as_millis()),
        };
        Ok(self.screen.result(text)?)
    }

    /// Waits until this client knows that a replica is gone: the command after `stop` then finds it
    /// gone, and does not hand a message to a connection that is about to break.
    async fn notice(&self, id: u32) -> Result<(), Failure> {
        let node = self.node(id)?;
        let gone = async {
            // A connection that is being made may have been accepted before the replica was gone.
            while matches!(node.state(), NodeState::Connected | NodeState::Connecting) {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let _ = timeout(NOTICING, gone).await;
        Ok(())
    }

    fn node(&self, id: u32) -> Result<Node, ConfigurationError> {
        let node = self.configuration().select([id])?;
        Ok(node[0].clone())
    }

    fn request(&mut self, write: Write) -> WriteRequest {
        self.client.request(write.key, write.value)
    }
}

fn style_of(condition: Condition) -> anstyle::Style {
    match condition {
        Condition::Running {
            paused: false,
            delay: Duration::ZERO,
            ..
        } => anstyle::Style::new(),
        Condition::Running { .. } => HELD,
        Condition::Stopped | Condition::Failed | Condition::Ended(_) => BAD,
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
    /// The nodes that have not, because they have a newer value.
    newer: Vec<NodeId>,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            nodes,
            taken,
            newer,
        } = self;
        match (taken, newer.as_slice()) {
            (_, []) => write!(f, "written to a majority ({taken} of {nodes} nodes)"),
            (0, _) => write!(
                f,
                "not written: all of the {} nodes that answered, of {nodes}, have a newer value",
                newer.len()
            ),
            (_, [node]) => write!(
                f,
                "written to {taken} of {nodes} nodes; node {node} has a newer value"
            ),
            (_, [first, rest @ ..]) => {
                write!(f, "written to {taken} of {nodes} nodes; nodes {first}")?;
                for node in rest {
                    write!(f, ", {node}")?;
                }
                f.write_str(" have a newer value")
            }
        }
    }
}

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

/// What stops, starts and slows down replicas was asked of a session without any.
#[derive(Debug)]
struct NotHere;

impl fmt::Display for NotHere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "this works only on replicas that this program has started, and these were not: \
             without --connect and --config, and with \"cluster\", storage starts replicas of its own",
        )
    }
}

impl Error for NotHere {}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

macro_rules! failures {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::Command(Box::new(error))
            }
        })*
    };
}

failures!(
    ConfigurationError,
    NodeError,
    QuorumError,
    SentToSome,
    MajorityLost,
    NotHere,
    ReplicaError
);

/// The list of all commands.
struct Overview;

impl fmt::Display for Overview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usages: Vec<_> = COMMANDS.iter().map(short_usage).collect();
        let width = usages.iter().map(String::len).max().unwrap_or(0);
        for (spec, usage) in COMMANDS.iter().zip(&usages) {
            writeln!(f, "{BOLD}{usage:width$}{BOLD:#}  {}", spec.summary)?;
        }
        write!(
            f,
            "\nA key or value with spaces is quoted, as in a shell: 'two words', \"two words\",\n\
             two\\ words; '' is an empty one. A word that starts with # begins a comment.\n\
             {BOLD}help qc{BOLD:#} tells more of qc, and so for every command."
        )
    }
}

/// All forms of a command in one line.
fn short_usage(spec: &Spec) -> String {
    let Some(first) = spec.forms.first() else {
        return spec.name.to_owned();
    };
    let has_operations = first.iter().any(|arg| matches!(arg, Arg::Word(_)));
    if !has_operations {
        return spec.usages().next().unwrap_or_default();
    }
    let mut usage = spec.name.to_owned();
    for arg in *first {
        if let Arg::Word(_) = arg {
            let operations: Vec<_> = spec.operations().collect();
            return match operations.as_slice() {
                // All of them would be too long a line.
                [first, second, third, _, _, _, ..] => {
                    format!("{usage} {first}|{second}|{third}|…")
                }
                operations => format!("{usage} {} …", operations.join("|")),
            };
        }
        usage.push_str(&format!(" {arg}"));
    }
    usage
}

/// All about one command.
struct Page(&'static Spec);

impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(spec) = self;
        for usage in spec.usages() {
            writeln!(f, "{BOLD}{usage}{BOLD:#}")?;
        }
        write!(f, "\n{}", spec.summary)?;
        if !spec.details.is_empty() {
            write!(f, "\n\n{}", spec.details)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_says_who_has_a_newer_value() {
        let written = |taken, newer: &[u32]| {
            let newer = newer.iter().map(|&id| NodeId::from(id)).collect();
            let nodes = 5;
            Written {
                nodes,
                taken,
                newer,
            }
            .to_string()
        };
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
    fn help_fits_a_terminal_of_80_columns() {
        let pages = COMMANDS.iter().map(|spec| Page(spec).to_string());
        for text in pages.chain([Overview.to_string()]) {
            let text = anstream::adapter::strip_str(&text).to_string();
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{line}");
            }
        }
    }
}
