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

/// How long it takes until a slow call ends and the next one begins: timers of the runtime have a
/// millisecond, and end with the next one that is whole.
pub(crate) const SLOW_CYCLE: Duration = Duration::from_millis(11);

/// How long a nested call may take.
const NESTED: Duration = Duration::from_secs(10);

/// How long a slow replica takes for each call, one after the other.
const SLOWED: Duration = Duration::from_millis(1);

/// How often a disk stalls, and for how long.
const PERIOD: Duration = Duration::from_secs(1);
const STALL: Duration = Duration::from_millis(500);

/// What ails a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ailment {
    /// It answers one call after the other and takes 1 ms for each, which is far less than it is
    /// asked.
    Slow,
    /// It answers when its disk has the request, and its disk stands still for half of each second.
    StallingDisk,
}

/// A server of the benchmark.
#[derive(Debug, Default)]
pub(crate) struct Replica {
    one_way: Mutex<OneWay>,
    ailing: Option<Ailing>,
}

/// A replica that something ails.
#[derive(Debug)]
struct Ailing {
    ailment: Ailment,
    since: tokio::time::Instant,
}

impl Ailing {
    /// What a handler waits for, with its turn: those behind it wait as well.
    async fn wait(&self) {
        match self.ailment {
            Ailment::Slow => tokio::time::sleep(SLOWED).await,
            Ailment::StallingDisk => {
                // A period begins with the stall.
                let periods = self.since.elapsed().as_nanos() / PERIOD.as_nanos();
                let begin = self.since + PERIOD * u32::try_from(periods).unwrap_or(u32::MAX);
                if begin.elapsed() < STALL {
                    tokio::time::sleep_until(begin + STALL).await;
                }
            }
        }
    }
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
        if let Some(ailing) = &self.ailing {
            ailing.wait().await;
        }
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
    /// One that something ails from now on. It needs a runtime with timers.
    pub(crate) fn ailing(ailment: Ailment) -> Self {
        Self {
            ailing: Some(Ailing {
                ailment,
                since: tokio::time::Instant::now(),
            }),
            ..Self::default()
        }
    }

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

    /// When a call is answered that is made after so long, in milliseconds since the replica's start.
    async fn answered(ailment: Ailment, after: u64) -> u128 {
        let replica = Replica::ailing(ailment);
        let start = tokio::time::Instant::now();
        tokio::time::advance(Duration::from_millis(after)).await;
        let ctx = gorums::testing::server_ctx();
        let reply = replica.quorum_call(ctx, Echo::default()).await;
        reply.expect("it answers");
        start.elapsed().as_millis()
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_stalls_for_half_of_each_second() {
        for (after, at) in [(0, 500), (499, 500), (500, 500), (999, 999), (1001, 1500)] {
            assert_eq!(answered(Ailment::StallingDisk, after).await, at, "{after}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_replica_takes_its_time_for_each_call() {
        for after in [0, 700] {
            let at = answered(Ailment::Slow, after).await;
            assert_eq!(at, u128::from(after) + SLOWED.as_millis());
        }
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
