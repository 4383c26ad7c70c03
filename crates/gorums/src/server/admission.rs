//! Which connections there may be: how many in all, from each address and of each node, and which
//! of them makes room where there are too many.
//!
//! A connection *enters* when it is accepted, and nothing is known of the peer but its address. It
//! is *settled* when its handshake is over and it speaks HTTP/2: as one of a node, which has proved
//! to be that, or as one of a stranger. One that has not after a while makes room for others where
//! all places are taken, so that strangers who connect and say nothing keep nobody out. Where nodes
//! prove who they are, a part of all places is for them and for those who may still prove it:
//! strangers never settle there.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::error::Status;
use crate::node_id::NodeId;
use crate::sync::Mutex;

/// How many connections there may be at once that have not settled.
pub(super) const UNSETTLED: usize = 1024;

/// How long one that has not settled keeps its place whoever comes: what comes at once has the same
/// chance.
const PATIENCE: Duration = Duration::from_millis(250);

/// Where nodes prove who they are, one of so many places is for them.
const NODES_PART: usize = 4;

/// How many connections there may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) all: usize,
    pub(super) per_address: usize,
    /// Of a node that has proved which one it is.
    pub(super) per_node: usize,
    /// Whether nodes prove that.
    pub(super) nodes_prove: bool,
}

/// The connections that there are.
pub(super) struct Admission {
    limits: Limits,
    /// How many may not have settled.
    unsettled: usize,
    /// How many may be strangers' that have.
    strangers: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Those that have not settled, the oldest first.
    unsettled: Vec<Unsettled>,
    /// How many strangers' have.
    strangers: usize,
    /// Those of nodes that have, by node.
    nodes: Counts<NodeId>,
    /// All but those of nodes, by where they come from.
    addresses: Counts<IpAddr>,
    /// The number of the next one.
    next: u64,
}

/// A connection of which nothing is known but where it comes from.
struct Unsettled {
    number: u64,
    from: Option<IpAddr>,
    since: Instant,
    /// Ends it. None while it has not begun.
    task: Option<AbortHandle>,
}

/// How many there are of each.
struct Counts<K> {
    of: HashMap<K, usize>,
    sum: usize,
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self {
            of: HashMap::new(),
            sum: 0,
        }
    }
}

impl<K: Hash + Eq + Copy> Counts<K> {
    fn get(&self, key: K) -> usize {
        self.of.get(&key).copied().unwrap_or_default()
    }

    fn add(&mut self, key: K) {
        *self.of.entry(key).or_default() += 1;
        self.sum += 1;
    }

    fn remove(&mut self, key: K) {
        if let Entry::Occupied(mut count) = self.of.entry(key) {
            self.sum -= 1;
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// The place of a connection, until this is dropped.
pub(super) struct Seat {
    of: Arc<Admission>,
    number: u64,
    from: Option<IpAddr>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unsettled,
    Stranger,
    Node(NodeId),
}

/// Why a connection gets no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// There are as many from its address as may be.
    From(IpAddr),
    /// There are as many of this node as may be.
    Of(NodeId),
    /// There are as many as may be.
    All,
    /// It has made room for another one.
    Displaced,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::From(address) => write!(
                f,
                "as many connections from {address} as may come from one address \
                 (max_connections_per_address)"
            ),
            Self::Of(node) => write!(
                f,
                "as many connections of node {node} as a node may have (max_connections_per_node)"
            ),
            Self::All | Self::Displaced => {
                f.write_str("as many connections as there may be (max_connections)")
            }
        }
    }
}

impl Full {
    /// What the peer is told.
    pub(super) fn status(&self) -> Status {
        Status::resource_exhausted(format!("this server has {self}"))
    }
}

/// A connection has entered.
pub(super) struct Entered {
    pub(super) seat: Seat,
    /// Another one has made room for it, which came from here.
    pub(super) displaced: Option<Displaced>,
}

/// The connection that has made room for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Displaced {
    pub(super) from: Option<IpAddr>,
}

impl Admission {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        let for_nodes = match limits.nodes_prove {
            // Where there is one place, it is for whoever comes.
            true => (limits.all / NODES_PART).max(1).min(limits.all - 1),
            false => 0,
        };
        Arc::new(Self {
            limits,
            unsettled: UNSETTLED.min(limits.all),
            strangers: limits.all - for_nodes,
            state: Mutex::default(),
        })
    }

    /// A connection from this address comes, and nothing more is known of its peer yet; whether it
    /// may prove to be a node is.
    pub(super) fn enter(
        self: &Arc<Self>,
        peer: Option<SocketAddr>,
        may_prove: bool,
        now: Instant,
    ) -> Result<Entered, Full> {
        let from = peer.map(|peer| origin(peer.ip()));
        let may_prove = may_prove && self.limits.nodes_prove;
        let mut state = self.state.lock();
        if let Some(from) = from
            && !may_prove
            && state.addresses.get(from) >= self.limits.per_address
        {
            return Err(Full::From(from));
        }
        let is_full = state.all() >= self.limits.all || state.unsettled.len() >= self.unsettled;
        let displaced = match is_full {
            true => Some(state.displace(from, now).ok_or(Full::All)?),
            false => None,
        };
        let number = state.next;
        state.next += 1;
        state.unsettled.push(Unsettled {
            number,
            from,
            since: now,
            task: None,
        });
        if let Some(from) = from {
            state.addresses.add(from);
        }
        Ok(Entered {
            seat: Seat {
                of: Arc::clone(self),
                number,
                from,
                kind: Kind::Unsettled,
            },
            displaced,
        })
    }

    /// Ends the connection of this number by this, should it have to make room. It may have settled
    /// since it entered.
    pub(super) fn began(&self, number: u64, task: AbortHandle) {
        let mut state = self.state.lock();
        if let Ok(index) = state.index(number) {
            state.unsettled[index].task = Some(task);
        }
    }

    /// How many there are.
    #[cfg(test)]
    fn all(&self) -> usize {
        self.state.lock().all()
    }
}

impl State {
    fn all(&self) -> usize {
        self.unsettled.len() + self.strangers + self.nodes.sum
    }

    fn index(&self, number: u64) -> Result<usize, usize> {
        self.unsettled
            .binary_search_by_key(&number, |unsettled| unsettled.number)
    }

    /// Has one that has not settled make room for another one from here: of those that are late the
    /// oldest from the address from which most of them come. Where none is late, the newest from the
    /// address from which most come, if these are more than come from here by two at the least: so
    /// one that comes often keeps nobody else out. None where there is none such.
    fn displace(&mut self, comer: Option<IpAddr>, now: Instant) -> Option<Displaced> {
        let began = |unsettled: &&Unsettled| unsettled.task.is_some();
        let is_late =
            |unsettled: &&Unsettled| now.saturating_duration_since(unsettled.since) >= PATIENCE;
        let late = self.unsettled.iter().take_while(is_late).filter(began);
        let index = match most(late) {
            Some((_, from)) => self
                .unsettled
                .iter()
                .position(|unsettled| unsettled.from == from && unsettled.task.is_some())?,
            None => {
                let (count, from) = most(self.unsettled.iter().filter(began))?;
                let own = self.unsettled.iter().filter(|other| other.from == comer);
                if count < own.count() + 2 {
                    return None;
                }
                self.unsettled
                    .iter()
                    .rposition(|unsettled| unsettled.from == from && unsettled.task.is_some())?
            }
        };
        let Unsettled { from, task, .. } = self.unsettled.remove(index);
        if let Some(from) = from {
            self.addresses.remove(from);
        }
        if let Some(task) = task {
            task.abort();
        }
        Some(Displaced { from })
    }
}

/// How many of these come from the address from which most do, and from which.
fn most<'a>(unsettled: impl Iterator<Item = &'a Unsettled>) -> Option<(usize, Option<IpAddr>)> {
    let mut counts: HashMap<Option<IpAddr>, usize> = HashMap::new();
    for unsettled in unsettled {
        *counts.entry(unsettled.from).or_default() += 1;
    }
    let (from, count) = counts
        .into_iter()
        .max_by_key(|(from, count)| (*count, *from))?;
    Some((count, from))
}

impl Seat {
    /// By this the admission is told how the connection can be ended.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The peer speaks HTTP/2, and has proved to be this node, if it has proved to be one.
    ///
    /// # Errors
    /// There are too many of its kind. Until this is dropped the connection may still have to make
    /// room.
    pub(super) fn settle(&mut self, node: Option<NodeId>) -> Result<(), Full> {
        let limits = &self.of.limits;
        let mut state = self.of.state.lock();
        let index = state.index(self.number).map_err(|_| Full::Displaced)?;
        match (node, self.from) {
            (Some(node), _) if state.nodes.get(node) >= limits.per_node => {
                return Err(Full::Of(node));
            }
            (None, Some(from)) if state.addresses.get(from) > limits.per_address => {
                return Err(Full::From(from));
            }
            (None, _) if state.strangers >= self.of.strangers => return Err(Full::All),
            _ => {}
        }
        state.unsettled.remove(index);
        self.kind = match node {
            Some(node) => {
                state.nodes.add(node);
                if let Some(from) = self.from {
                    state.addresses.remove(from);
                }
                Kind::Node(node)
            }
            None => {
                state.strangers += 1;
                Kind::Stranger
            }
        };
        Ok(())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.of.state.lock();
        match self.kind {
            Kind::Unsettled => match state.index(self.number) {
                Ok(index) => {
                    // The task ends by itself.
                    let _task = state.unsettled.remove(index).task;
                }
                // It has made room, and does not count any more.
                Err(_) => return,
            },
            Kind::Stranger => state.strangers -= 1,
            Kind::Node(node) => return state.nodes.remove(node),
        }
        if let Some(from) = self.from {
            state.addresses.remove(from);
        }
    }
}

/// What is one origin: an address of IPv4, also where it is written as one of IPv6, and of IPv6 the
/// network that one host has at the least, of 64 bits.
pub(super) fn origin(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => {
            let network = ip.to_bits() >> 64 << 64;
            Ipv6Addr::from_bits(network).into()
        }
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    const LIMITS: Limits = Limits {
        all: 8,
        per_address: 3,
        per_node: 2,
        nodes_prove: true,
    };

    fn address(ip: &str) -> Option<SocketAddr> {
        Some(SocketAddr::new(ip.parse().expect("an address"), 1))
    }

    /// Enters from this address, with a task that would not end.
    fn enter(admission: &Arc<Admission>, ip: &str) -> Result<(Seat, Option<Displaced>), Full> {
        let Entered { seat, displaced } = admission.enter(address(ip), true, Instant::now())?;
        let task = tokio::spawn(pending::<()>());
        admission.began(seat.number(), task.abort_handle());
        Ok((seat, displaced))
    }

    fn stranger(admission: &Arc<Admission>, ip: &str) -> Result<Seat, Full> {
        let (mut seat, _) = enter(admission, ip)?;
        seat.settle(None)?;
        Ok(seat)
    }

    fn node(admission: &Arc<Admission>, ip: &str, id: u32) -> Result<Seat, Full> {
        let (mut seat, _) = enter(admission, ip)?;
        seat.settle(Some(NodeId::from(id)))?;
        Ok(seat)
    }

    #[tokio::test]
    async fn each_address_has_its_places_and_gets_them_back() {
        let admission = Admission::new(Limits {
            all: 100,
            per_address: 2,
            nodes_prove: false,
            ..LIMITS
        });
        let take = |ip: &str| stranger(&admission, ip);
        let first = take("10.0.0.1").expect("there is room");
        let _second = take("::ffff:10.0.0.1").expect("there is room");
        let full = take("10.0.0.1").err().expect("there is none");
        assert_eq!(full, Full::From(IpAddr::from([10, 0, 0, 1])));
        let _other = take("10.0.0.2").expect("another address");
        drop(first);
        let _third = take("10.0.0.1").expect("one has gone");
        assert!(take("10.0.0.1").is_err());
        let one = take("2001:db8::1").expect("there is room");
        let two = take("2001:db8::2:3").expect("there is room");
        assert!(take("2001:db8::ffff:1").is_err(), "the same network");
        take("2001:db8:0:1::1").expect("another network");
        drop((one, two));
        assert_eq!(admission.state.lock().addresses.of.len(), 2);
        let without: Vec<_> = (0..10)
            .map(|_| admission.enter(None, false, Instant::now()))
            .collect();
        assert!(without.iter().all(Result::is_ok), "without an address");
        assert_eq!(admission.all(), 13);
        drop(without);
        assert_eq!(admission.all(), 3);
    }

    #[tokio::test]
    async fn strangers_leave_places_for_nodes() {
        let admission = Admission::new(LIMITS);
        let strangers: Vec<_> = (0..6)
            .map(|host| stranger(&admission, &format!("10.0.0.{host}")).expect("there is room"))
            .collect();
        assert_eq!(stranger(&admission, "10.0.1.1").err(), Some(Full::All));
        let _first = node(&admission, "10.0.1.1", 1).expect("a place for nodes");
        let second = node(&admission, "10.0.1.1", 1).expect("a place for nodes");
        // Everybody has settled, and there is no place to prove anything at.
        assert_eq!(node(&admission, "10.0.1.2", 2).err(), Some(Full::All));
        drop(second);
        let _second = node(&admission, "10.0.1.2", 2).expect("a place for nodes");
        drop(strangers);
        assert_eq!(admission.all(), 2);
        let _third = node(&admission, "10.0.1.1", 1).expect("there is room");
        let full = Full::Of(NodeId::from(1));
        assert_eq!(node(&admission, "10.0.1.1", 1).err(), Some(full));
    }

    #[tokio::test]
    async fn a_node_gets_in_from_an_address_that_is_full_and_takes_nothing_of_it() {
        let admission = Admission::new(LIMITS);
        let ip = "10.0.0.1";
        let _node = node(&admission, ip, 1).expect("there is room");
        let _strangers: Vec<_> = (0..3)
            .map(|_| stranger(&admission, ip).expect("there is room"))
            .collect();
        let full = Full::From(IpAddr::from([10, 0, 0, 1]));
        assert_eq!(stranger(&admission, ip).err(), Some(full));
        let _second = node(&admission, ip, 2).expect("it has proved what it is");
        // Who cannot prove anything is not let in first.
        assert_eq!(
            admission.enter(address(ip), false, Instant::now()).err(),
            Some(full)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_says_nothing_makes_room_and_first_where_most_come_from() {
        let admission = Admission::new(LIMITS);
        let (_quiet, _) = enter(&admission, "10.0.0.1").expect("there is room");
        let mut many: Vec<_> = (0..7)
            .map(|_| enter(&admission, "10.0.0.2").expect("there is room").0)
            .collect();
        // Nobody is late: who comes from where most come from is too many.
        let too_soon = enter(&admission, "10.0.0.2").err();
        assert_eq!(too_soon, Some(Full::All));
        // Others are not, and the newest makes room for them.
        let (other, displaced) = enter(&admission, "10.0.0.3").expect("another makes room");
        let from = Some(IpAddr::from([10, 0, 0, 2]));
        assert_eq!(displaced, Some(Displaced { from }));
        let newest = many.last_mut().map(|seat| seat.settle(None));
        assert_eq!(newest, Some(Err(Full::Displaced)));
        many.pop();
        drop(other);
        many.push(enter(&admission, "10.0.0.2").expect("there is room").0);
        tokio::time::advance(PATIENCE).await;
        for _ in 0..5 {
            let (seat, displaced) = enter(&admission, "10.0.0.2").expect("another makes room");
            let from = Some(IpAddr::from([10, 0, 0, 2]));
            assert_eq!(displaced, Some(Displaced { from }));
            // It was the oldest.
            assert_eq!(many.remove(0).settle(None), Err(Full::Displaced));
            many.push(seat);
        }
        let _node = node(&admission, "10.0.0.3", 1).expect("another makes room");
        assert_eq!(admission.all(), 8);
        drop(many);
        assert_eq!(admission.all(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_refused_after_its_handshake_makes_room_while_it_is_told() {
        let admission = Admission::new(LIMITS);
        let strangers: Vec<_> = (0..6)
            .map(|host| stranger(&admission, &format!("10.0.0.{host}")).expect("there is room"))
            .collect();
        let (mut told, _) = enter(&admission, "10.0.1.1").expect("a place to prove it at");
        assert_eq!(told.settle(None), Err(Full::All));
        let (mut again, _) = enter(&admission, "10.0.1.1").expect("a place to prove it at");
        assert_eq!(again.settle(None), Err(Full::All));
        tokio::time::advance(PATIENCE).await;
        let _node = node(&admission, "10.0.1.2", 1).expect("one of them makes room");
        assert_eq!(told.settle(None), Err(Full::Displaced));
        drop((told, again, strangers));
        assert_eq!(admission.all(), 1);
    }
}
