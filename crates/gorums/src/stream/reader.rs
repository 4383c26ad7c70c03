use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::bounds::Bound;
use crate::error::{Status, excerpt};
use crate::handler::{Called, Entry, Request, Services, Waiting};
use crate::wire::{Control, Decoder, Envelope, Frame, SERVER_INITIATED, peek_id, plain};

/// What a message of the peer asks this end to do.
pub(crate) enum Event<'a> {
    /// Run a handler. The caller waits for so many microseconds more, or has no deadline with 0.
    Request { request: Request, time_left: u64 },
    /// Give this to the call that waits for it.
    Reply { id: u64, envelope: Envelope<'a> },
    /// Tell the call that its reply was too large to be read.
    Oversized { id: u64, status: Status },
    /// Tell the handler of this request that its caller gave up.
    Cancel { id: u64 },
    /// Tell the handler of this request how much more its caller takes.
    Credit { id: u64, bytes: u64 },
    /// Answer this request, which no handler gets.
    Refuse {
        id: u64,
        method: &'a str,
        status: Status,
        /// The bound that it is for, if any.
        bound: Option<Bound>,
    },
    /// Write no more requests, and say so.
    GoAway,
    /// Take no more requests: none follows.
    NoneFollow,
    /// The peer has so many messages of the session.
    Received { messages: u64 },
    /// Nothing: this version does not know the message, or nobody needs it any more.
    Nothing,
    /// Nothing: this version does not know what is said about the stream.
    Unknown,
}

impl Event<'_> {
    /// Whether it is a reply to a call of this end. None where it is about the stream, and no message of
    /// a session.
    #[inline]
    pub(super) fn is_reply(&self) -> Option<bool> {
        match self {
            Self::Reply { .. } | Self::Oversized { .. } => Some(true),
            Self::Request { .. }
            | Self::Cancel { .. }
            | Self::Credit { .. }
            | Self::Refuse { .. }
            | Self::Nothing => Some(false),
            Self::GoAway | Self::NoneFollow | Self::Received { .. } | Self::Unknown => None,
        }
    }
}

/// Almost every message: one that has an id, a method, and a payload as its last bytes, which are so
/// many, and nothing else.
pub(crate) enum Plain<'a> {
    /// Run the handler of the likely method.
    Request {
        id: u64,
        entry: Arc<Entry>,
        payload: usize,
    },
    /// Give the payload to the call that waits for it.
    Reply {
        id: u64,
        method: &'a str,
        payload: usize,
    },
}

/// Which messages of the peer answer calls of this end. The highest bit of an id tells which end
/// made the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replies {
    /// This end opened the stream: its calls have the bit clear.
    WithoutBit,
    /// This end accepted the stream, and the peer answers calls: those have the bit set.
    WithBit,
    /// The peer answers no calls, whatever its ids are.
    Never,
}

/// Who handles the requests of the peer.
#[derive(Clone, Copy)]
pub(crate) enum Handlers<'a> {
    These(&'a Services),
    /// Nobody ever did.
    Nobody,
    /// The server of this process has stopped.
    Stopped,
    /// No further request is taken: the stream winds down.
    Closed,
}

impl<'a> Handlers<'a> {
    #[inline]
    pub(crate) fn services(self) -> Option<&'a Services> {
        match self {
            Self::These(services) => Some(services),
            Self::Nobody | Self::Stopped | Self::Closed => None,
        }
    }
}

/// The method that the next message is likely to have: text that is known need not be checked.
#[derive(Default)]
pub(crate) enum Likely {
    #[default]
    Unknown,
    /// That of the last reply, where replies come.
    OfReply(&'static str),
    /// That of the last request.
    OfRequest(Arc<Entry>),
}

impl Likely {
    #[inline]
    fn name(&self) -> &str {
        match self {
            Self::Unknown => "",
            Self::OfReply(name) => name,
            Self::OfRequest(entry) => &entry.name,
        }
    }

    #[inline]
    fn entry(&self) -> Option<&Arc<Entry>> {
        match self {
            Self::OfRequest(entry) => Some(entry),
            Self::Unknown | Self::OfReply(_) => None,
        }
    }

    /// A request has come.
    #[inline]
    pub(crate) fn note_request(&mut self, request: &Request) {
        if let Called::Method(entry) = &request.called
            && !self.entry().is_some_and(|last| Arc::ptr_eq(last, entry))
        {
            *self = Self::OfRequest(Arc::clone(entry));
        }
    }

    /// A reply has come to a call of this method.
    #[inline]
    pub(crate) fn note_reply(&mut self, method: &'static str) {
        *self = Self::OfReply(method);
    }
}

/// Takes the messages of one peer out of the bytes of its stream, and says what each is for. It
/// knows no socket, no clock and no queue.
#[derive(Debug)]
pub(crate) struct Reader {
    decoder: Decoder,
    replies: Replies,
    limit: Limit,
}

/// How large a message may be that is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    /// What the setting says.
    pub(crate) bytes: usize,
    /// What there may be besides, where the setting is about payloads alone.
    pub(crate) envelope: usize,
    /// The setting that the limit comes from, by which a user changes it.
    pub(crate) setting: &'static str,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            bytes,
            envelope,
            setting,
        } = self;
        match envelope {
            0 => write!(f, "{bytes} bytes ({setting})"),
            _ => write!(
                f,
                "{bytes} bytes and {envelope} for its envelope ({setting})"
            ),
        }
    }
}

impl Reader {
    pub(crate) fn new(replies: Replies, limit: Limit) -> Self {
        Self {
            decoder: Decoder::new(limit.bytes.saturating_add(limit.envelope)),
            replies,
            limit,
        }
    }

    /// Whether this end has opened the stream.
    #[inline]
    pub(crate) fn has_opened(&self) -> bool {
        self.replies == Replies::WithoutBit
    }

    /// Takes the next chunk. All messages of the previous one have been taken out.
    #[inline]
    pub(crate) fn push(&mut self, chunk: Bytes) {
        self.decoder.push(chunk);
    }

    /// The next message; none before the next chunk. After an error the stream cannot be read.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, Status> {
        self.decoder.next()
    }

    /// Whether the stream could end here without cutting a message.
    pub(crate) fn is_between_messages(&self) -> bool {
        self.decoder.is_between_messages()
    }

    /// How much there is of a message that is not complete.
    pub(crate) fn partial_bytes(&self) -> usize {
        self.decoder.partial_bytes()
    }

    /// Reads no more: a message that is not complete never will be.
    pub(crate) fn close(&mut self) {
        self.decoder = Decoder::new(0);
    }

    /// What a message is for that is plain. For any other, and for requests that may be refused, see
    /// [`interpret`](Self::interpret).
    #[inline]
    pub(crate) fn plain<'a>(
        &self,
        bytes: &'a Bytes,
        handlers: Handlers<'_>,
        likely: &'a Likely,
        waiting: Waiting,
    ) -> Option<Plain<'a>> {
        let (id, method, payload) = plain(bytes, likely.name())?;
        let payload = payload.len();
        if let Some(id) = self.call_of(id) {
            return Some(Plain::Reply {
                id,
                method,
                payload,
            });
        }
        let (Handlers::These(services), Some(entry)) = (handlers, likely.entry()) else {
            return None;
        };
        let is_taken =
            std::ptr::eq(method, &*entry.name) && services.too_many_wait(waiting).is_none();
        is_taken.then(|| Plain::Request {
            id,
            entry: Arc::clone(entry),
            payload,
        })
    }

    /// What a message is for. `waiting` is what the requests cost that wait already. After an error
    /// the stream cannot be read.
    pub(crate) fn interpret<'a>(
        &self,
        frame: &'a Frame,
        handlers: Handlers<'_>,
        likely: &'a Likely,
        waiting: Waiting,
    ) -> Result<Event<'a>, Status> {
        let bytes = match frame {
            Frame::Message(bytes) => bytes,
            Frame::Oversized { head, len } => return self.oversized(head, *len, handlers),
        };
        let envelope = Envelope::decode_like(bytes, likely.name()).map_err(|error| {
            Status::internal(format!("a malformed message from the peer: {error}"))
        })?;
        let id = envelope.id;
        // These are about no call, whatever their id is.
        match envelope.control {
            Control::GoingAway => return Ok(Event::GoAway),
            Control::NoneFollow => return Ok(Event::NoneFollow),
            Control::Unknown if id == 0 => return Ok(Event::Unknown),
            Control::Received => {
                return Ok(Event::Received {
                    messages: envelope.credit,
                });
            }
            _ => {}
        }
        if let Some(id) = self.call_of(id) {
            return Ok(Event::Reply { id, envelope });
        }
        match envelope.control {
            Control::Message => {}
            Control::Cancel => return Ok(Event::Cancel { id }),
            Control::Credit => {
                return Ok(Event::Credit {
                    id,
                    bytes: envelope.credit,
                });
            }
            Control::End
            | Control::GoingAway
            | Control::NoneFollow
            | Control::Received
            | Control::Unknown => return Ok(Event::Nothing),
        }
        let refuse = |status, bound| Event::Refuse {
            id,
            method: envelope.method,
            status,
            bound,
        };
        let services = match handlers {
            Handlers::These(services) => services,
            Handlers::Closed => return Ok(Event::Nothing),
            Handlers::Stopped => {
                let status = Status::unavailable("the server of this process has stopped");
                return Ok(refuse(status, None));
            }
            Handlers::Nobody => {
                let status = Status::unimplemented(format!(
                    "no handler registered for method {}",
                    excerpt(envelope.method)
                ));
                return Ok(refuse(status, None));
            }
        };
        if let Some(status) = services.too_many_wait(waiting) {
            return Ok(refuse(status, Some(Bound::WaitingRefused)));
        }
        match Request::read(&envelope, bytes, &services.registry, likely.entry()) {
            Ok(request) => Ok(Event::Request {
                request,
                time_left: envelope.time_left,
            }),
            Err(status) => Ok(refuse(status, Some(Bound::RequestReceived))),
        }
    }

    /// The call that a message with this id answers.
    #[inline]
    fn call_of(&self, id: u64) -> Option<u64> {
        let has_bit = id & SERVER_INITIATED != 0;
        match self.replies {
            Replies::WithoutBit => (!has_bit).then_some(id),
            Replies::WithBit => has_bit.then_some(id & !SERVER_INITIATED),
            Replies::Never => None,
        }
    }

    /// A message above the limit, of which these are the first bytes.
    fn oversized<'a>(
        &self,
        head: &'a [u8],
        len: usize,
        handlers: Handlers<'_>,
    ) -> Result<Event<'a>, Status> {
        let status = Status::resource_exhausted(format!(
            "a message of {len} bytes exceeds the limit of {}",
            self.limit
        ));
        let Some((id, method)) = peek_id(head) else {
            return Err(status);
        };
        Ok(match (self.call_of(id), handlers) {
            (Some(id), _) => Event::Oversized { id, status },
            (None, Handlers::Closed) => Event::Nothing,
            (None, _) => Event::Refuse {
                id,
                method,
                status,
                bound: Some(Bound::RequestReceived),
            },
        })
    }
}
