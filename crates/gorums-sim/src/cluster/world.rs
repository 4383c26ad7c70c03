//! What the seams of all nodes share: which faults there are, and which have had an effect.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use turmoil::net::TcpStream;

use super::Random;
use super::contents::Contents;
use super::trace::Trace;
use crate::history::Violation;

/// Everything that happens in a run passes here, so all of it follows from the seed.
pub(crate) struct World {
    state: Mutex<State>,
}

pub(crate) struct State {
    pub(crate) nodes: Vec<NodeState>,
    /// The link faults that there are.
    links: Vec<LinkFault>,
    streams: BTreeMap<u64, Stream>,
    next_stream: u64,
    pub(crate) fired: Vec<bool>,
    pub(crate) trace: Trace,
    pub(crate) over: bool,
    pub(crate) told: Option<Violation>,
    pub(crate) operations: usize,
    value: u64,
    /// The run is over, and what was in it is dropped.
    ended: bool,
}

pub(crate) struct NodeState {
    pub(crate) random: Random,
    /// The faults that hold it still.
    pauses: Vec<usize>,
    paused: Vec<Waker>,
    /// The last one holds.
    pub(crate) skews: Vec<Skew>,
    slow: Vec<usize>,
    failing: Vec<usize>,
    disks: BTreeMap<TypeId, Box<dyn Any + Send>>,
    files: BTreeMap<String, Arc<Mutex<Contents>>>,
    /// How a replica's program has ended.
    pub(crate) ended: Option<Result<(), String>>,
    pub(crate) incarnation: u64,
    /// It is being killed.
    dying: bool,
}

/// A clock that goes wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Skew {
    pub(crate) fault: usize,
    /// How fast it goes, in thousandths.
    pub(crate) rate: u64,
    /// What is added to the time of day, in microseconds.
    pub(crate) offset: i64,
}

#[derive(Debug, Clone, Copy)]
struct LinkFault {
    fault: usize,
    node: usize,
    peer: Option<usize>,
}

/// A stream that is closed by whoever comes first.
pub(crate) type Shared = Arc<Mutex<Option<TcpStream>>>;

/// One end of a connection.
struct Stream {
    node: usize,
    peer: usize,
    io: Shared,
    broken: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// What a disk does with the next access.
pub(crate) enum Access {
    Works(Duration),
    Fails(Duration),
}

impl World {
    pub(crate) fn new(seed: u64, nodes: usize, faults: usize, keep_trace: bool) -> Arc<Self> {
        let node = |index: usize| NodeState {
            random: Random::of(seed, 1000 + index as u64),
            pauses: Vec::new(),
            paused: Vec::new(),
            skews: Vec::new(),
            slow: Vec::new(),
            failing: Vec::new(),
            disks: BTreeMap::new(),
            files: BTreeMap::new(),
            ended: None,
            incarnation: 0,
            dying: false,
        };
        Arc::new(Self {
            state: Mutex::new(State {
                nodes: (0..nodes).map(node).collect(),
                links: Vec::new(),
                streams: BTreeMap::new(),
                next_stream: 0,
                fired: vec![false; faults],
                trace: Trace::new(keep_trace),
                over: false,
                told: None,
                operations: 0,
                value: 0,
                ended: false,
            }),
        })
    }

    /// No code panics while it holds the lock.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ready unless the node stands still.
    pub(crate) fn poll_runs(&self, node: usize, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        let Some(&fault) = state.nodes[node].pauses.first() else {
            return Poll::Ready(());
        };
        state.fire(fault);
        let paused = &mut state.nodes[node].paused;
        if !paused.iter().any(|waker| waker.will_wake(cx.waker())) {
            paused.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Waits while the node stands still.
    pub(crate) async fn runs(&self, node: usize) {
        std::future::poll_fn(|cx| self.poll_runs(node, cx)).await;
    }

    pub(crate) fn pause(&self, node: usize, fault: usize) {
        self.lock().nodes[node].pauses.push(fault);
    }

    pub(crate) fn resume(&self, node: usize, fault: usize) {
        let mut state = self.lock();
        let node = &mut state.nodes[node];
        node.pauses.retain(|known| *known != fault);
        let paused = std::mem::take(&mut node.paused);
        drop(state);
        paused.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn begin_link_fault(&self, fault: usize, node: usize, peer: Option<usize>) {
        self.lock().links.push(LinkFault { fault, node, peer });
    }

    pub(crate) fn end_link_fault(&self, fault: usize) {
        self.lock().links.retain(|known| known.fault != fault);
    }

    /// A node sends to another: link faults between them have an effect.
    pub(crate) fn touches(&self, from: usize, to: usize, what: &str, length: usize) {
        let mut state = self.lock();
        let touched = state.links.iter().filter(|link| match link.peer {
            None => link.node == from || link.node == to,
            Some(peer) => (link.node, peer) == (from, to) || (link.node, peer) == (to, from),
        });
        let touched: Vec<usize> = touched.map(|link| link.fault).collect();
        for fault in touched {
            state.fire(fault);
        }
        let now = now();
        state
            .trace
            .add(now, &[from as u64, to as u64, length as u64], || {
                format!("{from} -> {to}: {what}, {length} bytes")
            });
    }

    /// Keeps an end of a connection, and returns how it is found.
    pub(crate) fn open_stream(&self, node: usize, peer: usize, io: TcpStream) -> (u64, Shared) {
        let mut state = self.lock();
        let id = state.next_stream;
        state.next_stream += 1;
        let io = Arc::new(Mutex::new(Some(io)));
        let stream = Stream {
            node,
            peer,
            io: Arc::clone(&io),
            broken: false,
            reader: None,
            writer: None,
        };
        state.streams.insert(id, stream);
        (id, io)
    }

    /// Closes an end of a connection. Where its node is being killed, all of the node's are closed
    /// in the order in which they were opened: the one in which their tasks are dropped depends on
    /// what the process did before.
    pub(crate) fn close_stream(&self, id: u64) {
        let mut state = self.lock();
        let node = state.streams.get(&id).map(|stream| stream.node);
        let closed = match node {
            Some(node) if state.nodes[node].dying => {
                let ids = state
                    .streams
                    .iter()
                    .filter(|(_, stream)| stream.node == node);
                ids.map(|(id, _)| *id).collect()
            }
            _ => vec![id],
        };
        let closed: Vec<(u64, Stream)> = closed
            .into_iter()
            .filter_map(|id| Some((id, state.streams.remove(&id)?)))
            .collect();
        if turmoil::in_simulation() {
            let now = now();
            for (id, Stream { node, peer, .. }) in &closed {
                let numbers = [*node as u64, *peer as u64, *id];
                state
                    .trace
                    .add(now, &numbers, || format!("{node} -> {peer}: close"));
            }
        }
        drop(state);
        for (_, stream) in closed {
            let io = stream
                .io
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            drop(io);
        }
    }

    /// Begins or ends to kill a node.
    pub(crate) fn dying(&self, node: usize, dying: bool) {
        self.lock().nodes[node].dying = dying;
    }

    /// Whether the stream was reset. If not, its user is woken when it is.
    pub(crate) fn stream_broken(&self, id: u64, cx: &Context<'_>, reads: bool) -> bool {
        let mut state = self.lock();
        let Some(stream) = state.streams.get_mut(&id) else {
            return true;
        };
        let waker = match reads {
            true => &mut stream.reader,
            false => &mut stream.writer,
        };
        match waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
        stream.broken
    }

    /// Breaks both ends of all streams of a node, if there are any.
    pub(crate) fn reset(&self, node: usize, fault: usize) {
        let mut state = self.lock();
        let mut wakers = Vec::new();
        for stream in state.streams.values_mut() {
            if (stream.node == node || stream.peer == node) && !stream.broken {
                stream.broken = true;
                wakers.extend(stream.reader.take());
                wakers.extend(stream.writer.take());
            }
        }
        if !wakers.is_empty() {
            state.fire(fault);
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The disk of a node, as it was left, or a new one.
    pub(crate) fn disk<T: Default + Send + 'static>(&self, node: usize) -> Arc<Mutex<T>> {
        let mut state = self.lock();
        let disk = state.nodes[node]
            .disks
            .entry(TypeId::of::<T>())
            .or_insert_with(|| Box::new(Arc::new(Mutex::new(T::default()))));
        let disk: &Arc<Mutex<T>> = disk.downcast_ref().expect("found by its type");
        Arc::clone(disk)
    }

    pub(crate) fn lose_disks(&self, node: usize) {
        let mut state = self.lock();
        state.nodes[node].disks.clear();
        state.nodes[node].files.clear();
    }

    /// A file of a node, as it was left, or a new one.
    pub(crate) fn file(&self, node: usize, name: &str) -> Arc<Mutex<Contents>> {
        let mut state = self.lock();
        let files = &mut state.nodes[node].files;
        Arc::clone(files.entry(name.to_owned()).or_default())
    }

    /// Whether a node still runs what it was started with after so many crashes.
    pub(crate) fn is_alive(&self, node: usize, incarnation: u64) -> bool {
        self.lock().is_alive(node, incarnation)
    }

    /// How the next operation on a file goes: how long it takes, whether it fails, and whether it
    /// has an effect. None when the node was killed.
    pub(crate) fn file_access(
        &self,
        node: usize,
        incarnation: u64,
        syncs: bool,
    ) -> Option<(Duration, bool, bool)> {
        if !self.is_alive(node, incarnation) {
            return None;
        }
        if syncs {
            let (takes, fails) = match self.access(node) {
                Access::Works(takes) => (takes, false),
                Access::Fails(takes) => (takes, true),
            };
            let in_effect = !fails || Random::new(self.random(node)).one_in(2);
            return Some((takes, fails, in_effect));
        }
        let mut state = self.lock();
        let failing = state.nodes[node].failing.first().copied();
        // In every other such fault the memory of the system takes what is read and written, and only
        // syncs fail.
        let failing = failing.filter(|fault| fault % 2 == 0);
        if let Some(fault) = failing {
            state.fire(fault);
        }
        let random = &mut state.nodes[node].random;
        let fails = failing.is_some();
        let in_effect = !fails || random.one_in(2);
        // To and from the memory of the system.
        Some((random.micros(2..=40), fails, in_effect))
    }

    /// A sync, which shows where two runs of a seed differ in what they write.
    pub(crate) fn note_sync(&self, node: usize, length: u64, works: bool) {
        let numbers = [node as u64, length, u64::from(works)];
        let now = now();
        self.lock().trace.add(now, &numbers, || {
            let fails = if works { "" } else { ", which fails" };
            format!("{node}: sync of a file of {length} bytes{fails}")
        });
    }

    /// A node was killed, or has lost its power.
    pub(crate) fn crash_files(&self, node: usize, at: Duration, power: bool) {
        let mut state = self.lock();
        let files: Vec<_> = state.nodes[node].files.values().map(Arc::clone).collect();
        for file in files {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            if power {
                let random = Random::new(state.nodes[node].random.next());
                file.lose_power(at, random);
            } else {
                file.kill(at);
            }
            let length = file.len();
            state.trace.add_text(
                at,
                &format_args!("{node}: a file of {length} bytes is left"),
            );
        }
    }

    /// Whether one of these nodes has a file like that. None where they have no files.
    pub(crate) fn any_file(
        &self,
        nodes: std::ops::Range<usize>,
        mut is: impl FnMut(&mut Contents) -> bool,
    ) -> Option<bool> {
        let state = self.lock();
        let mut files = nodes.flat_map(|node| state.nodes[node].files.values());
        let mut found = None;
        files.any(|file| {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            *found.insert(is(&mut file))
        });
        found
    }

    /// From now on the files do nothing any more.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
    }

    pub(crate) fn slow_disk(&self, node: usize, fault: usize, begins: bool) {
        set(&mut self.lock().nodes[node].slow, fault, begins);
    }

    pub(crate) fn failing_disk(&self, node: usize, fault: usize, begins: bool) {
        set(&mut self.lock().nodes[node].failing, fault, begins);
    }

    /// How the next access to a node's disk goes.
    pub(crate) fn access(&self, node: usize) -> Access {
        let mut state = self.lock();
        let slow = state.nodes[node].slow.first().copied();
        if let Some(fault) = slow {
            state.fire(fault);
        }
        let random = &mut state.nodes[node].random;
        let range = match slow {
            Some(_) => 50_000..=500_000,
            // Now and then an access waits for others.
            None if random.one_in(4) => 10_000..=80_000,
            None => 100..=8_000,
        };
        let takes = random.micros(range);
        match state.nodes[node].failing.first().copied() {
            Some(fault) => {
                state.fire(fault);
                Access::Fails(takes)
            }
            None => Access::Works(takes),
        }
    }

    pub(crate) fn random(&self, node: usize) -> u64 {
        self.lock().nodes[node].random.next()
    }

    /// A number that the run has not had yet.
    pub(crate) fn next_value(&self) -> u64 {
        let mut state = self.lock();
        state.value += 1;
        state.value
    }

    /// The first one counts.
    pub(crate) fn tell(&self, violation: Violation) {
        self.lock().told.get_or_insert(violation);
    }
}

impl State {
    fn is_alive(&self, node: usize, incarnation: u64) -> bool {
        let node = &self.nodes[node];
        !self.ended && !node.dying && node.incarnation == incarnation + 1
    }

    /// A fault has an effect.
    pub(crate) fn fire(&mut self, fault: usize) {
        if !std::mem::replace(&mut self.fired[fault], true) {
            let now = now();
            self.trace.add(now, &[fault as u64], || {
                format!("fault {fault} has an effect")
            });
        }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}

/// The time since the beginning of the run. Zero between the steps of the simulation.
pub(crate) fn now() -> Duration {
    if turmoil::in_simulation() {
        turmoil::sim_elapsed().unwrap_or_default()
    } else {
        Duration::ZERO
    }
}

fn set(faults: &mut Vec<usize>, fault: usize, begins: bool) {
    if begins {
        faults.push(fault);
    } else {
        faults.retain(|known| *known != fault);
    }
}
