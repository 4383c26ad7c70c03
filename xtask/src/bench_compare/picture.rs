//! The pictures beside docs/benchmarks.md: what is in them. Our program draws them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::case::{Case, Place};
use super::figures::Figures;
use super::job::Contender;
use super::record::{Compared, Results};
use crate::command::Cmd;

/// The names of the files.
pub(super) const COST: &str = "cost.svg";
pub(super) const LATENCY: &str = "latency.svg";

/// What our program draws, as it reads it.
#[derive(Debug, PartialEq, Serialize)]
struct Pictures {
    /// On what, and when.
    lines: Vec<String>,
    /// Of each contender, in the order of the colours.
    contenders: [&'static str; 3],
    cases: Vec<Bars>,
    curves: Vec<Curve>,
}

/// The contenders of a case, side by side.
#[derive(Debug, PartialEq, Serialize)]
struct Bars {
    title: String,
    bars: Vec<Bar>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Bar {
    contender: usize,
    name: String,
    calls_per_second: f64,
    cpu_us_per_call: Option<f64>,
}

/// A contender under rising loads.
#[derive(Debug, PartialEq, Serialize)]
struct Curve {
    contender: usize,
    points: Vec<Point>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Point {
    in_flight: usize,
    calls_per_second: f64,
    p50_us: f64,
    p99_us: f64,
}

/// Draws both into a folder; `None` where nothing of theirs was measured.
pub(super) fn draw(
    results: &Results,
    folder: &Path,
    data: &Path,
    ours: &Cmd,
) -> Result<Option<()>> {
    let pictures = Pictures::of(results);
    if pictures.cases.is_empty() || pictures.curves.is_empty() {
        return Ok(None);
    }
    let text = serde_json::to_string_pretty(&pictures).context("what is drawn")?;
    for folder in data.parent().into_iter().chain([folder]) {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    fs::write(data, text).with_context(|| format!("writing {}", data.display()))?;
    let path = |path: &Path| path.display().to_string();
    let (cost, latency) = (path(&folder.join(COST)), path(&folder.join(LATENCY)));
    ours.clone()
        .args([
            "contenders",
            &path(data),
            "--cost",
            &cost,
            "--latency",
            &latency,
        ])
        .output()?;
    Ok(Some(()))
}

impl Pictures {
    fn of(results: &Results) -> Self {
        let sides = &results.sides;
        let busy = if results.busy() {
            "; THE MACHINE WAS BUSY"
        } else {
            ""
        };
        let versions = [&sides.ours, &sides.tonic, &sides.go];
        let versions = versions.map(String::as_str);
        let mut lines = vec![format!("{}; {}{busy}", sides.machine, sides.date)];
        lines.extend(
            versions
                .iter()
                .filter(|version| !version.is_empty())
                .map(|version| (*version).to_owned()),
        );
        let cases = results.compared.iter().filter(|one| one.case.has_goal());
        let cases = cases.map(Bars::of).filter(|case| !case.bars.is_empty());
        let curves = (0..3).map(|contender| Curve::of(results, contender));
        Self {
            lines,
            // As `Compared::fastest` has them.
            contenders: ["the Go library", "by hand on tonic", "this library"],
            cases: cases.collect(),
            curves: curves.filter(|curve| !curve.points.is_empty()).collect(),
        }
    }
}

impl Bars {
    fn of(compared: &Compared) -> Self {
        let fastest = compared.fastest().into_iter().enumerate();
        let bars = fastest.filter_map(|(contender, fastest)| {
            let (by, figures) = fastest?;
            let name = match (by, compared.case.place) {
                (Contender::Tonic(threads) | Contender::Ours(threads), Place::OneProcess) => {
                    threads.to_string()
                }
                _ => String::new(),
            };
            Some(Bar {
                contender,
                name,
                calls_per_second: figures.calls_per_second,
                cpu_us_per_call: figures.cpu_us_per_call,
            })
        });
        Self {
            title: compared.case.to_string(),
            bars: bars.collect(),
        }
    }
}

impl Curve {
    fn of(results: &Results, contender: usize) -> Self {
        let points = Case::sweep().into_iter().filter_map(|case| {
            let mut compared = results.compared.iter();
            let compared = compared.find(|compared| compared.case == case)?;
            let (_, figures) = compared.fastest()[contender]?;
            let Figures {
                calls_per_second,
                latency_us,
                ..
            } = figures;
            Some(Point {
                in_flight: case.in_flight,
                calls_per_second: *calls_per_second,
                p50_us: latency_us.p50,
                p99_us: latency_us.p99,
            })
        });
        Self {
            contender,
            points: points.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::results;
    use super::*;

    #[test]
    fn each_contender_has_a_bar_in_each_case_and_a_curve() {
        let pictures = Pictures::of(&results(8.0));
        assert_eq!(pictures.cases.len(), 5);
        for case in &pictures.cases {
            let rates: Vec<f64> = case.bars.iter().map(|bar| bar.calls_per_second).collect();
            assert_eq!(rates, [1000.0, 2000.0, 8000.0], "{}", case.title);
            let cpu: Vec<_> = case.bars.iter().map(|bar| bar.cpu_us_per_call).collect();
            assert_eq!(cpu, [Some(50.0), Some(25.0), Some(6.25)]);
        }
        assert_eq!(pictures.cases[0].bars[2].name, "1 thread");
        for (number, curve) in pictures.curves.iter().enumerate() {
            assert_eq!(curve.contender, number);
            let loads: Vec<usize> = curve.points.iter().map(|point| point.in_flight).collect();
            assert_eq!(loads, [1, 10, 100, 1000]);
        }
        assert_eq!(pictures.curves[1].points[0].p50_us, 50.0);
        assert_eq!(pictures.curves[1].points[0].p99_us, 150.0);
    }

    #[test]
    fn who_was_not_measured_is_not_drawn() {
        let mut results = results(8.0);
        for compared in &mut results.compared {
            compared.tonic.clear();
        }
        let pictures = Pictures::of(&results);
        let drawn = |bars: &Bars| bars.bars.iter().all(|bar| bar.contender != 1);
        assert!(pictures.cases.iter().all(drawn));
        let contenders: Vec<usize> = pictures.curves.iter().map(|one| one.contender).collect();
        assert_eq!(contenders, [0, 2]);
        results.compared.clear();
        let nothing = Pictures::of(&results);
        assert!(nothing.cases.is_empty() && nothing.curves.is_empty());
    }
}
