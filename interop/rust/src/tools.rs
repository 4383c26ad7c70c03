//! The cases of programs of others that know nothing of Gorums: `grpcurl`, and the probe that
//! Kubernetes and others ask whether a server is healthy.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;
use tokio::time::timeout;

use crate::mixed::free_addresses;
use crate::process::Process;
use crate::runner::{Case, Start, cases};
use crate::secrets::Secrets;

/// What `grpcurl` does with replicas of the store.
pub(crate) const GRPCURL: &[Case] = cases![
    a_replica_is_written_and_read,
    every_method_answers_as_an_ordinary_one,
    what_a_replica_does_not_have_is_unimplemented,
    a_request_of_another_type_is_an_invalid_argument,
    a_deadline_is_kept,
    metadata_reaches_the_handler,
    errors_come_whole,
];

/// What it does with certificates.
pub(crate) const GRPCURL_TLS: &[Case] = cases![
    nobody_calls_without_a_certificate_of_the_authority,
    a_replica_of_another_authority_is_not_taken,
];

/// What it knows by reflection alone, without any `.proto` file.
pub(crate) const REFLECTION: &[Case] = cases![
    services_are_listed,
    a_service_is_described,
    a_replica_is_called_without_a_file,
];

/// What the probe finds.
pub(crate) const PROBE: &[Case] = cases![
    a_server_that_serves_is_healthy,
    a_service_that_is_unknown_is_not_healthy,
    a_server_that_says_so_is_not_healthy,
    a_server_that_shuts_down_is_not_healthy,
    a_port_that_nobody_listens_on_is_not_healthy,
];

/// So long may one run of a program take; the longest that they wait by themselves are two seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the files of the services are, from the root of the workspace.
const STORE: [&str; 6] = [
    "-import-path",
    "examples/storage/proto",
    "-import-path",
    "crates/gorums-build/proto",
    "-proto",
    "storage.proto",
];
const OTHER: [&str; 4] = [
    "-import-path",
    "interop/proto",
    "-proto",
    "other_storage.proto",
];
const INTEROP: [&str; 6] = [
    "-import-path",
    "interop/proto",
    "-import-path",
    "crates/gorums-build/proto",
    "-proto",
    "interop.proto",
];

/// What came of one run of a program.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    output: String,
    errors: String,
}

impl Ran {
    /// What it printed, if it succeeded. Spaces say nothing in JSON.
    fn output(self) -> Result<String> {
        ensure!(self.code == Some(0), "it failed: {self:?}");
        Ok(self.output.split_whitespace().collect())
    }

    /// It failed, and said all of this.
    fn failed(&self, words: &[&str]) -> Result<()> {
        let said = |words: &&str| self.errors.contains(*words) || self.output.contains(*words);
        ensure!(
            self.code != Some(0) && words.iter().all(said),
            "expected a failure that says {words:?}: {self:?}"
        );
        Ok(())
    }
}

impl Start {
    /// Runs a program of others, from the folder of those.
    async fn tool(&self, name: &str, args: &[&str]) -> Result<Ran> {
        let folder = self
            .command
            .first()
            .context("there is no folder of programs")?;
        let program = format!("{folder}/{name}{}", std::env::consts::EXE_SUFFIX);
        let run = Command::new(&program)
            .args(args)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let Ok(output) = timeout(PATIENCE, run).await else {
            bail!("`{name} {}` takes more than {PATIENCE:?}", args.join(" "));
        };
        let output = output.with_context(|| format!("running {program}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Ran {
            code: output.status.code(),
            output: text(&output.stdout),
            errors: text(&output.stderr),
        })
    }

    /// Calls a method of a server as the client, or with others of the options that name certificates.
    async fn grpcurl(&self, secrets: &Secrets, args: &[&[&str]]) -> Result<Ran> {
        let secure = secrets.as_options(["-cacert", "-cert", "-key"]);
        let mut all: Vec<&str> = secure.iter().map(String::as_str).collect();
        if secure.is_empty() {
            all.push("-plaintext");
        }
        all.extend(["-connect-timeout", "2"]);
        for args in args {
            all.extend(*args);
        }
        self.tool("grpcurl", &all).await
    }

    /// Calls a method of the store at a replica.
    async fn call(&self, replica: &Process, method: &str, request: &str) -> Result<Ran> {
        let method = format!("proto.Storage/{method}");
        let args = [&STORE[..], &["-d", request, &replica.address, &method]];
        self.grpcurl(&self.secrets("client"), &args).await
    }

    async fn probe(&self, address: &str, args: &[&str]) -> Result<Ran> {
        let secrets = self.secrets("client");
        let options = ["-tls-ca-cert", "-tls-client-cert", "-tls-client-key"];
        let secure = secrets.as_options(options);
        let mut all: Vec<&str> = secure.iter().map(String::as_str).collect();
        if !secure.is_empty() {
            all.push("-tls");
        }
        // Longer than an answer takes on any machine that is alive.
        all.extend([
            "-addr",
            address,
            "-connect-timeout",
            "5s",
            "-rpc-timeout",
            "5s",
        ]);
        all.extend(args);
        self.tool("grpc-health-probe", &all).await
    }

    /// A replica that has no peers.
    async fn replica(&self) -> Result<Process> {
        let args = ["--id", "1", "--listen", "127.0.0.1:0"];
        self.storage_as(&self.secrets("node-1"), &args).await
    }

    /// Three that are peers.
    async fn replicas(&self) -> Result<Vec<Process>> {
        let addresses = free_addresses(3)?;
        let peers = (1..).zip(&addresses);
        let peers: Vec<_> = peers
            .map(|(id, address)| format!("{id}={address}"))
            .collect();
        let mut replicas = Vec::new();
        for (id, address) in (1..).zip(&addresses) {
            let number = id.to_string();
            let secrets = self.secrets(&format!("node-{id}"));
            let args = [
                "--id",
                &number,
                "--listen",
                address,
                "--peers",
                &peers.join(","),
            ];
            replicas.push(self.storage_as(&secrets, &args).await?);
        }
        Ok(replicas)
    }
}

fn write(key: &str, value: &str, seconds: u32) -> String {
    format!(r#"{{"key": "{key}", "value": "{value}", "time": "2026-01-01T00:00:{seconds:02}Z"}}"#)
}

fn read(key: &str) -> String {
    format!(r#"{{"key": "{key}"}}"#)
}

fn same(got: &str, expected: &str) -> Result<()> {
    ensure!(got == expected, "expected {expected}, got {got}");
    Ok(())
}

async fn a_replica_is_written_and_read(start: Start) -> Result<()> {
    let start = start.proving();
    let replica = start.replica().await?;
    same(
        &start
            .call(&replica, "ReadRPC", &read("k"))
            .await?
            .output()?,
        "{}",
    )?;
    let written = start
        .call(&replica, "WriteRPC", &write("k", "größe", 1))
        .await?;
    same(&written.output()?, r#"{"new":true}"#)?;
    // It has one that is as new.
    let older = start
        .call(&replica, "WriteRPC", &write("k", "older", 1))
        .await?;
    same(&older.output()?, "{}")?;
    let found = start.call(&replica, "ReadRPC", &read("k")).await?;
    same(
        &found.output()?,
        r#"{"OK":true,"value":"größe","time":"2026-01-01T00:00:01Z"}"#,
    )
}

/// Calls of one node, of a quorum, one-way ones and streamed ones, and those by which a replica calls
/// the others.
async fn every_method_answers_as_an_ordinary_one(start: Start) -> Result<()> {
    let start = start.proving();
    let replicas = start.replicas().await?;
    let [first, second, _] = &replicas[..] else {
        bail!("there are three replicas");
    };
    let new = r#"{"new":true}"#;
    let found = |value: &str, seconds: u32| {
        format!(r#"{{"OK":true,"value":"{value}","time":"2026-01-01T00:00:{seconds:02}Z"}}"#)
    };
    let call = async |replica, method, request: String| {
        start.call(replica, method, &request).await?.output()
    };
    same(&call(first, "WriteQC", write("k", "a", 1)).await?, new)?;
    same(&call(first, "ReadQC", read("k")).await?, &found("a", 1))?;
    // One-way calls are answered before they are done, and calls have no order.
    for (method, value, seconds) in [("WriteUnicast", "b", 2), ("WriteMulticast", "c", 3)] {
        same(
            &call(first, method, write("k", value, seconds)).await?,
            "{}",
        )?;
        while call(first, "ReadRPC", read("k")).await? != found(value, seconds) {}
    }
    // A streamed reply gets better with each replica that answers.
    let levels = call(first, "ReadCorrectable", read("k")).await?;
    ensure!(levels.ends_with(&found("c", 3)), "{levels}");
    // Any majority that a replica asks has it.
    for replica in &replicas {
        same(&call(replica, "WriteRPC", write("k", "d", 4)).await?, new)?;
    }
    same(
        &call(second, "ReadNestedQC", read("k")).await?,
        &found("d", 4),
    )?;
    same(
        &call(second, "WriteNestedMulticast", write("k", "e", 5)).await?,
        new,
    )?;
    while call(first, "ReadRPC", read("k")).await? != found("e", 5) {}
    Ok(())
}

async fn what_a_replica_does_not_have_is_unimplemented(start: Start) -> Result<()> {
    let start = start.proving();
    let replica = start.replica().await?;
    for method in ["proto.Storage/Drop", "proto.Nothing/ReadRPC"] {
        let args = [&OTHER[..], &["-d", "{}", &replica.address, method]];
        let ran = start.grpcurl(&start.secrets("client"), &args).await?;
        ran.failed(&["Code: Unimplemented"])?;
    }
    start
        .call(&replica, "ReadRPC", "{}")
        .await?
        .output()
        .map(drop)
}

async fn a_request_of_another_type_is_an_invalid_argument(start: Start) -> Result<()> {
    let start = start.proving();
    let replica = start.replica().await?;
    let args = [
        &OTHER[..],
        &[
            "-d",
            r#"{"key": 7}"#,
            &replica.address,
            "proto.Storage/ReadRPC",
        ],
    ];
    let ran = start.grpcurl(&start.secrets("client"), &args).await?;
    ran.failed(&["Code: InvalidArgument"])?;
    start
        .call(&replica, "ReadRPC", "{}")
        .await?
        .output()
        .map(drop)
}

async fn a_deadline_is_kept(start: Start) -> Result<()> {
    let start = start.proving();
    let replicas = start.replicas().await?;
    let [first, others @ ..] = &replicas[..] else {
        bail!("there are three replicas");
    };
    start
        .call(first, "ReadNestedQC", &read("k"))
        .await?
        .output()?;
    // A majority of them cannot answer, so the first one waits.
    for other in others {
        other.pause().await?;
    }
    let request = read("k");
    let args = [
        "-max-time",
        "0.5",
        "-d",
        &request,
        &first.address,
        "proto.Storage/ReadNestedQC",
    ];
    let ran = start
        .grpcurl(&start.secrets("client"), &[&STORE[..], &args])
        .await?;
    ran.failed(&["DeadlineExceeded"])?;
    for other in others {
        other.resume().await?;
    }
    start
        .call(first, "ReadNestedQC", &read("k"))
        .await?
        .output()
        .map(drop)
}

async fn metadata_reaches_the_handler(start: Start) -> Result<()> {
    let start = start.proving();
    let server = start.ours_as(&start.secrets("node-1"), &[]).await?;
    let headers = ["-H", "Trace: a", "-rpc-header", "trace: b"];
    let args = ["-d", "{}", &server.address, "interop.Interop/Inspect"];
    let ran = start
        .grpcurl(&start.secrets("client"), &[&INTEROP[..], &headers, &args])
        .await?;
    let seen = ran.output()?;
    for value in ["a", "b"] {
        let entry = format!(r#"{{"key":"trace","value":"{value}"}}"#);
        ensure!(seen.contains(&entry), "expected {entry} in {seen}");
    }
    Ok(())
}

async fn errors_come_whole(start: Start) -> Result<()> {
    let start = start.proving();
    let server = start.ours_as(&start.secrets("node-1"), &[]).await?;
    let request = r#"{"code": 9, "message": "no größe"}"#;
    let args = ["-d", request, &server.address, "interop.Interop/Fail"];
    let ran = start
        .grpcurl(&start.secrets("client"), &[&INTEROP[..], &args])
        .await?;
    ran.failed(&["Code: FailedPrecondition", "Message: no größe"])?;
    // grpcurl exits with 64 and the code of the status.
    ensure!(ran.code == Some(64 + 9), "{ran:?}");
    Ok(())
}

async fn nobody_calls_without_a_certificate_of_the_authority(start: Start) -> Result<()> {
    let start = start.proving();
    let replica = start.replica().await?;
    let own = start.secrets("client");
    let strangers = [
        (own.clone().anonymous(), "certificate required"),
        (start.foreign("client")?.trusting(&own), "tls: "),
        (Secrets::default(), "Failed to dial"),
    ];
    for (secrets, says) in strangers {
        let args = ["-d", "{}", &replica.address, "proto.Storage/ReadRPC"];
        let ran = start.grpcurl(&secrets, &[&STORE[..], &args]).await?;
        ran.failed(&[says])?;
    }
    start
        .call(&replica, "ReadRPC", "{}")
        .await?
        .output()
        .map(drop)
}

async fn a_replica_of_another_authority_is_not_taken(start: Start) -> Result<()> {
    let args = ["--id", "1", "--listen", "127.0.0.1:0"];
    let replica = start.storage_as(&start.foreign("node-1")?, &args).await?;
    let ran = start.call(&replica, "ReadRPC", "{}").await?;
    ran.failed(&["certificate signed by unknown authority"])?;
    found(&start, &replica.address, &[], UNREACHABLE).await
}

async fn services_are_listed(start: Start) -> Result<()> {
    let start = start.proving();
    let replica = start.replica().await?;
    let ran = start
        .grpcurl(&start.secrets("client"), &[&[&replica.address, "list"]])
        .await?;
    ensure!(ran.code == Some(0), "{ran:?}");
    for service in ["proto.Storage", "grpc.health.v1.Health"] {
        ensure!(
            ran.output.lines().any(|line| line == service),
            "{service} is missing: {ran:?}"
        );
    }
    let ran = start
        .grpcurl(
            &start.secrets("client"),
            &[&[&replica.address, "list", "proto.Storage"]],
        )
        .await?;
    let methods: Vec<_> = ran.output.lines().collect();
    ensure!(
        methods.contains(&"proto.Storage.ReadNestedQC") && methods.len() == 9,
        "{ran:?}"
    );
    Ok(())
}

async fn a_service_is_described(start: Start) -> Result<()> {
    let start = start.proving();
    let replica = start.replica().await?;
    let ran = start
        .grpcurl(
            &start.secrets("client"),
            &[&[&replica.address, "describe", "proto.Storage"]],
        )
        .await?;
    let text = ran.output()?;
    for part in [
        "rpcReadRPC(.proto.ReadRequest)returns(.proto.ReadResponse)",
        "returns(stream.proto.ReadResponse)",
    ] {
        ensure!(text.contains(part), "{part} is missing: {text}");
    }
    Ok(())
}

async fn a_replica_is_called_without_a_file(start: Start) -> Result<()> {
    let start = start.proving();
    let replica = start.replica().await?;
    let request = write("k", "v", 1);
    let args = ["-d", &request, &replica.address, "proto.Storage/WriteRPC"];
    let ran = start.grpcurl(&start.secrets("client"), &[&args]).await?;
    same(&ran.output()?, r#"{"new":true}"#)
}

/// What the probe exits with: it does not reach the server, its call fails, the server is not healthy.
const UNREACHABLE: i32 = 2;
const FAILED: i32 = 3;
const UNHEALTHY: i32 = 4;

/// The probe tries for as long as it may where nobody is to be reached.
const SOON: [&str; 2] = ["-connect-timeout", "1s"];

async fn found(start: &Start, address: &str, args: &[&str], code: i32) -> Result<()> {
    let mut args = args.to_vec();
    if code == UNREACHABLE {
        args.extend(SOON);
    }
    let ran = start.probe(address, &args).await?;
    ensure!(
        ran.code == Some(code),
        "expected the exit code {code}: {ran:?}"
    );
    Ok(())
}

async fn a_server_that_serves_is_healthy(start: Start) -> Result<()> {
    let start = start.proving();
    let replica = start.replica().await?;
    found(&start, &replica.address, &[], 0).await?;
    found(&start, &replica.address, &["-service", "proto.Storage"], 0).await
}

async fn a_service_that_is_unknown_is_not_healthy(start: Start) -> Result<()> {
    let start = start.proving();
    let replica = start.replica().await?;
    found(
        &start,
        &replica.address,
        &["-service", "proto.Nothing"],
        FAILED,
    )
    .await
}

async fn a_server_that_says_so_is_not_healthy(start: Start) -> Result<()> {
    let start = start.proving();
    let server = start
        .ours_as(&start.secrets("node-1"), &["--unhealthy"])
        .await?;
    found(&start, &server.address, &[], UNHEALTHY).await?;
    // Only the server as a whole was said not to serve.
    found(&start, &server.address, &["-service", "interop.Interop"], 0).await
}

async fn a_server_that_shuts_down_is_not_healthy(start: Start) -> Result<()> {
    let start = start.proving();
    let replica = start.replica().await?;
    found(&start, &replica.address, &[], 0).await?;
    replica.terminate().await?;
    // The signal may take a moment. That it says so to those who watch it is a case of Python's.
    loop {
        let ran = start.probe(&replica.address, &SOON).await?;
        match ran.code {
            Some(0) => {}
            Some(UNREACHABLE | FAILED | UNHEALTHY) => return Ok(()),
            _ => bail!("{ran:?}"),
        }
    }
}

async fn a_port_that_nobody_listens_on_is_not_healthy(start: Start) -> Result<()> {
    let addresses = free_addresses(1)?;
    found(&start.proving(), &addresses[0], &[], UNREACHABLE).await
}
