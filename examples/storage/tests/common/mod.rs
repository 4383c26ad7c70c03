//! Runs the program.
#![allow(dead_code, reason = "each test program uses its part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Longer than anything takes on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

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
        .env_remove("RUST_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A loopback address, so that no test gets a port that another one has just given back. Where
/// there is but one, that one.
pub(crate) fn host() -> String {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    if cfg!(target_os = "linux") {
        let [.., high, low] = std::process::id().to_be_bytes();
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        format!("127.{}.{low}.{next}", 1 + high % 254)
    } else {
        "127.0.0.1".to_owned()
    }
}

/// The program while it runs. Killed when it is dropped.
pub(crate) struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<Receiver<String>>,
    stderr: Receiver<String>,
}

impl Program {
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut child = command(args).spawn().expect("the program starts");
        Self {
            stdin: child.stdin.take(),
            stdout: child.stdout.take().map(lines),
            stderr: child.stderr.take().map(lines).expect("it is piped"),
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
        let stdout = self.stdout.as_ref().expect("it is piped");
        match stdout.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(error) => panic!("no result: {error}; messages: {:?}", self.messages()),
        }
    }

    pub(crate) fn expect_line(&mut self, expected: &str) {
        assert_eq!(self.line(), expected);
    }

    /// The next line of its messages.
    pub(crate) fn error_line(&mut self) -> String {
        let error = self.stderr.recv_timeout(PATIENCE);
        error.expect("there is a message")
    }

    /// Its messages so far.
    pub(crate) fn messages(&self) -> Vec<String> {
        self.stderr.try_iter().collect()
    }

    /// Its messages up to their end.
    pub(crate) fn rest_of_messages(&self) -> Vec<String> {
        self.stderr.iter().collect()
    }

    /// Ends its input, and waits for its exit status.
    pub(crate) fn end(&mut self) -> i32 {
        self.stdin = None;
        let status = self.child.wait().expect("it ends");
        status.code().expect("it ends by itself")
    }
}

/// A replica in a process of its own, and its address.
pub(crate) fn serve(id: u32, listen: &str) -> (Program, String) {
    serve_as(id, listen, &[])
}

/// The same, with more options.
pub(crate) fn serve_as(id: u32, listen: &str, options: &[&str]) -> (Program, String) {
    let id_option = id.to_string();
    let first = ["serve", "--id", &id_option, "--listen", listen];
    let mut replica = Program::start(&[&first, options].concat());
    let line = replica.line();
    let address = line
        .strip_prefix(&format!("replica {id} listening on "))
        .unwrap_or_else(|| panic!("{line:?} does not tell the address"));
    let address = address.to_owned();
    (replica, address)
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of a stream, read ahead.
fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            if sender.send(line.expect("text")).is_err() {
                break;
            }
        }
    });
    receiver
}
