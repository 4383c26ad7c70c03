//! Handlers that wait for the test, and count what they did.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::sync::{Arc, Mutex};

use gorums::{ServerBuilder, ServerCtx, Status};
use tokio::sync::Semaphore;

use crate::common::{Counter, Number};

pub const NOTE: &str = "test.Test.Note";
/// Is answered when the test says so. Releases where the number is odd.
pub const HOLD: &str = "test.Test.Hold";
/// Is answered when its caller has gone.
pub const WAIT: &str = "test.Test.Wait";

/// What handlers did, and what they wait for.
#[derive(Clone)]
pub struct Handlers {
    pub started: Counter,
    pub noted: Counter,
    pub gone: Counter,
    pub gate: Arc<Semaphore>,
    /// The numbers of the requests that are held, in the order in which their handlers started.
    pub order: Arc<Mutex<Vec<u64>>>,
}

impl Handlers {
    pub fn new() -> Self {
        Self {
            started: Counter::new(),
            noted: Counter::new(),
            gone: Counter::new(),
            gate: Arc::new(Semaphore::new(0)),
            order: Arc::default(),
        }
    }

    /// Adds them to those that there are.
    pub fn add_to(&self, builder: ServerBuilder) -> ServerBuilder {
        let [held, noted, waited] = [self, self, self].map(Self::clone);
        builder
            .unary(HOLD, move |ctx: ServerCtx, request: Number| {
                let handlers = held.clone();
                async move {
                    let order = &handlers.order;
                    order.lock().expect("no panic").push(request.value);
                    if request.value % 2 == 1 {
                        ctx.release();
                    }
                    handlers.started.add();
                    handlers.gate.acquire().await.expect("open").forget();
                    Ok::<_, Status>(request)
                }
            })
            .one_way(NOTE, move |_: ServerCtx, _: Number| {
                noted.noted.add();
                std::future::ready(())
            })
            .unary(WAIT, move |ctx: ServerCtx, request: Number| {
                let handlers = waited.clone();
                async move {
                    ctx.release();
                    handlers.started.add();
                    ctx.cancelled().await;
                    handlers.gone.add();
                    Ok::<_, Status>(request)
                }
            })
    }
}
