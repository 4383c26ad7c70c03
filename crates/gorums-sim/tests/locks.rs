//! A lock that a majority of replicas grants, judged by the model of a lock: what a user's own test
//! looks like, and what it prints where the lock is wrong.

#[allow(dead_code, reason = "the other objects have tests of their own")]
mod models;

use std::collections::BTreeMap;
use std::env;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gorums::{ServerCtx, Status};
use gorums_sim::{Campaign, Client, Disk, FaultKind, FaultSet, Files, Replica, Scenario};
use models::{Lock, LockInput};

const ACQUIRE: &str = "Lock.Acquire";
const RELEASE: &str = "Lock.Release";

/// A client's attempt to have the lock. Its attempts are numbered.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct Attempt {
    #[prost(uint32, tag = "1")]
    client: u32,
    #[prost(uint64, tag = "2")]
    number: u64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Vote {
    #[prost(bool, tag = "1")]
    granted: bool,
}

/// To whom a replica has granted the lock.
#[derive(Debug, Default)]
struct Grants {
    holder: Option<Attempt>,
    /// The last attempt of each client that is over: what of it arrives later is refused.
    over: BTreeMap<u32, u64>,
}

impl Grants {
    fn acquire(&mut self, attempt: Attempt) -> bool {
        let over = self.over.get(&attempt.client).copied().unwrap_or_default();
        let free = self
            .holder
            .is_none_or(|holder| holder.client == attempt.client);
        let granted = free && attempt.number > over;
        if granted {
            self.holder = Some(attempt);
        }
        granted
    }

    fn release(&mut self, attempt: Attempt) {
        let over = self.over.entry(attempt.client).or_default();
        *over = attempt.number.max(*over);
        let over = *over;
        self.holder = self
            .holder
            .filter(|holder| holder.client != attempt.client || holder.number > over);
    }
}

/// Where a replica has its grants.
#[derive(Debug, Clone, Copy)]
enum Memory {
    Durable,
    Volatile,
}

#[derive(Clone)]
enum Place {
    Disk(Disk<Grants>),
    Ram(Arc<Mutex<Grants>>),
}

impl Place {
    fn new(node: &Replica, memory: Memory) -> Self {
        match memory {
            Memory::Durable => Self::Disk(node.disk()),
            Memory::Volatile => Self::Ram(Arc::default()),
        }
    }

    async fn change<T>(&self, change: impl FnOnce(&mut Grants) -> T) -> Result<T, Status> {
        match self {
            Self::Ram(grants) => Ok(change(&mut grants.lock().expect("not poisoned"))),
            Self::Disk(disk) => {
                let mut changed = None;
                let committed = disk.commit(|grants| changed = Some(change(grants))).await;
                committed.map_err(|error| Status::internal(error.to_string()))?;
                Ok(changed.expect("it was committed"))
            }
        }
    }
}

async fn replica(node: Replica, memory: Memory) -> gorums_sim::Result {
    let place = Place::new(&node, memory);
    let released = place.clone();
    let server = node
        .server()
        .unary(ACQUIRE, move |_: ServerCtx, attempt: Attempt| {
            let place = place.clone();
            async move {
                let granted = place.change(|grants| grants.acquire(attempt)).await?;
                Ok::<_, Status>(Vote { granted })
            }
        })
        .unary(RELEASE, move |_: ServerCtx, attempt: Attempt| {
            let place = released.clone();
            async move {
                place.change(|grants| grants.release(attempt)).await?;
                Ok::<_, Status>(Vote::default())
            }
        });
    node.serve(server).await
}

async fn client(node: Client) -> gorums_sim::Result {
    let replicas = gorums::Client::new(&node.configuration().connect()?);
    let count = node.addresses().len();
    let majority = count / 2 + 1;
    let me = node.id();
    let mut attempt = Attempt {
        client: me,
        number: 0,
    };
    while node.next_operation().await {
        attempt.number += 1;
        let acquire = node.history().operation(me, "lock", LockInput::Acquire(me));
        let votes = replicas.quorum_call::<Attempt, Vote>(ACQUIRE, attempt);
        let votes = votes.timeout(node.patience()).quorum_fn(|_, votes| {
            let granted = votes.values().filter(|vote| vote.granted).count();
            let refused = votes.len() - granted;
            match granted >= majority {
                true => Some(true),
                false => (refused > count - majority).then_some(false),
            }
        });
        let granted = match votes.await {
            Ok(granted) => {
                acquire.returned(granted);
                granted
            }
            Err(_) => {
                acquire.failed();
                false
            }
        };
        if granted {
            // It has the lock for a while, now and then for longer than replicas take to restart.
            let longest = if node.random_below(4) == 0 { 2000 } else { 100 };
            tokio::time::sleep(Duration::from_millis(node.random_below(longest))).await;
        }
        // What a minority has granted is given back, too. That is no operation of its own: the lock
        // was not had.
        let release = granted.then(|| node.history().operation(me, "lock", LockInput::Release(me)));
        let released = replicas.quorum_call::<Attempt, Vote>(RELEASE, attempt);
        let released = released.timeout(node.patience()).majority().await;
        match (release, released) {
            (Some(release), Ok(_)) => {
                release.returned(true);
            }
            (Some(release), Err(_)) => {
                release.failed();
            }
            (None, _) => {}
        }
    }
    Ok(())
}

fn locks(memory: Memory) -> Scenario {
    Scenario::new(format!("lock, {memory:?}"))
        .replicas(3..=3)
        .clients(3..=3)
        .operations(40)
        .duration(Duration::from_secs(4))
        .faults([
            FaultKind::Delay,
            FaultKind::Partition,
            FaultKind::PowerFailure,
            FaultKind::Reset,
        ])
        .replica(move |node| replica(node, memory))
        .client(client)
        .check(|history| history.linearizable_as(&Lock))
}

#[test]
fn a_lock_by_majority_is_a_lock() {
    let scenario = locks(Memory::Durable);
    let report = Campaign::new(&scenario).seeds(1..=10).run(|_| {});
    assert!(report.failed().is_none(), "{report}");
    let run = scenario.run(1);
    let granted = run.history().operations().iter();
    let granted = granted.filter(|op| op.to_string().ends_with("returns true"));
    assert!(granted.count() > 10, "{run}");
}

/// A line that begins so, without its beginning.
fn line<'a>(text: &'a str, begins: &str) -> &'a str {
    let mut lines = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix(begins));
    lines
        .next()
        .unwrap_or_else(|| panic!("no line begins with {begins:?}:\n{text}"))
}

#[test]
fn a_report_ends_with_what_failed_and_how_to_see_it_again() {
    const TEST: &str = "a_report_ends_with_what_failed_and_how_to_see_it_again";
    let scenario = locks(Memory::Volatile);
    let report = Campaign::new(&scenario).seeds(1..=100).run(|_| {});
    let text = report.to_string();
    if env::var_os("GORUMS_SIM_SEED").is_some() {
        // The second process, below.
        print!("{text}");
        assert_eq!(report.seeds(), 1);
        return;
    }
    let failed = report.failed().expect("a power failure takes the grants");
    let run = failed.run();
    assert!(text.ends_with(&failed.to_string()), "{text}");
    assert!(line(&text, "seed ").starts_with(&format!("{}: 3 replicas", run.seed())));
    let faults: Vec<_> = run.faults().collect();
    for (at, fault, _) in &faults {
        assert_eq!(line(&text, &format!("fault {at}: ")), fault.to_string());
    }
    let reason = line(&text, "FAILED: ");
    assert!(reason.contains("Acquire("), "{text}");
    assert!(reason.contains("on lock returns true, which cannot be: after "));
    assert!(line(&text, "1: ").contains("s  client "), "{text}");
    let fewer = failed.shrunk().expect("a power failure is enough");
    assert_eq!(
        line(&text, "shrunk from "),
        format!("{} faults to {}", failed.planned(), fewer.len())
    );
    // What was written.
    let files = failed.files().expect("a violation has a picture");
    let picture = files.picture().expect("the target folder can be written");
    assert_eq!(line(&text, "picture: "), picture.display().to_string());
    let name = format!("lock-Volatile-{}.svg", run.seed());
    assert!(picture.ends_with(format!("gorums-sim/{name}")), "{text}");
    let svg = std::fs::read_to_string(picture).expect("it was written");
    assert_eq!(Some(svg), run.svg());
    let history = files.history().expect("so can the history");
    assert_eq!(line(&text, "history: "), history.display().to_string());
    // The command runs this seed again, with these faults, and the same comes of it.
    let faults = FaultSet::from(fewer.to_vec());
    let seed = run.seed();
    assert_eq!(failed.command(), line(&text, "again: "));
    let variables = format!("GORUMS_SIM_SEED={seed} GORUMS_SIM_FAULTS={faults} ");
    let command = failed.command().strip_prefix(&variables).expect(&text);
    if std::thread::current().name() == Some(TEST) && env::var_os("CARGO_PKG_NAME").is_some() {
        assert_eq!(command, format!("cargo test -p gorums-sim {TEST}"));
    }
    let again = Command::new(env::current_exe().expect("this program is a file"))
        .args([TEST, "--exact", "--nocapture"])
        .env("GORUMS_SIM_SEED", seed.to_string())
        .env("GORUMS_SIM_FAULTS", faults.to_string())
        .output()
        .expect("this program runs");
    let printed = String::from_utf8_lossy(&again.stdout);
    assert!(again.status.success(), "{printed}");
    assert!(printed.contains(&run.to_string()), "{printed}\n{text}");
}

#[test]
fn a_wrong_wish_of_the_environment_says_what_is_right() {
    const TEST: &str = "a_wrong_wish_of_the_environment_says_what_is_right";
    if env::var_os("GORUMS_SIM_SEED").is_some() || env::var_os("GORUMS_SIM_FAULTS").is_some() {
        // The second process, below.
        let scenario = locks(Memory::Durable);
        let report = Campaign::new(&scenario).seeds(1..=1).run(|_| {});
        panic!("it ran:\n{report}");
    }
    let planned = locks(Memory::Durable).plan(1).len();
    for (seed, faults, expected) in [
        (Some("first"), None, "GORUMS_SIM_SEED is one seed, a number, and not \"first\"".to_owned()),
        (
            Some("1"),
            Some("0;1"),
            "GORUMS_SIM_FAULTS is the numbers of faults, as in 1,4, or none: \"0;1\" is not the number of a fault".to_owned(),
        ),
        (
            Some("1"),
            Some("99"),
            format!("seed 1 of lock, Durable has no fault 99: its {planned} faults are numbered from 0 on"),
        ),
        (None, Some("1"), "GORUMS_SIM_FAULTS is of no use without GORUMS_SIM_SEED".to_owned()),
    ] {
        let mut again = Command::new(env::current_exe().expect("this program is a file"));
        again.args([TEST, "--exact", "--nocapture"]);
        seed.map(|seed| again.env("GORUMS_SIM_SEED", seed));
        faults.map(|faults| again.env("GORUMS_SIM_FAULTS", faults));
        let again = again.output().expect("this program runs");
        let printed = String::from_utf8_lossy(&again.stderr);
        assert!(printed.contains(&expected), "{expected}\n{printed}");
        assert!(!again.status.success());
    }
}

#[test]
fn a_command_of_ones_own_takes_the_place_of_the_variables() {
    let scenario = Scenario::new("clients that give up")
        .replicas(1..=1)
        .clients(1..=1)
        .operations(10)
        .duration(Duration::from_millis(200))
        .faults([])
        .replica(|node: Replica| async move { node.serve(node.server()).await })
        .client(|_: Client| async move { Ok(()) });
    let report = Campaign::new(&scenario)
        .seeds([7])
        .command(|seed, faults| format!("run {seed} with {faults:?}"))
        .run(|_| {});
    let failed = report.failed().expect("no operation is not ten");
    assert_eq!(line(&report.to_string(), "again: "), "run 7 with None");
    assert!(failed.files().and_then(Files::picture).is_none());
}
