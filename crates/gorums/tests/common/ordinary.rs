//! A client that makes ordinary gRPC calls, by tonic.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::fmt::Display;

use http::uri::PathAndQuery;
use prost::Message;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::common::{Number, within};

/// What `tonic-prost-build` would generate.
#[derive(Clone)]
pub struct Ordinary(pub tonic::client::Grpc<Channel>);

impl Ordinary {
    pub async fn connect(address: impl Display) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}"));
        let channel = within(endpoint.expect("a URI").connect()).await;
        Self(tonic::client::Grpc::new(channel.expect("it serves")))
    }

    pub async fn request<T>(
        &mut self,
        path: &'static str,
        request: tonic::Request<Number>,
    ) -> Result<T, tonic::Status>
    where
        T: Message + Default + Send + 'static,
    {
        within(self.0.ready()).await.expect("it is connected");
        let codec = ProstCodec::<Number, T>::default();
        let path = PathAndQuery::from_static(path);
        let reply = within(self.0.unary(request, path, codec)).await;
        reply.map(tonic::Response::into_inner)
    }

    pub async fn call(
        &mut self,
        path: &'static str,
        request: Number,
    ) -> Result<Number, tonic::Status> {
        self.request(path, tonic::Request::new(request)).await
    }

    pub async fn streamed(
        &mut self,
        path: &'static str,
        request: Number,
    ) -> Result<tonic::Streaming<Number>, tonic::Status> {
        within(self.0.ready()).await.expect("it is connected");
        let codec = ProstCodec::<Number, Number>::default();
        let path = PathAndQuery::from_static(path);
        let request = tonic::Request::new(request);
        let replies = within(self.0.server_streaming(request, path, codec)).await;
        replies.map(tonic::Response::into_inner)
    }
}
