//! What a mounted server answers, as a body of HTTP.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http_body::Frame;
use tokio::sync::oneshot;

use super::bodies::poll_frame;
use crate::error::Code;
use crate::stream::h2_status;
use crate::wire::trailers;

/// The body of what a [`GorumsService`](crate::tower::GorumsService) answers: the messages of gRPC, and the
/// trailers behind them. Dropping it before its end tells the server that nobody waits any more.
pub struct ResponseBody {
    /// None at its end.
    left: Option<Left>,
}

/// Held by whoever is to read the response, and told its end. Dropped without that, nobody reads it.
pub(super) type Reader = oneshot::Sender<()>;

/// What is still to be read.
struct Left {
    recv: RecvStream,
    /// Nothing but the trailers is.
    are_messages_read: bool,
    reader: Reader,
}

impl ResponseBody {
    /// Of a response that is its head alone.
    pub(super) fn empty() -> Self {
        Self { left: None }
    }

    pub(super) fn new(recv: RecvStream, reader: Reader) -> Self {
        Self {
            left: Some(Left {
                recv,
                are_messages_read: false,
                reader,
            }),
        }
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = ResponseError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        let Some(left) = &mut self.left else {
            return Poll::Ready(None);
        };
        let frame = ready!(poll_frame(&mut left.recv, &mut left.are_messages_read, cx));
        if !matches!(&frame, Some(Ok(frame)) if frame.is_data()) {
            let left = self.left.take();
            if let (Some(left), None | Some(Ok(_))) = (left, &frame) {
                // Where the request is no longer handed on, nobody wants to know.
                let _ = left.reader.send(());
            }
        }
        Poll::Ready(frame.map(|frame| frame.or_else(end)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.left {
            Some(left) => !left.are_messages_read && left.recv.is_end_stream(),
            None => true,
        }
    }
}

/// How the response ends after this. Where the server has reset the stream it said why; where it has
/// gone, nobody does.
fn end(error: h2::Error) -> Result<Frame<Bytes>, ResponseError> {
    if error.is_reset() {
        return Err(ResponseError(error));
    }
    let text = format!(
        "the server has stopped, or has ended this request: {}",
        h2_status(&error).message()
    );
    Ok(Frame::trailers(trailers(Code::Unavailable, &text)))
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody")
            .field("is_over", &self.left.is_none())
            .finish()
    }
}

/// The server has reset the stream of a response. Its source is `h2`'s error, by which hyper gives
/// the client the same reason.
#[derive(Debug)]
pub struct ResponseError(h2::Error);

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the response was cut off: {}", self.0)
    }
}

impl std::error::Error for ResponseError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}
