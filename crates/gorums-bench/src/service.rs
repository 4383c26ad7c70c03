//! The servers' side: the benchmark service.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gorums::{ServerCtx, Status};

use crate::proto::benchmark_client::BenchmarkClient;
use crate::proto::benchmark_server::Benchmark;
use crate::proto::nested_server::Nested;
use crate::proto::{
    Echo, MemoryStat, Result as OneWayResult, StartRequest, StartResponse, StopRequest, TimedMsg,
};

/// How long the slow handler takes, as in the Go library.
pub(crate) const SLOW: Duration = Duration::from_millis(10);

/// How long a nested call may take.
const NESTED: Duration = Duration::from_secs(10);

/// A server of the benchmark.
#[derive(Debug, Default)]
pub(crate) struct Replica {
    one_way: Mutex<OneWay>,
}

impl Benchmark for Replica {
    async fn start_server_benchmark(
        &self,
        _ctx: ServerCtx,
        _request: StartRequest,
    ) -> Result<StartResponse, Status> {
        *self.one_way() = OneWay {
            started: Some(Instant::now()),
            ..OneWay::default()
        };
        Ok(StartResponse {})
    }

    async fn stop_server_benchmark(
        &self,
        _ctx: ServerCtx,
        _request: StopRequest,
    ) -> Result<OneWayResult, Status> {
        let seen = std::mem::take(&mut *self.one_way());
        let Some(started) = seen.started else {
            return Err(Status::failed_precondition(
                "StartServerBenchmark comes first",
            ));
        };
        Ok(seen.result(started.elapsed()))
    }

    async fn start_benchmark(
        &self,
        _ctx: ServerCtx,
        _request: StartRequest,
    ) -> Result<StartResponse, Status> {
        Ok(StartResponse {})
    }

    async fn stop_benchmark(
        &self,
        _ctx: ServerCtx,
        _request: StopRequest,
    ) -> Result<MemoryStat, Status> {
        Err(Status::unimplemented(
            "this server does not count what it allocates; gorums-bench counts what a client allocates",
        ))
    }

    async fn quorum_call(&self, _ctx: ServerCtx, request: Echo) -> Result<Echo, Status> {
        Ok(request)
    }

    async fn slow_server(&self, ctx: ServerCtx, request: Echo) -> Result<Echo, Status> {
        ctx.release();
        tokio::time::sleep(SLOW).await;
        Ok(request)
    }

    async fn multicast(&self, _ctx: ServerCtx, request: TimedMsg) {
        let latency = unix_nanos() - request.send_time;
        self.one_way().add(latency as f64);
    }
}

impl Nested for Replica {
    async fn nested_quorum_call(&self, ctx: ServerCtx, request: Echo) -> Result<Echo, Status> {
        let peers = ctx.config();
        if peers.is_empty() {
            return Err(Status::failed_precondition(
                "this server does not know the others: start it with --peers",
            ));
        }
        // Its own answer comes through a turn that must not wait for this handler.
        ctx.release();
        let peers = BenchmarkClient::new(peers).with_timeout(NESTED);
        Ok(peers.quorum_call(request).majority().await?)
    }
}

impl Replica {
    fn one_way(&self) -> MutexGuard<'_, OneWay> {
        self.one_way
            .lock()
            .expect("nothing panics while it is held")
    }
}

/// Nanoseconds since 1970.
pub(crate) fn unix_nanos() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    })
}

/// The one-way messages that came, by Welford's method: mean and variance without the samples.
#[derive(Debug, Default)]
struct OneWay {
    started: Option<Instant>,
    count: u64,
    mean: f64,
    /// The sum of squared distances from the mean.
    spread: f64,
}

impl OneWay {
    fn add(&mut self, nanos: f64) {
        self.count += 1;
        let from_old = nanos - self.mean;
        self.mean += from_old / self.count as f64;
        self.spread += from_old * (nanos - self.mean);
    }

    fn variance(&self) -> f64 {
        if self.count < 2 {
            0.0
        } else {
            self.spread / (self.count - 1) as f64
        }
    }

    fn result(&self, time: Duration) -> OneWayResult {
        OneWayResult {
            name: "Multicast".to_owned(),
            total_ops: self.count,
            total_time: i64::try_from(time.as_nanos()).unwrap_or(i64::MAX),
            throughput: self.count as f64 / time.as_secs_f64(),
            latency_avg: self.mean,
            latency_var: self.variance(),
            ..OneWayResult::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_variance_are_those_of_the_samples() {
        let mut seen = OneWay::default();
        for nanos in [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0] {
            seen.add(nanos);
        }
        assert_eq!(seen.count, 8);
        assert!((seen.mean - 5.0).abs() < 1e-9, "{}", seen.mean);
        assert!(
            (seen.variance() - 32.0 / 7.0).abs() < 1e-9,
            "{}",
            seen.variance()
        );
    }

    #[test]
    fn one_sample_has_no_variance() {
        let mut seen = OneWay::default();
        seen.add(3.0);
        assert_eq!(seen.variance(), 0.0);
    }

    #[tokio::test]
    async fn one_way_messages_are_counted_from_the_start_on() {
        let ctx = gorums::testing::server_ctx;
        let replica = Replica::default();
        replica.multicast(ctx(), TimedMsg::default()).await;
        let early = replica.stop_server_benchmark(ctx(), StopRequest {}).await;
        assert!(early.is_err());
        let started = replica.start_server_benchmark(ctx(), StartRequest {}).await;
        started.expect("starts");
        for _ in 0..3 {
            let send_time = unix_nanos();
            let message = TimedMsg {
                send_time,
                ..TimedMsg::default()
            };
            replica.multicast(ctx(), message).await;
        }
        let result = replica.stop_server_benchmark(ctx(), StopRequest {}).await;
        assert_eq!(result.expect("was started").total_ops, 3);
    }
}
