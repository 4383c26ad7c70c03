use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
// Statistics and a budget, which decide nothing of what is right.
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::node_id::NodeId;
use crate::quorum::QuorumSystemError;
use crate::sync::Mutex;

/// Has quorum calls ask a quorum in place of all nodes, and others only where it takes too long.
///
/// A call that asks all nodes of five costs five requests, and is over with the third reply. One that is
/// *thrifty* asks three, and saves two; should one of these be slow, it would wait for that one. So it
/// *widens*: it asks others, no more than it takes to have a quorum without those that did not answer,
///
/// * after a [delay](Self::after_quantile), and again after the same delay, within a
///   [budget](Self::budget) of extra requests;
/// * at once where a node that was asked fails, votes no, or has a reply that cannot be used, so that
///   those that were asked are no quorum any more. The budget is not asked for that;
/// * all that are left, whatever the budget, after eight delays, or when half of the time until the
///   call's deadline is over, whichever is first. So no call fails or waits for long because the budget
///   is empty, and none fails at its deadline because of nodes that it has not asked.
///
/// The first is what Dean and Barroso call a hedged request ("The Tail at Scale", CACM 2013); *thrifty* is the
/// word of the implementation of Egalitarian Paxos (Moraru, Andersen and Kaminsky, SOSP 2013).
///
/// Make one, and give clones of it to the calls that are alike: to a
/// [call](crate::call::QuorumCall::thrifty), to a method of a generated client
/// (`with_…_defaults(move |call| call.thrifty(thrifty.clone()))`), or to a whole
/// [client](crate::Client::with_thrifty). Clones have one budget, one set of [counts](Self::counts) and one
/// delay that was learned.
///
/// ```
/// use std::time::Duration;
///
/// use gorums::call::{QuorumCall, Thrifty};
/// use gorums::{QuorumError, Replies};
///
/// # async fn f(read: QuorumCall<String, String>) -> Result<(), QuorumError> {
/// let thrifty = Thrifty::by_latency().after(Duration::from_millis(5));
/// let replies: Replies<String> = read.thrifty(thrifty.clone()).majority().replies().await?;
/// println!("{} requests saved so far", thrifty.counts().saved);
/// # Ok(())
/// # }
/// ```
///
/// # Which methods
///
/// A node that was not asked does not know of the call, and one that is asked later may run it behind
/// newer calls, also after the call is over. That is right for a read, and for a write whose service
/// can have it so. So a call is thrifty whose method is
/// [idempotent](crate::call::QuorumCall::idempotent), or whose nodes are called in
/// [sessions](crate::ConfigurationBuilder::sessions); others only with
/// [`any_method`](Self::any_method). Otherwise nothing is sent, and the call fails with
/// [`FailedPrecondition`](crate::Code::FailedPrecondition) at each node; by a client's default it asks all
/// nodes, as ever.
///
/// # Which terminals
///
/// All that count nodes: `first`, `majority`, `all`, `threshold`, `quorum` with any system, `votes`, `matching`
/// and, where the call itself says so, `correctable`: by a client's default that asks all nodes, as it may be
/// looked at and not awaited. Those whose end nobody knows before (`quorum_fn`, `by_quorum_fn`, `correctable_fn`,
/// `responses`) need to be told how many nodes to ask at first ([`asks`](Self::asks)), and ask all others when
/// these are done and it was not enough. Streamed calls are refused.
///
/// # Order
///
/// A request that is held back is queued at its node when the call widens, behind newer calls that
/// went to that node at once. The order of what is *sent* to a node is kept as ever, and handlers
/// start in it.
///
/// # Cancellation
///
/// A call widens on the task that awaits it, and has no other: one that is not awaited asks nobody else until it
/// is. A call that is over, is dropped, is cancelled or reaches its deadline lets go of what it has not sent,
/// of which no node ever hears. Nodes that were not asked are not counted by [`Node::pending`], and for
/// the [outcome](crate::QuorumError::outcome) of a call that fails it is as if they had been left out.
///
/// [`Node::pending`]: crate::Node::pending
#[derive(Clone)]
pub struct Thrifty(Arc<Policy>);

#[derive(Clone)]
struct Policy {
    delay: Delay,
    strategy: Option<Strategy>,
    asks: Option<usize>,
    any_method: bool,
    share: f64,
    burst: u32,
    shared: Arc<Shared>,
}

#[derive(Debug, Clone, Copy)]
enum Delay {
    Fixed(Duration),
    Quantile(f64),
}

/// Sets of nodes, each with the sum of its own share and of those before.
#[derive(Clone)]
struct Strategy(Arc<[(Box<[NodeId]>, f64)]>);

/// What clones share.
struct Shared {
    /// How many requests more may be sent, in parts of [`REQUEST`].
    tokens: AtomicU64,
    /// The delay that was learned, in nanoseconds; 0 where none was.
    learned: AtomicU64,
    /// Nodes that have failed, with when that was found: each once, the last one first.
    failed: Mutex<VecDeque<(NodeId, Instant)>>,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    calls: AtomicU64,
    saved: AtomicU64,
    extra: AtomicU64,
    explored: AtomicU64,
    late: AtomicU64,
    failed: AtomicU64,
    over_budget: AtomicU64,
    rescued: AtomicU64,
}

impl Shared {
    /// With as many requests in the budget as there may be.
    fn new(burst: u32) -> Self {
        Self {
            tokens: AtomicU64::new(most(burst)),
            learned: AtomicU64::new(0),
            failed: Mutex::default(),
            counts: Counts::default(),
        }
    }
}

/// What thrifty calls cost and saved, since their [`Thrifty`] was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ThriftyCounts {
    /// Calls that were thrifty.
    pub calls: u64,
    /// Requests that calls which are over have not sent, and would have sent to all nodes.
    pub saved: u64,
    /// Requests beyond those of the quorum that was asked first: of calls that widened, and of those that
    /// [explored](Self::explored).
    pub extra: u64,
    /// Requests, among the extra ones, that were sent to learn how near a node is that is seldom asked.
    pub explored: u64,
    /// Calls that widened since nodes did not answer in time; each once.
    pub late: u64,
    /// Calls that widened since nodes failed, or said no; each once.
    pub failed: u64,
    /// Times that a call waited on since the budget was empty.
    pub over_budget: u64,
    /// Calls that were completed by the reply of a node which was not asked at first.
    pub rescued: u64,
}

/// The delay while nothing has been learned.
const FIRST_DELAY: Duration = Duration::from_millis(10);

/// The delay is learned anew with every so many calls.
const LEARNED_EVERY: u64 = 32;

/// One call of so many asks one node more, to learn how near it is.
const EXPLORES: u64 = 64;

/// For so long a node that has failed comes after the others.
const FORGIVEN_AFTER: Duration = Duration::from_secs(1);

/// Of so many nodes it is known that they have failed: of those that did last.
const FAILED: usize = 64;

/// A whole request in the budget.
const REQUEST: u64 = 1 << 20;

impl Thrifty {
    /// Asks the nodes that answer soonest: the quorum that these make, without those that it does not
    /// need. Those that are [degraded](crate::NodeState::Degraded), have asked for a pause or are not connected come
    /// last, and before these a node that was [unavailable](crate::Code::Unavailable) less than a second ago, when
    /// a call asked another one in its place. A node that never answered is taken for near.
    ///
    /// How near a node is tell its [average latency](crate::Node::latency) and what it owes: one
    /// that leaves a call unanswered is as far away as that was long ago. One call of 64, at random, asks
    /// one node more, at random among those that are connected, if the budget has room: so what is known of a
    /// node that is never asked is not older than some hundred calls, and one that was slow is found
    /// to be fast again.
    ///
    /// Many clients that do so have the same nodes do all the work. Where that is too much for them,
    /// spread it [by a strategy](Self::by_strategy).
    #[must_use]
    pub fn by_latency() -> Self {
        let (share, burst) = (0.1, 10);
        Self(Arc::new(Policy {
            delay: Delay::Quantile(0.95),
            strategy: None,
            asks: None,
            any_method: false,
            share,
            burst,
            shared: Arc::new(Shared::new(burst)),
        }))
    }

    /// Asks one of these quorums, each as often as its share says, whatever the shares sum up to: those
    /// of a strategy that was computed for the least load, say (crate `gorums-quorums`).
    ///
    /// Nodes of the one that is drawn which are not well give way to others, by latency, as do those
    /// that are not in the configuration called. Nodes that a quorum does not need are not asked.
    ///
    /// # Errors
    /// There is no quorum, one is empty, a share is negative or no number, or all are zero.
    pub fn by_strategy<N: Into<NodeId>, Q: IntoIterator<Item = N>>(
        quorums: impl IntoIterator<Item = (Q, f64)>,
    ) -> Result<Self, QuorumSystemError> {
        let mut all: Vec<(Box<[NodeId]>, f64)> = Vec::new();
        let mut sum = 0.0;
        for (nodes, share) in quorums {
            if !share.is_finite() || share < 0.0 {
                return Err(QuorumSystemError::new(format!(
                    "the share of a quorum is {share}"
                )));
            }
            let nodes: Box<[_]> = nodes.into_iter().map(Into::into).collect();
            if nodes.is_empty() {
                return Err(QuorumSystemError::new("a quorum has no node"));
            }
            sum += share;
            if share > 0.0 {
                all.push((nodes, sum));
            }
        }
        if all.is_empty() || !sum.is_finite() {
            return Err(QuorumSystemError::new(
                "no quorum has a share, or all shares together are too large",
            ));
        }
        let mut thrifty = Self::by_latency();
        thrifty.policy().strategy = Some(Strategy(all.into()));
        Ok(thrifty)
    }

    /// Widens a call this long after its terminal was called. With `Duration::MAX` it widens where nodes fail,
    /// and when half of the time until its deadline is over.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.policy().delay = Delay::Fixed(delay);
        self
    }

    /// Widens a call when it has taken longer than this part of all calls do, in whole milliseconds.
    /// Default: 0.95.
    ///
    /// It is told from the last 256 [latencies](crate::Node::latency_quantile) of each node: for k nodes
    /// that are asked, the k-th root of this is the quantile of a node by which all of them have
    /// answered. The delay is the greatest of those of the quorum for which it is least, so that nodes
    /// which are slow now and then have no part in it. It is 10 ms while nothing is known, and is looked at
    /// with every 32nd call. By a [strategy](Self::by_strategy) it is the greatest of all nodes that this may ask.
    ///
    /// Latencies are those of all calls of a node, so calls that take far longer than most others want a
    /// `Thrifty` of their own with a [fixed](Self::after) delay: by this one they would ask all nodes.
    #[must_use]
    pub fn after_quantile(mut self, quantile: f64) -> Self {
        self.policy().delay = Delay::Quantile(quantile);
        self
    }

    /// How many extra requests there may be: this share of a request for each call, and as many as `burst` at
    /// once where there were few before. Default: a tenth, and 10; it begins with the burst. All that is widened
    /// after a delay is paid from it, with all its requests or not at all, and so is what is sent to
    /// explore. What is no number, or below 0, counts as 0.
    ///
    /// A call that cannot pay waits for the same delay once more, and then looks again. It begins anew: other
    /// clones keep their budget, their counts and what they have learned.
    #[must_use]
    pub fn budget(mut self, share: f64, burst: u32) -> Self {
        let policy = self.policy();
        policy.share = share.max(0.0);
        policy.burst = burst;
        policy.shared = Arc::new(Shared::new(burst));
        self
    }

    /// How many nodes to ask at first where the terminal does not tell: for `quorum_fn`,
    /// `by_quorum_fn`, `correctable_fn` and `responses`. One at the least, and no more than there are. Of no
    /// account for other terminals.
    ///
    /// Where one of them fails another one is asked, and after the delay as many as have not
    /// answered. When all that were asked are done, and the call goes on, all others are asked.
    #[must_use]
    pub fn asks(mut self, nodes: usize) -> Self {
        self.policy().asks = Some(nodes.max(1));
        self
    }

    /// Takes methods, too, that are neither idempotent nor called in a session: it does not matter
    /// which nodes handle a request, nor that one of them does so late, behind newer ones.
    #[must_use]
    pub fn any_method(mut self) -> Self {
        self.policy().any_method = true;
        self
    }

    /// What the calls of this and of all its clones cost and saved so far.
    #[must_use]
    pub fn counts(&self) -> ThriftyCounts {
        let counts = &self.0.shared.counts;
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ThriftyCounts {
            calls: get(&counts.calls),
            saved: get(&counts.saved),
            extra: get(&counts.extra),
            explored: get(&counts.explored),
            late: get(&counts.late),
            failed: get(&counts.failed),
            over_budget: get(&counts.over_budget),
            rescued: get(&counts.rescued),
        }
    }

    fn policy(&mut self) -> &mut Policy {
        Arc::make_mut(&mut self.0)
    }

    // ---- what calls ask

    pub(super) fn first_asks(&self) -> Option<usize> {
        self.0.asks
    }

    pub(super) fn takes_any_method(&self) -> bool {
        self.0.any_method
    }

    /// One of the quorums of the strategy, by a random number.
    pub(super) fn draw(&self, random: impl FnOnce() -> u64) -> Option<&[NodeId]> {
        let Strategy(quorums) = self.0.strategy.as_ref()?;
        let (last, sum) = quorums.last()?;
        let at = random() as f64 / u64::MAX as f64 * sum;
        let drawn = quorums.iter().find(|(_, end)| at < *end);
        Some(drawn.map_or(last, |(nodes, _)| nodes))
    }

    /// The nodes of all quorums of the strategy, if there is one.
    pub(super) fn of_strategy(&self) -> Option<impl Iterator<Item = NodeId>> {
        let Strategy(quorums) = self.0.strategy.as_ref()?;
        Some(quorums.iter().flat_map(|(nodes, _)| nodes.iter().copied()))
    }

    /// Whether to ask one node more, by a random number; another number then says which.
    pub(super) fn explores(&self, random: impl FnOnce() -> u64) -> Option<usize> {
        if self.0.strategy.is_some() {
            return None;
        }
        let random = random();
        let node = usize::try_from(random / EXPLORES).unwrap_or(usize::MAX);
        random.is_multiple_of(EXPLORES).then_some(node)
    }

    /// A call begins. A quantile of its nodes' latencies, if any is known, says how long it waits.
    pub(super) fn begin(&self, quantile: impl FnOnce(f64) -> Option<Duration>) -> Duration {
        let Policy { shared, delay, .. } = &*self.0;
        let calls = shared.counts.calls.fetch_add(1, Ordering::Relaxed);
        self.earn();
        match delay {
            Delay::Fixed(delay) => *delay,
            Delay::Quantile(q) => {
                let learned = shared.learned.load(Ordering::Relaxed);
                if learned != 0 && !calls.is_multiple_of(LEARNED_EVERY) {
                    return Duration::from_nanos(learned);
                }
                let Some(delay) = quantile(*q) else {
                    return FIRST_DELAY;
                };
                let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
                // Later than that, by a clock that may have whole milliseconds only.
                let delay = Duration::from_millis(millis.saturating_add(1));
                let nanos = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
                shared.learned.store(nanos, Ordering::Relaxed);
                delay
            }
        }
    }

    /// A node has failed at this time.
    pub(super) fn note_failure(&self, node: NodeId, now: Instant) {
        let mut failed = self.0.shared.failed.lock();
        failed.retain(|(other, _)| *other != node);
        failed.truncate(FAILED - 1);
        failed.push_front((node, now));
    }

    /// The nodes that have failed not long ago.
    pub(super) fn failed_lately(&self, now: Instant) -> Vec<NodeId> {
        let mut failed = self.0.shared.failed.lock();
        failed.retain(|(_, at)| now.saturating_duration_since(*at) < FORGIVEN_AFTER);
        failed.iter().map(|(node, _)| *node).collect()
    }

    /// A call adds its share to the budget.
    fn earn(&self) {
        let Policy {
            shared,
            share,
            burst,
            ..
        } = &*self.0;
        // A share that is too large is cut off, as all that is beyond the burst.
        let earned = (share * REQUEST as f64).ceil() as u64;
        let most = most(*burst);
        let add = |tokens: u64| Some(tokens.saturating_add(earned).min(most));
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        // It always adds something.
        let _ = shared.tokens.fetch_update(set, fetch, add);
    }

    /// Takes so many requests from the budget, or none.
    pub(super) fn spend(&self, requests: usize) -> bool {
        let cost = u64::try_from(requests)
            .unwrap_or(u64::MAX)
            .saturating_mul(REQUEST);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        let tokens = &self.0.shared.tokens;
        let taken = tokens.fetch_update(set, fetch, |tokens| tokens.checked_sub(cost));
        taken.is_ok()
    }

    fn add(&self, count: impl FnOnce(&Counts) -> &AtomicU64, times: usize) {
        let times = u64::try_from(times).unwrap_or(u64::MAX);
        count(&self.0.shared.counts).fetch_add(times, Ordering::Relaxed);
    }

    pub(super) fn note_saved(&self, requests: usize) {
        self.add(|counts| &counts.saved, requests);
    }

    pub(super) fn note_extra(&self, requests: usize) {
        self.add(|counts| &counts.extra, requests);
    }

    pub(super) fn note_explored(&self) {
        self.add(|counts| &counts.explored, 1);
        self.note_extra(1);
    }

    pub(super) fn note_late(&self) {
        self.add(|counts| &counts.late, 1);
    }

    pub(super) fn note_failed(&self) {
        self.add(|counts| &counts.failed, 1);
    }

    pub(super) fn note_over_budget(&self) {
        self.add(|counts| &counts.over_budget, 1);
    }

    pub(super) fn note_rescued(&self) {
        self.add(|counts| &counts.rescued, 1);
    }
}

fn most(burst: u32) -> u64 {
    u64::from(burst) * REQUEST
}

impl fmt::Debug for Thrifty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Policy {
            delay,
            strategy,
            asks,
            any_method,
            share,
            burst,
            ..
        } = &*self.0;
        f.debug_struct("Thrifty")
            .field("delay", delay)
            .field("quorums", &strategy.as_ref().map(|Strategy(all)| all.len()))
            .field("asks", asks)
            .field("any_method", any_method)
            .field("budget", &(share, burst))
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}
