//! The Go programs of the other side.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, bail};

use crate::command::Cmd;
use crate::workspace;

/// What the oldest version is that builds them, as go.mod of the newer one says too.
const OLDEST: (u32, u32) = (1, 25);

const DOWNLOADS: &str =
    "the modules that go.sum names are downloaded once, from the proxy that `go env GOPROXY` names";

/// A folder with a go.mod of its own.
pub(super) struct Module {
    go: String,
    folder: &'static str,
    /// The go.mod that is used in place of the one in the folder.
    in_place: Option<PathBuf>,
}

impl Module {
    /// The one in this folder.
    pub(super) fn new(folder: &'static str) -> Result<Self> {
        let go = find()?;
        Ok(Self {
            go,
            folder,
            in_place: None,
        })
    }

    /// Checks and builds its program, and says where it is.
    pub(super) fn build(&self) -> Result<String> {
        let program = self
            .built()
            .join(format!("program{}", env::consts::EXE_SUFFIX));
        let program = program.display().to_string();
        self.command("build", &["-o", &program, "."])
            .run()
            .context(DOWNLOADS)?;
        self.command("vet", &["./..."]).run()?;
        self.command("test", &["./..."]).run()?;
        let wrong = Cmd::new("gofmt").args(["-l", self.folder]).output()?;
        if !wrong.is_empty() {
            bail!("`gofmt -w` mends these files:\n{wrong}");
        }
        Ok(program)
    }

    /// Builds the tools that its go.mod names, and says in which folder they are.
    pub(super) fn build_tools(&self) -> Result<String> {
        let folder = self.built().join("bin");
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let folder = folder.display().to_string();
        self.command("build", &["-o", &folder, "tool"])
            .run()
            .context(DOWNLOADS)?;
        Ok(folder)
    }

    /// Has it use another module in a changed form: `old` becomes `new` in one file of that, where it
    /// has to be once. What is changed is a copy below the target folder.
    pub(super) fn change(mut self, module: &str, file: &str, old: &str, new: &str) -> Result<Self> {
        self.command("mod", &["download", module])
            .run()
            .context(DOWNLOADS)?;
        let original = self
            .command("list", &["-m", "-f", "{{.Dir}}", module])
            .output()?;
        let original = Path::new(original.trim());
        let built = self.built();
        let copy = built.join("changed");
        if copy.exists() {
            fs::remove_dir_all(&copy).with_context(|| copy.display().to_string())?;
        }
        copy_files(original, &copy)
            .with_context(|| format!("copying {} to {}", original.display(), copy.display()))?;
        let changed = copy.join(file);
        let text = fs::read_to_string(&changed).with_context(|| changed.display().to_string())?;
        let count = text.matches(old).count();
        if count != 1 {
            bail!(
                "{file} of {module} has {old:?} {count} times, and not once: interop.rs says what is changed in it"
            );
        }
        fs::write(&changed, text.replace(old, new))
            .with_context(|| changed.display().to_string())?;
        let own = workspace::root().join(self.folder);
        let in_place = built.join("go.mod");
        let text = fs::read_to_string(own.join("go.mod")).context("go.mod")?;
        let replaced = format!("{text}\nreplace {module} => {}\n", copy.display());
        fs::write(&in_place, replaced).with_context(|| in_place.display().to_string())?;
        fs::copy(own.join("go.sum"), built.join("go.sum")).context("copying go.sum")?;
        self.in_place = Some(in_place);
        Ok(self)
    }

    /// Where it is built.
    fn built(&self) -> PathBuf {
        workspace::target().join(self.folder)
    }

    fn command(&self, verb: &str, args: &[&str]) -> Cmd {
        let mut command = Cmd::new(&self.go).args(["-C", self.folder, verb]);
        if let Some(in_place) = &self.in_place {
            command = command.args([&format!("-modfile={}", in_place.display()) as &str]);
        }
        command
            .args(args.iter().copied())
            // Else an old Go tries to download a newer one.
            .env("GOTOOLCHAIN", "local")
    }
}

/// Copies a folder. What is made may be written to, although Go keeps modules from that.
fn copy_files(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_files(&entry.path(), &to)?;
        } else {
            // `fs::copy` would copy the permissions, too.
            fs::write(to, fs::read(entry.path())?)?;
        }
    }
    Ok(())
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
    fn a_copy_of_files_that_may_not_be_written_to_may() {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let file = from.join("in/it");
        fs::create_dir_all(from.join("in")).expect("it is not there");
        fs::write(&file, "text").expect("nor this");
        let mut permissions = fs::metadata(&file).expect("it is there now").permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&file, permissions).expect("it is ours");
        copy_files(&from, &to).expect("it can be read");
        let copy = to.join("in/it");
        assert_eq!(fs::read_to_string(&copy).expect("it was copied"), "text");
        fs::write(copy, "other").expect("it can be written to");
    }

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
