//! The command line.

use clap::Parser;
use cluster_shell::args::{Client, Mode, STYLES};

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

const AFTER_HELP: &str = "\
Examples:
  storage
      Four replicas and a prompt; type \"help\" there for the commands.

  printf 'qc write greeting hello\\nstop 1\\nqc read greeting\\n' | storage
  storage -c 'qc write greeting \"hi there\"' -c 'stop 1' -c 'qc read greeting'
      The same without a prompt, from a pipe or from options.

  storage cluster --data data
      Three replicas, each in a process of its own and with its values on disk, and a prompt.

  ALL=127.0.0.1:8081,127.0.0.1:8082,127.0.0.1:8083
  for id in 1 2 3; do storage init --id $id --data data; done
  storage serve --id 1 --listen 127.0.0.1:8081 --peers $ALL --data data &
  storage serve --id 2 --listen 127.0.0.1:8082 --peers $ALL --data data &
  storage serve --id 3 --listen 127.0.0.1:8083 --peers $ALL --data data &
  storage --connect $ALL
      The same by hand, as on several machines.

  storage call --connect $ALL 2 WriteRPC '{\"key\": \"greeting\", \"value\": \"hello\"}'
  storage call --connect $ALL 2 ReadRPC '{\"key\": \"greeting\"}'
      Calls one method of one replica, and prints its reply as JSON.

  storage verify --data data --id 1
      Looks at all that replica 1, which does not run, has on disk, and says whether it is whole.

  storage --config nodes.toml
      The same, with a file that has three lines for each replica:
          [[node]]
          id = 1
          address = \"127.0.0.1:8081\"

  RUST_LOG=gorums=info storage
      Shows on standard error what becomes of connections, too; =debug also each call.

Results go to standard output, messages to standard error. The exit status is 0 if all commands were
carried out, 1 if one failed (those after it are still tried), 2 for a wrong option. That a key is not
found, or that a replica has a newer value, is a result and no failure.";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::CommandFactory;
    use gorums::membership::NodeAddress;

    use super::*;

    fn client(args: &[&str]) -> Result<Client, String> {
        let args = std::iter::once(&"storage").chain(args);
        let parsed = Cli::try_parse_from(args).map_err(|error| error.to_string())?;
        Ok(parsed.client)
    }

    #[test]
    fn the_examples_of_the_help_can_be_pasted_at_any_width_from_80_columns_on() {
        for width in [80, 100, 120] {
            let command = Cli::command();
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
