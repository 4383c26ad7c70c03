//! The command line.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anstyle::AnsiColor;
use clap::builder::Styles;
use clap::{Args, Parser, Subcommand};
use gorums::NodeAddress;

/// A replicated key-value store to try out quorum calls with.
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
pub(crate) struct Cli {
    /// What to run instead of a client.
    #[command(subcommand)]
    pub(crate) mode: Option<Mode>,
    /// What the client is to do.
    #[command(flatten)]
    pub(crate) client: Client,
}

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(anstyle::Style::new().bold());

const AFTER_HELP: &str = "\
Examples:
  storage
      Four replicas and a prompt; type \"help\" there for the commands.

  printf 'qc write greeting hello\\nstop 1\\nqc read greeting\\n' | storage
  storage -c 'qc write greeting \"hello world\"' -c 'stop 1' -c 'qc read greeting'
      The same without a prompt, from a pipe or from options.

  storage cluster --data data
      Three replicas, each in a process of its own and with its values on disk, and a prompt.

  ALL=127.0.0.1:8081,127.0.0.1:8082,127.0.0.1:8083
  storage serve --id 1 --listen 127.0.0.1:8081 --peers $ALL --data data &
  storage serve --id 2 --listen 127.0.0.1:8082 --peers $ALL --data data &
  storage serve --id 3 --listen 127.0.0.1:8083 --peers $ALL --data data &
  storage --connect $ALL
      The same by hand, as on several machines.

  storage --config nodes.toml
      The same, with a file that has three lines for each replica:
          [[node]]
          id = 1
          address = \"127.0.0.1:8081\"

Results go to standard output, messages to standard error. The exit status is 0 if all commands were
carried out, 1 if one failed (those after it are still tried), 2 for a wrong option. That a key is not
found, or that a replica has a newer value, is a result and no failure.";

/// What can be run besides a client.
#[derive(Debug, Subcommand)]
pub(crate) enum Mode {
    /// Run one replica, until Ctrl-C or SIGTERM.
    Serve(Serve),
    /// Start replicas as processes of their own, and a client of them.
    ///
    /// The commands are those of local replicas: "stop" kills the process of a replica, "pause" sends it
    /// SIGSTOP. The processes end with this one.
    Cluster(Cluster),
}

/// Which replicas to start as processes.
#[derive(Debug, Args)]
pub(crate) struct Cluster {
    /// The commands, and how they are carried out.
    #[command(flatten)]
    pub(crate) calls: Calls,
    /// The number of replicas to start.
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 3,
        value_parser = clap::value_parser!(u32).range(1..=100)
    )]
    pub(crate) replicas: u32,
    /// Keep what is written in files of this directory, as for serve.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The address of the first replica; the others get the ports after it. Without a port, or with
    /// port 0, the system chooses one for each.
    #[arg(long, value_name = "IP[:PORT]", default_value = "127.0.0.1", value_parser = listen)]
    pub(crate) listen: SocketAddr,
}

/// How to run a replica.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The id by which this replica names itself; clients give it one of their own.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) id: u32,
    /// The address to listen on. With port 0 the system chooses one, which is printed.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: String,
    /// All replicas, this one among them, which nested calls go to: as for --connect.
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',')]
    pub(crate) peers: Vec<NodeAddress>,
    /// Keep what is written in this directory, which is made where there is none: a write is on disk before
    /// it is answered, and a replica that is started again has it. Without it, all is kept in memory only.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Share the port with whoever has started this, take orders from standard input, and end with it.
    #[arg(long, hide = true)]
    pub(crate) controlled: bool,
}

/// How to run a client, and which replicas.
#[derive(Debug, Args)]
pub(crate) struct Client {
    /// The commands, and how they are carried out.
    #[command(flatten)]
    pub(crate) calls: Calls,
    /// Replicas elsewhere.
    #[command(flatten)]
    pub(crate) target: Target,
    /// The number of replicas to start in this process.
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 4,
        conflicts_with_all = ["connect", "config"],
        value_parser = clap::value_parser!(u32).range(1..=100)
    )]
    pub(crate) replicas: u32,
    /// Let these replicas keep what is written in files of this directory.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["connect", "config"])]
    pub(crate) data: Option<PathBuf>,
}

/// What a client is to do.
#[derive(Debug, Args)]
pub(crate) struct Calls {
    /// Carry out a command and leave; may be repeated.
    #[arg(short, long = "command", value_name = "COMMAND")]
    pub(crate) commands: Vec<String>,
    /// How long a call may take, as in 500ms or 2s.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = timeout)]
    pub(crate) timeout: Duration,
}

/// Replicas that run already.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// Connect to replicas elsewhere: HOST:PORT,… (ids count from 1) or 1=HOST:PORT,2=HOST:PORT,…
    #[arg(
        long,
        value_name = "ADDRESSES",
        value_delimiter = ',',
        conflicts_with = "config"
    )]
    pub(crate) connect: Vec<NodeAddress>,
    /// Connect to the replicas that a TOML file lists.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// How long to wait at first until a majority of them is connected; 0s goes on at once.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "5s",
        value_parser = humantime::parse_duration
    )]
    pub(crate) wait: Duration,
}

impl Target {
    /// Whether there are any.
    pub(crate) fn is_given(&self) -> bool {
        !self.connect.is_empty() || self.config.is_some()
    }
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    let without_port = || text.parse().map(|ip: IpAddr| SocketAddr::new(ip, 0));
    let parsed = text.parse().or_else(|_| without_port());
    parsed.map_err(|_| {
        "expected an IP address, with or without a port, as in 127.0.0.1:8081".to_owned()
    })
}

fn timeout(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("nothing can be done in no time".to_owned()),
        Ok(timeout) => Ok(timeout),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn client(args: &[&str]) -> Result<Client, String> {
        let args = std::iter::once(&"storage").chain(args);
        let parsed = Cli::try_parse_from(args).map_err(|error| error.to_string())?;
        Ok(parsed.client)
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn four_local_replicas_and_two_seconds_are_the_default() {
        let client = client(&[]).expect("no options are fine");
        assert_eq!(
            (client.replicas, client.calls.timeout),
            (4, Duration::from_secs(2))
        );
        assert!(!client.target.is_given());
    }

    #[test]
    fn replicas_elsewhere_come_with_or_without_ids() {
        let target = |text: &str| text.parse::<NodeAddress>().expect("legal");
        let connect = |text| client(&["--connect", text]).map(|client| client.target.connect);
        assert_eq!(connect("a:1,b:2"), Ok(vec![target("a:1"), target("b:2")]));
        assert_eq!(
            connect("7=a:1, 3=[::1]:2"),
            Ok(vec![target("7=a:1"), target("3=[::1]:2")])
        );
        let error = connect("x=a:1").expect_err("no id");
        assert!(error.contains("\"x\" is not an id"), "{error}");
    }

    #[test]
    fn timeouts_have_a_unit_and_are_not_nothing() {
        let timeout = |text| client(&["--timeout", text]).map(|client| client.calls.timeout);
        assert_eq!(timeout("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(timeout("1m 5s"), Ok(Duration::from_secs(65)));
        for text in ["0s", "fast", "-1s", "7"] {
            assert!(timeout(text).is_err(), "{text}");
        }
    }

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        for args in [
            &["--connect", "a:1", "--replicas", "3"][..],
            &["--connect", "a:1", "--config", "nodes.toml"],
            &["--config", "nodes.toml", "--replicas", "3"],
            &["--timeout", "1s", "serve", "--id", "1", "--listen", "a:1"],
            &["serve", "--id", "0", "--listen", "a:1"],
            &["serve", "--id", "1"],
            &["serve", "--id", "1", "--listen", "a:1", "--peers", "0=a:1"],
            &["--replicas", "0"],
            &["--connect", "a:1", "--data", "d"],
            &["--config", "nodes.toml", "--data", "d"],
        ] {
            assert!(client(args).is_err(), "{args:?}");
        }
    }
}
