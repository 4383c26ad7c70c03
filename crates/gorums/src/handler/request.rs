//! A request on its way to its handler.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use tokio::time::Instant;

use super::registry::{Entry, Registry};
use super::shedding::Needed;
use crate::error::Status;
use crate::metadata::Metadata;
use crate::wire::{Envelope, Features, MethodKind};

/// What a waiting request costs beside its bytes.
const OVERHEAD: usize = 256;

/// What an entry of metadata costs beside its bytes.
const ENTRY: usize = 64;

/// The method of a request.
pub(crate) enum Called {
    Method(Arc<Entry>),
    /// Nobody registered a method of this name.
    Unknown(Arc<str>),
}

impl Called {
    /// Whether nobody waits for an answer.
    #[inline]
    pub(crate) fn is_one_way(&self) -> bool {
        matches!(self, Self::Method(entry) if entry.kind == MethodKind::OneWay)
    }

    #[inline]
    pub(crate) fn name(&self) -> &Arc<str> {
        match self {
            Self::Method(entry) => &entry.name,
            Self::Unknown(name) => name,
        }
    }

    #[inline]
    pub(crate) fn entry(&self) -> Option<&Arc<Entry>> {
        match self {
            Self::Method(entry) => Some(entry),
            Self::Unknown(_) => None,
        }
    }
}

/// A request that was read and whose handler has not started.
pub(crate) struct Request {
    pub(crate) id: u64,
    pub(crate) called: Called,
    pub(crate) metadata: Metadata,
    pub(crate) payload: Bytes,
    /// The bytes that it came in, and what was made of them.
    pub(crate) size: usize,
    /// When its caller stops to wait, by the clock of this end, if that is known.
    pub(crate) deadline: Option<Instant>,
    /// Whether its caller has sent it before, on a stream that broke.
    pub(crate) is_resent: bool,
    /// When it began to wait for its turn, where the server sheds what waits too long.
    pub(crate) arrived: Option<Instant>,
}

/// Leaves only the last bytes, which are so many. Of an empty payload nothing is kept, as its frame
/// may be part of a large chunk.
#[inline]
pub(crate) fn keep_last(frame: &mut Bytes, count: usize) {
    match count {
        0 => *frame = Bytes::new(),
        _ => frame.advance(frame.len() - count),
    }
}

impl Request {
    /// Takes the request out of its message. The method of the last one is likely to be this one's,
    /// too.
    ///
    /// # Errors
    /// The message has more than a request may have.
    pub(crate) fn read(
        envelope: &Envelope<'_>,
        frame: &Bytes,
        registry: &Registry,
        last: Option<&Arc<Entry>>,
    ) -> Result<Self, Status> {
        if let Some(excess) = &envelope.excess {
            return Err(Status::resource_exhausted(format!(
                "the request has {excess}"
            )));
        }
        let entry = last
            .filter(|last| *last.name == *envelope.method)
            .or_else(|| registry.get(envelope.method));
        // The name of a method that nobody registered is copied.
        let (called, name) = match entry {
            Some(entry) => (Called::Method(Arc::clone(entry)), 0),
            None => (
                Called::Unknown(envelope.method.into()),
                envelope.method.len(),
            ),
        };
        Ok(Self {
            id: envelope.id,
            called,
            // A request that waits keeps its whole frame, whatever is in it.
            size: frame.len() + name + ENTRY * envelope.metadata.len(),
            metadata: envelope.metadata(),
            payload: frame.slice_ref(envelope.payload),
            deadline: None,
            is_resent: envelope.is_resent,
            arrived: None,
        })
    }

    /// The same for a message that has nothing but an id, the name of this method and, as its last
    /// bytes, a payload.
    #[inline]
    pub(crate) fn plain(id: u64, entry: Arc<Entry>, payload: usize, mut frame: Bytes) -> Self {
        let size = frame.len();
        keep_last(&mut frame, payload);
        Self {
            id,
            called: Called::Method(entry),
            metadata: Metadata::new(),
            payload: frame,
            size,
            deadline: None,
            is_resent: false,
            arrived: None,
        }
    }

    /// Whether its method has any number of replies, of which its caller wants to have some.
    pub(super) fn is_streamed(&self, features: &Features) -> bool {
        let is_streamed = |entry: &Arc<Entry>| entry.kind == MethodKind::Streamed;
        self.called.entry().is_some_and(is_streamed)
            && !(features.kind && MethodKind::OneWay.is_of(self.id))
    }

    /// Whether the handler answers as the caller expects, as far as the caller says so. A caller
    /// that expects no answer is served: it drops what comes.
    #[inline]
    pub(super) fn is_as_expected(&self, features: &Features) -> bool {
        !features.kind
            || self
                .called
                .entry()
                .is_none_or(|entry| entry.kind.is_of(self.id) || MethodKind::OneWay.is_of(self.id))
    }

    /// Has the request refused in its turn, as its caller would wait for ever.
    #[cold]
    pub(super) fn refuse_kind(&mut self) {
        let (Called::Method(entry), Some(expected)) = (&self.called, MethodKind::of_id(self.id))
        else {
            return;
        };
        let status = Status::unimplemented(format!(
            "{} has {} at this node, and its caller expects {}: their versions of the service \
             differ",
            entry.name,
            entry.kind.answer(),
            expected.answer()
        ));
        self.called = Called::Method(Arc::new(Entry {
            name: Arc::clone(&entry.name),
            kind: MethodKind::TwoWay,
            handler: Box::new(move |_| std::future::ready(Err(status.clone()))),
            max_decoding: entry.max_decoding,
            max_encoding: entry.max_encoding,
            priority: entry.priority,
            needed: Needed::default(),
        }));
    }

    pub(crate) fn cost(&self) -> usize {
        OVERHEAD + self.size
    }
}
