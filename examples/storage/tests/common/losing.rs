//! A replica that carries out requests and loses its answers, in the process of the test.
#![allow(dead_code, reason = "each test program uses its part")]

use std::sync::Arc;

use gorums::Server;
use gorums::server::{Incoming, Next, Service};
use storage::disk::Record;
use storage::store::Store;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The only replica of its store.
pub(crate) struct Losing<E> {
    pub(crate) store: Arc<Store<E>>,
    pub(crate) address: String,
    serving: JoinHandle<()>,
    /// How many requests have been carried out.
    done: watch::Receiver<u32>,
}

impl<E: Record> Losing<E> {
    /// Starts it with what serves this store. It answers so many requests; what comes then is carried
    /// out, and nobody is told.
    pub(crate) async fn start<S: Service>(
        store: Store<E>,
        serves: impl FnOnce(Arc<Store<E>>) -> S,
        address: &str,
        answers: u32,
    ) -> Self {
        let store = Arc::new(store);
        let (count, done) = watch::channel(0);
        let loses = move |incoming: Incoming, next: Next| {
            let count = count.clone();
            async move {
                let reply = next.run(incoming).await;
                let mut place = 0;
                count.send_modify(|count| {
                    place = *count;
                    *count += 1;
                });
                if place >= answers {
                    std::future::pending::<()>().await;
                }
                reply
            }
        };
        let server = Server::builder()
            .interceptor(loses)
            .add_service(serves(Arc::clone(&store)));
        let server = server.bind(address).await.expect("it is free");
        Self {
            store,
            address: server.local_addr().to_string(),
            serving: tokio::spawn(server.serve()),
            done,
        }
    }

    /// Waits until it has carried out so many requests.
    pub(crate) async fn has_done(&mut self, requests: u32) {
        let done = self.done.wait_for(|done| *done >= requests).await;
        done.expect("it runs");
    }

    /// Ends it without a word.
    pub(crate) async fn end(self) {
        self.serving.abort();
        let _ = self.serving.await;
        self.store.close().await;
    }
}
