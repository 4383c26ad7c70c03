//! A peer made of bytes, and a good client that it shall not disturb.

use std::net::SocketAddr;
use std::time::Duration;

use gorums::runtime::BoxIo;
use gorums::{Client, Configuration, Node};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, interval};

use crate::common::{Number, number, within};
use crate::frames::*;

/// A client that wants nothing but answers, of this node.
pub struct GoodClient(Client, Node);

impl GoodClient {
    pub fn new(configuration: &Configuration) -> Self {
        Self(Client::new(configuration), configuration[0].clone())
    }

    pub fn connect(addr: SocketAddr) -> Self {
        let configuration = Configuration::builder().nodes([addr.to_string()]).connect();
        Self::new(&configuration.expect("a legal address"))
    }

    /// Calls once in so long, for a while. How often it did.
    pub async fn called_for(&self, time: Duration, pause: Duration) -> u64 {
        let (start, mut ticks) = (Instant::now(), interval(pause));
        let mut calls = 0;
        while start.elapsed() < time {
            ticks.tick().await;
            let reply = within(self.0.rpc::<_, Number>(&self.1, ECHO, number(calls))).await;
            assert_eq!(reply.expect("the node is up").value, calls);
            calls += 1;
        }
        calls
    }

    pub async fn is_served(&self) {
        for value in 0..10 {
            let reply = within(self.0.rpc::<_, Number>(&self.1, ECHO, number(value))).await;
            assert_eq!(reply.expect("the node is up").value, value);
        }
    }
}

/// A peer of bytes: a client, or a server that has accepted the stream of a client.
pub struct Foe {
    pub io: BoxIo,
    /// What the ids of its requests have besides.
    id_bit: u64,
    /// How many bytes of DATA may be sent on the first stream, and on all.
    windows: [usize; 2],
    /// How many on a new stream.
    stream_window: usize,
}

impl Foe {
    /// One that has said nothing.
    pub async fn connect(addr: SocketAddr) -> Self {
        let tcp = within(TcpStream::connect(addr)).await.expect("it listens");
        tcp.set_nodelay(true).expect("a TCP socket");
        Self::over(Box::new(tcp))
    }

    fn over(io: BoxIo) -> Self {
        Self {
            io,
            id_bit: 0,
            windows: [0, 65_535],
            stream_window: 0,
        }
    }

    /// One that has opened its stream as everybody does.
    pub async fn open(addr: SocketAddr) -> Self {
        Self::open_with(addr, &[]).await
    }

    /// One that has opened its stream with these settings.
    pub async fn open_with(addr: SocketAddr, settings: &[(u16, u32)]) -> Self {
        Self::connect(addr).await.open_stream(settings).await
    }

    /// One that opens its stream over this, with these settings.
    pub async fn open_over(io: BoxIo, settings: &[(u16, u32)]) -> Self {
        Self::over(io).open_stream(settings).await
    }

    async fn open_stream(mut self, settings: &[(u16, u32)]) -> Self {
        self.send(&hello(settings)).await;
        while self.read().await.expect("the server answers").kind != HEADERS {}
        self
    }

    /// A server that accepts the stream which a client opens over this, with these settings.
    pub async fn accept_over(io: BoxIo, settings: &[(u16, u32)]) -> Self {
        let mut foe = Self::over(io);
        foe.id_bit = HIGH_BIT;
        let mut preface = [0; PREFACE.len()];
        within(foe.io.read_exact(&mut preface))
            .await
            .expect("the client speaks first");
        foe.send(&self::settings(settings)).await;
        while foe.read().await.expect("the client goes on").kind != HEADERS {}
        foe.send(&headers(1, 0, &HEAD)).await;
        foe
    }

    /// A request of this peer's.
    pub fn request(&self, id: u64, method: &str) -> Envelope {
        envelope(id | self.id_bit, method, 1)
    }

    /// Sends bytes. False where the server has closed the connection, maybe before it read them.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        within(self.io.write_all(bytes)).await.is_ok()
    }

    /// Sends a frame of DATA that the windows have room for.
    pub async fn send_data(&mut self, frame: &[u8]) {
        let sent = self.send_frames(frame, frame.len() - 9).await;
        assert!(sent, "the connection is up");
    }

    /// Sends frames of so many bytes of DATA together. False where the connection has ended.
    pub async fn send_frames(&mut self, frames: &[u8], bytes: usize) -> bool {
        for window in &mut self.windows {
            *window -= bytes;
        }
        self.send(frames).await
    }

    /// The other side's next frame, or none where the connection has ended.
    pub async fn read(&mut self) -> Option<Frame> {
        let frame = read_frame(&mut self.io).await?;
        match (frame.kind, frame.flags) {
            (SETTINGS, 0) => {
                let settings = frame.payload.chunks(6);
                for setting in settings.filter(|s| s[..2] == INITIAL_WINDOW_SIZE.to_be_bytes()) {
                    let size = setting[2..].try_into().expect("four bytes");
                    self.stream_window = u32::from_be_bytes(size) as usize;
                    self.next_stream();
                }
                self.send(&settings_ack()).await;
            }
            (WINDOW_UPDATE, _) => {
                let window = usize::from(frame.stream == 0);
                self.windows[window] += reason(&frame) as usize;
            }
            _ => {}
        }
        Some(frame)
    }

    /// Waits until the other side has seen all that was sent.
    pub async fn is_read(&mut self) {
        assert!(self.pong().await, "the connection is up");
    }

    /// Whether the other side still answers.
    pub async fn is_up(&mut self) -> bool {
        self.pong().await
    }

    /// Waits for the answer to a ping. False where the connection has ended.
    async fn pong(&mut self) -> bool {
        self.send(&ping()).await;
        while let Some(frame) = self.read().await {
            if (frame.kind, frame.flags) == (PING, ACK) {
                return true;
            }
        }
        false
    }

    /// The window of the stream is from now on that of one that is about to be opened.
    pub fn next_stream(&mut self) {
        self.windows[0] = self.stream_window;
    }

    /// How many bytes of DATA may be sent.
    pub fn window(&self) -> usize {
        self.windows[0].min(self.windows[1])
    }

    /// Whether the other side takes a frame of so many bytes once it has seen all that was sent. It
    /// does not where it has ended the connection.
    pub async fn may_send(&mut self, frame: usize) -> bool {
        for _ in 0..4 {
            if self.window() >= frame {
                return true;
            }
            // What is read of a frame may be told after the answer to a ping behind it.
            if !self.pong().await {
                break;
            }
        }
        false
    }

    /// Sends frames of so many bytes of DATA together, and waits until the server has seen them.
    /// False where it has ended the connection, or takes no more on it.
    pub async fn survives(&mut self, frames: &[u8], data: usize) -> bool {
        self.survives_on(1, frames, data).await
    }

    /// The same for frames of this stream.
    pub async fn survives_on(&mut self, stream: u32, frames: &[u8], data: usize) -> bool {
        if !self.send(frames).await || !self.send(&ping()).await {
            return false;
        }
        for window in &mut self.windows {
            *window = window.saturating_sub(data);
        }
        while let Some(frame) = self.read().await {
            match (frame.kind, frame.flags) {
                (PING, ACK) => return true,
                // The stream is over.
                (HEADERS, flags) if frame.stream == stream && flags & END_STREAM != 0 => {
                    return false;
                }
                (RST_STREAM, _) if frame.stream == stream => return false,
                (GOAWAY, _) => return false,
                _ => {}
            }
        }
        false
    }

    /// Waits until the server has ended the connection, and returns the reason where it told one.
    pub async fn ended(mut self) -> Option<u32> {
        let mut told = None;
        while let Some(frame) = read_frame(&mut self.io).await {
            if frame.kind == GOAWAY {
                told = Some(reason(&frame));
            }
        }
        told
    }
}
