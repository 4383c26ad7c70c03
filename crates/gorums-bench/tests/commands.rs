//! The program as people and other programs use it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

fn bench(args: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_gorums-bench"))
        .args(args)
        .output();
    output.expect("the program starts")
}

/// A short run, whose figures mean nothing but have to fit together.
fn measured(args: &[&str]) -> Value {
    measured_for("200ms", args)
}

fn measured_for(duration: &str, args: &[&str]) -> Value {
    let short = ["--duration", duration, "--warm-up", "50ms", "--json", "-"];
    let output = bench(&[args, &short].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
    serde_json::from_slice(&output.stdout).expect("JSON and nothing else")
}

fn number(value: &Value, field: &str) -> f64 {
    let found = &value[field];
    found
        .as_f64()
        .unwrap_or_else(|| panic!("{field} is {found} and no number in {value}"))
}

/// What must hold for every result, whatever the machine does.
fn assert_sound(result: &Value) {
    let calls = number(result, "calls");
    assert!(calls >= 1.0, "{result}");
    let latency = &result["latency_us"];
    let steps = ["p50", "p90", "p99", "p99_9", "max"].map(|name| number(latency, name));
    assert!(steps[0] > 0.0 && steps.is_sorted(), "{latency}");
    let runs = result["runs"].as_array().expect("runs");
    let counted: f64 = runs.iter().map(|run| number(run, "calls")).sum();
    assert_eq!(counted, calls);
    for run in runs {
        let rate = number(run, "calls") / number(run, "seconds");
        let told = number(run, "calls_per_second");
        assert!((rate - told).abs() <= told / 1e6, "{run}");
    }
}

#[test]
fn every_kind_of_call_is_measured_in_one_process() {
    for kind in ["quorum-call", "multicast", "rpc", "correctable", "nested"] {
        let report = measured(&[kind, "--in-flight", "5", "--payload", "10"]);
        let result = &report["results"][0];
        assert_eq!(result["benchmark"], kind);
        assert_eq!(result["servers"], "one process");
        assert_eq!(number(result, "payload_bytes"), 10.0);
        assert_eq!(result["client_cpu_us_per_call"], Value::Null);
        assert!(number(result, "allocations_per_call") > 1.0, "{kind}");
        assert_sound(result);
    }
}

#[test]
fn every_kind_of_call_is_measured_with_servers_in_threads_of_their_own() {
    for kind in ["quorum-call", "multicast", "rpc", "correctable", "nested"] {
        let report = measured(&[kind, "--in-flight", "5", "--server-threads", "1"]);
        let result = &report["results"][0];
        assert_eq!(result["servers"], "one process");
        assert_eq!(number(result, "threads"), 1.0);
        assert_eq!(number(result, "server_threads"), 1.0);
        assert!(number(result, "allocations_per_call") > 1.0, "{kind}");
        assert_sound(result);
    }
}

#[test]
fn every_kind_of_call_is_measured_between_processes() {
    for kind in ["quorum-call", "multicast", "rpc", "correctable", "nested"] {
        let report = measured(&[kind, "--in-flight", "5", "--processes", "--nodes", "2"]);
        let result = &report["results"][0];
        assert_eq!(result["servers"], "processes");
        assert_eq!(number(result, "server_threads"), 1.0);
        assert_sound(result);
        if cfg!(unix) {
            let both =
                number(result, "client_cpu_us_per_call") + number(result, "server_cpu_us_per_call");
            let all = number(result, "cpu_us_per_call");
            assert!((both - all).abs() <= all / 1e6, "{result}");
            assert!(number(result, "server_peak_bytes") > 1e6, "{result}");
        }
    }
}

#[test]
fn calls_are_measured_with_tls_and_with_a_runtime_for_each_thread() {
    for options in [
        &["quorum-call", "--tls"][..],
        &["nested", "--tls", "--processes"],
        &[
            "rpc",
            "--processes",
            "--server-threads",
            "2",
            "--runtime-per-thread",
        ],
    ] {
        let report = measured(&[options, &["--in-flight", "5"]].concat());
        let result = &report["results"][0];
        assert_eq!(result["tls"], options.contains(&"--tls"), "{options:?}");
        if options.contains(&"--runtime-per-thread") {
            assert_eq!(result["servers"], "processes with a runtime per thread");
        }
        assert_sound(result);
    }
    for options in [&["tonic", "--tls"][..], &["floor", "--tls"]] {
        let output = bench(options);
        assert!(!output.status.success(), "{options:?}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains("--tls"), "{told}");
    }
}

#[test]
fn the_report_says_what_was_measured_and_on_what() {
    let report = measured(&["rpc", "-i", "2", "--repeats", "2", "--threads", "2"]);
    assert_eq!(number(&report, "format"), 1.0);
    assert!(report["date"].as_str().expect("a date").ends_with('Z'));
    assert!(number(&report["machine"], "cores") >= 1.0);
    assert!(
        !report["machine"]["cpu"]
            .as_str()
            .expect("a processor")
            .is_empty()
    );
    assert_eq!(report["versions"]["gorums"], env!("CARGO_PKG_VERSION"));
    let result = &report["results"][0];
    assert_eq!(number(result, "threads"), 2.0);
    assert_eq!(number(result, "in_flight"), 2.0);
    assert_eq!(result["runs"].as_array().expect("runs").len(), 2);
    assert_sound(result);
}

#[test]
fn multicasts_have_all_arrived_at_all_servers() {
    let report = measured(&["multicast", "-i", "3", "--nodes", "2"]);
    let result = &report["results"][0];
    let one_way = &result["one_way"];
    assert_eq!(number(one_way, "messages"), 2.0 * number(result, "calls"));
    assert!(number(one_way, "mean_us") > 0.0);
}

#[test]
fn slow_calls_take_ten_milliseconds_and_are_measured_against_timers() {
    let report = measured(&["slow-server", "-i", "10"]);
    let result = &report["results"][0];
    assert!(number(&result["latency_us"], "p50") >= 10_000.0, "{result}");
    assert_eq!(result["compared"]["with"], "timers of 10 ms");
    let ratio =
        number(result, "calls_per_second") / number(&result["compared"], "calls_per_second");
    assert!((number(&result["compared"], "ratio") - ratio).abs() < 1e-6);
    assert!(
        number(&result["runs"][0], "peak_to_mean") >= 1.0,
        "{result}"
    );
    assert_sound(result);
}

#[test]
fn the_floor_and_the_library_are_measured_in_one_run() {
    for place in [&[][..], &["--server-threads", "1"], &["--processes"]] {
        let report = measured(&[&["floor", "-i", "5", "-p", "1KiB"], place].concat());
        let results = report["results"].as_array().expect("results");
        assert_eq!(results.len(), 2);
        assert_eq!(results[0]["benchmark"], "floor");
        assert_eq!(results[1]["benchmark"], "quorum-call");
        assert_eq!(results[1]["compared"]["with"], "the floor");
        assert_eq!(
            results[0]["calls_per_second"],
            results[1]["compared"]["calls_per_second"]
        );
        for result in results {
            assert_sound(result);
        }
    }
}

#[test]
fn calls_by_hand_on_tonic_are_measured_wherever_servers_are() {
    for place in [&[][..], &["--server-threads", "1"], &["--processes"]] {
        let report = measured(&[&["tonic", "-i", "5", "-p", "1KiB"], place].concat());
        let result = &report["results"][0];
        assert_eq!(result["benchmark"], "tonic");
        assert_eq!(number(result, "quorum"), 2.0);
        assert!(number(result, "allocations_per_call") > 1.0, "{result}");
        assert_sound(result);
    }
}

#[cfg(unix)]
#[test]
fn calls_go_on_with_one_server_that_is_not_well() {
    let report = measured(&[
        "isolation",
        "-i",
        "5",
        "--server-threads",
        "2",
        "--repeats",
        "2",
    ]);
    let results = report["results"].as_array().expect("results");
    let names = results.iter().map(|result| &result["benchmark"]);
    let names: Vec<_> = names.map(|name| name.as_str().expect("a name")).collect();
    assert_eq!(
        names,
        [
            "isolation, the others alone",
            "isolation, all servers well",
            "isolation, one slow server",
            "isolation, one server with a stalling disk",
            "isolation, one server stopped",
        ]
    );
    assert_eq!(number(&results[0], "nodes"), 2.0);
    for result in &results[1..] {
        assert_eq!(number(result, "nodes"), 3.0);
        let stalls = result["benchmark"] == "isolation, one server with a stalling disk";
        let with = if stalls {
            "all servers well"
        } else {
            "the others alone"
        };
        assert_eq!(result["compared"]["with"], with);
    }
    for result in results {
        assert_eq!(result["runs"].as_array().expect("runs").len(), 2);
        assert_eq!(result["servers"], "processes");
        assert_eq!(number(result, "server_threads"), 2.0);
        assert_sound(result);
    }
}

#[test]
fn a_server_that_was_killed_answers_again() {
    for place in [&[][..], &["--server-threads", "1"], &["--processes"]] {
        let report = measured(&[&["reconnect", "--nodes", "2"], place].concat());
        let result = &report["results"][0];
        assert_eq!(result["cpu_us_per_call"], Value::Null);
        assert_sound(result);
    }
}

#[test]
fn connections_are_made_anew_and_with_tls_by_both_kinds_of_handshakes() {
    let plain = measured(&["connect", "--processes", "--nodes", "1"]);
    assert_sound(&plain["results"][0]);
    let report = measured(&[
        "connect",
        "--tls",
        "--processes",
        "--nodes",
        "1",
        "--in-flight",
        "1",
    ]);
    let results = report["results"].as_array().expect("results");
    let cpu = |result: &Value| number(result, "cpu_us_per_call");
    let [whole, resumed] = &results[..] else {
        panic!("{results:?}");
    };
    assert!(cpu(whole) > 0.0 && cpu(resumed) > 0.0);
    results.iter().for_each(assert_sound);
}

#[test]
fn an_open_loop_makes_as_many_calls_as_it_should() {
    let report = measured_for("2s", &["rpc", "--rate", "100"]);
    let result = &report["results"][0];
    assert_eq!(number(result, "rate"), 100.0);
    assert_eq!(number(result, "in_flight"), 10_000.0);
    let run = &result["runs"][0];
    assert_eq!(number(run, "calls") + number(run, "never_made"), 201.0);
    assert_sound(result);
}

#[test]
fn remote_servers_are_called() {
    let (server, address) = serve();
    let report = measured(&["quorum-call", "--remotes", &address, "-i", "2"]);
    let result = &report["results"][0];
    assert_eq!(result["servers"], "remote");
    assert_eq!(number(result, "nodes"), 1.0);
    assert_eq!(result["server_cpu_us_per_call"], Value::Null);
    assert_sound(result);
    drop(server);
}

#[test]
fn nested_calls_to_a_server_without_peers_say_what_it_lacks() {
    let (server, address) = serve();
    let output = bench(&["nested", "--remotes", &address]);
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("start it with --peers"), "{errors}");
    drop(server);
}

#[test]
fn csv_has_a_line_for_each_run() {
    let output = bench(&[
        "rpc",
        "-i",
        "1",
        "-d",
        "20ms",
        "-w",
        "0s",
        "--repeats",
        "3",
        "--csv",
        "-",
    ]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(text.starts_with("date,"), "{text}");
}

#[test]
fn a_sweep_draws_and_its_figures_can_be_drawn_over_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let steps = ["--steps", "1,4", "-d", "50ms", "-w", "10ms"];
    for name in ["a", "b"] {
        let out = path(name);
        let output = bench(&[&["sweep", "--out", &out, "--label", name], &steps[..]].concat());
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            text.contains("1 in flight") && text.contains("4 in flight"),
            "{text}"
        );
    }
    let output = bench(&[
        "plot",
        &path("a.json"),
        &path("b.json"),
        "--out",
        &path("both"),
    ]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for name in ["a.svg", "a.png", "b.svg", "both.svg", "both.png"] {
        assert!(Path::new(&path(name)).exists(), "{name}");
    }
    let both = std::fs::read_to_string(path("both.svg")).expect("a picture");
    assert!(both.contains("a, p50") && both.contains("b, p99"));
}

/// The rows along an axis, each measured for so short a time that the figures mean nothing.
fn scaled(axis: &str, values: &str) -> Vec<Value> {
    let report = measured(&["scale", axis, "--values", values]);
    assert_eq!(report["axis"], axis);
    let rows = report["rows"].as_array().expect("rows").clone();
    for row in &rows {
        assert_sound(&row["measured"]);
        if cfg!(unix) {
            assert!(number(&row["measured"], "client_cpu_us_per_call") > 0.0);
            assert!(number(&row["measured"], "server_peak_bytes") > 1e6);
        }
    }
    rows
}

#[test]
fn scale_measures_each_value_of_replicas_calls_in_flight_and_payload() {
    for (axis, field) in [
        ("replicas", "nodes"),
        ("in-flight", "in_flight"),
        ("payload", "payload_bytes"),
    ] {
        let rows = scaled(axis, "1,2");
        assert_eq!(rows.len(), 2, "{axis}");
        for (row, value) in rows.iter().zip([1.0, 2.0]) {
            assert_eq!(number(row, "value"), value);
            assert_eq!(number(&row["measured"], field), value, "{axis}");
            assert!(number(&row["measured"], "allocations_per_call") > 1.0);
            assert_eq!(row["connections"], Value::Null);
        }
    }
}

#[test]
fn scale_measures_what_connections_of_many_clients_hold_on_either_side() {
    let rows = scaled("clients", "1,200");
    assert_eq!(rows.len(), 2);
    for (row, clients) in rows.iter().zip([1.0, 200.0]) {
        assert_eq!(number(row, "value"), clients);
        // Each client has one call at a time, and a hundred of them call.
        let calling = f64::min(clients, 100.0);
        assert_eq!(number(&row["measured"], "in_flight"), calling);
    }
    if cfg!(target_os = "linux") {
        for side in ["client", "server"] {
            let side = &rows[1]["connections"][side];
            assert!(number(side, "idle_bytes") > 1024.0, "{side}");
            assert!(number(side, "idle_cpu") >= 0.0, "{side}");
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn scale_measures_a_client_of_many_nodes_in_one_process_with_one_and_with_more_calls_in_flight() {
    let rows = scaled("nodes", "300");
    assert_eq!(rows.len(), 2);
    for (row, in_flight) in rows.iter().zip([1.0, 20.0]) {
        assert_eq!(number(&row["measured"], "nodes"), 300.0);
        assert_eq!(number(&row["measured"], "in_flight"), in_flight);
        let client = &row["connections"]["client"];
        assert!(number(client, "idle_bytes") > 1024.0, "{client}");
    }
}

#[test]
fn scale_prints_a_table_for_a_page() {
    let output = bench(&[
        "scale",
        "in-flight",
        "--values",
        "1,3",
        "-d",
        "50ms",
        "-w",
        "10ms",
    ]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(
        text.contains("\n| in flight | client, µs per call |"),
        "{text}"
    );
    assert_eq!(
        text.lines().filter(|line| line.starts_with("| ")).count(),
        4
    );
}

#[cfg(unix)]
#[test]
fn scale_says_how_to_raise_a_limit_of_open_files_that_is_too_low() {
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 200 && exec \"$0\" scale clients"])
        .arg(env!("CARGO_BIN_EXE_gorums-bench"))
        .output()
        .expect("a shell");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("`ulimit -n 1064`"), "{errors}");
    assert!(output.stdout.is_empty());
}

#[test]
fn wrong_options_are_told_before_anything_is_measured() {
    for (args, part) in [
        (&["quorum-call", "--quorum", "9"][..], "--quorum"),
        (
            &["quorum-call", "--json", "-", "--csv", "-"],
            "standard output",
        ),
        (&["isolation", "--quorum", "3"], "--quorum"),
        (&["isolation", "--remotes", "a:1,b:2,c:3"], "--remotes"),
        (&["reconnect", "--remotes", "a:1"], "--remotes"),
        (&["floor", "--remotes", "a:1"], "--remotes"),
        (&["tonic", "--remotes", "a:1"], "--remotes"),
        (&["sweep", "--steps", "0"], "--steps"),
        (&["sweep", "--out", "/no/such/folder/sweep"], "--out"),
        (&["scale"], "<AXIS>"),
        (&["scale", "clients", "--values", "0"], "--values"),
        (&["scale", "nodes", "--values", "1001"], "--values"),
        (&["scale", "payload", "--values", "64MiB"], "--values"),
        (&["scale", "in-flight", "--in-flight", "3"], "--in-flight"),
        (&["scale", "replicas", "--in-flight", "0"], "--in-flight"),
        (&["plot"], "FILE.json"),
        (&["sing"], "sing"),
    ] {
        let output = bench(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains(part), "{args:?}: {errors}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn servers_that_cannot_be_reached_are_named() {
    // Nobody listens on the port of a server that has ended.
    let (server, address) = serve();
    drop(server);
    let output = bench(&["rpc", "--remotes", &address]);
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains(&address), "{errors}");
}

/// A server of its own, which ends when it is dropped, and its address.
fn serve() -> (Served, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_gorums-bench"))
        .args(["serve", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut line = String::new();
    let output = child.stdout.take().expect("it is piped");
    BufReader::new(output)
        .read_line(&mut line)
        .expect("it says where it listens");
    let address = line
        .strip_prefix("listening on ")
        .and_then(|rest| rest.split(';').next());
    let address = address.expect("it says where it listens").to_owned();
    (Served(child), address)
}

struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it can be waited for");
    }
}
