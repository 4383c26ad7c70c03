//! What is told of a system.

use std::cmp::Reverse;
use std::fmt::{self, Write};
use std::time::Duration;

use anyhow::Result;
use gorums::NodeId;
use gorums::quorum::{Proof, QuorumSets};
use gorums_quorums::{
    AnalysisError, FailureProbability, MOST_QUORUMS, ReadFraction, Strategies, Strategy,
};
use serde_json::{Value, json};

use crate::args::{Args, Figures, Least};
use crate::names::Names;
use crate::system::System;

/// Shares of reads of which load and capacity are told: so many steps from 0 to 1.
const STEPS: u32 = 20;

/// So many quorums of a strategy are shown; the rest are counted.
const SHOWN: usize = 12;

/// The characters of the longest bar.
const BAR: f64 = 24.0;

pub(crate) struct Report<'a> {
    system: &'a System,
    args: &'a Args,
    reads: &'a ReadFraction,
    has_latencies: bool,
    /// Why there is none, where there are too many quorums.
    strategy: Result<Strategy, AnalysisError>,
    /// With the age of the nodes.
    failure: Option<(Result<FailureProbability, AnalysisError>, Duration)>,
    points: Vec<Point>,
}

/// What there is at a share of reads.
pub(crate) struct Point {
    pub(crate) share: f64,
    /// Load and capacity of the best strategy for this share.
    pub(crate) best: [f64; 2],
    /// Those of the strategy that is told.
    pub(crate) told: [f64; 2],
}

impl<'a> Report<'a> {
    /// Fails where no strategy is within the bounds.
    pub(crate) fn of(system: &'a System, args: &'a Args, figures: &'a Figures) -> Result<Self> {
        let mut plain = Strategies::of(&system.quorums)
            .with_capacities(figures.capacities.clone())
            .tolerating(args.tolerate);
        if let Some(latencies) = &figures.latencies {
            plain = plain.with_latencies(latencies.clone());
        }
        let mut bounded = plain.clone();
        if let Some(capacity) = args.capacity_at_least {
            bounded = bounded.with_load_at_most(1.0 / capacity);
        }
        if let Some(latency) = args.latency_at_most {
            bounded = bounded.with_latency_at_most(latency);
        }
        if let Some(nodes) = args.nodes_at_most {
            bounded = bounded.with_network_load_at_most(nodes);
        }
        let strategy = match args.least {
            Least::Load => bounded.least_load(&figures.reads),
            Least::Latency => bounded.least_latency(&figures.reads),
            Least::Nodes => bounded.least_network_load(&figures.reads),
        };
        let is_bounded = args.tolerate > 0
            || args.capacity_at_least.is_some()
            || args.latency_at_most.is_some()
            || args.nodes_at_most.is_some();
        if let Err(error) = &strategy
            && is_bounded
        {
            return Err(error.clone().into());
        }
        let mut points = Vec::new();
        if let Ok(strategy) = &strategy {
            for step in 0..=STEPS {
                let share = f64::from(step) / f64::from(STEPS);
                let reads = ReadFraction::of(share)?;
                let best = plain.least_load(&reads)?;
                points.push(Point {
                    share,
                    best: [best.load(&reads), best.capacity(&reads)],
                    told: [strategy.load(&reads), strategy.capacity(&reads)],
                });
            }
        }
        let failure = figures.faults.as_ref();
        Ok(Self {
            system,
            args,
            reads: &figures.reads,
            has_latencies: figures.latencies.is_some(),
            strategy,
            failure: failure.map(|(faults, at)| (faults.failure(&system.quorums, *at), *at)),
            points,
        })
    }

    pub(crate) fn points(&self) -> &[Point] {
        &self.points
    }

    fn names(&self) -> &Names {
        &self.system.names
    }

    fn sides(&self) -> [(&'static str, &QuorumSets); 2] {
        let quorums = &self.system.quorums;
        [("reads", quorums.read()), ("writes", quorums.write())]
    }

    /// Reads and writes of the strategy.
    fn chosen(strategy: &Strategy) -> [Vec<(&[NodeId], f64)>; 2] {
        let mut both = [
            strategy.reads().collect(),
            strategy.writes().collect::<Vec<_>>(),
        ];
        for chosen in &mut both {
            chosen.sort_by(|one: &(&[NodeId], f64), other| {
                other.1.total_cmp(&one.1).then(one.0.cmp(other.0))
            });
        }
        both
    }

    pub(crate) fn json(&self) -> Value {
        let (names, quorums) = (self.names(), &self.system.quorums);
        let [reads, writes] = self.sides().map(|(_, sets)| {
            json!({
                "quorums": sets.minimal_quorums(MOST_QUORUMS).map(|quorums| quorums.len()),
                "smallest": sets.smallest().map(|nodes| json!(names.list(&nodes))),
                "may_fail": sets.resilience(),
                "blocking": sets.blocking().map(|nodes| json!(names.list(&nodes))),
            })
        });
        let proof = match quorums.proof() {
            Proof::Formula => "formula",
            Proof::Enumeration { .. } => "enumeration",
            _ => "unproven",
        };
        let failure = self.failure.as_ref().map(|(failure, at)| match failure {
            Ok(failure) => json!({
                "after_seconds": at.as_secs_f64(),
                "reads": failure.reads,
                "writes": failure.writes,
                "either": failure.either,
            }),
            Err(error) => json!({ "unknown": error.to_string() }),
        });
        let points = self.points.iter().map(|point| {
            json!({
                "reads": point.share,
                "load": point.best[0],
                "capacity": point.best[1],
                "load_of_strategy": point.told[0],
                "capacity_of_strategy": point.told[1],
            })
        });
        json!({
            "system": self.system.title,
            "nodes": names.all().map(|(_, name)| name).collect::<Vec<_>>(),
            "proof": proof,
            "overlap": quorums.overlap(),
            "write_overlap": quorums.write_overlap(),
            "may_fail": quorums.resilience(),
            "reads": reads,
            "writes": writes,
            "failure_probability": failure,
            "strategy": match &self.strategy {
                Ok(strategy) => self.strategy_as_json(strategy),
                Err(error) => json!({ "unknown": error.to_string() }),
            },
            "by_share_of_reads": points.collect::<Vec<_>>(),
        })
    }

    fn strategy_as_json(&self, strategy: &Strategy) -> Value {
        let names = self.names();
        let [reads, writes] = Self::chosen(strategy).map(|chosen| {
            let chosen = chosen.iter();
            let chosen =
                chosen.map(|(nodes, share)| json!({ "quorum": names.list(nodes), "share": share }));
            chosen.collect::<Vec<_>>()
        });
        let loads = names
            .all()
            .map(|(node, name)| (name.to_owned(), json!(strategy.node_load(node, self.reads))));
        let latency = strategy.latency(self.reads).as_secs_f64();
        json!({
            "least": self.least(),
            "tolerates": self.args.tolerate,
            "load": strategy.load(self.reads),
            "capacity": strategy.capacity(self.reads),
            "latency_seconds": self.has_latencies.then_some(latency),
            "nodes": strategy.network_load(self.reads),
            "reads": reads,
            "writes": writes,
            "node_loads": loads.collect::<serde_json::Map<_, _>>(),
        })
    }

    fn least(&self) -> &'static str {
        match self.args.least {
            Least::Load => "load",
            Least::Latency => "latency",
            Least::Nodes => "nodes",
        }
    }

    fn write_proof(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quorums = &self.system.quorums;
        let how = match quorums.proof() {
            Proof::Formula => "by a formula".to_owned(),
            Proof::Enumeration { sets } => format!("by a look at all {sets} sets"),
            _ => "unproven: too many nodes to look at all sets, and nothing wrong was found"
                .to_owned(),
        };
        writeln!(f, "Proof: {how}.")?;
        match quorums.overlap() {
            0 => {}
            1 => writeln!(f, "A read and a write have a node in common at least.")?,
            nodes => writeln!(
                f,
                "A read and a write have {nodes} nodes in common at least."
            )?,
        }
        match (quorums.proof(), quorums.write_overlap()) {
            (Proof::Unproven, 0) => Ok(()),
            (_, 0) => writeln!(f, "Two writes may miss each other."),
            (_, 1) => writeln!(f, "Two writes have a node in common at least."),
            (_, nodes) => writeln!(f, "Two writes have {nodes} nodes in common at least."),
        }
    }

    fn write_sides(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.names();
        let unknown = || "not known".to_owned();
        let rows: [Row<'_>; 4] = [
            ("minimal quorums", &|sets| {
                let quorums = sets.minimal_quorums(MOST_QUORUMS);
                let many = || format!("unknown, or above {MOST_QUORUMS}");
                quorums.map_or_else(many, |quorums| quorums.len().to_string())
            }),
            ("smallest", &|sets| {
                let smallest = sets.smallest();
                smallest.map_or_else(unknown, |nodes| {
                    format!("{}: {}", nodes.len(), names.set(&nodes))
                })
            }),
            ("nodes that may fail", &|sets| {
                sets.resilience()
                    .map_or_else(unknown, |nodes| nodes.to_string())
            }),
            ("fewest that block", &|sets| {
                let blocking = sets.blocking();
                blocking.map_or_else(unknown, |nodes| names.set(&nodes).to_string())
            }),
        ];
        let mut table = vec![[String::new(), "reads".to_owned(), "writes".to_owned()]];
        for (what, of) in rows {
            let [reads, writes] = self.sides().map(|(_, sets)| of(sets));
            table.push([what.to_owned(), reads, writes]);
        }
        if let Some((Ok(failure), _)) = &self.failure {
            let [reads, writes] = [failure.reads, failure.writes].map(probability);
            table.push(["probability of none".to_owned(), reads, writes]);
        }
        write_table(f, &table)?;
        match &self.failure {
            None => Ok(()),
            Some((Err(error), _)) => writeln!(f, "\nFailure probability: {error}."),
            Some((Ok(failure), _)) => match failure.either {
                Some(either) => {
                    let either = probability(either);
                    writeln!(
                        f,
                        "\nNo reads, or no writes, with a probability of {either}."
                    )
                }
                None => writeln!(
                    f,
                    "\nHow probable it is that one of both fails is not known."
                ),
            },
        }
    }

    fn write_strategy(&self, f: &mut fmt::Formatter<'_>, strategy: &Strategy) -> fmt::Result {
        let names = self.names();
        let least = match self.args.least {
            Least::Load => "load",
            Least::Latency => "latency",
            Least::Nodes => "nodes asked",
        };
        let tolerates = match self.args.tolerate {
            0 => String::new(),
            1 => ", of sets of which any node may fail".to_owned(),
            nodes => format!(", of sets of which any {nodes} nodes may fail"),
        };
        writeln!(f, "Strategy with the least {least}{tolerates}:")?;
        let mut figures = vec![
            format!("load {}", figure(strategy.load(self.reads))),
            format!("capacity {}", figure(strategy.capacity(self.reads))),
            format!("nodes asked {}", figure(strategy.network_load(self.reads))),
        ];
        if self.has_latencies {
            figures.push(format!(
                "latency {}",
                duration(strategy.latency(self.reads))
            ));
        }
        writeln!(f, "{}\n", figures.join(", "))?;
        let mut lines = Vec::new();
        for ((kind, _), chosen) in self.sides().into_iter().zip(Self::chosen(strategy)) {
            for (at, (nodes, share)) in chosen.iter().take(SHOWN).enumerate() {
                let kind = if at == 0 { kind } else { "" };
                lines.push((kind.to_owned(), names.set(nodes).to_string(), *share));
            }
            if let Some(more) = chosen.len().checked_sub(SHOWN).filter(|more| *more > 0) {
                let share = chosen[SHOWN..].iter().map(|(_, share)| share).sum();
                lines.push((String::new(), format!("and {more} more"), share));
            }
        }
        let width = lines
            .iter()
            .map(|line| line.1.chars().count())
            .max()
            .unwrap_or(0);
        for (kind, nodes, share) in lines {
            let percent = format!("{:.1} %", share * 100.0);
            writeln!(
                f,
                "{kind:<6}  {nodes:<width$}  {percent:>7}  {}",
                bar(share)
            )?;
        }
        writeln!(f)?;
        let loads = names
            .all()
            .map(|(node, name)| (name, strategy.node_load(node, self.reads)));
        let mut loads: Vec<_> = loads.collect();
        let most = loads.iter().map(|(_, load)| *load).fold(0.0, f64::max);
        // Those that differ by what the solver is off by are as busy, and stay in order.
        loads.sort_by_key(|(_, load)| Reverse((load / most * 1e6).round() as u64));
        let shown = || loads.iter().take(SHOWN);
        let width = shown()
            .map(|(name, _)| name.chars().count())
            .max()
            .unwrap_or(0);
        for (at, (name, load)) in shown().enumerate() {
            let what = if at == 0 { "loads" } else { "" };
            writeln!(
                f,
                "{what:<6}  {name:<width$}  {:>9}  {}",
                figure(*load),
                bar(load / most)
            )?;
        }
        match loads.len().checked_sub(SHOWN) {
            Some(more) if more > 0 => writeln!(f, "{:<6}  and {more} more, no busier", "")?,
            _ => {}
        }
        writeln!(f)?;
        let mut table = vec![
            vec!["share of reads".to_owned()],
            vec!["least load".to_owned()],
            vec!["capacity".to_owned()],
        ];
        for point in self.points.iter().step_by(STEPS as usize / 4) {
            table[0].push(format!("{:.0} %", point.share * 100.0));
            table[1].push(figure(point.best[0]));
            table[2].push(figure(point.best[1]));
        }
        write_table(f, &table)
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<NodeId> = self.names().all().map(|(node, _)| node).collect();
        writeln!(
            f,
            "{}: {} nodes {}",
            self.system.title,
            nodes.len(),
            self.names().set(&nodes)
        )?;
        self.write_proof(f)?;
        writeln!(f)?;
        self.write_sides(f)?;
        writeln!(f)?;
        match &self.strategy {
            Ok(strategy) => self.write_strategy(f, strategy),
            Err(error) => writeln!(f, "Strategy: {error}."),
        }
    }
}

/// What is told, of reads and of writes alike.
type Row<'a> = (&'a str, &'a dyn Fn(&QuorumSets) -> String);

/// Columns that are as wide as their widest field; the last one needs no spaces.
fn write_table<R: AsRef<[String]>>(f: &mut fmt::Formatter<'_>, rows: &[R]) -> fmt::Result {
    let columns = rows.first().map_or(0, |row| row.as_ref().len());
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let widths = rows.iter().map(|row| row.as_ref()[column].chars().count());
            widths.max().unwrap_or(0)
        })
        .collect();
    for row in rows {
        let mut line = String::new();
        for (field, width) in row.as_ref().iter().zip(&widths) {
            write!(line, "{field:<width$}  ")?;
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}

/// With four digits that count.
pub(crate) fn figure(number: f64) -> String {
    if number == 0.0 {
        return "0".to_owned();
    }
    let digits = number.abs().log10().floor();
    if !(-5.0..9.0).contains(&digits) {
        return format!("{number:.3e}");
    }
    let decimals = (3.0 - digits).max(0.0) as usize;
    let text = format!("{number:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// As a percentage where that can be read.
fn probability(number: f64) -> String {
    match number {
        0.0 => "0".to_owned(),
        0.0..1e-6 => format!("{number:.3e}"),
        _ => format!("{} %", figure(number * 100.0)),
    }
}

fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds >= 1.0 {
        format!("{} s", figure(seconds))
    } else if seconds >= 1e-3 || seconds == 0.0 {
        format!("{} ms", figure(seconds * 1e3))
    } else {
        format!("{} µs", figure(seconds * 1e6))
    }
}

/// A bar of a part of the longest one.
fn bar(part: f64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (part.clamp(0.0, 1.0) * BAR * 8.0).round() as usize;
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_the_digits_that_count() {
        for (number, text) in [
            (0.0, "0"),
            (0.375, "0.375"),
            (1.0 / 3.0, "0.3333"),
            (0.000_75, "0.00075"),
            (2666.7, "2667"),
            (1_234_567.0, "1234567"),
            (12.5, "12.5"),
            (1e-9, "1.000e-9"),
            (1e12, "1.000e12"),
        ] {
            assert_eq!(figure(number), text);
        }
        assert_eq!(probability(0.000_298), "0.0298 %");
        assert_eq!(probability(1e-12), "1.000e-12");
        assert_eq!(duration(Duration::from_micros(1500)), "1.5 ms");
    }

    #[test]
    fn a_bar_is_as_long_as_its_part() {
        assert_eq!(bar(1.0).chars().count(), 24);
        assert_eq!(bar(0.5), "█".repeat(12));
        assert_eq!(bar(1.0 / 48.0), "▌");
        assert_eq!(bar(0.0), "");
    }
}
