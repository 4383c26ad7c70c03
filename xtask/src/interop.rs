//! `cargo xtask interop`: this library against other implementations of its protocol.

mod go;
mod python;

use std::collections::BTreeSet;
use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::check::Totals;
use crate::command::Cmd;
use crate::{certs, workspace};

/// Tests this library against other implementations of its protocol, in both directions.
///
/// There are three other sides of Gorums, which share no code with this library. Python's grpcio knows
/// nothing of Gorums and is good at what no library would send; it is installed into an environment
/// of its own below the target folder, when its pins in interop/python/requirements.txt change;
/// python3 has to be there, 3.9 or later, with its module venv. The program in interop/go is on
/// grpc-go, as the Go library is, and has servers, clients, peers and a durable store. The one in
/// interop/go-library is the Go library itself, in its last published version, v0.11.0, behind an
/// adapter to the present form of the protocol. Go has to be there, 1.25 or later.
///
/// Others know ordinary gRPC alone: a stub that grpcio has made from the store's .proto file, and the
/// programs of interop/grpc-tools, grpcurl and grpc-health-probe. And h2spec knows HTTP/2 alone: a
/// case here is a chapter of it, which passes where each of its cases does.
///
/// All but Python's speaker of Gorums run twice: in plain text, and over mutual TLS (`-tls` in the names),
/// with certificates that are made anew, as `cargo xtask certs` makes them. Clusters and replicas of
/// the store have their nodes prove their ids by them.
///
/// Each case has a deadline and is shown with what came of it. Nothing is skipped: what cannot be
/// started has failed. The exit code is 0 only where every case passed, and the last line says how
/// many did.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask interop                  all cases
  cargo xtask interop metadata 1mb     those whose name contains one of these
  cargo xtask interop tls h2spec       those over TLS, and all of HTTP/2
  cargo xtask interop --list           the names")]
pub(crate) struct Args {
    /// Run only the cases whose name contains one of these
    #[arg(value_name = "PART")]
    parts: Vec<String>,

    /// Print the names of the cases and run none
    #[arg(long)]
    list: bool,
}

/// One direction: a program that runs cases and prints a line for each.
struct Runner {
    title: &'static str,
    command: Cmd,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let mut totals = Totals::default();
    let result = if args.list {
        list(&args.parts)
    } else {
        run_all(&args.parts, &mut totals)
    };
    if let Err(error) = &result {
        println!("\ninterop: FAILED: {error:#}");
    }
    if !args.list {
        println!("\n{totals}");
    }
    if result.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs the cases, and adds up what came of them. Fails unless every one passed.
pub(crate) fn run_all(parts: &[String], totals: &mut Totals) -> Result<()> {
    let mut ran = Totals::default();
    let runners = renew_certs().and_then(|()| runners());
    // What could not even be started is a failure that the totals show.
    ran.failed += u64::from(runners.is_err());
    let result = runners.and_then(|runners| {
        for runner in runners {
            ran += runner.run(parts);
        }
        if ran.is_empty() {
            bail!("no case has such a name: `cargo xtask interop --list` prints them");
        }
        if ran.failed > 0 {
            bail!("{} of {} cases failed", ran.failed, ran.failed + ran.passed);
        }
        Ok(())
    });
    *totals += ran;
    result
}

fn list(parts: &[String]) -> Result<()> {
    for runner in runners()? {
        for name in runner.names(parts)? {
            println!("{name}");
        }
    }
    Ok(())
}

/// What h2spec requests is a GET, and a server of gRPC takes a POST with gRPC's content type.
const H2SPEC: &str = "github.com/summerwind/h2spec";
const H2SPEC_FILE: &str = "spec/util.go";
const H2SPEC_GET: &str = r#"HeaderField(":method", "GET"),
		HeaderField(":scheme", scheme),
		HeaderField(":path", c.Path),
		HeaderField(":authority", authority),"#;
const H2SPEC_POST: &str = r#"HeaderField(":method", "POST"),
		HeaderField(":scheme", scheme),
		HeaderField(":path", c.Path),
		HeaderField(":authority", authority),
		HeaderField("content-type", "application/grpc"),
		HeaderField("te", "trailers"),"#;

/// The programs of all sides.
struct Programs {
    python: python::Python,
    go: String,
    library: String,
    h2spec: String,
    /// A folder of several.
    tools: String,
    ours: String,
    storage: String,
    /// The folder of certificates.
    certs: String,
}

/// The folder of certificates, which has one of another authority's in it.
fn certs_folder() -> PathBuf {
    workspace::target().join("interop/certs")
}

/// Makes them anew. Whoever only asks for the names of the cases has none made, as others may be running
/// them.
fn renew_certs() -> Result<()> {
    let folder = certs_folder();
    certs::renew(folder.join("foreign"))?;
    certs::renew(folder)
}

fn runners() -> Result<Vec<Runner>> {
    let programs = Programs {
        python: python::Python::prepare()?,
        go: go::Module::new("interop/go")?.build()?,
        library: go::Module::new("interop/go-library")?.build()?,
        h2spec: go::Module::new("interop/h2spec")?
            .change(H2SPEC, H2SPEC_FILE, H2SPEC_GET, H2SPEC_POST)?
            .build()?,
        tools: go::Module::new("interop/grpc-tools")?.build_tools()?,
        ours: built("gorums-interop"),
        storage: built("storage"),
        certs: certs_folder().display().to_string(),
    };
    Cmd::cargo()
        .args(["build", "--locked", "-p", "gorums-interop", "-p", "storage"])
        .run()?;
    let mut runners = programs.of_python();
    runners.extend(programs.of_all(false));
    runners.extend(programs.of_all(true));
    Ok(runners)
}

impl Programs {
    /// Those that have no certificates.
    fn of_python(&self) -> Vec<Runner> {
        let client = self.python.script("client.py");
        let servers = [
            &self.python.program() as &str,
            "-u",
            "interop/python/server.py",
        ];
        let server = self.client("py-server", &servers);
        vec![
            Runner {
                title: "Python client, our server",
                command: client.args(["--server", &self.ours]),
            },
            Runner {
                title: "our client, Python servers",
                command: self.python.environment(server),
            },
        ]
    }

    /// The others, in plain text or over TLS.
    fn of_all(&self, tls: bool) -> Vec<Runner> {
        let runner = |plain, over_tls, command: Cmd| {
            let (title, command) = if tls {
                (over_tls, command.args(["--certs", &self.certs]))
            } else {
                (plain, command)
            };
            Runner { title, command }
        };
        let group = |plain, over_tls| if tls { over_tls } else { plain };
        let ours = || Cmd::new(&self.ours);
        vec![
            runner(
                "Go client, our servers",
                "Go client, our servers, over TLS",
                Cmd::new(&self.go).args(["client", "--server", &self.ours]),
            ),
            runner(
                "our client, Go servers",
                "our client, Go servers, over TLS",
                self.client(group("go-server", "go-server-tls"), &[&self.go, "serve"]),
            ),
            runner(
                "client of the Go library v0.11.0, our servers",
                "client of the Go library v0.11.0, our servers, over TLS",
                Cmd::new(&self.library).args(["client", "--server", &self.ours]),
            ),
            runner(
                "our client, servers of the Go library v0.11.0",
                "our client, servers of the Go library v0.11.0, over TLS",
                self.client(
                    group("library-server", "library-server-tls"),
                    &[&self.library, "serve"],
                )
                .args(["--library"]),
            ),
            runner(
                "Go servers that call our clients, and clusters of Go and Rust servers",
                "Go servers that call our clients, and clusters of Go and Rust servers, over TLS",
                ours()
                    .args(["mixed", "--storage", &self.storage])
                    .args(["--server", &self.go, "--server", "serve"]),
            ),
            runner(
                "stub of Python for the store, our replicas",
                "stub of Python for the store, our replicas, over TLS",
                self.python
                    .script("storage.py")
                    .args(["--storage", &self.storage]),
            ),
            runner(
                "grpcurl and the health probe, our replicas",
                "grpcurl and the health probe, our replicas, over TLS",
                ours()
                    .args(["tools", "--storage", &self.storage])
                    .args(["--tools", &self.tools]),
            ),
            runner(
                "h2spec, our server",
                "h2spec, our server, over TLS",
                Cmd::new(&self.h2spec)
                    .args(["--server", &self.ours])
                    .args(["--group", group("h2spec", "h2spec-tls")]),
            ),
        ]
    }

    /// Our client, of servers that this command starts.
    fn client(&self, group: &str, server: &[&str]) -> Cmd {
        let words = server.iter().flat_map(|word| ["--server", word]);
        Cmd::new(&self.ours)
            .args(["client", "--group", group])
            .args(words)
    }
}

/// A program of this workspace, once it is built.
fn built(name: &str) -> String {
    format!(
        "{}/debug/{name}{}",
        workspace::target().display(),
        env::consts::EXE_SUFFIX
    )
}

impl Runner {
    fn names(&self, parts: &[String]) -> Result<Vec<String>> {
        let mut names = Vec::new();
        let command = self.command.clone().args(["--list"]);
        let command = command.args(parts.iter().map(String::as_str));
        command.run_lines(|line| names.push(line.to_owned()))?;
        Ok(names)
    }

    /// A direction that cannot be started counts as one failure.
    fn run(&self, parts: &[String]) -> Totals {
        let mut totals = Totals::default();
        let mut missing: BTreeSet<String> = match self.names(parts) {
            Ok(names) => names.into_iter().collect(),
            Err(error) => {
                println!("\n{}\n  FAILED: {error:#}", self.title);
                totals.failed += 1;
                return totals;
            }
        };
        if missing.is_empty() {
            return totals;
        }
        let width = missing.iter().map(String::len).max().unwrap_or(0);
        println!("\n{}", self.title);
        let start = Instant::now();
        let command = self.command.clone().args(parts.iter().map(String::as_str));
        let result = command.run_lines(|line| {
            let Some(case) = Case::read(line) else {
                println!("  {line}");
                return;
            };
            missing.remove(case.name);
            let outcome = if case.failure.is_none() {
                "ok"
            } else {
                "FAILED"
            };
            println!("  {:width$}  {outcome:6} {:>6} ms", case.name, case.millis);
            match case.failure {
                None => totals.passed += 1,
                Some(failure) => {
                    totals.failed += 1;
                    println!("      {}", failure.replace("\\n", "\n      "));
                }
            }
        });
        for name in &missing {
            totals.failed += 1;
            println!("  {name:width$}  FAILED  it never ended");
        }
        if let (Err(error), 0) = (&result, totals.failed) {
            totals.failed += 1;
            println!("  FAILED: {error:#}");
        }
        println!("  {totals} after {:.1} s", start.elapsed().as_secs_f64());
        totals
    }
}

/// A line that a runner prints for each case: `case NAME ok MILLIS` or
/// `case NAME FAILED MILLIS MESSAGE`.
#[derive(Debug, PartialEq, Eq)]
struct Case<'a> {
    name: &'a str,
    millis: &'a str,
    failure: Option<&'a str>,
}

impl<'a> Case<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let mut words = line.strip_prefix("case ")?.splitn(4, ' ');
        let (name, outcome, millis) = (words.next()?, words.next()?, words.next()?);
        let failure = match outcome {
            "ok" => None,
            "FAILED" => Some(words.next().unwrap_or("no reason is given")),
            _ => return None,
        };
        Some(Self {
            name,
            millis,
            failure,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_read_and_other_lines_are_not() {
        let case = |line| Case::read(line).map(|case| (case.name, case.millis, case.failure));
        assert_eq!(case("case a/b ok 12"), Some(("a/b", "12", None)));
        assert_eq!(
            case("case a/b FAILED 3 expected 1, got 2"),
            Some(("a/b", "3", Some("expected 1, got 2")))
        );
        assert_eq!(
            case("case a/b FAILED 3"),
            Some(("a/b", "3", Some("no reason is given")))
        );
        for other in ["case a/b", "case a/b maybe 3", "listening 127.0.0.1:1", ""] {
            assert_eq!(case(other), None, "{other:?}");
        }
    }
}
