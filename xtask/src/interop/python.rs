//! Python with what the other side needs, in an environment of its own.

use std::path::PathBuf;
use std::{env, fs};

use anyhow::{Context, Result, bail};

use crate::command::Cmd;
use crate::workspace;

const PINS: &str = "interop/python/requirements.txt";

pub(super) struct Python {
    environment: PathBuf,
}

impl Python {
    /// Installs what is pinned, unless it is installed, and generates the messages.
    pub(super) fn prepare() -> Result<Self> {
        let environment = workspace::target().join("interop/python");
        let python = Self { environment };
        python.install()?;
        python.generate()?;
        Ok(python)
    }

    /// A script of the other side.
    pub(super) fn script(&self, name: &str) -> Cmd {
        let script = format!("interop/python/{name}");
        self.environment(Cmd::new(self.program()).args(["-u", &script]))
    }

    /// The interpreter of the environment.
    pub(super) fn program(&self) -> String {
        let program = if cfg!(windows) {
            "Scripts/python.exe"
        } else {
            "bin/python"
        };
        self.environment.join(program).display().to_string()
    }

    /// What a command needs that runs scripts.
    pub(super) fn environment(&self, command: Cmd) -> Cmd {
        command
            .env("PYTHONPATH", self.messages().display().to_string())
            // The scripts stay free of what Python makes of them.
            .env("PYTHONDONTWRITEBYTECODE", "1")
    }

    fn messages(&self) -> PathBuf {
        self.environment.join("messages")
    }

    fn install(&self) -> Result<()> {
        let pins = fs::read_to_string(workspace::root().join(PINS)).context(PINS)?;
        // Written last: what is there without it is half an installation.
        let done = self.environment.join("installed.txt");
        if fs::read_to_string(&done).is_ok_and(|installed| installed == pins)
            && Cmd::new(self.program()).args(["--version"]).succeeds()
        {
            return Ok(());
        }
        let system = system()?;
        if self.environment.exists() {
            fs::remove_dir_all(&self.environment).context("removing the old Python environment")?;
        }
        let folder = self.environment.display().to_string();
        Cmd::new(system)
            .args(["-m", "venv", &folder])
            .run()
            .context(
                "on Debian and Ubuntu, python3's module venv is in the package python3-venv",
            )?;
        Cmd::new(self.program())
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ])
            .args(["--requirement", PINS])
            .run()?;
        fs::write(&done, pins).with_context(|| done.display().to_string())
    }

    fn generate(&self) -> Result<()> {
        let messages = self.messages();
        fs::create_dir_all(&messages).with_context(|| messages.display().to_string())?;
        let packages = Cmd::new(self.program())
            .args([
                "-c",
                "import sysconfig; print(sysconfig.get_path('purelib'))",
            ])
            .output()?;
        Cmd::new(self.program())
            .args(["-m", "grpc_tools.protoc"])
            .args(["-Iinterop/proto", "-Icrates/gorums-build/proto"])
            // The messages of google.rpc come with googleapis-common-protos.
            .args([&format!("-I{}", packages.trim()) as &str])
            .args(["-Iexamples/storage/proto"])
            .args([&format!("--python_out={}", messages.display()) as &str])
            // The stub of a service is asked for where it is called as one.
            .args([&format!("--grpc_python_out={}", messages.display()) as &str])
            .args([
                "stream.proto",
                "interop.proto",
                "gorums.proto",
                "storage.proto",
                "standing.proto",
            ])
            .run()
    }
}

/// The interpreter of this machine.
fn system() -> Result<String> {
    let named = env::var("PYTHON").ok();
    for program in named
        .iter()
        .map(String::as_str)
        .chain(["python3", "python"])
    {
        let new_enough = "import sys; sys.exit(sys.version_info < (3, 9))";
        if Cmd::new(program).args(["-c", new_enough]).succeeds() {
            return Ok(program.to_owned());
        }
    }
    bail!(
        "there is no python3, 3.9 or later: install it (on Debian and Ubuntu: apt-get install python3 python3-venv), \
         or name it in the environment variable PYTHON"
    )
}
