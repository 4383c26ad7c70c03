//! A network on which an unanswered ping is forgiven: a mistake that a library can make, put where
//! the library cannot tell it from an answer.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use gorums::runtime::{BoxFuture, BoxIo, Listener, Transport};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Connects to nodes so that whatever a node sends counts as its answer to the last ping.
#[derive(Debug, Clone)]
pub(crate) struct Forgiving<T>(pub(crate) T);

impl<T: Transport> Transport for Forgiving<T> {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move {
            let io = self.0.connect(address).await?;
            Ok(Box::new(Stream {
                io,
                written: Frames::after(PREFACE),
                read: Frames::after(0),
                unanswered: None,
                to_read: VecDeque::new(),
            }) as BoxIo)
        })
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        self.0.listen(address)
    }
}

/// The length of what a client says before its first frame.
const PREFACE: usize = 24;

/// The head of a frame: its length in three bytes, its type, its flags, and its stream.
const HEAD: usize = 9;
const PING: u8 = 6;
const ACK: u8 = 1;

/// Finds the pings among the bytes of one direction.
struct Frames {
    /// Bytes to pass before the next frame.
    skip: usize,
    /// The head of the next frame, as far as it has come, and of a ping all of it.
    head: Vec<u8>,
}

impl Frames {
    fn after(skip: usize) -> Self {
        Self {
            skip,
            head: Vec::new(),
        }
    }

    fn is_between(&self) -> bool {
        self.skip == 0 && self.head.is_empty()
    }

    /// Passes a byte; returns the ping that it is the last one of.
    fn pass(&mut self, byte: u8) -> Option<Vec<u8>> {
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        self.head.push(byte);
        let [a, b, c, kind, ..] = *self.head else {
            return None;
        };
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        if kind == PING && self.head.len() == HEAD + length {
            return Some(std::mem::take(&mut self.head));
        }
        if kind != PING && self.head.len() == HEAD {
            self.head.clear();
            self.skip = length;
        }
        None
    }
}

struct Stream {
    io: BoxIo,
    written: Frames,
    read: Frames,
    /// The answer to the last ping.
    unanswered: Option<Vec<u8>>,
    to_read: VecDeque<u8>,
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self {
            io,
            read,
            unanswered,
            to_read,
            ..
        } = &mut *self;
        if to_read.is_empty() {
            let mut bytes = [0; 4096];
            let mut bytes = ReadBuf::new(&mut bytes);
            ready!(Pin::new(io).poll_read(cx, &mut bytes))?;
            for &byte in bytes.filled() {
                if read.is_between()
                    && let Some(answer) = unanswered.take()
                {
                    to_read.extend(answer);
                }
                to_read.push_back(byte);
                read.pass(byte);
            }
        }
        let fits = to_read.len().min(buffer.remaining());
        for byte in to_read.drain(..fits) {
            buffer.put_slice(&[byte]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self {
            io,
            written,
            unanswered,
            ..
        } = &mut *self;
        let length = ready!(Pin::new(io).poll_write(cx, bytes))?;
        for &byte in &bytes[..length] {
            if let Some(mut ping) = written.pass(byte)
                && ping[4] & ACK == 0
            {
                ping[4] |= ACK;
                *unanswered = Some(ping);
            }
        }
        Poll::Ready(Ok(length))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
