//! Runs cases, each with a deadline and a line that says what came of it.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gorums::{Configuration, ConfigurationBuilder};
use tokio::time::timeout;

use crate::process::Process;
use crate::secrets::Secrets;

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

/// Which cases are run, and how.
#[derive(clap::Args)]
pub(crate) struct Chosen {
    /// Over mutual TLS, with the certificates that `cargo xtask certs` made in this folder, and those
    /// of another authority in its folder `foreign`
    #[arg(long, value_name = "DIR")]
    pub(crate) certs: Option<PathBuf>,

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
            certs: chosen.certs.clone(),
            proves_ids: chosen.certs.is_some() && others > 0,
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
    /// Where the certificates are, where it is over TLS.
    pub(crate) certs: Option<PathBuf>,
    /// Whether nodes prove their ids by them.
    pub(crate) proves_ids: bool,
    /// How many servers of a cluster are of the other implementation.
    pub(crate) others: usize,
}

impl Start {
    /// One of theirs, with the certificate of node 1 where there are any.
    pub(crate) async fn server(&self, args: &[&str]) -> Result<Process> {
        self.server_as(&self.secrets("node-1"), args).await
    }

    /// One of theirs with these certificates.
    pub(crate) async fn server_as(&self, secrets: &Secrets, args: &[&str]) -> Result<Process> {
        let secrets = secrets.args();
        let command = self.command.iter().chain(&secrets).map(String::as_str);
        let command: Vec<_> = command.chain(args.iter().copied()).collect();
        Process::start(&command).await
    }

    /// A server of this library.
    pub(crate) async fn ours_as(&self, secrets: &Secrets, args: &[&str]) -> Result<Process> {
        let program = std::env::current_exe().context("this program")?;
        let program = program.display().to_string();
        let secrets = secrets.args();
        let mut command = vec![program.as_str(), "serve"];
        command.extend(secrets.iter().map(String::as_str));
        command.extend(args);
        Process::start(&command).await
    }

    /// A replica of the store.
    pub(crate) async fn storage_as(&self, secrets: &Secrets, args: &[&str]) -> Result<Process> {
        let program = self.storage.as_deref().context("--storage is missing")?;
        let secrets = secrets.args();
        let mut command = vec![program, "serve"];
        command.extend(args);
        command.extend(secrets.iter().map(String::as_str));
        Process::start(&command).await
    }

    /// The same, where nodes prove their ids if there are certificates.
    pub(crate) fn proving(self) -> Self {
        let proves_ids = self.certs.is_some();
        Self { proves_ids, ..self }
    }

    /// Sets up a new replica of the store, before it is started with peers and data.
    pub(crate) async fn set_up(&self, id: &str, data: &str) -> Result<()> {
        let program = self.storage.as_deref().context("--storage is missing")?;
        let init = tokio::process::Command::new(program)
            .args(["init", "--id", id, "--data", data])
            .output();
        let done = init.await.context("the store cannot be set up")?;
        ensure!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
        Ok(())
    }

    /// The certificates of one of those that have some: `node-3`, `client`. None without TLS.
    pub(crate) fn secrets(&self, name: &str) -> Secrets {
        let Some(folder) = &self.certs else {
            return Secrets::default();
        };
        let secrets = Secrets::in_folder(folder, name);
        if self.proves_ids {
            secrets.of_cluster()
        } else {
            secrets
        }
    }

    /// Those of another authority.
    pub(crate) fn foreign(&self, name: &str) -> Result<Secrets> {
        let folder = self.certs.as_ref().context("the case needs --certs")?;
        Ok(Secrets::in_folder(&folder.join("foreign"), name))
    }

    /// Of our client.
    pub(crate) fn configuration(&self) -> Result<ConfigurationBuilder> {
        self.secrets("client").configuration()
    }

    /// Our client of these servers.
    pub(crate) fn connect(&self, servers: &[Process]) -> Result<Configuration> {
        let addresses = servers.iter().map(|server| server.address.clone());
        let builder = self.configuration()?.nodes(addresses);
        Ok(builder.metadata("from", "connection").connect()?)
    }

    pub(crate) async fn servers(&self, count: usize) -> Result<(Vec<Process>, Configuration)> {
        let mut servers = Vec::new();
        for _ in 0..count {
            servers.push(self.server(&[]).await?);
        }
        let all = self.connect(&servers)?;
        all.connected(count).await?;
        Ok((servers, all))
    }
}
