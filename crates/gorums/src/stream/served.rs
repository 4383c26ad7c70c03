use std::ops::Deref;
use std::sync::{Arc, Weak};

use http::Extensions;

use crate::handler::Services;
use crate::wire::Instance;

/// Who serves what the peer of a stream asks of this end.
#[derive(Clone)]
pub(crate) struct Served {
    /// What this process is called by: 0 for a client that is nobody's node.
    pub(crate) node_id: u32,
    /// Which server this is, where peers share streams and so hear of it only here.
    pub(crate) instance: Option<Instance>,
    pub(crate) source: Source,
    /// What handlers find set on the connection.
    pub(crate) values: Extensions,
}

/// Where the handlers come from.
#[derive(Clone)]
pub(crate) enum Source {
    /// The stream holds them: they are a client's, or those of the server that accepted the stream.
    Held(Arc<Services>),
    /// They are the process' own server's, for as long as there is one. A stream to that very
    /// server would keep it alive if it held them.
    OfServer(Weak<Services>),
}

impl Served {
    /// The handlers, unless their server has stopped.
    #[inline]
    pub(crate) fn services(&self) -> Option<ServicesRef<'_>> {
        match &self.source {
            Source::Held(services) => Some(ServicesRef::Borrowed(services)),
            Source::OfServer(services) => services.upgrade().map(ServicesRef::Owned),
        }
    }
}

/// Handlers, borrowed where the stream holds them.
pub(crate) enum ServicesRef<'a> {
    Borrowed(&'a Services),
    Owned(Arc<Services>),
}

impl Deref for ServicesRef<'_> {
    type Target = Services;

    fn deref(&self) -> &Services {
        match self {
            Self::Borrowed(services) => services,
            Self::Owned(services) => services,
        }
    }
}
