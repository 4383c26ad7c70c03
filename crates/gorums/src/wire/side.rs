use super::SERVER_INITIATED;

/// Which end of a stream this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// It opened the stream.
    Client,
    /// It accepted the stream, and calls back.
    Server,
}

impl Side {
    /// The id of a call as the message has it: it tells which end made the call.
    pub(crate) fn id_on_the_wire(self, id: u64) -> u64 {
        match self {
            Self::Client => id,
            Self::Server => id | SERVER_INITIATED,
        }
    }
}
