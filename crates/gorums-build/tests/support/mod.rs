//! Type-checks generated code, in a crate that depends on what a user's crate depends on.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// A crate whose only code is generated.
pub(crate) struct GeneratedCrate {
    folder: PathBuf,
}

impl GeneratedCrate {
    /// Makes a crate without code, in the folder that cargo gives to integration tests.
    pub(crate) fn new(name: &str) -> Self {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let generated = folder.join("src/generated");
        // Code of an earlier run would be checked too.
        if generated.exists() {
            fs::remove_dir_all(&generated).expect("an earlier run made it");
        }
        fs::create_dir_all(&generated).expect("the folder is writable");
        let gorums = crates
            .join("gorums")
            .canonicalize()
            .expect("it is beside us");
        let manifest = format!(
            "[package]\nname = \"{name}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
             [dependencies]\ngorums = {{ path = {gorums:?} }}\nprost = \"0.14\"\nprost-types = \"0.14\"\n\n\
             [workspace]\n"
        );
        write(&folder.join("Cargo.toml"), &manifest);
        let lock = crates.join("../Cargo.lock");
        fs::copy(lock, folder.join("Cargo.lock")).expect("the workspace has one");
        Self { folder }
    }

    /// Where the code generator writes.
    pub(crate) fn generated(&self) -> PathBuf {
        self.folder.join("src/generated")
    }

    /// Type-checks the crate, or returns what rustc says.
    pub(crate) fn check(&self, lib: &str) -> Result<(), String> {
        write(&self.folder.join("src/lib.rs"), lib);
        let cargo = env::var_os("CARGO").expect("cargo runs tests");
        let output = Command::new(cargo)
            .args(["check", "--offline", "--quiet", "--manifest-path"])
            .arg(self.folder.join("Cargo.toml"))
            // All such crates share what they depend on.
            .env(
                "CARGO_TARGET_DIR",
                Path::new(env!("CARGO_TARGET_TMPDIR")).join("checked"),
            )
            .output()
            .expect("cargo starts");
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
