//! What happens, one after the other.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context, Result, bail};
use cluster_live::faults::{self, NETWORK, Schedule};
use cluster_live::progress::{self, Progress};
use cluster_live::proxy::{Proxy, Weather};
use cluster_live::tally::{Kind, Tally};
use cluster_live::{REPLICAS, say};
use cluster_shell::replicas::{Condition, Plan, Processes};
use cluster_shell::screen::Notices;
use gorums::Configuration;
use ledger::note::Note;
use ledger::proto::ReadRequest;
use ledger::proto::ledger_client::LedgerClient;
use storage::disk::Disk;

use crate::Options;
use crate::check::{Findings, Ledger};
use crate::disks::Spoiling;
use crate::load::{Calls, Load};
use crate::memory::levels;
use crate::noted::{Line, Noted};
use crate::parts::Parts;
use crate::report::{Level, Measured, Report};

/// What happens to processes and disks.
const PROCESSES: &[Kind] = &[
    Kind::Kill,
    Kind::Pause,
    Kind::KillAll,
    Kind::StalledDisk,
    Kind::FullDisk,
];

/// What happens to the one replica that is in trouble, and to its disk.
const OF_ONE: &[Kind] = &[Kind::Kill, Kind::Pause, Kind::StalledDisk, Kind::FullDisk];

/// What happens to processes that go on, and to disks.
const ENDURED: &[Kind] = &[Kind::Pause, Kind::StalledDisk, Kind::FullDisk];

/// What happens beside the rounds of faults.
const BESIDE: &[Kind] = &[Kind::Upgrade, Kind::BlackHole];

/// How much longer the last of the rounds of all faults goes on where some kind of fault has not fired yet.
const EXTENSION: Duration = Duration::from_secs(60);

/// How long a page of a replica's log may take to be read, when all faults have ended.
const READING: Duration = Duration::from_secs(30);

/// Does all of it, and says what came of it.
///
/// # Errors
///
/// Where anything is not as it should be.
pub(crate) async fn run(options: Options) -> Result<()> {
    let all = Duration::from_secs(options.seconds);
    let parts = Parts::of(all);
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    say(format_args!(
        "seed {seed}: {REPLICAS} replicas, {} clients with {} calls in flight, {} s",
        options.clients, options.calls, options.seconds
    ));
    let data = tempfile::tempdir().context("a directory for the replicas")?;
    let report = options.report.clone();
    // That of another run would be taken for one of this.
    write(&report, "faults.txt", "")?;
    write(&report, "summary.txt", "")?;
    let done = checked(options, seed, all, &parts, data.path()).await;
    if let Err(error) = &done {
        write(&report, "faults.txt", &format!("{error:#}\n"))?;
        // Whoever looks for the cause needs them as they are now.
        say(format_args!(
            "the replicas' files are in {}",
            data.keep().display()
        ));
    }
    done
}

/// The same, but for what is left behind where it fails.
async fn checked(
    options: Options,
    seed: u64,
    all: Duration,
    parts: &Parts,
    data: &Path,
) -> Result<()> {
    let mut run = Run::start(options, data).await?;
    let done = run.all(seed, parts).await;
    run.processes.end().await;
    let report = done?;
    let text = report.text(&run.tally);
    say(text.trim_end());
    write(&run.options.report, "summary.txt", &text)?;
    let mut faults = report.faults(all);
    for kind in run.tally.missing() {
        faults.push(format!("no fault of this kind has fired: {kind:?}"));
    }
    for id in 1..=REPLICAS {
        if let Err(error) = Disk::<Note>::verify_closed(data, id) {
            faults.push(format!("the file of replica {id} is not whole: {error}"));
        }
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    say("nothing acknowledged is lost or there twice");
    Ok(())
}

/// Leaves a file in the folder of the report.
fn write(report: &Path, name: &str, text: &str) -> Result<()> {
    let path = report.join(name);
    fs::create_dir_all(report)
        .and_then(|()| fs::write(&path, text))
        .with_context(|| format!("{} for the report", path.display()))
}

/// A run, and all that there is in it.
struct Run {
    options: Options,
    processes: Processes,
    /// Copies of this program, of which one replaces the other when the replicas are upgraded.
    versions: [PathBuf; 2],
    proxies: Vec<Proxy>,
    disks: Spoiling,
    tally: Arc<Tally>,
    load: Load,
    noted: Noted,
    part: Part,
    progress: Progress,
}

impl Run {
    async fn start(options: Options, data: &Path) -> Result<Self> {
        let plan = Plan {
            count: REPLICAS,
            listen: ([127, 0, 0, 1], 0).into(),
            data: Some(data.to_owned()),
        };
        let program = env::current_exe().context("this program")?;
        let versions = [0, 1].map(|version| data.join(format!("version-{version}")));
        for version in &versions {
            fs::copy(&program, version).context("a copy of this program")?;
        }
        let processes = Processes::start(plan, Notices::standard()).await?;
        let tally = Arc::new(Tally::of([NETWORK, PROCESSES, BESIDE].concat()));
        let proxies = Proxy::before_each(&processes, &tally).await?;
        let noted = Noted::new().context("a file for what the clients are told")?;
        let load = Load::new(noted.clone());
        let part = Part::default();
        let shown = (part.clone(), load.clone(), Arc::clone(&tally));
        let progress = Progress::start(move || {
            let (part, load, tally) = &shown;
            let times = load.lately();
            let p99 = times.value_at_quantile(0.99) as f64 / 1e3;
            format!(
                "{}: {:.0} calls per second, p99 {p99:.0} ms, {} failed so far; {tally}",
                part.get(),
                times.len() as f64 / progress::EVERY.as_secs_f64(),
                load.counts().1
            )
        });
        Ok(Self {
            disks: Spoiling::new(data, Arc::clone(&tally)),
            options,
            processes,
            versions,
            proxies,
            tally,
            load,
            noted,
            part,
            progress,
        })
    }

    async fn all(&mut self, seed: u64, parts: &Parts) -> Result<Report> {
        let begun = Instant::now();
        let before = self.load_alone("before all faults", parts.load).await?;
        self.rounds(seed, parts).await?;

        let two = "two replicas alone";
        let mut healthy = self.two_alone(two, parts.healthy).await?;
        let hole = self.black_hole(parts.hole).await?;
        let again = self.two_alone(two, parts.healthy).await?;
        healthy.time += again.time;
        healthy.times += again.times;

        let after = self.load_alone("after all faults", parts.load).await?;
        faults::restart_all(&mut self.processes).await?;
        let anew = self
            .load_alone("with replicas started anew", parts.load)
            .await?;
        let took = begun.elapsed();
        let calls = self.load.counts();
        let findings = self.compare().await?;
        Ok(Report {
            took,
            calls,
            failed_parts: self.load.failed_parts(),
            healthy,
            hole,
            before,
            after,
            anew,
            findings,
        })
    }

    /// Clients that call all replicas, each of which answers.
    async fn start_calls(&self, replicas: u32) -> Result<Calls> {
        let addresses: Vec<_> = self.proxies.iter().map(Proxy::address).collect();
        let addresses = &addresses[..replicas as usize];
        let (clients, calls) = (self.options.clients, self.options.calls);
        let calls = self.load.start(addresses, clients, calls)?;
        for id in 1..=replicas {
            calls.reach(id).await?;
        }
        Ok(calls)
    }

    /// Ends calls of which none may have failed.
    async fn end_well(&self, calls: Calls, period: u64, when: &str) -> Result<()> {
        calls.next_period().await?;
        calls.none_failed(period, when)?;
        calls.end().await
    }

    /// The load with nothing else. The level of memory in the last third of it.
    async fn load_alone(&mut self, name: &'static str, time: Duration) -> Result<Level> {
        self.part.set(name);
        let calls = self.start_calls(REPLICAS).await?;
        let period = calls.next_period().await?;
        calls.measure(time * 2 / 3).await;
        let mut processes = Vec::new();
        for id in 1..=REPLICAS {
            match self.processes.condition(id).await {
                Some(Condition::Running {
                    process: Some(process),
                    ..
                }) => processes.push(process),
                other => bail!("replica {id} does not run: {other:?}"),
            }
        }
        processes.push(std::process::id());
        let bytes = levels(&processes, time / 3).await?;
        self.end_well(calls, period, name).await?;
        Ok(Level { name, bytes })
    }

    /// Rounds of faults, after each of which the replicas are upgraded; one in which only one replica is in
    /// trouble; and one in which processes go on, so that whatever they keep of it is there to be seen.
    async fn rounds(&mut self, seed: u64, parts: &Parts) -> Result<()> {
        let calls = self.start_calls(REPLICAS).await?;
        let all = parts.rounds + 2;
        let schedule = |round: u32| Schedule {
            seed: seed.wrapping_add(round.into()),
            processes: PROCESSES,
            time: parts.round,
            more: Duration::ZERO,
            only: None,
            rest: (500, 3000),
        };
        for round in 1..=parts.rounds {
            let of = format!("round {round} of {all}");
            self.part.set(&format!("{of}, faults"));
            let more = match round == parts.rounds {
                true => EXTENSION,
                false => Duration::ZERO,
            };
            let schedule = Schedule {
                more,
                ..schedule(round)
            };
            self.faults(&calls, schedule).await?;
            self.part.set(&format!("{of}, upgrade"));
            self.upgrade(&calls, round).await?;
        }

        let when = "while only one replica was in trouble";
        self.part.set(&format!(
            "round {} of {all}, faults of one replica",
            all - 1
        ));
        let period = calls.next_period().await?;
        let of_one = Schedule {
            processes: OF_ONE,
            only: Some(REPLICAS),
            ..schedule(all - 1)
        };
        self.faults(&calls, of_one).await?;
        calls.next_period().await?;
        calls.none_failed(period, when)?;

        self.part.set(&format!(
            "round {all} of {all}, faults that processes live through"
        ));
        let endured = Schedule {
            processes: ENDURED,
            ..schedule(all)
        };
        self.faults(&calls, endured).await?;
        calls.end().await
    }

    async fn reach_all(&self, calls: &Calls) -> Result<()> {
        for id in 1..=REPLICAS {
            calls.reach(id).await?;
        }
        Ok(())
    }

    /// Lets faults happen, and ends them. All replicas write then.
    async fn faults(&mut self, calls: &Calls, schedule: Schedule) -> Result<()> {
        let (processes, proxies) = (&mut self.processes, &self.proxies);
        faults::run(schedule, processes, &self.disks, proxies, &self.tally).await?;
        faults::settle(processes, proxies).await?;
        self.reach_all(calls).await
    }

    /// Replaces one replica after the other. No call may fail meanwhile.
    async fn upgrade(&mut self, calls: &Calls, number: u32) -> Result<()> {
        // What has begun before this may have met a fault.
        let period = calls.next_period().await?;
        let version = &self.versions[number as usize % 2];
        for id in 1..=REPLICAS {
            self.processes.replace(id, version.clone()).await?;
            self.tally.add(Kind::Upgrade);
            calls.reach(id).await?;
        }
        calls.next_period().await?;
        calls.none_failed(period, "while the replicas were upgraded one by one")
    }

    /// Clients that know of two replicas only.
    async fn two_alone(&mut self, name: &'static str, time: Duration) -> Result<Measured> {
        self.part.set(name);
        let calls = self.start_calls(REPLICAS - 1).await?;
        let period = calls.next_period().await?;
        let times = calls.measure(time).await;
        self.end_well(calls, period, name).await?;
        Ok(Measured { name, time, times })
    }

    /// Clients that know of all replicas, of which one is in a black hole.
    async fn black_hole(&mut self, time: Duration) -> Result<Measured> {
        let name = "one of three in a black hole";
        self.part.set(name);
        let calls = self.start_calls(REPLICAS).await?;
        let period = calls.next_period().await?;
        let proxy = self.proxies.last().expect("there are some");
        proxy.set(Weather::black_hole());
        let times = calls.measure(time).await;
        proxy.heal();
        // What comes next on these connections would make no sense.
        proxy.cut();
        self.reach_all(&calls).await?;
        self.end_well(calls, period, name).await?;
        Ok(Measured { name, time, times })
    }

    /// Starts all replicas anew, and compares what they have with what the clients were told.
    async fn compare(&mut self) -> Result<Vec<Findings>> {
        self.progress.end();
        faults::restart_all(&mut self.processes).await?;
        let asked = self.load.asked();
        let mut findings = Vec::new();
        let addresses: Vec<_> = self.processes.addresses().collect();
        for (id, address) in addresses {
            say(format_args!("reading what replica {id} has"));
            let ledger = read(id, address).await?;
            let found = ledger.check(&asked, &self.noted);
            findings.push(found.context("what the clients were told")?);
        }
        Ok(findings)
    }
}

/// All that a replica has.
async fn read(replica: u32, address: SocketAddr) -> Result<Ledger> {
    let one = Configuration::builder().nodes([address.to_string()]);
    let client = LedgerClient::new(one.connect()?).with_timeout(READING);
    let mut ledger = Ledger {
        replica,
        ..Ledger::default()
    };
    loop {
        let from = ledger.log.len() as u64;
        let page = client.read(ReadRequest { from }).all().await;
        let page = page.with_context(|| format!("reading the log of replica {replica}"))?;
        ledger.count = page.count;
        for text in &page.lines {
            let line = Line::parse(text);
            let line = line.with_context(|| {
                format!("replica {replica} has a line that nobody writes: {text:?}")
            })?;
            ledger.log.push(line);
        }
        if page.last {
            return Ok(ledger);
        }
    }
}

/// What happens now, in a few words. Clones share it.
#[derive(Clone, Default)]
struct Part(Arc<Mutex<String>>);

impl Part {
    fn set(&self, part: &str) {
        part.clone_into(&mut self.text());
    }

    fn get(&self) -> String {
        self.text().clone()
    }

    /// No code panics while it holds the lock.
    fn text(&self) -> MutexGuard<'_, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
