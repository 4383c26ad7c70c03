//! Replicas as processes of their own, which end with this one.
//!
//! Each is this program again, told to [`serve`](crate::run). Its standard input is a pipe from
//! here: the replica ends when the pipe does, however this process came to its end. Its standard
//! output says when it serves, and its standard error what is wrong with it.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpSocket;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Condition, ReplicaError, bind};
use crate::command::Action;
use crate::screen::Notices;

/// How long replicas may take to start before the user is told whom one waits for.
const SILENCE: Duration = Duration::from_secs(1);

/// How long replicas may take to end before they are killed.
const ENDING: Duration = Duration::from_secs(5);

/// What there is to know before the replicas are started.
#[derive(Debug)]
pub struct Plan {
    /// How many there are to be.
    pub count: u32,
    /// Where the first one listens, and the others on the ports after it. With port 0 the system
    /// chooses.
    pub listen: SocketAddr,
    /// Where they store, if not in memory.
    pub data: Option<PathBuf>,
}

/// Replicas with the ids from 1.
#[derive(Debug)]
pub struct Processes {
    replicas: Vec<Replica>,
    durable: bool,
    notices: Notices,
}

#[derive(Debug)]
struct Replica {
    id: u32,
    address: SocketAddr,
    /// What its process runs, where that is not this program.
    program: Option<PathBuf>,
    arguments: Vec<OsString>,
    /// Bound to its port as long as it has one, whether it runs or not, so that nobody else gets
    /// it. Where the system does not allow that, only until it runs for the first time.
    reserved: Option<TcpSocket>,
    state: State,
}

#[derive(Debug)]
enum State {
    Running(Box<Running>),
    Stopped,
    /// Its process ended, and nobody here told it to.
    Ended(ExitStatus),
}

/// A process that serves. It is killed when this is dropped.
#[derive(Debug)]
struct Running {
    child: Child,
    /// What it is told, and that it shall end where this is dropped.
    input: ChildStdin,
    /// What it answers to that.
    output: Lines<BufReader<ChildStdout>>,
    /// How many answers are still to come.
    unanswered: usize,
    /// Somebody here wants its end, so that it is no news.
    ending: Arc<AtomicBool>,
    /// Its end has been told.
    ended: Arc<AtomicBool>,
    paused: bool,
    delay: Duration,
}

impl Processes {
    /// Starts the replicas, and waits until all of them serve. Where one does not, the others are
    /// ended.
    pub async fn start(plan: Plan, notices: Notices) -> Result<Self, ReplicaError> {
        let reserved = reserve(plan.count, plan.listen)?;
        let peers: Vec<_> = reserved
            .iter()
            .map(|(id, address, _)| format!("{id}={address}"))
            .collect();
        let peers = peers.join(",");
        let arguments = |id: u32, address: SocketAddr| {
            let mut arguments: Vec<OsString> =
                ["serve", "--controlled", "--id"].map(Into::into).into();
            arguments.extend([id.to_string().into(), "--listen".into()]);
            arguments.extend([
                address.to_string().into(),
                "--peers".into(),
                peers.clone().into(),
            ]);
            if let Some(data) = &plan.data {
                arguments.extend(["--data".into(), data.into()]);
            }
            arguments
        };
        let replicas = reserved.into_iter().map(|(id, address, socket)| Replica {
            id,
            address,
            program: None,
            arguments: arguments(id, address),
            reserved: Some(socket),
            state: State::Stopped,
        });
        let mut processes = Self {
            replicas: replicas.collect(),
            durable: plan.data.is_some(),
            notices,
        };
        match processes.start_all().await {
            Ok(()) => Ok(processes),
            Err(error) => {
                processes.end().await;
                Err(error)
            }
        }
    }

    async fn start_all(&mut self) -> Result<(), ReplicaError> {
        let mut starting = JoinSet::new();
        for (place, replica) in self.replicas.iter_mut().enumerate() {
            let start = replica.start(&self.notices);
            starting.spawn(async move { (place, start.await) });
        }
        let mut first_error = None;
        let mut silence = std::pin::pin!(sleep(SILENCE));
        let mut told = false;
        loop {
            let started = tokio::select! {
                biased;
                started = starting.join_next() => started,
                () = &mut silence, if !told => {
                    told = true;
                    self.notices.progress(&format!("waiting for {}", self.missing()));
                    continue;
                }
            };
            let Some(started) = started else {
                return first_error.map_or(Ok(()), Err);
            };
            let (place, started) = started.expect("it neither panics nor is aborted");
            match started {
                Ok(running) => {
                    self.replicas[place].state = State::Running(Box::new(running));
                }
                // The others may have no other cause, and end by themselves.
                Err(error) if first_error.is_none() => first_error = Some(error),
                Err(_) => {}
            }
        }
    }

    /// Those that do not serve yet.
    fn missing(&self) -> String {
        let missing: Vec<_> = self
            .replicas
            .iter()
            .filter(|replica| matches!(replica.state, State::Stopped))
            .map(|replica| replica.id.to_string())
            .collect();
        let noun = if missing.len() == 1 {
            "replica"
        } else {
            "replicas"
        };
        format!("{noun} {} to start", missing.join(", "))
    }

    fn replica(&mut self, id: u32) -> Result<&mut Replica, ReplicaError> {
        let count = self.replicas.len();
        let found = self.replicas.iter_mut().find(|replica| replica.id == id);
        found.ok_or(ReplicaError::Unknown { id, count })
    }

    /// The addresses of the replicas, with their ids.
    pub fn addresses(&self) -> impl Iterator<Item = (u32, SocketAddr)> {
        self.replicas
            .iter()
            .map(|replica| (replica.id, replica.address))
    }

    /// Whether they have files.
    pub fn are_durable(&self) -> bool {
        self.durable
    }

    /// Does something to a replica.
    pub async fn act(&mut self, id: u32, action: Action) -> Result<(), ReplicaError> {
        let notices = self.notices.clone();
        let replica = self.replica(id)?;
        replica.look().await;
        match action {
            Action::Start => {
                if let State::Running(_) = replica.state {
                    return Err(ReplicaError::Running(id));
                }
                replica.state = State::Running(Box::new(replica.start(&notices).await?));
                Ok(())
            }
            Action::Stop => replica.kill().await,
            Action::Pause => {
                let running = replica.running()?;
                if running.paused {
                    return Err(ReplicaError::Paused(id));
                }
                running.pause().await.map_err(failed(id, "paused"))?;
                running.paused = true;
                Ok(())
            }
            Action::Resume => {
                let running = replica.running()?;
                if !running.paused {
                    return Err(ReplicaError::NotPaused(id));
                }
                running.resume().map_err(failed(id, "resumed"))?;
                running.paused = false;
                running.settle().await.map_err(failed(id, "slowed down"))
            }
            Action::Delay(delay) => {
                let running = replica.running()?;
                let told = running.tell_delay(delay).await;
                told.map_err(failed(id, "slowed down"))
            }
        }
    }

    /// Lets a replica end by itself, and starts it again from this program, a copy of this one or
    /// another version, which it is from now on: a rolling upgrade does so with one after the other.
    ///
    /// # Errors
    ///
    /// Where it does not run, does not end well and in time, or does not start again.
    pub async fn replace(&mut self, id: u32, program: PathBuf) -> Result<(), ReplicaError> {
        let notices = self.notices.clone();
        let replica = self.replica(id)?;
        replica.look().await;
        let running = match std::mem::replace(&mut replica.state, State::Stopped) {
            State::Running(running) => running,
            not_running => {
                replica.state = not_running;
                return Err(ReplicaError::Stopped(id));
            }
        };
        if !running.end().await {
            let cause = io::Error::other("it has failed, or had to be killed");
            return Err(failed(id, "ended")(cause));
        }
        replica.program = Some(program);
        replica.state = State::Running(Box::new(replica.start(&notices).await?));
        Ok(())
    }

    /// What was done to a replica, in a few words.
    pub async fn condition(&mut self, id: u32) -> Option<Condition> {
        let replica = self.replica(id).ok()?;
        replica.look().await;
        Some(match &replica.state {
            State::Stopped => Condition::Stopped,
            State::Ended(status) => Condition::Ended(*status),
            State::Running(running) => Condition::Running {
                paused: running.paused,
                delay: running.delay,
                process: running.child.id(),
                // It tells that by itself.
                trouble: None,
            },
        })
    }

    /// Lets all of them end, and kills those that do not.
    pub async fn end(self) {
        let mut ending = JoinSet::new();
        for replica in self.replicas {
            if let State::Running(running) = replica.state {
                ending.spawn(running.end());
            }
        }
        ending.join_all().await;
    }
}

/// Sockets bound to the address of each replica, which stays its own however long it takes to
/// start.
fn reserve(
    count: u32,
    listen: SocketAddr,
) -> Result<Vec<(u32, SocketAddr, TcpSocket)>, ReplicaError> {
    let first = listen.port();
    let ports = u32::from(first) + count - 1;
    if ports > u16::MAX.into() {
        return Err(ReplicaError::Ports { first, count });
    }
    let reserve = |id: u32| {
        let mut address = listen;
        if first != 0 {
            address.set_port(first + u16::try_from(id - 1).expect("the last port was looked at"));
        }
        let bound = || {
            if address.port() != 0 {
                // The user's other replicas may share it with us, which is not what they are to do.
                drop(std::net::TcpListener::bind(address)?);
            }
            let socket = bind(address)?;
            Ok((id, socket.local_addr()?, socket))
        };
        bound().map_err(|cause| ReplicaError::Listen { id, address, cause })
    };
    (1..=count).map(reserve).collect()
}

fn failed(id: u32, what: &'static str) -> impl FnOnce(io::Error) -> ReplicaError {
    move |cause| ReplicaError::Process { id, what, cause }
}

impl Replica {
    fn running(&mut self) -> Result<&mut Running, ReplicaError> {
        match &mut self.state {
            State::Running(running) => Ok(running),
            State::Stopped | State::Ended(_) => Err(ReplicaError::Stopped(self.id)),
        }
    }

    /// Notices that its process has ended.
    async fn look(&mut self) {
        if let State::Running(running) = &mut self.state {
            let status = match running.ended.load(Ordering::Relaxed) {
                // Its pipes end a moment before it does.
                true => running.child.wait().await.map(Some),
                false => running.child.try_wait(),
            };
            if let Ok(Some(status)) = status {
                self.state = State::Ended(status);
            }
        }
    }

    /// Starts its process. The result comes when it serves.
    fn start(
        &mut self,
        notices: &Notices,
    ) -> impl Future<Output = Result<Running, ReplicaError>> + Send + use<> {
        // Elsewhere the port is not to be had while it is held here.
        if cfg!(not(unix)) {
            self.reserved = None;
        }
        let id = self.id;
        let spawned = spawn(self.program.as_deref(), &self.arguments);
        let notices = notices.clone();
        async move { Running::serving(id, spawned.map_err(failed(id, "started"))?, notices).await }
    }

    /// Kills its process, as `kill -9` does.
    async fn kill(&mut self) -> Result<(), ReplicaError> {
        let id = self.id;
        let running = self.running()?;
        running.ending.store(true, Ordering::Relaxed);
        running.child.kill().await.map_err(failed(id, "killed"))?;
        self.state = State::Stopped;
        Ok(())
    }
}

/// This program or the one that is named, with these arguments.
fn spawn(program: Option<&Path>, arguments: &[OsString]) -> io::Result<Child> {
    let mut command = match program {
        Some(program) => Command::new(program),
        None => Command::new(std::env::current_exe()?),
    };
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    // So Ctrl-C at a terminal is for this process only, and the system ends a paused one when this
    // process has ended: nobody else could ever let it go on.
    #[cfg(unix)]
    command.process_group(0);
    command.spawn()
}

impl Running {
    /// Waits until it serves, or has ended.
    async fn serving(id: u32, mut child: Child, notices: Notices) -> Result<Self, ReplicaError> {
        const PIPED: &str = "it is piped";
        let input = child.stdin.take().expect(PIPED);
        let mut output = BufReader::new(child.stdout.take().expect(PIPED)).lines();
        let mut messages = BufReader::new(child.stderr.take().expect(PIPED)).lines();
        if output
            .next_line()
            .await
            .map_err(failed(id, "started"))?
            .is_none()
        {
            let mut text = String::new();
            while let Ok(Some(line)) = messages.next_line().await {
                text.push_str(&line);
                text.push('\n');
            }
            let status = child.wait().await.map_err(failed(id, "started"))?;
            return Err(ReplicaError::Start { id, status, text });
        }
        let ending = Arc::new(AtomicBool::new(false));
        let ended = Arc::new(AtomicBool::new(false));
        let (ending_seen, at_end) = (Arc::clone(&ending), Arc::clone(&ended));
        tokio::spawn(async move {
            while let Ok(Some(line)) = messages.next_line().await {
                notices.show(&format!("replica {id}: {line}"));
            }
            at_end.store(true, Ordering::Relaxed);
            if !ending_seen.load(Ordering::Relaxed) {
                let text = format!("replica {id} has ended; \"start {id}\" starts it again");
                notices.show(&text);
            }
        });
        Ok(Self {
            child,
            input,
            output,
            unanswered: 0,
            ending,
            ended,
            paused: false,
            delay: Duration::ZERO,
        })
    }

    /// Tells it to answer late. A paused one reads that when it goes on.
    async fn tell_delay(&mut self, delay: Duration) -> io::Result<()> {
        let line = format!("delay {}\n", delay.as_millis());
        self.unanswered += 1;
        self.input.write_all(line.as_bytes()).await?;
        self.delay = delay;
        if self.paused {
            return Ok(());
        }
        self.settle().await
    }

    /// Waits until it has done what it was told.
    async fn settle(&mut self) -> io::Result<()> {
        while self.unanswered > 0 {
            if self.output.next_line().await?.is_none() {
                return Err(io::Error::other("it has ended"));
            }
            self.unanswered -= 1;
        }
        Ok(())
    }

    /// Lets it end, and kills it if that takes too long. Whether it has ended by itself, and well.
    async fn end(mut self) -> bool {
        self.ending.store(true, Ordering::Relaxed);
        if self.paused {
            // Where that fails it has ended.
            let _ = self.resume();
        }
        drop(self.input);
        let ended = timeout(ENDING, self.child.wait()).await;
        if ended.is_err() {
            // As above.
            let _ = self.child.kill().await;
        }
        matches!(ended, Ok(Ok(status)) if status.success())
    }

    /// Returns when it does nothing any more. Where this process ends before that, the system would
    /// not see that somebody has to let it go on.
    #[cfg(unix)]
    async fn pause(&self) -> io::Result<()> {
        use rustix::process::{Signal, WaitId, WaitIdOptions, kill_process, waitid};

        let process = self.process()?;
        kill_process(process, Signal::STOP)?;
        let stopped = move || {
            // Whoever wants its exit status still gets it.
            let options = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            waitid(WaitId::Pid(process), options)
        };
        let stopped = tokio::task::spawn_blocking(stopped).await;
        stopped.expect("it neither panics nor is aborted")?;
        Ok(())
    }

    #[cfg(unix)]
    fn resume(&self) -> io::Result<()> {
        use rustix::process::{Signal, kill_process};

        Ok(kill_process(self.process()?, Signal::CONT)?)
    }

    /// Its number, which is nobody else's until somebody has waited for it.
    #[cfg(unix)]
    fn process(&self) -> io::Result<rustix::process::Pid> {
        let id = self.child.id().map(u32::cast_signed);
        let id = id.and_then(rustix::process::Pid::from_raw);
        id.ok_or_else(|| io::Error::other("it has ended"))
    }

    #[cfg(not(unix))]
    async fn pause(&self) -> io::Result<()> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this system has no signal for it; replicas without processes of their own can be paused",
        ))
    }

    #[cfg(not(unix))]
    fn resume(&self) -> io::Result<()> {
        Ok(())
    }
}
