use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::FirstBytes;
use crate::runtime::BoxIo;

/// How many reads of a connection come one after the other.
const READS: u32 = 8;

/// Lets other tasks run between reads. `h2` reads for as long as there is something to read, and a
/// peer that sends as fast as it can, frames that mean nothing perhaps, would have the thread to
/// itself for as long as tokio's own budget lasts. And what came is handled before more is read, so
/// little of it gathers within `h2`.
pub(crate) struct FairIo {
    io: BoxIo,
    left: u32,
    /// Told what is read until it has enough.
    first: Option<FirstBytes>,
}

impl FairIo {
    pub(crate) fn new(io: BoxIo) -> Self {
        Self {
            io,
            left: READS,
            first: None,
        }
    }

    /// One whose first bytes are remembered.
    pub(crate) fn remembering(io: BoxIo) -> (Self, FirstBytes) {
        let first = FirstBytes::default();
        let remembering = Self {
            first: Some(first.clone()),
            ..Self::new(io)
        };
        (remembering, first)
    }
}

impl AsyncRead for FairIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            self.left = READS;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let filled = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if let Some(first) = &self.first
            && !first.add(&buf.filled()[filled..])
        {
            self.first = None;
        }
        if read.is_pending() {
            self.left = READS;
        } else {
            self.left -= 1;
        }
        read
    }
}

impl AsyncWrite for FairIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sync::Woken;

    #[test]
    fn others_run_while_there_is_always_something_to_read() {
        let mut reader = FairIo::new(Box::new(endless()));
        let woken = Arc::new(Woken::default());
        let waker = woken.waker();
        let mut cx = Context::from_waker(&waker);
        for turn in 0..3 {
            for _ in 0..READS {
                let (mut byte, mut reader) = ([0], Pin::new(&mut reader));
                let read = reader
                    .as_mut()
                    .poll_read(&mut cx, &mut ReadBuf::new(&mut byte));
                assert!(read.is_ready());
            }
            assert_eq!(woken.count(), turn);
            // The others' turn; it goes on by itself.
            let mut byte = [0];
            let read = Pin::new(&mut reader).poll_read(&mut cx, &mut ReadBuf::new(&mut byte));
            assert!(read.is_pending());
            assert_eq!(woken.count(), turn + 1);
        }
    }

    /// One end of a pipe with always something to read.
    fn endless() -> impl crate::runtime::Io {
        tokio::io::join(tokio::io::repeat(7), tokio::io::sink())
    }
}
