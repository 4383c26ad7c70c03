//! Carries out the common commands, hands the program its own, and shows what came of them.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{fmt, io};

use gorums::{Configuration, ConfigurationError, Node, NodeError, NodeState, QuorumError};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::by_hand;
use super::command::{Action, Arg, Command, Spec};
use super::methods::Methods;
use super::replicas::{Condition, ReplicaError, Replicas};
use super::screen::{BAD, BOLD, GOOD, HELD, Screen, Table};
use super::{Program, ReplicaStore};

/// How long `nodes` waits for connections that are being made.
const CONNECTING: Duration = Duration::from_millis(300);

/// How long `stop` waits for this client to see that its connection is gone.
const NOTICING: Duration = Duration::from_secs(1);

/// A program, and the replicas that it has started, if any.
pub(super) struct Session<P: Program> {
    program: P,
    replicas: Option<Replicas<P>>,
    /// Those that can be called by hand. They are made once, since their names stay in memory.
    methods: Methods,
    /// How long a call by hand may take.
    timeout: Duration,
}

/// Why a command was not carried out.
#[derive(Debug)]
pub enum Failure {
    /// It failed. The text names who and why.
    Command(Box<dyn Error>),
    /// Its result could not be written.
    Output(io::Error),
}

/// Tells a command of Ctrl-C. One that waits for it is not given up then, and ends by itself, soon;
/// the second Ctrl-C gives it up.
#[derive(Debug)]
pub struct Interrupt(Arc<Pressed>);

/// What tells of it.
#[derive(Debug)]
pub(super) struct Press(Arc<Pressed>);

#[derive(Debug, Default)]
struct Pressed {
    awaited: AtomicBool,
    told: Notify,
}

impl Interrupt {
    /// An interrupt, and what tells of it.
    pub(super) fn new() -> (Press, Self) {
        let pressed = Arc::<Pressed>::default();
        (Press(Arc::clone(&pressed)), Self(pressed))
    }

    /// Completes at Ctrl-C, once.
    pub async fn pressed(&self) {
        self.0.awaited.store(true, Ordering::Relaxed);
        self.0.told.notified().await;
    }
}

impl Press {
    /// Tells of it. Whether somebody waits for that.
    pub(super) fn tell(self) -> bool {
        self.0.told.notify_one();
        self.0.awaited.load(Ordering::Relaxed)
    }
}

impl<P: Program> Session<P> {
    /// A session of this program, and with the replicas that it has started.
    pub(super) fn new(program: P, replicas: Option<Replicas<P>>, timeout: Duration) -> Self {
        Self {
            program,
            replicas,
            methods: Methods::of(P::DESCRIPTORS),
            timeout,
        }
    }

    /// The methods that can be called by hand.
    pub(super) fn methods(&self) -> &Methods {
        &self.methods
    }

    /// Where it shows what it has to show.
    pub(super) fn screen(&mut self) -> &mut Screen {
        self.program.screen()
    }

    /// Whether it has started processes.
    pub(super) fn has_processes(&self) -> bool {
        matches!(self.replicas, Some(Replicas::Processes(_)))
    }

    /// The nodes that it calls.
    pub(super) fn configuration(&self) -> Configuration {
        self.program.configuration()
    }

    /// Waits until what was sent to replicas of other processes has reached them, or that long, and
    /// ends those that this program has started.
    pub(super) async fn leave(self, limit: Duration) {
        let replicas = self.replicas.as_ref();
        if replicas.is_none_or(Replicas::outlive_messages) {
            let _ = timeout(limit, self.configuration().flush()).await;
        }
        if let Some(replicas) = self.replicas {
            replicas.end().await;
        }
    }

    /// Carries out a command. It may be given up at any time.
    pub(super) async fn run(
        &mut self,
        command: Command<P::Own>,
        interrupt: Interrupt,
    ) -> Result<(), Failure> {
        match command {
            Command::Nodes => self.nodes().await,
            Command::Replica { id, action } => self.replica(id, action).await,
            Command::Call(call) => {
                let configuration = self.configuration();
                let screen = self.program.screen();
                by_hand::call(&self.methods, &configuration, self.timeout, call, screen).await
            }
            Command::Clear => Ok(self.screen().clear()?),
            Command::Help(None) => Ok(self.screen().text(Overview(P::COMMANDS))?),
            Command::Help(Some(spec)) => Ok(self.screen().text(Page(spec))?),
            // There is nothing to carry out; whoever reads the commands stops reading.
            Command::Exit => Ok(()),
            Command::Own(command) => self.program.run(command, interrupt).await,
        }
    }

    async fn nodes(&mut self) -> Result<(), Failure> {
        let configuration = self.configuration();
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
                NodeState::Connecting | NodeState::Degraded => HELD,
                _ => BAD,
            };
            let latency = node.latency().map(|latency| format!("{latency:.1?}"));
            let error = node.last_error().or_else(|| node.degraded());
            let error = error.map(|error| error.to_string());
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
        self.screen().table(table)?;
        // What a replica has lost is no matter of its connection.
        for note in P::Store::notes(&configuration).await.into_values() {
            self.screen().result(note)?;
        }
        Ok(())
    }

    async fn replica(&mut self, id: u32, action: Action) -> Result<(), Failure> {
        let replicas = self.replicas.as_mut().ok_or(NotHere(P::NAME))?;
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
        Ok(self.screen().result(text)?)
    }

    /// Waits until this client knows that a replica is gone: the command after `stop` then finds it
    /// gone, and does not hand a message to a connection that is about to break.
    async fn notice(&self, id: u32) -> Result<(), Failure> {
        let node = self.node(id)?;
        let gone = async {
            // A connection that is being made may have been accepted before the replica was gone.
            while node.state().is_connected() || node.state() == NodeState::Connecting {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let _ = timeout(NOTICING, gone).await;
        Ok(())
    }

    fn node(&self, id: u32) -> Result<Node, ConfigurationError> {
        node(&self.configuration(), id)
    }
}

/// The node with this id.
///
/// # Errors
///
/// Where there is none.
pub fn node(configuration: &Configuration, id: u32) -> Result<Node, ConfigurationError> {
    let node = configuration.select([id])?;
    Ok(node[0].clone())
}

fn style_of(condition: Condition) -> anstyle::Style {
    match condition {
        Condition::Running {
            paused: false,
            delay: Duration::ZERO,
            trouble: None,
            ..
        } => anstyle::Style::new(),
        Condition::Running { .. } => HELD,
        Condition::Stopped | Condition::Failed | Condition::Ended(_) => BAD,
    }
}

/// What stops, starts and slows down replicas was asked of a session without any.
#[derive(Debug)]
struct NotHere(&'static str);

impl fmt::Display for NotHere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "this works only on replicas that this program has started, and these were not: \
             without --connect and --config, and with \"cluster\", {} starts replicas of its own",
            self.0
        )
    }
}

impl Error for NotHere {}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl Failure {
    /// It failed with this.
    pub fn of(error: impl Error + 'static) -> Self {
        Self::Command(Box::new(error))
    }
}

macro_rules! failures {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::of(error)
            }
        })*
    };
}

failures!(
    ConfigurationError,
    NodeError,
    QuorumError,
    NotHere,
    ReplicaError
);

/// The list of all commands.
struct Overview(&'static [Spec]);

impl fmt::Display for Overview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usages: Vec<_> = self.0.iter().map(short_usage).collect();
        let width = usages.iter().map(String::len).max().unwrap_or(0);
        for (spec, usage) in self.0.iter().zip(&usages) {
            writeln!(f, "{BOLD}{usage:width$}{BOLD:#}  {}", spec.summary)?;
        }
        // The one that needs it most.
        let example = self.0.iter().max_by_key(|spec| spec.details.len());
        let example = example.map_or("help", |spec| spec.name);
        write!(
            f,
            "\nA key or value with spaces is quoted, as in a shell: 'two words', \"two words\",\n\
             two\\ words; '' is an empty one. A word that starts with # begins a comment.\n\
             {BOLD}help {example}{BOLD:#} tells more of {example}, and so for every command."
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
            return match spec.operations(&[]).as_slice() {
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

/// All that `help` can show, without colours: what has to fit a terminal.
#[must_use]
pub fn help(commands: &'static [Spec]) -> Vec<String> {
    let pages = commands.iter().map(|spec| Page(spec).to_string());
    pages
        .chain([Overview(commands).to_string()])
        .map(|text| anstream::adapter::strip_str(&text).to_string())
        .collect()
}
