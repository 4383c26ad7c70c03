//! How long the parts of a run are.

use std::time::Duration;

/// How long a round of faults is at most, before the replicas are upgraded.
const ROUND: Duration = Duration::from_secs(45);

/// How long the two replicas are alone at most, twice.
const HEALTHY: Duration = Duration::from_secs(30);

/// How long the third one is in a black hole at most.
const HOLE: Duration = Duration::from_secs(60);

/// How long the parts of a run are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parts {
    /// The load alone: before everything else, after it, and with processes that are started anew.
    pub(crate) load: Duration,
    /// How many rounds there are in which anything may happen to all. Two others follow: one in which
    /// only one replica is in trouble, and one in which no process ends.
    pub(crate) rounds: u32,
    /// How long each round is.
    pub(crate) round: Duration,
    /// Two replicas alone, before the black hole and after it.
    pub(crate) healthy: Duration,
    /// One replica in a black hole.
    pub(crate) hole: Duration,
}

impl Parts {
    /// The parts of a run that is so long.
    pub(crate) fn of(all: Duration) -> Self {
        let load = all / 15;
        let healthy = HEALTHY.min(all / 20);
        let hole = HOLE.min(all / 10);
        let faults = all - 3 * load - 2 * healthy - hole;
        let rounds = faults.as_secs_f64() / ROUND.as_secs_f64();
        // A day has less than two thousand.
        let rounds = (rounds.ceil() as u32).max(3);
        Self {
            load,
            rounds: rounds - 2,
            round: faults / rounds,
            healthy,
            hole,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_the_whole() {
        for seconds in [10, 20, 299, 300, 600, 3_600, 86_400] {
            let all = Duration::from_secs(seconds);
            let parts = Parts::of(all);
            let sum =
                3 * parts.load + 2 * parts.healthy + parts.hole + (parts.rounds + 2) * parts.round;
            assert!(all - sum < Duration::from_millis(1), "{parts:?}");
            assert!(
                parts.round <= ROUND && parts.round >= all.min(ROUND) / 6,
                "{parts:?}"
            );
        }
        let ten_minutes = Parts::of(Duration::from_secs(600));
        assert_eq!((ten_minutes.healthy, ten_minutes.hole), (HEALTHY, HOLE));
    }
}
