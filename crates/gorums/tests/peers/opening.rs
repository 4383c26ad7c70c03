//! How a connection and its stream are opened and refused.

use std::time::Duration;

use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::{TestServer, echo, within};
use crate::raw_client::{RawClient, opened, stream_request};
use crate::wire::grpc_status;

/// Says this over a connection, and waits until the server has closed it.
async fn disconnects(server: &TestServer, said: &[u8]) {
    let mut tcp = TcpStream::connect(server.addr).await.expect("it listens");
    tcp.write_all(said).await.expect("connected");
    // A reset closes as well.
    let _ = within(tcp.read_to_end(&mut Vec::new())).await;
}

#[tokio::test]
async fn an_unknown_path_is_unimplemented() {
    let server = TestServer::start(echo()).await;
    let mut client = RawClient::connect(server.addr).await;
    let mut request = stream_request();
    *request.uri_mut() = "http://gorums/proto.Storage/ReadRPC"
        .parse()
        .expect("a URI");
    let response = client.refusal(request).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/grpc");
    let (status, message) = grpc_status(response.headers());
    assert_eq!(status, 12);
    assert!(message.contains("/proto.Storage/ReadRPC"));
}

#[tokio::test]
async fn a_second_stream_on_a_connection_is_unimplemented_and_the_first_goes_on() {
    let (_server, mut client, mut stream) = opened(echo()).await;
    let response = client.refusal(stream_request()).await;
    assert_eq!(grpc_status(response.headers()).0, 12);
    stream.call(1).await;
}

#[tokio::test]
async fn requests_that_are_not_grpc_get_an_http_status_and_the_connection_goes_on() {
    let server = TestServer::start(echo()).await;
    let mut client = RawClient::connect(server.addr).await;
    let mut get = stream_request();
    *get.method_mut() = Method::GET;
    let response = client.refusal(get).await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    for content_type in ["text/html", "application/grpc-web", "application/grpc+json"] {
        let mut request = stream_request();
        let value = content_type.parse().expect("ASCII");
        request.headers_mut().insert("content-type", value);
        let response = client.refusal(request).await;
        let status = response.status();
        assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{content_type}");
    }
    let mut untyped = stream_request();
    untyped.headers_mut().remove("content-type");
    let response = client.refusal(untyped).await;
    assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    client.open().await.call(1).await;
}

#[tokio::test]
async fn the_response_head_comes_before_any_request() {
    let server = TestServer::start(echo()).await;
    let mut client = RawClient::connect(server.addr).await;
    let (head, _requests) = client.request(stream_request());
    let head = within(head).await.expect("the stream is up");
    assert_eq!(head.status(), StatusCode::OK);
    assert_eq!(head.headers()["content-type"], "application/grpc");
    assert!(head.headers().get("grpc-status").is_none());
    assert!(!head.body().is_end_stream());
}

#[tokio::test]
async fn a_peer_that_speaks_http_1_is_disconnected() {
    let server = TestServer::start(echo()).await;
    disconnects(&server, b"GET / HTTP/1.1\r\nHost: gorums\r\n\r\n").await;
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_disconnected() {
    let builder = echo().stream_timeout(Duration::from_millis(50));
    let server = TestServer::start(builder).await;
    for said in [&b""[..], b"PRI * HT"] {
        disconnects(&server, said).await;
    }
}

#[tokio::test]
async fn a_connection_without_a_stream_is_closed() {
    let builder = echo().stream_timeout(Duration::from_millis(50));
    let server = TestServer::start(builder).await;
    RawClient::connect(server.addr).await.closed().await;
}

#[tokio::test]
async fn a_connection_whose_stream_has_ended_is_closed() {
    let builder = echo().stream_timeout(Duration::from_millis(50));
    let (_server, client, mut stream) = opened(builder).await;
    stream.half_close();
    assert_eq!(stream.status().await.0, 0);
    drop(stream);
    client.closed().await;
}
