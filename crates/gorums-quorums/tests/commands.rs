//! The program as people and other programs use it.
#![allow(missing_docs)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn run_in(folder: &Path, args: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_gorums-quorums"))
        .args(args)
        .current_dir(folder)
        .output();
    output.expect("the program starts")
}

fn run(args: &[&str]) -> Output {
    run_in(Path::new("."), args)
}

/// What is printed where all is well.
fn told(args: &[&str]) -> String {
    let output = run(args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
    assert_eq!(errors, "");
    String::from_utf8(output.stdout).expect("it is text")
}

fn json(args: &[&str]) -> Value {
    let text = told(&[args, &["--json"]].concat());
    serde_json::from_str(&text).expect("JSON and nothing else")
}

/// What is said where something is wrong, and nothing is printed.
fn refused(code: i32, args: &[&str]) -> String {
    let output = run(args);
    assert_eq!(output.status.code(), Some(code), "{args:?}");
    assert!(output.stdout.is_empty(), "{args:?}");
    String::from_utf8(output.stderr).expect("it is text")
}

#[track_caller]
fn assert_near(found: &Value, expected: f64) {
    let number = found
        .as_f64()
        .unwrap_or_else(|| panic!("{found} is no number"));
    assert!(
        (number - expected).abs() <= 1e-6 * expected.abs(),
        "{number} {expected}"
    );
}

const ROWS: &str = "a*b*c + d*e*f";

#[test]
fn a_system_is_told_on_a_screen() {
    let text = told(&[
        ROWS,
        "--capacity",
        "1000,b=500,d=500,f=500",
        "--reads",
        "0.75",
        "--down",
        "0.1",
    ]);
    for part in [
        "6 nodes {a, b, c, d, e, f}",
        "Proof: by a formula.",
        "A read and a write have a node in common at least.",
        "Two writes may miss each other.",
        "{a, b, c}",
        "load 0.00075, capacity 1333, nodes asked 2.75",
        "50.0 %  ████████████\n",
        // Each row has one node down at least.
        "probability of none  7.344 %",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    let numbers = |what: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(what))
            .expect(what);
        let fields = line
            .split_whitespace()
            .filter_map(|field| field.parse::<f64>().ok());
        fields.collect::<Vec<_>>()
    };
    assert_eq!(numbers("minimal quorums"), [2.0, 9.0]);
    assert_eq!(numbers("nodes that may fail"), [1.0, 2.0]);
    assert_eq!(
        numbers("capacity"),
        [2000.0, 2000.0, 1750.0, 1333.0, 1000.0]
    );
}

#[test]
fn a_system_is_told_as_json() {
    let told = json(&[
        "a*b + c*d",
        "--capacity",
        "100/50,a=200/100,b=200/100",
        "--reads",
        "1",
        "--latency",
        "4s,c=1s,d=1s",
        "--least",
        "latency",
        "--capacity-at-least",
        "150",
        "--nodes-at-most",
        "2",
        "--down",
        "0.1",
    ]);
    assert_eq!(told["nodes"], serde_json::json!(["a", "b", "c", "d"]));
    assert_eq!(told["proof"], "formula");
    assert_eq!(
        [&told["overlap"], &told["write_overlap"], &told["may_fail"]],
        [1, 0, 1]
    );
    assert_eq!(
        [&told["reads"]["quorums"], &told["writes"]["quorums"]],
        [2, 4]
    );
    assert_near(&told["failure_probability"]["reads"], 0.19 * 0.19);
    // As the paper of Quoracle has it.
    let strategy = &told["strategy"];
    assert_eq!(
        strategy["reads"][0]["quorum"],
        serde_json::json!(["c", "d"])
    );
    assert_near(&strategy["reads"][0]["share"], 2.0 / 3.0);
    assert_near(&strategy["latency_seconds"], 2.0);
    assert_near(&strategy["capacity"], 150.0);
    assert_near(&strategy["nodes"], 2.0);
    assert_near(&strategy["node_loads"]["d"], 1.0 / 150.0);
    let points = told["by_share_of_reads"].as_array().expect("a list");
    assert_eq!(points.len(), 21);
    assert_near(&points[10]["capacity"], 200.0);
    assert_near(&points[20]["capacity"], 300.0);
    assert_near(&points[20]["capacity_of_strategy"], 150.0);
}

#[test]
fn sets_that_may_lose_nodes_are_chosen_where_that_is_asked_for() {
    let told = json(&[
        "choose(2, a, b, c, d)",
        "--capacity",
        "100,a=200,b=200",
        "--reads",
        "1",
        "-f",
        "1",
    ]);
    assert_near(&told["strategy"]["capacity"], 200.0);
    let reads = told["strategy"]["reads"].as_array().expect("a list");
    assert!(
        reads
            .iter()
            .all(|chosen| chosen["quorum"].as_array().map(Vec::len) == Some(3))
    );
    let error = refused(1, &["majority", "3", "-f", "2"]);
    assert!(
        error.contains("no set of all 3 nodes is a read quorum where any 2"),
        "{error}"
    );
}

#[test]
fn a_large_system_is_told_as_far_as_it_is_known() {
    let large = json(&["grid", "10x10", "--down", "0.1"]);
    assert_eq!(large["proof"], "formula");
    assert_eq!(
        [&large["reads"]["may_fail"], &large["writes"]["may_fail"]],
        [18, 9]
    );
    assert_eq!(
        large["writes"]["smallest"].as_array().map(Vec::len),
        Some(19)
    );
    assert!(large["failure_probability"]["either"].as_f64() < Some(0.02));
    assert!(
        large["strategy"]["unknown"]
            .as_str()
            .is_some_and(|why| why.contains("2048"))
    );
    let text = told(&["majority", "1000"]);
    assert!(
        text.contains("Strategy: it is not known") && text.contains("and 988 more"),
        "{text}"
    );
}

#[test]
fn a_system_that_does_not_hold_is_refused_with_two_quorums() {
    for (args, says) in [
        (
            &["a & b | c & d", "--writes", "a | c"][..],
            "the read quorum {a, b} and the write quorum {c} miss each other",
        ),
        (
            &["threshold", "4", "2"],
            "the read quorum {1, 2} and the write quorum {3, 4} miss",
        ),
        (
            &["flexible", "5", "4", "2", "--write-overlap", "1"],
            "the write quorum {1, 2} and the write quorum",
        ),
        (&["dissemination", "3", "1"], "have only {1} in common"),
    ] {
        let error = refused(2, args);
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn wrong_options_say_what_to_do() {
    for (args, says) in [
        (&["a*(b"][..], "`)` is missing here\n  a*(b\n      ^\n"),
        (&["majorty", "5"], "begins with one of majority, threshold"),
        (&["a", "--writes", "b)"], "--writes: there is no `(`"),
        (&["grid"], "it is `grid ROWSxCOLUMNS`, as in `grid 2x3`"),
        (&["grid", "2x"], "\"\" is no whole number"),
        (&["grid", "1000000x1000000"], "more than 1000"),
        (&["zones", "3,0"], "has no node"),
        (&["majority", "-5"], "unexpected argument"),
        (&["majority", "five"], "\"five\" is no whole number"),
        (
            &["majority", "5", "3"],
            "the count of numbers is 1, and not 2",
        ),
        (
            &["weighted", "1,2", "3"],
            "the count of numbers is 2, and not 1",
        ),
        (
            &["majority", "5", "--writes", "1"],
            "it is for an expression",
        ),
        (&["majority", "5", "--reads", "2"], "from 0 to 1"),
        (
            &["majority", "5", "--capacity", "0"],
            "--capacity: a node can do more than zero",
        ),
        (
            &["majority", "5", "--latency", "1s,6=2s"],
            "there is no node \"6\"; they are 1, 2, 3, 4, 5",
        ),
        (&["majority", "5", "--down", "exp:soon"], "--down: \"soon\""),
        (
            &["majority", "5", "--least", "latency"],
            "--latency has to say how fast",
        ),
        (
            &["majority", "5", "--capacity-at-least", "0"],
            "--capacity-at-least: it is a number above zero",
        ),
        (&["majority", "5", "--at", "1s"], "--down"),
        (&[], "SYSTEM"),
    ] {
        let error = refused(2, args);
        assert!(error.contains(says), "{args:?}: {error}");
    }
}

#[test]
fn what_is_out_of_bounds_or_cannot_be_written_fails() {
    let error = refused(1, &["majority", "5", "--capacity-at-least", "2"]);
    assert!(
        error.contains("no strategy is within the bounds"),
        "{error}"
    );
    let error = refused(1, &["majority", "3", "--svg", "no/such/folder/a.svg"]);
    assert!(error.contains("writing no/such/folder/a.svg"), "{error}");
    let error = refused(1, &["majority", "99", "--svg", "never written"]);
    assert!(error.contains("no strategy to draw"), "{error}");
}

/// Words as a shell has them, of which some are in single quotes.
fn words(line: &str) -> Vec<String> {
    let parts = line.split('\'').enumerate();
    let words = parts.flat_map(|(at, part)| match at % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect(),
        _ => vec![part.to_owned()],
    });
    words.collect()
}

#[test]
fn every_example_and_every_family_of_the_help_works() {
    let folder = tempfile::tempdir().expect("a folder");
    let help = told(&["--help"]);
    let (_, after) = help.split_once("Examples:").expect("it has examples");
    let examples = after
        .lines()
        .filter_map(|line| line.strip_prefix("  gorums-quorums "));
    let families = [
        "majority 5",
        "threshold 5 4",
        "flexible 5 2 4",
        "read-one 5",
        "all 3",
        "weighted 3,1,1,1,1",
        "weighted 2,1,1 3 2",
        "grid 2x3",
        "zones 3x3",
        "zones 3,3,5",
        "dissemination 4 1",
        "masking 5 1",
    ];
    let mut count = 0;
    for line in examples.chain(families) {
        let words = words(line);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let output = run_in(folder.path(), &words);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {errors}");
        count += 1;
    }
    assert!(count >= 18, "{count} examples");
    let svg = std::fs::read_to_string(folder.path().join("grid.svg")).expect("one draws it");
    assert!(svg.starts_with("<svg") && svg.contains("grid 2x3") && svg.ends_with("</svg>\n"));
}

/// The page for users, where this crate is in its repository.
fn page(name: &str) -> String {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let path = docs.join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_page_shows_what_is_printed_and_drawn() {
    const PROMPT: &str = "$ cargo run -q -p gorums-quorums -- ";
    let page_text = page("quorums.md");
    let blocks = page_text.split("```console\n").skip(1);
    let mut drawn = None;
    for block in blocks {
        let (block, _) = block.split_once("\n```").expect("it ends");
        let (line, shown) = block.split_once('\n').expect("it prints something");
        let words = words(line.strip_prefix(PROMPT).expect(line));
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let Output { stdout, stderr, .. } = run(&words);
        let printed = [stdout, stderr].concat();
        assert_eq!(
            String::from_utf8_lossy(&printed).trim_end(),
            shown,
            "{line}"
        );
        drawn.get_or_insert(words.into_iter().map(str::to_owned).collect::<Vec<_>>());
    }
    // The picture is of the first one.
    let folder = tempfile::tempdir().expect("a folder");
    let drawn = drawn.expect("it shows some");
    let words: Vec<_> = drawn
        .iter()
        .map(String::as_str)
        .chain(["--svg", "it.svg"])
        .collect();
    assert!(run_in(folder.path(), &words).status.success());
    let svg = std::fs::read_to_string(folder.path().join("it.svg")).expect("it is drawn");
    assert!(
        svg == page("pictures/quorums.svg"),
        "draw docs/pictures/quorums.svg again: {words:?}"
    );
}

#[test]
fn the_page_compares_systems_by_their_figures() {
    let page = page("quorums.md");
    let (_, table) = page
        .split_once("| no reads | no writes |\n")
        .expect("it has the table");
    let rows: Vec<_> = table
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert!(rows.len() >= 8, "{rows:?}");
    for row in rows {
        let (_, system) = row.split_once('`').expect(row);
        let (system, _) = system.split_once('`').expect(row);
        let words = words(system);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let told = json(&[&words[..], &["--reads", "0.9", "--down", "0.01"]].concat());
        let both = |of: &dyn Fn(&Value) -> Value| {
            format!("{}; {}", of(&told["reads"]), of(&told["writes"]))
        };
        let sizes = both(&|side| Value::from(side["smallest"].as_array().map(Vec::len)));
        let may_fail = both(&|side| side["may_fail"].clone());
        let number = |value: &Value| value.as_f64().expect("a number");
        let failure = &told["failure_probability"];
        let [reads, writes] =
            ["reads", "writes"].map(|kind| format!("{:.1e}", number(&failure[kind])));
        let load = number(&told["strategy"]["load"]);
        let expected =
            format!("| `{system}` | {sizes} | {may_fail} | {load:.3} | {reads} | {writes} |");
        assert_eq!(row, expected);
    }
}
