//! The picture beside docs/benchmarks.md: latency over throughput, of both sides.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Effort;
use crate::command::Cmd;
use crate::workspace;

/// Raises the load on both sides, from one call in flight to 1,024, and draws both into a file.
/// Each server is a process.
pub(super) fn draw(file: &Path, effort: Effort, ours: &Cmd, go: &Cmd) -> Result<()> {
    println!("\nlatency over throughput, for the picture");
    let folder = workspace::target().join("bench-compare");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let path = |name: &str| format!("{}/{name}", folder.display());
    let time = format!("{}s", effort.seconds);
    ours.clone()
        .args(["sweep", "--processes", "--duration", &time])
        .args(["--label", "this library", "--out", &path("ours")])
        .output()?;
    let text = fs::read_to_string(path("ours.json")).context("what the sweep wrote")?;
    let report: Value = serde_json::from_str(&text).context("what the sweep wrote")?;
    let gos = as_gos(report, |in_flight| {
        let in_flight = in_flight.to_string();
        let command = go.clone().args(["-processes", "-in-flight", &in_flight]);
        let command = command.args(["-duration", &time]);
        let output = command.output()?;
        serde_json::from_str(&output).with_context(|| format!("the output of `{command}`"))
    })?;
    fs::write(path("go.json"), gos.to_string()).context("writing Go's figures")?;
    ours.clone()
        .args(["plot", &path("ours.json"), &path("go.json")])
        .args(["--out", &path("both")])
        .output()?;
    fs::copy(path("both.svg"), file)
        .with_context(|| format!("writing {}", file.display()))
        .map(drop)
}

/// What a sweep of ours wrote, with Go's figures in place of ours: those of so many calls in
/// flight.
fn as_gos(mut report: Value, mut measure: impl FnMut(u64) -> Result<Value>) -> Result<Value> {
    report["label"] = json!("the Go library");
    // Go has as many threads as there are cores, on either side.
    let cores = report["machine"]["cores"].clone();
    let steps = report["results"]
        .as_array_mut()
        .context("a sweep has results")?;
    let mut versions = Value::Null;
    for step in steps {
        let in_flight = step["in_flight"].as_u64().context("a step has its load")?;
        let figures = measure(in_flight)?;
        for name in ["calls_per_second", "latency_us", "busy"] {
            step[name] = figures[name].clone();
        }
        step["threads"] = cores.clone();
        step["server_threads"] = Value::Null;
        versions = figures["versions"].clone();
    }
    let version = versions["github.com/relab/gorums"]
        .as_str()
        .unwrap_or("unknown");
    let (grpc, compiler) = (&versions["google.golang.org/grpc"], &versions["go"]);
    report["versions"]["gorums"] = json!(format!("{version} for Go"));
    report["versions"]["commit"] = Value::Null;
    report["versions"]["rustc"] = json!(format!(
        "grpc-go {}, {}",
        grpc.as_str().unwrap_or("unknown"),
        compiler.as_str().unwrap_or("unknown")
    ));
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gos_figures_take_the_place_of_ours() {
        let ours = json!({
            "label": "this library",
            "machine": {"cores": 2},
            "versions": {"gorums": "0.1.0", "commit": "abc", "rustc": "rustc 1.95"},
            "results": [
                {"in_flight": 1, "calls_per_second": 5.0, "latency_us": {"p50": 1.0}, "busy": false, "nodes": 3},
                {"in_flight": 8, "calls_per_second": 9.0, "latency_us": {"p50": 2.0}, "busy": false, "nodes": 3},
            ],
        });
        let gos = as_gos(ours, |in_flight| {
            Ok(json!({
                "calls_per_second": in_flight, "latency_us": {"p50": 40}, "busy": true,
                "versions": {"github.com/relab/gorums": "v0.11.0", "go": "go1.26", "google.golang.org/grpc": "v1.79"},
            }))
        });
        let gos = gos.expect("there are figures for each step");
        assert_eq!(gos["label"], "the Go library");
        assert_eq!(gos["versions"]["gorums"], "v0.11.0 for Go");
        assert_eq!(gos["versions"]["rustc"], "grpc-go v1.79, go1.26");
        let step = &gos["results"][1];
        assert_eq!(step["calls_per_second"], 8);
        assert_eq!(step["latency_us"]["p50"], 40);
        assert_eq!(step["busy"], true);
        assert_eq!(step["nodes"], 3);
        assert_eq!(step["threads"], 2);
        assert!(as_gos(json!({}), |_| Ok(Value::Null)).is_err());
    }
}
