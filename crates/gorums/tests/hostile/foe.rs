//! A client made of bytes, and a good one that it shall not disturb.

use std::net::SocketAddr;

use gorums::{Client, Configuration};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::common::{Number, number, within};
use crate::frames::*;

/// A client that wants nothing but answers.
pub struct GoodClient(Configuration);

impl GoodClient {
    pub fn connect(addr: SocketAddr) -> Self {
        let configuration = Configuration::builder().nodes([addr.to_string()]).connect();
        Self(configuration.expect("a legal address"))
    }

    pub async fn is_served(&self) {
        let client = Client::new(&self.0);
        for value in 0..10 {
            let reply = within(client.rpc::<_, Number>(&self.0[0], ECHO, number(value))).await;
            assert_eq!(reply.expect("the server is up").value, value);
        }
    }
}

/// A client of bytes.
pub struct Foe {
    pub tcp: TcpStream,
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
        Self {
            tcp,
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
        let mut foe = Self::connect(addr).await;
        foe.send(&hello(settings)).await;
        while foe.read().await.expect("the server answers").kind != HEADERS {}
        foe
    }

    /// Sends bytes. False where the server has closed the connection, maybe before it read them.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        within(self.tcp.write_all(bytes)).await.is_ok()
    }

    /// Sends a frame of DATA that the windows have room for.
    pub async fn send_data(&mut self, frame: &[u8]) {
        self.send_frames(frame, frame.len() - 9).await;
    }

    /// Sends frames of so many bytes of DATA together.
    pub async fn send_frames(&mut self, frames: &[u8], bytes: usize) {
        assert!(self.send(frames).await, "the connection is up");
        for window in &mut self.windows {
            *window -= bytes;
        }
    }

    /// The server's next frame, or none where the connection has ended.
    pub async fn read(&mut self) -> Option<Frame> {
        let frame = read_frame(&mut self.tcp).await?;
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

    /// Waits until the server has seen all that was sent.
    pub async fn is_read(&mut self) {
        self.send(&ping()).await;
        loop {
            let frame = self.read().await.expect("the connection is up");
            if (frame.kind, frame.flags) == (PING, ACK) {
                return;
            }
        }
    }

    /// The window of the stream is from now on that of one that is about to be opened.
    pub fn next_stream(&mut self) {
        self.windows[0] = self.stream_window;
    }

    /// How many bytes of DATA may be sent.
    pub fn window(&self) -> usize {
        self.windows[0].min(self.windows[1])
    }

    /// Whether the server takes a frame of so many bytes once it has seen all that was sent.
    pub async fn may_send(&mut self, frame: usize) -> bool {
        for _ in 0..4 {
            if self.window() >= frame {
                return true;
            }
            // What is read of a frame may be told after the answer to a ping behind it.
            self.is_read().await;
        }
        false
    }

    /// Sends frames of so many bytes of DATA together, and waits until the server has seen them. False
    /// where it has ended the connection, or takes no more on it.
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
        while let Some(frame) = read_frame(&mut self.tcp).await {
            if frame.kind == GOAWAY {
                told = Some(reason(&frame));
            }
        }
        told
    }
}
