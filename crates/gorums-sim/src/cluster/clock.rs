use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use gorums::runtime::BoxFuture;
use tokio::time::Instant;

use super::world::World;

/// The time of day when a simulation begins: the first of January 2026.
pub(crate) const EPOCH: Duration = Duration::from_secs(1_767_225_600);

/// The clock of a node of a simulation, and randomness that follows from the seed.
///
/// It goes as virtual time does, faster or slower while a
/// [`ClockSkew`](super::FaultKind::ClockSkew) lasts.
#[derive(Debug, Clone)]
pub struct Clock(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    world: Arc<World>,
    node: usize,
    /// Where the clock last changed its rate. Instants of a node mean nothing once it has been
    /// restarted.
    anchor: Mutex<Option<Anchor>>,
}

#[derive(Debug, Clone, Copy)]
struct Anchor {
    real: Instant,
    local: Instant,
    /// In thousandths.
    rate: u64,
}

impl Clock {
    pub(crate) fn new(world: &Arc<World>, node: usize) -> Self {
        Self(Arc::new(Shared {
            world: Arc::clone(world),
            node,
            anchor: Mutex::new(None),
        }))
    }

    /// The clock as it goes now.
    fn anchor(&self) -> Anchor {
        let real = Instant::now();
        let mut state = self.0.world.lock();
        let rate = match state.nodes[self.0.node].skews.last().copied() {
            Some(skew) => {
                state.fire(skew.fault);
                skew.rate
            }
            None => 1000,
        };
        drop(state);
        let mut anchor = self.0.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        let known = anchor.get_or_insert(Anchor {
            real,
            local: real,
            rate,
        });
        if known.rate != rate {
            *known = Anchor {
                real,
                local: known.local_at(real),
                rate,
            };
        }
        *known
    }
}

impl Anchor {
    fn local_at(&self, real: Instant) -> Instant {
        self.local + scaled(real - self.real, self.rate, 1000)
    }

    fn real_at(&self, local: Instant) -> Instant {
        self.real + scaled(local - self.local, 1000, self.rate)
    }
}

fn scaled(time: Duration, by: u64, of: u64) -> Duration {
    let nanos = time.as_nanos() * u128::from(by) / u128::from(of);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

impl gorums::runtime::Clock for Clock {
    fn now(&self) -> Instant {
        self.anchor().local_at(Instant::now())
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        let clock = self.clone();
        Box::pin(async move {
            loop {
                clock.0.world.runs(clock.0.node).await;
                let anchor = clock.anchor();
                if anchor.local_at(Instant::now()) >= at {
                    return;
                }
                // Rounded down, it might wake up too early without end.
                let wake = anchor.real_at(at) + Duration::from_micros(1);
                tokio::time::sleep_until(wake).await;
            }
        })
    }

    fn wall_clock(&self) -> SystemTime {
        let time = SystemTime::UNIX_EPOCH + EPOCH + super::world::now();
        let mut state = self.0.world.lock();
        let Some(skew) = state.nodes[self.0.node].skews.last().copied() else {
            return time;
        };
        state.fire(skew.fault);
        let offset = Duration::from_micros(skew.offset.unsigned_abs());
        if skew.offset < 0 {
            time - offset
        } else {
            time + offset
        }
    }

    fn random(&self) -> u64 {
        self.0.world.random(self.0.node)
    }
}
