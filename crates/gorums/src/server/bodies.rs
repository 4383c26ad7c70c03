//! The bytes of requests and of answers, as `h2` hands them out and takes them.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
#[cfg(feature = "tower")]
use http_body::Frame;

use crate::runtime::Clock;

/// The next bytes of a body, as many of which may be sent anew from now on. None behind the last.
pub(super) fn poll_data(
    recv: &mut RecvStream,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Bytes, h2::Error>>> {
    let data = ready!(recv.poll_data(cx));
    if let Some(Ok(data)) = &data {
        // It fails where the stream has ended, and then there is nobody to let go on.
        let _ = recv.flow_control().release_capacity(data.len());
    }
    Poll::Ready(data)
}

/// The next frame of a body: its bytes, and behind them the trailers. Whether all of the bytes were
/// read is to be kept between two calls.
#[cfg(feature = "tower")]
pub(super) fn poll_frame(
    recv: &mut RecvStream,
    is_read: &mut bool,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
    if !*is_read {
        if let Some(data) = ready!(poll_data(recv, cx)) {
            return Poll::Ready(Some(data.map(Frame::data)));
        }
        *is_read = true;
    }
    let trailers = ready!(recv.poll_trailers(cx));
    Poll::Ready(
        trailers
            .map(|trailers| trailers.map(Frame::trailers))
            .transpose(),
    )
}

/// Writes bytes as far as flow control lets it, each part as what this makes of it. Ready with false
/// where nobody reads them.
pub(super) fn poll_send<B: Buf>(
    send: &mut SendStream<B>,
    bytes: &mut Bytes,
    part: impl Fn(Bytes) -> B,
    cx: &mut Context<'_>,
) -> Poll<bool> {
    while !bytes.is_empty() {
        send.reserve_capacity(bytes.len());
        let capacity = send.capacity();
        if capacity == 0 {
            match ready!(send.poll_capacity(cx)) {
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => return Poll::Ready(false),
            }
        }
        let next = bytes.split_to(capacity.min(bytes.len()));
        if send.send_data(part(next), false).is_err() {
            return Poll::Ready(false);
        }
    }
    Poll::Ready(true)
}

/// What follows in a request of which no more is wanted. It is read and thrown away, so that nothing
/// gathers, and so that the stream is not let go of before its end: such a one is reset, and `h2` ends
/// a connection on which frames of many such streams come.
pub(super) struct Rest {
    recv: RecvStream,
    is_over: bool,
}

impl Rest {
    pub(super) fn of(recv: RecvStream) -> Self {
        Self {
            is_over: recv.is_end_stream(),
            recv,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Reads what has come.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.is_over {
            let data = ready!(poll_data(&mut self.recv, cx));
            self.is_over = !matches!(data, Some(Ok(_)));
        }
        Poll::Ready(())
    }

    /// Reads to the end, for no longer than this.
    pub(super) async fn read(mut self, clock: &dyn Clock, patience: Duration) {
        if self.is_over {
            return;
        }
        let late = clock.sleep_until(clock.now() + patience);
        tokio::select! {
            biased;
            () = poll_fn(|cx| self.poll(cx)) => {}
            () = late => {}
        }
    }
}
