//! Writes as fast as the replicas acknowledge them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::client::Client;
use crate::proto::storage_client::StorageClient;
use crate::store::Times;
use cluster_shell::screen::Screen;
use cluster_shell::session::{Failure, Interrupt};
use gorums::QuorumError;
use hdrhistogram::Histogram;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep};

/// How many bytes are written each time.
const VALUE: usize = 100;

/// How often a person is told how far it has come.
const PROGRESS: Duration = Duration::from_secs(1);

/// What came of the writes.
pub(crate) struct Report {
    in_flight: u32,
    elapsed: Duration,
    /// It was to last so long, and Ctrl-C has ended it.
    cut_short: Option<Duration>,
    done: Done,
}

/// What came of the writes to one key, or to several.
struct Done {
    /// How long each took that was acknowledged, in microseconds.
    latencies: Histogram<u64>,
    failed: u64,
    first_error: Option<QuorumError>,
}

/// Keeps so many writes to a majority in flight for so long, each to a key of its own, or until it
/// is interrupted. The screen shows how far it is.
pub(crate) async fn run(
    storage: &StorageClient,
    in_flight: u32,
    time: Duration,
    screen: &mut Screen,
    interrupt: Interrupt,
) -> Result<Report, Failure> {
    let begun = Instant::now();
    let end = begun + time;
    let acknowledged = Arc::new(AtomicU64::new(0));
    let (stop, stopped) = watch::channel(());
    let mut writers = JoinSet::new();
    for number in 0..in_flight {
        let key = format!("load-{number}");
        let (storage, acknowledged) = (storage.clone(), Arc::clone(&acknowledged));
        let mut stopped = stopped.clone();
        writers.spawn(async move {
            let mut done = Done::default();
            tokio::select! {
                // Told to stop by the end of whoever could tell.
                _ = stopped.changed() => {}
                () = write(storage, key, end, &acknowledged, &mut done) => {}
            }
            done
        });
    }
    let mut stop = Some(stop);
    let mut done = Done::default();
    let mut ticks = interval(PROGRESS);
    // The first one comes at once.
    ticks.tick().await;
    let mut before = 0;
    let mut shown = false;
    loop {
        tokio::select! {
            written = writers.join_next() => match written {
                Some(written) => done.add(written.expect("a writer neither panics nor is aborted")),
                None => break,
            },
            () = interrupt.pressed(), if stop.is_some() => stop = None,
            _ = ticks.tick() => {
                let now = acknowledged.load(Ordering::Relaxed);
                let elapsed = humantime::format_duration(whole_seconds(begun.elapsed()));
                screen.progress(format_args!(
                    "{now} writes so far, {} in the last second; {elapsed} of {}",
                    now - before,
                    humantime::format_duration(time),
                ));
                before = now;
                shown = true;
            }
        }
    }
    if shown {
        screen.end_progress();
    }
    match done.first_error {
        Some(error) if done.latencies.is_empty() => Err(error.into()),
        _ => Ok(Report {
            in_flight,
            elapsed: begun.elapsed(),
            cut_short: stop.is_none().then_some(time),
            done,
        }),
    }
}

fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs())
}

/// Writes one value after the other, until that time.
async fn write(
    storage: StorageClient,
    key: String,
    end: Instant,
    acknowledged: &AtomicU64,
    done: &mut Done,
) {
    let mut client = Client::new(storage, Times::default());
    let value = "v".repeat(VALUE);
    loop {
        let begun = Instant::now();
        if begun >= end {
            return;
        }
        match client.write(&key, &value).await {
            Ok(_) => {
                let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                done.latencies.saturating_record(micros);
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                done.failed += 1;
                done.first_error.get_or_insert(error);
                // What fails at once would fail again at once.
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

impl Default for Done {
    fn default() -> Self {
        Self {
            latencies: histogram(),
            failed: 0,
            first_error: None,
        }
    }
}

impl Done {
    fn add(&mut self, other: Self) {
        let added = self.latencies.add(other.latencies);
        added.expect("they are of one kind");
        self.failed += other.failed;
        self.first_error = self.first_error.take().or(other.first_error);
    }
}

/// From a microsecond to an hour, to two digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000, 2).expect("these bounds are legal")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Done {
            latencies,
            failed,
            first_error,
        } = &self.done;
        let writes = latencies.len();
        let rate = writes as f64 / self.elapsed.as_secs_f64();
        write!(
            f,
            "{writes} writes of {VALUE} bytes acknowledged in {:.1?}, {} in flight: {rate:.0} a second",
            self.elapsed, self.in_flight,
        )?;
        if !latencies.is_empty() {
            let quantile = |q| Duration::from_micros(latencies.value_at_quantile(q));
            write!(
                f,
                "\nlatency: median {:.1?}, 99 % {:.1?}, most {:.1?}",
                quantile(0.5),
                quantile(0.99),
                quantile(1.0),
            )?;
        }
        if let Some(time) = self.cut_short {
            let time = humantime::format_duration(time);
            write!(f, "\ncut short by Ctrl-C: it was to take {time}")?;
        }
        match first_error {
            Some(error) => write!(f, "\n{failed} failed, the first one: {error}"),
            None => Ok(()),
        }
    }
}
