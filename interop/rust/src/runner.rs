//! Runs cases, each with a deadline and a line that says what came of it.

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gorums::Configuration;
use tokio::time::timeout;

use crate::client;
use crate::process::Process;

/// So long may a case take.
const DEADLINE: Duration = Duration::from_secs(60);

/// The name of a case, and what it does.
pub(crate) type Case = (
    &'static str,
    fn(Start) -> Pin<Box<dyn Future<Output = Result<()>>>>,
);

/// Cases by the names of their functions.
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        &[$((stringify!($name), |start| Box::pin($name(start)))),*]
    };
}
pub(crate) use cases;

/// Which cases are run.
#[derive(clap::Args)]
pub(crate) struct Chosen {
    /// Print the names of the cases
    #[arg(long)]
    list: bool,

    /// Run the cases with one of these in their name
    #[arg(value_name = "PART")]
    parts: Vec<String>,
}

/// Runs the cases of the groups; a case is called by the names of its group and its own. A group
/// says how many servers of a cluster are of the other implementation.
pub(crate) async fn run(
    groups: &[(&str, &[Case], usize)],
    chosen: &Chosen,
    command: &[String],
    storage: Option<&str>,
) -> Result<ExitCode> {
    let (mut ran, mut failed) = (0, 0);
    let named = groups.iter().flat_map(|(group, cases, others)| {
        let named = move |(name, case): &Case| (format!("{group}/{name}"), *case, *others);
        cases.iter().map(named)
    });
    for (name, case, others) in named {
        let parts = &chosen.parts;
        if !parts.is_empty() && !parts.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        ran += 1;
        if chosen.list {
            println!("{name}");
            continue;
        }
        let began = Instant::now();
        let start = Start {
            command: command.to_vec(),
            storage: storage.map(str::to_owned),
            others,
        };
        let result = timeout(DEADLINE, case(start)).await;
        let result =
            result.unwrap_or_else(|_| Err(anyhow::anyhow!("it takes more than {DEADLINE:?}")));
        let millis = began.elapsed().as_millis();
        match result {
            Ok(()) => println!("case {name} ok {millis}"),
            Err(error) => {
                failed += 1;
                let message = format!("{error:#}").replace('\n', "\\n");
                println!("case {name} FAILED {millis} {message}");
            }
        }
    }
    Ok(if chosen.list || (ran > 0 && failed == 0) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Starts servers of another implementation.
#[derive(Clone)]
pub(crate) struct Start {
    /// The program and its first arguments.
    pub(crate) command: Vec<String>,
    /// Our replica of the store.
    pub(crate) storage: Option<String>,
    /// How many servers of a cluster are of the other implementation.
    pub(crate) others: usize,
}

impl Start {
    pub(crate) async fn server(&self, args: &[&str]) -> Result<Process> {
        let command = self.command.iter().map(String::as_str);
        let command: Vec<_> = command.chain(args.iter().copied()).collect();
        Process::start(&command).await
    }

    /// A server of this library.
    pub(crate) async fn ours(&self, args: &[&str]) -> Result<Process> {
        let program = std::env::current_exe().context("this program")?;
        let program = program.display().to_string();
        let mut command = vec![program.as_str(), "serve"];
        command.extend(args);
        Process::start(&command).await
    }

    pub(crate) async fn servers(&self, count: usize) -> Result<(Vec<Process>, Configuration)> {
        let mut servers = Vec::new();
        for _ in 0..count {
            servers.push(self.server(&[]).await?);
        }
        let all = client::connect(&servers)?;
        all.connected(count).await?;
        Ok((servers, all))
    }
}
