//! A node for Maelstrom: see the library.

use std::process::ExitCode;

use clap::Parser;
use tokio::io::{BufReader, stdin, stdout};

/// A node for the Maelstrom workbench, which starts it: it speaks JSON on standard input and
/// output.
///
/// It serves the workloads echo, broadcast, g-set and lin-kv, by what it is sent; there are no
/// options.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER_HELP, max_term_width = 100)]
struct Cli {}

const AFTER_HELP: &str = "\
Examples:
  cargo build --release -p maelstrom
  maelstrom test -w lin-kv --bin target/release/maelstrom --node-count 5 \\
      --concurrency 4n --time-limit 30 --rate 100 --nemesis partition
      Where Maelstrom is installed. The same for the other workloads.

  printf '{\"src\":\"c1\",\"dest\":\"n1\",\"body\":{\"msg_id\":%s}}\\n' \\
      '1,\"type\":\"init\",\"node_id\":\"n1\",\"node_ids\":[\"n1\"]' \\
      '2,\"type\":\"echo\",\"echo\":\"hi\"' | target/release/maelstrom
      By hand: a system of one node.

The exit status is 0 when standard input ends, and 1 where the node cannot go on; standard error says why.";

#[tokio::main]
async fn main() -> ExitCode {
    let Cli {} = Cli::parse();
    let code = match maelstrom::run(BufReader::new(stdin()), stdout()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    };
    // A thread that reads standard input cannot be waited for.
    std::process::exit(if code == ExitCode::SUCCESS { 0 } else { 1 })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_examples_can_be_pasted_at_any_width_from_80_columns_on() {
        for width in [80, 100, 120] {
            let help = Cli::command().term_width(width).render_help().to_string();
            for line in AFTER_HELP.lines().filter(|line| line.starts_with("  ")) {
                assert!(help.lines().any(|shown| shown == line), "{width}: {line}");
            }
        }
    }
}
