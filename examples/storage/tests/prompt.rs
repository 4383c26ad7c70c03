//! The prompt on a terminal.
#![cfg(unix)]

use std::process::Command;

use rexpect::session::{PtySession, spawn_command};

/// Longer than anything takes on a machine that is busy.
const PATIENCE_MS: u64 = 30_000;

/// The program on a terminal.
fn start(args: &[&str], environment: &[(&str, &str)]) -> PtySession {
    let mut command = Command::new(env!("CARGO_BIN_EXE_storage"));
    command
        .args(args)
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .envs(environment.iter().copied());
    let mut terminal = spawn_command(command, Some(PATIENCE_MS)).expect("a terminal");
    expect(
        &mut terminal,
        "4 replicas; \"help\" lists the commands, Ctrl-D leaves",
    );
    terminal
}

/// What was shown up to this text, which is waited for.
fn expect(terminal: &mut PtySession, text: &str) -> String {
    match terminal.exp_string(text) {
        Ok(before) => before,
        Err(error) => panic!("{text:?} did not come: {error}"),
    }
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

fn ends_well(terminal: &mut PtySession) -> String {
    let rest = terminal.exp_eof().expect("it ends");
    let status = terminal.process().wait().expect("it ends");
    // Its type cannot be named from here.
    let status = format!("{status:?}");
    assert!(
        status.starts_with("Exited(") && status.ends_with(", 0)"),
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
