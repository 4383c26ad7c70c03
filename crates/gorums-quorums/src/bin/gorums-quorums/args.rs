//! What can be typed.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Parser, ValueEnum};
use gorums_quorums::{Capacities, FaultCurve, Faults, Latencies, ReadFraction};

use crate::names::Names;

/// Tells of a quorum system how it is known to hold, how many nodes may fail, what it costs its
/// nodes, how fast it is and how often it fails, and finds the best strategy.
///
/// A system is a family and its numbers, or an expression that says which nodes a read needs: names
/// or numbers, put together by & or *, | or +, parentheses, and choose(k, …), majority(…), all(…)
/// and any(…). Where nothing else is said, a write needs a node of each read.
#[derive(Debug, Parser)]
#[command(name = "gorums-quorums", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Args {
    /// A family and its numbers, or an expression
    #[arg(required = true, value_name = "SYSTEM")]
    pub(crate) system: Vec<String>,

    /// The nodes that a write needs, where the system is an expression
    #[arg(long, value_name = "EXPRESSION")]
    pub(crate) writes: Option<String>,

    /// Refuse the system unless any two writes have so many nodes in common
    #[arg(
        long,
        value_name = "NODES",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub(crate) write_overlap: usize,

    /// The share of operations that are reads; or several, each with a weight: 0.1:1,0.75:2
    #[arg(short, long, value_name = "SHARE", default_value = "0.5")]
    pub(crate) reads: String,

    /// Operations that each node can do, READS/WRITES where these differ, and of some nodes others:
    /// 1000,b=500/100
    #[arg(short, long, value_name = "EACH,NODE=…", default_value = "1")]
    capacity: String,

    /// How long each node takes to answer: 2ms,c=30ms
    #[arg(short, long, value_name = "EACH,NODE=…")]
    latency: Option<String>,

    /// How probable it is that a node is down: 0.01,c=0.05; or how it becomes so in the time of --at:
    /// exp:TIME fails after this mean, weibull:TIME:SHAPE, and repaired:UP:DOWN is up again
    #[arg(short, long, value_name = "EACH,NODE=…")]
    down: Option<String>,

    /// The age of the nodes, for curves of --down [default: 1year]
    #[arg(long, value_name = "TIME", requires = "down", value_parser = humantime::parse_duration)]
    at: Option<Duration>,

    /// Choose sets that contain a quorum whichever F of their nodes fail
    #[arg(
        short = 'f',
        long,
        value_name = "F",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub(crate) tolerate: usize,

    /// What the strategy has the least of
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = Least::Load)]
    pub(crate) least: Least,

    /// Only strategies by which the nodes can do so many operations together: its load is no more
    /// than 1 / this
    #[arg(long, value_name = "OPERATIONS")]
    pub(crate) capacity_at_least: Option<f64>,

    /// Only strategies by which an operation takes no longer on the average
    #[arg(long, value_name = "TIME", requires = "latency", value_parser = humantime::parse_duration)]
    pub(crate) latency_at_most: Option<Duration>,

    /// Only strategies by which an operation is sent to no more nodes on the average
    #[arg(long, value_name = "NODES")]
    pub(crate) nodes_at_most: Option<f64>,

    /// Draw load and capacity over the share of reads into this file
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,

    /// Print all of it as JSON, in the place of tables
    #[arg(long)]
    pub(crate) json: bool,
}

const AFTER_HELP: &str = "\
Families:
  majority N              more than half, for reads and for writes
  threshold N K           K nodes, for reads and for writes
  flexible N R W          reads of R nodes, writes of W
  read-one N              reads of any node, writes of all
  all N                   all nodes
  weighted VOTES,…        more than half of all votes
  weighted VOTES,… R W    reads of R votes, writes of W
  grid ROWSxCOLUMNS       reads of a node of each row, or a row; writes of both
  zones ZONESxNODES       of more than half of the zones, more than half of each
  zones NODES,…           the same, of zones of different sizes
  dissemination N F       F nodes may lie, of data that prove who wrote them
  masking N F             F nodes may lie, of any data

Examples:
  gorums-quorums majority 5
  gorums-quorums grid 2x3 --reads 0.9 --svg grid.svg
  gorums-quorums 'a*b*c + d*e*f' -c 1000,b=500,d=500,f=500 --reads 0.75
      The example of Quoracle: two rows, of which a read needs one.
  gorums-quorums '(1 & 2) | (3 & 4)' --writes 'choose(3, 1, 2, 3, 4)'
      Reads and writes each by an expression.
  gorums-quorums zones 3x3 --down repaired:30days:1hour
      How often it fails, of nodes that fail once a month, for an hour.
  gorums-quorums 'a*b + c*d' -l 4s,c=1s,d=1s --least latency
      The fastest strategy; --capacity-at-least is the room that it leaves.

Exit codes: 0 all is told; 1 no strategy is within the bounds, or a file was not written; 2 the options are wrong, or the
system does not hold.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Least {
    /// The busiest node has the least to do: the nodes can do the most together
    Load,
    /// Operations are the fastest; --latency says by which nodes
    Latency,
    /// Operations are sent to the fewest nodes
    Nodes,
}

/// The figures of the nodes and of the workload, checked.
pub(crate) struct Figures {
    pub(crate) reads: ReadFraction,
    pub(crate) capacities: Capacities,
    pub(crate) latencies: Option<Latencies>,
    /// With the time that is looked at.
    pub(crate) faults: Option<(Faults, Duration)>,
}

impl Args {
    pub(crate) fn figures(&self, names: &Names) -> Result<Figures> {
        if self.least == Least::Latency && self.latency.is_none() {
            bail!("--least latency: --latency has to say how fast the nodes are");
        }
        for (option, bound) in [
            ("--capacity-at-least", self.capacity_at_least),
            ("--nodes-at-most", self.nodes_at_most),
        ] {
            if let Some(bound) = bound.filter(|bound| !(bound.is_normal() && *bound > 0.0)) {
                bail!("{option}: it is a number above zero, and not {bound}");
            }
        }
        let latencies = self.latency.as_ref().map(|text| {
            let (others, own) = per_node(text, names, |text| Ok(humantime::parse_duration(text)?))?;
            let with = |latencies: Latencies, (node, latency)| latencies.with(node, latency);
            Ok::<_, anyhow::Error>(own.into_iter().fold(Latencies::each(others), with))
        });
        let faults = self.down.as_ref().map(|text| {
            let (others, own) = per_node(text, names, curve)?;
            let with = |faults: Faults, (node, curve)| faults.with(node, curve);
            let year = || humantime::parse_duration("1year").unwrap_or_default();
            let faults = own.into_iter().fold(Faults::each(others), with);
            Ok::<_, anyhow::Error>((faults, self.at.unwrap_or_else(year)))
        });
        Ok(Figures {
            reads: read_fraction(&self.reads).context("--reads")?,
            capacities: capacities(&self.capacity, names).context("--capacity")?,
            latencies: latencies.transpose().context("--latency")?,
            faults: faults.transpose().context("--down")?,
        })
    }
}

fn number(text: &str) -> Result<f64> {
    let text = text.trim();
    text.parse().map_err(|_| anyhow!("{text:?} is no number"))
}

/// `0.5`, or `0.1:1,0.75:2`.
fn read_fraction(text: &str) -> Result<ReadFraction> {
    let shares = text.split(',').map(|part| {
        let (share, weight) = part.split_once(':').unwrap_or((part, "1"));
        Ok((number(share)?, number(weight)?))
    });
    let shares: Vec<_> = shares.collect::<Result<_>>()?;
    Ok(ReadFraction::distribution(shares)?)
}

fn capacities(text: &str, names: &Names) -> Result<Capacities> {
    let (others, own) = per_node(text, names, |text| match text.split_once('/') {
        None => Ok([number(text)?; 2]),
        Some((reads, writes)) => Ok([number(reads)?, number(writes)?]),
    })?;
    let all = Capacities::each_rates(others[0], others[1])?;
    let capacities = own
        .into_iter()
        .try_fold(all, |all, (node, [reads, writes])| {
            all.with_rates(node, reads, writes)
        });
    Ok(capacities?)
}

/// `0.01`, `exp:4years`, `weibull:4years:1.5`, `repaired:30days:1hour`.
fn curve(text: &str) -> Result<FaultCurve> {
    let time =
        |text: &str| humantime::parse_duration(text).map_err(|error| anyhow!("{text:?}: {error}"));
    let parts: Vec<_> = text.split(':').map(str::trim).collect();
    Ok(match parts[..] {
        [probability] => FaultCurve::constant(number(probability)?)?,
        ["exp", mean] => FaultCurve::exponential(time(mean)?)?,
        ["weibull", scale, shape] => FaultCurve::weibull(time(scale)?, number(shape)?)?,
        ["repaired", up, down] => FaultCurve::repaired(time(up)?, time(down)?)?,
        _ => bail!(
            "{text:?} is no probability, and none of exp:TIME, weibull:TIME:SHAPE and repaired:UP:DOWN"
        ),
    })
}

/// `1000,b=500`: of all others, and of some nodes. Where each has its own, there need be no others.
fn per_node<T: Copy>(
    text: &str,
    names: &Names,
    parse: impl Fn(&str) -> Result<T>,
) -> Result<(T, Vec<(gorums::NodeId, T)>)> {
    let (mut others, mut own) = (None, Vec::<(gorums::NodeId, T)>::new());
    for part in text.split(',') {
        match part.split_once('=') {
            None if others.is_some() => {
                bail!("{part:?} is a second figure for all others: NODE=… is missing")
            }
            None => others = Some(parse(part)?),
            Some((name, figure)) => {
                let name = name.trim();
                let Some(node) = names.known(name) else {
                    let known = names.all().map(|(_, name)| name);
                    let known: Vec<_> = known.take(20).collect();
                    bail!("there is no node {name:?}; they are {}", known.join(", "));
                };
                if own.iter().any(|(other, _)| *other == node) {
                    bail!("{name:?} has two figures");
                }
                own.push((node, parse(figure)?));
            }
        }
    }
    let without = names
        .all()
        .find(|(node, _)| !own.iter().any(|(other, _)| other == node));
    match (others, without) {
        (Some(others), _) => Ok((others, own)),
        (None, None) => {
            let (_, any) = *own.first().context("it is empty")?;
            Ok((any, own))
        }
        (None, Some((_, name))) => {
            bail!("{name:?} has no figure: begin with that of all others, as in 5,{text}")
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_options_fit_together() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_examples_can_be_pasted_at_any_width_from_80_columns_on() {
        for width in [80, 100, 120] {
            let help = Args::command().term_width(width).render_help().to_string();
            for line in AFTER_HELP.lines().filter(|line| line.starts_with("  ")) {
                assert!(help.lines().any(|shown| shown == line), "{width}: {line}");
            }
        }
    }

    #[test]
    fn figures_are_for_all_nodes_and_for_some() {
        let names = Names::numbers(3);
        let parse = |text: &str| per_node(text, &names, number);
        let id = |id: u32| gorums::NodeId::from(id);
        assert_eq!(parse("5,2=7").expect("legal"), (5.0, vec![(id(2), 7.0)]));
        assert_eq!(
            parse(" 2 = 7 , 5").expect("legal"),
            (5.0, vec![(id(2), 7.0)])
        );
        assert_eq!(parse("1=1,2=2,3=3").expect("legal").1.len(), 3);
        for (text, says) in [
            ("", "no number"),
            ("5,6", "second figure"),
            ("2=7", "\"1\" has no figure"),
            ("5,4=1", "no node \"4\"; they are 1, 2, 3"),
            ("5,2=1,2=1", "two figures"),
            ("5,2=x", "\"x\" is no number"),
        ] {
            let error = format!("{:#}", parse(text).expect_err(text));
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn curves_are_told_apart() {
        for text in [
            "0.1",
            "exp:4years",
            "weibull:4years:1.5",
            "repaired:30days:1hour",
        ] {
            curve(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        }
        for text in [
            "",
            "x",
            "2",
            "exp",
            "exp:",
            "exp:0s",
            "weibull:1s:0",
            "repaired:1s",
            "NaN",
        ] {
            assert!(curve(text).is_err(), "{text}");
        }
    }
}
