//! The prompt on a terminal.
#![cfg(unix)]

use std::process::Command;

use rexpect::ReadUntil;
use rexpect::session::{PtySession, spawn_command};

/// Longer than anything takes on a machine that is busy.
const PATIENCE_MS: u64 = 30_000;

/// The program on a terminal, with what it says when it can be talked to.
fn start(args: &[&str], environment: &[(&str, &str)]) -> PtySession {
    let mut terminal = spawn(args, environment);
    expect(
        &mut terminal,
        "replicas; \"help\" lists the commands, Ctrl-D leaves",
    );
    terminal
}

/// The program on a terminal of 120 columns, without a place for its history.
fn spawn(args: &[&str], environment: &[(&str, &str)]) -> PtySession {
    spawn_on(120, args, environment)
}

fn spawn_on(columns: u32, args: &[&str], environment: &[(&str, &str)]) -> PtySession {
    let script = format!("stty rows 24 columns {columns} && exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command
        .args(["-c", &script, env!("CARGO_BIN_EXE_storage")])
        .args(args)
        .env("TERM", "xterm")
        .env("HOME", "")
        .env("XDG_STATE_HOME", "")
        .env_remove("NO_COLOR")
        .envs(environment.iter().copied());
    spawn_command(command, Some(PATIENCE_MS)).expect("a terminal")
}

/// What was shown up to this text, which is waited for.
fn expect(terminal: &mut PtySession, text: &str) -> String {
    match terminal.exp_string(text) {
        Ok(before) => before,
        Err(error) => panic!("{text:?} did not come: {error}"),
    }
}

/// Waits for these texts, whichever comes first.
fn expect_both(terminal: &mut PtySession, one: &str, other: &str) {
    let needles = [one, other].map(|text| ReadUntil::String(text.to_owned()));
    match terminal.exp_any(Vec::from(needles)) {
        Ok((_, first)) => expect(terminal, if first == one { other } else { one }),
        Err(error) => panic!("neither {one:?} nor {other:?} came: {error}"),
    };
}

/// Types a line at the prompt. Before the prompt is there, keys mean something else.
fn type_line(terminal: &mut PtySession, line: &str) {
    expect(terminal, ">");
    terminal.send_line(line).expect("it reads");
}

/// Presses Ctrl and a key at the prompt.
fn press_at_prompt(terminal: &mut PtySession, key: char) {
    expect(terminal, ">");
    terminal.send_control(key).expect("it reads");
}

/// Types all of this at once.
fn burst(terminal: &mut PtySession, text: &str) {
    terminal.send(text).expect("it reads");
    terminal.flush().expect("it reads");
}

/// Lines of ten reads, of keys that begin with this.
fn ten_reads(key: &str) -> String {
    let lines = (0..10).map(|number| format!("qc read {key}-{number}\r"));
    lines.collect()
}

/// What came of them, in their order.
fn expect_ten_reads(terminal: &mut PtySession, key: &str) {
    for number in 0..10 {
        expect(terminal, &format!("key \"{key}-{number}\" not found"));
    }
}

fn ends_well(terminal: &mut PtySession) -> String {
    ends_with(terminal, 0)
}

fn ends_with(terminal: &mut PtySession, code: i32) -> String {
    let rest = terminal.exp_eof().expect("it ends");
    let status = terminal.process().wait().expect("it ends");
    // Its type cannot be named from here.
    let status = format!("{status:?}");
    assert!(
        status.starts_with("Exited(") && status.ends_with(&format!(", {code})")),
        "{status}"
    );
    rest
}

#[test]
fn commands_are_carried_out_and_a_failed_one_is_not_the_end() {
    let mut terminal = start(&[], &[]);
    type_line(&mut terminal, "qc write greeting 'hello world'");
    expect(&mut terminal, "written to a majority (3 of 4 nodes)");
    type_line(&mut terminal, "frobnicate");
    expect(&mut terminal, "unknown command \"frobnicate\"");
    type_line(&mut terminal, "qc read greeting");
    expect(&mut terminal, "greeting = \"hello world\"");
    type_line(&mut terminal, "exit");
    ends_well(&mut terminal);
}

#[test]
fn tab_completes_commands_operations_and_keys_and_up_brings_lines_back() {
    let mut terminal = start(&[], &[]);
    type_line(&mut terminal, "qc wr\tgreeting hello");
    expect(&mut terminal, "written to a majority");
    type_line(&mut terminal, "rpc 2 rea\tgre\t");
    expect(&mut terminal, "greeting = \"hello\"");
    // The line before that one.
    type_line(&mut terminal, "\u{1b}[A\u{1b}[A");
    expect(&mut terminal, "written to a majority");
    press_at_prompt(&mut terminal, 'd');
    ends_well(&mut terminal);
}

#[test]
fn ctrl_c_clears_the_line_and_leaves_only_from_an_empty_one_when_pressed_twice() {
    let mut terminal = start(&[], &[]);
    for _ in 0..3 {
        expect(&mut terminal, ">");
        terminal.send("stop 1").expect("it reads");
        terminal.flush().expect("it reads");
        expect(&mut terminal, "stop 1");
        terminal.send_control('c').expect("it reads");
        expect(&mut terminal, "\n");
    }
    press_at_prompt(&mut terminal, 'c');
    expect(&mut terminal, "Ctrl-C again, or Ctrl-D, leaves");
    type_line(&mut terminal, "rpc 1 read k");
    expect(&mut terminal, "key \"k\" not found");
    press_at_prompt(&mut terminal, 'c');
    expect(&mut terminal, "Ctrl-C again, or Ctrl-D, leaves");
    press_at_prompt(&mut terminal, 'c');
    ends_well(&mut terminal);
}

#[test]
fn ctrl_c_gives_up_a_command_that_waits_and_not_the_session() {
    let mut terminal = start(&["--timeout", "1h"], &[]);
    type_line(&mut terminal, "pause 2");
    expect(&mut terminal, "replica 2 is paused");
    type_line(&mut terminal, "qc cread k");
    // One has answered, and so have two more in a moment; then it waits for the second.
    expect(&mut terminal, "level 1 of 4");
    terminal.send_control('c').expect("it reads");
    expect(&mut terminal, "given up");
    type_line(&mut terminal, "resume 2");
    expect(&mut terminal, "replica 2 goes on");
    type_line(&mut terminal, "rpc 2 read k");
    expect(&mut terminal, "key \"k\" not found");
    press_at_prompt(&mut terminal, 'd');
    ends_well(&mut terminal);
}

#[test]
fn there_is_colour_unless_the_user_wants_none() {
    let colours = |text: &str| text.contains("\u{1b}[2m") || text.contains("\u{1b}[32m");
    for (environment, coloured) in [(&[][..], true), (&[("NO_COLOR", "1")], false)] {
        let mut terminal = start(&[], environment);
        type_line(&mut terminal, "rpc 1 read k");
        let mut shown = expect(&mut terminal, "not found");
        type_line(&mut terminal, "nodes");
        shown += &expect(&mut terminal, "connected");
        press_at_prompt(&mut terminal, 'd');
        shown += &ends_well(&mut terminal);
        assert_eq!(colours(&shown), coloured, "{shown:?}");
    }
}

#[test]
fn lines_that_come_in_bursts_are_all_run_in_their_order() {
    for (args, bursts) in [(&[][..], 20), (&["cluster"], 40)] {
        let mut terminal = start(args, &[]);
        for number in 0..bursts {
            let key = format!("burst-{number}");
            burst(&mut terminal, &ten_reads(&key));
            expect_ten_reads(&mut terminal, &key);
        }
        // And one that ends in the middle of a line.
        burst(&mut terminal, "qc read first\rqc read sec");
        expect(&mut terminal, "key \"first\" not found");
        burst(&mut terminal, "ond\rexit\r");
        expect(&mut terminal, "key \"second\" not found");
        ends_well(&mut terminal);
    }
}

#[test]
fn lines_that_are_typed_while_a_command_runs_are_run_after_it() {
    for args in [&["--timeout", "1h"][..], &["cluster", "--timeout", "1h"]] {
        let mut terminal = start(args, &[]);
        // A replica that is connected is waited for longer than one that is still to be.
        burst(&mut terminal, "rpc 2 read k\r");
        expect(&mut terminal, "key \"k\" not found");
        burst(&mut terminal, "pause 2\rqc cread k\r");
        // It waits for the second one, for as long as nobody gives it up.
        expect(&mut terminal, "level 1 of");
        burst(&mut terminal, &ten_reads("ahead"));
        terminal.send_control('c').expect("it reads");
        expect(&mut terminal, "given up");
        expect_ten_reads(&mut terminal, "ahead");
        // Longer than any line that a terminal would edit by itself.
        let value = "v".repeat(5000);
        burst(
            &mut terminal,
            &format!("load 1 300\rcfg 1 write k {value}\rcfg 1 read k\r"),
        );
        expect(&mut terminal, "written to a majority (1 of 1 nodes)");
        expect(&mut terminal, &format!("k = \"{value}\""));
        // A key that means something at the prompt only.
        burst(&mut terminal, "qc cread k\r");
        expect(&mut terminal, "level 1 of");
        burst(&mut terminal, "\u{4}");
        terminal.send_control('c').expect("it reads");
        expect(&mut terminal, "given up");
        ends_well(&mut terminal);
    }
}

#[test]
fn each_line_of_a_bracketed_paste_is_run() {
    for args in [&[][..], &["cluster"]] {
        let mut terminal = start(args, &[]);
        for (round, end) in ["", "\r"].iter().enumerate() {
            let key = format!("paste-{round}");
            let lines = ten_reads(&key);
            let lines = lines.trim_end();
            burst(
                &mut terminal,
                &format!("\u{1b}[200~{lines}{end}\u{1b}[201~\r"),
            );
            expect_ten_reads(&mut terminal, &key);
        }
        // Up brings the lines back one by one.
        burst(&mut terminal, "\u{1b}[A\u{1b}[A\r");
        expect(&mut terminal, "key \"paste-1-8\" not found");
        burst(&mut terminal, "exit\r");
        ends_well(&mut terminal);
    }
}

#[test]
fn what_is_typed_after_ctrl_c_is_run() {
    let mut terminal = start(&[], &[]);
    burst(&mut terminal, "garbage\u{3}qc read k\rqc read j\r");
    expect(&mut terminal, "key \"k\" not found");
    expect(&mut terminal, "key \"j\" not found");
    press_at_prompt(&mut terminal, 'd');
    ends_well(&mut terminal);
}

#[test]
fn news_is_shown_above_the_line_that_is_being_typed() {
    let mut terminal = start(&["cluster", "--timeout", "30s"], &[]);
    let long = format!("qc read {}-typed", "k".repeat(200));
    for (round, line) in ["qc read k-typed", &long].into_iter().enumerate() {
        burst(&mut terminal, "nodes\r");
        expect(&mut terminal, "last error");
        // That of the second replica.
        expect(&mut terminal, ", process ");
        expect(&mut terminal, ", process ");
        let process = expect(&mut terminal, "\r\n");
        let process: String = process.chars().take_while(char::is_ascii_digit).collect();
        burst(&mut terminal, line);
        expect(&mut terminal, "-typed");
        let killed = Command::new("kill").args(["-9", &process]).status();
        assert!(killed.expect("there is such a program").success());
        let news = "replica 2 has ended; \"start 2\" starts it again";
        let answer = "end\" not found";
        if round == 0 {
            expect(&mut terminal, news);
            burst(&mut terminal, "end\r");
            expect(&mut terminal, answer);
        } else {
            burst(&mut terminal, "end\r");
            // What the editor says when it has taken a line.
            let line = expect(&mut terminal, "\u{1b}[?2004l");
            assert!(!line.contains(news), "the line has several rows: {line:?}");
            // The death may become known before the answer or after it.
            expect_both(&mut terminal, news, answer);
        }
        burst(&mut terminal, "start 2\r");
        expect(&mut terminal, "replica 2 is running");
    }
    burst(&mut terminal, "exit\r");
    ends_well(&mut terminal);
}

#[test]
fn lines_of_earlier_sessions_come_back() {
    let state = tempfile::tempdir().expect("a directory");
    let state = state.path().to_str().expect("a plain path");
    let environment = [("XDG_STATE_HOME", state)];
    let mut terminal = start(&[], &environment);
    type_line(&mut terminal, "qc write greeting hello");
    expect(&mut terminal, "written to a majority");
    press_at_prompt(&mut terminal, 'd');
    ends_well(&mut terminal);
    let mut terminal = start(&[], &environment);
    type_line(&mut terminal, "\u{1b}[A");
    expect(&mut terminal, "written to a majority");
    press_at_prompt(&mut terminal, 'd');
    ends_well(&mut terminal);
}

#[test]
fn where_lines_cannot_be_kept_that_is_said_and_no_more() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path().to_str().expect("a plain path");
    let mut terminal = start(&[], &[("XDG_STATE_HOME", path)]);
    expect(&mut terminal, "the lines of this session are not kept: ");
    type_line(&mut terminal, "qc read k");
    expect(&mut terminal, "key \"k\" not found");
    press_at_prompt(&mut terminal, 'd');
    ends_well(&mut terminal);
}

#[test]
fn ctrl_c_ends_a_load_and_what_it_has_measured_is_shown() {
    let mut terminal = start(&[], &[]);
    type_line(&mut terminal, "load 4 3600000");
    expect(&mut terminal, " writes so far, ");
    expect(&mut terminal, " of 1h");
    terminal.send_control('c').expect("it reads");
    expect(&mut terminal, " writes of 100 bytes acknowledged in ");
    expect(&mut terminal, "latency: median ");
    expect(&mut terminal, "cut short by Ctrl-C: it was to take 1h");
    burst(&mut terminal, "qc read load-3\rexit\r");
    expect(&mut terminal, "load-3 = ");
    ends_well(&mut terminal);
}

#[test]
fn without_a_prompt_ctrl_c_ends_the_program_and_a_load_is_shown_before() {
    let load = "load 4 3600000";
    let mut terminal = spawn(&["-c", load, "-c", "qc read k"], &[]);
    expect(&mut terminal, " writes so far, ");
    terminal.send_control('c').expect("it reads");
    expect(&mut terminal, "cut short by Ctrl-C: it was to take 1h");
    let rest = ends_with(&mut terminal, 130);
    assert!(!rest.contains("not found"), "{rest}");
    let wait = ["-c", "pause 2", "-c", "cfg 2 read k", "--timeout", "1h"];
    let mut terminal = spawn(&wait, &[]);
    expect(&mut terminal, "replica 2 is paused");
    terminal.send_control('c').expect("it reads");
    ends_with(&mut terminal, 130);
}

#[test]
fn tables_and_help_fit_the_terminal() {
    for columns in [40, 60, 80, 200] {
        let mut terminal = spawn_on(columns, &["--timeout", "30s"], &[]);
        expect(&mut terminal, "leaves");
        burst(&mut terminal, "stop 1\rnodes\r");
        expect(&mut terminal, "replica 1 is stopped");
        // The state of the first row is that of the replica which is stopped.
        burst(&mut terminal, "help\rhelp qc\rexit\r");
        let shown = plain(&ends_well(&mut terminal));
        let mut lines = shown.lines().peekable();
        let words = ["node", "connected", "pause", "majority"];
        assert!(words.iter().all(|word| shown.contains(word)), "{shown}");
        assert!(lines.peek().is_some());
        for line in lines.filter(|line| !line.contains("> ")) {
            assert!(
                line.chars().count() <= columns as usize,
                "{columns}: {line:?}"
            );
            assert!(
                !line.ends_with("quor"),
                "{columns}: a word is cut: {line:?}"
            );
        }
    }
}

/// The text without colours and other sequences.
fn plain(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_ascii_alphabetic());
        plain.push_str(end.map_or("", |end| &part[end + 1..]));
    }
    // Each byte has come as a character of its own.
    let bytes = plain.chars().filter(|&c| c != '\r').map(|c| c as u8);
    String::from_utf8(bytes.collect()).expect("text")
}

#[test]
fn clear_clears_the_screen_and_on_a_pipe_does_nothing() {
    let mut terminal = start(&[], &[]);
    type_line(&mut terminal, "clear");
    expect(&mut terminal, "\u{1b}[H\u{1b}[2J");
    press_at_prompt(&mut terminal, 'd');
    ends_well(&mut terminal);
    let output = Command::new(env!("CARGO_BIN_EXE_storage"))
        .args(["-c", "clear"])
        .output()
        .expect("it runs");
    assert!(output.stdout.is_empty() && output.status.success());
}
