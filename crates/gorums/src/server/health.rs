//! The health service of gRPC, `grpc.health.v1.Health`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prost::{Enumeration, Message};

use crate::error::Status;
use crate::handler::{Registry, ReplySender, ServerCtx, Service};
use crate::sync::{Mutex, Notify};

pub(super) const NAME: &str = "grpc.health.v1.Health";

/// How many bytes a request may have.
const LONGEST_REQUEST: usize = 1024;

/// What a server tells of its services to whoever asks by `grpc.health.v1.Health`: probes of
/// Kubernetes, load balancers, clients of gRPC. Clones are the same.
///
/// A server that [has it](crate::ServerBuilder::health) tells of each of its services that it
/// [serves](ServingStatus::Serving), and so of the server as a whole, whose name is empty, until it
/// shuts down: from then on, or from [`stop`](Self::stop) on, nothing does, whatever was set.
///
/// ```no_run
/// # async fn run() -> Result<(), gorums::ServerError> {
/// use gorums::Server;
/// use gorums::server::{Health, ServingStatus};
///
/// let health = Health::new();
/// // Until what is on the disk has been read, say.
/// health.set("", ServingStatus::NotServing);
/// let server = Server::builder().health(&health).bind("0.0.0.0:8080").await?;
/// # let _ = server;
/// health.set("", ServingStatus::Serving);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Health(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    services: BTreeMap<String, ServingStatus>,
    is_stopped: bool,
}

/// Whether a service can be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Enumeration)]
#[repr(i32)]
#[non_exhaustive]
pub enum ServingStatus {
    /// It is not known whether it can.
    Unknown = 0,
    /// It can be called.
    Serving = 1,
    /// It should not be called now.
    NotServing = 2,
    /// There is no such service. Told to those who watch; it need not be set.
    ServiceUnknown = 3,
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(enumeration = "ServingStatus", tag = "1")]
    status: i32,
}

impl From<ServingStatus> for HealthCheckResponse {
    fn from(status: ServingStatus) -> Self {
        Self {
            status: status.into(),
        }
    }
}

impl Health {
    /// Nothing is known of any service yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says this of a service, by its full name, or of the server as a whole, whose name is empty.
    /// Those who watch it are told.
    pub fn set(&self, service: &str, status: ServingStatus) {
        self.change(|state| {
            state.services.insert(service.to_owned(), status);
        });
    }

    /// Says of all services that they do not serve, from now on and for ever: whoever watches is told,
    /// and no longer waits for more. A server that shuts down does so first of all. Before that it is
    /// of use where load balancers are to be told some time before.
    pub fn stop(&self) {
        self.change(|state| state.is_stopped = true);
    }

    /// What is said of a service. None where there is none of this name.
    #[must_use]
    pub fn get(&self, service: &str) -> Option<ServingStatus> {
        self.0.state.lock().get(service)
    }

    /// These services serve, unless something else was said of them.
    pub(crate) fn know<'a>(&self, services: impl Iterator<Item = &'a str>) {
        self.change(|state| {
            for service in services.chain([""]) {
                if !state.services.contains_key(service) {
                    let service = service.to_owned();
                    state.services.insert(service, ServingStatus::Serving);
                }
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.state.lock());
        self.0.changed.notify_waiters();
    }

    fn check(&self, service: &str) -> Result<HealthCheckResponse, Status> {
        match self.get(service) {
            Some(status) => Ok(status.into()),
            None => Err(Status::not_found("this server has no service of that name")),
        }
    }

    async fn watch(
        &self,
        ctx: &ServerCtx,
        service: &str,
        replies: &ReplySender<HealthCheckResponse>,
    ) -> Result<(), Status> {
        ctx.release();
        let mut told = None;
        loop {
            let mut changed = std::pin::pin!(self.0.changed.notified());
            // Listening begins before looking, so that no change falls between.
            changed.as_mut().enable();
            let (status, is_stopped) = {
                let state = self.0.state.lock();
                let status = state.get(service);
                let status = status.unwrap_or(ServingStatus::ServiceUnknown);
                (status, state.is_stopped)
            };
            if told != Some(status) {
                replies.send(status.into()).await?;
                told = Some(status);
            }
            if is_stopped {
                return Ok(());
            }
            tokio::select! {
                biased;
                () = ctx.cancelled() => return Ok(()),
                () = changed => {}
            }
        }
    }
}

impl State {
    fn get(&self, service: &str) -> Option<ServingStatus> {
        let status = *self.services.get(service)?;
        Some(if self.is_stopped {
            ServingStatus::NotServing
        } else {
            status
        })
    }
}

impl Service for Health {
    fn name(&self) -> &'static str {
        NAME
    }

    fn register(self, registry: &mut Registry) {
        // Who watches keeps the name, which nobody has checked.
        registry.limits(Some(LONGEST_REQUEST), None);
        let health = self.clone();
        registry.unary(
            format!("{NAME}.Check"),
            move |_: ServerCtx, request: HealthCheckRequest| {
                std::future::ready(health.check(&request.service))
            },
        );
        registry.streaming(
            format!("{NAME}.Watch"),
            move |ctx: ServerCtx, request: HealthCheckRequest, replies| {
                let health = self.clone();
                async move { health.watch(&ctx, &request.service, &replies).await }
            },
        );
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state.lock();
        f.debug_struct("Health")
            .field("services", &state.services)
            .field("is_stopped", &state.is_stopped)
            .finish()
    }
}
