//! Clients that serve: what nodes ask of them goes to handlers that they were given.

use super::builder::ServerBuilder;
use crate::configuration::{ConfigurationBuilder, ConfigurationError};

impl ConfigurationBuilder {
    /// Answers calls that the nodes make back to this client, with these handlers: over the
    /// connections to them, and with nothing to listen on. Each node's calls start in the order in
    /// which it made them, and hold a turn and release it, as at a server. Of the builder's options
    /// those count that concern handlers, interceptors, limits, order, and the clock that handlers
    /// are given.
    ///
    /// Nodes find this client in [`ServerCtx::client_config`](crate::ServerCtx::client_config) and
    /// [`Server::clients`](crate::Server::clients). Without handlers they cannot call it. A process
    /// that is a server of its own system does not need this: see
    /// [`ServerBuilder::peers`](crate::ServerBuilder::peers).
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// use gorums::{Configuration, Server, ServerCtx};
    ///
    /// let handlers = Server::builder().one_way(
    ///     "demo.News.Changed",
    ///     |_ctx: ServerCtx, key: String| async move { println!("{key} has changed") },
    /// );
    /// let replicas = Configuration::builder()
    ///     .nodes(["10.0.0.1:8080", "10.0.0.2:8080"])
    ///     .serve(handlers)
    ///     .connect()?;
    /// # drop(replicas);
    /// # Ok(())
    /// # }
    /// ```
    pub fn serve(self, handlers: ServerBuilder) -> Self {
        let served = handlers.into_served();
        self.served(served.map_err(|error| ConfigurationError::Handlers {
            reason: error.to_string(),
        }))
    }
}
