//! The bytes: the envelope around every message, gRPC's length prefix, the batches that become DATA
//! frames, and the HTTP/2 settings and headers of a Gorums stream.
//!
//! Nothing here knows calls, nodes or handlers.

mod batch;
mod credit;
mod decode;
mod encode;
mod envelope;
mod frames;
mod headers;
mod instance;
mod method_kind;
#[cfg(test)]
mod page;
mod session;
mod side;
mod unacknowledged;

pub(crate) use batch::{BATCH_BYTES, Batch, BatchBuilder, BatchSlot};
pub(crate) use credit::{FIRST_CREDIT, NO_BOUND, reply_cost};
#[cfg(test)]
pub(crate) use decode::MAX_DETAILS;
pub(crate) use decode::{peek_id, plain};
pub(crate) use encode::{
    Added, encode_control, encode_credit, encode_message, encode_received, encode_reply,
    encode_status, start_with,
};
pub(crate) use envelope::{Control, Envelope, SERVER_INITIATED};
pub(crate) use frames::{Decoder, Frame};
#[cfg(feature = "tower")]
pub(crate) use headers::remove_headers_of_connection;
pub(crate) use headers::{
    Features, H2Settings, check_response_head, grpc_head, grpc_timeout, http_code, is_grpc,
    is_turned_away, is_unprocessed, request_head, response_head, speaks_grpc, stream_ended,
    trailers, trailers_only, trailers_status,
};
pub(crate) use instance::Instance;
pub(crate) use method_kind::MethodKind;
pub(crate) use session::{ClientId, SessionAnswer, SessionId, SessionRequest};
pub(crate) use side::Side;
pub(crate) use unacknowledged::Unacknowledged;

/// The path of the stream that carries everything.
pub(crate) const PATH: &str = "/stream.Gorums/NodeStream";

/// The bytes before each message: a flag and the length.
pub(crate) const PREFIX: usize = 5;

/// The header by which a client says that it can be called back, and as whom.
pub(crate) const NODE_ID: &str = "gorums-node-id";

/// The header by which a client says which node it wants to reach, where its id is the same to all.
pub(crate) const TO: &str = "gorums-to";
