use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use http::Extensions;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::input::Input;
use crate::error::Status;
use crate::handler::{LaneSettings, Passage, Registry, ReplySender, ServerCtx, Services};
use crate::log::Throttle;
use crate::runtime::{BoxFuture, Clock};

/// Messages of more than this are skipped.
pub(super) const LIMIT: usize = 1_000;

const ASK: &str = "gorums.fuzzing.Test.Ask";
const NOTE: &str = "gorums.fuzzing.Test.Note";
const LIST: &str = "gorums.fuzzing.Test.List";
const HOLD: &str = "gorums.fuzzing.Test.Hold";
const KEEP: &str = "gorums.fuzzing.Test.Keep";
const REFUSE: &str = "gorums.fuzzing.Test.Refuse";
const PANIC: &str = "gorums.fuzzing.Test.Panic";

/// All methods.
pub(super) const METHODS: [&str; 7] = [ASK, NOTE, LIST, HOLD, KEEP, REFUSE, PANIC];

/// Handlers of each kind, and what is known of them.
pub(super) struct Service {
    pub(super) services: Arc<Services>,
    pub(super) clock: Arc<Time>,
    state: Arc<State>,
}

struct State {
    /// What handlers were told.
    told: Mutex<Vec<String>>,
    /// Some handlers wait for it.
    gate: Semaphore,
}

impl State {
    fn tell(&self, text: &str) {
        locked(&self.told).push(text.to_owned());
    }

    /// Waits for the gate to be opened.
    async fn hold(&self) {
        if let Ok(permit) = self.gate.acquire().await {
            permit.forget();
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no handler panics while it has it")
}

impl Service {
    pub(super) fn new(input: &mut Input<'_>) -> Self {
        let state = Arc::new(State {
            told: Mutex::default(),
            gate: Semaphore::new(0),
        });
        let clock = Arc::new(Time::default());
        let max_decoding = input.one_of(&[LIMIT, LIMIT / 2]);
        let passage = Passage {
            interceptors: Box::new([]),
            max_decoding,
            reached: Arc::default(),
        };
        let lane = LaneSettings {
            passage: Arc::new(passage),
            max_encoding: input.one_of(&[LIMIT, LIMIT / 2]),
            max_running: input.one_of(&[1, 2, 5]),
            expose_panics: input.flag(),
            ..LaneSettings::unbounded(Arc::<Time>::clone(&clock))
        };
        let services = Services {
            registry: registry(&state),
            max_decoding,
            lane: Arc::new(lane),
            max_waiting_bytes: input.one_of(&[10_000, 1_000, 1]),
            max_reply_bytes: input.one_of(&[10_000, 1_000, 1]),
            values: Extensions::new(),
            refusals: Throttle::default(),
        };
        Self {
            services: Arc::new(services),
            clock,
            state,
        }
    }

    /// So many handlers go on.
    pub(super) fn open(&self, count: usize) {
        self.state.gate.add_permits(count);
    }

    /// No handler waits any more.
    pub(super) fn open_all(&self) {
        self.state.gate.close();
    }

    pub(super) fn told(&self) -> Vec<String> {
        locked(&self.state.told).clone()
    }

    /// What requests may cost that wait: reading stops behind the one that reaches the bound, which
    /// may be all metadata.
    pub(super) fn most_waiting(&self) -> usize {
        const OVERHEAD: usize = 256;
        const ENTRY: usize = 64;
        let largest = OVERHEAD + 2 * LIMIT + ENTRY * LIMIT / 2;
        // And with what its chunk keeps.
        self.services.max_waiting_bytes + largest + 8 * 1024
    }

    /// What answers may take that wait: each handler that has ended waits with one beyond the bound.
    pub(super) fn most_replies(&self) -> usize {
        const LARGEST: usize = 3 * LIMIT;
        self.services.max_reply_bytes + (self.services.lane.max_running + 2) * LARGEST
    }

    /// No handler runs.
    pub(super) fn assert_nothing_left(&self) {
        // One is ours, and each method has one.
        assert_eq!(
            Arc::strong_count(&self.state),
            1 + METHODS.len(),
            "handlers"
        );
    }
}

fn registry(state: &Arc<State>) -> Registry {
    let mut registry = Registry::default();
    let shared = Arc::clone(state);
    registry.unary(ASK, move |_: ServerCtx, text: String| {
        shared.tell(&text);
        async move { Ok::<_, Status>(text) }
    });
    let shared = Arc::clone(state);
    registry.one_way(NOTE, move |_: ServerCtx, text: String| {
        shared.tell(&text);
        async {}
    });
    let shared = Arc::clone(state);
    registry.streaming(
        LIST,
        move |ctx: ServerCtx, text: String, replies: ReplySender<String>| {
            shared.tell(&text);
            let state = Arc::clone(&shared);
            async move {
                let _state = state;
                ctx.release();
                for _ in 0..text.len() % 16 {
                    // Whoever has gone wants no more.
                    if replies.send(text.clone()).await.is_err() {
                        break;
                    }
                }
                Ok(())
            }
        },
    );
    // One lets the next request start and waits; one waits with the turn.
    for (method, releases) in [(HOLD, true), (KEEP, false)] {
        let shared = Arc::clone(state);
        registry.unary(method, move |ctx: ServerCtx, text: String| {
            shared.tell(&text);
            let state = Arc::clone(&shared);
            async move {
                if releases {
                    ctx.release();
                }
                state.hold().await;
                Ok::<_, Status>(text)
            }
        });
    }
    let shared = Arc::clone(state);
    registry.unary(REFUSE, move |_: ServerCtx, text: String| {
        shared.tell(&text);
        async move { Err::<String, _>(Status::aborted(text)) }
    });
    let shared = Arc::clone(state);
    registry.unary(PANIC, move |_: ServerCtx, text: String| {
        shared.tell(&text);
        async move {
            if !text.is_empty() {
                // Without a word on standard error.
                resume_unwind(Box::new(text));
            }
            Ok::<_, Status>(text)
        }
    });
    registry
}

/// A clock that is set by the input.
#[derive(Debug)]
pub(super) struct Time {
    began: Instant,
    micros: AtomicU64,
}

impl Default for Time {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            micros: AtomicU64::new(0),
        }
    }
}

impl Time {
    pub(super) fn pass(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        // A year at most.
        const MOST: u64 = 365 * 24 * 3600 * 1_000_000;
        let now = self.micros.load(Ordering::Relaxed);
        let then = now.saturating_add(micros).min(MOST);
        self.micros.store(then, Ordering::Relaxed);
    }
}

impl Clock for Time {
    fn now(&self) -> Instant {
        self.began + Duration::from_micros(self.micros.load(Ordering::Relaxed))
    }

    fn sleep_until(&self, _: Instant) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }

    fn wall_clock(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    fn random(&self) -> u64 {
        0
    }
}
