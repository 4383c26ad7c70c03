use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::Configuration;
use super::membership::{Changed, Membership};
use crate::runtime::{BoxFuture, Clock, SystemClock, paced};

type Derive = Box<dyn FnMut(&Configuration) -> Configuration + Send>;

/// A set of nodes that is followed: what a function derives from a configuration
/// ([`Configuration::watch`]) or a membership ([`Membership::watch`]), the clients of a server
/// ([`Clients::watch`](crate::server::Clients::watch)), or its connected peers
/// ([`ConnectedPeers::watch`](crate::server::ConnectedPeers::watch)).
///
/// It is a [`Stream`], which ends when the server shuts down whose clients or peers it follows.
/// What it yields is compared with what it yielded before, so however seldom it is asked, the last
/// change is never lost, and what came and went in between is passed over. It holds the nodes of
/// the configuration that is watched, and those that it last yielded.
#[must_use = "it looks only when it is asked"]
pub struct Watch {
    source: Box<dyn Watched>,
    last: Option<Configuration>,
    /// Rings at the next change. None before the first look.
    alarm: Option<BoxFuture<'static, ()>>,
}

/// What a watch looks at.
pub(crate) trait Watched: Send + 'static {
    /// Hears of changes from now on, even before it is polled. It may ring when nothing has
    /// changed.
    fn listen(&self) -> BoxFuture<'static, ()>;

    /// Whether nobody is to wait for another set any more.
    fn has_ended(&self) -> bool {
        false
    }

    /// The set of the moment.
    fn look(&mut self) -> Configuration;
}

impl Watch {
    pub(crate) fn new(source: impl Watched) -> Self {
        Self {
            source: Box::new(source),
            last: None,
            alarm: None,
        }
    }

    /// What a function derives from a membership.
    pub(super) fn derived(membership: Membership, interval: Duration, derive: Derive) -> Self {
        Self::new(Derived {
            membership,
            derive,
            interval: paced(interval),
        })
    }

    /// The first time at once the set of the moment; later the set as soon as it differs, in its
    /// nodes or in their order, from what was last returned. None where it does not differ and the
    /// server whose clients or peers are watched shuts down or has stopped; a watch of a configuration
    /// or a membership never ends.
    ///
    /// Cancel safe: what a future that was dropped did not return is returned by the next one.
    pub async fn next(&mut self) -> Option<Configuration> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// What comes next and is as the predicate wants it.
    pub(crate) async fn find(
        &mut self,
        mut predicate: impl FnMut(&Configuration) -> bool,
    ) -> Option<Configuration> {
        loop {
            let next = self.next().await?;
            if predicate(&next) {
                return Some(next);
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Configuration>> {
        loop {
            if let Some(alarm) = &mut self.alarm {
                ready!(alarm.as_mut().poll(cx));
            }
            // Listening begins before looking, so that no change falls between.
            self.alarm = Some(self.source.listen());
            let has_ended = self.source.has_ended();
            let now = self.source.look();
            let last = self.last.as_ref();
            let differs = last.is_none_or(|last| last.as_slice() != now.as_slice());
            if has_ended {
                // Nothing is waited for by whoever asks again.
                self.alarm = None;
            }
            if differs {
                self.last = Some(now.clone());
                return Poll::Ready(Some(now));
            }
            if has_ended {
                return Poll::Ready(None);
            }
        }
    }
}

impl Stream for Watch {
    type Item = Configuration;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Configuration>> {
        self.poll(cx)
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

impl Configuration {
    /// Derives a configuration from this one, again and again: `derive` may filter by
    /// [state](super::Node::state), sort by [latency](super::Node::by_latency), or do whatever
    /// else. The [`Watch`] yields what it gives at first, and then whatever differs from what was
    /// last yielded, in its nodes or in their order.
    ///
    /// It looks again when `interval` (a millisecond at least) is over, and when the state of some
    /// node of the pool changes. `derive` runs only while somebody asks, in the task that does.
    ///
    /// ```
    /// use std::time::Duration;
    /// use gorums::{Configuration, Node, NodeState};
    ///
    /// async fn nearest_three(all: &Configuration) {
    ///     let mut watch = all.watch(Duration::from_secs(1), |all| {
    ///         let up = all.filter(|node| node.state() == NodeState::Connected);
    ///         let nearest = up.sort_by(Node::by_latency);
    ///         nearest.select(nearest.ids().take(3)).unwrap_or(nearest)
    ///     });
    ///     while let Some(nearest) = watch.next().await {
    ///         println!("calls go to {nearest:?}");
    ///     }
    /// }
    /// ```
    pub fn watch(
        &self,
        interval: Duration,
        derive: impl FnMut(&Self) -> Self + Send + 'static,
    ) -> Watch {
        Watch::derived(self.into(), interval, Box::new(derive))
    }
}

impl Membership {
    /// Follows the nodes and their states, as [`Configuration::watch`] does: what `derive` makes of
    /// the nodes at first, and then whatever differs from that. It looks again also when the
    /// membership changes.
    pub fn watch(
        &self,
        interval: Duration,
        derive: impl FnMut(&Configuration) -> Configuration + Send + 'static,
    ) -> Watch {
        Watch::derived(self.clone(), interval, Box::new(derive))
    }
}

/// What a function makes of a membership.
struct Derived {
    membership: Membership,
    derive: Derive,
    interval: Duration,
}

impl Watched for Derived {
    fn listen(&self) -> BoxFuture<'static, ()> {
        Box::pin(Alarm::set(&self.membership, self.interval))
    }

    fn look(&mut self) -> Configuration {
        (self.derive)(&self.membership.config())
    }
}

/// Rings when the interval is over or the state of a node changes, also while nobody listens.
struct Alarm {
    changes: Changed,
    /// Sleeps in the runtime of the connections, since the task that asks may run in none. None
    /// when that runtime has ended; the nodes are then closed for good.
    timer: Option<JoinHandle<()>>,
}

impl Alarm {
    fn set(membership: &Membership, interval: Duration) -> Self {
        let changes = membership.listen();
        let members = membership.members();
        let pool = members.first().map(|members| members.pool());
        let runtime = pool
            .and_then(|pool| pool.runtime())
            .or_else(|| Handle::try_current().ok());
        let clock = pool.map_or_else(
            || Arc::new(SystemClock) as _,
            |pool| Arc::clone(&pool.clock),
        );
        Self {
            changes,
            timer: runtime.map(|runtime| runtime.spawn(sleep(clock, interval))),
        }
    }
}

impl Future for Alarm {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut rings = Pin::new(&mut self.changes).poll(cx).is_ready();
        if let Some(timer) = &mut self.timer
            && let Poll::Ready(slept) = Pin::new(timer).poll(cx)
        {
            rings |= slept.is_ok();
            self.timer = None;
        }
        if rings {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some(timer) = &self.timer {
            timer.abort();
        }
    }
}

async fn sleep(clock: Arc<dyn Clock>, interval: Duration) {
    let at = clock.now() + interval;
    clock.sleep_until(at).await;
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::{Node, NodeId, NodeState};

    const SECOND: Duration = Duration::from_secs(1);
    const NEVER: Duration = Duration::from_secs(1_000_000);

    fn ids(configuration: &Configuration) -> Vec<u32> {
        configuration.ids().map(NodeId::get).collect()
    }

    fn set(node: &Node, state: NodeState) {
        node.channel().set_state(state);
    }

    fn connected(all: &Configuration) -> Configuration {
        all.filter(|node| node.state() == NodeState::Connected)
    }

    async fn next(watch: &mut Watch) -> Vec<u32> {
        let next = timeout(100 * SECOND, watch.next()).await;
        ids(&next.expect("something is yielded").expect("it never ends"))
    }

    async fn assert_nothing(watch: &mut Watch) {
        let next = timeout(100 * SECOND, watch.next()).await;
        assert!(next.is_err(), "{next:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_look_is_yielded_at_once_and_then_changes_only() {
        let all = Configuration::unconnected(3);
        let looks = Arc::new(AtomicUsize::new(0));
        let mut watch = all.watch(SECOND, {
            let looks = Arc::clone(&looks);
            move |all| {
                looks.fetch_add(1, Ordering::Relaxed);
                all.without(2)
            }
        });
        assert_eq!(looks.load(Ordering::Relaxed), 0);
        let begin = Instant::now();
        assert_eq!(next(&mut watch).await, [1, 3]);
        assert_eq!(begin.elapsed(), Duration::ZERO);
        assert_nothing(&mut watch).await;
        // The last one falls together with the end of the wait.
        let looks = looks.load(Ordering::Relaxed);
        assert!((99..=101).contains(&looks), "{looks}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_selection_is_yielded_as_any_other() {
        let all = Configuration::unconnected(2);
        let mut watch = all.watch(SECOND, connected);
        assert_eq!(next(&mut watch).await, []);
        assert_nothing(&mut watch).await;
        set(&all[1], NodeState::Connected);
        assert_eq!(next(&mut watch).await, [2]);
        set(&all[1], NodeState::Disconnected);
        assert_eq!(next(&mut watch).await, []);
    }

    #[tokio::test(start_paused = true)]
    async fn another_order_is_a_change() {
        let all = Configuration::unconnected(3);
        let mut watch = all.watch(SECOND, |all| all.sort_by(Node::by_latency));
        assert_eq!(next(&mut watch).await, [1, 2, 3]);
        let begin = Instant::now();
        all[2]
            .channel()
            .latencies()
            .record(Duration::from_millis(5));
        assert_eq!(next(&mut watch).await, [3, 1, 2]);
        assert!(begin.elapsed() >= SECOND, "seen at the next look");
        assert!(begin.elapsed() < 2 * SECOND, "{:?}", begin.elapsed());
        all[2]
            .channel()
            .latencies()
            .record(Duration::from_millis(6));
        assert_nothing(&mut watch).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_of_state_is_seen_at_once() {
        let all = Configuration::unconnected(3);
        let mut watch = all.watch(NEVER, connected);
        assert_eq!(next(&mut watch).await, []);
        let begin = Instant::now();
        let waiting = tokio::spawn(async move { (watch.next().await.map(|now| ids(&now)), watch) });
        tokio::task::yield_now().await;
        set(&all[1], NodeState::Connected);
        let (yielded, mut watch) = waiting.await.expect("no panic");
        assert_eq!(yielded, Some(vec![2]));
        // Also where nobody waits for it.
        set(&all[0], NodeState::Connected);
        assert_eq!(next(&mut watch).await, [1, 2]);
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_change_is_not_lost_however_late_it_is_asked_for() {
        let all = Configuration::unconnected(3);
        let chosen = Arc::new(Mutex::new(vec![1_u32]));
        let choose = |ids: &[u32]| *chosen.lock().expect("no panic") = ids.to_vec();
        let mut watch = all.watch(SECOND, {
            let chosen = Arc::clone(&chosen);
            move |all| {
                let ids = chosen.lock().expect("no panic").clone();
                all.select(ids).expect("known")
            }
        });
        assert_eq!(next(&mut watch).await, [1]);
        for ids in [[1, 2], [2, 3], [3, 1]] {
            choose(&ids);
            tokio::time::sleep(10 * SECOND).await;
        }
        let begin = Instant::now();
        assert_eq!(next(&mut watch).await, [3, 1], "only the newest");
        assert_eq!(
            begin.elapsed(),
            Duration::ZERO,
            "the interval was over long ago"
        );
        assert_nothing(&mut watch).await;
        // What came and went is passed over.
        choose(&[2]);
        tokio::time::sleep(10 * SECOND).await;
        choose(&[3, 1]);
        assert_nothing(&mut watch).await;
        // A change right after the last look, and none after it.
        choose(&[2]);
        tokio::time::sleep(1000 * SECOND).await;
        assert_eq!(next(&mut watch).await, [2]);
        assert_nothing(&mut watch).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_next_that_is_dropped_loses_nothing() {
        let all = Configuration::unconnected(2);
        let mut watch = all.watch(SECOND, connected);
        assert_eq!(next(&mut watch).await, []);
        for (node, expected) in [(&all[1], vec![2]), (&all[0], vec![1, 2])] {
            let mut dropped = Box::pin(watch.next());
            let pending = poll_fn(|cx| Poll::Ready(dropped.as_mut().poll(cx).is_pending())).await;
            assert!(pending);
            set(node, NodeState::Connected);
            drop(dropped);
            assert_eq!(next(&mut watch).await, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_interval_of_nothing_or_for_ever_is_taken() {
        let all = Configuration::unconnected(2);
        let looks = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&looks);
        let mut watch = all.watch(Duration::ZERO, move |all| {
            count.fetch_add(1, Ordering::Relaxed);
            connected(all)
        });
        assert_eq!(next(&mut watch).await, []);
        assert!(timeout(SECOND, watch.next()).await.is_err());
        let looks = looks.load(Ordering::Relaxed);
        // Tokio's timers count milliseconds, and round up.
        assert!((400..=1002).contains(&looks), "{looks}");
        let mut watch = all.watch(Duration::MAX, connected);
        assert_eq!(next(&mut watch).await, []);
        assert_nothing(&mut watch).await;
        set(&all[0], NodeState::Connected);
        assert_eq!(next(&mut watch).await, [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_of_no_nodes_looks_again_too() {
        let all = Configuration::unconnected(2);
        let mut later = [all.without(1).without(2), all.clone()].into_iter();
        let mut watch = all.filter(|_| false).watch(SECOND, move |none| {
            later.next().unwrap_or_else(|| none.clone())
        });
        assert_eq!(next(&mut watch).await, []);
        assert_eq!(next(&mut watch).await, [1, 2]);
        assert_eq!(next(&mut watch).await, []);
    }

    #[test]
    fn a_watch_can_be_moved_between_tasks() {
        fn is_send_and_unpin<T: Send + Unpin>(_: &T) {}
        let all = Configuration::unconnected(1);
        let mut watch = all.watch(SECOND, Configuration::clone);
        is_send_and_unpin(&watch);
        fn is_send<T: Send>(_: T) {}
        is_send(watch.next());
    }
}
