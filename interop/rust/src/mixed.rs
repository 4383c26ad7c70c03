//! The cases of clusters in which some servers are of this library and some of another
//! implementation.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use gorums::{Client, Code, Configuration};
use tokio::time::{Instant, sleep};

use crate::client::{data, failed, inspect};
use crate::process::Process;
use crate::proto::cluster_client::ClusterClient;
use crate::proto::interop_client::InteropClient;
use crate::proto::{
    CountRequest, Data, GatherRequest, Gathered, InspectRequest, RelayRequest, Via,
};
use crate::runner::{Case, Start, cases};
use crate::secrets::Secrets;

pub(crate) const CASES: &[Case] = cases![
    quorum_calls_and_multicasts_of_a_client,
    nested_quorum_calls_in_all_directions,
    relays_along_every_path,
    nested_multicasts,
    nested_correctables,
    a_paused_peer_slows_no_majority,
    each_peer_is_killed_and_restarted_under_traffic,
];

/// With the certificates of nodes.
pub(crate) const TLS_CASES: &[Case] =
    cases![a_peer_with_the_certificate_of_another_is_refused_by_both];

/// So long may it take until all are connected, or connected again.
const CONNECTED: Duration = Duration::from_secs(20);

/// Three servers that are peers, those of the other implementation first, and a client of theirs.
struct Cluster {
    start: Start,
    peers: String,
    addresses: Vec<String>,
    servers: Vec<Process>,
    all: Configuration,
}

/// Addresses that nobody listens on.
pub(crate) fn free_addresses(count: usize) -> Result<Vec<String>> {
    let listeners: Vec<_> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()?;
    let addresses = listeners.iter().map(|listener| listener.local_addr());
    addresses.map(|address| Ok(address?.to_string())).collect()
}

impl Cluster {
    async fn start(start: Start) -> Result<Self> {
        let addresses = free_addresses(3)?;
        let peers = (1..)
            .zip(&addresses)
            .map(|(id, address)| format!("{id}={address}"));
        let peers = peers.collect::<Vec<_>>().join(",");
        let all = start.configuration()?.nodes(addresses.clone()).connect()?;
        let mut cluster = Self {
            start,
            peers,
            addresses,
            servers: Vec::new(),
            all,
        };
        for index in 0..3 {
            let server = cluster.server(index).await?;
            cluster.servers.push(server);
        }
        cluster.connected().await?;
        Ok(cluster)
    }

    async fn server(&self, index: usize) -> Result<Process> {
        let secrets = self.start.secrets(&format!("node-{}", index + 1));
        self.server_as(index, &secrets).await
    }

    /// One with other certificates than its own.
    async fn server_as(&self, index: usize, secrets: &Secrets) -> Result<Process> {
        let id = (index + 1).to_string();
        let address = &self.addresses[index];
        let args = ["--id", &id, "--peers", &self.peers, "--listen", address];
        if index < self.start.others {
            self.start.server_as(secrets, &args).await
        } else {
            self.start.ours_as(secrets, &args).await
        }
    }

    /// The name of a server in answers.
    fn name(&self, index: usize) -> String {
        let kind = if index < self.start.others {
            "go"
        } else {
            "rust"
        };
        format!("{kind}-{}", index + 1)
    }

    /// Waits until every server reaches every other one, over the connections of either.
    async fn connected(&self) -> Result<()> {
        let patience = Instant::now() + CONNECTED;
        for via in [Via::Theirs, Via::Own] {
            loop {
                let replies = self.gather(1, via).await;
                if replies
                    .as_ref()
                    .is_ok_and(|replies| replies.values().all(|names| names.len() == 3))
                {
                    break;
                }
                if Instant::now() > patience {
                    bail!(
                        "the servers do not reach each other, over {via:?} connections: {replies:?}"
                    );
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// What each server gathers, by its id.
    async fn gather(&self, depth: u32, via: Via) -> Result<BTreeMap<u32, Vec<String>>> {
        let request = GatherRequest {
            depth,
            via: via.into(),
        };
        let call =
            Client::new(&self.all).quorum_call::<_, Gathered>("interop.Cluster.Gather", request);
        let replies = call.timeout(CONNECTED).all().replies().await?;
        Ok(replies
            .iter()
            .map(|(node, reply)| (node.get(), reply.names.clone()))
            .collect())
    }
}

/// What a server has noted, once it is so much.
async fn noted(all: &Configuration, node: usize, noted: u64) -> Result<Vec<u64>> {
    let request = InspectRequest {
        noted,
        cancelled: 0,
    };
    let seen = InteropClient::new(all).inspect(&all[node], request);
    Ok(seen.timeout(CONNECTED).await?.numbers)
}

async fn quorum_calls_and_multicasts_of_a_client(start: Start) -> Result<()> {
    let cluster = Cluster::start(start).await?;
    let client = InteropClient::new(&cluster.all);
    let mut expected = Vec::new();
    for number in (0..300).step_by(3) {
        let replies = client.echo_all(data(number)).all().replies().await?;
        ensure!(replies.values().all(|reply| *reply == data(number)));
        ensure!(client.echo_all(data(number + 1)).majority().await? == data(number + 1));
        client.note_all(data(number + 2)).await?;
        expected.extend(number..number + 3);
    }
    for node in 0..3 {
        // Servers of ours do not count what is strange: they refuse it.
        let numbers = if node < cluster.start.others {
            inspect(&cluster.all, node, 300).await?.numbers
        } else {
            noted(&cluster.all, node, 300).await?
        };
        ensure!(numbers == expected, "node {}: {numbers:?}", node + 1);
    }
    Ok(())
}

async fn nested_quorum_calls_in_all_directions(start: Start) -> Result<()> {
    let cluster = Cluster::start(start).await?;
    for _ in 0..5 {
        for via in [Via::Theirs, Via::Own] {
            for (id, names) in cluster.gather(3, via).await? {
                // Each asks three, who ask three, who ask three.
                ensure!(names.len() == 27, "node {id}: {names:?}");
                for index in 0..3 {
                    let name = cluster.name(index);
                    let times = names.iter().filter(|got| **got == name).count();
                    ensure!(
                        times == 9,
                        "node {id} reached {name} {times} times, over {via:?} connections"
                    );
                }
            }
        }
    }
    Ok(())
}

async fn relays_along_every_path(start: Start) -> Result<()> {
    let cluster = Cluster::start(start).await?;
    let client = ClusterClient::new(&cluster.all);
    let payload = Data {
        number: 7,
        bytes: vec![1; 70_000],
    };
    for via in [Via::Theirs, Via::Own] {
        for path in 0..27_usize {
            let path = [path / 9, path / 3 % 3, path % 3];
            let request = RelayRequest {
                path: path[1..].iter().map(|index| *index as u32 + 1).collect(),
                data: Some(payload.clone()),
                via: via.into(),
            };
            let call = client.relay(&cluster.all[path[0]], request);
            let reply = call.metadata("trace", "größe").timeout(CONNECTED).await;
            let reply = reply.with_context(|| format!("path {path:?} over {via:?} connections"))?;
            let names: Vec<_> = path
                .iter()
                .rev()
                .map(|index| cluster.name(*index))
                .collect();
            ensure!(reply.names == names, "path {path:?}: {:?}", reply.names);
            ensure!(
                reply.data.as_ref() == Some(&payload),
                "path {path:?}: the payload changed"
            );
            let values = |key: &str| -> Vec<_> {
                let entries = reply.metadata.iter().filter(|entry| entry.key == key);
                let mut values: Vec<_> = entries.map(|entry| entry.value.clone()).collect();
                values.sort();
                values
            };
            ensure!(
                values("trace") == ["größe"],
                "path {path:?}: {:?}",
                reply.metadata
            );
            let mut hops = vec![cluster.name(path[0]), cluster.name(path[1])];
            hops.sort();
            ensure!(values("hop") == hops, "path {path:?}: {:?}", reply.metadata);
        }
    }
    Ok(())
}

async fn nested_multicasts(start: Start) -> Result<()> {
    let cluster = Cluster::start(start).await?;
    let client = ClusterClient::new(&cluster.all);
    for number in 0..100 {
        for index in 0..3 {
            client
                .spread(&cluster.all[index], data(number * 3 + index as u64))
                .await?;
        }
    }
    for node in 0..3 {
        let mut numbers = noted(&cluster.all, node, 300).await?;
        // Those of one sender come in its order.
        for sender in 0..3 {
            let own = numbers.iter().filter(|number| *number % 3 == sender);
            ensure!(own.is_sorted(), "node {}: {numbers:?}", node + 1);
        }
        numbers.sort_unstable();
        ensure!(
            numbers.iter().copied().eq(0..300),
            "node {}: {numbers:?}",
            node + 1
        );
    }
    Ok(())
}

async fn nested_correctables(start: Start) -> Result<()> {
    let cluster = Cluster::start(start).await?;
    for node in &cluster.all {
        let request = CountRequest {
            from: 1,
            replies: 3,
            failure: None,
        };
        let reply = ClusterClient::new(&cluster.all)
            .climb(node, request)
            .timeout(CONNECTED);
        let levels = reply.await?.levels;
        // Levels that came at once may have been passed over, but for the last.
        ensure!(
            levels.is_sorted() && levels.last() == Some(&3),
            "node {}: {levels:?}",
            node.id()
        );
    }
    let request = CountRequest {
        from: 1,
        replies: 3,
        failure: None,
    };
    let mut answer = InteropClient::new(&cluster.all)
        .count(request)
        .correctable(3);
    let level = answer.reached(3).await?.level;
    ensure!(level == 3, "level {level}");
    Ok(())
}

async fn a_paused_peer_slows_no_majority(start: Start) -> Result<()> {
    let cluster = Cluster::start(start).await?;
    let client = InteropClient::new(&cluster.all);
    for index in 0..3 {
        cluster.servers[index].pause().await?;
        for number in 0..300 {
            let call = client.echo_all(data(number)).timeout(CONNECTED);
            ensure!(call.majority().await? == data(number));
        }
        cluster.servers[index].resume().await?;
        client.echo_all(data(300)).timeout(CONNECTED).all().await?;
    }
    Ok(())
}

/// Whoever has the certificate of node 1 is not taken for the last node, whoever of the two servers
/// connects, and the others go on.
async fn a_peer_with_the_certificate_of_another_is_refused_by_both(start: Start) -> Result<()> {
    let mut cluster = Cluster::start(start).await?;
    for index in [0, 2] {
        cluster.servers[index].kill().await?;
        let (id, other) = (index + 1, 3 - index);
        let secrets = cluster.start.secrets(&format!("node-{other}"));
        cluster.servers[index] = cluster.server_as(index, &secrets).await?;
        let client = ClusterClient::new(&cluster.all);
        // Over its own connections and over those of the others: neither takes the other.
        for via in [Via::Own, Via::Theirs] {
            for caller in (0..3).filter(|caller| *caller != index) {
                let request = RelayRequest {
                    path: vec![id as u32],
                    data: None,
                    via: via.into(),
                };
                let call = client.relay(&cluster.all[caller], request);
                let error = failed(call.timeout(CONNECTED).await)?;
                let refused = [Code::PermissionDenied, Code::Unavailable, Code::NotFound];
                ensure!(
                    refused.contains(&error.code()),
                    "node {} to node {id} over {via:?} connections: {error}",
                    caller + 1
                );
            }
        }
        let error = failed(
            InteropClient::new(&cluster.all)
                .echo(&cluster.all[index], data(1))
                .await,
        )?;
        ensure!(
            error.code() == Code::PermissionDenied,
            "our client to node {id}: {error}"
        );
        let call = InteropClient::new(&cluster.all).echo_all(data(2));
        ensure!(call.timeout(CONNECTED).majority().await? == data(2));
        cluster.servers[index].kill().await?;
        cluster.servers[index] = cluster.server(index).await?;
        cluster.connected().await?;
    }
    Ok(())
}

async fn each_peer_is_killed_and_restarted_under_traffic(start: Start) -> Result<()> {
    let mut cluster = Cluster::start(start).await?;
    let client = InteropClient::new(&cluster.all);
    let traffic = tokio::spawn(async move {
        for number in 0.. {
            let call = client.echo_all(data(number)).timeout(CONNECTED);
            let reply = call.majority().await;
            let reply = reply.with_context(|| format!("majority {number}"))?;
            ensure!(reply == data(number), "majority {number}: {reply:?}");
            // Nested calls of all fail while one is down; the connections have to bear it.
            if number % 10 == 0 {
                let request = GatherRequest {
                    depth: 1,
                    via: Via::Theirs.into(),
                };
                let call = Client::new(client.configuration());
                let call = call.quorum_call::<_, Gathered>("interop.Cluster.Gather", request);
                let _ = call.timeout(Duration::from_secs(1)).first().await;
            }
        }
        Ok(())
    });
    for index in 0..3 {
        cluster.servers[index].kill().await?;
        let gathered = cluster.gather(1, Via::Theirs).await;
        ensure!(gathered.is_err(), "one is down, and answers: {gathered:?}");
        cluster.servers[index] = cluster.server(index).await?;
        cluster.connected().await?;
    }
    if traffic.is_finished() {
        return traffic.await?;
    }
    traffic.abort();
    Ok(())
}
