//! A request on its way to its handler.

use std::sync::Arc;

use bytes::Bytes;

use super::registry::{Entry, Registry};
use crate::error::Status;
use crate::metadata::Metadata;
use crate::wire::{Envelope, Features, MethodKind};

/// What a waiting request costs beside its bytes.
const OVERHEAD: usize = 256;

/// What an entry of metadata costs beside its bytes.
const ENTRY: usize = 64;

/// A request that was read and whose handler has not started.
pub(crate) struct Request {
    pub(crate) id: u64,
    /// None for a method that nobody registered.
    pub(crate) entry: Option<Arc<Entry>>,
    pub(crate) method: Arc<str>,
    pub(crate) metadata: Metadata,
    pub(crate) payload: Bytes,
    /// The bytes that it came in, and what was made of them.
    pub(crate) size: usize,
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
            .or_else(|| registry.get(envelope.method))
            .cloned();
        // The name of a method that nobody registered is copied.
        let name = match &entry {
            Some(_) => 0,
            None => envelope.method.len(),
        };
        Ok(Self {
            id: envelope.id,
            method: match &entry {
                Some(entry) => Arc::clone(&entry.name),
                None => envelope.method.into(),
            },
            entry,
            // A request that waits keeps its whole frame, whatever is in it.
            size: frame.len() + name + ENTRY * envelope.metadata.len(),
            metadata: envelope.metadata(),
            payload: frame.slice_ref(envelope.payload),
        })
    }

    /// The same for a message that has nothing but an id, the name of this method and a payload.
    #[inline]
    pub(crate) fn plain(id: u64, entry: &Arc<Entry>, payload: &[u8], frame: &Bytes) -> Self {
        Self {
            id,
            entry: Some(Arc::clone(entry)),
            method: Arc::clone(&entry.name),
            metadata: Metadata::new(),
            payload: frame.slice_ref(payload),
            size: frame.len(),
        }
    }

    /// Whether its method has any number of replies, of which its caller wants to have some.
    pub(super) fn is_streamed(&self, features: &Features) -> bool {
        let is_streamed = |entry: &Arc<Entry>| entry.kind == MethodKind::Streamed;
        self.entry.as_ref().is_some_and(is_streamed)
            && !(features.kind && MethodKind::OneWay.is_of(self.id))
    }

    /// Whether the handler answers as the caller expects, as far as the caller says so. A caller
    /// that expects no answer is served: it drops what comes.
    #[inline]
    pub(super) fn is_as_expected(&self, features: &Features) -> bool {
        !features.kind
            || self
                .entry
                .as_ref()
                .is_none_or(|entry| entry.kind.is_of(self.id) || MethodKind::OneWay.is_of(self.id))
    }

    /// Has the request refused in its turn, as its caller would wait for ever.
    #[cold]
    pub(super) fn refuse_kind(&mut self) {
        let (Some(entry), Some(expected)) = (&self.entry, MethodKind::of_id(self.id)) else {
            return;
        };
        let status = Status::unimplemented(format!(
            "{} has {} at this node, and its caller expects {}: their versions of the service \
             differ",
            entry.name,
            entry.kind.answer(),
            expected.answer()
        ));
        self.entry = Some(Arc::new(Entry {
            name: Arc::clone(&entry.name),
            kind: MethodKind::TwoWay,
            handler: Box::new(move |_| Box::pin(std::future::ready(Err(status.clone())))),
            max_decoding: entry.max_decoding,
            max_encoding: entry.max_encoding,
        }));
    }

    pub(crate) fn cost(&self) -> usize {
        OVERHEAD + self.size
    }
}
