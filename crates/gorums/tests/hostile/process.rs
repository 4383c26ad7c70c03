//! A server in a process of its own, whose memory can be measured.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gorums::ServerBuilder;
use tokio::runtime::{Builder, Runtime};

/// Tells the process of a test binary that it is to be the server.
const ROLE: &str = "GORUMS_HOSTILE_SERVER";
const LISTENS: &str = "the server listens on ";

/// A server that runs as long as this lives.
pub struct ServerProcess {
    pub addr: SocketAddr,
    child: Child,
}

impl ServerProcess {
    /// Runs the test of this name again, in a process of its own, in which it serves.
    pub fn start(test: &str) -> Self {
        let program = std::env::current_exe().expect("a test binary");
        let mut child = Command::new(program)
            .args(["--exact", test, "--nocapture", "--include-ignored"])
            .env(ROLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let stdout = child.stdout.take().expect("piped");
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        let addr = lines
            .find_map(|line| line.split_once(LISTENS)?.1.parse().ok())
            .expect("the server listens");
        // The test harness prints more, and ends the process where nobody reads it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { addr, child }
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// How long the processor has worked for it, where the system tells.
    pub fn cpu(&self) -> Option<Duration> {
        // A thread of each: nanoseconds come first.
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).ok()?;
        let nanos = tasks.filter_map(|task| {
            let told = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            told.split(' ').next()?.parse::<u64>().ok()
        });
        Some(Duration::from_nanos(nanos.sum()))
    }

    /// The most memory that it has had so far, in bytes, where the system tells.
    pub fn peak_memory(&self) -> Option<usize> {
        let status = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(status).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: usize = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib * 1024)
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a server runs, or those who attack it.
pub fn two_threads() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// In the process that is to be the server: serves until the test lets it go. True if it did.
pub fn serve_if_asked(builder: impl FnOnce() -> ServerBuilder) -> bool {
    if std::env::var_os(ROLE).is_none() {
        return false;
    }
    let runtime = two_threads();
    runtime.block_on(async {
        let server = builder().bind("127.0.0.1:0").await.expect("a free port");
        println!("{LISTENS}{}", server.local_addr());
        // A test that ends, however it ends, closes this.
        let gone = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        tokio::select! {
            () = server.serve() => {}
            _ = gone => {}
        }
    });
    true
}
