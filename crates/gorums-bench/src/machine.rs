//! What is measured on, and whether it is quiet.

use serde::{Deserialize, Serialize};

/// The machine, as far as it says what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) system: String,
}

/// What was measured, and what it was built with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Versions {
    pub(crate) gorums: String,
    /// Of the sources, where they come from a repository.
    pub(crate) commit: Option<String>,
    pub(crate) rustc: String,
    /// `release`, or else the figures mean nothing.
    pub(crate) profile: String,
}

impl Machine {
    pub(crate) fn this() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let unknown = Self {
            cpu: format!("{} processor", std::env::consts::ARCH),
            cores,
            memory_bytes: None,
            system: std::env::consts::OS.to_owned(),
        };
        on_linux::describe(unknown)
    }

    /// In one line.
    pub(crate) fn line(&self) -> String {
        let plural = if self.cores == 1 { "" } else { "s" };
        format!("{}, {} core{plural}, {}", self.cpu, self.cores, self.system)
    }
}

impl Versions {
    pub(crate) fn these() -> Self {
        let commit = env!("BENCH_COMMIT");
        Self {
            gorums: env!("CARGO_PKG_VERSION").to_owned(),
            commit: (!commit.is_empty()).then(|| commit.to_owned()),
            rustc: env!("BENCH_RUSTC").to_owned(),
            profile: env!("BENCH_PROFILE").to_owned(),
        }
    }

    pub(crate) fn optimized(&self) -> bool {
        self.profile == "release"
    }

    /// In one line.
    pub(crate) fn line(&self) -> String {
        let commit = self
            .commit
            .as_ref()
            .map_or_else(String::new, |commit| format!(" ({commit})"));
        let profile = if self.optimized() {
            ""
        } else {
            ", not optimized"
        };
        format!("gorums {}{commit}, {}{profile}", self.gorums, self.rustc)
    }
}

/// What the whole machine had done at a time; two of them tell what others did between.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Activity {
    /// Milliseconds that processes have run, all cores together.
    running: u64,
    /// Milliseconds that the host gave to other machines.
    stolen: u64,
    at: std::time::Instant,
}

/// Others took more of the machine than this while something was measured: it was busy.
const BUSY: f64 = 0.05;

impl Activity {
    /// Where the system tells, which Linux does.
    pub(crate) fn now() -> Option<Self> {
        on_linux::activity()
    }

    /// Which part of the whole machine others took since `before`, of which this program and its
    /// servers took `own_cpu_ns`.
    pub(crate) fn others(&self, before: &Self, own_cpu_ns: u64) -> f64 {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let whole = (self.at - before.at).as_secs_f64() * 1e3 * cores as f64;
        let running = (self.running - before.running) as f64 - own_cpu_ns as f64 / 1e6;
        let stolen = (self.stolen - before.stolen) as f64;
        ((running.max(0.0) + stolen) / whole).clamp(0.0, 1.0)
    }
}

/// Whether a measurement during which others took so much of the machine says little.
pub(crate) fn busy(others: Option<f64>) -> bool {
    others.is_some_and(|others| others > BUSY)
}

#[cfg(target_os = "linux")]
mod on_linux {
    use procfs::{Current, CurrentSI};

    use super::{Activity, Machine};

    pub(super) fn describe(unknown: Machine) -> Machine {
        let cpu = procfs::CpuInfo::current().ok();
        let memory = procfs::Meminfo::current().ok();
        let kernel = procfs::sys::kernel::Version::current().ok();
        Machine {
            cpu: cpu
                .and_then(|cpu| cpu.model_name(0).map(str::to_owned))
                .unwrap_or(unknown.cpu),
            memory_bytes: memory.map(|memory| memory.mem_total),
            system: kernel.map_or(unknown.system, |version| {
                format!("Linux {}.{}", version.major, version.minor)
            }),
            ..unknown
        }
    }

    pub(super) fn activity() -> Option<Activity> {
        let total = procfs::KernelStats::current().ok()?.total;
        // Interrupts are left out: those of the own connections cannot be told from others.
        let running = total.user_ms() + total.nice_ms() + total.system_ms();
        Some(Activity {
            running,
            stolen: total.steal_ms().unwrap_or(0),
            at: std::time::Instant::now(),
        })
    }
}

#[cfg(not(target_os = "linux"))]
mod on_linux {
    use super::{Activity, Machine};

    pub(super) fn describe(unknown: Machine) -> Machine {
        unknown
    }

    pub(super) fn activity() -> Option<Activity> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn others_are_what_is_left_of_what_ran() {
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        let at = Instant::now();
        let before = Activity {
            running: 5_000,
            stolen: 10,
            at,
        };
        let after = |running, stolen| Activity {
            running: 5_000 + running,
            stolen: 10 + stolen,
            at: at + Duration::from_secs(1),
        };
        let whole = 1_000 * cores;
        let own = 500_000_000;
        let others = |running, stolen| after(running, stolen).others(&before, own);
        assert_eq!(others(500, 0), 0.0);
        assert_eq!(others(500 + whole / 10, 0), 0.1);
        assert_eq!(others(500, whole / 4), 0.25);
        // Both are counted in ticks, and not at the same time.
        assert_eq!(others(490, 0), 0.0);
    }

    #[test]
    fn a_machine_is_busy_from_a_twentieth_on() {
        assert!(busy(Some(0.06)));
        assert!(!busy(Some(0.05)));
        assert!(!busy(None));
    }

    #[test]
    fn the_machine_and_the_versions_are_named() {
        let machine = Machine::this();
        assert!(machine.cores > 0);
        assert!(!machine.cpu.is_empty());
        let versions = Versions::these();
        assert!(versions.rustc.starts_with("rustc "), "{versions:?}");
        assert!(versions.line().contains(&versions.gorums));
    }
}
