//! Services beside those of Gorums on the same port: which of them answers at a path, and what it is
//! given.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response};
use tokio_util::sync::CancellationToken;

use super::grpc_call::batch_of;
use crate::error::Status;
use crate::handler::ConnectionInfo;
use crate::runtime::{BoxFuture, Clock};
use crate::wire::{Batch, http_code, speaks_grpc, trailers_only};

/// Answers requests at paths that are not Gorums'.
pub(super) trait Mounted: Send + Sync {
    /// Answers one, and is ready when all of the answer was written or nobody reads it.
    fn serve(&self, call: MountedCall) -> BoxFuture<'static, ()>;
}

/// A request whose head has come, and whose client was let in.
#[cfg_attr(
    not(feature = "tower"),
    expect(dead_code, reason = "what can be mounted is behind features")
)]
pub(super) struct MountedCall {
    pub(super) request: Request<RecvStream>,
    pub(super) respond: SendResponse<Batch>,
    pub(super) dialect: Dialect,
    pub(super) info: Arc<ConnectionInfo>,
    pub(super) clock: Arc<dyn Clock>,
    /// The caller's.
    pub(super) timeout: Option<Duration>,
    /// How long what is left of a request may take that was answered.
    pub(super) patience: Duration,
    /// Cancelled when the server shuts down.
    pub(super) stopping: CancellationToken,
    /// Whether the caller is told what a panic says.
    pub(super) expose_panics: bool,
}

/// What answers at which paths.
#[derive(Clone, Default)]
pub(crate) struct Mounts {
    /// At the paths of methods of these services of gRPC.
    services: Vec<(&'static str, Arc<dyn Mounted>)>,
    /// At all paths that nothing else answers at.
    fallback: Option<Arc<dyn Mounted>>,
}

impl Mounts {
    /// In the place of what was so before.
    #[cfg(feature = "tower")]
    pub(super) fn set_fallback(&mut self, service: impl Mounted + 'static) {
        self.fallback = Some(Arc::new(service));
    }

    /// At the paths of methods of a service of gRPC with this name.
    #[cfg(feature = "reflection")]
    pub(super) fn add(&mut self, name: &'static str, service: impl Mounted + 'static) {
        self.services.push((name, Arc::new(service)));
    }

    /// What answers at this path.
    pub(super) fn at(&self, path: &str) -> Option<&Arc<dyn Mounted>> {
        let service = path
            .strip_prefix('/')
            .and_then(|path| path.split_once('/'))
            .map(|(service, _)| service);
        let mut services = self.services.iter();
        let of_service = services.find(|(name, _)| Some(*name) == service);
        of_service
            .map(|(_, service)| service)
            .or(self.fallback.as_ref())
    }
}

/// How whoever asks understands a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Grpc,
    Http {
        /// The answer has no body.
        is_head: bool,
    },
}

impl Dialect {
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        if speaks_grpc(request.headers()) {
            return Self::Grpc;
        }
        Self::Http {
            is_head: request.method() == Method::HEAD,
        }
    }

    /// Answers that it was not done, and why.
    pub(super) fn refuse(self, status: &Status, respond: &mut SendResponse<Batch>) {
        // The peer may be gone already.
        match self {
            Self::Grpc => {
                let _ = respond.send_response(trailers_only(status), true);
            }
            Self::Http { is_head } => {
                let mut head = Response::new(());
                *head.status_mut() = http_code(status.as_error().code());
                let text = HeaderValue::from_static("text/plain; charset=utf-8");
                head.headers_mut().insert(CONTENT_TYPE, text);
                if let Ok(mut send) = respond.send_response(head, is_head)
                    && !is_head
                {
                    let text = Bytes::from(format!("{status}\n"));
                    let _ = send.send_data(batch_of(text), true);
                }
            }
        }
    }
}
