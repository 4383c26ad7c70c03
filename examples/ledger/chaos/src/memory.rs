//! How much memory processes have.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::sleep;

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// The level of each of these processes, in bytes: the median over a time in which they go on with what
/// they do. None where the system does not say.
pub(crate) async fn levels(processes: &[u32], time: Duration) -> Result<Option<Vec<u64>>> {
    if !cfg!(target_os = "linux") {
        sleep(time).await;
        return Ok(None);
    }
    let mut seen = vec![Vec::new(); processes.len()];
    let looks = (time.as_millis() / LOOK.as_millis()).max(1);
    for _ in 0..looks {
        for (process, seen) in processes.iter().zip(&mut seen) {
            seen.push(resident(*process)?);
        }
        sleep(LOOK).await;
    }
    let median = |mut seen: Vec<u64>| {
        seen.sort_unstable();
        seen[seen.len() / 2]
    };
    Ok(Some(seen.into_iter().map(median).collect()))
}

/// What a process has in memory, as Linux says.
fn resident(process: u32) -> Result<u64> {
    let path = format!("/proc/{process}/status");
    let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kilobytes.with_context(|| format!("{path} says nothing of VmRSS"))? << 10)
}
