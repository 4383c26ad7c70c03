//! `gorums-bench serve`: a server, for clients elsewhere or for the program that started it.

use std::io::{BufRead, Write};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use gorums::runtime::{Address, TcpAcceptor};
use gorums::{Configuration, Server, ServerBuilder};
use tokio::task::JoinHandle;

use crate::args::Serve;
use crate::proto::benchmark_server::BenchmarkServer;
use crate::proto::nested_server::NestedServer;
use crate::service::Replica;
use crate::usage::Usage;
use crate::{floor, runtime};

/// The larger of the library's limit and what an echo of so many bytes needs.
pub(crate) fn message_size(payload: usize) -> usize {
    (payload + 1024).max(4 * 1024 * 1024)
}

/// A server with the benchmark service.
pub(crate) fn builder(payload: usize) -> ServerBuilder {
    let replica = Arc::new(Replica::default());
    Server::builder()
        .max_decoding_message_size(message_size(payload))
        .add_service(BenchmarkServer::from_arc(Arc::clone(&replica)))
        .add_service(NestedServer::from_arc(replica))
}

/// Starts to serve what comes to the listener, in a task. With peers the server is one of them: the
/// one with this id, which counts from 1 on.
pub(crate) fn start(
    listener: TcpAcceptor,
    payload: usize,
    peers: Option<(u32, &[String])>,
) -> Result<JoinHandle<()>> {
    let mut builder = builder(payload);
    if let Some((id, addresses)) = peers {
        let peers = Configuration::builder()
            .nodes(addresses.iter().map(String::as_str))
            .max_decoding_message_size(message_size(payload))
            .connect()
            .context("the peers")?;
        builder = builder.peers(id, &peers);
    }
    let server = builder.with_incoming(listener)?;
    Ok(tokio::spawn(server.serve()))
}

/// What a parent that starts a server says to it first, and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// Serve, for payloads up to so many bytes.
    Serve { payload: usize },
    /// The same, as one of several peers.
    ServePeers {
        payload: usize,
        id: u32,
        addresses: Vec<String>,
    },
    /// Serve the floor's protocol.
    Floor,
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
            Self::Floor => "floor".to_owned(),
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
            ["floor"] => Self::Floor,
            _ => bail!("unknown command {line:?}"),
        })
    }
}

/// Serves until the process is told to end.
pub(crate) fn run(args: &Serve) -> Result<()> {
    let runtime = runtime(args.threads)?;
    if args.child {
        return child(&runtime, &args.listen);
    }
    runtime.block_on(async {
        let listener = TcpAcceptor::bind(&args.listen).await?;
        let address = address(&listener)?;
        let peers = args.id.map(|id| (id, args.peers.as_slice()));
        let mut serving = start(listener, args.payload, peers)?;
        println!("listening on {address}; Ctrl-C ends");
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted.context("waiting for Ctrl-C")?,
            ended = &mut serving => ended.context("the server")?,
        }
        Ok(())
    })
}

/// Does what the parent says, a line at a time, until there are no more lines. What is printed is
/// for the parent, too.
fn child(runtime: &tokio::runtime::Runtime, listen: &str) -> Result<()> {
    #[cfg(target_os = "linux")]
    // The end of standard input says the same, but not to a process that is stopped.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;

    let listener = runtime.block_on(TcpAcceptor::bind(listen))?;
    println!("listening {}", address(&listener)?);
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
        let serving = match Order::parse(&line)? {
            Order::Serve { payload } => start(listener, payload, None)?,
            Order::ServePeers {
                payload,
                id,
                addresses,
            } => start(listener, payload, Some((id, &addresses)))?,
            Order::Floor => tokio::spawn(floor::serve(listener)),
        };
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

fn address(listener: &TcpAcceptor) -> Result<Address> {
    gorums::runtime::Listener::local_addr(listener).context("the own address")
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
        ];
        for order in orders {
            let line = order.line();
            assert_eq!(Order::parse(&line).expect("an order"), order, "{line}");
        }
    }

    #[test]
    fn other_lines_are_no_orders() {
        for line in ["", "serve", "serve x", "serve 1 2", "sing", "floor 3"] {
            assert!(Order::parse(line).is_err(), "{line:?}");
        }
    }
}
