//! What the program does: replicas, a client of them, and a prompt to try both out.

mod args;
mod batch;
mod cluster;
mod command;
mod pause;
mod prompt;
mod screen;
mod serve;
mod session;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use gorums::{Configuration, ConfigurationError, ServerError};
use tokio::runtime::Runtime;

use crate::cli::args::{Cli, Client, Mode};
use crate::cli::batch::Line;
use crate::cli::cluster::{Cluster, ReplicaError};
use crate::cli::command::Command;
use crate::cli::prompt::{Input, Prompt};
use crate::cli::screen::Screen;
use crate::cli::serve::ServeError;
use crate::cli::session::{Failure, Session};
use storage::proto::storage_client::StorageClient;
use storage::store::Times;

/// The exit status where a command failed.
const FAILED: u8 = 1;
/// The exit status where the options are wrong.
const WRONG_OPTIONS: u8 = 2;

/// How long the connections may take to end.
const LEAVING: Duration = Duration::from_secs(1);

/// Runs the program with the options of its command line.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut screen = Screen::standard();
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            screen.error(None, format_args!("the runtime cannot be started: {error}"));
            return FAILED.into();
        }
    };
    let code = match cli.mode {
        Some(Mode::Serve(options)) => match runtime.block_on(serve::serve(options, &mut screen)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let code = match error {
                    ServeError::Peers(_) | ServeError::Server(ServerError::NotAPeer { .. }) => {
                        WRONG_OPTIONS
                    }
                    _ => FAILED,
                };
                screen.error(None, error);
                code.into()
            }
        },
        None => client(&runtime, cli.client, screen),
    };
    // A host name that is still being looked up is not worth waiting for.
    runtime.shutdown_background();
    code
}

/// Carries out the commands that there are, or those that are typed.
fn client(runtime: &Runtime, options: Client, mut screen: Screen) -> ExitCode {
    let _inside = runtime.enter();
    let (configuration, cluster) = match connect(&options) {
        Ok(connected) => connected,
        Err(error) => {
            let code = match error {
                StartError::Configuration(_) => WRONG_OPTIONS,
                StartError::Replicas(_) => FAILED,
            };
            screen.error(None, error);
            return code.into();
        }
    };
    let storage = StorageClient::new(configuration).with_timeout(options.timeout);
    let client = storage::client::Client::new(storage, Times::default());
    let mut session = Session::new(client, cluster, screen);
    let done = if !options.commands.is_empty() {
        carry_out(runtime, &mut session, batch::options(options.commands))
    } else if !io::stdin().is_terminal() {
        carry_out(runtime, &mut session, batch::lines(io::stdin().lock()))
    } else {
        converse(runtime, &mut session)
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

/// Connects to the replicas, and starts those that are to be in this process.
fn connect(options: &Client) -> Result<(Configuration, Option<Cluster>), StartError> {
    let mut builder = Configuration::builder();
    if let Some(file) = &options.config {
        return Ok((builder.file(file)?.connect()?, None));
    }
    if options.connect.is_empty() {
        let cluster =
            Cluster::start(options.replicas, options.data.clone()).map_err(StartError::Replicas)?;
        for (id, address) in cluster.addresses() {
            builder = builder.node(id, address.to_string());
        }
        return Ok((builder.connect()?, Some(cluster)));
    }
    builder = builder.addresses(options.connect.iter().cloned());
    Ok((builder.connect()?, None))
}

/// Why there are no replicas to talk to.
#[derive(Debug)]
enum StartError {
    /// The options do not say which.
    Configuration(ConfigurationError),
    /// Those of this process cannot be started.
    Replicas(ReplicaError),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Configuration(error) => error.fmt(f),
            Self::Replicas(error) => write!(f, "the replicas cannot be started: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<ConfigurationError> for StartError {
    fn from(error: ConfigurationError) -> Self {
        Self::Configuration(error)
    }
}

/// Carries out one command after the other, also after one that failed.
fn carry_out(
    runtime: &Runtime,
    session: &mut Session,
    lines: impl Iterator<Item = io::Result<Line>>,
) -> io::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for line in lines {
        let Line { place, text } = line?;
        let parsed = text
            .map_err(|error| error.to_string())
            .and_then(|text| Command::parse(&text).map_err(|error| error.to_string()));
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
        match runtime.block_on(session.run(command)) {
            Ok(()) => {}
            Err(Failure::Output(error)) => return Err(error),
            Err(Failure::Command(error)) => {
                session.screen().error(Some(&place), error);
                code = FAILED.into();
            }
        }
    }
    Ok(code)
}

/// Carries out what a person types.
fn converse(runtime: &Runtime, session: &mut Session) -> io::Result<ExitCode> {
    // From here on Ctrl-C kills no more, however soon after a line it comes.
    runtime.block_on(async {
        tokio::select! {
            biased;
            interrupted = tokio::signal::ctrl_c() => interrupted,
            () = std::future::ready(()) => Ok(()),
        }
    })?;
    let ids = session.configuration().ids().map(|id| id.get());
    let mut prompt = Prompt::new(ids).map_err(io::Error::other)?;
    let count = session.configuration().len();
    session.screen().message(format_args!(
        "{count} {}; \"help\" lists the commands, Ctrl-D leaves",
        if count == 1 { "replica" } else { "replicas" },
    ));
    loop {
        let line = match prompt.read().map_err(io::Error::other)? {
            Input::Line(line) => line,
            Input::Interrupted => {
                session.screen().message("Ctrl-C again, or Ctrl-D, leaves");
                continue;
            }
            Input::End => return Ok(ExitCode::SUCCESS),
        };
        let command = match Command::parse(&line) {
            Ok(None) => continue,
            Ok(Some(Command::Exit)) => return Ok(ExitCode::SUCCESS),
            Ok(Some(command)) => command,
            Err(error) => {
                session.screen().error(None, error);
                continue;
            }
        };
        if let Some(key) = command.key() {
            prompt.remember(key);
        }
        let done = runtime.block_on(async {
            tokio::select! {
                biased;
                interrupted = tokio::signal::ctrl_c() => interrupted.map(|()| None),
                done = session.run(command) => Ok(Some(done)),
            }
        });
        match done? {
            Some(Ok(())) => {}
            Some(Err(Failure::Output(error))) => return Err(error),
            Some(Err(Failure::Command(error))) => session.screen().error(None, error),
            None => session.screen().message("\ngiven up"),
        }
    }
}
