//! `gorums-bench serve`: a server, for clients elsewhere or for the program that started it.

use std::io::{BufRead, Write};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use gorums::runtime::TcpAcceptor;
use gorums::{Server, ServerBuilder};
use tokio::net::TcpListener;
use tokio::runtime::{Handle, Runtime};
use tokio::task::JoinHandle;

use crate::args::Serve;
use crate::proto::benchmark_server::BenchmarkServer;
use crate::proto::nested_server::NestedServer;
use crate::service::{Ailment, Replica};
use crate::usage::Usage;
use crate::{by_hand, floor, runtime, secure};

/// The larger of the library's limit and what an echo of so many bytes needs.
pub(crate) fn message_size(payload: usize) -> usize {
    (payload + 1024).max(4 * 1024 * 1024)
}

/// A server with the benchmark service.
pub(crate) fn builder(payload: usize) -> ServerBuilder {
    with_service(payload, Replica::default())
}

fn with_service(payload: usize, replica: Replica) -> ServerBuilder {
    let replica = Arc::new(replica);
    Server::builder()
        .max_decoding_message_size(message_size(payload))
        .add_service(BenchmarkServer::from_arc(Arc::clone(&replica)))
        .add_service(NestedServer::from_arc(replica))
}

/// Starts to serve what comes to the listener, in a task: on these runtimes, where there are any.
pub(crate) fn start(
    listener: TcpListener,
    order: &Order,
    runtimes: &[Handle],
) -> Result<JoinHandle<()>> {
    let builder = match order {
        Order::Serve { payload } => builder(*payload),
        Order::ServeAiling { payload, ailment } => {
            with_service(*payload, Replica::ailing(*ailment))
        }
        Order::ServePeers {
            payload,
            id,
            addresses,
        } => {
            let peers = secure::configuration()
                .nodes(addresses.iter().map(String::as_str))
                .max_decoding_message_size(message_size(*payload))
                .connect()
                .context("the peers")?;
            builder(*payload).peers(*id, &peers)
        }
        Order::Floor => return Ok(tokio::spawn(floor::serve(listener.into()))),
        Order::Tonic { payload } => return Ok(tokio::spawn(by_hand::serve(listener, *payload))),
    };
    let builder = builder.runtimes(runtimes.iter().cloned());
    let listener = TcpAcceptor::from(listener);
    let server = match secure::tls() {
        None => builder.with_incoming(listener)?,
        Some(tls) => builder.with_incoming(tls.listener(listener)?)?,
    };
    Ok(tokio::spawn(server.serve()))
}

/// What a parent that starts a server says to it first, and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// Serve, for payloads up to so many bytes.
    Serve { payload: usize },
    /// The same, with an ailment.
    ServeAiling { payload: usize, ailment: Ailment },
    /// The same, as one of several peers: the one with this id, which counts from 1 on.
    ServePeers {
        payload: usize,
        id: u32,
        addresses: Vec<String>,
    },
    /// Serve the floor's protocol.
    Floor,
    /// Serve unary calls with tonic.
    Tonic { payload: usize },
}

impl Order {
    /// As a line.
    pub(crate) fn line(&self) -> String {
        match self {
            Self::Serve { payload } => format!("serve {payload}"),
            Self::ServePeers {
                payload,
                id,
                addresses,
            } => {
                format!("serve {payload} {id} {}", addresses.join(","))
            }
            Self::ServeAiling { payload, ailment } => match ailment {
                Ailment::Slow => format!("slow {payload}"),
                Ailment::StallingDisk => format!("stalling-disk {payload}"),
            },
            Self::Floor => "floor".to_owned(),
            Self::Tonic { payload } => format!("tonic {payload}"),
        }
    }

    fn parse(line: &str) -> Result<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        Ok(match words[..] {
            ["serve", payload] => Self::Serve {
                payload: payload.parse()?,
            },
            ["serve", payload, id, addresses] => Self::ServePeers {
                payload: payload.parse()?,
                id: id.parse()?,
                addresses: addresses.split(',').map(str::to_owned).collect(),
            },
            ["slow", payload] => Self::ServeAiling {
                payload: payload.parse()?,
                ailment: Ailment::Slow,
            },
            ["stalling-disk", payload] => Self::ServeAiling {
                payload: payload.parse()?,
                ailment: Ailment::StallingDisk,
            },
            ["floor"] => Self::Floor,
            ["tonic", payload] => Self::Tonic {
                payload: payload.parse()?,
            },
            _ => bail!("unknown command {line:?}"),
        })
    }
}

/// Serves until the process is told to end.
pub(crate) fn run(args: &Serve) -> Result<()> {
    let (runtime, runtimes) = if args.runtime_per_thread {
        let first = runtime(1)?;
        let mut runtimes = vec![first.handle().clone()];
        for _ in 1..args.threads {
            runtimes.push(apart()?);
        }
        (first, runtimes)
    } else {
        (runtime(args.threads)?, Vec::new())
    };
    if args.child {
        secure::as_parent()?;
        return child(&runtime, &runtimes, &args.listen);
    }
    runtime.block_on(async {
        let listener = by_hand::listen(&args.listen).await?;
        let address = listener.local_addr().context("the own address")?;
        let payload = args.payload;
        let order = match args.id {
            None => Order::Serve { payload },
            Some(id) => Order::ServePeers {
                payload,
                id,
                addresses: args.peers.clone(),
            },
        };
        let mut serving = start(listener, &order, &runtimes)?;
        println!("listening on {address}; Ctrl-C ends");
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted.context("waiting for Ctrl-C")?,
            ended = &mut serving => ended.context("the server")?,
        }
        Ok(())
    })
}

/// A runtime of one thread of its own, which ends with the process.
fn apart() -> Result<Handle> {
    let runtime = runtime(1)?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new()
        .name("connections".to_owned())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))
        .context("a thread cannot be started")?;
    Ok(handle)
}

/// Does what the parent says, a line at a time, until there are no more lines. What is printed is
/// for the parent, too.
fn child(runtime: &Runtime, runtimes: &[Handle], listen: &str) -> Result<()> {
    #[cfg(target_os = "linux")]
    // The end of standard input says the same, but not to a process that is stopped.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;

    let listener = runtime.block_on(by_hand::listen(listen))?;
    let address = listener.local_addr().context("the own address")?;
    println!("listening {address}");
    let (orders, mut order) = tokio::sync::mpsc::channel(1);
    // Lines are waited for in a thread, so that the runtime has the main one, as elsewhere.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if line == "usage" {
                tell_usage();
            } else if orders.blocking_send(line).is_err() {
                return;
            }
        }
    });
    runtime.block_on(async {
        let Some(line) = order.recv().await else {
            return Ok(());
        };
        let serving = start(listener, &Order::parse(&line)?, runtimes)?;
        println!("serving");
        if let Some(line) = order.recv().await {
            bail!("unknown command {line:?}");
        }
        serving.abort();
        Ok(())
    })
}

fn tell_usage() {
    let line = serde_json::to_string(&Usage::own()).expect("numbers can be written");
    let mut output = std::io::stdout().lock();
    // A parent that does not listen has gone, and the end of the input follows.
    let _ = writeln!(output, "{line}");
    let _ = output.flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_understood_as_it_was_meant() {
        let orders = [
            Order::Serve { payload: 1024 },
            Order::ServePeers {
                payload: 0,
                id: 2,
                addresses: vec!["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()],
            },
            Order::Floor,
            Order::Tonic { payload: 7 },
            Order::ServeAiling {
                payload: 0,
                ailment: Ailment::Slow,
            },
            Order::ServeAiling {
                payload: 1,
                ailment: Ailment::StallingDisk,
            },
        ];
        for order in orders {
            let line = order.line();
            assert_eq!(Order::parse(&line).expect("an order"), order, "{line}");
        }
    }

    #[test]
    fn other_lines_are_no_orders() {
        for line in [
            "",
            "serve",
            "serve x",
            "serve 1 2",
            "sing",
            "floor 3",
            "slow",
            "tonic x",
        ] {
            assert!(Order::parse(line).is_err(), "{line:?}");
        }
    }
}
