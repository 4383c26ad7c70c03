//! The program itself, with messages as Maelstrom sends them.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

/// What the only node of an echo test is sent, in the form that Maelstrom gives it, and what is
/// expected.
const RECORDED: [(&str, &str); 3] = [
    (
        r#"{"id":0,"src":"c0","dest":"n0","body":{"type":"init","node_id":"n0","node_ids":["n0"],"msg_id":1}}"#,
        r#"{"src":"n0","dest":"c0","body":{"type":"init_ok","in_reply_to":1}}"#,
    ),
    (
        r#"{"id":2,"src":"c2","dest":"n0","body":{"echo":"Please echo 97","type":"echo","msg_id":1}}"#,
        r#"{"src":"n0","dest":"c2","body":{"type":"echo_ok","echo":"Please echo 97","in_reply_to":1}}"#,
    ),
    (
        r#"{"id":4,"src":"c2","dest":"n0","body":{"echo":"Please echo 5","type":"echo","msg_id":2}}"#,
        r#"{"src":"n0","dest":"c2","body":{"type":"echo_ok","echo":"Please echo 5","in_reply_to":2}}"#,
    ),
];

/// Runs the program with these lines, each after the answer to the one before, and then ends its
/// input.
fn run(lines: &[&str]) -> (Vec<Value>, String, Option<i32>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_maelstrom"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    let stdout = std::io::BufReader::new(child.stdout.take().expect("it is piped"));
    let mut stdout = std::io::BufRead::lines(stdout);
    let mut answers = Vec::new();
    for line in lines {
        writeln!(stdin, "{line}").expect("it reads");
        let Some(answer) = stdout.next() else {
            break;
        };
        let answer = answer.expect("text");
        answers.push(serde_json::from_str(&answer).expect("JSON"));
    }
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let errors = String::from_utf8(output.stderr).expect("text");
    (answers, errors, output.status.code())
}

#[test]
fn recorded_messages_are_answered_as_maelstrom_expects() {
    let (answers, errors, code) = run(&RECORDED.map(|(request, _)| request));
    let parse = |(_, answer)| serde_json::from_str::<Value>(answer).expect("JSON");
    let expected = RECORDED.map(parse);
    assert_eq!(answers, expected);
    assert_eq!((errors.as_str(), code), ("", Some(0)));
}

#[test]
fn a_line_that_is_no_message_ends_the_node_and_is_named() {
    let (answers, errors, code) = run(&["{\"src\":\"c0\"}"]);
    assert_eq!(answers, [] as [Value; 0]);
    assert!(
        errors.starts_with("error: a line is not a message of Maelstrom's: missing field"),
        "{errors}"
    );
    assert_eq!(code, Some(1));
}

#[test]
fn what_comes_before_a_line_that_is_no_message_is_answered() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_maelstrom"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut lines = RECORDED.map(|(request, _)| request).join("\n");
    lines.push_str("\nno message\n");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(lines.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let answers = String::from_utf8(output.stdout).expect("text");
    assert_eq!(answers.lines().count(), RECORDED.len(), "{answers}");
    assert_eq!(output.status.code(), Some(1));
}
