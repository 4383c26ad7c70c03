//! Clusters in simulation: small ones, in short runs.

mod one_register;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gorums::{ServerCtx, Status};
use gorums_sim::history::Limits;
use gorums_sim::{
    Campaign, Client, Disk, Failure, FaultKind, Replica, Run, Scenario, Verdict, Violation,
};
use one_register::{READ, WRITE, Word};

/// What a replica keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Memory {
    Durable,
    Volatile,
}

/// One register on one replica, which is atomic where it is durable.
async fn replica(node: Replica, memory: Memory) -> gorums_sim::Result {
    let disk: Disk<String> = node.disk();
    let ram = Arc::new(Mutex::new(String::new()));
    let (reads, read_ram) = (disk.clone(), Arc::clone(&ram));
    let server = node
        .server()
        .unary(WRITE, move |_: ServerCtx, new: Word| {
            let (disk, ram) = (disk.clone(), Arc::clone(&ram));
            async move {
                match memory {
                    Memory::Durable => disk
                        .commit(|text| *text = new.text)
                        .await
                        .map_err(|error| Status::internal(error.to_string()))?,
                    Memory::Volatile => *ram.lock().expect("not poisoned") = new.text,
                }
                Ok::<_, Status>(Word::default())
            }
        })
        .unary(READ, move |_: ServerCtx, _: Word| {
            let (disk, ram) = (reads.clone(), Arc::clone(&read_ram));
            async move {
                let text = match memory {
                    Memory::Durable => disk
                        .read(String::clone)
                        .await
                        .map_err(|error| Status::internal(error.to_string()))?,
                    Memory::Volatile => ram.lock().expect("not poisoned").clone(),
                };
                Ok::<_, Status>(Word { text })
            }
        });
    node.serve(server).await
}

fn short(memory: Memory) -> Scenario {
    one_register::scenario("one register").replica(move |node| replica(node, memory))
}

#[test]
fn one_seed_is_one_run() {
    let scenario = short(Memory::Durable);
    for seed in 1..=3 {
        let [one, other] = [(); 2].map(|()| scenario.run_traced(seed, None));
        let same = one.trace().iter().zip(other.trace());
        for (at, (one, other)) in same.enumerate() {
            assert_eq!(one, other, "line {at}");
        }
        assert_eq!(one.trace().len(), other.trace().len());
        assert!(one.trace().len() > 100);
        assert_eq!(one.trace_hash(), other.trace_hash());
        assert_eq!(one.history(), other.history());
        // What is noted changes nothing.
        assert_eq!(scenario.run(seed).trace_hash(), one.trace_hash());
    }
    assert_ne!(scenario.run(1).trace_hash(), scenario.run(2).trace_hash());
}

#[test]
fn every_kind_of_fault_has_an_effect() {
    for kind in FaultKind::ALL {
        let scenario = short(Memory::Durable).faults([kind]);
        let run = match kind {
            // An empty register where something was written is what the check is there for.
            FaultKind::CrashAndLose => scenario.check(|_| Verdict::Valid).run(1),
            _ => scenario.run(1),
        };
        assert_eq!(run.failure(), None, "{run}");
        assert!(run.faults().all(|(_, fault, _)| fault.kind == kind));
        assert!(run.faults_fired() >= 3, "{run}");
        assert!(run.operations() >= 30 && run.virtual_time() >= Duration::from_secs(3));
    }
}

#[test]
fn what_a_crash_takes_is_found_shrunk_and_drawn() {
    let kinds = [FaultKind::Crash, FaultKind::Delay, FaultKind::Reset];
    let durable = short(Memory::Durable).faults(kinds);
    let report = Campaign::new(&durable).seeds(1..=6).run(|_| {});
    assert!(
        report.failed().is_none(),
        "{}",
        report.failed().unwrap().run()
    );

    let volatile = short(Memory::Volatile).faults(kinds);
    // The third seed takes all of its faults.
    let report = Campaign::new(&volatile).seeds(4..=23).run(|_| {});
    let failed = report.failed().expect("it forgets what was acknowledged");
    assert!(matches!(
        failed.run().failure(),
        Some(Failure::Violation(_))
    ));
    let faults: Vec<_> = failed.run().faults().collect();
    assert!(faults.len() < failed.planned(), "{}", failed.run());
    assert!(
        faults
            .iter()
            .any(|(_, fault, _)| fault.kind == FaultKind::Crash)
    );
    let places: Vec<_> = faults.iter().map(|(at, ..)| *at).collect();
    assert_eq!(failed.shrunk(), Some(&places[..]));
    assert!(failed.run().svg().expect("a violation").starts_with("<svg"));
    // The same again, by what is printed.
    let again = volatile.run_with_faults(failed.run().seed(), failed.shrunk().unwrap());
    assert_eq!(again.trace_hash(), failed.run().trace_hash());
}

#[test]
fn a_fault_without_effect_is_a_failure() {
    let scenario = Scenario::new("nobody reads a disk")
        .replicas(1..=1)
        .clients(1..=1)
        .operations(1)
        .duration(Duration::from_millis(500))
        .faults([FaultKind::SlowDisk])
        .replica(|node: Replica| async move { node.serve(node.server()).await })
        .client(|node: Client| async move {
            while node.next_operation().await {}
            Ok(())
        });
    let run = scenario.run(1);
    let all: Vec<_> = run.faults().map(|(at, ..)| at).collect();
    assert_eq!(run.failure(), Some(&Failure::NotFired(all)));
}

#[test]
fn a_history_that_nobody_can_judge_fails_the_campaign() {
    // A value that comes again has to be searched for, and one state is no search.
    let scenario = short(Memory::Durable)
        .faults([])
        .client(|node: Client| async move {
            while node.next_operation().await {
                node.history().write(node.id(), "r", "again").ok();
            }
            Ok(())
        })
        .check(|history| {
            history.linearizable_within(Limits {
                steps: 1,
                ..Limits::default()
            })
        });
    let report = Campaign::new(&scenario).seeds(1..=3).jobs(1).run(|_| {});
    let failed = report.failed().expect("nobody knows");
    assert!(
        matches!(failed.run().failure(), Some(Failure::Unknown(_))),
        "{}",
        failed.run()
    );
    let printed = failed.run().to_string();
    assert!(
        printed.contains("FAILED: nobody knows whether the history is right: key \"r\""),
        "{printed}"
    );
    assert_eq!((failed.run().seed(), failed.run().svg()), (1, None));
}

#[test]
fn clients_that_end_early_are_a_failure() {
    let scenario = Scenario::new("clients that give up")
        .replicas(1..=1)
        .clients(1..=1)
        .operations(10)
        .duration(Duration::from_secs(1))
        .faults([])
        .replica(|node: Replica| async move { node.serve(node.server()).await })
        .client(|node: Client| async move {
            node.next_operation().await;
            Ok(())
        });
    let report = Campaign::new(&scenario).seeds([1]).run(|_| {});
    let failed = report.failed().expect("one operation is not ten");
    let Some(Failure::TooLittle(why)) = failed.run().failure() else {
        panic!("{}", failed.run());
    };
    assert!(
        why.starts_with("the clients ended after 1 operations and 0.")
            && why.ends_with(" s, and the scenario asks for 10 and 1.0 s"),
        "{why}"
    );
}

#[test]
fn a_campaign_knows_the_least_of_its_seeds() {
    let scenario = short(Memory::Durable).faults([FaultKind::Delay]);
    let runs: Vec<_> = (1..=3).map(|seed| scenario.run(seed)).collect();
    let report = Campaign::new(&scenario).seeds(1..=3).run(|_| {});
    let least = report.least().expect("three seeds");
    let min = |of: fn(&Run) -> usize| runs.iter().map(of).min();
    assert_eq!(Some(least.replicas), min(Run::replicas));
    assert_eq!(Some(least.clients), min(Run::clients));
    assert_eq!(Some(least.operations), min(Run::operations));
    assert_eq!(Some(least.faults_fired), min(Run::faults_fired));
    assert_eq!(
        Some(least.virtual_time),
        runs.iter().map(Run::virtual_time).min()
    );
}

#[test]
fn a_program_that_ends_or_fails_is_a_failure() {
    let wait = |node: Client| async move {
        while node.next_operation().await {}
        Ok(())
    };
    let serve = |node: Replica| async move { node.serve(node.server()).await };
    let empty = || {
        Scenario::new("empty")
            .replicas(1..=1)
            .clients(1..=1)
            .operations(1)
            .duration(Duration::from_millis(200))
            .faults([])
    };
    let cases = [
        (
            empty().replica(|_| async { Ok(()) }).client(wait),
            "replica-1 ended",
        ),
        (
            empty()
                .replica(|_| async { Err("no disk".into()) })
                .client(wait),
            "replica-1 ended: no disk",
        ),
        (
            empty()
                .replica(serve)
                .client(|_| async { Err("no luck".into()) }),
            "no luck",
        ),
        (
            empty().replica(serve).client(|_| std::future::pending()),
            "clients are still there after 1.2 s",
        ),
    ];
    for (scenario, expected) in cases {
        let run = scenario.run(1);
        assert_eq!(run.failure(), Some(&Failure::Ended(expected.to_owned())));
    }
    let reported = empty().replica(serve).client(|node: Client| async move {
        node.report(Violation::new("seen", []));
        Ok(())
    });
    let run = reported.run(1);
    assert_eq!(run.failure().unwrap().to_string(), "seen");
}

/// How often the scenario below has run.
static RUNS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

#[test]
fn what_the_seed_does_not_fix_is_found_by_the_second_run() {
    let scenario = Scenario::new("counts its runs")
        .replicas(1..=1)
        .clients(1..=1)
        .operations(1)
        .duration(Duration::from_millis(200))
        .faults([])
        .replica(|node: Replica| async move { node.serve(node.server()).await })
        .client(|node: Client| async move {
            while node.next_operation().await {
                let value = RUNS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                node.history().write(1, "k", value.to_string()).ok();
            }
            Ok(())
        });
    let report = Campaign::new(&scenario).seeds([20]).run(|_| {});
    let failed = report.failed().expect("two runs differ");
    let Some(Failure::NotTheSame(difference)) = failed.run().failure() else {
        panic!("{}", failed.run());
    };
    assert!(difference.contains("client 1 writes k = "), "{difference}");
}
