//! The programs beside cargo's own that some jobs need.

use anyhow::{Context, Result, bail};

use crate::command::Cmd;

/// Read by `.ci/run`, too.
const PINNED: &str = include_str!("../../.ci/tools");

/// Fails where a package's program does not start, and says how to install it. Any version will do,
/// since a newer one is as good in most cases; the one that is named is known to be good.
pub(crate) fn ready(package: &str, probe: &Cmd) -> Result<()> {
    if !probe.succeeds() {
        let version = pinned(package)?;
        bail!("{package} is not installed: `cargo install --locked {package}@{version}`");
    }
    Ok(())
}

fn pinned(package: &str) -> Result<&'static str> {
    PINNED
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find_map(|(name, version)| (name == package).then_some(version))
        .with_context(|| format!(".ci/tools has no version of {package}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_named_with_the_way_to_install_it() {
        let error = ready("typos-cli", &Cmd::new("no-such-program")).unwrap_err();
        let version = pinned("typos-cli").expect("a version");
        assert_eq!(
            error.to_string(),
            format!("typos-cli is not installed: `cargo install --locked typos-cli@{version}`")
        );
        assert!(ready("typos-cli", &Cmd::cargo().args(["--version"])).is_ok());
    }

    #[test]
    fn a_tool_without_a_version_is_a_mistake_of_this_program() {
        let error = pinned("gcc").unwrap_err();
        assert_eq!(error.to_string(), ".ci/tools has no version of gcc");
    }
}
