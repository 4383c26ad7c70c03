use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::BoxIo;

/// How many reads of a connection come one after the other.
const READS: u32 = 8;

/// Lets other tasks run between reads. `h2` reads for as long as there is something to read, and a
/// peer that sends as fast as it can, frames that mean nothing perhaps, would have the thread to
/// itself for as long as tokio's own budget lasts. And what came is handled before more is read, so
/// little of it gathers within `h2`.
pub(crate) struct FairIo {
    io: BoxIo,
    left: u32,
}

impl FairIo {
    pub(crate) fn new(io: BoxIo) -> Self {
        Self { io, left: READS }
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
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn others_run_while_there_is_always_something_to_read() {
        let (reader, mut writer) = tokio::io::duplex(1 << 20);
        writer.write_all(&[7; 1 << 20]).await.expect("connected");
        let mut reader = FairIo::new(Box::new(reader));
        let reading = tokio::spawn(async move {
            let mut byte = [0];
            for _ in 0..=READS {
                reader.read_exact(&mut byte).await.expect("connected");
            }
        });
        // The other task has had its turn, and not all is read.
        tokio::task::yield_now().await;
        assert!(!reading.is_finished());
        reading.await.expect("it goes on by itself");
    }
}
