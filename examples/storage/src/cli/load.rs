//! Writes as fast as the replicas acknowledge them.

use std::fmt;
use std::time::Duration;

use cluster_shell::session::Failure;
use gorums::QuorumError;
use hdrhistogram::Histogram;
use storage::client::Client;
use storage::proto::storage_client::StorageClient;
use storage::store::Times;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How many bytes are written each time.
const VALUE: usize = 100;

/// What came of the writes.
pub(crate) struct Report {
    in_flight: u32,
    elapsed: Duration,
    /// How long each took that was acknowledged, in microseconds.
    latencies: Histogram<u64>,
    failed: u64,
    first_error: Option<QuorumError>,
}

/// Keeps so many writes to a majority in flight for so long, each to a key of its own.
pub(crate) async fn run(
    storage: &StorageClient,
    in_flight: u32,
    time: Duration,
) -> Result<Report, Failure> {
    let begun = Instant::now();
    let end = begun + time;
    let mut writers = JoinSet::new();
    for number in 0..in_flight {
        writers.spawn(write(storage.clone(), format!("load-{number}"), end));
    }
    let mut report = Report {
        in_flight,
        elapsed: Duration::ZERO,
        latencies: histogram(),
        failed: 0,
        first_error: None,
    };
    while let Some(written) = writers.join_next().await {
        let (latencies, failed, error) = written.expect("a writer neither panics nor is aborted");
        report
            .latencies
            .add(latencies)
            .expect("they are of one kind");
        report.failed += failed;
        report.first_error = report.first_error.or(error);
    }
    report.elapsed = begun.elapsed();
    match report.first_error {
        Some(error) if report.latencies.is_empty() => Err(error.into()),
        _ => Ok(report),
    }
}

/// Writes one value after the other, until that time.
async fn write(
    storage: StorageClient,
    key: String,
    end: Instant,
) -> (Histogram<u64>, u64, Option<QuorumError>) {
    let mut client = Client::new(storage, Times::default());
    let value = "v".repeat(VALUE);
    let mut latencies = histogram();
    let (mut failed, mut first_error) = (0, None);
    loop {
        let begun = Instant::now();
        if begun >= end {
            return (latencies, failed, first_error);
        }
        match client.write(&key, &value).await {
            Ok(_) => {
                let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                latencies.saturating_record(micros);
            }
            Err(error) => {
                failed += 1;
                first_error = first_error.or(Some(error));
                // What fails at once would fail again at once.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// From a microsecond to an hour, to two digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000, 2).expect("these bounds are legal")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let writes = self.latencies.len();
        let rate = writes as f64 / self.elapsed.as_secs_f64();
        write!(
            f,
            "{writes} writes of {VALUE} bytes acknowledged in {:.1?}, {} in flight: {rate:.0} a second",
            self.elapsed, self.in_flight,
        )?;
        let quantile = |q| Duration::from_micros(self.latencies.value_at_quantile(q));
        write!(
            f,
            "\nlatency: median {:.1?}, 99 % {:.1?}, most {:.1?}",
            quantile(0.5),
            quantile(0.99),
            quantile(1.0),
        )?;
        match &self.first_error {
            Some(error) => write!(f, "\n{} failed, the first one: {error}", self.failed),
            None => Ok(()),
        }
    }
}
