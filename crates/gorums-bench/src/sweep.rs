//! `gorums-bench sweep`: the load is raised step by step.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::args::{Calls, Defaults, Plan, Sweep};
use crate::load::Load;
use crate::measure;
use crate::plot::{self, WithExtension};
use crate::progress::Progress;
use crate::report::{self, Report};
use crate::secure;

/// A sweep whose options make sense.
pub(crate) struct Job {
    calls: Calls,
    plan: Plan,
    loads: Vec<Load>,
    out: PathBuf,
    label: Option<String>,
}

impl Job {
    pub(crate) fn new(sweep: Sweep) -> Result<Self> {
        let plan = sweep.options.plan(Defaults::default())?;
        let loads = sweep.loads(&plan)?;
        let folder = sweep
            .out
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            bail!("--out: {} is no folder", folder.display());
        }
        Ok(Self {
            calls: sweep.benchmark,
            plan,
            loads,
            out: sweep.out,
            label: sweep.label,
        })
    }

    /// Measures each step, and draws. The figures of the steps that were made are written even
    /// where a later one fails.
    pub(crate) fn run(self) -> Result<()> {
        secure::begin(&self.plan)?;
        let plans: Vec<Plan> = self
            .loads
            .iter()
            .map(|&load| Plan {
                load,
                ..self.plan.clone()
            })
            .collect();
        let total: Duration = plans
            .iter()
            .map(|plan| measure::calls_time(self.calls, plan))
            .sum();
        let progress = Progress::of(total);
        let mut results = Vec::new();
        let mut failure = None;
        for plan in &plans {
            match measure::calls(self.calls, plan, &progress) {
                Ok(measured) => results.push(measured),
                Err(error) => {
                    let load = plan.load;
                    failure = Some(error.context(format!("the sweep ended at {load}")));
                    break;
                }
            }
        }
        drop(progress);
        let mut report = Report::new(results);
        report.label = self.label;
        if !report.results.is_empty() {
            let json = self.out.with_added_extension_of("json");
            report::write_to(&json, &report.json())?;
            plot::draw(std::slice::from_ref(&report), &self.out).context("the pictures")?;
            report::print(&report.table())?;
            let out = self.out.display();
            report::print(&format!("\n{out}.svg, {out}.png and {out}.json\n"))?;
        }
        failure.map_or(Ok(()), Err)
    }
}
