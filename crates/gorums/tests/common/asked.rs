//! A server that notes what it is asked, and answers when a test lets it.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::sync::{Arc, Mutex};

use gorums::call::{Rpc, Unary};
use gorums::{
    Client, Code, Configuration, ConfigurationBuilder, Outcome, ReplySender, Server, ServerBuilder,
    ServerCtx, Status,
};
use tokio::sync::watch;

use crate::common::{Counter, Number, TestServer, within};
use crate::memory::Network;

pub const ECHO: &str = "test.Test.Echo";
/// Is answered when the gate is open.
pub const ASK: &str = "test.Test.Ask";
/// Sends a reply where its value is odd, and the last one when the gate is open.
pub const STREAM: &str = "test.Test.Stream";
/// Has no answer.
pub const NOTE: &str = "test.Test.Note";
/// Ends the connection that it came on.
pub const BREAK: &str = "test.Test.Break";

pub const NODE: &str = "node:1";
/// A payload that HTTP/2 passes on by reference: it is written when the socket takes it.
pub const LARGE: usize = 1024;

/// What servers of one node are asked, in order, and whether they answer.
#[derive(Clone)]
pub struct Asked {
    pub values: Arc<Mutex<Vec<u64>>>,
    pub count: Counter,
    pub gate: Arc<watch::Sender<bool>>,
}

impl Asked {
    pub fn new() -> Self {
        Self {
            values: Arc::default(),
            count: Counter::new(),
            gate: Arc::new(watch::Sender::new(false)),
        }
    }

    pub fn add(&self, value: u64) {
        self.values.lock().expect("no panic").push(value);
        self.count.add();
    }

    /// What was asked since the last time.
    pub fn taken(&self) -> Vec<u64> {
        std::mem::take(&mut *self.values.lock().expect("no panic"))
    }

    pub fn close(&self) {
        self.gate.send_replace(false);
    }

    pub fn open(&self) {
        self.gate.send_replace(true);
    }

    pub async fn opened(&self) -> Result<(), Status> {
        let mut gate = self.gate.subscribe();
        let opened = gate.wait_for(|is_open| *is_open).await;
        opened
            .map(|_| ())
            .map_err(|_| Status::internal("the test is over"))
    }

    pub fn server(&self, network: &Network) -> ServerBuilder {
        let [echoed, asked, streamed, noted, broken] = [(); 5].map(|()| self.clone());
        let net = network.clone();
        Server::builder()
            .transport(network.clone())
            .unary(ECHO, move |_ctx, request: Number| {
                echoed.add(request.value);
                async move { Ok::<_, Status>(request) }
            })
            .unary(ASK, move |ctx: ServerCtx, request: Number| {
                asked.add(request.value);
                ctx.release();
                let asked = asked.clone();
                async move { asked.opened().await.map(|()| request) }
            })
            .streaming(
                STREAM,
                move |ctx: ServerCtx, request: Number, replies: ReplySender<Number>| {
                    streamed.add(request.value);
                    ctx.release();
                    let streamed = streamed.clone();
                    async move {
                        if request.value % 2 == 1 {
                            let _ = replies.send(request.clone()).await;
                        }
                        streamed.opened().await?;
                        let _ = replies.send(request).await;
                        Ok(())
                    }
                },
            )
            .one_way(NOTE, move |_ctx, request: Number| {
                noted.add(request.value);
                async {}
            })
            .unary(BREAK, move |_ctx, request: Number| {
                broken.add(request.value);
                net.cut(NODE);
                std::future::pending::<Result<Number, Status>>()
            })
    }

    pub async fn serve(&self, network: &Network, address: &str) -> TestServer {
        TestServer::start_at(self.server(network), address).await
    }
}

pub fn large(value: u64) -> Number {
    Number {
        value,
        payload: vec![0; LARGE].into(),
    }
}

pub fn builder(network: &Network) -> ConfigurationBuilder {
    Configuration::builder().transport(network.clone())
}

pub fn connect(builder: ConfigurationBuilder) -> (Configuration, Client) {
    let all = builder.connect().expect("legal");
    let client = Client::new(&all);
    (all, client)
}

pub fn call(client: &Client, method: &'static str, value: u64) -> Rpc<Number, Number> {
    let node = client.configuration()[0].clone();
    client.rpc(&node, method, large(value))
}

pub async fn answered(call: Unary<Number>, value: u64) {
    let reply = within(call).await;
    assert_eq!(reply.expect("it is sent again").value, value);
}

pub async fn failed(call: Unary<Number>) -> (Outcome, Code) {
    let error = within(call).await.expect_err("it is not sent again");
    (error.outcome(), error.code())
}

pub const LOST: (Outcome, Code) = (Outcome::Unknown, Code::Unavailable);
