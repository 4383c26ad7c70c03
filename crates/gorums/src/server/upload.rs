//! The request of a mounted server's client, on its way to the server.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use h2::{Reason, SendStream};
use http::HeaderMap;
use http_body::Body;
use tokio::sync::oneshot;

use super::bodies::poll_send;
use crate::runtime::{BoxFuture, Clock};

/// Bytes of a request while `h2` has them.
#[derive(Default)]
pub(super) struct Chunk {
    bytes: Bytes,
    /// Dropped when they are written.
    #[expect(dead_code, reason = "it is counted")]
    unwritten: Option<Arc<()>>,
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

/// Hands a request on as there is room for it.
pub(super) struct Upload<B> {
    body: Pin<Box<B>>,
    send: SendStream<Chunk>,
    /// What was taken from the body and waits for room.
    waiting: Bytes,
    /// As many of these as `h2` has chunks, and one.
    unwritten: Arc<()>,
}

/// How the reading of a request ends.
enum End {
    /// All was handed on, or the server takes no more.
    Done,
    /// The client has gone, or nobody reads what it is answered.
    Gone,
}

impl<B: Body> Upload<B> {
    pub(super) fn new(body: B, send: SendStream<Chunk>) -> Self {
        Self {
            body: Box::pin(body),
            send,
            waiting: Bytes::new(),
            unwritten: Arc::default(),
        }
    }

    /// Hands on all of the request, as long as somebody is to read the response, and for as long as
    /// `patience` at most after that: where the response has ended, until the request has, too, since
    /// whoever lets go of a request before its end resets its stream; where nobody reads it, what has
    /// come already, since one-way messages are handled though their client has gone.
    ///
    /// It is polled by the task that drives the connection, and after that.
    pub(super) async fn run(
        mut self,
        mut reader: oneshot::Receiver<()>,
        clock: Arc<dyn Clock>,
        patience: Duration,
    ) {
        let mut late: Option<BoxFuture<'static, ()>> = None;
        let mut is_answered = false;
        let end = poll_fn(|cx| {
            if let Poll::Ready(end) = self.poll_hand_on(cx) {
                return Poll::Ready(end);
            }
            if late.is_none()
                && let Poll::Ready(end) = Pin::new(&mut reader).poll(cx)
            {
                is_answered = end.is_ok();
                late = Some(clock.sleep_until(clock.now() + patience));
            }
            let Some(late) = &mut late else {
                return Poll::Pending;
            };
            // More may come, but has not.
            let is_all = !is_answered && self.waiting.is_empty();
            if is_all || late.as_mut().poll(cx).is_ready() {
                return Poll::Ready(End::Gone);
            }
            Poll::Pending
        });
        if matches!(end.await, End::Done) {
            return;
        }
        // A reset overtakes what `h2` still has.
        poll_fn(|_| match Arc::strong_count(&self.unwritten) {
            1 => Poll::Ready(()),
            _ => Poll::Pending,
        })
        .await;
        self.send.send_reset(Reason::CANCEL);
    }

    fn poll_hand_on(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            if self.send.poll_reset(cx).is_ready() {
                return Poll::Ready(End::Done);
            }
            if !self.waiting.is_empty() {
                if !ready!(self.poll_send(cx)) {
                    return Poll::Ready(End::Done);
                }
                continue;
            }
            match ready!(self.body.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(mut data) => self.waiting = data.copy_to_bytes(data.remaining()),
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            self.end(Some(trailers));
                            return Poll::Ready(End::Done);
                        }
                    }
                },
                Some(Err(_)) => return Poll::Ready(End::Gone),
                None => {
                    self.end(None);
                    return Poll::Ready(End::Done);
                }
            }
        }
    }

    /// Sends what waits, as there is room for it. False where the server takes no more.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let chunk = |bytes| Chunk {
            bytes,
            unwritten: Some(Arc::clone(&self.unwritten)),
        };
        poll_send(&mut self.send, &mut self.waiting, chunk, cx)
    }

    /// Where the server has gone meanwhile, there is nobody to tell.
    fn end(&mut self, trailers: Option<HeaderMap>) {
        let _ = match trailers {
            Some(trailers) => self.send.send_trailers(trailers),
            None => self.send.send_data(Chunk::default(), true),
        };
    }
}
