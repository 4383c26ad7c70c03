//! `cargo xtask new`: a crate to begin with.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::workspace;

/// The crate's manifest in the template. It has another name there, so that nobody takes the
/// template for a crate.
const MANIFEST: &str = "Cargo.toml.in";

/// Makes a crate of your own: a proto file, a replicated service, its client and program, a test of
/// a real cluster and one of simulated clusters.
///
/// The crate stands by itself, wherever it lies. It takes the library from this clone, or with
/// --git from a repository.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask new ../claims
  cargo xtask new ../claims --git https://github.com/me/gorums-rs")]
pub(crate) struct Args {
    /// The folder to make. Its last name is that of the crate, unless --name is given
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    /// The name of the crate
    #[arg(long)]
    name: Option<String>,

    /// Take the library from this Git repository, and not from this clone
    #[arg(long, value_name = "URL")]
    git: Option<String>,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    match make(args) {
        Ok(name) => {
            let folder = args.folder.display();
            println!(
                "made the crate {name} in {folder}\n\n  cd {folder}\n  cargo test\n\nIts README.md goes on from there."
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn make(args: &Args) -> Result<Name> {
    let name = match &args.name {
        Some(name) => Name::parse(name)?,
        None => Name::of(&args.folder)?,
    };
    let library = match &args.git {
        Some(url) => Library::git(url)?,
        None => Library::clone_of_this()?,
    };
    create(&args.folder, &name, &library)?;
    Ok(name)
}

/// Makes the crate. Nothing that is there is overwritten.
pub(crate) fn create(folder: &Path, name: &Name, library: &Library) -> Result<()> {
    if let Ok(mut entries) = fs::read_dir(folder)
        && entries.next().is_some()
    {
        bail!("{} is there already, and is not empty", folder.display());
    }
    let template = workspace::root().join("xtask/template");
    let msrv = workspace::members()?
        .into_iter()
        .find_map(|package| package.rust_version)
        .context("no package of the workspace says which Rust it needs")?;
    for file in files(&template)? {
        let text = fs::read_to_string(template.join(&file));
        let mut text =
            text.with_context(|| format!("reading the template's {}", file.display()))?;
        text = text.replace("service_crate", &name.in_code());
        text = text.replace("service-crate", &name.0);
        let mut target = folder.join(&file);
        if file == Path::new(MANIFEST) {
            target.set_file_name("Cargo.toml");
            text = text.replace("{{rust_version}}", &msrv);
            text = library.fill_in(&text);
        }
        let parent = target.parent().context("a file lies in a folder")?;
        fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        fs::write(&target, text).with_context(|| format!("writing {}", target.display()))?;
    }
    Ok(())
}

/// The files below a folder, with paths from there.
fn files(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(below) = folders.pop() {
        let path = folder.join(&below);
        let entries = fs::read_dir(&path).with_context(|| format!("reading {}", path.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("reading {}", path.display()))?;
            let name = below.join(entry.file_name());
            if entry.path().is_dir() {
                folders.push(name);
            } else {
                found.insert(name);
            }
        }
    }
    Ok(found)
}

/// The name of a crate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Name(String);

impl Name {
    /// A name as Cargo takes it.
    pub(crate) fn parse(name: &str) -> Result<Self> {
        let begins = name.starts_with(|first: char| first.is_ascii_alphabetic());
        let is_legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if !begins || !name.chars().all(is_legal) {
            bail!(
                "{name:?} cannot be the name of a crate: it begins with a letter, and has letters, digits, - and _ only; --name gives another one"
            );
        }
        // The crate would have the name of one that it depends on, or of a keyword.
        let taken = [
            "gorums",
            "gorums-build",
            "gorums-sim",
            "clap",
            "prost",
            "tokio",
            "tempfile",
            "tracing-subscriber",
            "test",
            "core",
            "std",
            "alloc",
            "proc_macro",
        ];
        let is_taken = taken
            .iter()
            .any(|taken| taken.replace('-', "_") == name.replace('-', "_"));
        if is_taken || syn::parse_str::<syn::Ident>(&name.replace('-', "_")).is_err() {
            bail!("a crate of your own cannot have the name {name:?}; --name gives another one");
        }
        Ok(Self(name.to_owned()))
    }

    /// The last name of a folder's path.
    fn of(folder: &Path) -> Result<Self> {
        let name = folder.file_name().and_then(|name| name.to_str());
        let folder = folder.display();
        Self::parse(name.with_context(|| {
            format!("{folder} has no name that a crate could have; --name gives one")
        })?)
    }

    fn in_code(&self) -> String {
        self.0.replace('-', "_")
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where the crate has the library from.
#[derive(Debug)]
pub(crate) enum Library {
    /// The folder of a clone, as an absolute path.
    Clone(String),
    Git(String),
}

impl Library {
    pub(crate) fn clone_of_this() -> Result<Self> {
        let root = workspace::root().canonicalize().context("this clone")?;
        let root = root.to_str().map(str::to_owned);
        let root = root.context("the path of this clone is not UTF-8, as Cargo.toml has to be")?;
        Self::checked(&root).map(Self::Clone)
    }

    fn git(url: &str) -> Result<Self> {
        Self::checked(url).map(Self::Git)
    }

    /// What can stand between the quotes of a literal string of TOML.
    fn checked(text: &str) -> Result<String> {
        if text.is_empty() || text.contains(|c: char| c == '\'' || c.is_control()) {
            bail!("{text:?} cannot stand in a Cargo.toml");
        }
        Ok(text.to_owned())
    }

    /// Puts the dependencies into the manifest's places for them.
    fn fill_in(&self, manifest: &str) -> String {
        let mut filled = manifest.to_owned();
        for package in ["gorums", "gorums-build", "gorums-sim"] {
            let source = match self {
                Self::Clone(root) => format!("path = '{root}/crates/{package}'"),
                Self::Git(url) => format!("git = '{url}'"),
            };
            filled = filled.replace(&format!("{{{{{package}}}}}"), &source);
        }
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_cargo_and_the_compiler_take() {
        for (name, in_code) in [
            ("claims", "claims"),
            ("my-service", "my_service"),
            ("a1", "a1"),
        ] {
            assert_eq!(Name::parse(name).expect(name).in_code(), in_code);
        }
        for name in [
            "",
            "1a",
            "-a",
            "a b",
            "a.b",
            "ä",
            "async",
            "gorums",
            "gorums_sim",
            "test",
        ] {
            let error = Name::parse(name).expect_err(name).to_string();
            assert!(error.contains("--name"), "{error}");
        }
        let folder = Name::of(Path::new("some/where/claims")).expect("a name");
        assert_eq!(folder, Name("claims".to_owned()));
        assert!(Name::of(Path::new("..")).is_err());
    }

    #[test]
    fn nothing_that_is_there_is_overwritten() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("mine"), "").expect("a file");
        let library = Library::Git("https://example.com/gorums".to_owned());
        let error = create(folder.path(), &Name("claims".to_owned()), &library);
        assert!(
            error
                .expect_err("not empty")
                .to_string()
                .contains("not empty")
        );
        let names: Vec<_> = files(folder.path())
            .expect("readable")
            .into_iter()
            .collect();
        assert_eq!(names, [Path::new("mine")]);
    }

    #[test]
    fn the_crate_has_its_name_and_its_library_everywhere() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let folder = folder.path().join("made/here");
        let library = Library::Git("https://example.com/gorums".to_owned());
        create(&folder, &Name("my-service".to_owned()), &library).expect("a new folder");
        let made = files(&folder).expect("readable");
        for file in [
            "Cargo.toml",
            "README.md",
            "build.rs",
            "src/lib.rs",
            "tests/simulation.rs",
        ] {
            assert!(
                made.contains(Path::new(file)),
                "{file} is missing in {made:?}"
            );
        }
        for file in made {
            let text = fs::read_to_string(folder.join(&file)).expect("text");
            for left in ["{{", "service_crate", "service-crate"] {
                assert!(!text.contains(left), "{left} in {}", file.display());
            }
        }
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).expect("a manifest");
        let manifest: toml::Value = toml::from_str(&manifest).expect("TOML");
        assert_eq!(manifest["package"]["name"].as_str(), Some("my-service"));
        let library = &manifest["build-dependencies"]["gorums-build"];
        assert_eq!(library["git"].as_str(), Some("https://example.com/gorums"));
    }

    #[test]
    fn what_would_break_the_manifest_is_refused() {
        for url in ["", "it's", "two\nlines"] {
            assert!(Library::git(url).is_err(), "{url:?}");
        }
    }
}
