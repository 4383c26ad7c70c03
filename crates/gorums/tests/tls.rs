//! Connections with TLS: what is proven, and what is refused, by whom and how.
#![cfg(feature = "tls")]

#[path = "common/careless.rs"]
mod careless;
#[path = "common/certs.rs"]
mod certs;
mod common;
#[path = "common/dialled.rs"]
mod dialled;
#[path = "common/log.rs"]
mod log;
#[path = "common/memory.rs"]
mod memory;

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use certs::{Authority, Identity, uri};
use common::{Number, TestServer, echo, number, within};
use dialled::{call, dial, not_sent};
use gorums::membership::WhileDisconnected;
use gorums::runtime::{
    Address, BoxFuture, BoxIo, Handshake, Listener, Proven, Tcp, TcpAcceptor, Transport,
};
use gorums::server::{Incoming, Next, Roles, interceptor_fn};
use gorums::tls::{ClientCertificates, NodeUris, Pem, Tls, TlsBuilder, TlsError, TlsPeer};
use gorums::{
    Client, Code, Configuration, ConfigurationBuilder, NodeId, Outcome, Server, ServerBuilder,
    ServerCtx, ServerError, Status,
};
use log::Log;
use memory::{Network, settle};
use rcgen::{CertificateParams, SanType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, HandshakeKind, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tracing::Level;

const ECHO: &str = "test.Test.Echo";
/// Answers with the URI that the caller has proved to be.
const WHO: &str = "test.Test.Who";
/// Has a server ask all its clients who it is.
const ASK: &str = "test.Test.Ask";

const SERVER: &str = "gorums::server";
const CLIENT: &str = "gorums::client";

fn with(authority: &Authority, identity: Option<&Identity>) -> TlsBuilder {
    let builder = Tls::builder().trust(authority.pem());
    match identity {
        None => builder,
        Some(identity) => {
            let (certificate, key) = identity.pems();
            builder.identity(certificate, key)
        }
    }
}

fn tls(authority: &Authority, identity: Option<&Identity>) -> Tls {
    with(authority, identity).build().expect("sound")
}

fn mutual(authority: &Authority, identity: &Identity) -> Tls {
    with(authority, Some(identity))
        .client_certificates(ClientCertificates::Required)
        .build()
        .expect("sound")
}

fn name(peer: Option<&TlsPeer>) -> String {
    let uri = peer.and_then(|peer| peer.uris().next());
    uri.unwrap_or("nobody").to_owned()
}

/// Echoes, and says who the caller is.
fn service() -> ServerBuilder {
    echo().unary(WHO, |ctx: ServerCtx, (): ()| async move {
        Ok::<_, Status>(name(ctx.proven::<TlsPeer>()))
    })
}

async fn who(client: &Client) -> String {
    let node = &client.configuration()[0];
    let name = within(client.rpc::<(), String>(node, WHO, ())).await;
    name.expect("it is up")
}

/// Waits for a line of the server that says this.
async fn logged(log: &Log, text: &str) -> String {
    let mut told = Vec::new();
    let found = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            told.extend(log.told(&[SERVER]));
            if let Some(line) = told.iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    found.unwrap_or_else(|_| panic!("nobody has said {text:?}: {told:#?}"))
}

// ---- what is proven

#[tokio::test]
async fn calls_are_made_over_tls_and_the_server_knows_nothing_of_a_client_that_shows_nothing() {
    let authority = Authority::new("ours");
    let mut servers = Vec::new();
    for node in 1..=3 {
        let tls = tls(&authority, Some(&authority.node(node)));
        servers.push(TestServer::start(service().transport(tls)).await);
    }
    let configuration = Configuration::builder()
        .transport(tls(&authority, None))
        .nodes(servers.iter().map(|server| server.addr.to_string()))
        .connect()
        .expect("legal");
    let client = Client::new(&configuration);
    for value in 0..100 {
        let call = client.quorum_call::<Number, Number>(ECHO, number(value));
        let replies = within(call.all().replies()).await.expect("all are up");
        assert!(replies.values().all(|reply| reply.value == value));
    }
    let large = Number {
        value: 1,
        payload: vec![7; 3 << 20].into(),
    };
    let call = client.quorum_call::<Number, Number>(ECHO, large.clone());
    let replies = within(call.all().replies()).await.expect("all are up");
    assert!(replies.values().all(|reply| *reply == large));
    assert_eq!(who(&client).await, "nobody");
}

#[tokio::test]
async fn what_a_client_has_proved_reaches_the_connect_callback_interceptors_and_handlers() {
    let authority = Authority::new("ours");
    let server = service()
        .transport(mutual(&authority, &authority.node(1)))
        .on_connect(|connecting| {
            let peer = connecting.proven::<TlsPeer>();
            let peer = peer.ok_or_else(|| Status::unauthenticated("no certificate"))?;
            match name(Some(peer)) {
                name if name == uri(2) => Ok(()),
                name => Err(Status::permission_denied(format!("{name} is not welcome"))),
            }
        })
        .interceptor(interceptor_fn(
            |incoming: Incoming, next: Next| async move {
                let peer = incoming.ctx().proven::<TlsPeer>().cloned();
                let peer = peer.ok_or_else(|| Status::internal("the interceptor knows nobody"))?;
                let names: Vec<_> = peer.dns_names().collect();
                assert_eq!(names, ["localhost", "a", "b"]);
                assert_eq!(peer.certificates().count(), 1);
                next.run(incoming).await
            },
        ));
    let server = TestServer::start(server).await;
    let welcome = dial(tls(&authority, Some(&authority.node(2))), server.addr);
    assert_eq!(who(&welcome).await, uri(2));
    let other = dial(tls(&authority, Some(&authority.node(3))), server.addr);
    let error = call(&other).await.expect_err("turned away");
    assert_eq!(
        (error.outcome(), error.code()),
        (Outcome::Refused, Code::PermissionDenied)
    );
}

#[tokio::test]
async fn a_client_that_serves_knows_which_server_calls_it() {
    let authority = Authority::new("ours");
    let server = service()
        .unary(ASK, |ctx: ServerCtx, (): ()| async move {
            ctx.release();
            let clients = Client::new(ctx.client_config());
            let replies = clients.quorum_call::<(), String>(WHO, ()).all().replies();
            let replies = replies
                .await
                .map_err(|error| Status::internal(error.to_string()))?;
            Ok::<_, Status>(replies.values().cloned().collect::<String>())
        })
        .transport(mutual(&authority, &authority.node(1)));
    let server = TestServer::start(server).await;
    let configuration = Configuration::builder()
        .transport(tls(&authority, Some(&authority.node(2))))
        .nodes([server.addr.to_string()])
        .serve(service())
        .connect()
        .expect("legal");
    let client = Client::new(&configuration);
    let node = &configuration[0];
    let asked = within(client.rpc::<(), String>(node, ASK, ())).await;
    assert_eq!(asked.expect("it is up"), uri(1));
}

/// Three peers, of which each proves its id to the others.
async fn peers(configure: impl Fn(u32, ConfigurationBuilder) -> ConfigurationBuilder) {
    let authority = Authority::new("ours");
    let mut listeners = Vec::new();
    for id in 1..=3_u32 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it has one");
        listeners.push((id, address, listener));
    }
    let nodes: Vec<_> = listeners
        .iter()
        .map(|(id, address, _)| (*id, address.to_string()))
        .collect();
    let mut processes = Vec::new();
    for (id, _, listener) in listeners {
        let tls = mutual(&authority, &authority.node(id));
        let builder = Configuration::builder()
            .transport(tls.clone())
            .node_proof(NodeUris::of("test"));
        let builder = nodes
            .iter()
            .fold(builder, |builder, (id, address)| builder.node(*id, address));
        let configuration = configure(id, builder).connect().expect("legal");
        let server = service()
            .peers(id, &configuration)
            .node_proof(NodeUris::of("test"))
            .on_connect(|connecting| {
                if connecting.is_own() {
                    return Ok(());
                }
                let Some(claimed) = connecting.peer_id().map(NodeId::get) else {
                    return Err(Status::unauthenticated("it says nobody"));
                };
                match connecting.proven::<TlsPeer>() {
                    Some(peer) if name(Some(peer)) == uri(claimed) => Ok(()),
                    other => Err(Status::permission_denied(format!("it is {other:?}"))),
                }
            })
            .with_incoming(
                tls.listener(TcpAcceptor::from(listener))
                    .expect("it has one"),
            )
            .expect("sound");
        processes.push((configuration, tokio::spawn(server.serve())));
    }
    for (index, (configuration, _)) in processes.iter().enumerate() {
        within(configuration.connected(3))
            .await
            .expect("none is closed");
        let me = index as u32 + 1;
        let call = Client::new(configuration).quorum_call::<(), String>(WHO, ());
        let replies = within(call.all().replies()).await.expect("all are up");
        for (node, name) in replies.iter() {
            let expected = if node.get() == me {
                "nobody".to_owned()
            } else {
                uri(me)
            };
            assert_eq!(*name, expected, "{node} of {me}");
        }
    }
    for (_, serving) in processes {
        serving.abort();
        let _ = serving.await;
    }
}

#[tokio::test]
async fn peers_prove_to_each_other_who_they_are() {
    peers(|_, builder| builder).await;
}

#[tokio::test]
async fn peers_that_share_a_stream_prove_it_at_both_ends() {
    peers(|id, builder| builder.one_stream_per_pair(id, WhileDisconnected::Wait)).await;
}

/// With these URIs in the place of its own.
fn named(authority: &Authority, uris: &[&str]) -> Identity {
    authority.issue(0, |params| {
        let is_uri = |name: &SanType| matches!(name, SanType::URI(_));
        params.subject_alt_names.retain(|name| !is_uri(name));
        for uri in uris {
            let uri = (*uri).try_into().expect("ASCII");
            params.subject_alt_names.push(SanType::URI(uri));
        }
    })
}

#[tokio::test]
async fn a_server_that_has_not_proved_to_be_the_node_that_was_dialled_is_sent_nothing() {
    let authority = Authority::new("ours");
    for (cluster, identity, expected) in [
        ("test", authority.node(1), None),
        ("test", authority.node(2), Some("has proved to be node 2")),
        (
            "test",
            named(&authority, &[]),
            Some("has proved to be no node"),
        ),
        (
            "other",
            authority.node(1),
            Some("is of another cluster than \"other\""),
        ),
    ] {
        let server = service().transport(tls(&authority, Some(&identity)));
        let server = TestServer::start(server).await;
        let configuration = Configuration::builder()
            .transport(tls(&authority, None))
            .node_proof(NodeUris::of(cluster))
            .node(1, server.addr.to_string())
            .connect();
        let client = Client::new(configuration.expect("legal"));
        let reply = call(&client).await;
        let Some(expected) = expected else {
            reply.expect("it is the one");
            continue;
        };
        let error = reply.expect_err("it is another one");
        assert_eq!(
            (error.outcome(), error.code()),
            (Outcome::NotSent, Code::PermissionDenied),
            "{error}"
        );
        assert!(error.status().message().contains(expected), "{error}");
        let last = client.configuration()[0].last_error().expect("it failed");
        assert_eq!(last.code(), Code::PermissionDenied, "{last}");
    }
}

#[tokio::test]
async fn a_role_of_nodes_is_not_for_clients_that_a_server_has_given_ids() {
    let authority = Authority::new("ours");
    let roles = Roles::new()
        .role("replica", |caller| caller.node_id().is_some())
        .service("test.Test", ["replica"]);
    let server = service()
        .transport(mutual(&authority, &authority.node(1)))
        .node_proof(NodeUris::of("test"))
        .interceptor(roles);
    let server = TestServer::start(server).await;
    for (identity, expected) in [
        (authority.node(2), Ok(())),
        (named(&authority, &[]), Err(Code::PermissionDenied)),
    ] {
        for serves in [false, true] {
            let nodes = Configuration::builder()
                .transport(tls(&authority, Some(&identity)))
                .nodes([server.addr.to_string()]);
            // Who can be called back is given an id.
            let nodes = match serves {
                true => nodes.serve(service()).connect(),
                false => nodes.connect(),
            };
            let reply = call(&Client::new(nodes.expect("legal"))).await;
            let reply = reply.map(|_| ()).map_err(|error| error.code());
            assert_eq!(reply, expected, "{serves}");
        }
    }
}

#[test]
fn nodes_prove_who_they_are_to_both_ends_or_to_none() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _inside = runtime.enter();
    for at_client in [false, true] {
        let builder = Configuration::builder().node(1, "127.0.0.1:1");
        let builder = match at_client {
            true => builder.node_proof(NodeUris::of("test")),
            false => builder,
        };
        let peers = builder.connect().expect("legal");
        let server = echo().trust_claimed_ids(true).peers(1, &peers);
        let server = match at_client {
            true => server,
            false => server.node_proof(NodeUris::of("test")),
        };
        let error = runtime.block_on(server.bind("127.0.0.1:0"));
        let error = error.expect_err("one end does not ask");
        assert!(
            matches!(error, ServerError::ProofAtOneEnd { .. }),
            "{error}"
        );
        assert!(error.to_string().contains("give it to both"), "{error}");
    }
}

#[tokio::test]
async fn a_client_that_claims_an_id_has_to_prove_it() {
    let log = Log::of(Level::DEBUG);
    let authority = Authority::new("ours");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("it has one");
    let transport = with(&authority, Some(&authority.node(1)))
        .client_certificates(ClientCertificates::Optional)
        .build()
        .expect("sound");
    let peers = Configuration::builder()
        .transport(transport.clone())
        .node_proof(NodeUris::of("test"))
        .node(1, addr.to_string())
        .node(2, "127.0.0.1:2")
        .node(3, "127.0.0.1:3")
        .connect()
        .expect("legal");
    let listener = transport.listener(TcpAcceptor::from(listener));
    let server = service()
        .unary("test.Test.Id", |ctx: ServerCtx, _: Number| async move {
            let id = ctx.peer_id().map_or(0, NodeId::get);
            Ok::<_, Status>(number(id.into()))
        })
        .peers(1, &peers)
        .node_proof(NodeUris::of("test"))
        .with_incoming(listener.expect("it has an identity"));
    let serving = tokio::spawn(server.expect("sound").serve());
    let given = 1 << 20;
    let own = authority.node(1);
    let two = authority.node(2);
    let of_servers = authority.node(given);
    let client = named(&authority, &["https://example.com/ada"]);
    let foreign = named(&authority, &["gorums://other/node/2"]);
    let several = named(&authority, &[&uri(2), &uri(3)]);
    // By whom, what it claims, and who it is taken for; none where it is refused.
    for (identity, claim, taken_for) in [
        (None, None, Some(0)),
        (None, Some("2"), None),
        (Some(&client), None, Some(0)),
        (Some(&client), Some("0"), Some(given)),
        (Some(&client), Some("2"), None),
        (Some(&two), None, Some(2)),
        (Some(&two), Some("2"), Some(2)),
        (Some(&two), Some("3"), None),
        (Some(&two), Some("1"), None),
        (Some(&two), Some("1048576"), None),
        (Some(&own), Some("1"), None),
        (Some(&own), None, None),
        (Some(&of_servers), None, None),
        // The second that is given one.
        (Some(&two), Some("0"), Some(given + 1)),
        (Some(&of_servers), Some("1048576"), None),
        (Some(&foreign), None, None),
        (Some(&foreign), Some("0"), None),
        (Some(&several), None, None),
    ] {
        let what = format!("{claim:?}, to be {taken_for:?}");
        let (from, stream) = Careless::new(&authority, identity).connect_to(addr).await;
        let stream = stream.expect("the certificate is a good one");
        let (mut requests, connection) = within(h2::client::handshake(stream)).await.expect("h2");
        let connection = tokio::spawn(connection);
        let mut open = |path: &str, body: Vec<u8>, ends: bool| {
            let mut request = http::Request::post(format!("http://gorums{path}"))
                .header("content-type", "application/grpc");
            if let Some(claim) = claim {
                request = request.header("gorums-node-id", claim);
            }
            let request = request.body(()).expect("well-formed");
            let (head, mut send) = requests.send_request(request, false).expect("it is up");
            send.send_data(body.into(), ends).expect("it is up");
            (head, send)
        };
        let (head, _send) = open("/stream.Gorums/NodeStream", Vec::new(), false);
        let head = within(head).await.expect("it is answered");
        let code = head
            .headers()
            .get("grpc-status")
            .map(|code| code.as_bytes());
        let expected = taken_for.map_or(Some(&b"7"[..]), |_| None);
        assert_eq!(code, expected, "{what}: {head:?}");
        let line = match taken_for {
            None => logged(&log, &format!("a client was refused peer={from}")).await,
            Some(0) => logged(&log, &format!("a client connected peer={from}")).await,
            // A client that has no id yet is given one.
            Some(id) => logged(&log, &format!("node={id} ")).await,
        };
        assert!(line.contains("server: a client"), "{line}");
        // What it claims does not count in a call of its own.
        let mut body = vec![0, 0, 0, 0, 2];
        body.extend_from_slice(&[8, 1]);
        let (head, _send) = open("/test.Test/Id", body, true);
        let mut answer = within(head).await.expect("it is answered");
        let proven = taken_for.map(|_| {
            if identity.is_some_and(|one| one.key == two.key) {
                2
            } else {
                0
            }
        });
        let code = answer
            .headers()
            .get("grpc-status")
            .map(|code| code.as_bytes());
        match proven {
            Some(id) => {
                let reply = within(answer.body_mut().data()).await.expect("a reply");
                let reply = reply.expect("it is up");
                let expected: &[u8] = if id == 0 { &[] } else { &[8, 2] };
                assert_eq!(&reply[5..], expected, "{what}");
            }
            None if claim.is_none() => assert_eq!(code, Some(&b"7"[..]), "{what}"),
            None => {}
        }
        drop(requests);
        connection.abort();
    }
    serving.abort();
}

#[tokio::test]
async fn a_server_that_asks_for_certificates_may_take_those_who_have_none() {
    let authority = Authority::new("ours");
    let optional = with(&authority, Some(&authority.node(1)))
        .client_certificates(ClientCertificates::Optional)
        .build()
        .expect("sound");
    let server = TestServer::start(service().transport(optional)).await;
    let nobody = dial(tls(&authority, None), server.addr);
    assert_eq!(who(&nobody).await, "nobody");
    let somebody = dial(tls(&authority, Some(&authority.node(2))), server.addr);
    assert_eq!(who(&somebody).await, uri(2));
    // A bad one is worse than none.
    let foreign = Authority::new("theirs").node(2);
    let foreign = dial(tls(&authority, Some(&foreign)), server.addr);
    let reason = not_sent(&foreign).await;
    assert!(reason.contains("UnknownCA"), "{reason}");
}

#[tokio::test]
async fn a_server_name_stands_for_the_addresses_of_all_nodes() {
    let authority = Authority::new("ours");
    let identity = authority.issue(1, certs::of_another_host);
    let server = service().transport(tls(&authority, Some(&identity)));
    let server = TestServer::start(server).await;
    let named = with(&authority, None).server_name("elsewhere.example");
    let client = dial(named.build().expect("sound"), server.addr);
    call(&client).await.expect("the name is right");
}

#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket_has_no_name_and_is_given_one() {
    let authority = Authority::new("ours");
    let folder = std::env::temp_dir().join(format!("gorums-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for temporary files");
    let address = format!("unix:{}", folder.join("socket").display());
    let server = service().transport(tls(&authority, Some(&authority.node(1))));
    let server = server.bind(&address).await.expect("a free path");
    let serving = tokio::spawn(server.serve());
    let named = with(&authority, None).server_name("localhost");
    let client = dial(named.build().expect("sound"), &address);
    call(&client).await.expect("the name is right");
    let unnamed = Configuration::builder()
        .transport(tls(&authority, None))
        .nodes([&address])
        .connect();
    let error = unnamed.expect_err("no certificate has a path").to_string();
    assert!(error.contains("TlsBuilder::server_name"), "{error}");
    serving.abort();
    let _ = serving.await;
    std::fs::remove_dir_all(&folder).expect("it was made");
}

// ---- what is refused

/// A transport that does with TLS what it is told: with certificates that nobody should take.
#[derive(Clone)]
struct Careless {
    client: Arc<ClientConfig>,
    server: Option<Arc<ServerConfig>>,
}

impl Careless {
    fn new(authority: &Authority, identity: Option<&Identity>) -> Self {
        Self {
            client: careless::client(authority, identity),
            server: identity.map(careless::server),
        }
    }

    /// Connects, and makes the handshake as far as this end is concerned.
    async fn connect_to(
        &self,
        address: SocketAddr,
    ) -> (
        SocketAddr,
        io::Result<tokio_rustls::client::TlsStream<TcpStream>>,
    ) {
        let stream = TcpStream::connect(address).await.expect("it listens");
        let own = stream.local_addr().expect("it is connected");
        let name = ServerName::try_from("localhost").expect("a name");
        let connector = TlsConnector::from(Arc::clone(&self.client));
        (own, connector.connect(name, stream).await)
    }
}

impl Transport for Careless {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move {
            let address = address.parse().expect("an IP address");
            let (_, stream) = self.connect_to(address).await;
            let proven = Proven::new(Box::new(stream?));
            Ok(Box::new(Handshake::done(proven)) as BoxIo)
        })
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let below = TcpAcceptor::bind(address).await?;
            let config = self.server.clone().expect("it has an identity");
            Ok(Box::new(CarelessListener { below, config }) as Box<dyn Listener>)
        })
    }
}

struct CarelessListener {
    below: TcpAcceptor,
    config: Arc<ServerConfig>,
}

impl Listener for CarelessListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxIo, Option<SocketAddr>)>> {
        Box::pin(async move {
            let (io, peer) = self.below.accept().await?;
            let accepting = TlsAcceptor::from(Arc::clone(&self.config)).accept(io);
            let handshake =
                Handshake::new(async move { Ok(Proven::new(Box::new(accepting.await?))) });
            Ok((Box::new(handshake) as BoxIo, peer))
        })
    }

    fn local_addr(&self) -> io::Result<Address> {
        self.below.local_addr()
    }
}

#[tokio::test]
async fn a_client_without_a_good_certificate_is_refused_and_has_sent_nothing() {
    let authority = Authority::new("ours");
    let foreign = Authority::new("theirs");
    for (identity, alert, told) in [
        (None, "CertificateRequired", "peer sent no certificates"),
        (Some(foreign.node(2)), "UnknownCA", "UnknownIssuer"),
        (
            Some(authority.issue(2, certs::expired)),
            "CertificateExpired",
            "certificate expired",
        ),
        (
            Some(authority.issue(2, certs::not_yet_valid)),
            "CertificateExpired",
            "certificate not valid yet",
        ),
        (
            Some(authority.issue(2, certs::for_servers_only)),
            "UnsupportedCertificate",
            "extended key usage",
        ),
    ] {
        let log = Log::of(Level::DEBUG);
        let server = service().transport(mutual(&authority, &authority.node(1)));
        let server = TestServer::start(server).await;
        let careless = Careless::new(&authority, identity.as_ref());
        let client = dial(careless.clone(), server.addr);
        let reason = not_sent(&client).await;
        assert!(reason.contains(alert), "{reason}");
        assert!(reason.contains("right after the handshake"), "{reason}");
        drop(client);
        logged(&log, told).await;
        // The same by hand, whose address is known.
        let (own, stream) = careless.connect_to(server.addr).await;
        let mut stream = stream.expect("the server's certificate is a good one");
        let error = stream.read_u8().await.expect_err("an alert");
        assert!(error.to_string().contains(alert), "{error}");
        let line = logged(&log, &format!("peer={own}")).await;
        assert!(
            line.starts_with("WARN server: a handshake failed") && line.contains(told),
            "{line}"
        );
        drop(stream);
        // Others are none the worse for it.
        let good = dial(tls(&authority, Some(&authority.node(3))), server.addr);
        assert_eq!(who(&good).await, uri(3));
    }
}

#[tokio::test]
async fn a_client_learns_what_it_can_do_about_its_certificate() {
    let authority = Authority::new("ours");
    let server = service().transport(mutual(&authority, &authority.node(1)));
    let server = TestServer::start(server).await;
    let foreign = Authority::new("theirs").node(2);
    for (identity, advice) in [
        (None, "TlsBuilder::identity"),
        (Some(foreign), "does not trust the authority"),
        (
            Some(authority.issue(2, certs::for_servers_only)),
            "extended key usage",
        ),
    ] {
        let client = dial(tls(&authority, identity.as_ref()), server.addr);
        let reason = not_sent(&client).await;
        assert!(reason.starts_with("TLS: received fatal alert"), "{reason}");
        assert!(reason.contains(advice), "{reason}");
    }
}

#[tokio::test]
async fn a_server_that_dies_is_lost_as_without_tls() {
    let log = Log::of(Level::INFO);
    let authority = Authority::new("ours");
    let server = service().transport(tls(&authority, Some(&authority.node(1))));
    let server = TestServer::start(server).await;
    let client = dial(tls(&authority, None), server.addr);
    call(&client).await.expect("it is up");
    server.stop().await;
    let mut told = Vec::new();
    within(async {
        while !told.iter().any(|line: &String| line.contains(" lost ")) {
            told.extend(log.told(&[CLIENT]));
            tokio::task::yield_now().await;
        }
    })
    .await;
    let told = told.join("\n");
    assert!(!told.contains("close_notify"), "{told}");
}

#[tokio::test]
async fn a_server_without_a_good_certificate_is_refused_and_is_sent_nothing() {
    let authority = Authority::new("ours");
    let foreign = Authority::new("theirs");
    for (identity, reason, alert) in [
        (foreign.node(1), "UnknownIssuer", "UnknownCA"),
        (
            authority.issue(1, certs::expired),
            "certificate expired",
            "CertificateExpired",
        ),
        (
            authority.issue(1, certs::not_yet_valid),
            "certificate not valid yet",
            "CertificateExpired",
        ),
        (
            authority.issue(1, certs::of_another_host),
            "only valid for DnsName(\"elsewhere.example\")",
            "BadCertificate",
        ),
        (
            authority.issue(1, certs::for_clients_only),
            "extended key usage",
            "UnsupportedCertificate",
        ),
    ] {
        let log = Log::of(Level::DEBUG);
        let careless = Careless::new(&authority, Some(&identity));
        let server = TestServer::start(service().transport(careless)).await;
        let client = dial(tls(&authority, None), server.addr);
        let why = not_sent(&client).await;
        assert!(why.starts_with("TLS: ") && why.contains(reason), "{why}");
        let error = client.configuration()[0].last_error().expect("it failed");
        assert!(error.source().is_some(), "{error}");
        let line = logged(&log, alert).await;
        assert!(
            line.starts_with("WARN server: a handshake failed peer=127.0.0.1:"),
            "{line}"
        );
        let told = log.told(&[CLIENT]).join("\n");
        assert!(!told.contains("a client connected"), "{told}");
    }
}

#[tokio::test]
async fn plain_text_is_refused_where_tls_is_spoken() {
    let log = Log::of(Level::DEBUG);
    let authority = Authority::new("ours");
    let server = service().transport(mutual(&authority, &authority.node(1)));
    let server = TestServer::start(server).await;
    let client = dial(Tcp, server.addr);
    let reason = not_sent(&client).await;
    assert!(reason.contains("seems to speak TLS"), "{reason}");
    drop(client);
    let mut plain = TcpStream::connect(server.addr).await.expect("it listens");
    let own = plain.local_addr().expect("it is connected");
    plain
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .await
        .expect("it reads");
    let mut answer = Vec::new();
    within(plain.read_to_end(&mut answer))
        .await
        .expect("the server ends its side");
    assert_eq!(answer.first(), Some(&0x15), "an alert");
    let line = logged(&log, &format!("peer={own}")).await;
    assert!(
        line.starts_with("WARN server: a handshake failed")
            && line.contains("does not seem to speak TLS"),
        "{line}"
    );
}

#[tokio::test]
async fn tls_is_refused_where_plain_text_is_spoken() {
    let log = Log::of(Level::DEBUG);
    let authority = Authority::new("ours");
    let server = TestServer::start(service()).await;
    let client = dial(tls(&authority, None), server.addr);
    let reason = not_sent(&client).await;
    assert!(reason.contains("does not seem to speak TLS"), "{reason}");
    drop(client);
    let (own, stream) = Careless::new(&authority, None)
        .connect_to(server.addr)
        .await;
    stream.expect_err("there is no TLS");
    let line = logged(&log, &format!("peer={own}")).await;
    assert!(
        line.contains("a connection ended without a stream") && line.contains("speak TLS"),
        "{line}"
    );
}

#[tokio::test]
async fn who_does_not_agree_on_http_2_is_refused() {
    let log = Log::of(Level::DEBUG);
    let authority = Authority::new("ours");
    let server = service().transport(tls(&authority, Some(&authority.node(1))));
    let server = TestServer::start(server).await;
    for (offers, told) in [
        (vec![], "no ALPN protocol h2"),
        (vec![b"http/1.1".to_vec()], "HTTP/2 is spoken here"),
    ] {
        let mut careless = Careless::new(&authority, None);
        let mut config = (*careless.client).clone();
        config.alpn_protocols = offers;
        careless.client = Arc::new(config);
        let (own, stream) = careless.connect_to(server.addr).await;
        if let Ok(mut stream) = stream {
            let mut rest = Vec::new();
            within(stream.read_to_end(&mut rest))
                .await
                .expect("the server ends its side");
            assert!(rest.is_empty(), "nothing is served");
        }
        let line = logged(&log, &format!("peer={own}")).await;
        assert!(
            line.starts_with("WARN server: a handshake failed") && line.contains(told),
            "{line}"
        );
    }
}

#[cfg(feature = "tower")]
#[tokio::test]
async fn what_a_client_has_proved_reaches_a_fallback_service() {
    use axum::routing::get;
    use axum::{Extension, Router};
    use gorums::server::ClientInfo;

    async fn who(Extension(client): Extension<ClientInfo>) -> String {
        format!(
            "{:?} {}",
            client.node_id(),
            name(client.proven::<TlsPeer>())
        )
    }

    let authority = Authority::new("ours");
    let server = service()
        .transport(mutual(&authority, &authority.node(1)))
        .node_proof(NodeUris::of("test"))
        .fallback(Router::new().route("/who", get(who)));
    let server = TestServer::start(server).await;
    for (uri, answer) in [
        (
            "gorums://test/node/7",
            Some("Some(NodeId(7)) gorums://test/node/7"),
        ),
        ("gorums://test/client", Some("None gorums://test/client")),
        ("gorums://other/node/7", None),
    ] {
        let identity = named(&authority, &[uri]);
        let careless = Careless::new(&authority, Some(&identity));
        let (_, stream) = careless.connect_to(server.addr).await;
        let handshake = h2::client::handshake(stream.expect("it is let in"));
        let (mut requests, connection) = within(handshake).await.expect("HTTP/2");
        let connection = tokio::spawn(connection);
        let request = http::Request::get("https://gorums/who").body(());
        let sent = requests.send_request(request.expect("well-formed"), true);
        let (head, _) = sent.expect("the connection is up");
        let (head, mut body) = within(head).await.expect("it is answered").into_parts();
        let text = within(body.data()).await.expect("there is some");
        let text = text.expect("the stream is up");
        match answer {
            Some(answer) => assert_eq!(text, answer),
            None => assert_eq!(head.status, 403, "{text:?}"),
        }
        connection.abort();
    }
}

#[tokio::test]
async fn garbage_is_refused_and_others_are_served() {
    let log = Log::of(Level::DEBUG);
    let authority = Authority::new("ours");
    let server = service().transport(tls(&authority, Some(&authority.node(1))));
    let server = TestServer::start(server).await;
    let record = [&[0x16, 3, 1, 0x40, 0][..], &[0; 16 * 1024]].concat();
    for garbage in [
        &[0x16][..],
        &[0x16, 3, 1, 0xff, 0xff],
        // The peer refuses us before we have said anything.
        &[0x15, 3, 3, 0, 2, 2, 40],
        &[0x17, 3, 3, 0, 1, 7],
        &record,
        &[0xff; 100_000],
    ] {
        let mut stream = TcpStream::connect(server.addr).await.expect("it listens");
        let own = stream.local_addr().expect("it is connected");
        stream.write_all(garbage).await.expect("it reads");
        stream.shutdown().await.expect("it is connected");
        let mut answer = Vec::new();
        within(stream.read_to_end(&mut answer))
            .await
            .expect("it is ended, and not reset");
        assert!(answer.len() < 100, "an alert at the most: {answer:?}");
        logged(&log, &format!("peer={own}")).await;
    }
    // Who never stops is read no further than need be.
    let mut stream = TcpStream::connect(server.addr).await.expect("it listens");
    within(async { while stream.write_all(&[b'x'; 10_000]).await.is_ok() {} }).await;
    let client = dial(tls(&authority, None), server.addr);
    call(&client).await.expect("the others are served");
}

#[tokio::test]
async fn who_looks_whether_the_port_is_open_is_a_detail() {
    let log = Log::of(Level::DEBUG);
    let authority = Authority::new("ours");
    let server = service().transport(tls(&authority, Some(&authority.node(1))));
    let server = TestServer::start(server).await;
    let probe = TcpStream::connect(server.addr).await.expect("it listens");
    let own = probe.local_addr().expect("it is connected");
    drop(probe);
    let line = logged(&log, &format!("peer={own}")).await;
    assert!(
        line.starts_with("DEBUG server: a connection ended without a stream"),
        "{line}"
    );
}

// ---- handshakes that stall

#[tokio::test(start_paused = true)]
async fn a_node_that_never_answers_a_handshake_has_been_sent_nothing() {
    let authority = Authority::new("ours");
    let network = Network::new();
    // It accepts, and says nothing.
    let mut listener = network.listen("a:1").await.expect("the network is there");
    let silent = tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            held.push(listener.accept().await.expect("the network is there"));
        }
    });
    let tls = with(&authority, None).over(network.clone());
    let client = dial(tls.build().expect("sound"), "a:1");
    let began = Instant::now();
    let reason = not_sent(&client).await;
    assert!(
        reason.starts_with("no connection within 5s: the node did not finish the handshake"),
        "{reason}"
    );
    assert_eq!(began.elapsed().as_secs(), 5);
    silent.abort();
}

#[tokio::test(start_paused = true)]
async fn who_stalls_a_handshake_holds_up_nobody_and_is_cut_off_in_time() {
    let log = Log::of(Level::DEBUG);
    let authority = Authority::new("ours");
    let network = Network::new();
    let server_tls = with(&authority, Some(&authority.node(1))).over(network.clone());
    let client_tls = with(&authority, None).over(network.clone());
    let client_tls = client_tls.build().expect("sound");
    let server = service()
        .max_connections(3)
        .transport(server_tls.build().expect("sound"));
    let _server = TestServer::start_at(server, "a:1").await;
    let began = Instant::now();
    let mut stalled = network.connect("a:1").await.expect("it listens");
    // One has begun, the other one says nothing.
    stalled
        .write_all(&[0x16, 3, 1])
        .await
        .expect("there is room");
    let mut silent = network.connect("a:1").await.expect("it listens");
    let client = dial(client_tls.clone(), "a:1");
    call(&client).await.expect("the others hold up nobody");
    // They count as connections, and the elder soon makes room for a further one.
    let further = Configuration::builder()
        .transport(client_tls)
        .connect_timeout(Duration::from_secs(30))
        .nodes(["a:1"])
        .connect();
    let further = Client::new(further.expect("a legal address"));
    while call(&further).await.is_err() {}
    assert!(began.elapsed() < Duration::from_secs(2));
    for io in [&mut stalled, &mut silent] {
        let mut rest = Vec::new();
        io.read_to_end(&mut rest).await.expect("it has ended");
    }
    assert_eq!(began.elapsed().as_secs(), 10);
    settle().await;
    let warned: Vec<_> = log
        .told(&[SERVER])
        .into_iter()
        .filter(|line| line.starts_with("WARN") && !line.contains("there are too many"))
        .collect();
    let lines = [
        "WARN server: a connection was ended that had said nothing, since another one needed its place",
        "WARN server: a handshake failed peer=unknown error=not finished within 10s",
    ];
    assert_eq!(warned, lines);
}

/// What proves to be no node, in the place of what a node proves.
fn strangers(authority: &Authority) -> Tls {
    let nobody = |params: &mut CertificateParams| {
        params
            .subject_alt_names
            .retain(|name| !matches!(name, SanType::URI(_)));
    };
    mutual(authority, &authority.issue(9, nobody))
}

#[tokio::test]
async fn nodes_get_in_where_strangers_have_taken_all_the_places_that_they_can() {
    let authority = Authority::new("ours");
    let server = TestServer::start(
        service()
            .max_connections(8)
            .transport(mutual(&authority, &authority.node(1)))
            .node_proof(NodeUris::of("test")),
    )
    .await;
    // Six take what is for everybody, and whoever says nothing keeps nobody out.
    let tls = strangers(&authority);
    let mut taken = Vec::new();
    for _ in 0..6 {
        let client = dial(tls.clone(), server.addr);
        call(&client).await.expect("there is room");
        taken.push(client);
    }
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(server.addr).await.expect("it listens"));
    }
    let seventh = dial(tls, server.addr);
    // It is told so once it has a place to make its handshake at: the silent ones have a while to
    // say something.
    let told = within(async {
        loop {
            let error = call(&seventh).await.expect_err("there is no room");
            if error.code() != Code::Unavailable {
                return error;
            }
        }
    });
    let error = told.await;
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    for node in [2, 3] {
        let node = dial(mutual(&authority, &authority.node(node)), server.addr);
        // The silent ones have a while to say something.
        within(async { while call(&node).await.is_err() {} }).await;
        taken.push(node);
    }
    for client in &taken {
        call(client).await.expect("nobody was put out who speaks");
    }
}

#[tokio::test]
async fn a_node_has_so_many_connections_and_others_are_not_concerned() {
    let authority = Authority::new("ours");
    let server = TestServer::start(
        service()
            .max_connections_per_node(2)
            .transport(mutual(&authority, &authority.node(1)))
            .node_proof(NodeUris::of("test")),
    )
    .await;
    let node = |id| dial(mutual(&authority, &authority.node(id)), server.addr);
    let [first, second] = [node(2), node(2)];
    for client in [&first, &second] {
        call(client).await.expect("there is room");
    }
    let third = node(2);
    let error = call(&third).await.expect_err("there is no room");
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    let message = error.status().message();
    assert!(
        message.contains("of node 2 as a node may have (max_connections_per_node)"),
        "{message}"
    );
    call(&node(3)).await.expect("another node");
    drop(first);
    within(async { while call(&third).await.is_err() {} }).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_waits_for_no_handshake() {
    let authority = Authority::new("ours");
    let network = Network::new();
    let tls = with(&authority, Some(&authority.node(1))).over(network.clone());
    let server = service().transport(tls.build().expect("sound"));
    let server = server.bind("a:1").await.expect("the network is there");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve_with_shutdown(
        async {
            let _ = stopped.await;
        },
        Duration::from_secs(60),
    ));
    let _stalled = network.connect("a:1").await.expect("it listens");
    settle().await;
    let began = Instant::now();
    stop.send(()).expect("it serves");
    within(serving).await.expect("it does not panic");
    assert!(began.elapsed() < Duration::from_secs(1));
}

// ---- sessions

#[tokio::test]
async fn who_connects_again_resumes_its_session_and_is_still_known() {
    let authority = Authority::new("ours");
    let server = service().transport(mutual(&authority, &authority.node(1)));
    let server = TestServer::start(server).await;
    let again = tls(&authority, Some(&authority.node(2)));
    let first = dial(again.clone(), server.addr);
    assert_eq!(who(&first).await, uri(2));
    let second = dial(again, server.addr);
    assert_eq!(who(&second).await, uri(2));
    // By hand, where it can be seen.
    let careless = Careless::new(&authority, Some(&authority.node(3)));
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let (_, stream) = careless.connect_to(server.addr).await;
        let mut stream = stream.expect("all is well");
        // The ticket comes with what the server says first.
        stream.read_u8().await.expect("its settings");
        kinds.push(stream.get_ref().1.handshake_kind());
    }
    assert_eq!(
        kinds,
        [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)]
    );
}

// ---- a transport of one's own

/// What a transport of one's own has proved.
#[derive(Debug, Clone, PartialEq)]
struct Tenant(u8);

/// The first byte of a connection says whose it is.
struct Tenants(Network, u8);

impl Transport for Tenants {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move {
            let mut io = self.0.connect(address).await?;
            io.write_u8(self.1).await?;
            Ok(io)
        })
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener = self.0.listen(address).await?;
            Ok(Box::new(TenantListener(listener)) as Box<dyn Listener>)
        })
    }
}

struct TenantListener(Box<dyn Listener>);

impl Listener for TenantListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxIo, Option<SocketAddr>)>> {
        Box::pin(async move {
            let (mut io, peer) = self.0.accept().await?;
            let handshake = Handshake::new(async move {
                match io.read_u8().await? {
                    0 => Err(io::Error::other("there is no tenant 0").into()),
                    tenant => Ok(Proven::new(io).with(Tenant(tenant))),
                }
            });
            Ok((Box::new(handshake) as BoxIo, peer))
        })
    }

    fn local_addr(&self) -> io::Result<Address> {
        self.0.local_addr()
    }
}

#[tokio::test(start_paused = true)]
async fn a_transport_of_one_s_own_hands_on_what_it_proved() {
    const TENANT: &str = "test.Test.Tenant";

    let log = Log::of(Level::DEBUG);
    let network = Network::new();
    let server = Server::builder()
        .transport(Tenants(network.clone(), 0))
        .on_connect(|connecting| {
            let tenant = connecting.proven::<Tenant>().cloned();
            let tenant = tenant.ok_or_else(|| Status::internal("nothing was proven"))?;
            // A value of the same type changes nothing of what was proven.
            connecting.set_value(Tenant(100 + tenant.0));
            Ok(())
        })
        .unary(TENANT, |ctx: ServerCtx, (): ()| async move {
            let proven = ctx.proven::<Tenant>().map(|tenant| tenant.0);
            let value = ctx.value::<Tenant>().map(|tenant| tenant.0);
            Ok::<_, Status>(format!("{proven:?} {value:?}"))
        });
    let _server = TestServer::start_at(server, "a:1").await;
    for tenant in [7, 8] {
        let client = dial(Tenants(network.clone(), tenant), "a:1");
        let node = &client.configuration()[0];
        let answer = within(client.rpc::<(), String>(node, TENANT, ())).await;
        let expected = format!("Some({tenant}) Some({})", tenant + 100);
        assert_eq!(answer.expect("it is up"), expected);
    }
    let nobody = dial(Tenants(network.clone(), 0), "a:1");
    not_sent(&nobody).await;
    logged(
        &log,
        "a handshake failed peer=unknown error=there is no tenant 0",
    )
    .await;
}

// ---- what is wrong with one's own

/// A folder for files, which is removed in the end.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("gorums-tls-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a folder for temporary files");
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> Pem {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("there is room");
        Pem::file(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn files_are_read_as_values_are() {
    let folder = Folder::new("files");
    let authority = Authority::new("ours");
    let identity = authority.node(1);
    let builder = Tls::builder()
        .trust(folder.file("ca.pem", authority.text()))
        .identity(
            folder.file("node.pem", &identity.certificate),
            folder.file("node.key", &identity.key),
        );
    let tls = builder.build().expect("sound");
    let server = TestServer::start(service().transport(tls.clone())).await;
    let client = dial(tls, format!("localhost:{}", server.addr.port()));
    call(&client).await.expect("all is well");
}

#[test]
fn what_is_wrong_with_one_s_own_is_told_with_the_file_and_what_to_do() {
    let folder = Folder::new("wrong");
    let authority = Authority::new("ours");
    let good = authority.node(1);
    let other = authority.node(2);
    let expired = authority.issue(1, certs::expired);
    let early = authority.issue(1, certs::not_yet_valid);
    let certificate = || folder.file("good.pem", &good.certificate);
    let key = || folder.file("good.key", &good.key);
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let damaged = good.certificate.replace("-----END", "-----AND");
    let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let no_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let two_keys = format!("{}{}", good.key, other.key);
    let large = "x".repeat((1 << 20) + 1);
    let identities = [
        (
            Pem::file(folder.0.join("none.pem")),
            key(),
            "cannot read the certificates in",
            "none.pem",
            "check the path",
        ),
        (
            certificate(),
            Pem::file(folder.0.join("none.key")),
            "cannot read the private key in",
            "none.key",
            "check the path",
        ),
        (
            folder.file("large.pem", &large),
            key(),
            "cannot read",
            "large.pem",
            "more than 1 MiB",
        ),
        (
            folder.file("empty.pem", ""),
            key(),
            "no certificate in",
            "empty.pem",
            "BEGIN CERTIFICATE",
        ),
        (
            key(),
            certificate(),
            "no certificate in",
            "good.key",
            "order",
        ),
        (
            folder.file("damaged.pem", &damaged),
            key(),
            "is not PEM",
            "damaged.pem",
            "END line",
        ),
        (
            folder.file("nonsense.pem", nonsense),
            key(),
            "cannot use a certificate in",
            "nonsense.pem",
            "made anew",
        ),
        (
            certificate(),
            folder.file("none.pem.key", &good.certificate),
            "no private key in",
            "none.pem.key",
            "BEGIN PRIVATE KEY",
        ),
        (
            certificate(),
            folder.file("encrypted.key", encrypted),
            "no private key in",
            "encrypted.key",
            "decrypt it",
        ),
        (
            certificate(),
            folder.file("two.key", &two_keys),
            "there are 2 private keys in",
            "two.key",
            "leave the one",
        ),
        (
            certificate(),
            folder.file("nonsense.key", no_key),
            "cannot use the private key in",
            "nonsense.key",
            "ECDSA",
        ),
        (
            certificate(),
            folder.file("other.key", &other.key),
            "is not that of the certificate in",
            "other.key",
            "made together",
        ),
        (
            folder.file("expired.pem", &expired.certificate),
            folder.file("expired.key", &expired.key),
            "has expired",
            "expired.pem",
            "renewed",
        ),
        (
            folder.file("early.pem", &early.certificate),
            folder.file("early.key", &early.key),
            "is not valid yet",
            "early.pem",
            "check the clock",
        ),
    ];
    for (certificates, key, what, place, advice) in identities {
        let built = Tls::builder().identity(certificates, key).build();
        let error = built.expect_err(what).to_string();
        for part in [what, place, advice] {
            assert!(error.contains(part), "{error:?} has no {part:?}");
        }
    }
    let (value, _) = good.pems();
    let built = Tls::builder().identity(value, Pem::value("")).build();
    let error = built.expect_err("no key").to_string();
    assert!(error.contains("no private key in the PEM value"), "{error}");
}

/// To open a pipe would block until somebody writes to it.
#[cfg(unix)]
#[test]
fn what_is_no_regular_file_is_not_read_and_a_link_to_one_is() {
    let folder = Folder::new("irregular");
    let authority = Authority::new("ours");
    let pipe = folder.0.join("pipe.pem");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("systems with pipes have it").success());
    for path in [pipe.as_path(), folder.0.as_path(), "/dev/null".as_ref()] {
        let error = Tls::builder().trust(Pem::file(path)).build();
        let error = error.expect_err("it is no file").to_string();
        let name = path.display().to_string();
        for part in [&*name, "no regular file", "Pem::value"] {
            assert!(error.contains(part), "{error:?} has no {part:?}");
        }
    }
    folder.file("ca.pem", authority.text());
    let link = folder.0.join("link.pem");
    std::os::unix::fs::symlink("ca.pem", &link).expect("there is none");
    Tls::builder()
        .trust(Pem::file(link))
        .build()
        .expect("sound");
}

#[tokio::test]
async fn what_was_not_given_is_missed_where_it_is_needed() {
    let authority = Authority::new("ours");
    assert!(matches!(
        Tls::builder().build(),
        Err(TlsError::NothingGiven)
    ));
    let (certificate, key) = authority.node(1).pems();
    let serving_only = || Tls::builder().identity(certificate.clone(), key.clone());
    let built = serving_only()
        .client_certificates(ClientCertificates::Required)
        .build();
    assert!(matches!(built, Err(TlsError::NoRoots)));
    let built = with(&authority, None).server_name("a:1").build();
    let error = built.expect_err("it has a port").to_string();
    assert!(error.contains("without a port"), "{error}");
    let dialled = Configuration::builder()
        .transport(serving_only().build().expect("it can serve"))
        .nodes(["localhost:1"])
        .connect();
    let error = dialled.expect_err("nobody is trusted").to_string();
    assert!(error.contains("TlsBuilder::trust"), "{error}");
    let bound = service()
        .transport(tls(&authority, None))
        .bind("127.0.0.1:0")
        .await;
    let Err(ServerError::Listen(error)) = bound else {
        panic!("it has no certificate");
    };
    assert!(
        error.to_string().contains("TlsBuilder::identity"),
        "{error}"
    );
}

#[test]
fn what_is_secret_is_not_shown() {
    let (certificate, key) = Authority::new("ours").node(1).pems();
    let builder = Tls::builder().identity(certificate, key);
    let shown = format!("{builder:?}");
    assert!(!shown.contains("BEGIN"), "{shown}");
    assert!(shown.contains("Pem::value("), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn a_node_may_be_silent_where_strangers_may_not() {
    let authority = Authority::new("ours");
    let network = Network::new();
    let over = |identity: &Identity| {
        let tls = with(&authority, Some(identity)).over(network.clone());
        tls.client_certificates(ClientCertificates::Required)
            .build()
            .expect("sound")
    };
    let streams = Arc::new(AtomicUsize::new(0));
    let taken = Arc::clone(&streams);
    let server = service()
        .first_message_timeout(Duration::from_secs(30))
        .on_connect(move |_| {
            taken.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
        .node_proof(NodeUris::of("test"))
        .transport(over(&authority.node(1)));
    let _server = TestServer::start_at(server, "a:1").await;
    let node = dial(over(&authority.node(2)), "a:1");
    within(node.configuration().connected(1))
        .await
        .expect("it is taken");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(streams.load(Ordering::Relaxed), 1);
}
