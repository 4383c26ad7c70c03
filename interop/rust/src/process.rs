//! Processes that serve.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// A process that has said where it listens, and ends with this.
pub(crate) struct Process {
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
    pub(crate) address: String,
}

impl Process {
    /// Starts a program, the first word, with the others as its arguments.
    pub(crate) async fn start(command: &[&str]) -> Result<Self> {
        let (program, args) = command.split_first().context("there is no program")?;
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {program}"))?;
        let output = child.stdout.take().context("the output is piped")?;
        let mut output = BufReader::new(output).lines();
        let line = output.next_line().await?;
        // `listening HOST:PORT`, or with words before it.
        let address = line
            .as_deref()
            .and_then(|line| line.split_once("listening "))
            .map(|(_, address)| address.trim_start_matches("on ").to_owned())
            .with_context(|| format!("{program} does not say where it listens: {line:?}"))?;
        Ok(Self {
            child,
            output,
            address,
        })
    }

    /// Stops it, so that it neither reads nor writes, until it is resumed.
    pub(crate) async fn pause(&self) -> Result<()> {
        self.signal("-STOP").await
    }

    pub(crate) async fn resume(&self) -> Result<()> {
        self.signal("-CONT").await
    }

    /// Tells it to end (SIGTERM).
    pub(crate) async fn terminate(&self) -> Result<()> {
        self.signal("-TERM").await
    }

    async fn signal(&self, signal: &str) -> Result<()> {
        let id = self.child.id().context("the process has ended")?;
        let kill = Command::new("kill")
            .args([signal, &id.to_string()])
            .status();
        ensure!(kill.await?.success(), "kill {signal} failed");
        Ok(())
    }

    /// Ends it without a word (SIGKILL, where there are signals), and waits until it has ended.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.context("killing a process")
    }

    /// The next line that it prints.
    pub(crate) async fn line(&mut self) -> Result<Option<String>> {
        self.output.next_line().await.context("reading its output")
    }
}
