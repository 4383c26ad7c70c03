use std::fmt;
use std::sync::Arc;

use prost::Message;

use super::collect::{Collector, MapResponse};
use super::correctable::{ByQuorumFn, Correctable, Nodes};
use super::dispatch::{Requests, start, start_by};
use super::handle::Callees;
use super::held::Choice;
use super::options::{Options, Thrift, answered_options, options};
use super::quorum_fn::{Matching, QuorumFn};
use super::quorum_of::Quorum;
use super::replies::Replies;
use super::responses::Responses;
use super::thrifty::Thrifty;
use crate::channel::{Keep, Kind, Unread};
use crate::configuration::{Configuration, Node};
use crate::error::{Counted, QuorumError, QuorumErrorKind, QuorumFailure, Status};
use crate::quorum::{Bits, NodeSet, QuorumSystem, Threshold};

/// A request to all nodes of a configuration. Queued, on every node, by the terminal that says what
/// is made of the replies: [`majority`](Self::majority), [`responses`](Self::responses) and the
/// others.
///
/// A terminal counts *answers, not votes*: a reply that says no is a success like any other. Where
/// replies can say no, count those that say yes: `majority().votes(|reply| reply.granted)`.
///
/// A majority (all, a threshold) is one of the configuration that is called, also where that is a
/// part of a larger one: for the quorums of the larger one pass a rule to [`quorum`](Self::quorum).
/// A node that `map_request` leaves out stays in the denominator.
#[must_use = "a call is queued by its terminal: `majority`, `all`, `responses`, …"]
pub struct QuorumCall<Req, Resp> {
    configuration: Configuration,
    method: &'static str,
    requests: PerNode<Req>,
    options: Options,
    map_response: Option<MapResponse<Resp>>,
    quorum_fn: Option<SharedQuorumFn<Req, Resp>>,
    streamed: bool,
}

type SharedQuorumFn<Req, Resp> =
    Arc<dyn Fn(&Req, &mut Replies<Resp>) -> Option<Resp> + Send + Sync>;

/// One request for all, or one for each.
#[derive(Debug, Clone)]
pub(crate) struct PerNode<Req> {
    request: Req,
    each: Option<Vec<Option<Req>>>,
}

impl<Req> PerNode<Req> {
    pub(crate) fn new(request: Req) -> Self {
        Self {
            request,
            each: None,
        }
    }

    pub(crate) fn map(
        &mut self,
        configuration: &Configuration,
        mut map: impl FnMut(&Node, &Req) -> Option<Req>,
    ) {
        let each = configuration
            .iter()
            .enumerate()
            .map(|(part, node)| match &self.each {
                None => map(node, &self.request),
                Some(each) => each[part].as_ref().and_then(|request| map(node, request)),
            })
            .collect();
        self.each = Some(each);
    }

    pub(crate) fn requests(&self) -> Requests<'_, Req> {
        match &self.each {
            None => Requests::Same(&self.request),
            Some(each) => Requests::Each(each),
        }
    }

    fn left_out(&self) -> Bits {
        let mut bits = Bits::default();
        for (part, request) in self.each.iter().flatten().enumerate() {
            if request.is_none() {
                bits.insert(part);
            }
        }
        bits
    }
}

impl<Req: Clone, Resp> Clone for QuorumCall<Req, Resp> {
    fn clone(&self) -> Self {
        Self {
            configuration: self.configuration.clone(),
            method: self.method,
            requests: self.requests.clone(),
            options: self.options.clone(),
            map_response: self.map_response.clone(),
            quorum_fn: self.quorum_fn.clone(),
            streamed: self.streamed,
        }
    }
}

impl<Req: fmt::Debug, Resp> fmt::Debug for QuorumCall<Req, Resp> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuorumCall")
            .field("configuration", &self.configuration)
            .field("method", &self.method)
            .field("request", &self.requests.request)
            .finish_non_exhaustive()
    }
}

impl<Req: Message, Resp: Message + Default> QuorumCall<Req, Resp> {
    pub(crate) fn new(
        configuration: Configuration,
        method: &'static str,
        request: Req,
        options: Options,
        streamed: bool,
    ) -> Self {
        Self {
            configuration,
            method,
            requests: PerNode::new(request),
            options,
            map_response: None,
            quorum_fn: None,
            streamed,
        }
    }

    options!();
    answered_options!();

    /// How many bytes of each node's replies to a streamed call may wait while nobody takes them.
    /// A reply counts 256 bytes beside its own, and one more than this may wait of a node. Default:
    /// 1 MiB. Of no account for calls with one reply from each node.
    ///
    /// No reply is lost: a node whose replies are not taken is held back, and its
    /// [`ReplySender::send`](crate::ReplySender::send) waits. Neither the connection nor any other
    /// call waits for that. A node that cannot be held back, such as one of the Go library, may
    /// send 16 times as much; then its part of the call fails with
    /// [`ResourceExhausted`](crate::Code::ResourceExhausted). A
    /// [`correctable`](Self::correctable) holds nobody back: of each node it keeps the newest 64
    /// replies within these bytes, and [counts](Correctable::dropped) those that it drops.
    ///
    /// All streamed calls at one node together have a bound, too:
    /// [`ConfigurationBuilder::unread_replies`](crate::ConfigurationBuilder::unread_replies).
    pub fn unread_replies(mut self, bytes: usize) -> Self {
        self.options.unread = Some(bytes as u64);
        self
    }

    /// Asks a quorum in place of all nodes, and others only where it takes too long: [`Thrifty`] says
    /// how, for which methods and with which terminals. Where they do not allow it nothing is sent, and
    /// the call fails with [`FailedPrecondition`](crate::Code::FailedPrecondition) at each node. `None` asks
    /// all nodes, also where the client's default is another one.
    pub fn thrifty(mut self, thrifty: impl Into<Option<Thrifty>>) -> Self {
        self.options.thrift = thrifty.into().map_or(Thrift::Never, Thrift::Always);
        self
    }

    /// The configuration that is called.
    #[must_use]
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// Gives each node a request of its own; `None` leaves the node out, which is neither a success
    /// nor a failure. Runs now, in the order of the configuration. Called again, it maps what the
    /// last one made.
    pub fn map_request(mut self, map: impl FnMut(&Node, &Req) -> Option<Req>) -> Self {
        self.requests.map(&self.configuration, map);
        self
    }

    /// Changes or rejects each reply before it counts; an error is that node's failure. Runs on the
    /// awaiting task. Called again, it maps what the last one made.
    pub fn map_response(
        mut self,
        map: impl Fn(&Node, Resp) -> Result<Resp, Status> + Send + Sync + 'static,
    ) -> Self
    where
        Resp: 'static,
    {
        self.map_response = Some(match self.map_response.take() {
            None => Arc::new(map),
            Some(first) => Arc::new(move |node: &Node, reply| map(node, first(node, reply)?)),
        });
        self
    }

    /// Waits for the first success.
    pub fn first(self) -> Quorum<Resp> {
        self.threshold(1)
    }

    /// Waits for more than half of the nodes, and returns the *first* reply: neither the newest nor
    /// the agreed one. For the newest add [`max_by_key`](Quorum::max_by_key), for all of them
    /// [`replies`](Quorum::replies).
    ///
    /// **Every success counts, whatever it says.** A lock that two of three nodes answered with
    /// `granted: false` has its majority. To count the replies that say yes, add
    /// [`votes`](Quorum::votes); to count equal ones, use [`matching`](Self::matching).
    pub fn majority(self) -> Quorum<Resp> {
        let majority = self.configuration.len() / 2 + 1;
        self.threshold(majority)
    }

    /// Waits for every node, and returns the first reply. Every success counts, whatever it says:
    /// where replies can say no, add [`votes`](Quorum::votes).
    pub fn all(self) -> Quorum<Resp> {
        let all = self.configuration.len();
        self.threshold(all)
    }

    /// Waits for `k` nodes, and returns the first reply. Impossible, and nothing is sent, for a `k`
    /// of zero or above the number of nodes. Every success counts, whatever it says: where replies
    /// can say no, add [`votes`](Quorum::votes).
    pub fn threshold(self, k: usize) -> Quorum<Resp, Threshold> {
        self.quorum(Threshold(k))
    }

    /// Waits for a quorum of this system, given by value, by `Arc` or by reference, and returns the
    /// first reply. Every success counts, whatever it says: where replies can say no, add
    /// [`votes`](Quorum::votes).
    pub fn quorum<Q: QuorumSystem>(self, system: Q) -> Quorum<Resp, Q> {
        let total = self.configuration.len();
        let needed = system.count(total);
        let members = self.members();
        let is_quorum = |nodes: &Bits| system.is_quorum(&NodeSet::new(&self.configuration, nodes));
        let possible = is_quorum(&members) && !is_quorum(&Bits::default());
        let collector = self.collector(needed, possible, Keep::All, Some(&is_quorum));
        Quorum::new(collector, system)
    }

    /// Waits until a quorum function accepts a set of replies. It runs on the awaiting task after
    /// each reply, sees the request and the replies so far, one for each node, and may move them
    /// out. Fails by count only when all nodes have answered or failed; to fail by content, return
    /// `Some(Err(…))`.
    pub fn quorum_fn<T, F>(self, f: F) -> QuorumFn<Req, Resp, F>
    where
        F: FnMut(&Req, &mut Replies<Resp>) -> Option<T>,
    {
        let collector = self.collector(None, true, Keep::All, None);
        let replies = Replies::new(self.configuration);
        QuorumFn::new(collector, self.requests.request, replies, f)
    }

    /// Sets the quorum function of [`by_quorum_fn`](Self::by_quorum_fn): once for a method, among
    /// the defaults of a generated client (`with_…_defaults`), in place of at every call.
    pub fn with_quorum_fn(
        mut self,
        f: impl Fn(&Req, &mut Replies<Resp>) -> Option<Resp> + Send + Sync + 'static,
    ) -> Self {
        self.quorum_fn = Some(Arc::new(f));
        self
    }

    /// Waits until the quorum function that was set before
    /// ([`with_quorum_fn`](Self::with_quorum_fn)) accepts a set of replies, as
    /// [`quorum_fn`](Self::quorum_fn) does with one that it is given. Without one the call fails
    /// with [`NoQuorumFn`](QuorumErrorKind::NoQuorumFn), and nothing is sent.
    pub fn by_quorum_fn(self) -> QuorumFn<Req, Resp>
    where
        Req: 'static,
        Resp: 'static,
    {
        let collector = match &self.quorum_fn {
            Some(_) => self.collector(None, true, Keep::All, None),
            None => Err(self.not_sent(QuorumErrorKind::NoQuorumFn, None)),
        };
        let quorum_fn = self.quorum_fn;
        QuorumFn::new(
            collector,
            self.requests.request,
            Replies::new(self.configuration),
            Box::new(move |request, replies| quorum_fn.as_ref()?(request, replies)),
        )
    }

    /// Waits for `k` nodes whose replies have the same key, and returns the first of these: `f + 1`
    /// equal replies outvote `f` lying nodes.
    pub fn matching<K: Eq, F: FnMut(&Resp) -> K>(self, k: usize, key: F) -> Matching<Resp, K, F> {
        let possible = k > 0 && k <= self.members().len();
        let collector = self.counting(k, possible, Keep::All);
        Matching::new(collector, k, key)
    }

    /// Ever better answers: of level 1 with the first node that answers, up to `level` distinct
    /// nodes, when the call is done. The value is always the reply that came last. A `level` of
    /// zero, or above the number of nodes called, is impossible, and nothing is sent.
    pub fn correctable(self, level: usize) -> Correctable<Resp>
    where
        Resp: 'static,
    {
        let possible = level > 0 && level <= self.members().len();
        let collector = match self.options.thrift {
            // Where it is only looked at, nobody would ask the others.
            Thrift::WhereItMay(_) => self.collector(Some(level), possible, Keep::Newest, None),
            Thrift::Never | Thrift::Always(_) => self.counting(level, possible, Keep::Newest),
        };
        Correctable::new(collector, Nodes { needed: level })
    }

    /// Ever better answers, made by a quorum function of the request and the replies so far, one
    /// for each node. It runs after each reply, on the awaiting task, and returns an answer, its
    /// level, and whether the call is done. Fails by itself only when nothing more can come.
    pub fn correctable_fn<T, F>(self, f: F) -> Correctable<T>
    where
        T: 'static,
        Req: 'static,
        Resp: 'static,
        F: FnMut(&Req, &mut Replies<Resp>) -> (T, usize, bool) + Send + 'static,
    {
        let collector = self.collector(None, true, Keep::Newest, None);
        let rule = ByQuorumFn {
            request: self.requests.request,
            replies: Replies::new(self.configuration),
            f,
        };
        Correctable::new(collector, rule)
    }

    /// Every reply and every failure as it comes.
    pub fn responses(self) -> Responses<Resp> {
        Responses::new(self.collector(None, true, Keep::All, None))
    }

    #[inline]
    fn members(&self) -> Bits {
        Bits::all(self.configuration.len()).without(&self.requests.left_out())
    }

    fn not_sent(&self, kind: QuorumErrorKind, needed: Option<usize>) -> QuorumError {
        QuorumFailure {
            kind,
            method: self.method,
            nodes: self.configuration.len(),
            asked: 0,
            withdrawn: 0,
            needed,
            replies: 0,
            failures: Vec::new(),
            counted: Counted::Replies,
        }
        .into()
    }

    /// Queues a call that needs so many replies, at least.
    fn counting(
        &self,
        needed: usize,
        possible: bool,
        keep: Keep,
    ) -> Result<Collector<Resp>, QuorumError> {
        let are_enough = |nodes: &Bits| nodes.len() >= needed;
        self.collector(Some(needed), possible, keep, Some(&are_enough))
    }

    /// Queues the call, unless it cannot succeed. Which nodes are enough to ask is known, or is for
    /// whoever takes the replies to say.
    fn collector(
        &self,
        needed: Option<usize>,
        possible: bool,
        keep: Keep,
        are_enough: Option<&dyn Fn(&Bits) -> bool>,
    ) -> Result<Collector<Resp>, QuorumError> {
        if !possible {
            return Err(self.not_sent(QuorumErrorKind::Impossible, needed));
        }
        let kind = if self.streamed {
            let default = Unread::default();
            Kind::Streamed(Unread {
                window: self.options.unread.unwrap_or(default.window),
                keep,
            })
        } else {
            Kind::Unary
        };
        let callees = Callees::Configuration(self.configuration.clone());
        let requests = self.requests.requests();
        let mut held = None;
        let handle = match &self.options.thrift {
            Thrift::Never => start(callees, self.method, kind, &self.options, &requests),
            thrift => {
                let held = &mut held;
                let start = |options: &Options, choice: Option<&Choice<'_>>| {
                    start_by(callees, self.method, kind, options, &requests, choice, held)
                };
                self.start_thrifty(thrift, are_enough, start)
            }
        };
        Ok(Collector::new(
            handle,
            held,
            self.configuration.clone(),
            self.requests.left_out(),
            needed,
            self.options.max_decoding,
            self.map_response.clone(),
        ))
    }

    /// Starts the call on a part of its nodes, where that is allowed. Where it is not, the call is
    /// refused, or asks all.
    #[cold]
    fn start_thrifty<T>(
        &self,
        thrift: &Thrift,
        are_enough: Option<&dyn Fn(&Bits) -> bool>,
        start: impl FnOnce(&Options, Option<&Choice<'_>>) -> T,
    ) -> T {
        let (thrifty, is_refused) = match thrift {
            Thrift::Never => return start(&self.options, None),
            Thrift::WhereItMay(thrifty) => (thrifty, false),
            Thrift::Always(thrifty) => (thrifty, true),
        };
        let members = self.members();
        let asks = thrifty.first_asks().map(|asks| asks.min(members.len()));
        let so_many = |nodes: &Bits| asks.is_some_and(|asks| nodes.len() >= asks);
        match self.no_thrift(thrifty, are_enough.is_some()) {
            None => {
                let choice = Choice {
                    thrifty,
                    members,
                    is_enough: are_enough.unwrap_or(&so_many),
                    asks: asks.filter(|_| are_enough.is_none()),
                };
                start(&self.options, Some(&choice))
            }
            Some(why) if is_refused => {
                let mut options = self.options.clone();
                let refused = || Status::failed_precondition(why);
                options.error.get_or_insert_with(refused);
                start(&options, None)
            }
            Some(_) => start(&self.options, None),
        }
    }

    /// Why the call has to ask all nodes, if so.
    fn no_thrift(&self, thrifty: &Thrifty, is_end_known: bool) -> Option<&'static str> {
        let channels = self.configuration.targets().channels();
        let are_sessions = || channels.iter().all(|channel| channel.has_session());
        if self.streamed {
            Some("a call with streamed replies cannot be thrifty")
        } else if !is_end_known && thrifty.first_asks().is_none() {
            Some("how many nodes a thrifty call asks is not known: say so by Thrifty::asks")
        } else if !self.options.is_idempotent && !thrifty.takes_any_method() && !are_sessions() {
            Some("a thrifty call takes an idempotent method, a session, or Thrifty::any_method")
        } else {
            None
        }
    }
}
