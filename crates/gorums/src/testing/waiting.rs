//! Waiting for what no event tells of.

use std::fmt;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

/// How often is looked.
const LOOK: Duration = Duration::from_millis(1);

/// How long something may take that is waited for: longer than it takes on any working machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Waits until something is so, which no event tells of. It is asked each millisecond of tokio's time, which
/// takes no time where that is paused.
///
/// ```
/// # async fn test(counter: std::sync::Arc<std::sync::atomic::AtomicU32>) {
/// use std::sync::atomic::Ordering;
///
/// use gorums::testing::eventually;
///
/// eventually("three messages have come", || counter.load(Ordering::Relaxed) == 3).await;
/// # }
/// ```
///
/// # Panics
/// It is not so after a minute, with what was waited for in the text; there is no tokio runtime with
/// timers here.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let place = std::panic::Location::caller();
    async move {
        let waiting = async {
            while !is_so() {
                sleep(LOOK).await;
            }
        };
        let done = timeout(LIMIT, waiting).await;
        assert!(
            done.is_ok(),
            "after {LIMIT:?} not yet so at {place}: {what}"
        );
    }
}

/// How many tasks a runtime had at some time, to find those that do not end.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(async {
/// use gorums::testing::{Cluster, Tasks};
/// use gorums::{Server, ServerCtx, Status};
///
/// let before = Tasks::now();
/// let cluster = Cluster::on_pipes(3, |_me, _peers| {
///     Server::builder().unary("demo.Who.Am", |_ctx: ServerCtx, (): ()| async { Ok::<_, Status>(1u32) })
/// });
/// let cluster = cluster.await?;
/// let nodes = cluster.client().connect()?;
/// nodes.connected(3).await?;
/// drop(nodes);
/// cluster.end().await;
/// before.ended().await?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # }).expect("nothing is left");
/// ```
#[derive(Debug, Clone, Copy)]
#[must_use = "it finds nothing unless it is asked whether the others have ended"]
pub struct Tasks(usize);

impl Tasks {
    /// Those that run now in this runtime: so many may run afterwards.
    ///
    /// # Panics
    /// There is no tokio runtime here.
    pub fn now() -> Self {
        Self(Handle::current().metrics().num_alive_tasks())
    }

    /// Waits until there are no more of them than there were.
    ///
    /// # Errors
    /// There are, after a minute.
    ///
    /// # Panics
    /// There is no tokio runtime with timers here.
    pub async fn ended(self) -> Result<(), TasksLeft> {
        let waiting = async {
            while Self::now().0 > self.0 {
                sleep(LOOK).await;
            }
        };
        let done = timeout(LIMIT, waiting).await;
        done.map_err(|_| TasksLeft {
            more: Self::now().0.saturating_sub(self.0),
        })
    }
}

/// Tasks have not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TasksLeft {
    more: usize,
}

impl TasksLeft {
    /// How many there are that were not there before.
    #[must_use]
    pub fn more(&self) -> usize {
        self.more
    }
}

impl fmt::Display for TasksLeft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { more } = self;
        write!(
            f,
            "{more} tasks more than before have not ended after {LIMIT:?}"
        )
    }
}

impl std::error::Error for TasksLeft {}
