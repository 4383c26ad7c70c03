//! The program as others run it: commands from a pipe and from options, results, messages and exit
//! statuses.

mod common;

use std::time::{Duration, Instant};

use common::{Program, run, run_commands};

#[test]
fn the_store_goes_on_without_a_replica() {
    let done = run(
        &[],
        "qc write greeting hello\nmcast greeting again\nstop 1\nqc read greeting\nrpc 2 read greeting\n",
    );
    let lines = done.lines();
    assert_eq!(lines[0], "written to a majority (3 of 4 nodes)");
    assert_eq!(lines[1], "sent to 4 of 4");
    assert_eq!(lines[2], "replica 1 is stopped");
    assert!(lines[3].starts_with("greeting = \"again\"  ("), "{done:?}");
    assert!(lines[3].ends_with(", 3 of 4 nodes answered)"), "{done:?}");
    assert!(lines[4].starts_with("greeting = \"again\"  ("), "{done:?}");
    assert!(lines[4].ends_with(", node 2)"), "{done:?}");
    assert_eq!((lines.len(), done.stderr.as_str(), done.code), (5, "", 0));
}

#[test]
fn a_lost_majority_fails_within_a_second_and_names_the_nodes() {
    let mut program = Program::start(&[]);
    program.type_line("stop 1");
    program.type_line("stop 2");
    program.expect_line("replica 1 is stopped");
    program.expect_line("replica 2 is stopped");
    let asked = Instant::now();
    program.type_line("qc read greeting");
    let head = program.error_line();
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "{:?}",
        asked.elapsed()
    );
    assert!(head.starts_with("error in line 3: "), "{head}");
    assert!(head.ends_with(" of 4 nodes answered, 3 needed"), "{head}");
    let mut named = [program.error_line(), program.error_line()];
    named.sort();
    assert!(named[0].starts_with("  node 1 (127.0.0.1:"), "{named:?}");
    assert!(named[1].starts_with("  node 2 (127.0.0.1:"), "{named:?}");
    assert!(
        named
            .iter()
            .all(|line| line.contains("not sent: unavailable")),
        "{named:?}"
    );
    assert_eq!(program.end(), 1);
}

#[test]
fn one_write_after_the_other_is_newer_whatever_the_call() {
    let done = run_commands(&[
        "rpc 3 write k rpc",
        "rpc 3 read k",
        "ucast 3 k ucast",
        "rpc 3 read k",
        "mcast k mcast",
        "rpc 3 read k",
        "qc write k qc",
        "cfg 3 read k",
    ]);
    let values: Vec<_> = done
        .lines()
        .into_iter()
        .filter(|line| line.starts_with("k = "))
        .collect();
    let expected = ["rpc", "ucast", "mcast", "qc"];
    assert_eq!(values.len(), expected.len(), "{done:?}");
    for (line, value) in values.iter().zip(expected) {
        assert!(line.starts_with(&format!("k = \"{value}\"  (")), "{done:?}");
    }
    assert_eq!(done.code, 0, "{done:?}");
}

#[test]
fn a_missing_key_is_a_result_and_no_failure() {
    let done = run_commands(&[
        "rpc 1 read x",
        "qc read x",
        "cfg 1,2 read 'a b'",
        "cfg 3 cread ''",
    ]);
    assert_eq!(
        done.lines(),
        [
            "key \"x\" not found  (node 1)",
            "key \"x\" not found  (3 of 4 nodes answered)",
            "key \"a b\" not found  (2 of 2 nodes answered)",
            "key \"\" not found  (level 1 of 1, node 3)",
            "done: 1 of 1 nodes answered",
        ]
    );
    assert_eq!((done.stderr.as_str(), done.code), ("", 0));
}

#[test]
fn quoted_values_come_back_as_they_were_given() {
    let done = run(
        &[],
        "qc write k \"two words\"\nqc read k\nqc write k ''\nqc read k\nqc write k 'say \"hi\"'\nqc read k\n\
         qc write k a\\ b\\\\c\nqc read k\nqc write k \"it's\"\nqc read k\n",
    );
    let values: Vec<_> = done
        .lines()
        .into_iter()
        .filter_map(|line| Some(line.strip_prefix("k = ")?.split_once("  (")?.0.to_owned()))
        .collect();
    let expected = [
        r#""two words""#,
        r#""""#,
        r#""say \"hi\"""#,
        r#""a b\\c""#,
        r#""it's""#,
    ];
    assert_eq!(values, expected, "{done:?}");
    assert_eq!(done.code, 0);
}

#[test]
fn a_part_of_the_nodes_is_a_configuration_of_its_own() {
    let done = run_commands(&[
        "cfg 1:2 write k v",
        "cfg 2 read k",
        "cfg 3:4 read k",
        "cfg 4,1:2 read k",
        "cfg 1,3 mcast k w",
        "rpc 3 read k",
        "rpc 2 read k",
    ]);
    let lines = done.lines();
    assert_eq!(lines[0], "written to a majority (2 of 2 nodes)");
    assert!(lines[1].ends_with(", 1 of 1 nodes answered)"), "{done:?}");
    assert_eq!(lines[2], "key \"k\" not found  (2 of 2 nodes answered)");
    assert!(
        lines[3].starts_with("k = \"v\"") && lines[3].ends_with("2 of 3 nodes answered)"),
        "{done:?}"
    );
    assert_eq!(lines[4], "sent to 2 of 2");
    assert!(lines[5].starts_with("k = \"w\""), "{done:?}");
    assert!(lines[6].starts_with("k = \"v\""), "{done:?}");
    assert_eq!(done.code, 0);
}

#[test]
fn nodes_that_do_not_exist_are_refused() {
    for (command, message) in [
        (
            "cfg 1,7 read k",
            "there is no node 7; the nodes are 1, 2, 3, 4",
        ),
        (
            "cfg 2:9 read k",
            "there is no node 9; the nodes are 1, 2, 3, 4",
        ),
        ("cfg 1,1:2 read k", "is named twice"),
        (
            "rpc 5 read k",
            "there is no node 5; the nodes are 1, 2, 3, 4",
        ),
        (
            "ucast 5 k v",
            "there is no node 5; the nodes are 1, 2, 3, 4",
        ),
        ("stop 5", "there is no replica 5; the replicas are 1 to 4"),
    ] {
        let done = run_commands(&[command]);
        assert!(done.stderr.contains(message), "{command}: {done:?}");
        assert_eq!((done.stdout.as_str(), done.code), ("", 1), "{command}");
    }
}

#[test]
fn a_multicast_that_reached_some_has_failed_and_says_whom_it_missed() {
    let done = run(
        &[],
        "stop 1\nmcast k v\nrpc 2 read k\nrpc 3 read k\nrpc 4 read k\n",
    );
    let message = "error in line 2: sent to 3 of 4; node 1: not sent: unavailable: ";
    assert!(done.stderr.starts_with(message), "{done:?}");
    assert_eq!(done.stderr.lines().count(), 1, "{done:?}");
    assert_eq!(done.stdout.matches("k = \"v\"").count(), 3, "{done:?}");
    assert_eq!(done.code, 1);
}

#[test]
fn calls_to_one_node_that_is_stopped_fail_and_name_it() {
    for call in ["rpc 2 read k", "rpc 2 write k v", "ucast 2 k v"] {
        let done = run_commands(&["stop 2", call]);
        assert!(done.stderr.contains("node 2 (127.0.0.1:"), "{done:?}");
        assert!(done.stderr.contains("not sent: unavailable"), "{done:?}");
        assert_eq!(done.code, 1);
    }
}

#[test]
fn a_replica_that_was_stopped_starts_empty_on_its_port() {
    let done = run_commands(&[
        "nodes",
        "qc write k v",
        "stop 2",
        "nodes",
        "start 2",
        "rpc 2 read k",
        "mcast k w",
        "rpc 2 read k",
        "nodes",
    ]);
    let row = |line: &&String| line.starts_with("2  ");
    let rows: Vec<String> = done.lines().iter().filter(row).cloned().collect();
    let columns: Vec<Vec<&str>> = rows
        .iter()
        .map(|row| row.split_whitespace().collect())
        .collect();
    assert_eq!(columns.len(), 3, "{done:?}");
    assert!(
        columns.iter().all(|row| row[1] == columns[0][1]),
        "the same address: {done:?}"
    );
    assert_eq!((columns[0][2], columns[0][4]), ("connected", "running"));
    assert_ne!(columns[1][2], "connected", "{done:?}");
    assert_eq!(columns[1][4], "stopped");
    assert_eq!((columns[2][2], columns[2][4]), ("connected", "running"));
    assert!(
        done.stdout.contains("key \"k\" not found  (node 2)"),
        "{done:?}"
    );
    assert!(done.stdout.contains("k = \"w\""), "{done:?}");
    assert_eq!(done.code, 0, "{done:?}");
}

#[test]
fn every_replica_can_be_restarted_in_turn() {
    let mut script = String::new();
    for round in 0..3 {
        for id in 1..=4 {
            script += &format!(
                "qc write k {round}.{id}\nstop {id}\nqc read k\nstart {id}\nrpc {id} write k x\nrpc {id} read k\n"
            );
        }
    }
    let done = run(&[], &script);
    assert_eq!((done.stderr.as_str(), done.code), ("", 0));
    assert_eq!(done.stdout.matches("nodes answered").count(), 12);
    assert_eq!(done.stdout.matches("k = \"x\"").count(), 12);
}

#[test]
fn a_paused_replica_is_silent_and_reads_on_when_it_goes_on() {
    let done = run(
        &["--timeout", "1500ms"],
        "qc write k old\npause 2\nrpc 2 read k\nucast 2 k new\nqc write j v\nqc read j\nnodes\n\
         resume 2\nrpc 2 read k\nrpc 2 read j\nnodes\n",
    );
    let errors: Vec<_> = done.stderr.lines().collect();
    assert_eq!(errors.len(), 1, "{done:?}");
    assert!(
        errors[0].starts_with("error in line 3: node 2 ("),
        "{done:?}"
    );
    assert!(errors[0].contains("deadline exceeded"), "{done:?}");
    let lines = done.lines();
    let position = |text: &str| lines.iter().position(|line| line.contains(text));
    let resumed = position("replica 2 goes on").expect("it was resumed");
    assert!(position("sent to node 2") < Some(resumed), "{done:?}");
    assert!(
        position("j = \"v\"") < Some(resumed),
        "a majority needs it not: {done:?}"
    );
    assert!(lines[resumed + 1].starts_with("k = \"new\""), "{done:?}");
    assert!(lines[resumed + 2].starts_with("j = \"v\""), "{done:?}");
    assert_eq!(done.stdout.matches("  paused").count(), 1, "{done:?}");
    assert_eq!(done.code, 1);
}

#[test]
fn a_replica_can_be_paused_before_it_has_a_connection_and_stopped_while_it_is_paused() {
    let done = run_commands(&["pause 1", "stop 1", "start 1", "rpc 1 read k", "resume 1"]);
    assert!(
        done.stdout.contains("key \"k\" not found  (node 1)"),
        "{done:?}"
    );
    assert!(
        done.stderr.contains("replica 1 is not paused"),
        "a new replica is not: {done:?}"
    );
}

#[test]
fn a_replica_that_is_late_acts_at_once_and_answers_later() {
    let started = Instant::now();
    let done = run_commands(&[
        "delay 2 300",
        "rpc 2 write k v",
        "nodes",
        "delay 2 0",
        "rpc 2 read k",
    ]);
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert!(
        done.stdout
            .contains("replica 2 answers 300 ms late\nwritten to node 2\n"),
        "{done:?}"
    );
    assert!(done.stdout.contains("running, 300 ms late"), "{done:?}");
    assert!(
        done.stdout.contains("replica 2 answers at once\nk = \"v\""),
        "{done:?}"
    );
    assert_eq!(done.code, 0, "{done:?}");

    // The next request does not wait for the answer that is late, and finds what was written.
    let done = run(
        &["--timeout", "1500ms"],
        "delay 2 3600000\nrpc 2 write k v\ndelay 2 0\nrpc 2 read k\n",
    );
    assert!(done.stderr.contains("deadline exceeded"), "{done:?}");
    assert!(done.stdout.contains("k = \"v\""), "{done:?}");
    assert_eq!(done.code, 1);
}

#[test]
fn what_cannot_be_done_to_a_replica_is_refused() {
    for (commands, message) in [
        (&["start 1"][..], "replica 1 is running"),
        (
            &["stop 1", "stop 1"],
            "replica 1 is stopped; \"start 1\" starts it",
        ),
        (
            &["stop 1", "pause 1"],
            "replica 1 is stopped; \"start 1\" starts it",
        ),
        (
            &["stop 1", "delay 1 5"],
            "replica 1 is stopped; \"start 1\" starts it",
        ),
        (
            &["pause 1", "pause 1"],
            "replica 1 is paused; \"resume 1\" ends it",
        ),
        (&["resume 1"], "replica 1 is not paused"),
    ] {
        let done = run_commands(commands);
        assert!(done.stderr.contains(message), "{commands:?}: {done:?}");
        assert_eq!(done.code, 1, "{commands:?}");
    }
}

#[test]
fn a_correctable_read_shows_each_better_answer_and_its_level() {
    // Replica 1 alone has a value, and answers last.
    let done = run(
        &["--timeout", "30s"],
        "rpc 1 write k v\ndelay 1 1000\nqc cread k\n",
    );
    let lines = done.lines();
    assert!(
        lines[2].starts_with("key \"k\" not found  (level 1 of 4, node "),
        "{done:?}"
    );
    assert!(lines[3].starts_with("k = \"v\"  ("), "{done:?}");
    assert!(lines[3].ends_with(", level 4 of 4, node 1)"), "{done:?}");
    assert_eq!(lines[4], "done: 4 of 4 nodes answered");
    assert_eq!((lines.len(), done.stderr.as_str(), done.code), (5, "", 0));
}

#[test]
fn a_correctable_read_needs_a_majority_and_tells_who_is_missing() {
    let done = run_commands(&["mcast k v", "stop 4", "qc cread k"]);
    assert!(
        done.stdout.ends_with("done: 3 of 4 nodes answered\n"),
        "{done:?}"
    );
    assert!(done.stderr.starts_with("node 4 (127.0.0.1:"), "{done:?}");
    assert_eq!(done.code, 0, "{done:?}");

    let done = run_commands(&["mcast k v", "stop 4", "stop 1", "qc cread k"]);
    assert!(done.stdout.contains("k = \"v\""), "{done:?}");
    assert!(
        done.stderr
            .contains("no majority: 2 of 4 nodes answered, 3 needed\n"),
        "{done:?}"
    );
    assert!(
        done.stderr.contains("  node 1 (") && done.stderr.contains("  node 4 ("),
        "{done:?}"
    );
    assert_eq!(done.code, 1);
}

#[test]
fn nested_calls_go_through_the_replicas_to_all_of_them() {
    let done = run_commands(&[
        "rpc 3 write k old",
        "cfg 3:4 write k new",
        "cfg 1 nread k",
        "cfg 1 nwrite n v",
        "qc nread n",
        "stop 1",
        "qc nwrite n w",
        "rpc 2 read n",
        "qc nread n",
    ]);
    let lines = done.lines();
    assert!(lines[2].starts_with("k = \"new\""), "{done:?}");
    assert!(
        lines[3].starts_with("written to a majority (1 of 1 node"),
        "{done:?}"
    );
    assert!(lines[4].starts_with("n = \"v\""), "{done:?}");
    assert!(lines[7].starts_with("n = \"w\""), "{done:?}");
    assert!(lines[8].starts_with("n = \"w\""), "{done:?}");
    assert_eq!((done.stderr.as_str(), done.code), ("", 0), "{done:?}");
}

#[test]
fn a_nested_call_without_a_majority_names_who_is_missing() {
    for call in ["cfg 1 nread k", "cfg 1 nwrite k v"] {
        let done = run_commands(&["stop 3", "stop 4", call]);
        // The one that the line has room for.
        let named = done.stderr.contains("node 3 (") || done.stderr.contains("node 4 (");
        assert!(named, "{done:?}");
        assert_eq!(done.code, 1, "{call}");
    }
}

#[test]
fn nested_calls_pass_a_paused_replica_by() {
    let done = run_commands(&[
        "pause 2",
        "qc nwrite k v",
        "qc nread k",
        "resume 2",
        "rpc 2 read k",
    ]);
    let lines = done.lines();
    assert!(
        lines.iter().any(|line| line.starts_with("k = \"v\"")),
        "{done:?}"
    );
    assert_eq!((done.stderr.as_str(), done.code), ("", 0), "{done:?}");
}

#[test]
fn a_command_that_failed_does_not_stop_those_after_it() {
    let done = run(
        &[],
        "# a comment\n\nfrobnicate\nqc raed k\nqc write k\nstop one\nqc read 'k\nqc write k v w\nqc write k v\n   # more\nqc read k",
    );
    for message in [
        "error in line 3: unknown command \"frobnicate\"",
        "error in line 4: qc has no operation \"raed\"; did you mean \"read\"?",
        "error in line 5: VALUE is missing\nusage: qc write KEY VALUE",
        "error in line 6: \"one\" is not the id of a node",
        "error in line 7: a quote is not closed",
        "error in line 8: nothing more was expected at \"w\"",
    ] {
        assert!(done.stderr.contains(message), "{message}: {done:?}");
    }
    let lines = done.lines();
    assert_eq!(lines[0], "written to a majority (3 of 4 nodes)");
    assert!(lines[1].starts_with("k = \"v\""), "{done:?}");
    assert_eq!((lines.len(), done.code), (2, 1));
}

#[test]
fn commands_of_options_run_in_order_and_the_pipe_is_left_alone() {
    let done = run(
        &[
            "-c",
            "qc write k 'a b'",
            "--command",
            "stop 9",
            "-c",
            "qc read k",
        ],
        "qc read other\n",
    );
    let lines = done.lines();
    assert!(lines[1].starts_with("k = \"a b\""), "{done:?}");
    assert_eq!(lines.len(), 2, "{done:?}");
    assert!(
        done.stderr
            .starts_with("error in \"stop 9\": there is no replica 9"),
        "{done:?}"
    );
    assert_eq!(done.code, 1);
}

#[test]
fn exit_ends_it_and_what_comes_after_is_not_read() {
    for exit in ["exit", "quit"] {
        let done = run(&[], &format!("qc read k\n{exit}\nstop 9\n"));
        assert_eq!(
            (done.lines().len(), done.stderr.as_str(), done.code),
            (1, "", 0)
        );
    }
}

#[test]
fn no_commands_are_no_failure() {
    let done = run(&[], "");
    assert_eq!(
        (done.stdout.as_str(), done.stderr.as_str(), done.code),
        ("", "", 0)
    );
}

#[test]
fn without_a_terminal_there_is_neither_prompt_nor_colour() {
    let done = run(
        &[],
        "help\nhelp qc\nnodes\nqc write k v\nqc read k\nstop 9\n",
    );
    for stream in [&done.stdout, &done.stderr] {
        assert!(!stream.contains('\u{1b}'), "{done:?}");
        assert!(!stream.contains("> "), "{done:?}");
    }
    assert!(done.stdout.contains("help [COMMAND]"), "{done:?}");
}

#[test]
fn control_characters_of_values_do_not_reach_the_terminal() {
    let done = run(
        &[],
        "qc write k '\u{1b}[31mred\u{7}'\nqc read k\nstop \u{1b}[2J\n",
    );
    assert!(
        done.stdout.contains(r#"k = "\u{1b}[31mred\u{7}""#),
        "{done:?}"
    );
    assert!(
        !done.stdout.contains('\u{1b}') && !done.stderr.contains('\u{1b}'),
        "{done:?}"
    );
}

#[test]
fn a_call_that_is_explained_tells_of_each_node_and_has_its_result() {
    let done = run(
        &["--replicas", "3"],
        "explain qc write k v\nstop 3\nexplain qc read k\nstop 2\nexplain cfg 1:2 read k\n",
    );
    let lines: Vec<_> = done.stdout.lines().collect();
    let place = |text: &str| {
        let found = lines.iter().position(|line| line.contains(text));
        found.unwrap_or_else(|| panic!("{text}: {done:?}"))
    };
    let write = place("proto.Storage.WriteQC: done after ");
    assert!(
        lines[write].ends_with(", 3 of 3 nodes answered"),
        "{done:?}"
    );
    let enough = |line: &&&str| line.contains(", which was enough");
    assert_eq!(lines[write..write + 4].iter().filter(enough).count(), 1);
    assert!(
        lines[write + 4].starts_with("written to a majority"),
        "{done:?}"
    );

    let read = place("proto.Storage.ReadQC: done after ");
    assert!(lines[read + 3].contains("node 3"), "{done:?}");
    assert!(lines[read + 3].contains("failed after "), "{done:?}");
    assert!(lines[read + 4].starts_with("k = \"v\""), "{done:?}");

    let failed = place("proto.Storage.ReadQC: failed after ");
    assert!(
        lines[failed].ends_with(", 1 of 2 nodes answered"),
        "{done:?}"
    );
    assert!(
        done.stderr.contains("1 of 2 nodes answered, 2 needed"),
        "{done:?}"
    );
}

#[test]
fn any_number_of_replicas_can_be_started() {
    let done = run(
        &["--replicas", "1"],
        "qc write k v\nqc read k\nstop 1\nqc read k\n",
    );
    assert!(done.stdout.contains(", 1 of 1 nodes answered)"), "{done:?}");
    assert!(
        done.stderr.contains("0 of 1 nodes answered, 1 needed"),
        "{done:?}"
    );
    let done = run(
        &["--replicas", "7"],
        "qc write k v\nstop 1\nstop 3\nstop 5\nqc read k\n",
    );
    assert!(done.stdout.contains(", 4 of 7 nodes answered)"), "{done:?}");
    assert_eq!(done.code, 0, "{done:?}");
}

#[test]
fn wrong_options_are_refused_with_a_status_of_their_own() {
    for (args, message) in [
        (&["--frobnicate"][..], "--frobnicate"),
        (&["--timeout", "soon"], "--timeout"),
        (&["--replicas", "0"], "--replicas"),
        (
            &["--connect", "localhost"],
            "\"localhost\": there is no port",
        ),
        (
            &["--connect", "a:1,b:2,a:1"],
            "nodes 1 and 3 have the same address a:1",
        ),
        (&["--connect", "2=a:1,2=b:1"], "id 2"),
        (&["--connect", "0=a:1"], "\"0\" is not an id"),
        (&["--connect", "x=a:1"], "\"x\" is not an id"),
        (&["--config", "/nowhere/nodes.toml"], "/nowhere/nodes.toml"),
        (&["serve", "--id", "1"], "--listen"),
        (&["call", "2", "ReadRPC", "{}"], "--connect"),
        (&["call", "--connect", "a:1", "0", "ReadRPC", "{}"], "<N>"),
        (&["call", "--connect", "a:1", "2", "ReadRPC"], "<JSON>"),
        (
            &["serve", "--id", "1", "--listen", "localhost"],
            "there is no port; expected host:port or unix:/path",
        ),
        (
            &["serve", "--id", "1", "--listen", "localhost:99999"],
            "the port \"99999\" is not a number",
        ),
        (
            &["serve", "--id", "1", "--listen", ":8081"],
            "there is no host",
        ),
    ] {
        let done = run(args, "");
        assert!(done.stderr.contains(message), "{args:?}: {done:?}");
        assert_eq!((done.stdout.as_str(), done.code), ("", 2), "{args:?}");
    }
}

#[test]
fn help_teaches_by_example() {
    let done = run(&["--help"], "");
    for text in [
        "serve",
        "--connect",
        "--config",
        "--timeout",
        "Examples:",
        "storage -c ",
    ] {
        assert!(done.stdout.contains(text), "{text}: {done:?}");
    }
    assert_eq!(done.code, 0);
}

#[test]
fn a_reader_that_leaves_is_no_panic() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_storage"))
        .args(["-c", "help", "-c", "help"])
        .stdout(writer)
        .stderr(std::process::Stdio::piped())
        .output()
        .expect("it starts");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn it_logs_as_it_is_asked_to() {
    for (asked, told) in [
        (
            "gorums=info",
            "INFO gorums::client: connected node=1 address=127.0.0.1:",
        ),
        (
            "gorums=loud",
            "warning: nothing is logged: RUST_LOG: error parsing level",
        ),
    ] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_storage"))
            .args(["--replicas", "1", "-c", "qc write a 1"])
            .env("RUST_LOG", asked)
            .output()
            .expect("it starts");
        let messages = String::from_utf8(output.stderr).expect("text");
        assert!(messages.contains(told), "{asked}: {messages}");
        assert_eq!(output.status.code(), Some(0));
    }
}

#[test]
fn any_method_of_one_node_is_called_with_json() {
    let done = run_commands(&[
        r#"call 2 WriteRPC '{"key": "k", "value": "v", "time": "2026-01-02T03:04:05Z"}'"#,
        r#"call 2 ReadRPC '{"key": "k"}'"#,
        r#"call 2 proto.Storage/ReadCorrectable '{"key": "k"}'"#,
        r#"call 3 Storage.WriteUnicast '{"key": "k", "value": "one-way"}'"#,
        r#"call 3 /proto.Storage/ReadQC '{"key": "k"}'"#,
        r#"call 1 ReadRPC '{"key": "k"}'"#,
        "call 1 ReadRPC '{}'",
    ]);
    let found = r#"{"OK":true,"value":"v","time":"2026-01-02T03:04:05Z"}"#;
    let nothing = r#"{"OK":false,"value":""}"#;
    let lines = done.lines();
    assert_eq!(
        lines[..4],
        [r#"{"new":true}"#, found, found, "sent to node 3"]
    );
    let one_way = r#"{"OK":true,"value":"one-way","time":"#;
    assert!(lines[4].starts_with(one_way), "{done:?}");
    assert_eq!(lines[5..], [nothing, nothing]);
    assert_eq!((done.stderr.as_str(), done.code), ("", 0));
}

#[test]
fn a_call_with_json_that_cannot_be_made_says_why() {
    let fields = "its fields are:\n  key: string";
    let methods = "the methods are:\n  proto.Storage/ReadRPC  ReadRequest -> ReadResponse\n";
    let one_way = "\n  proto.Storage/WriteUnicast  WriteRequest, one-way\n";
    for (command, messages) in [
        ("call 9 ReadRPC '{}'", &["9", "1"][..]),
        (
            "call two ReadRPC '{}'",
            &["is not the id of a node", "usage: call N METHOD JSON"],
        ),
        ("call 1", &["METHOD, the name of a method, is missing"]),
        ("call 1 ReadRPC", &["JSON, the request, is missing"]),
        (
            r#"call 1 ReadRPC {"key": "k"}"#,
            &["the JSON needs single quotes around it"],
        ),
        (
            r#"call 1 ReadRPC {"key":"k"}"#,
            &["put the JSON into single quotes"],
        ),
        (
            "call 1 ReedRPC '{}'",
            &[
                "there is no method \"ReedRPC\"; did you mean \"ReadRPC\"?",
                methods,
                one_way,
            ],
        ),
        ("call 1 other.Storage/ReadRPC '{}'", &[methods]),
        (
            r#"call 1 ReadRPC '{"key": 5}'"#,
            &[
                "the request is no proto.ReadRequest: field key: invalid type: integer `5`",
                fields,
            ],
        ),
        (r#"call 1 ReadRPC '{"kee": "k"}'"#, &["kee", fields]),
        (r#"call 1 ReadRPC '{"key": "k"'"#, &["EOF", fields]),
        (
            r#"call 1 ReadRPC '{"key": "k"} x'"#,
            &["trailing characters"],
        ),
        (r#"call 1 WriteRPC '{"time": "noon"}'"#, &["field time: "]),
        ("call 1 ReadRPC '[]'", &["invalid type", fields]),
    ] {
        let done = run(&["--replicas", "1", "-c", command], "");
        for message in messages {
            assert!(
                done.stderr.contains(message),
                "{command}: {message}: {done:?}"
            );
        }
        assert_eq!((done.stdout.as_str(), done.code), ("", 1), "{command}");
    }
    let done = run_commands(&["stop 2", "call 2 ReadRPC '{}'"]);
    assert!(done.stderr.contains("node 2 (127.0.0.1:"), "{done:?}");
    assert!(done.stderr.contains("not sent: unavailable: "), "{done:?}");
    assert_eq!(done.code, 1);
}

#[test]
fn one_method_of_a_replica_elsewhere_is_called_from_the_command_line() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let nobody = listener.local_addr().expect("it is bound").to_string();
    drop(listener);
    for (words, message) in [
        (["1", "ReadRPC", "{}"], "not sent: unavailable: "),
        (["2", "ReadRPC", "{}"], "2"),
        (["1", "Nothing", "{}"], "the methods are:"),
        (["1", "ReadRPC", "{"], "the request is no proto.ReadRequest"),
    ] {
        let args = ["call", "--wait", "0s", "--connect", &*nobody];
        let done = run(&[&args[..], &words[..]].concat(), "");
        assert!(done.stderr.contains(message), "{words:?}: {done:?}");
        assert_eq!((done.stdout.as_str(), done.code), ("", 1), "{words:?}");
    }
    let help = run(&["call", "--help"], "");
    for text in ["--ca", "{\"key\": \"greeting\"}", "METHOD", "--timeout"] {
        assert!(help.stdout.contains(text), "{text}: {help:?}");
    }
}
