//! The Go programs of the other side.

use std::env;

use anyhow::{Context, Result, bail};

use crate::command::Cmd;
use crate::workspace;

/// What the oldest version is that builds them, as go.mod of the newer one says too.
const OLDEST: (u32, u32) = (1, 25);

/// Checks and builds the program in a folder, and says where it is.
pub(super) fn build(folder: &str) -> Result<String> {
    let go = find()?;
    let program = format!(
        "{}/{folder}/program{}",
        workspace::target().display(),
        env::consts::EXE_SUFFIX
    );
    let command = |args: &[&str]| {
        Cmd::new(&go)
            .args(["-C", folder])
            .args(args.iter().copied())
            // Else an old Go tries to download a newer one.
            .env("GOTOOLCHAIN", "local")
    };
    command(&["build", "-o", &program, "."]).run().context(
        "the modules that go.sum names are downloaded once, from the proxy that `go env GOPROXY` names",
    )?;
    command(&["vet", "./..."]).run()?;
    command(&["test", "./..."]).run()?;
    let wrong = Cmd::new("gofmt").args(["-l", folder]).output()?;
    if !wrong.is_empty() {
        bail!("`gofmt -w` mends these files:\n{wrong}");
    }
    Ok(program)
}

/// The Go of this machine.
fn find() -> Result<String> {
    let go = env::var("GO").unwrap_or_else(|_| "go".to_owned());
    let version = Cmd::new(&go)
        .args(["env", "GOVERSION"])
        .env("GOTOOLCHAIN", "local")
        .output();
    let (major, minor) = OLDEST;
    match version.ok().as_deref().and_then(version_of) {
        Some(version) if version >= OLDEST => Ok(go),
        Some((old_major, old_minor)) => bail!(
            "`{go}` is Go {old_major}.{old_minor}, and {major}.{minor} or later is needed: install it from go.dev/dl, or name \
             another one in the environment variable GO"
        ),
        None => bail!(
            "there is no Go: install {major}.{minor} or later from go.dev/dl (the package golang-go of Debian 12 is too old), \
             or name it in the environment variable GO"
        ),
    }
}

/// `go1.26.8` is 1.26.
fn version_of(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().strip_prefix("go")?.split(['.', 'r', 'b', '-']);
    let mut next = || numbers.next()?.parse().ok();
    Some((next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_go_are_read() {
        for (text, version) in [
            ("go1.26.8\n", Some((1, 26))),
            ("go1.25rc1", Some((1, 25))),
            ("devel", None),
            ("", None),
        ] {
            assert_eq!(version_of(text), version, "{text:?}");
        }
    }
}
