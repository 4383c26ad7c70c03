//! Servers that are mounted within those of tonic.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use gorums::runtime::BoxFuture;
use gorums::server::{Clients, ConnectedPeers};
use gorums::tower::{GorumsService, PeerInfo};
use gorums::{Server, ServerBuilder};
use http::{Request, Response};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::server::{TcpConnectInfo, TcpIncoming};
use tonic_prost::ProstCodec;

use crate::common::{Number, number};

/// Longer than any test: a server that ends has not been cut off.
const GRACE: Duration = Duration::from_secs(600);

/// A service of tonic: it answers the number above.
#[derive(Clone)]
pub struct Above;

pub const ABOVE: &str = "/plain.Plain/Above";

impl tonic::server::UnaryService<Number> for Above {
    type Response = Number;
    type Future = Ready<Result<tonic::Response<Number>, tonic::Status>>;

    fn call(&mut self, request: tonic::Request<Number>) -> Self::Future {
        let above = number(request.get_ref().value + 1);
        ready(Ok(tonic::Response::new(above)))
    }
}

impl tonic::server::NamedService for Above {
    const NAME: &'static str = "plain.Plain";
}

impl tower_service::Service<Request<Body>> for Above {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::default());
            Ok(grpc.unary(Self, request).await)
        })
    }
}

/// Whose address tonic has told.
pub fn with_address(service: GorumsService) -> GorumsService {
    service.peer_info(|extensions| {
        let tcp = extensions.get::<TcpConnectInfo>();
        PeerInfo::new().with_addr(tcp.and_then(TcpConnectInfo::remote_addr))
    })
}

/// A server of tonic with a service of its own, and one of Gorums for all else.
pub struct Mounted {
    pub addr: SocketAddr,
    pub clients: Clients,
    pub peers: Option<ConnectedPeers>,
    stop: watch::Sender<(bool, bool)>,
    /// That of Gorums.
    pub serving: JoinHandle<()>,
    /// That of tonic.
    around: JoinHandle<()>,
}

impl Mounted {
    pub async fn start(builder: ServerBuilder) -> Self {
        Self::start_at(builder, "127.0.0.1:0").await
    }

    pub async fn start_at(builder: ServerBuilder, addr: &str) -> Self {
        let listener = TcpListener::bind(addr).await.expect("a free port");
        let (service, server) = builder.into_service().expect("it is sound");
        let routes = Routes::new(Above).into_axum_router();
        let routes = routes.fallback_service(with_address(service));
        Self::with(
            listener,
            server,
            routes.into(),
            tonic::transport::Server::builder(),
        )
    }

    pub fn with(
        listener: TcpListener,
        server: Server,
        routes: Routes,
        mut around: tonic::transport::Server,
    ) -> Self {
        let addr = listener.local_addr().expect("it listens");
        let (stop, stopped) = watch::channel((false, false));
        let told = |which: fn(&(bool, bool)) -> bool| {
            let mut stopped = stopped.clone();
            async move {
                let _ = stopped.wait_for(which).await;
            }
        };
        let (clients, peers) = (server.clients(), server.peers());
        let serving = tokio::spawn(server.serve_with_shutdown(told(|stop| stop.0), GRACE));
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let around = around
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, told(|stop| stop.1));
        let around = tokio::spawn(async move { around.await.expect("it serves") });
        Self {
            addr,
            clients,
            peers,
            stop,
            serving,
            around,
        }
    }

    /// Tells the server of Gorums to shut down, and that of tonic not to.
    pub fn stop_inner(&self) {
        self.stop.send_modify(|stop| stop.0 = true);
    }

    /// Tells both to shut down.
    pub fn stop(&self) {
        self.stop.send_replace((true, true));
    }

    /// Waits until both have.
    pub async fn stopped(mut self) {
        (&mut self.serving).await.expect("no panic");
        (&mut self.around).await.expect("no panic");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.serving.abort();
        self.around.abort();
    }
}
