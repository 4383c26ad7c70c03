use std::sync::Arc;

use crate::bounds::Counts;
use crate::stream::{Served, Source};
use crate::sync::Mutex;

/// Who serves what the nodes of a pool ask of this process.
#[derive(Default)]
pub(crate) struct Serving(Mutex<Option<Served>>);

impl Serving {
    pub(crate) fn new(served: Option<Served>) -> Self {
        Self(Mutex::new(served))
    }

    /// Who does at present, if anybody.
    pub(crate) fn get(&self) -> Option<Served> {
        self.0.lock().clone()
    }

    /// How often the bounds of handlers were reached that are this client's alone: a server counts by
    /// itself.
    pub(crate) fn reached(&self) -> Option<Arc<Counts>> {
        match &self.0.lock().as_ref()?.source {
            Source::Held(services) => Some(Arc::clone(services.lane.reached())),
            Source::OfServer(_) => None,
        }
    }

    /// From now on, for connections that are made.
    pub(crate) fn set(&self, served: Served) {
        *self.0.lock() = Some(served);
    }
}
