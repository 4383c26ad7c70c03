use crate::stream::Served;
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

    /// From now on, for connections that are made.
    pub(crate) fn set(&self, served: Served) {
        *self.0.lock() = Some(served);
    }
}
