//! `cargo xtask coverage`: which lines the tests run.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;
use std::{env, fs};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::command::Cmd;
use crate::tools;
use crate::workspace::{self, Package};

/// Runs the tests in a build that counts what they run, and reports how much of each crate that is.
///
/// Documentation examples are not counted: compilers cannot do that yet, except for nightly ones.
/// The build has a folder of its own below the target folder, so that other builds lose nothing.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask coverage              all tests of the workspace
  cargo xtask coverage -p gorums    the library by its own tests")]
pub(crate) struct Args {
    /// Only the tests of this package, and only what they run of it; may be repeated
    #[arg(short, long = "package", value_name = "PACKAGE")]
    packages: Vec<String>,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    match report(&args.packages) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn report(chosen: &[String]) -> Result<()> {
    let members = workspace::members()?;
    for name in chosen {
        if !members.iter().any(|package| package.name == *name) {
            bail!("the workspace has no package {name}");
        }
    }
    ready()?;
    // What an earlier build has counted is not true of this one.
    Cmd::cargo()
        .args(["llvm-cov", "clean", "--workspace"])
        .run()?;
    let packages = || chosen.iter().flat_map(|name| ["--package", name.as_str()]);
    let tests = Cmd::cargo()
        .args(["llvm-cov", "--locked", "--no-report"])
        .args(chosen.is_empty().then_some("--workspace"))
        .args(packages());
    tests.run()?;

    let folder = workspace::target().join("coverage");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let folder = folder.canonicalize()?;
    let folder = folder.to_str().context("a target folder in UTF-8")?;
    let lcov = format!("{folder}/lcov.info");
    let report = || {
        Cmd::cargo()
            .args(["llvm-cov", "report", "--locked"])
            .args(packages())
    };
    report()
        .args(["--lcov", "--output-path", &lcov])
        .run_quietly(|_| {})?;
    report()
        .args(["--html", "--output-dir", folder])
        .run_quietly(|_| {})?;
    let summary = report().args(["--json", "--summary-only"]).output()?;
    let files = files(&summary)?;
    let shown: Vec<_> = members
        .into_iter()
        .filter(|package| chosen.is_empty() || chosen.contains(&package.name))
        .collect();
    print!("\n{}", table(&shown, &files)?);
    println!("line by line: {folder}/html/index.html; for other programs: {lcov}");
    Ok(())
}

/// Says what is missing before anything is built.
fn ready() -> Result<()> {
    let probe = Cmd::cargo().args(["llvm-cov", "--version"]);
    tools::ready("cargo-llvm-cov", &probe)?;
    let is_named = |name| env::var_os(name).is_some_and(|path| Path::new(&path).is_file());
    if is_named("LLVM_COV") && is_named("LLVM_PROFDATA") {
        return Ok(());
    }
    let rustc = |option: &[&str]| {
        Cmd::new("rustc")
            .args(option.iter().copied())
            .output()
            .map(|text| text.trim().to_owned())
    };
    let libraries = rustc(&["--print", "target-libdir"])?;
    // It is beside the folder of the libraries.
    let tool = Path::new(&libraries).with_file_name("bin").join("llvm-cov");
    if tool.is_file() || tool.with_extension("exe").is_file() {
        return Ok(());
    }
    let version = rustc(&["--version", "--verbose"])?;
    let llvm = version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))
        .unwrap_or("of the compiler");
    bail!(
        "LLVM's own tools are missing: `rustup component add llvm-tools`; or name those of an LLVM \
         not older than {llvm} by the environment variables LLVM_COV and LLVM_PROFDATA"
    )
}

/// What was counted, of a file or a package.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
struct Count {
    count: u64,
    covered: u64,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.covered += other.covered;
    }

    fn percent(self) -> String {
        if self.count == 0 {
            "-".to_owned()
        } else {
            format!("{:.1} %", self.covered as f64 * 100.0 / self.count as f64)
        }
    }
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
struct Counts {
    lines: Count,
    functions: Count,
    regions: Count,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.lines.add(other.lines);
        self.functions.add(other.functions);
        self.regions.add(other.regions);
    }
}

#[derive(Debug, Deserialize)]
struct File {
    filename: String,
    summary: Counts,
}

/// Reads the summary that `cargo llvm-cov report --json` prints.
fn files(summary: &str) -> Result<Vec<File>> {
    #[derive(Deserialize)]
    struct Summary {
        data: Vec<Data>,
    }
    #[derive(Deserialize)]
    struct Data {
        files: Vec<File>,
    }
    let summary: Summary =
        serde_json::from_str(summary).context("reading the summary of cargo-llvm-cov")?;
    Ok(summary
        .data
        .into_iter()
        .flat_map(|data| data.files)
        .collect())
}

/// A line for each package that has files, and one for all.
fn table(packages: &[Package], files: &[File]) -> Result<String> {
    let mut rows: BTreeMap<&str, Counts> = BTreeMap::new();
    let mut all = Counts::default();
    for file in files {
        // A package may lie in the folder of another one.
        let package = packages
            .iter()
            .filter(|package| Path::new(&file.filename).starts_with(package.folder()))
            .max_by_key(|package| package.folder().as_os_str().len());
        if let Some(package) = package {
            rows.entry(&package.name).or_default().add(file.summary);
            all.add(file.summary);
        }
    }
    if rows.is_empty() {
        bail!("no test runs anything of these packages");
    }
    let mut text = String::new();
    let head = ["package", "lines", "run", "functions", "regions"].map(str::to_owned);
    let rows = rows.into_iter().chain([("all", all)]);
    for [name, lines, run, functions, regions] in
        [head].into_iter().chain(rows.map(|(name, counts)| {
            [
                name.to_owned(),
                counts.lines.count.to_string(),
                counts.lines.percent(),
                counts.functions.percent(),
                counts.regions.percent(),
            ]
        }))
    {
        writeln!(
            text,
            "{name:24} {lines:>8} {run:>9} {functions:>9} {regions:>9}"
        )?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, folder: &str) -> Package {
        Package {
            name: name.to_owned(),
            manifest_path: format!("{folder}/Cargo.toml").into(),
            ..Package::default()
        }
    }

    const SUMMARY: &str = r#"{"data": [{"files": [
        {"filename": "/w/a/src/lib.rs", "summary": {
            "lines": {"count": 10, "covered": 5, "percent": 50.0},
            "functions": {"count": 3, "covered": 3, "percent": 100.0},
            "regions": {"count": 8, "covered": 2, "percent": 25.0}}},
        {"filename": "/w/a/b/src/lib.rs", "summary": {
            "lines": {"count": 30, "covered": 25, "percent": 83.3},
            "functions": {"count": 1, "covered": 0, "percent": 0.0},
            "regions": {"count": 0, "covered": 0, "percent": 0.0}}}
    ]}], "type": "llvm.coverage.json.export", "version": "3.1.0"}"#;

    #[test]
    fn files_are_added_up_by_the_innermost_package() {
        let packages = [package("a", "/w/a"), package("b", "/w/a/b")];
        let files = files(SUMMARY).expect("a summary");
        let table = table(&packages, &files).expect("a table");
        let rows: Vec<Vec<_>> = table
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(rows[1].join(" "), "a 10 50.0 % 100.0 % 25.0 %");
        assert_eq!(rows[2].join(" "), "b 30 83.3 % 0.0 % -");
        assert_eq!(rows[3].join(" "), "all 40 75.0 % 75.0 % 25.0 %");
    }

    #[test]
    fn packages_of_which_nothing_runs_are_an_error() {
        let files = files(SUMMARY).expect("a summary");
        assert!(table(&[package("c", "/w/c")], &files).is_err());
    }

    #[test]
    fn a_summary_that_has_changed_is_an_error() {
        assert!(files(r#"{"data": [{"files": [{"filename": "a"}]}]}"#).is_err());
    }
}
