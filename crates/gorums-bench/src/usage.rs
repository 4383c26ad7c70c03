//! What this process has used of the machine.

use serde::{Deserialize, Serialize};

/// What a process has used since it started. A server tells it as a line of JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// Nanoseconds of the processor, in the program and in the system on its behalf.
    pub(crate) cpu_ns: u64,
    /// The most memory that was resident, in bytes.
    pub(crate) peak_bytes: u64,
    /// The memory that is resident now, in bytes, where the system tells.
    #[serde(default)]
    pub(crate) resident_bytes: Option<u64>,
}

impl Usage {
    /// That of this process, where the system tells.
    #[cfg(unix)]
    pub(crate) fn own() -> Option<Self> {
        use nix::sys::resource::{UsageWho, getrusage};
        use nix::sys::time::TimeValLike;

        let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
        let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        // It is in KiB, but for Apple's systems.
        let unit = if cfg!(target_vendor = "apple") {
            1
        } else {
            1024
        };
        Some(Self {
            cpu_ns: u64::try_from(micros).ok()? * 1000,
            peak_bytes: u64::try_from(usage.max_rss()).ok()? * unit,
            resident_bytes: resident_bytes(),
        })
    }

    /// That of this process, where the system tells.
    #[cfg(not(unix))]
    pub(crate) fn own() -> Option<Self> {
        None
    }
}

#[cfg(target_os = "linux")]
fn resident_bytes() -> Option<u64> {
    let pages = procfs::process::Process::myself()
        .ok()?
        .statm()
        .ok()?
        .resident;
    Some(pages * procfs::page_size())
}

#[cfg(all(unix, not(target_os = "linux")))]
fn resident_bytes() -> Option<u64> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn work_is_seen() {
        let before = Usage::own().expect("unix tells");
        let mut now = before;
        // It ends, since what it does is what it waits for.
        while now.cpu_ns == before.cpu_ns {
            std::hint::black_box((0..10_000).sum::<u64>());
            now = Usage::own().expect("unix tells");
        }
        assert!(now.cpu_ns > before.cpu_ns);
        assert!(now.peak_bytes > 100_000, "{} bytes", now.peak_bytes);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_that_is_held_is_resident() {
        let size = 64 << 20;
        let before = Usage::own().and_then(|usage| usage.resident_bytes);
        let held = std::hint::black_box(vec![1_u8; size]);
        let after = Usage::own().and_then(|usage| usage.resident_bytes);
        let (before, after) = before.zip(after).expect("Linux tells");
        // Other tests may give something back meanwhile.
        assert!(after > before + held.len() as u64 / 2, "{before}, {after}");
    }
}
