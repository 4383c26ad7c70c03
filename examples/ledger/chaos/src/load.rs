//! Clients with many calls in flight.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use gorums::call::QuorumCall;
use gorums::{Configuration, Node, QuorumError};
use hdrhistogram::Histogram;
use ledger::proto::ledger_client::LedgerClient;
use ledger::proto::{AddRequest, AddResponse, AppendRequest, AppendResponse};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::check::Asked;
use crate::noted::{Line, Noted, Told, What};

/// How long a call may take. Longer than any fault, so that a call fails where something is lost.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// How long calls wait for another connection where one breaks.
const SESSIONS: Duration = Duration::from_secs(30);

/// How long a lane waits after a call that has failed.
const PAUSE: Duration = Duration::from_millis(20);

/// Every so many calls of a lane one adds to the counter, and the others append to the log.
const ADDING: u64 = 4;

/// How long a replica that runs may take to write something for each client.
const REACHING: Duration = Duration::from_secs(30);

/// How often is looked whether something has come to its end.
const LOOK: Duration = Duration::from_millis(20);

/// What all clients of a run have in common. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Load(Arc<Common>);

#[derive(Debug)]
struct Common {
    lanes: AtomicU32,
    noted: Noted,
    asked: Mutex<Asked>,
    done: AtomicU64,
    failed: AtomicU64,
    /// What replicas had to do with that: how many parts of calls ended so.
    parts: Mutex<BTreeMap<String, u64>>,
    /// The times of calls since somebody has last taken them.
    lately: Mutex<Times>,
}

/// How long calls took, in microseconds.
pub(crate) type Times = Histogram<u64>;

/// No times yet.
pub(crate) fn no_times() -> Times {
    // A call that takes longer than its timeout counts as if it took twice as long.
    let most = 2 * u64::try_from(TIMEOUT.as_micros()).expect("some seconds");
    Histogram::new_with_bounds(1, most, 3).expect("legal bounds")
}

/// So many calls in flight, all the time.
#[derive(Debug)]
pub(crate) struct Calls {
    common: Arc<Common>,
    clients: Vec<LedgerClient>,
    shared: Arc<Shared>,
    lanes: JoinSet<()>,
    stop: watch::Sender<bool>,
}

/// What the lanes share.
#[derive(Debug)]
struct Shared {
    /// Counts the times to which calls belong that begin in them.
    period: AtomicU64,
    /// The period in which the current call of each lane began.
    since: Box<[AtomicU64]>,
    times: Mutex<Times>,
    /// How many calls that began in a period have failed, and how the first of them did.
    failures: Mutex<BTreeMap<u64, (u64, String)>>,
}

impl Load {
    pub(crate) fn new(noted: Noted) -> Self {
        Self(Arc::new(Common {
            lanes: AtomicU32::new(0),
            noted,
            asked: Mutex::default(),
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            parts: Mutex::default(),
            lately: Mutex::new(no_times()),
        }))
    }

    /// Lets so many clients call the replicas at these addresses, with so many calls in flight in all.
    pub(crate) fn start(
        &self,
        addresses: &[SocketAddr],
        clients: u32,
        calls: u32,
    ) -> Result<Calls> {
        let clients: Vec<_> = (0..clients)
            .map(|_| connect(addresses))
            .collect::<Result<_>>()?;
        let shared = Arc::new(Shared {
            period: AtomicU64::new(0),
            since: (0..calls).map(|_| AtomicU64::new(0)).collect(),
            times: Mutex::new(no_times()),
            failures: Mutex::default(),
        });
        let (stop, stopped) = watch::channel(false);
        let mut lanes = JoinSet::new();
        for (place, client) in (0..shared.since.len()).zip(clients.iter().cycle()) {
            let lane = Lane {
                common: Arc::clone(&self.0),
                shared: Arc::clone(&shared),
                place,
                lane: self.0.next_lane(),
                client: client.clone(),
                lines: 0,
                ones: 0,
            };
            lanes.spawn(lane.run(stopped.clone()));
        }
        Ok(Calls {
            common: Arc::clone(&self.0),
            clients,
            shared,
            lanes,
            stop,
        })
    }

    /// How many calls a majority has answered, and how many have failed.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (of(&self.0.done), of(&self.0.failed))
    }

    /// How many parts of failed calls ended so, the most frequent first.
    pub(crate) fn failed_parts(&self) -> Vec<(String, u64)> {
        let mut parts: Vec<_> = lock(&self.0.parts).clone().into_iter().collect();
        parts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        parts
    }

    /// The times of calls since this was asked before.
    pub(crate) fn lately(&self) -> Times {
        std::mem::replace(&mut *lock(&self.0.lately), no_times())
    }

    /// What was asked of the replicas by all calls that were ended.
    pub(crate) fn asked(&self) -> Asked {
        std::mem::take(&mut *lock(&self.0.asked))
    }
}

fn connect(addresses: &[SocketAddr]) -> Result<LedgerClient> {
    let replicas = Configuration::builder()
        .nodes(addresses.iter().map(SocketAddr::to_string))
        .connect_timeout(Duration::from_secs(1))
        .backoff(Duration::from_millis(50), Duration::from_millis(500))
        .sessions(SESSIONS)
        .connect()
        .context("the addresses of the proxies")?;
    Ok(LedgerClient::new(replicas).with_timeout(TIMEOUT))
}

impl Calls {
    /// Waits until every client has had this replica write something.
    pub(crate) async fn reach(&self, replica: u32) -> Result<()> {
        let mut reaching = JoinSet::new();
        for client in &self.clients {
            let one = client.configuration().select([replica]);
            let one = client.on(one.context("the clients know it")?);
            let common = Arc::clone(&self.common);
            reaching.spawn(async move {
                loop {
                    // Each is a lane of its own: the next one may be there where this fails.
                    let lane = common.next_lane();
                    lock(&common.asked).lines.insert(lane, 1);
                    let line = Line { lane, number: 1 };
                    if common.append(&one, line).all().await.is_ok() {
                        return;
                    }
                    sleep(PAUSE).await;
                }
            });
        }
        let reached = timeout(REACHING, reaching.join_all()).await;
        reached.with_context(|| {
            format!(
                "replica {replica} runs, and has not written for each client after {REACHING:?}"
            )
        })?;
        Ok(())
    }

    /// Begins another period, and waits until all calls of those before it have ended. Returns its
    /// name.
    pub(crate) async fn next_period(&self) -> Result<u64> {
        let period = self.shared.period.fetch_add(1, Ordering::Relaxed) + 1;
        let since = |lane: &AtomicU64| lane.load(Ordering::Relaxed);
        let all_ended = async {
            while self.shared.since.iter().any(|lane| since(lane) < period) {
                sleep(LOOK).await;
            }
        };
        // A call ends a little after its deadline, and a machine may be slow.
        let ended = timeout(3 * TIMEOUT, all_ended).await;
        ended.context("a call does not end, long after its deadline")?;
        Ok(period)
    }

    /// Fails where a call that began in this period has.
    pub(crate) fn none_failed(&self, period: u64, when: &str) -> Result<()> {
        match lock(&self.shared.failures).get(&period) {
            None => Ok(()),
            Some((count, first)) => {
                bail!("{count} majority calls have failed {when}, the first with: {first}")
            }
        }
    }

    /// The times of calls that end from now on for so long.
    pub(crate) async fn measure(&self, time: Duration) -> Times {
        *lock(&self.shared.times) = no_times();
        sleep(time).await;
        lock(&self.shared.times).clone()
    }

    /// Lets all calls end, and the clients.
    pub(crate) async fn end(mut self) -> Result<()> {
        self.stop.send_replace(true);
        let ended = async {
            while let Some(lane) = self.lanes.join_next().await {
                lane.context("a lane has panicked")?;
            }
            Ok(())
        };
        let ended = timeout(3 * TIMEOUT, ended).await;
        ended.context("a call does not end, long after its deadline")?
    }
}

/// One call after the other.
struct Lane {
    common: Arc<Common>,
    shared: Arc<Shared>,
    place: usize,
    lane: u32,
    client: LedgerClient,
    lines: u32,
    ones: u64,
}

impl Lane {
    async fn run(mut self, stopped: watch::Receiver<bool>) {
        let mut number = 0u64;
        while !*stopped.borrow() {
            number += 1;
            let period = self.shared.period.load(Ordering::Relaxed);
            self.shared.since[self.place].store(period, Ordering::Relaxed);
            let begun = Instant::now();
            let called = match number.is_multiple_of(ADDING) {
                true => self.add().await,
                false => self.append().await,
            };
            match called {
                Ok(()) => {
                    let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                    lock(&self.shared.times).saturating_record(micros);
                    lock(&self.common.lately).saturating_record(micros);
                    self.common.done.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    self.failed(period, &error);
                    sleep(PAUSE).await;
                }
            }
        }
        self.shared.since[self.place].store(u64::MAX, Ordering::Relaxed);
        let mut asked = lock(&self.common.asked);
        asked.lines.insert(self.lane, self.lines);
        asked.ones += self.ones;
    }

    fn failed(&self, period: u64, error: &QuorumError) {
        let mut failures = lock(&self.shared.failures);
        let of_period = failures.entry(period);
        of_period.or_insert_with(|| (0, error.to_string())).0 += 1;
        self.common.failed.fetch_add(1, Ordering::Relaxed);
        let mut parts = lock(&self.common.parts);
        for failure in error.failures() {
            // There are three outcomes and seventeen codes.
            let ended = format!("{}, {}", failure.outcome(), failure.code());
            *parts.entry(ended).or_default() += 1;
        }
    }

    async fn append(&mut self) -> Result<(), QuorumError> {
        self.lines += 1;
        let line = Line {
            lane: self.lane,
            number: self.lines,
        };
        let call = self.common.append(&self.client, line);
        call.majority().await.map(drop)
    }

    async fn add(&mut self) -> Result<(), QuorumError> {
        self.ones += 1;
        let noted = self.common.noted.clone();
        let note = move |node: &Node, added: AddResponse| {
            let replica = node.id().get();
            let what = What::Added { count: added.count };
            noted.add(Told { replica, what });
            Ok(added)
        };
        let call = self.client.add(AddRequest { amount: 1 });
        call.map_response(note).majority().await.map(drop)
    }
}

impl Common {
    /// A call that notes each reply which comes before it has ended, also where it fails then.
    fn append(
        &self,
        client: &LedgerClient,
        line: Line,
    ) -> QuorumCall<AppendRequest, AppendResponse> {
        let noted = self.noted.clone();
        let note = move |node: &Node, appended: AppendResponse| {
            let replica = node.id().get();
            let position = appended.position;
            let what = What::Appended { line, position };
            noted.add(Told { replica, what });
            Ok(appended)
        };
        let request = AppendRequest {
            line: line.to_string(),
        };
        client.append(request).map_response(note)
    }

    fn next_lane(&self) -> u32 {
        self.lanes.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// No code panics while it holds a lock.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
