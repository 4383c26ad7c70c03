//! What `cargo metadata` says about the workspace and its dependencies.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{env, fmt};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::command::Cmd;

/// The folder of the workspace's Cargo.toml.
pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Where builds go.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), |target| root().join(target))
}

/// The packages of the workspace.
pub(crate) fn members() -> Result<Vec<Package>> {
    metadata(&["--no-deps"])
}

/// The packages of the workspace and everything that they depend on, on any platform.
pub(crate) fn all_packages() -> Result<Vec<Package>> {
    metadata(&["--all-features"])
}

fn metadata(options: &[&str]) -> Result<Vec<Package>> {
    let output = Cmd::cargo()
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(options.iter().copied())
        .output()?;
    let metadata: Metadata = serde_json::from_str(&output).context("reading `cargo metadata`")?;
    Ok(metadata.packages)
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

/// One package.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Where the package comes from; `None` for the packages of this workspace.
    pub(crate) source: Option<String>,
    pub(crate) rust_version: Option<String>,
    pub(crate) features: BTreeMap<String, Vec<String>>,
    /// An absolute path.
    pub(crate) manifest_path: PathBuf,
    /// Where the package may be published; anywhere where there is no list.
    pub(crate) publish: Option<Vec<String>>,
    pub(crate) targets: Vec<Target>,
}

/// What is built of a package.
#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    pub(crate) kind: Vec<String>,
}

impl Package {
    pub(crate) fn folder(&self) -> &Path {
        self.manifest_path.parent().unwrap_or(&self.manifest_path)
    }

    pub(crate) fn is_published(&self) -> bool {
        self.publish
            .as_ref()
            .is_none_or(|places| !places.is_empty())
    }

    pub(crate) fn has_library(&self) -> bool {
        let mut kinds = self.targets.iter().flat_map(|target| &target.kind);
        kinds.any(|kind| kind == "lib" || kind == "proc-macro")
    }

    /// The oldest compiler that the package says it needs.
    pub(crate) fn msrv(&self) -> Result<Option<RustVersion>> {
        self.rust_version.as_deref().map(str::parse).transpose()
    }
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

/// A compiler version as manifests state it: `1.88` is `1.88.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RustVersion {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) patch: u32,
}

impl FromStr for RustVersion {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers = text
            .split('.')
            .map(str::parse)
            .collect::<Result<Vec<u32>, _>>()
            .with_context(|| format!("`{text}` is not a Rust version"))?;
        match numbers[..] {
            [major] => Ok(Self {
                major,
                minor: 0,
                patch: 0,
            }),
            [major, minor] => Ok(Self {
                major,
                minor,
                patch: 0,
            }),
            [major, minor, patch] => Ok(Self {
                major,
                minor,
                patch,
            }),
            _ => bail!("`{text}` is not a Rust version"),
        }
    }
}

impl fmt::Display for RustVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        if self.patch != 0 {
            write!(f, ".{}", self.patch)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_numbers_of_a_rust_version_are_zero() {
        let version = |text: &str| text.parse::<RustVersion>().unwrap();
        assert_eq!(version("1.88"), version("1.88.0"));
        assert!(version("1.9") < version("1.88"));
        assert!(version("1.88.1") > version("1.88"));
    }

    #[test]
    fn text_that_is_not_a_rust_version_is_named() {
        let error = "1.x".parse::<RustVersion>().unwrap_err();
        assert_eq!(error.to_string(), "`1.x` is not a Rust version");
    }
}
