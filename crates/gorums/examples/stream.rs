//! A node that streams chunks to a reader, and is held back by it: nothing is lost, whatever the
//! reader's pace, and little is kept.
//!
//! ```console
//! $ cargo run --release -p gorums --example stream -- [CHUNKS] [SIZE] [fast|slow|paused]
//! ```

use std::env::args;
use std::time::{Duration, Instant};

use gorums::{Client, Configuration, ReplySender, Server, ServerCtx, Status};

const READ: &str = "demo.File.Read";

/// How long a slow reader takes for every hundredth chunk, and a paused one for the first.
const PAUSE: Duration = Duration::from_millis(1);
const LONG_PAUSE: Duration = Duration::from_secs(1);

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = args().skip(1);
    let chunks: u64 = args.next().map_or(Ok(1_000), |chunks| chunks.parse())?;
    let size: usize = args.next().map_or(Ok(1_000), |size| size.parse())?;
    let pace = args.next().unwrap_or_else(|| "fast".to_owned());
    read(chunks, size, &pace).await
}

/// Reads so many chunks of this size from a node.
pub(crate) async fn read(
    chunks: u64,
    size: usize,
    pace: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let handler = move |_ctx: ServerCtx, chunks: u64, replies: ReplySender<Vec<u8>>| async move {
        for number in 0..chunks {
            let mut chunk = vec![0; size.max(8)];
            chunk[..8].copy_from_slice(&number.to_le_bytes());
            // Waits while the reader is behind.
            replies.send(chunk).await?;
        }
        Ok::<_, Status>(())
    };
    let server = Server::builder()
        .streaming(READ, handler)
        .bind("127.0.0.1:0")
        .await?;
    let address = server.local_addr().to_string();
    tokio::spawn(server.serve());

    let configuration = Configuration::builder().nodes([address]).connect()?;
    let begin = Instant::now();
    let mut responses = Client::new(&configuration)
        .streamed_quorum_call::<u64, Vec<u8>>(READ, chunks)
        .responses();
    if pace == "paused" {
        tokio::time::sleep(LONG_PAUSE).await;
    }
    let mut expected: u64 = 0;
    while let Some(response) = responses.next().await {
        let chunk = response.into_result()?;
        if chunk[..8] != expected.to_le_bytes() {
            return Err(format!("chunk {expected} is missing").into());
        }
        expected += 1;
        if pace == "slow" && expected.is_multiple_of(100) {
            tokio::time::sleep(PAUSE).await;
        }
    }
    if expected != chunks {
        return Err(format!("{expected} of {chunks} chunks have come").into());
    }
    let elapsed = begin.elapsed();
    let rate = (chunks as f64 * size as f64) / 1e6 / elapsed.as_secs_f64();
    println!(
        "All {chunks} chunks of {size} bytes have come in order: {elapsed:.2?}, {rate:.0} MB/s."
    );
    if let Some(peak) = peak_memory() {
        println!("Both ends together, in one process, took {peak} at most.");
    }
    Ok(())
}

/// The most memory that this process has had, where the system tells.
fn peak_memory() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.trim_start_matches("VmHWM:").trim().to_owned())
}
