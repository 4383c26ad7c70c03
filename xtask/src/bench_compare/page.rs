//! docs/benchmarks.md.

use std::fmt::Write;

use super::Results;
use super::case::{Place, size};
use super::figures::{Figures, grouped};
use super::goals::{Goals, Reached};

/// What a goal is, for readers who find that one is not reached.
const WHY: &str = "\
A goal says where this library is to get, by the figures that the Go library had when it was set ([The Go side](#the-go-side)).
\"**not reached**\" means that it is not there yet, and not that something is wrong: what was found stands beside it, and 1 × Go is as
good as the Go library. In one process the client and three servers share the threads, so that what a call costs at each of them adds
up. On Go's servers most of the processor's time is theirs, whoever calls them. The floor is the same calls over plain TCP, without
HTTP/2, order, deadlines, bounds and failures; the distance to it is what these cost.
";

/// The page, as Markdown, with the picture that lies beside it.
pub(super) fn write(results: &Results, goals: &Goals, picture: Option<&str>) -> String {
    let mut text = String::new();
    page(&mut text, results, goals, picture).expect("a string takes everything");
    text
}

fn page(
    text: &mut String,
    results: &Results,
    goals: &Goals,
    picture: Option<&str>,
) -> std::fmt::Result {
    let sides = &results.sides;
    writeln!(
        text,
        "# Benchmarks

Quorum calls of this library and of the Go library, side by side. Written by `cargo xtask bench-compare`;
[BENCHMARKING.md](../BENCHMARKING.md) says how, and what the figures mean.

| | |
|---|---|
| date | {} |
| machine | {} |
| this library | {} |
| the Go library | {} |
| each figure | {} s after one to warm up, {} |
",
        sides.date,
        sides.machine,
        sides.ours,
        sides.go,
        results.effort.seconds,
        times(results.effort.repeats),
    )?;
    if results.busy() {
        writeln!(
            text,
            "**The machine was busy.** What is marked with \\* was measured while others used more than a twentieth of it, and says \
             little; CPU per call suffers least.\n"
        )?;
    }
    writeln!(
        text,
        "## Goals

{WHY}
In one process a figure is that of the threads on which it is best, which are named beside it. The floor and slow
servers are those of the threads on which this library makes more calls per second; what it is compared with ran on the same ones.

| what | wanted | found | |
|---|---|---|---|"
    )?;
    for goal in &goals.rows {
        let found = goal.reached.to_string().replace('*', "\\*");
        let verdict = match (goal.is_reached(), &goal.reached) {
            (Some(true), _) => "reached".to_owned(),
            (Some(false), _) => "**not reached**".to_owned(),
            (None, Reached::NotMeasured(why)) => format!("not measured: {why}"),
            (None, Reached::Figure { .. }) => "not judged".to_owned(),
        };
        writeln!(
            text,
            "| {} | {} | {found} | {verdict} |",
            goal.what, goal.wanted
        )?;
    }
    if let Some(picture) = picture {
        writeln!(
            text,
            "
## Latency over throughput

From one call in flight to 1,024; three servers, each in a process of its own, 0 B. Both axes matter: to the right is more, and down is
sooner. The scale of the latency is logarithmic.

![latency over throughput]({picture})"
        )?;
    }
    for place in [Place::OneProcess, Place::Processes] {
        table(text, results, place)?;
    }
    mixed(text, results)?;
    go(text, goals)
}

fn mixed(text: &mut String, results: &Results) -> std::fmt::Result {
    writeln!(
        text,
        "
## Go and this library in one system

Three servers, each in a process of its own, 100 calls in flight, 0 B. **Go is not the Go library here**, whose published module speaks
an older protocol: it is the client and server of the interoperability tests (`interop/go`), on the same grpc-go.

| | calls/s | × Go on Go | p50 µs | × | p99 µs | CPU | × | client allocations | cores |
|---|---|---|---|---|---|---|---|---|---|"
    )?;
    let [(name, go), others @ ..] = results.mixed.all();
    writeln!(text, "| {name} | {}", row(go, None))?;
    for (name, figures) in others {
        writeln!(text, "| {name} | {}", row(figures, Some(go)))?;
    }
    Ok(())
}

fn table(text: &mut String, results: &Results, place: Place) -> std::fmt::Result {
    let (title, threads, allocations) = match place {
        Place::OneProcess => (
            "Client and servers in one process",
            "On 1 thread and on 2, client and servers share a runtime; on 1 + 1 threads the client has one and the servers another, each \
             on a thread of its own. Go's scheduler has all cores in any case.\n\n",
            "client and servers",
        ),
        Place::Processes => ("Each server in a process of its own", "", "client"),
    };
    writeln!(
        text,
        "
## {title}

{threads}CPU is that of client and servers together, in µs per call; allocations are those of the {allocations}, per call; the last
column tells how many ns a cache line took to another core and back (see BENCHMARKING.md), where our program ran.

| nodes | in flight | payload | | calls/s | × Go | p50 µs | × Go | p99 µs | CPU | × Go | allocations | cores |
|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    )?;
    for compared in &results.compared {
        let case = compared.case;
        if case.place != place {
            continue;
        }
        let (nodes, in_flight, payload) = (case.nodes, case.in_flight, size(case.payload));
        let go = &compared.go;
        writeln!(
            text,
            "| {nodes} | {in_flight} | {payload} | Go | {}",
            row(go, None)
        )?;
        for (threads, ours) in &compared.ours {
            writeln!(text, "| | | | {threads} | {}", row(ours, Some(go)))?;
        }
    }
    Ok(())
}

/// The figures of one side, and where it is ours those of Go beside them.
fn row(figures: &Figures, go: Option<&Figures>) -> String {
    let ratio = |own: Option<f64>, of: fn(&Figures) -> Option<f64>| {
        let ratio = own.zip(go.and_then(of)).map(|(own, go)| own / go);
        ratio.map_or_else(String::new, |ratio| {
            let digits = if ratio < 2.0 { 3 } else { 1 };
            format!("{ratio:.digits$}")
        })
    };
    let number = |figure: Option<f64>| {
        figure.map_or_else(|| "–".to_owned(), |figure| format!("{figure:.1}"))
    };
    let rate = figures.calls_per_second;
    let latency = figures.latency_us;
    let cpu = figures.cpu_us_per_call;
    format!(
        "{}{} | {} | {:.1} | {} | {:.1} | {} | {} | {} | {} |",
        grouped(rate),
        if figures.busy { "\\*" } else { "" },
        ratio(Some(rate), |go| Some(go.calls_per_second)),
        latency.p50,
        ratio(Some(latency.p50), |go| Some(go.latency_us.p50)),
        latency.p99,
        cpu.map_or_else(|| "–".to_owned(), |cpu| format!("{cpu:.2}")),
        ratio(cpu, |go| go.cpu_us_per_call),
        number(figures.allocations_per_call),
        figures
            .core_round_trip_ns
            .map_or_else(String::new, |nanos| format!("{nanos:.0}")),
    )
}

fn go(text: &mut String, goals: &Goals) -> std::fmt::Result {
    writeln!(
        text,
        "
## The Go side

The goals were set by figures of the Go library's commit 3241d25b on a quiet machine with two cores. What is measured here is its
published module v0.11.0, which frames messages in another way. Each figure should be within 15 % of the earlier one on such a
machine.

| what | then | now | |
|---|---|---|---|"
    )?;
    for figure in &goals.go {
        let busy = if figure.busy { "\\*" } else { "" };
        let (then, now) = (grouped(figure.expected), grouped(figure.found));
        let change = figure.deviation() * 100.0;
        writeln!(
            text,
            "| {} | {then} | {now}{busy} | {change:+.0} % |",
            figure.what
        )?;
    }
    Ok(())
}

fn times(count: usize) -> String {
    match count {
        1 => "once".to_owned(),
        more => format!(
            "{more} times in turn: the run in the middle by calls per second, and the least CPU of all"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::goals::tests::results;
    use super::*;

    #[test]
    fn the_page_has_a_row_for_each_side_of_each_case() {
        let results = results(11.0);
        let page = write(&results, &Goals::of(&results), None);
        assert_eq!(page.matches("| Go | 1,000 |").count(), 36);
        assert_eq!(page.matches("| 1 thread | 11,000 | 11.0 |").count(), 36);
        assert_eq!(page.matches("| 2 threads | 5,500 | 5.5 |").count(), 18);
        assert_eq!(page.matches("| 1 + 1 threads | 8,800 | 8.8 |").count(), 18);
        assert!(page.contains("| 11.00 (1 thread) | reached |"), "{page}");
        assert_eq!(page.matches("| **not reached** |").count(), 3);
        let published = include_str!("../../../docs/benchmarks.md");
        assert!(page.contains(WHY) && published.contains(WHY));
        assert!(!page.contains("busy"), "{page}");
    }

    #[test]
    fn the_picture_is_shown_where_there_is_one() {
        let results = results(11.0);
        let goals = Goals::of(&results);
        assert!(write(&results, &goals, Some("a.svg")).contains("](a.svg)"));
        assert!(!write(&results, &goals, None).contains("Latency over"));
    }

    #[test]
    fn a_busy_machine_is_marked() {
        let mut results = results(11.0);
        results.compared[0].go.busy = true;
        let page = write(&results, &Goals::of(&results), None);
        assert!(page.contains("**The machine was busy.**"));
        assert!(page.contains("| 3 | 1 | 0 B | Go | 1,000\\* |"), "{page}");
    }

    #[test]
    fn every_row_has_as_many_cells_as_its_header() {
        let results = results(11.0);
        let page = write(&results, &Goals::of(&results), None);
        let mut cells = 0;
        for line in page.lines() {
            let count = line.matches('|').count();
            if line.starts_with("|---") {
                assert_eq!(count, cells, "{line}");
            }
            if cells > 0 && line.starts_with('|') {
                assert_eq!(count, cells, "{line}");
            }
            cells = if line.starts_with('|') { count } else { 0 };
        }
    }
}
