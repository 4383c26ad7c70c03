//! The longer jobs of this workspace, each as one command: `cargo xtask --help`.

mod bench_compare;
mod certs;
mod chaos;
mod check;
mod command;
mod coverage;
mod fuzz;
mod interop;
mod interrupt;
mod live;
mod loom;
mod new;
mod sim;
mod tools;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    bin_name = "cargo xtask",
    about = "The longer jobs of this workspace, each as one command"
)]
struct Cli {
    #[command(subcommand)]
    job: Job,
}

#[derive(Subcommand)]
enum Job {
    New(new::Args),
    Certs(certs::Args),
    Check(check::Args),
    Layers(check::layers::Args),
    Interop(interop::Args),
    Loom(loom::Args),
    Fuzz(fuzz::Args),
    Sim(sim::Args),
    BenchCompare(bench_compare::Args),
    Live(live::Args),
    Chaos(chaos::Args),
    Coverage(coverage::Args),
}

fn main() -> ExitCode {
    match Cli::parse().job {
        Job::New(args) => new::run(&args),
        Job::Certs(args) => certs::run(&args),
        Job::Check(args) => check::run(&args),
        Job::Layers(args) => check::layers::command(&args),
        Job::Interop(args) => interop::run(&args),
        Job::Loom(args) => loom::run(&args),
        Job::Fuzz(args) => fuzz::run(&args),
        Job::Sim(args) => sim::run(&args),
        Job::BenchCompare(args) => bench_compare::run(&args),
        Job::Coverage(args) => coverage::run(&args),
        Job::Live(args) => live::run(&args),
        Job::Chaos(args) => chaos::run(&args),
    }
}
