//! Tells of a quorum system what is to be known of it: `gorums-quorums --help`.

mod args;
mod expression;
mod names;
mod picture;
mod report;
mod system;

use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use crate::args::Args;
use crate::report::Report;
use crate::system::System;

/// The exit status where something failed.
const FAILED: u8 = 1;
/// The exit status where the options are wrong, or the system does not hold.
const WRONG_OPTIONS: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    let checked = System::parse(&args.system, args.writes.as_deref(), args.write_overlap)
        .and_then(|system| Ok((args.figures(&system.names)?, system)));
    let (figures, system) = match checked {
        Ok(checked) => checked,
        Err(error) => {
            eprintln!("gorums-quorums: {error:#}");
            return WRONG_OPTIONS.into();
        }
    };
    match Report::of(&system, &args, &figures).and_then(|report| tell(&report, &args, &system)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gorums-quorums: {error:#}");
            FAILED.into()
        }
    }
}

fn tell(report: &Report<'_>, args: &Args, system: &System) -> Result<()> {
    if let Some(file) = &args.svg {
        if report.points().is_empty() {
            anyhow::bail!("--svg: there is no strategy to draw, as there are too many quorums");
        }
        let least = match args.least {
            args::Least::Load => "least load",
            args::Least::Latency => "least latency",
            args::Least::Nodes => "fewest nodes asked",
        };
        let told = format!("the strategy with the {least} at --reads {}", args.reads);
        let svg = picture::draw(&system.title, &told, report.points());
        fs::write(file, svg).with_context(|| format!("writing {}", file.display()))?;
    }
    let text = match args.json {
        true => serde_json::to_string_pretty(&report.json())? + "\n",
        false => report.to_string(),
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        // Where nobody reads on, nobody needs to be told.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("writing to standard output"),
    }
}
