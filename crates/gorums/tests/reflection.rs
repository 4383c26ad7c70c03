//! Server reflection, asked by a client that knows no `.proto` file.
#![cfg(feature = "reflection")]

mod common;

use std::fmt::Display;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use common::{Stoppable, TestServer, echo, within};
use gorums::server::Health;
use gorums::{ServerBuilder, ServerError};
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    MethodDescriptorProto, ServiceDescriptorProto,
};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

const HEALTH: &str = "grpc.health.v1.Health";
const V1: &str = "grpc.reflection.v1.ServerReflection";
const V1ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection";

/// Asks for one thing, by one of the versions of the protocol. Both have the same messages.
macro_rules! asking {
    ($version:ident) => {
        mod $version {
            use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;

            use super::*;
            pub(super) use tonic_reflection::pb::$version::ServerReflectionRequest;
            pub(super) use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;

            async fn ask(
                channel: &Channel,
                wanted: MessageRequest,
            ) -> Result<MessageResponse, tonic::Status> {
                let mut client = ServerReflectionClient::new(channel.clone());
                let request = ServerReflectionRequest {
                    host: String::new(),
                    message_request: Some(wanted),
                };
                let requests = tokio_stream::once(request);
                let answers = within(client.server_reflection_info(requests)).await?;
                let mut answers = answers.into_inner();
                let answer = within(answers.message()).await?;
                let answer = answer.ok_or_else(|| tonic::Status::data_loss("no answer"))?;
                assert!(within(answers.message()).await?.is_none());
                Ok(answer.message_response.expect("it is one"))
            }

            pub(super) async fn services(channel: &Channel) -> Vec<String> {
                let wanted = MessageRequest::ListServices(String::new());
                let answer = ask(channel, wanted).await;
                let MessageResponse::ListServicesResponse(list) = answer.expect("it lists") else {
                    panic!("not what was asked for");
                };
                list.service.into_iter().map(|service| service.name).collect()
            }

            pub(super) async fn file(
                channel: &Channel,
                wanted: MessageRequest,
            ) -> Result<FileDescriptorProto, tonic::Status> {
                match ask(channel, wanted).await? {
                    MessageResponse::FileDescriptorResponse(files) => {
                        let [file] = &files.file_descriptor_proto[..] else {
                            panic!("one file");
                        };
                        Ok(FileDescriptorProto::decode(&file[..]).expect("well-formed"))
                    }
                    other => panic!("not what was asked for: {other:?}"),
                }
            }

            pub(super) async fn symbol(
                channel: &Channel,
                name: &str,
            ) -> Result<FileDescriptorProto, tonic::Status> {
                file(channel, MessageRequest::FileContainingSymbol(name.to_owned())).await
            }
        }
    };
}

asking!(v1);
asking!(v1alpha);

/// `Number` in a file of its own.
fn number_file() -> FileDescriptorProto {
    let field = |name: &str, number, kind: Type| FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(Label::Optional.into()),
        r#type: Some(kind.into()),
        ..FieldDescriptorProto::default()
    };
    FileDescriptorProto {
        name: Some("number.proto".to_owned()),
        package: Some("test".to_owned()),
        message_type: vec![DescriptorProto {
            name: Some("Number".to_owned()),
            field: vec![
                field("value", 1, Type::Uint64),
                field("payload", 2, Type::Bytes),
            ],
            ..DescriptorProto::default()
        }],
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    }
}

/// A file with a service that has a method.
fn service_file(name: &str, package: &str, service: &str, method: &str) -> FileDescriptorProto {
    FileDescriptorProto {
        name: Some(name.to_owned()),
        package: Some(package.to_owned()),
        dependency: vec!["number.proto".to_owned()],
        service: vec![ServiceDescriptorProto {
            name: Some(service.to_owned()),
            method: vec![MethodDescriptorProto {
                name: Some(method.to_owned()),
                input_type: Some(".test.Number".to_owned()),
                output_type: Some(".test.Number".to_owned()),
                ..MethodDescriptorProto::default()
            }],
            ..ServiceDescriptorProto::default()
        }],
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    }
}

fn test_file() -> FileDescriptorProto {
    service_file("test.proto", "test", "Test", "Echo")
}

fn set<const N: usize>(file: [FileDescriptorProto; N]) -> Bytes {
    let file = file.into();
    FileDescriptorSet { file }.encode_to_vec().into()
}

async fn channel(address: impl Display) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    let channel = within(endpoint.expect("a URI").connect()).await;
    channel.expect("it serves")
}

async fn served(builder: ServerBuilder) -> (TestServer, Channel) {
    let server = TestServer::start(builder).await;
    let channel = channel(server.addr).await;
    (server, channel)
}

fn reflecting() -> ServerBuilder {
    echo().reflection(set([number_file(), test_file()]))
}

#[tokio::test]
async fn a_client_that_asks_no_more_and_does_not_say_so_does_not_hold_up_a_shutdown() {
    use tokio_stream::StreamExt;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;

    let server = Stoppable::start(reflecting(), "127.0.0.1:0").await;
    let channel = channel(&server.address).await;
    let request = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::MessageRequest::ListServices(String::new())),
    };
    let requests = tokio_stream::once(request).chain(tokio_stream::pending());
    let mut client = ServerReflectionClient::new(channel);
    let answers = within(client.server_reflection_info(requests)).await;
    let mut answers = answers.expect("it serves").into_inner();
    let answer = within(answers.message()).await.expect("it answers");
    assert!(answer.is_some());
    within(server.stop()).await.expect("it does not panic");
    let end = within(answers.message()).await.expect("a whole stream");
    assert!(end.is_none());
}

#[tokio::test]
async fn what_is_served_is_listed() {
    // There may be descriptors of what is not served.
    let other = service_file("other.proto", "test", "Other", "Method");
    let builder = reflecting()
        .reflection(set([number_file(), other]))
        .health(&Health::new());
    let (_server, channel) = served(builder).await;
    let expected = [HEALTH, V1, V1ALPHA, "test.Test"];
    assert_eq!(v1::services(&channel).await, expected);
    assert_eq!(v1alpha::services(&channel).await, expected);
}

#[tokio::test]
async fn health_is_listed_where_it_is_served() {
    let (_server, channel) = served(reflecting()).await;
    assert_eq!(v1::services(&channel).await, [V1, V1ALPHA, "test.Test"]);
    let refused = v1::symbol(&channel, HEALTH).await;
    assert_eq!(refused.expect_err("unknown").code(), Code::NotFound);
}

#[tokio::test]
async fn a_method_is_described_with_its_messages() {
    let builder = reflecting().health(&Health::new());
    let (_server, channel) = served(builder).await;
    for symbol in ["test.Test", "test.Test.Echo"] {
        let file = v1::symbol(&channel, symbol).await.expect("it is known");
        assert_eq!(file, test_file());
        let file = v1alpha::symbol(&channel, symbol).await;
        assert_eq!(file.expect("it is known"), test_file());
    }
    // What it imports, as clients ask for it.
    let wanted = v1::MessageRequest::FileByFilename("number.proto".to_owned());
    let file = v1::file(&channel, wanted).await.expect("it is known");
    assert_eq!(file, number_file());
    let wanted = v1alpha::MessageRequest::FileByFilename("number.proto".to_owned());
    let file = v1alpha::file(&channel, wanted).await.expect("it is known");
    assert_eq!(file, number_file());
    for own in [
        V1,
        V1ALPHA,
        HEALTH,
        "grpc.health.v1.Health.Watch",
        "grpc.health.v1.HealthCheckResponse.ServingStatus",
    ] {
        let file = v1::symbol(&channel, own).await.expect("it is known");
        assert!(own.starts_with(file.package()), "{own}");
        v1alpha::symbol(&channel, own).await.expect("it is known");
    }
}

#[tokio::test]
async fn what_is_not_known_is_not_found() {
    let (_server, channel) = served(reflecting()).await;
    for symbol in ["test.Other", "test.Test.Other", "", "test"] {
        let refused = v1::symbol(&channel, symbol).await.expect_err("unknown");
        assert_eq!(refused.code(), Code::NotFound, "{symbol}: {refused}");
        let refused = v1alpha::symbol(&channel, symbol).await;
        assert_eq!(refused.expect_err("unknown").code(), Code::NotFound);
    }
    let wanted = v1::MessageRequest::FileByFilename("other.proto".to_owned());
    let refused = v1::file(&channel, wanted).await.expect_err("unknown");
    assert_eq!(refused.code(), Code::NotFound);
    // No name is so long.
    let longest = "x".repeat(64 * 1024);
    let refused = v1::symbol(&channel, &longest).await.expect_err("too long");
    assert_eq!(refused.code(), Code::DataLoss, "{refused}");
    v1::symbol(&channel, "test.Test").await.expect("it goes on");
}

#[tokio::test]
async fn services_of_a_fallback_are_listed_where_they_are_named() {
    let demo = service_file("demo.proto", "demo", "Greeter", "Greet");
    let builder = reflecting()
        .reflection(set([number_file(), demo]))
        .fallback(Router::new().route("/demo.Greeter/Greet", get(|| async {})))
        .fallback_services(["demo.Greeter"]);
    let (server, channel) = served(builder).await;
    let expected = ["demo.Greeter", V1, V1ALPHA, "test.Test"];
    assert_eq!(v1::services(&channel).await, expected);
    v1::symbol(&channel, "demo.Greeter.Greet")
        .await
        .expect("it is known");
    // The fallback has all other paths.
    let (mut requests, connection) = {
        let tcp = tokio::net::TcpStream::connect(server.addr).await;
        let handshake = h2::client::handshake(tcp.expect("it listens"));
        within(handshake).await.expect("HTTP/2")
    };
    tokio::spawn(connection);
    for (path, status) in [("/demo.Greeter/Greet", 200), ("/other", 404)] {
        let request = http::Request::get(format!("http://gorums{path}")).body(());
        let sent = requests.send_request(request.expect("well-formed"), true);
        let (head, _) = sent.expect("the connection is up");
        let head = within(head).await.expect("it is answered");
        assert_eq!(head.status(), status, "{path}");
    }
}

async fn refused(builder: ServerBuilder) -> String {
    let bound = builder.bind("127.0.0.1:0").await;
    let error = bound.expect_err("it is refused");
    assert!(matches!(
        error,
        ServerError::BadDescriptors { .. } | ServerError::MissingDescriptors { .. }
    ));
    error.to_string()
}

#[tokio::test]
async fn descriptors_that_are_not_those_of_the_server_are_refused_with_what_to_do() {
    let health = || echo().health(&Health::new());
    let nameless = FileDescriptorProto::default();
    let other = FileDescriptorProto {
        package: Some("other".to_owned()),
        ..test_file()
    };
    for (builder, says, does) in [
        (
            echo().reflection(&b"\xffjunk"[..]),
            "the descriptors for reflection cannot be used: failed to decode",
            "FILE_DESCRIPTOR_SET",
        ),
        (
            echo().reflection(Bytes::new()),
            "a set has no file",
            "FILE_DESCRIPTOR_SET",
        ),
        (
            echo().reflection(set([nameless])),
            "a file has no name",
            "FILE_DESCRIPTOR_SET",
        ),
        (
            echo().reflection(set([test_file()])),
            "\"test.proto\" imports \"number.proto\", which is in no set",
            "--include_imports",
        ),
        (
            reflecting().reflection(set([number_file(), other])),
            "two files are called \"test.proto\" and are not the same",
            "needs another name",
        ),
        (
            health().reflection(set([number_file()])),
            "reflection has no descriptor of test.Test.Echo:",
            "FILE_DESCRIPTOR_SET",
        ),
        (
            reflecting().fallback_services(["demo.Greeter"]),
            "reflection has no descriptor of demo.Greeter:",
            "FILE_DESCRIPTOR_SET",
        ),
    ] {
        let text = refused(builder).await;
        assert!(text.contains(says) && text.contains(does), "{text}");
    }
}
