//! What a server costs that is mounted within one of tonic, beside one with a port of its own: CPU
//! time of the server for each call, and how many calls there were in a second. The server is a
//! process of its own, with one thread. CPU time is told on Linux alone.
//!
//! ```console
//! $ cargo run --release -p gorums --features tower --example mounted_cost
//! ```

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use gorums::{Client, Configuration, Server, ServerCtx, Status};
use http::uri::PathAndQuery;
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tonic::service::Routes;
use tonic::transport::Endpoint;
use tonic::transport::server::TcpIncoming;
use tonic_prost::ProstCodec;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const ECHO: &str = "test.Test.Echo";

/// Bytes of a message, how many calls at a time, and how many in all.
const CALLS: [(usize, u32, u32); 4] = [
    (16, 100, 400_000),
    (1024, 100, 300_000),
    (65_536, 16, 20_000),
    (1024, 1, 20_000),
];
const ORDINARY_CALLS: [(usize, u32, u32); 2] = [(1024, 50, 50_000), (1024, 1, 5_000)];

fn main() -> Result<()> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    match std::env::args().nth(1).as_deref() {
        Some(kind) => runtime.block_on(serve(kind == "mounted")),
        None => {
            for kind in ["with a port", "mounted"] {
                let server = Served::start(kind)?;
                runtime.block_on(measure(&server))?;
            }
            Ok(())
        }
    }
}

async fn serve(is_mounted: bool) -> Result<()> {
    let builder = Server::builder().unary(ECHO, |ctx: ServerCtx, text: String| async move {
        ctx.release();
        Ok::<_, Status>(text)
    });
    if !is_mounted {
        let server = builder.bind("127.0.0.1:0").await?;
        println!("{}", server.local_addr());
        server.serve().await;
        return Ok(());
    }
    let (service, server) = builder.into_service()?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    tokio::spawn(server.serve());
    let routes = Routes::default()
        .into_axum_router()
        .fallback_service(service);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let around = tonic::transport::Server::builder().add_routes(routes.into());
    Ok(around.serve_with_incoming(incoming).await?)
}

/// A server in a process of its own, which ends with this.
struct Served {
    kind: &'static str,
    process: Child,
    address: String,
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Served {
    fn start(kind: &'static str) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg(kind)
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take().ok_or("it is piped")?;
        let mut address = String::new();
        BufReader::new(output).read_line(&mut address)?;
        Ok(Self {
            kind,
            process,
            address: address.trim().to_owned(),
        })
    }

    /// The CPU time that it has taken, in hundredths of a second.
    fn cpu(&self) -> Option<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).ok()?;
        let (_, behind_the_name) = stat.rsplit_once(')')?;
        let mut fields = behind_the_name.split_whitespace().skip(11);
        let mut next = || fields.next()?.parse::<u64>().ok();
        Some(next()? + next()?)
    }

    /// Has so many callers make their calls, and tells what that took.
    async fn tell<F>(&self, what: &str, calls: u32, callers: Vec<F>) -> Result<()>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let (begin, before) = (Instant::now(), self.cpu());
        let mut callers: JoinSet<_> = callers.into_iter().collect();
        while let Some(ended) = callers.join_next().await {
            ended??;
        }
        let rate = f64::from(calls) / begin.elapsed().as_secs_f64();
        let cpu = match (before, self.cpu()) {
            (Some(before), Some(after)) => {
                let micros = (after - before) as f64 * 10_000.0 / f64::from(calls);
                format!(", {micros:.2} µs of CPU each")
            }
            _ => String::new(),
        };
        println!("{}: {what}: {rate:.0} calls/s{cpu}", self.kind);
        Ok(())
    }
}

async fn measure(server: &Served) -> Result<()> {
    let nodes = Configuration::builder()
        .nodes([&server.address])
        .connect()?;
    nodes.connected(1).await?;
    for (size, at_a_time, calls) in CALLS {
        let caller = |_| {
            let (client, node) = (Client::new(&nodes), nodes[0].clone());
            async move {
                let text = "x".repeat(size);
                for _ in 0..calls / at_a_time {
                    let call = client.rpc::<_, String>(&node, ECHO, text.clone());
                    call.await?;
                }
                Ok(())
            }
        };
        let what = format!("{size} bytes, {at_a_time} at a time");
        let callers = (0..at_a_time).map(caller).collect();
        server.tell(&what, calls, callers).await?;
    }
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address))?;
    let channel = endpoint.connect().await?;
    for (size, at_a_time, calls) in ORDINARY_CALLS {
        let caller = |_| {
            let mut client = tonic::client::Grpc::new(channel.clone());
            async move {
                for _ in 0..calls / at_a_time {
                    client.ready().await?;
                    let codec = ProstCodec::<String, String>::default();
                    let path = PathAndQuery::from_static("/test.Test/Echo");
                    let request = tonic::Request::new("x".repeat(size));
                    client.unary(request, path, codec).await?;
                }
                Ok(())
            }
        };
        let what = format!("ordinary calls, {size} bytes, {at_a_time} at a time");
        let callers = (0..at_a_time).map(caller).collect();
        server.tell(&what, calls, callers).await?;
    }
    Ok(())
}
