//! Child processes, shown as a person would type them.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader};
use std::process::{Command, Stdio};
use std::{env, fmt};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// A command that runs in the root of the workspace.
#[derive(Clone)]
pub(crate) struct Cmd {
    program: String,
    args: Vec<String>,
    envs: Vec<(&'static str, String)>,
}

impl Cmd {
    pub(crate) fn new(program: impl Into<String>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            envs: Vec::new(),
        }
    }

    /// The cargo that runs this program.
    pub(crate) fn cargo() -> Self {
        Self::new("cargo")
    }

    /// What is run, without its arguments.
    pub(crate) fn program(&self) -> &str {
        &self.program
    }

    pub(crate) fn args<'a>(mut self, args: impl IntoIterator<Item = &'a str>) -> Self {
        self.args.extend(args.into_iter().map(str::to_owned));
        self
    }

    pub(crate) fn env(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.envs.push((key, value.into()));
        self
    }

    /// Gives the compiler these flags, behind those that it has anyway.
    pub(crate) fn rustflags(self, more: &str) -> Self {
        let flags = env::var("RUSTFLAGS").unwrap_or_default();
        self.env("RUSTFLAGS", format!("{flags} {more}").trim())
    }

    /// Shows the command, runs it with its output passed through, and fails unless it exits with 0.
    pub(crate) fn run(&self) -> Result<()> {
        println!("$ {self}");
        let status = self.std().status().with_context(|| self.not_started())?;
        self.expect_success(status)
    }

    /// Like [`run`](Self::run), and hands each line to `line` after it is passed on. Standard
    /// output and standard error become one, since cargo says on the one which program it runs, and
    /// the program what it did on the other.
    pub(crate) fn run_reading(&self, mut line: impl FnMut(&str)) -> Result<()> {
        println!("$ {self}");
        self.read(true, |text| {
            println!("{text}");
            line(text);
        })
    }

    /// Like [`run_reading`](Self::run_reading), and shows no line unless the command fails.
    pub(crate) fn run_quietly(&self, mut line: impl FnMut(&str)) -> Result<()> {
        println!("$ {self}");
        let mut shown = Vec::new();
        let result = self.read(true, |text| {
            shown.push(text.to_owned());
            line(text);
        });
        if result.is_err() {
            println!("{}", shown.join("\n"));
        }
        result
    }

    /// Like [`run_reading`](Self::run_reading), and shows nothing.
    pub(crate) fn run_collecting(&self, line: impl FnMut(&str)) -> Result<()> {
        self.read(true, line)
    }

    /// Runs the command and hands each line of its standard output to `line`. Standard error is
    /// passed through.
    pub(crate) fn run_lines(&self, line: impl FnMut(&str)) -> Result<()> {
        self.read(false, line)
    }

    fn read(&self, with_errors: bool, mut line: impl FnMut(&str)) -> Result<()> {
        let (output, writer) = io::pipe().context("a pipe for the output")?;
        let mut command = self.std();
        if with_errors {
            command.stderr(writer.try_clone().context("a pipe for the output")?);
        }
        let mut child = command
            .stdout(writer)
            .spawn()
            .with_context(|| self.not_started())?;
        // It holds the writing ends, without which the output has no end.
        drop(command);
        for bytes in BufReader::new(output).split(b'\n') {
            // A test may print anything, so a line need not be UTF-8.
            let bytes = bytes.with_context(|| format!("reading the output of `{self}`"))?;
            line(&String::from_utf8_lossy(&bytes));
        }
        let status = child
            .wait()
            .with_context(|| format!("waiting for `{self}`"))?;
        self.expect_success(status)
    }

    /// Standard output of a command that is not shown. Standard error is passed through.
    pub(crate) fn output(&self) -> Result<String> {
        let output = self
            .std()
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| self.not_started())?;
        self.expect_success(output.status)?;
        String::from_utf8(output.stdout).with_context(|| format!("`{self}` did not print UTF-8"))
    }

    /// Whether the command starts and exits with 0; what it prints is thrown away.
    pub(crate) fn succeeds(&self) -> bool {
        self.std()
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    fn std(&self) -> Command {
        let program = match self.program.as_str() {
            // `cargo run` names itself here, so that every step uses one toolchain.
            "cargo" => env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")),
            other => OsString::from(other),
        };
        let mut command = Command::new(program);
        command
            .args(&self.args)
            .envs(self.envs.iter().map(|(key, value)| (key, value)))
            .current_dir(workspace::root())
            .stdin(Stdio::null());
        command
    }

    fn expect_success(&self, status: std::process::ExitStatus) -> Result<()> {
        if !status.success() {
            bail!("`{self}` failed ({status})");
        }
        Ok(())
    }

    fn not_started(&self) -> String {
        format!("`{self}` could not be started")
    }
}

impl fmt::Display for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, value) in &self.envs {
            write!(f, "{key}={} ", quoted(value))?;
        }
        f.write_str(&self.program)?;
        for arg in &self.args {
            write!(f, " {}", quoted(arg))?;
        }
        Ok(())
    }
}

fn quoted(word: &str) -> String {
    if word.contains(' ') {
        format!("'{word}'")
    } else {
        word.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_it_would_be_typed() {
        let cmd = Cmd::cargo()
            .args(["doc", "--no-deps"])
            .env("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(
            cmd.to_string(),
            "RUSTDOCFLAGS='-D warnings' cargo doc --no-deps"
        );
    }
}
