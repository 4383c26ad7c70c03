//! Each package by itself, with none of its features and with each one alone.
//!
//! A build of the whole workspace hides two mistakes: code that needs a feature which only another
//! member turns on, and code behind one feature that needs a second one.

use anyhow::{Result, bail};

use crate::command::Cmd;
use crate::workspace::{self, Package};

pub(super) fn run(keep_going: bool) -> Result<()> {
    let mut failed = Vec::new();
    for package in workspace::members()? {
        for choice in choices(&package) {
            // Clippy instead of a plain check, because only it can deny warnings without building
            // every dependency again.
            let result = Cmd::cargo()
                .args(["clippy", "--locked", "--package", &package.name])
                .args(choice.iter().map(String::as_str))
                .args(["--", "-D", "warnings"])
                .run();
            match result {
                Err(error) if keep_going => failed.push(error.to_string()),
                result => result?,
            }
        }
    }
    if !failed.is_empty() {
        bail!("{}", failed.join(", "));
    }
    Ok(())
}

/// The feature options to build a package with, one list for each build.
fn choices(package: &Package) -> Vec<Vec<String>> {
    let none = || vec!["--no-default-features".to_owned()];
    let mut choices = vec![none()];
    for feature in package.features.keys() {
        choices.push(match feature.as_str() {
            "default" => Vec::new(),
            name => [none(), vec!["--features".to_owned(), name.to_owned()]].concat(),
        });
    }
    choices
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(features: &[&str]) -> Package {
        Package {
            name: "demo".to_owned(),
            features: features
                .iter()
                .map(|&name| (name.to_owned(), Vec::new()))
                .collect(),
            ..Package::default()
        }
    }

    fn shown(features: &[&str]) -> Vec<String> {
        let choices = choices(&package(features));
        choices.iter().map(|choice| choice.join(" ")).collect()
    }

    #[test]
    fn a_package_without_features_is_built_once() {
        assert_eq!(shown(&[]), ["--no-default-features"]);
    }

    #[test]
    fn each_feature_is_built_alone_and_the_default_ones_together() {
        assert_eq!(
            shown(&["default", "tls"]),
            [
                "--no-default-features",
                "",
                "--no-default-features --features tls"
            ]
        );
    }
}
