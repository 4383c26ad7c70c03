//! The same replicas and clients in simulated clusters, whose replicas lose their power, pause, are
//! cut off, and have disks that fail.

use gorums::Status;
use gorums_sim::history::Model;
use gorums_sim::{Campaign, Client, FaultKind, Replica, Scenario};
use prost::Message;
use serde::{Deserialize, Serialize};

use service_crate::client::Claims;
use service_crate::disk::Disk;
use service_crate::proto::Votes;
use service_crate::proto::claims_server::ClaimsServer;
use service_crate::replica::Replica as Service;

#[test]
fn a_name_never_has_two_owners() {
    let scenario = Scenario::new("claims")
        .faults([
            FaultKind::Delay,
            FaultKind::Stall,
            FaultKind::Partition,
            FaultKind::Pause,
            FaultKind::Crash,
            FaultKind::PowerFailure,
            FaultKind::SlowDisk,
            FaultKind::FailingDisk,
        ])
        .replica(replica)
        .client(client)
        .check(|history| history.linearizable_as(&Name));
    let report = Campaign::new(&scenario).seeds(1..=20).run(|_| {});
    assert!(report.failed().is_none(), "{report}");
}

async fn replica(node: Replica) -> gorums_sim::Result {
    let service = Service::open(Simulated(node.disk())).await?;
    let server = node.server().add_service(ClaimsServer::new(service));
    node.serve(server).await
}

async fn client(node: Client) -> gorums_sim::Result {
    let replicas = node.configuration().connect()?;
    let claims = Claims::new(&replicas, node.patience());
    let me = node.id().to_string();
    while node.next_operation().await {
        let name = format!("name-{}", node.random_below(50));
        let history = node.history();
        if node.random_below(2) == 0 {
            let claim = history.operation(node.id(), &name, Input::Claim(me.clone()));
            match claims.claim(&name, &me).await {
                Ok(()) => claim.returned(Some(me.clone())),
                Err(_) => claim.failed(),
            };
        } else {
            let look = history.operation(node.id(), &name, Input::Look);
            match claims.owner(&name).await {
                Ok(owner) => look.returned(owner),
                Err(_) => look.failed(),
            };
        }
    }
    Ok(())
}

/// What a name is, if its operations came one after the other.
struct Name;

#[derive(Debug, Serialize, Deserialize)]
enum Input {
    Claim(String),
    Look,
}

impl Model for Name {
    /// Its owner.
    type State = Option<String>;
    type Input = Input;
    /// The owner that it turned out to have.
    type Output = Option<String>;

    fn initial(&self) -> Self::State {
        None
    }

    fn step(
        &self,
        owner: &Self::State,
        input: &Input,
        output: Option<&Self::Output>,
    ) -> Option<Self::State> {
        let after = match (owner, input) {
            (None, Input::Claim(candidate)) => Some(candidate.clone()),
            (owner, _) => owner.clone(),
        };
        // What a claim that failed has found is not known.
        output
            .is_none_or(|output| *output == after)
            .then_some(after)
    }
}

/// The disk of a simulated replica: as in `src/disk.rs`, all votes are replaced at once.
struct Simulated(gorums_sim::Disk<Vec<u8>>);

impl Disk for Simulated {
    async fn load(&self) -> Result<Votes, Status> {
        let bytes = self.0.read(Vec::clone).await.map_err(failed)?;
        Votes::decode(&*bytes).map_err(failed)
    }

    async fn save(&self, votes: &Votes) -> Result<(), Status> {
        let new = votes.encode_to_vec();
        self.0.commit(|bytes| *bytes = new).await.map_err(failed)
    }
}

fn failed(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}
