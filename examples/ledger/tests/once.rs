//! A replica has each call once, over restarts in which answers are lost.

#[path = "../../storage/tests/common/losing.rs"]
mod losing;

use std::path::Path;
use std::time::Duration;

use gorums::{Code, Configuration};
use ledger::note::Note;
use ledger::proto::ledger_client::LedgerClient;
use ledger::proto::ledger_server::LedgerServer;
use ledger::proto::{AddRequest, AppendRequest, ReadRequest};
use ledger::service::{LINE, Replica};
use losing::Losing;
use storage::disk::Disk;
use storage::store::Store;

const LIMIT: Duration = Duration::from_secs(60);

async fn start(directory: &Path, address: &str, answers: u32) -> Losing<Note> {
    let disk = Disk::open(directory, 1).expect("it can be opened");
    let serves = |store| LedgerServer::new(Replica::new(store));
    Losing::start(Store::on_disk(disk, None), serves, address, answers).await
}

fn client(address: &str, has_sessions: bool) -> LedgerClient {
    let nodes = Configuration::builder().nodes([address]);
    let nodes = match has_sessions {
        true => nodes.sessions(LIMIT),
        false => nodes,
    };
    LedgerClient::new(nodes.connect().expect("an address")).with_timeout(LIMIT)
}

#[tokio::test]
async fn every_call_counts_once_however_often_the_replica_is_started_anew() {
    const CALLS: u64 = 40;
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let mut replica = start(directory, "127.0.0.1:0", 7).await;
    let address = replica.address.clone();
    let client = client(&address, true);
    let calls: Vec<_> = (1..=CALLS)
        .map(|number| {
            let added = client.add(AddRequest { amount: number });
            let line = number.to_string();
            let appended = client.append(AppendRequest { line });
            let (added, appended) = (added.all(), appended.all());
            let both = async move { (added.await, appended.await) };
            (number, tokio::spawn(both))
        })
        .collect();
    // All have had their effect and few have been answered, and again.
    for (enough, answers) in [(2 * CALLS as u32, 0), (CALLS as u32, u32::MAX)] {
        replica.has_done(enough).await;
        replica.end().await;
        replica = start(directory, &address, answers).await;
    }
    for (number, both) in calls {
        let (added, appended) = both.await.expect("no panic");
        let added = added.expect("it is sent again");
        assert_eq!(added.count, (1..=number).sum::<u64>());
        assert_eq!(appended.expect("it is sent again").position, number - 1);
    }
    let read = client.read(ReadRequest { from: 0 }).all().await;
    let read = read.expect("it is up");
    assert_eq!(read.count, (1..=CALLS).sum::<u64>());
    let lines: Vec<_> = (1..=CALLS).map(|number| number.to_string()).collect();
    assert_eq!((read.lines, read.last), (lines, true));
    let read = client.read(ReadRequest { from: CALLS - 1 }).all().await;
    assert_eq!(read.expect("it is up").lines, [CALLS.to_string()]);
    replica.end().await;
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_and_changes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let replica = start(directory.path(), "127.0.0.1:0", u32::MAX).await;
    let with = client(&replica.address, true);
    let without = client(&replica.address, false);
    let add = |client: &LedgerClient, amount| client.add(AddRequest { amount }).all();
    let append = |bytes| {
        let line = "x".repeat(bytes);
        with.append(AppendRequest { line }).all()
    };
    assert_eq!(add(&with, 5).await.expect("it is up").count, 5);
    let errors = [
        add(&without, 1).await.expect_err("it has no name"),
        add(&with, u64::MAX).await.expect_err("too much"),
        append(LINE + 1).await.expect_err("too long"),
    ];
    let codes = errors.map(|error| error.failures()[0].code());
    let expected = [
        Code::FailedPrecondition,
        Code::OutOfRange,
        Code::InvalidArgument,
    ];
    assert_eq!(codes, expected);
    assert_eq!(append(LINE).await.expect("it fits").position, 0);
    let read = without.read(ReadRequest::default()).all().await;
    let read = read.expect("it needs no name");
    assert_eq!((read.count, read.lines.len(), read.last), (5, 1, true));
    replica.end().await;
}
