//! Runs the program.
#![allow(dead_code, reason = "each test program uses its part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};

/// What a run of the program left behind.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: i32,
}

impl Done {
    pub(crate) fn lines(&self) -> Vec<String> {
        self.stdout.lines().map(str::to_owned).collect()
    }
}

/// Runs it to its end with these options and this text in its pipe.
pub(crate) fn run(args: &[&str], input: &str) -> Done {
    let mut child = command(args).spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    // It may end without reading all of it.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    Done {
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
        code: output.status.code().expect("it ends by itself"),
    }
}

/// Runs these commands on four replicas.
pub(crate) fn run_commands(commands: &[&str]) -> Done {
    run(&[], &(commands.join("\n") + "\n"))
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_storage"));
    command
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The program while it runs. Killed when it is dropped.
pub(crate) struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
    stderr: BufReader<ChildStderr>,
}

impl Program {
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut child = command(args).spawn().expect("the program starts");
        Self {
            stdin: child.stdin.take(),
            stdout: child.stdout.take().map(BufReader::new),
            stderr: child
                .stderr
                .take()
                .map(BufReader::new)
                .expect("it is piped"),
            child,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn type_line(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("not ended");
        writeln!(stdin, "{line}").expect("it reads");
    }

    /// The next line of its results.
    pub(crate) fn line(&mut self) -> String {
        read_line(self.stdout.as_mut().expect("not closed"))
    }

    pub(crate) fn expect_line(&mut self, expected: &str) {
        assert_eq!(self.line(), expected);
    }

    /// The next line of its messages.
    pub(crate) fn error_line(&mut self) -> String {
        read_line(&mut self.stderr)
    }

    /// All that is left of its messages; waits until it ends.
    pub(crate) fn error_text(&mut self) -> String {
        self.stdin = None;
        let mut text = String::new();
        self.stderr.read_to_string(&mut text).expect("text");
        text
    }

    /// Reads none of its results any more.
    pub(crate) fn close_output(&mut self) {
        self.stdout = None;
    }

    /// Ends its input, and waits for its exit status.
    pub(crate) fn end(mut self) -> i32 {
        self.stdin = None;
        let status = self.child.wait().expect("it ends");
        status.code().expect("it ends by itself")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_line(stream: &mut impl BufRead) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).expect("text");
    assert!(line.ends_with('\n'), "the stream ended at {line:?}");
    line.pop();
    line
}
