//! What others begin with, in a folder outside of this workspace: the crate of `cargo xtask new`,
//! the crate of the README, and the packages as they would be published.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::Totals;
use crate::command::Cmd;
use crate::new::{Library, Name};
use crate::workspace;

const NOT_UTF_8: &str = "the temporary folder's path is not UTF-8";

pub(super) fn run(totals: &mut Totals) -> Result<()> {
    let folder = tempfile::tempdir().context("a temporary folder")?;
    let made = folder.path().join("claims");
    crate::new::create(&made, &Name::parse("claims")?, &Library::clone_of_this()?)?;
    pin(&made)?;
    for args in [
        &["fmt", "--check"][..],
        &["clippy", "--all-targets", "--", "-D", "warnings"],
    ] {
        cargo(&made, args)?.run()?;
    }
    cargo(&made, &["test"])?.run_reading(|line| totals.add(line))?;

    let by_hand = folder.path().join("by-hand");
    write_readme_crate(&by_hand)?;
    pin(&by_hand)?;
    cargo(&by_hand, &["build"])?.run()?;

    let published = workspace::members()?
        .into_iter()
        .filter(|package| package.is_published() && package.has_library());
    let published: Vec<_> = published.map(|package| package.name).collect();
    // Together, since they depend on each other and none of them is published yet. In a new folder,
    // since cargo would take the packages of an earlier check for these, which have their versions.
    let target = folder.path().join("published");
    let target = target.to_str();
    Cmd::cargo()
        .args(["publish", "--dry-run", "--locked", "--allow-dirty"])
        .args(published.iter().flat_map(|name| ["--package", name]))
        .env("CARGO_TARGET_DIR", target.context(NOT_UTF_8)?)
        .run()
}

/// A cargo command for the crate in a folder, which builds below the target folder of this
/// workspace, so that the next check finds the dependencies built.
fn cargo(folder: &Path, args: &[&str]) -> Result<Cmd> {
    let manifest = folder.join("Cargo.toml");
    let text = |path: &Path| path.to_str().map(str::to_owned);
    let manifest = text(&manifest).context(NOT_UTF_8)?;
    let target = text(&workspace::target().join("outside"));
    let (command, rest) = args.split_first().context("a command")?;
    Ok(Cmd::cargo()
        .args([command, "--manifest-path", &manifest])
        .args(rest.iter().copied())
        .env(
            "CARGO_TARGET_DIR",
            target.context("the target folder's path is not UTF-8")?,
        ))
}

/// Has a crate take the versions of dependencies that this workspace has, where both have them: a
/// release of somebody else is no fault of this tree.
fn pin(folder: &Path) -> Result<()> {
    let copied = fs::copy(
        workspace::root().join("Cargo.lock"),
        folder.join("Cargo.lock"),
    );
    copied.map(drop).context("copying Cargo.lock")
}

/// Writes what the README shows into the files that it names.
fn write_readme_crate(folder: &Path) -> Result<()> {
    let readme = workspace::root().join("README.md");
    let readme = fs::read_to_string(readme).context("reading README.md")?;
    let root = Library::clone_of_this()?;
    for (file, text) in readme_crate(&readme)? {
        let text = match &root {
            Library::Clone(root) if file == "Cargo.toml" => text.replace("../gorums-rs", root),
            _ => text,
        };
        let path = folder.join(file);
        let parent = path.parent().context("a file lies in a folder")?;
        fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// The files of the README's crate, in the order of its blocks of code.
fn readme_crate(readme: &str) -> Result<[(&'static str, String); 5]> {
    let block = |language: &str, nth: usize| {
        let start = format!("\n```{language}\n");
        let block = readme.split(&start).nth(nth + 1);
        let block = block.and_then(|block| block.split("\n```").next());
        block.with_context(|| format!("README.md has no {language} block number {}", nth + 1))
    };
    let package = "[package]\nname = \"by-hand\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n";
    // It lies outside of every workspace, but a temporary folder may lie in anything.
    let manifest = format!("{package}{}\n\n[workspace]\n", block("toml", 0)?);
    Ok([
        ("Cargo.toml", manifest),
        ("proto/register.proto", block("proto", 0)?.to_owned()),
        ("build.rs", block("rust,no_run", 0)?.to_owned()),
        ("src/bin/replica.rs", block("rust,no_run", 1)?.to_owned()),
        ("src/bin/client.rs", block("rust,no_run", 2)?.to_owned()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_blocks_of_the_readme_are_the_files_that_it_says_they_are() {
        let readme = workspace::root().join("README.md");
        let readme = fs::read_to_string(readme).expect("there is one");
        let [manifest, proto, build, replica, client] = readme_crate(&readme).expect("all blocks");
        assert!(manifest.1.contains("../gorums-rs/crates/gorums-build"));
        assert!(proto.1.contains("service Register"));
        assert!(
            build
                .1
                .contains("gorums_build::compile_protos(\"proto/register.proto\")")
        );
        assert!(replica.1.contains("Server::builder()"));
        assert!(client.1.contains("Configuration::builder()"));
    }
}
