//! The same replicas and clients in simulated clusters, whose replicas lose their power, pause, are
//! cut off, and have disks that fail.

use std::collections::HashMap;

use gorums::Status;
use gorums_sim::history::{Action, Outcome};
use gorums_sim::{Campaign, Client, FaultKind, History, Replica, Scenario, Verdict, Violation};
use prost::Message;

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
        .check(one_owner);
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
        if node.random_below(2) == 0 {
            let claim = node.history().write(node.id(), &name, &me);
            match claims.claim(&name, &me).await {
                Ok(()) => claim.ok(),
                Err(_) => claim.failed(),
            };
        } else {
            let look = node.history().read(node.id(), &name);
            match claims.owner(&name).await {
                Ok(owner) => look.ok(owner),
                Err(_) => look.failed(),
            };
        }
    }
    Ok(())
}

/// Whoever was told of a name's owner was told of the same one.
fn one_owner(history: &History) -> Verdict {
    let mut owners = HashMap::new();
    for (at, operation) in history.operations().iter().enumerate() {
        let owner = match &operation.action {
            Action::Write(candidate) => Some(candidate),
            Action::Read(owner) => owner.as_ref(),
        };
        let Some(owner) = owner.filter(|_| operation.outcome == Outcome::Ok) else {
            continue;
        };
        let (first, known) = *owners.entry(&operation.key).or_insert((at, owner));
        if known != owner {
            let reason = format!("{} is owned by {known} and by {owner}", operation.key);
            return Verdict::Violation(Violation::new(reason, [first, at]));
        }
    }
    Verdict::Valid
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
