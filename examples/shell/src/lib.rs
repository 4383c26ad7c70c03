//! A shell around a replicated service: it starts replicas, in its own process or in processes of
//! their own, connects a client to them, and carries out commands from a prompt, from a pipe or
//! from options. Replicas can be stopped, started, paused and slowed down meanwhile.
//!
//! The programs of the examples share it. A [`Program`] says what its replicas serve and which
//! commands it has, and [`run`] does the rest:
//!
//! - [`args`] holds the options of the command line, and [`command`] the commands and their table.
//! - [`replicas`] starts replicas and does things to them, and [`controlled`] is what those among them that
//!   are processes have to do with that.
//! - [`session`] carries out the common commands, and [`screen`] shows what came of them.

mod above;
pub mod args;
mod batch;
mod by_hand;
pub mod command;
pub mod controlled;
mod delay;
mod history;
mod methods;
mod prompt;
mod quiet;
pub mod replicas;
pub mod screen;
mod serve;
pub mod session;
mod tls;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gorums::tls::TlsError;
use gorums::{Configuration, ConfigurationBuilder, ConfigurationError, ServerError, Status};
use tokio::runtime::Runtime;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use self::args::{Calls, Client, Init, Mode, Target};
use self::batch::Line;
use self::command::{ByHand, Command, ParseError, Spec, Words, parse};
pub use self::delay::Delay;
use self::prompt::{Input, Prompt};
use self::quiet::Quiet;
use self::replicas::{Local, Plan, Processes, ReplicaError, Replicas, set_up_all};
use self::screen::{Notices, Screen};
use self::serve::ServeError;
use self::session::{Failure, Interrupt, Press, Session};
use self::tls::Security;

/// The exit status where a command failed.
const FAILED: u8 = 1;
/// The exit status where the options are wrong.
const WRONG_OPTIONS: u8 = 2;
/// The exit status where Ctrl-C has ended a command, as that of a process which it has killed.
const INTERRUPTED: u8 = 130;

/// How often a person is told how far the connections are.
const PROGRESS: Duration = Duration::from_millis(250);

/// How long the connections may take to end.
const LEAVING: Duration = Duration::from_secs(1);

/// A program: what its replicas serve, and what its client can be told.
pub trait Program: Sized + 'static {
    /// How it is called.
    const NAME: &'static str;
    /// The table of all commands, the common ones among them.
    const COMMANDS: &'static [Spec];
    /// The descriptors of what its replicas serve: what they tell by reflection, and what can be called
    /// by hand.
    const DESCRIPTORS: &'static [u8];

    /// How long calls of its client wait for another connection, where one breaks, as
    /// [`ConfigurationBuilder::sessions`] has it. None: it has no sessions.
    const SESSIONS: Option<Duration> = None;

    /// A command that only this program has.
    type Own: fmt::Debug + Clone + PartialEq + Eq;
    /// What a replica keeps.
    type Store: ReplicaStore;
    /// What its replicas serve.
    type Service: gorums::server::Service;

    /// Reads the words behind the name of one of its own commands.
    ///
    /// # Errors
    ///
    /// Where they are not those that the command has.
    fn parse(words: &mut Words) -> Result<Self::Own, ParseError>;

    /// The key that a command is about.
    fn key(command: &Self::Own) -> &str;

    /// What a replica with this store serves, answering so late.
    fn service(store: Arc<Self::Store>, delay: Delay) -> Self::Service;

    /// The program as a client of these replicas, with so much time for each command.
    fn client(configuration: Configuration, timeout: Duration, screen: Screen) -> Self;

    /// The replicas that it calls.
    fn configuration(&self) -> Configuration;

    /// Where it shows results.
    fn screen(&mut self) -> &mut Screen;

    /// Carries out one of its own commands. May be given up at any time, as it is at Ctrl-C where
    /// it does not wait for `interrupt`.
    fn run(
        &mut self,
        command: Self::Own,
        interrupt: Interrupt,
    ) -> impl Future<Output = Result<(), Failure>>;
}

/// What a replica keeps, in memory or in a directory.
///
/// One that keeps it in a directory is [set up](Self::set_up) once. So a replica that finds nothing
/// there knows that it has lost it, and gets it again from the others before it answers.
pub trait ReplicaStore: fmt::Debug + Send + Sync + Sized + 'static {
    /// Why a replica cannot have what it kept. Its text names the file or the directory.
    type OpenError: std::error::Error + Send + Sync + 'static;
    /// What others call who have lost what they kept.
    type Source: gorums::server::Service;

    /// The descriptors of that.
    const SOURCE_DESCRIPTORS: &'static [u8];

    /// The store of the replica with this id: in this directory, or else in memory. `replicas` is how
    /// many there are, this one among them, where it is told who the others are. One that is not told
    /// cannot ask anybody: it is taken for new, unless its directory says that it had data.
    ///
    /// # Errors
    ///
    /// Where the directory or what is in it cannot be used, or what was there is lost and there is
    /// nobody to ask.
    fn open(
        directory: Option<&Path>,
        id: u32,
        replicas: Option<usize>,
    ) -> Result<Self, Self::OpenError>;

    /// Whether a replica was set up in this directory.
    ///
    /// # Errors
    ///
    /// Where nobody can tell.
    fn is_set_up(directory: &Path, id: u32) -> Result<bool, Self::OpenError>;

    /// Notes that what a replica has in this directory, which may be nothing, is all that it ever
    /// acknowledged, and says so in words. With `accept_loss` also of one that has lost something.
    ///
    /// # Errors
    ///
    /// Where the directory or what is in it cannot be used, the replica runs, it was set up before,
    /// or it has lost something and that is not accepted.
    fn set_up(directory: &Path, id: u32, accept_loss: bool) -> Result<String, Self::OpenError>;

    /// What others call who have lost what they kept.
    fn source(self: &Arc<Self>) -> Self::Source;

    /// Completes when the replica has what it kept: at once, or when it has got it again from these
    /// others, which are all but itself. Tells how far it has come meanwhile.
    fn catch_up(
        self: Arc<Self>,
        others: Configuration,
        tell: impl FnMut(String) + Send,
    ) -> impl Future<Output = ()> + Send;

    /// Which of these replicas, which are all that there are, have lost what they kept, and how far
    /// they have come.
    fn notes(replicas: &Configuration) -> impl Future<Output = BTreeMap<u32, String>> + Send;

    /// Looks at all that the replica with this id keeps in this directory while it does not run, and
    /// changes nothing. What it has found, for the user.
    ///
    /// # Errors
    ///
    /// Where it is not whole, or cannot be looked at.
    fn verify(directory: &Path, id: u32) -> Result<String, Self::OpenError>;

    /// What is wrong with it now, if anything. Asked often, so that it has to be known already.
    fn trouble(&self) -> Option<Trouble>;

    /// Completes with the reason when nothing can be stored any more. The replica ends then.
    fn failed(&self) -> impl Future<Output = Status> + Send;

    /// Completes when everything that was written is where it shall be, and the store can be opened
    /// again.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// What is wrong with a store that can be used nevertheless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trouble {
    /// A few words of it, as in "its disk is full".
    pub text: &'static str,
    /// Whether requests are answered, if not all of them as one wishes.
    pub is_serving: bool,
}

/// Does what the options say, and returns the exit status.
pub fn run<P: Program>(mode: Option<Mode>, options: Client) -> ExitCode {
    let mut screen = Screen::standard();
    if let Err(error) = log_as_asked() {
        screen.message(format_args!(
            "warning: nothing is logged: RUST_LOG: {error}"
        ));
    }
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            screen.error(None, format_args!("the runtime cannot be started: {error}"));
            return FAILED.into();
        }
    };
    let code = match mode {
        Some(Mode::Serve(options)) => {
            match runtime.block_on(serve::serve::<P>(options, &mut screen)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    let code = match error {
                        ServeError::Peers(_)
                        | ServeError::Tls(_)
                        | ServeError::Server(ServerError::NotAPeer { .. }) => WRONG_OPTIONS,
                        _ => FAILED,
                    };
                    screen.error(None, error);
                    code.into()
                }
            }
        }
        Some(Mode::Cluster(options)) => {
            let plan = Plan {
                count: options.replicas,
                listen: options.listen,
                data: options.data,
            };
            client::<P>(&runtime, Start::Processes(plan), options.calls, screen)
        }
        Some(Mode::Init(options)) => {
            let Init {
                id,
                data,
                accept_loss,
            } = options;
            shown(P::Store::set_up(&data, id, accept_loss), screen)
        }
        Some(Mode::Call(options)) => by_hand::<P>(&runtime, options, screen),
        Some(Mode::Verify(options)) => {
            let verified = P::Store::verify(&options.data, options.id);
            let verified = verified.map(|found| format!("replica {}: {found}", options.id));
            shown(verified, screen)
        }
        None if options.target.tls.ca.is_some() && !options.target.is_given() => {
            screen.error(
                None,
                "--ca is for replicas elsewhere, with --connect or --config, and for serve: those that this \
                 process starts for itself have nothing to prove",
            );
            WRONG_OPTIONS.into()
        }
        None => {
            let start = match options.target.is_given() {
                true => Start::Nothing(options.target),
                false => Start::Local(options.replicas, options.data),
            };
            client::<P>(&runtime, start, options.calls, screen)
        }
    };
    // A host name that is still being looked up is not worth waiting for.
    runtime.shutdown_background();
    code
}

/// Writes what the library tells to standard error, as far as `RUST_LOG` asks for it.
fn log_as_asked() -> Result<(), Box<dyn std::error::Error>> {
    let asked = std::env::var("RUST_LOG").unwrap_or_default();
    if asked.is_empty() {
        return Ok(());
    }
    let events = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    let events = events.with_filter(asked.parse::<Targets>()?);
    tracing_subscriber::registry().with(events).try_init()?;
    Ok(())
}

/// What is to be started before there is something to talk to.
enum Start {
    /// The replicas run elsewhere.
    Nothing(Target),
    /// So many replicas in this process, and where they store.
    Local(u32, Option<PathBuf>),
    /// Replicas as processes of their own.
    Processes(Plan),
}

/// Shows what was done, or why it was not.
fn shown(done: Result<String, impl std::error::Error>, mut screen: Screen) -> ExitCode {
    let error = match done {
        Ok(text) => match screen.result(text) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => error.to_string(),
        },
        Err(error) => error.to_string(),
    };
    screen.error(None, error);
    FAILED.into()
}

/// Calls a method of one of the replicas that run elsewhere.
fn by_hand<P: Program>(runtime: &Runtime, options: args::Call, mut screen: Screen) -> ExitCode {
    if !options.target.is_given() {
        screen.error(
            None,
            "where are the replicas? --connect names their addresses, and --config a file with them",
        );
        return WRONG_OPTIONS.into();
    }
    let _inside = runtime.enter();
    let wait = options.target.wait;
    let configuration = match elsewhere::<P>(options.target) {
        Ok(configuration) => configuration,
        Err(error) => {
            screen.error(None, error);
            return WRONG_OPTIONS.into();
        }
    };
    let call = ByHand {
        node: options.node,
        method: options.method,
        json: options.json,
    };
    if let Ok(one) = configuration.select([call.node]) {
        // Where it is not there, the call says so.
        let _ = runtime.block_on(tokio::time::timeout(wait, one.connected(1)));
    }
    let program = P::client(configuration, options.timeout, screen);
    let mut session = Session::new(program, None, options.timeout);
    let (_, interrupt) = Interrupt::new();
    let called = runtime.block_on(session.run(Command::Call(call), interrupt));
    let code = match called {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads the replies has read enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => FAILED.into(),
        Err(Failure::Output(error)) => {
            session.screen().error(None, error);
            FAILED.into()
        }
        Err(Failure::Command(error)) => {
            session.screen().error(None, error);
            FAILED.into()
        }
    };
    runtime.block_on(session.leave(LEAVING));
    code
}

/// What every client of the program begins with.
fn builder<P: Program>() -> ConfigurationBuilder {
    let builder = Configuration::builder();
    match P::SESSIONS {
        Some(limit) => builder.sessions(limit),
        None => builder,
    }
}

/// A client of replicas that run elsewhere.
fn elsewhere<P: Program>(target: Target) -> Result<Configuration, StartError> {
    let security = Security::read(&target.tls).map_err(StartError::Tls)?;
    let builder = security.of_client(builder::<P>());
    let builder = match &target.config {
        Some(file) => builder.file(file)?,
        None => builder.addresses(target.connect),
    };
    Ok(builder.connect()?)
}

/// Carries out the commands that there are, or those that are typed.
fn client<P: Program>(
    runtime: &Runtime,
    start: Start,
    calls: Calls,
    mut screen: Screen,
) -> ExitCode {
    let _inside = runtime.enter();
    let notices = Notices::standard();
    let connected = runtime.block_on(connect::<P>(start, &notices, &mut screen));
    let (configuration, replicas) = match connected {
        Ok(connected) => connected,
        Err(error) => {
            let code = match error {
                StartError::Configuration(_) | StartError::Tls(_) => WRONG_OPTIONS,
                StartError::Replicas(_) => FAILED,
            };
            screen.error(None, error);
            return code.into();
        }
    };
    let program = P::client(configuration, calls.timeout, screen);
    let mut session = Session::new(program, replicas, calls.timeout);
    let done = if !calls.commands.is_empty() {
        carry_out(runtime, &mut session, batch::options(calls.commands))
    } else if !io::stdin().is_terminal() {
        carry_out(runtime, &mut session, batch::lines(io::stdin().lock()))
    } else {
        converse(runtime, &mut session, &notices)
    };
    let code = match done {
        Ok(code) => code,
        Err(error) => {
            // Whoever reads the results has read enough.
            if error.kind() != io::ErrorKind::BrokenPipe {
                session.screen().error(None, error);
            }
            FAILED.into()
        }
    };
    runtime.block_on(session.leave(LEAVING));
    code
}

/// Starts the replicas that are to be started, and connects to them or to those elsewhere.
async fn connect<P: Program>(
    start: Start,
    notices: &Notices,
    screen: &mut Screen,
) -> Result<(Configuration, Option<Replicas<P>>), StartError> {
    let replicas = match start {
        Start::Nothing(target) => {
            let wait = target.wait;
            let configuration = elsewhere::<P>(target)?;
            wait_for_majority(&configuration, wait, screen).await;
            return Ok((configuration, None));
        }
        Start::Local(count, data) => {
            set_up_all::<P::Store>(data.as_deref(), count)?;
            Replicas::Local(Local::start(count, data)?)
        }
        Start::Processes(plan) => {
            set_up_all::<P::Store>(plan.data.as_deref(), plan.count)?;
            Replicas::Processes(Processes::start(plan, notices.clone()).await?)
        }
    };
    let addresses = replicas.addresses().into_iter();
    let builder = addresses.fold(builder::<P>(), |builder, (id, address)| {
        builder.node(id, address.to_string())
    });
    Ok((builder.connect()?, Some(replicas)))
}

/// Waits until a majority of the replicas is connected, or that long: those that were started a
/// moment ago may not listen yet. Whom a call then does not reach, it names.
async fn wait_for_majority(configuration: &Configuration, limit: Duration, screen: &mut Screen) {
    let needed = configuration.len() / 2 + 1;
    let connected = || {
        let nodes = configuration.iter();
        let connected = nodes.filter(|node| node.state().is_connected());
        format!(
            "{} of {} replicas connected",
            connected.count(),
            configuration.len()
        )
    };
    let enough = configuration.connected(needed);
    let mut enough = std::pin::pin!(tokio::time::timeout(limit, enough));
    let mut ticks = tokio::time::interval(PROGRESS);
    // The first one comes at once.
    ticks.tick().await;
    let mut begun = false;
    let enough = loop {
        tokio::select! {
            biased;
            enough = &mut enough => break enough,
            _ = ticks.tick() => {
                begun = true;
                screen.progress(format_args!("{}, {needed} needed", connected()));
            }
        }
    };
    if begun {
        screen.end_progress();
    }
    if !matches!(enough, Ok(Ok(()))) && !limit.is_zero() {
        let limit = humantime::format_duration(limit);
        screen.message(format_args!(
            "{} after {limit}, {needed} needed",
            connected()
        ));
    }
}

/// Why there are no replicas to talk to.
#[derive(Debug)]
enum StartError {
    /// The options do not say which.
    Configuration(ConfigurationError),
    /// Those that are to be started cannot be.
    Replicas(ReplicaError),
    /// The files for TLS are not good.
    Tls(TlsError),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(error) => error.fmt(f),
            Self::Replicas(error) => write!(f, "the replicas cannot be started: {error}"),
            Self::Tls(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

impl From<ReplicaError> for StartError {
    fn from(error: ReplicaError) -> Self {
        Self::Replicas(error)
    }
}

impl From<ConfigurationError> for StartError {
    fn from(error: ConfigurationError) -> Self {
        Self::Configuration(error)
    }
}

/// Carries out one command after the other, also after one that failed.
fn carry_out<P: Program>(
    runtime: &Runtime,
    session: &mut Session<P>,
    lines: impl Iterator<Item = io::Result<Line>>,
) -> io::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    let running = Running::default();
    runtime.spawn(running.clone().end_at_ctrl_c());
    for line in lines {
        let Line { place, text } = line?;
        let parsed = text
            .map_err(|error| error.to_string())
            .and_then(|text| parse::<P>(&text).map_err(|error| error.to_string()));
        let command = match parsed {
            Ok(None) => continue,
            Ok(Some(Command::Exit)) => break,
            Ok(Some(command)) => command,
            Err(error) => {
                session.screen().error(Some(&place), error);
                code = FAILED.into();
                continue;
            }
        };
        let done = runtime.block_on(session.run(command, running.begin()));
        let interrupted = running.end();
        match done {
            Ok(()) => {}
            Err(Failure::Output(error)) => return Err(error),
            Err(Failure::Command(error)) => {
                session.screen().error(Some(&place), error);
                code = FAILED.into();
            }
        }
        if interrupted {
            return Ok(INTERRUPTED.into());
        }
    }
    Ok(code)
}

/// The command that is being carried out without a prompt, and what Ctrl-C is to it.
#[derive(Clone, Default)]
struct Running(Arc<Mutex<State>>);

#[derive(Default)]
enum State {
    /// There is no command.
    #[default]
    Nothing,
    /// There is one that can be told of Ctrl-C.
    Runs(Press),
    /// It has been told.
    Told,
}

impl Running {
    fn begin(&self) -> Interrupt {
        let (press, interrupt) = Interrupt::new();
        *self.lock() = State::Runs(press);
        interrupt
    }

    /// Whether Ctrl-C was pressed.
    fn end(&self) -> bool {
        matches!(std::mem::take(&mut *self.lock()), State::Told)
    }

    /// Ends the process at Ctrl-C, as it would end without this, unless there is a command that
    /// ends by itself then.
    async fn end_at_ctrl_c(self) {
        while tokio::signal::ctrl_c().await.is_ok() {
            let told = match std::mem::replace(&mut *self.lock(), State::Told) {
                State::Runs(press) => press.tell(),
                State::Nothing | State::Told => false,
            };
            if !told {
                std::process::exit(INTERRUPTED.into());
            }
        }
    }

    /// Whoever panics with it leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries out what a person types.
fn converse<P: Program>(
    runtime: &Runtime,
    session: &mut Session<P>,
    notices: &Notices,
) -> io::Result<ExitCode> {
    // From here on Ctrl-C kills no more, however soon after a line it comes.
    runtime.block_on(async {
        tokio::select! {
            biased;
            interrupted = tokio::signal::ctrl_c() => interrupted,
            () = std::future::ready(()) => Ok(()),
        }
    })?;
    let configuration = session.configuration();
    let ids = configuration.ids().map(|id| id.get());
    let names = session.methods().names();
    let prompt = Prompt::new(P::NAME, P::COMMANDS, ids, names);
    let (mut prompt, no_history) = prompt.map_err(io::Error::other)?;
    if session.has_processes() {
        notices.redirect(prompt.printer());
    }
    let count = session.configuration().len();
    session.screen().message(format_args!(
        "{count} {}; \"help\" lists the commands, Ctrl-D leaves",
        if count == 1 { "replica" } else { "replicas" },
    ));
    if let Some(why) = no_history {
        session.screen().message(why);
    }
    loop {
        let line = match prompt.read().map_err(io::Error::other)? {
            Input::Line(line) => line,
            Input::Encoding => {
                session.screen().error(None, "this is not UTF-8");
                continue;
            }
            Input::Interrupted => {
                session.screen().message("Ctrl-C again, or Ctrl-D, leaves");
                continue;
            }
            Input::End => return Ok(ExitCode::SUCCESS),
        };
        let command = match parse::<P>(&line) {
            Ok(None) => continue,
            Ok(Some(Command::Exit)) => return Ok(ExitCode::SUCCESS),
            Ok(Some(command)) => command,
            Err(error) => {
                session.screen().error(None, error);
                continue;
            }
        };
        if let Command::Own(command) = &command {
            prompt.remember(P::key(command));
        }
        let quiet = Quiet::new();
        let done = runtime.block_on(until_ctrl_c(session, command));
        drop(quiet);
        match done? {
            Some(Ok(())) => {}
            Some(Err(Failure::Output(error))) => return Err(error),
            Some(Err(Failure::Command(error))) => session.screen().error(None, error),
            None => {
                session.screen().end_progress();
                session.screen().message("given up");
            }
        }
    }
}

/// Carries out a command, up to Ctrl-C or, if the command ends by itself then, a second one. Nothing
/// comes of one that was given up.
async fn until_ctrl_c<P: Program>(
    session: &mut Session<P>,
    command: Command<P::Own>,
) -> io::Result<Option<Result<(), Failure>>> {
    let (press, interrupt) = Interrupt::new();
    let mut press = Some(press);
    let mut done = std::pin::pin!(session.run(command, interrupt));
    loop {
        tokio::select! {
            biased;
            interrupted = tokio::signal::ctrl_c() => interrupted?,
            done = &mut done => return Ok(Some(done)),
        }
        if !press.take().is_some_and(Press::tell) {
            return Ok(None);
        }
    }
}
