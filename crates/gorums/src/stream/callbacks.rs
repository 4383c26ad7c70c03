//! A client's side of a stream: replies go to their calls, and what the node asks goes to a lane.

use std::sync::{Arc, Weak};
use std::task::Waker;

use http::Extensions;
use tokio::time::Instant;

use crate::channel::{Channel, deliver, skipped};
use crate::error::{Status, excerpt};
use crate::handler::{Answer, ConnectionInfo, Lane, ReplyQueue, Request, Services, Taken};
use crate::wire::{Control, Envelope, Incoming, SERVER_INITIATED, peek_id};

/// Who serves what the peer of a stream asks of the end that opened it.
#[derive(Clone)]
pub(crate) struct Served {
    /// What this process is called by: 0 for a client that is nobody's node.
    pub(crate) node_id: u32,
    pub(crate) handlers: Handlers,
    /// What handlers find set on the connection.
    pub(crate) values: Extensions,
}

#[derive(Clone)]
pub(crate) enum Handlers {
    /// Those that the client was given.
    OfClient(Arc<Services>),
    /// Those of the process' own server, for as long as there is one.
    OfServer(Weak<Services>),
}

impl Served {
    fn services(&self) -> Option<Arc<Services>> {
        match &self.handlers {
            Handlers::OfClient(services) => Some(Arc::clone(services)),
            Handlers::OfServer(services) => services.upgrade(),
        }
    }
}

/// What comes on one connection.
pub(crate) struct Callbacks {
    served: Option<Served>,
    /// Begins with the first request: most nodes never ask.
    open: Option<Open>,
    /// The method of the last call that had a reply.
    replied: &'static str,
}

struct Open {
    lane: Arc<Lane>,
    replies: Arc<ReplyQueue>,
    /// Read and not handed to the lane yet.
    requests: Vec<Request>,
    /// What these cost.
    read_bytes: usize,
    max_waiting_bytes: usize,
}

impl Open {
    fn waiting_bytes(&self) -> usize {
        self.lane.waiting_bytes() + self.read_bytes
    }
}

impl Callbacks {
    pub(crate) fn new(served: Option<Served>) -> Self {
        Self {
            served,
            open: None,
            replied: "",
        }
    }

    /// Answers that wait to be written.
    pub(crate) fn replies(&self) -> Option<&ReplyQueue> {
        self.open.as_ref().map(|open| &*open.replies)
    }

    /// Wakes the task when there are answers, or room.
    pub(crate) fn register(&self, waker: &Waker) {
        if let Some(open) = &self.open {
            open.replies.io().register(waker);
        }
    }

    /// Whether so many requests wait that no more are to be read. Then the lane wakes the task.
    pub(crate) fn is_full(&self, waker: &Waker) -> bool {
        let Some(open) = &self.open else {
            return false;
        };
        if open.waiting_bytes() < open.max_waiting_bytes {
            return false;
        }
        // The lane may have room by now, and wakes at once.
        open.replies.io().register(waker);
        open.lane.wake_when_below(open.max_waiting_bytes / 2);
        true
    }

    /// Gives a message to its call or to the lane. An error ends the connection.
    pub(crate) fn take(
        &mut self,
        channel: &Arc<Channel>,
        incoming: &Incoming,
        now: Instant,
    ) -> Result<(), Status> {
        let frame = match incoming {
            Incoming::Message(frame) => frame,
            Incoming::Oversized { head, len } => {
                let status = |what| {
                    Status::resource_exhausted(format!(
                        "{what} of {len} bytes exceeds the limit of {} \
                         (ConfigurationBuilder::max_decoding_message_size)",
                        channel.pool().settings.max_decoding_message_size
                    ))
                };
                let (id, method) = peek_id(head).ok_or_else(|| status("a message"))?;
                if id & SERVER_INITIATED == 0 {
                    skipped(channel, id, status("a reply"));
                    return Ok(());
                }
                return self.reject(channel, id, method, status("a request"));
            }
        };
        let envelope = Envelope::decode_like(frame, self.replied).map_err(|error| {
            Status::internal(format!("a malformed message from the peer: {error}"))
        })?;
        let id = envelope.id;
        if id & SERVER_INITIATED == 0 {
            if let Some(method) = deliver(channel, id, &envelope, frame, now) {
                self.replied = method;
            }
            return Ok(());
        }
        if envelope.control == Control::Cancel {
            self.hand_over();
            if let Some(open) = &self.open {
                open.lane.cancel(id);
            }
        }
        if envelope.control != Control::Message {
            return Ok(());
        }
        let Some(settings) = self.settings() else {
            let status = match self.served {
                Some(_) => Status::unavailable("the server of this process has stopped"),
                None => Status::unimplemented(format!(
                    "no handler registered for method {}",
                    excerpt(envelope.method)
                )),
            };
            return self.reject(channel, id, envelope.method, status);
        };
        let open = self.open(channel, &settings);
        if let Some(status) = settings.too_many_wait(open.waiting_bytes()) {
            return self.reject(channel, id, envelope.method, status);
        }
        match Request::read(&envelope, frame, &settings.registry, None) {
            Taken::Request(request) => {
                open.read_bytes += request.cost();
                open.requests.push(request);
                Ok(())
            }
            Taken::Refused(status) => self.reject(channel, id, envelope.method, status),
        }
    }

    /// The lane gets what was read.
    pub(crate) fn hand_over(&mut self) {
        if let Some(open) = &mut self.open {
            open.lane.push(&mut open.requests);
            open.read_bytes = 0;
        }
    }

    fn settings(&self) -> Option<Arc<Services>> {
        self.served.as_ref().and_then(Served::services)
    }

    fn open(&mut self, channel: &Channel, settings: &Arc<Services>) -> &mut Open {
        let served = &self.served;
        self.open.get_or_insert_with(|| {
            let replies = Arc::new(ReplyQueue::new(settings.max_reply_bytes));
            let info = ConnectionInfo {
                peer_id: Some(channel.id()),
                own: channel.door().is_some(),
                values: served
                    .as_ref()
                    .map(|served| served.values.clone())
                    .unwrap_or_default(),
                ..ConnectionInfo::default()
            };
            let (lane, task) = Lane::start(
                Arc::clone(&settings.lane),
                Arc::new(info),
                Arc::clone(&replies),
                channel.ends_streams(),
            );
            tokio::spawn(task);
            Open {
                lane,
                replies,
                requests: Vec::new(),
                read_bytes: 0,
                max_waiting_bytes: settings.max_waiting_bytes,
            }
        })
    }

    /// Answers a request that is not taken. One without an answer is not lost in silence: the
    /// connection ends. So it does where the node does not read the answers that it gets.
    fn reject(
        &mut self,
        channel: &Arc<Channel>,
        id: u64,
        method: &str,
        status: Status,
    ) -> Result<(), Status> {
        if let Some(settings) = self.settings() {
            let open = self.open(channel, &settings);
            if settings.registry.is_one_way(method) || open.replies.is_full() {
                return Err(status);
            }
            open.replies
                .push_unbounded(id, method, &Answer::Error(&status));
            return Ok(());
        }
        channel.refuse(id, method, &status)
    }
}

impl Drop for Callbacks {
    fn drop(&mut self) {
        self.hand_over();
        if let Some(open) = &self.open {
            open.lane.disconnect();
        }
    }
}
