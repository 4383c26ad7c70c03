//! The program: its options and commands, beside what all programs of the examples have.

use std::fmt;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser};
use cluster_shell::args::{Client, Mode, STYLES};
use cluster_shell::command::{
    Arg, CALL, CLEAR, DELAY, EXIT, HELP, NODES, PAUSE, ParseError, RESUME, START, STOP, Spec,
    Words, Write,
};
use cluster_shell::screen::{Key, REMARK, Screen};
use cluster_shell::session::{Failure, Interrupt, node};
use cluster_shell::{Delay, Program};
use gorums::Configuration;
use storage::store::Store;

use crate::client::{Register, RegisterError};
use crate::proto::register_client::RegisterClient;
use crate::proto::register_server::RegisterServer;
use crate::proto::{FILE_DESCRIPTOR_SET, ReadRequest};
use crate::service::Replica;
use crate::version::{Version, Versioned, Writer};

/// Atomic registers, replicated so that they go on while fewer than half of the replicas are down.
///
/// Without a subcommand: starts replicas in this process, on loopback TCP, or connects to replicas
/// elsewhere, and carries out commands from a prompt, from --command, or from a pipe.
#[derive(Debug, Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    styles = STYLES,
    after_help = AFTER_HELP,
    max_term_width = 100
)]
struct Cli {
    /// What to run instead of a client.
    #[command(subcommand)]
    mode: Option<Mode>,
    /// What the client is to do.
    #[command(flatten)]
    client: Client,
}

const AFTER_HELP: &str = "\
Examples:
  register
      Three replicas and a prompt; type \"help\" there for the commands.

  printf 'write greeting hello\\nstop 1\\nread greeting\\n' | register
  register -c 'write greeting \"hello world\"' -c 'stop 1' -c 'read greeting'
      The same without a prompt, from a pipe or from options.

  register cluster --data data
      Three replicas, each in a process of its own and with its values on disk, and a prompt.

  ALL=127.0.0.1:8081,127.0.0.1:8082,127.0.0.1:8083
  for id in 1 2 3; do register init --id $id --data data; done
  register serve --id 1 --listen 127.0.0.1:8081 --peers $ALL --data data &
  register serve --id 2 --listen 127.0.0.1:8082 --peers $ALL --data data &
  register serve --id 3 --listen 127.0.0.1:8083 --peers $ALL --data data &
  register --connect $ALL
      The same by hand, as on several machines.

  register call --connect $ALL 2 Read '{\"key\": \"greeting\"}'
      Calls one method of one replica, and prints its reply as JSON.

  RUST_LOG=gorums=info register
      Shows on standard error what becomes of connections, too; =debug also each call.

Results go to standard output, messages to standard error. The exit status is 0 if all commands were
carried out, 1 if one failed (those after it are still tried), 2 for a wrong option. That a register was
never written is a result and no failure.";

/// Runs the program with the options of its command line.
pub fn main() -> ExitCode {
    let Cli { mode, client } = match Cli::from_arg_matches(&command().get_matches()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    cluster_shell::run::<Registers>(mode, client)
}

/// The options, as the registers need them: an odd number of replicas, which call each other only
/// where one has lost its data.
fn command() -> clap::Command {
    Cli::command()
        .mut_arg("replicas", |replicas| replicas.default_value("3"))
        .mut_subcommand("serve", |serve| {
            serve.mut_arg("peers", |peers| {
                let help = "All replicas, this one among them: as for --connect. With --data a replica that has \
                            lost its data gets them again from them. Give it to all or to none";
                peers.help(help)
            })
        })
}

/// A command that only this program has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Read a register.
    Read(String),
    /// Write one.
    Write(Write),
    /// What one replica has.
    Peek {
        /// The replica.
        node: u32,
        /// The register.
        key: String,
    },
}

static COMMANDS: &[Spec] = &[
    NODES,
    Spec {
        name: "read",
        forms: &[&[Arg::Key]],
        summary: "read a register",
        details: "The newest value that a majority of the replicas has. Where they do not agree\n\
                  on it, a majority is made to have it first: no later read finds an older one.",
    },
    Spec {
        name: "write",
        forms: &[&[Arg::Key, Arg::Value]],
        summary: "write a register",
        details: "Asks a majority of the replicas for its newest version, and has a majority take\n\
                  the value with one that is newer. Done when that majority has it; the others\n\
                  are sent it, too. Where no majority answers, the error says whether the value\n\
                  may still be written.",
    },
    Spec {
        name: "peek",
        forms: &[&[Arg::Node, Arg::Key]],
        summary: "what one replica has",
        details: "This is no read of the register: it may be older than what was read, and newer\n\
                  than what will be.",
    },
    CALL,
    STOP,
    START,
    PAUSE,
    RESUME,
    DELAY,
    CLEAR,
    HELP,
    EXIT,
];

/// This program: a client of the replicas.
pub struct Registers {
    register: Register,
    screen: Screen,
}

impl Program for Registers {
    const NAME: &'static str = "register";
    const COMMANDS: &'static [Spec] = COMMANDS;
    const DESCRIPTORS: &'static [u8] = FILE_DESCRIPTOR_SET;

    type Own = Command;
    type Store = Store<Versioned>;
    type Service = RegisterServer<Replica>;

    fn parse(words: &mut Words) -> Result<Command, ParseError> {
        Ok(match words.name() {
            "read" => Command::Read(words.key()?),
            "write" => Command::Write(words.write()?),
            _ => Command::Peek {
                node: words.node()?,
                key: words.key()?,
            },
        })
    }

    fn key(command: &Command) -> &str {
        match command {
            Command::Read(key) | Command::Peek { key, .. } => key,
            Command::Write(write) => &write.key,
        }
    }

    fn service(store: Arc<Store<Versioned>>, delay: Delay) -> Self::Service {
        RegisterServer::new(Replica::new(store, delay))
    }

    fn client(configuration: Configuration, timeout: Duration, screen: Screen) -> Self {
        let replicas = RegisterClient::new(configuration).with_timeout(timeout);
        let register = Register::new(replicas, Writer::random()).with_timeout(timeout);
        Self { register, screen }
    }

    fn configuration(&self) -> Configuration {
        self.register.replicas().configuration()
    }

    fn screen(&mut self) -> &mut Screen {
        &mut self.screen
    }

    async fn run(&mut self, command: Command, _: Interrupt) -> Result<(), Failure> {
        match command {
            Command::Read(key) => {
                let found = self.register.read(&key).await.map_err(failed)?;
                Ok(self.screen.result(Answer(&key, found, "read"))?)
            }
            Command::Write(Write { key, value }) => {
                let version = self.register.write(&key, &value).await.map_err(failed)?;
                Ok(self.screen.result(format_args!(
                    "written  {REMARK}(version {version}){REMARK:#}"
                ))?)
            }
            Command::Peek { node: id, key } => {
                let one = self
                    .configuration()
                    .select([node(&self.configuration(), id)?.id()])?;
                let request = ReadRequest { key: key.clone() };
                let replicas = self.register.replicas().on(one);
                let reply = replicas.read(request).all().await?;
                let found = reply.version.map(|version| Versioned {
                    value: reply.value,
                    version: Version::from(version),
                });
                let remark = format!("at replica {id}");
                Ok(self.screen.result(Answer(&key, found, &remark))?)
            }
        }
    }
}

fn failed(error: RegisterError) -> Failure {
    Failure::of(error)
}

/// What a register has, and how it was found.
struct Answer<'a>(&'a str, Option<Versioned>, &'a str);

impl fmt::Display for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(key, found, how) = self;
        match found {
            Some(Versioned { value, version }) => write!(
                f,
                "{} = {value:?}  {REMARK}(version {version}, {how}){REMARK:#}",
                Key(key)
            ),
            None => write!(f, "{key:?} was never written  {REMARK}({how}){REMARK:#}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use cluster_shell::command::{Command as Any, parse};
    use cluster_shell::session::help;

    use super::*;

    #[test]
    fn the_options_are_consistent_and_three_replicas_are_the_default() {
        command().debug_assert();
        let options = command().try_get_matches_from(["register"]);
        let options = Cli::from_arg_matches(&options.expect("no options are fine"));
        assert_eq!(options.expect("they are those of Cli").client.replicas, 3);
    }

    #[test]
    fn the_examples_of_the_help_can_be_pasted_at_any_width_from_80_columns_on() {
        for width in [80, 100, 120] {
            let command = command();
            let after = command.get_after_help().expect("it has examples");
            let after = after.to_string();
            let help = command.term_width(width).render_help().to_string();
            let is_command = |line: &&str| line.starts_with("  ") && !line.starts_with("      ");
            for line in after.lines().filter(is_command) {
                assert!(help.lines().any(|shown| shown == line), "{width}: {line}");
            }
        }
    }

    #[test]
    fn commands_become_what_they_say() {
        let write = Command::Write(Write {
            key: "k".to_owned(),
            value: "a value".to_owned(),
        });
        let (node, key) = (2, "k".to_owned());
        for (line, command) in [
            ("read k", Command::Read("k".to_owned())),
            ("write k 'a value'", write),
            ("peek 2 k", Command::Peek { node, key }),
        ] {
            assert_eq!(Registers::key(&command), "k");
            assert_eq!(
                parse::<Registers>(line),
                Ok(Some(Any::Own(command))),
                "{line}"
            );
        }
        assert_eq!(parse::<Registers>("quit"), Ok(Some(Any::Exit)));
        let error = parse::<Registers>("write k").expect_err("a word is missing");
        assert_eq!(
            error.to_string(),
            "VALUE is missing\nusage: write KEY VALUE"
        );
        let error = parse::<Registers>("raed k")
            .expect_err("unknown")
            .to_string();
        assert!(error.contains("did you mean \"read\"?"), "{error}");
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
