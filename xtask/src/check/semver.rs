//! Whether the public API is still what the version says: compared with that of the last release.
//!
//! A release is a tag `v1.2.3`. What is compared are the packages that are published and were there
//! at the last release.

use anyhow::{Context, Result};

use crate::command::Cmd;
use crate::tools;
use crate::workspace::{self, Package};

pub(super) fn run() -> Result<()> {
    let git = |args: &[&str]| Cmd::new("git").args(args.iter().copied());
    let tags = git(&["tag", "--merged", "HEAD", "--sort=-version:refname"]).output()?;
    let Some(tag) = newest(&tags) else {
        println!("nothing is released yet, so there is no baseline: no tag like v1.2.3");
        let is_shallow = git(&["rev-parse", "--is-shallow-repository"]).output()?;
        if is_shallow.trim() == "true" {
            println!(
                "note: this clone is shallow, so it may lack tags: `git fetch --unshallow --tags`"
            );
        }
        return Ok(());
    };
    let probe = Cmd::cargo().args(["semver-checks", "--version"]);
    tools::ready("cargo-semver-checks", &probe)?;
    let mut compared = Vec::new();
    for package in workspace::members()? {
        if !package.is_published() || !package.has_library() {
            continue;
        }
        let manifest = manifest(&package)?;
        if git(&["cat-file", "-e", &format!("{tag}:{manifest}")]).succeeds() {
            compared.push(package.name);
        } else {
            println!("{} is new since {tag}", package.name);
        }
    }
    if compared.is_empty() {
        println!("no package that is published was there at {tag}");
        return Ok(());
    }
    Cmd::cargo()
        .args(["semver-checks", "--baseline-rev", tag])
        .args(compared.iter().flat_map(|name| ["--package", name]))
        .run()
}

/// The first tag of a release in this list.
fn newest(tags: &str) -> Option<&str> {
    tags.lines().find(|tag| {
        let numbers = tag.strip_prefix('v').map(|rest| rest.split('.'));
        numbers.is_some_and(|numbers| {
            let are_numbers = numbers.clone().all(|number| number.parse::<u32>().is_ok());
            are_numbers && numbers.count() == 3
        })
    })
}

/// Where Git finds the package's Cargo.toml.
fn manifest(package: &Package) -> Result<String> {
    let root = workspace::root().canonicalize().context("the workspace")?;
    let path = package.manifest_path.strip_prefix(&root);
    let path = path.with_context(|| format!("{package} lies outside the workspace"))?;
    Ok(path.to_string_lossy().replace('\\', "/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_release_is_no_candidate_and_no_other_tag() {
        let tags = "vendor\nv0.3.0-rc.1\nv0.3\nv0.2.10\nv0.2.9\n";
        assert_eq!(newest(tags), Some("v0.2.10"));
        assert_eq!(newest("version-1\nv1\n"), None);
        assert_eq!(newest(""), None);
    }

    #[test]
    fn manifests_are_found_from_the_root() {
        let members = workspace::members().expect("a workspace");
        let gorums = members.iter().find(|package| package.name == "gorums");
        let gorums = gorums.expect("the library");
        assert!(gorums.is_published() && gorums.has_library());
        assert_eq!(
            manifest(gorums).expect("inside the workspace"),
            "crates/gorums/Cargo.toml"
        );
        let xtask = members.iter().find(|package| package.name == "xtask");
        assert!(!xtask.expect("this package").is_published());
    }
}
