//! The servers that are called: in this process, in processes of their own, or elsewhere.

use std::convert::Infallible;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::serve::{self, Order};
use crate::service::Ailment;
use crate::usage::Usage;
use crate::{by_hand, runtime, secure};

/// Where servers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// In this process, on the runtime of the client.
    Here,
    /// In this process, on a runtime of their own with so many threads.
    Apart { threads: usize },
    /// Each in a process of its own, with so many threads.
    Processes(Program),
    /// At these addresses, started by somebody else.
    Remote(Vec<String>),
}

/// What each server's process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    /// Another program that takes the same orders, in place of this one.
    pub(crate) path: Option<PathBuf>,
    /// How many threads it has, where it is this one.
    pub(crate) threads: usize,
    /// Each of its threads is a runtime of its own.
    pub(crate) runtime_per_thread: bool,
}

impl Program {
    /// This one, with so many threads of one runtime.
    pub(crate) fn own(threads: usize) -> Self {
        Self {
            path: None,
            threads,
            runtime_per_thread: false,
        }
    }
}

/// What servers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The benchmark service.
    Library,
    /// The same, and each one knows the others.
    Peers,
    /// The benchmark service of a replica that something ails.
    Ailing(Ailment),
    /// The floor's protocol.
    Floor,
    /// Unary calls, by tonic.
    Tonic,
}

impl Role {
    /// What a server is told that has this id among these, from 1 on.
    fn order(self, payload: usize, id: u32, addresses: &[String]) -> Order {
        match self {
            Self::Library => Order::Serve { payload },
            Self::Ailing(ailment) => Order::ServeAiling { payload, ailment },
            Self::Peers => Order::ServePeers {
                payload,
                id,
                addresses: addresses.to_vec(),
            },
            Self::Floor => Order::Floor,
            Self::Tonic => Order::Tonic { payload },
        }
    }
}

/// Running servers, which end when this is dropped.
#[derive(Debug)]
pub(crate) struct Servers {
    addresses: Vec<String>,
    payload: usize,
    running: Running,
}

#[derive(Debug)]
enum Running {
    Here {
        tasks: Vec<JoinHandle<()>>,
        /// Where they run, if not on the runtime of the client.
        apart: Option<Apart>,
    },
    Processes {
        children: Vec<Process>,
        program: Program,
    },
    Remote,
}

impl Servers {
    /// Starts so many servers, for payloads up to so many bytes. Must be called inside the runtime
    /// that is to serve, where they are here.
    pub(crate) async fn start(
        place: &Place,
        role: Role,
        nodes: usize,
        payload: usize,
    ) -> Result<Self> {
        Self::start_each(place, &vec![role; nodes], payload).await
    }

    /// The same, where each has a role of its own.
    pub(crate) async fn start_each(place: &Place, roles: &[Role], payload: usize) -> Result<Self> {
        match place {
            Place::Here => Self::here(None, roles, payload).await,
            Place::Apart { threads } => {
                let apart = Apart::start(*threads).await?;
                Self::here(Some(apart), roles, payload).await
            }
            Place::Processes(program) => Self::processes(program, roles, payload),
            Place::Remote(addresses) => {
                if !roles
                    .iter()
                    .all(|role| matches!(role, Role::Library | Role::Peers))
                {
                    bail!("remote servers have the benchmark service, and no other");
                }
                Ok(Self {
                    addresses: addresses.clone(),
                    payload,
                    running: Running::Remote,
                })
            }
        }
    }

    async fn here(apart: Option<Apart>, roles: &[Role], payload: usize) -> Result<Self> {
        let roles = roles.to_vec();
        // Listeners, servers and the connections of peers belong to the runtime in which they are
        // made.
        let starting = async move {
            let mut listeners = Vec::new();
            let mut addresses = Vec::new();
            for _ in &roles {
                let listener = by_hand::listen("127.0.0.1:0").await?;
                addresses.push(listener.local_addr()?.to_string());
                listeners.push(listener);
            }
            let mut tasks = Vec::new();
            for (id, (role, listener)) in (1..).zip(roles.into_iter().zip(listeners)) {
                tasks.push(serve::start(
                    listener,
                    &role.order(payload, id, &addresses),
                    &[],
                )?);
            }
            anyhow::Ok((addresses, tasks))
        };
        let (addresses, tasks) = Apart::run(apart.as_ref(), starting).await?;
        Ok(Self {
            addresses,
            payload,
            running: Running::Here { tasks, apart },
        })
    }

    fn processes(program: &Program, roles: &[Role], payload: usize) -> Result<Self> {
        let mut children = Vec::new();
        let mut addresses = Vec::new();
        for _ in roles {
            let child = Process::start("127.0.0.1:0", program)?;
            addresses.push(child.address.clone());
            children.push(child);
        }
        for (id, (role, child)) in (1..).zip(roles.iter().zip(&mut children)) {
            child.order(&role.order(payload, id, &addresses))?;
        }
        Ok(Self {
            addresses,
            payload,
            running: Running::Processes {
                children,
                program: program.clone(),
            },
        })
    }

    /// The benchmark service in one process, which listens at this address.
    pub(crate) fn one_process(program: &Program, listen: &str, payload: usize) -> Result<Self> {
        let mut child = Process::start(listen, program)?;
        child.order(&Order::Serve { payload })?;
        Ok(Self {
            addresses: vec![child.address.clone()],
            payload,
            running: Running::Processes {
                children: vec![child],
                program: program.clone(),
            },
        })
    }

    pub(crate) fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// What the first so many servers with processes of their own have used so far; `None` where
    /// there are none, or where it is not known.
    pub(crate) fn usage(&mut self, count: usize) -> Result<Option<Usage>> {
        let Running::Processes { children, .. } = &mut self.running else {
            return Ok(None);
        };
        let mut total = Usage {
            cpu_ns: 0,
            peak_bytes: 0,
            resident_bytes: Some(0),
        };
        for child in children.iter_mut().take(count) {
            let Some(one) = child.usage()? else {
                return Ok(None);
            };
            total.cpu_ns += one.cpu_ns;
            total.peak_bytes += one.peak_bytes;
            total.resident_bytes = total
                .resident_bytes
                .zip(one.resident_bytes)
                .map(|(total, one)| total + one);
        }
        Ok(Some(total))
    }

    /// Stops the process of a server without ending it: it neither answers nor goes away.
    #[cfg(unix)]
    pub(crate) fn pause(&self, server: usize) -> Result<()> {
        use nix::sys::signal::{Signal, kill};
        use nix::unistd::Pid;

        let Running::Processes { children, .. } = &self.running else {
            bail!("only a server in a process of its own can be stopped");
        };
        let id = i32::try_from(children[server].child.id()).context("the id of a process")?;
        kill(Pid::from_raw(id), Signal::SIGSTOP).context("stopping a server")
    }

    /// Stops the process of a server without ending it: it neither answers nor goes away.
    #[cfg(not(unix))]
    pub(crate) fn pause(&self, _server: usize) -> Result<()> {
        bail!("a process can be stopped on Unix only");
    }

    /// Ends a server at once, as a crash does.
    pub(crate) async fn kill(&mut self, server: usize) -> Result<()> {
        match &mut self.running {
            Running::Here { tasks, .. } => {
                tasks[server].abort();
                // It has been told to end, so that it did is no news.
                let _ = (&mut tasks[server]).await;
                Ok(())
            }
            Running::Processes { children, .. } => children[server].kill(),
            Running::Remote => bail!("a remote server cannot be ended from here"),
        }
    }

    /// Starts a server again that was killed, at its old address. It listens when this returns.
    pub(crate) async fn restart(&mut self, server: usize) -> Result<()> {
        let address = &self.addresses[server];
        match &mut self.running {
            Running::Here { tasks, apart } => {
                let (address, payload) = (address.clone(), self.payload);
                let starting = async move {
                    let listener = by_hand::listen(&address).await?;
                    serve::start(listener, &Order::Serve { payload }, &[])
                };
                tasks[server] = Apart::run(apart.as_ref(), starting).await?;
            }
            Running::Processes { children, program } => {
                let mut child = Process::start(address, program)?;
                child.order(&Order::Serve {
                    payload: self.payload,
                })?;
                children[server] = child;
            }
            Running::Remote => bail!("a remote server cannot be started from here"),
        }
        Ok(())
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        if let Running::Here { tasks, .. } = &self.running {
            for task in tasks {
                task.abort();
            }
        }
    }
}

/// A runtime of servers alone, in threads of its own. They have ended when this is dropped.
#[derive(Debug)]
struct Apart {
    handle: Handle,
    /// Nothing is sent: that it is gone ends the runtime.
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Apart {
    async fn start(threads: usize) -> Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (started, start) = oneshot::channel();
        // The thread makes its runtime and drops it, which no thread of another runtime may do.
        let serve = move || {
            let runtime = match runtime(threads) {
                Ok(runtime) => runtime,
                Err(error) => {
                    // Where nobody waits for it any more, nobody wants to know.
                    let _ = started.send(Err(error));
                    return;
                }
            };
            if started.send(Ok(runtime.handle().clone())).is_ok() {
                // It ends with an error, since nothing is sent.
                let _ = runtime.block_on(stopped);
            }
        };
        let thread = thread::Builder::new().name("servers".to_owned());
        let thread = thread
            .spawn(serve)
            .context("the thread of the servers cannot be started")?;
        let handle = start
            .await
            .context("the thread of the servers has ended; what it printed says why")??;
        Ok(Self {
            handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Runs something on the runtime of servers, which is the present one where they have none of
    /// their own.
    async fn run<T: Send + 'static>(
        apart: Option<&Self>,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match apart {
            None => work.await,
            Some(apart) => {
                let done = apart.handle.spawn(work).await;
                done.context("the runtime of the servers")?
            }
        }
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Servers wait for nothing but the network, so that their runtime ends at once. Were
            // there a panic, it has been printed.
            let _ = thread.join();
        }
    }
}

/// A server in a process of its own. It answers a line on its standard input with a line on its
/// standard output.
#[derive(Debug)]
struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    address: String,
}

impl Process {
    fn start(listen: &str, program: &Program) -> Result<Self> {
        let path = match &program.path {
            Some(path) => path.clone(),
            None => std::env::current_exe().context("where this program is")?,
        };
        let mut child = Command::new(path)
            .args(["serve", "--child", "--listen", listen])
            .args(["--threads", &program.threads.to_string()])
            .args(program.runtime_per_thread.then_some("--runtime-per-thread"))
            .envs(secure::for_child())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("a server cannot be started")?;
        let input = child.stdin.take().context("standard input is piped")?;
        let output = child.stdout.take().context("standard output is piped")?;
        let mut process = Self {
            child,
            input,
            output: BufReader::new(output),
            address: String::new(),
        };
        let line = process.line()?;
        let Some(address) = line.strip_prefix("listening ") else {
            bail!("a server said {line:?} and not where it listens");
        };
        process.address = address.to_owned();
        Ok(process)
    }

    fn order(&mut self, order: &Order) -> Result<()> {
        let line = self.ask(&order.line())?;
        if line != "serving" {
            bail!("a server said {line:?} and not that it serves");
        }
        Ok(())
    }

    fn usage(&mut self) -> Result<Option<Usage>> {
        let line = self.ask("usage")?;
        serde_json::from_str(&line).with_context(|| format!("a server said {line:?}"))
    }

    fn ask(&mut self, question: &str) -> Result<String> {
        writeln!(self.input, "{question}").context("a server has ended")?;
        self.line()
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output
            .read_line(&mut line)
            .context("reading from a server")?;
        if line.is_empty() {
            bail!("a server has ended; what it printed says why");
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }

    fn kill(&mut self) -> Result<()> {
        self.child.kill().context("ending a server")?;
        self.child.wait().context("waiting for a server")?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A process that has ended already is what is wanted.
        let _ = self.kill();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn servers_apart_have_ended_with_their_threads_when_they_are_dropped() {
        for threads in [1, 2] {
            for role in [Role::Library, Role::Peers, Role::Floor, Role::Tonic] {
                let servers = Servers::start(&Place::Apart { threads }, role, 2, 0).await;
                let servers = servers.expect("servers start");
                let Running::Here {
                    apart: Some(apart), ..
                } = &servers.running
                else {
                    panic!("{servers:?} are not apart");
                };
                // Its task has one end of this until the runtime is no more.
                let (held, ended) = mpsc::channel::<()>();
                let thread = Apart::run(Some(apart), async move {
                    tokio::spawn(async move {
                        let _held = held;
                        std::future::pending::<()>().await;
                    });
                    Ok(thread::current().id())
                });
                assert_ne!(thread.await.expect("it runs"), thread::current().id());
                let address = servers.addresses()[0].clone();
                TcpStream::connect(&address).await.expect("it listens");
                assert_eq!(ended.try_recv(), Err(mpsc::TryRecvError::Empty));

                drop(servers);

                assert_eq!(ended.try_recv(), Err(mpsc::TryRecvError::Disconnected));
                let refused = TcpStream::connect(&address).await;
                refused.expect_err("nobody listens");
            }
        }
    }

    #[tokio::test]
    async fn a_server_apart_is_restarted_at_its_address() {
        let servers = Servers::start(&Place::Apart { threads: 1 }, Role::Library, 1, 0).await;
        let mut servers = servers.expect("starts");
        let address = servers.addresses()[0].clone();
        servers.kill(0).await.expect("it can be ended");
        let refused = TcpStream::connect(&address).await;
        refused.expect_err("nobody listens");
        servers.restart(0).await.expect("it can be started again");
        TcpStream::connect(&address)
            .await
            .expect("it listens again");
    }
}
