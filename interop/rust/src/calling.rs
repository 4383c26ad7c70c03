//! The service `Cluster`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gorums::call::QuorumCall;
use gorums::server::Clients;
use gorums::{Configuration, NodeError, ServerCtx, Status};
use prost::Message;
use tokio::time::timeout;

use crate::noting::{entries, failure};
use crate::proto::cluster_client::ClusterClient;
use crate::proto::cluster_server::Cluster;
use crate::proto::interop_client::InteropClient;
use crate::proto::{
    ClientAnswer, ClientsReply, ClientsRequest, CountRequest, Data, Entry, GatherRequest, Gathered,
    Levels, RelayReply, RelayRequest,
};

/// How long a nested call may take.
const NESTED: Duration = Duration::from_secs(20);

/// Calls its peers, and its clients. Clones are about the same server.
#[derive(Clone)]
pub(crate) struct Calling {
    name: Arc<str>,
    clients: Arc<OnceLock<Clients>>,
}

impl Calling {
    /// The name is that by which its server appears in answers.
    pub(crate) fn new(name: String) -> Self {
        Self {
            name: name.into(),
            clients: Arc::default(),
        }
    }

    /// Known once its server is bound.
    pub(crate) fn set_clients(&self, clients: Clients) {
        // Only the first counts, and there is only one server.
        let _ = self.clients.set(clients);
    }

    async fn clients(&self, count: u32) -> Result<Configuration, Status> {
        let clients = self.clients.get();
        let clients = clients.ok_or_else(|| Status::unavailable("the server is not bound yet"))?;
        let there = clients.wait_for(|clients| clients.len() as u64 >= u64::from(count));
        timeout(NESTED, there)
            .await
            .map_err(|_| Status::deadline_exceeded("so many clients did not come"))?
            .map_err(|stopped| Status::unavailable(stopped.to_string()))
    }
}

impl Cluster for Calling {
    async fn relay(&self, ctx: ServerCtx, request: RelayRequest) -> Result<RelayReply, Status> {
        let mut path = request.path;
        if path.is_empty() {
            return Ok(RelayReply {
                names: vec![self.name.to_string()],
                data: request.data,
                metadata: entries(ctx.metadata()),
            });
        }
        ctx.release();
        let next = path.remove(0);
        let peers = ctx.config();
        let node = peers.node(next);
        let node = node.ok_or_else(|| Status::not_found(format!("there is no node {next}")))?;
        let rest = RelayRequest {
            path,
            data: request.data,
            via: request.via,
        };
        let mut call = ClusterClient::new(&peers)
            .with_timeout(NESTED)
            .relay(node, rest)
            .metadata("hop", self.name.to_string());
        for (key, value) in ctx.metadata().iter() {
            call = call.metadata(key, value);
        }
        let mut reply = call.await?;
        reply.names.push(self.name.to_string());
        Ok(reply)
    }

    async fn gather(&self, ctx: ServerCtx, request: GatherRequest) -> Result<Gathered, Status> {
        let Some(depth) = request.depth.checked_sub(1) else {
            return Ok(Gathered {
                names: vec![self.name.to_string()],
            });
        };
        ctx.release();
        let deeper = GatherRequest {
            depth,
            via: request.via,
        };
        let peers = gorums::Client::new(ctx.config()).with_timeout(NESTED);
        let call = || peers.quorum_call::<_, Gathered>("interop.Cluster.Gather", deeper);
        call().majority().await?;
        let replies = call().all().replies().await?;
        let names = replies.values().flat_map(|reply| reply.names.clone());
        Ok(Gathered {
            names: names.collect(),
        })
    }

    async fn spread(&self, ctx: ServerCtx, request: Data) -> Result<(), Status> {
        InteropClient::new(ctx.config()).note_all(request).await?;
        Ok(())
    }

    async fn climb(&self, ctx: ServerCtx, request: CountRequest) -> Result<Levels, Status> {
        ctx.release();
        let peers = ctx.config();
        let count = InteropClient::new(&peers)
            .with_timeout(NESTED)
            .count(request);
        let mut answer = count.correctable(peers.len());
        let mut levels = Vec::new();
        while let Some(change) = answer.changed().await {
            let level = u32::try_from(change?.level).unwrap_or(u32::MAX);
            if levels.last() != Some(&level) {
                levels.push(level);
            }
        }
        Ok(Levels { levels })
    }

    async fn call_clients(
        &self,
        ctx: ServerCtx,
        request: ClientsRequest,
    ) -> Result<ClientsReply, Status> {
        if request.release {
            ctx.release();
        }
        let clients = self.clients(request.clients).await?;
        let mut client = InteropClient::new(&clients).with_timeout(NESTED);
        for Entry { key, value } in request.metadata {
            client = client.with_metadata(key, value);
        }
        let answers = if let Some(note) = request.note {
            for number in (note.from..).take(usize::try_from(note.count).unwrap_or(usize::MAX)) {
                let data = Data {
                    number,
                    ..Data::default()
                };
                client.note_all(data).await?;
            }
            Vec::new()
        } else if let Some(echo) = request.echo {
            answers(client.echo_all(echo), 1, |answer, data| {
                answer.data.push(data)
            })
            .await
        } else if let Some(count) = request.count {
            let replies = count.replies + u64::from(count.failure.is_some());
            answers(client.count(count), replies, |answer, data| {
                answer.data.push(data)
            })
            .await
        } else if let Some(fail) = request.fail {
            let call = gorums::Client::new(&clients).with_timeout(NESTED);
            let call = call.quorum_call::<_, Data>("interop.Interop.Fail", fail);
            answers(call, 1, |answer, data| answer.data.push(data)).await
        } else if let Some(inspect) = request.inspect {
            let call = client.configuration().iter().next().cloned();
            let call = call.ok_or_else(|| Status::failed_precondition("there are no clients"))?;
            let seen = client.inspect(&call, inspect).await?;
            vec![ClientAnswer {
                node: call.id().get(),
                seen: Some(seen),
                ..ClientAnswer::default()
            }]
        } else {
            return Err(Status::invalid_argument("nothing is asked of the clients"));
        };
        Ok(ClientsReply { answers })
    }
}

/// So many replies of each client. An error is one, too.
async fn answers<Req, Resp>(
    call: QuorumCall<Req, Resp>,
    each: u64,
    put: impl Fn(&mut ClientAnswer, Resp),
) -> Vec<ClientAnswer>
where
    Req: Message + 'static,
    Resp: Message + Default + 'static,
{
    let mut answers: Vec<_> = call
        .configuration()
        .ids()
        .map(|id| ClientAnswer {
            node: id.get(),
            ..ClientAnswer::default()
        })
        .collect();
    let expected = each * answers.len() as u64;
    let mut responses = call.responses();
    for _ in 0..expected {
        let Some(response) = responses.next().await else {
            break;
        };
        let id = response.node().get();
        let Some(answer) = answers.iter_mut().find(|answer| answer.node == id) else {
            continue;
        };
        match response.into_result() {
            Ok(reply) => put(answer, reply),
            Err(error) => answer.failure = Some(failure(NodeError::status(&error))),
        }
    }
    answers
}
