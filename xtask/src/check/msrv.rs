//! The oldest supported compiler, `rust-version` in the workspace's Cargo.toml.
//!
//! Three things can break it, and not all of them can be seen without that compiler:
//!
//! - a dependency that needs a newer one: its own `rust-version` is compared here;
//! - a newer function of the standard library: clippy's `incompatible_msrv`, part of the `clippy`
//!   step;
//! - newer syntax or language features: only the compiler itself knows them, so the workspace is
//!   checked with it where rustup has it. Nothing is downloaded for this.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};

use crate::command::Cmd;
use crate::workspace::{self, Package, RustVersion};

pub(super) fn run() -> Result<()> {
    let packages = workspace::all_packages()?;
    let msrv = stated(&packages)?;
    compare_dependencies(&packages, msrv)?;
    match installed(msrv) {
        Some(toolchain) => Cmd::new("rustup")
            .args(["run", &toolchain, "cargo", "check", "--locked"])
            .args(["--workspace", "--all-targets", "--all-features"])
            .run(),
        None => {
            println!(
                "note: Rust {msrv} is not installed, so language features newer than it go unseen here; \
                 `rustup toolchain install {msrv}` where that is possible"
            );
            Ok(())
        }
    }
}

/// The one version that all packages of the workspace state.
fn stated(packages: &[Package]) -> Result<RustVersion> {
    let mut versions = BTreeSet::new();
    for package in packages.iter().filter(|package| package.source.is_none()) {
        let version = package
            .msrv()?
            .with_context(|| format!("{package} states no rust-version"))?;
        versions.insert(version);
    }
    let mut versions = versions.into_iter();
    match (versions.next(), versions.next()) {
        (Some(version), None) => Ok(version),
        (Some(one), Some(other)) => {
            bail!("the packages of the workspace state different rust-versions: {one}, {other}")
        }
        (None, _) => bail!("the workspace has no packages"),
    }
}

/// Fails where a dependency says that it needs a newer compiler.
fn compare_dependencies(packages: &[Package], msrv: RustVersion) -> Result<()> {
    let mut needs = Vec::new();
    let mut silent = 0;
    for package in packages.iter().filter(|package| package.source.is_some()) {
        match package.msrv()? {
            Some(version) => needs.push((version, package)),
            None => silent += 1,
        }
    }
    let newer: Vec<_> = needs
        .iter()
        .filter(|(version, _)| *version > msrv)
        .map(|(version, package)| format!("{package} needs Rust {version}"))
        .collect();
    if !newer.is_empty() {
        bail!("rust-version is {msrv}, but {}", newer.join(", "));
    }
    if let Some((version, package)) = needs.iter().max_by_key(|(version, _)| *version) {
        println!(
            "rust-version is {msrv}; of {} dependencies {package} needs the newest compiler, Rust {version}; {silent} say nothing",
            needs.len() + silent,
        );
    }
    Ok(())
}

/// The name under which rustup has the compiler, if it has it.
fn installed(msrv: RustVersion) -> Option<String> {
    let list = Cmd::new("rustup")
        .args(["toolchain", "list"])
        .output()
        .ok()?;
    pick(&list, msrv)
}

fn pick(list: &str, msrv: RustVersion) -> Option<String> {
    let short = format!("{}.{}", msrv.major, msrv.minor);
    list.lines()
        .filter_map(|line| line.split_whitespace().next())
        .find(|name| {
            name.strip_prefix(&short)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-']))
        })
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, source: Option<&str>, rust_version: Option<&str>) -> Package {
        Package {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            source: source.map(str::to_owned),
            rust_version: rust_version.map(str::to_owned),
            ..Package::default()
        }
    }

    fn version(text: &str) -> RustVersion {
        text.parse().unwrap()
    }

    #[test]
    fn a_dependency_that_needs_a_newer_compiler_is_named() {
        let packages = [
            package("old", Some("registry"), Some("1.60")),
            package("new", Some("registry"), Some("1.90")),
        ];
        let error = compare_dependencies(&packages, version("1.88")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "rust-version is 1.88, but new 1.0.0 needs Rust 1.90"
        );
    }

    #[test]
    fn the_workspace_must_state_one_version() {
        let same = [
            package("a", None, Some("1.88")),
            package("b", None, Some("1.88.0")),
        ];
        assert_eq!(stated(&same).unwrap(), version("1.88"));
        let missing = [package("a", None, None)];
        assert_eq!(
            stated(&missing).unwrap_err().to_string(),
            "a 1.0.0 states no rust-version"
        );
        let different = [
            package("a", None, Some("1.88")),
            package("b", None, Some("1.90")),
        ];
        assert!(stated(&different).is_err());
    }

    #[test]
    fn the_toolchain_of_the_stated_version_is_found_by_its_number() {
        let list = "stable-x86_64-unknown-linux-gnu (active, default)\n\
                    1.8.0-x86_64-unknown-linux-gnu\n\
                    1.88.0-x86_64-unknown-linux-gnu\n";
        assert_eq!(
            pick(list, version("1.88")).unwrap(),
            "1.88.0-x86_64-unknown-linux-gnu"
        );
        assert_eq!(pick(list, version("1.87")), None);
        assert_eq!(pick("1.88-host\n", version("1.88")).unwrap(), "1.88-host");
    }
}
