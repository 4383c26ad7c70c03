//! The commands that only this program has.

use std::time::Duration;

use cluster_shell::command::{
    Arg, CALL, CLEAR, DELAY, EXIT, HELP, NODES, PAUSE, ParseError, RESUME, START, STOP, Spec,
    Words, Write,
};

/// How many writes may be in flight.
const MOST_IN_FLIGHT: u32 = 10_000;

/// A command, ready to be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// An RPC to one node.
    Rpc {
        /// The node.
        node: u32,
        /// What it is asked.
        call: Rpc,
    },
    /// A one-way write to one node.
    Unicast {
        /// The node.
        node: u32,
        /// What is written.
        write: Write,
    },
    /// A call to all nodes, or to some of them.
    Many {
        /// Which they are, where not all.
        on: Option<Selection>,
        /// What they are asked.
        call: Many,
        /// Whether to show what became of the call at each node.
        explained: bool,
    },
    /// Writes as fast as they are acknowledged.
    Load {
        /// How many at a time.
        in_flight: u32,
        /// For how long.
        time: Duration,
    },
}

/// What one node is asked by RPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rpc {
    /// Read a key.
    Read(String),
    /// Write a key.
    Write(Write),
}

/// What several nodes are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Many {
    /// A quorum call: the newest value of a majority.
    Read(String),
    /// A quorum call: a write to a majority.
    Write(Write),
    /// A streamed quorum call: an answer that gets better.
    CorrectableRead(String),
    /// A quorum call whose handlers ask the other replicas.
    NestedRead(String),
    /// A quorum call whose handlers tell the other replicas.
    NestedWrite(Write),
    /// A one-way write.
    Multicast(Write),
}

/// Some of the nodes, as it was typed: single ids and ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection(pub Vec<Part>);

/// The nodes from the first to the last id, both included. A single id is a range of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The id of the first.
    pub first: u32,
    /// The id of the last.
    pub last: u32,
}

impl Command {
    /// Reads the words behind its name.
    pub(crate) fn parse(words: &mut Words) -> Result<Self, ParseError> {
        let many = |on, call| Self::Many {
            on,
            call,
            explained: false,
        };
        Ok(match words.name() {
            "rpc" => {
                let node = words.node()?;
                let call = match words.operation()? {
                    "read" => Rpc::Read(words.key()?),
                    _ => Rpc::Write(words.write()?),
                };
                Self::Rpc { node, call }
            }
            "ucast" => Self::Unicast {
                node: words.node()?,
                write: words.write()?,
            },
            "mcast" => many(None, Many::Multicast(words.write()?)),
            "load" => Self::Load {
                in_flight: words.count(MOST_IN_FLIGHT)?,
                time: words.millis()?,
            },
            "cfg" => many(Some(Selection::next(words)?), Many::parse(words)?),
            "explain" => Self::Many {
                on: match words.operation()? {
                    "cfg" => Some(Selection::next(words)?),
                    _ => None,
                },
                call: Many::parse(words)?,
                explained: true,
            },
            _ => many(None, Many::parse(words)?),
        })
    }

    /// The key that it is about.
    pub(crate) fn key(&self) -> &str {
        match self {
            Self::Rpc { call, .. } => match call {
                Rpc::Read(key) => key,
                Rpc::Write(write) => &write.key,
            },
            Self::Unicast { write, .. } => &write.key,
            Self::Load { .. } => "load-0",
            Self::Many { call, .. } => match call {
                Many::Read(key) | Many::CorrectableRead(key) | Many::NestedRead(key) => key,
                Many::Write(write) | Many::NestedWrite(write) | Many::Multicast(write) => {
                    &write.key
                }
            },
        }
    }
}

impl Many {
    fn parse(words: &mut Words) -> Result<Self, ParseError> {
        Ok(match words.operation()? {
            "read" => Self::Read(words.key()?),
            "cread" => Self::CorrectableRead(words.key()?),
            "nread" => Self::NestedRead(words.key()?),
            "nwrite" => Self::NestedWrite(words.write()?),
            "mcast" => Self::Multicast(words.write()?),
            _ => Self::Write(words.write()?),
        })
    }
}

impl Selection {
    fn next(words: &mut Words) -> Result<Self, ParseError> {
        let word = words.next("NODES, a list of ids,")?;
        match Self::parse(&word) {
            Some(selection) => Ok(selection),
            None => Err(words.bad(word, "a list of ids like 1,3 or a range like 2:4")),
        }
    }

    /// Reads `1,3` or `2:4` or both mixed, as in `1,3:5`.
    fn parse(word: &str) -> Option<Self> {
        let parts = word.split(',').map(|part| {
            let (first, last) = part.split_once(':').unwrap_or((part, part));
            let part = Part {
                first: first.parse().ok()?,
                last: last.parse().ok()?,
            };
            (part.first <= part.last).then_some(part)
        });
        parts.collect::<Option<_>>().map(Self)
    }

    /// The ids that are meant, where these are all that there are. Those that were typed come back
    /// whether they exist or not, and as often as they were typed; between the ends of a range only
    /// those that exist.
    pub(crate) fn ids(&self, known: &[u32]) -> Vec<u32> {
        let mut ids = Vec::new();
        for &Part { first, last } in &self.0 {
            ids.push(first);
            ids.extend(known.iter().filter(|&&id| first < id && id < last));
            if last != first {
                ids.push(last);
            }
        }
        ids
    }
}

/// All commands.
pub(crate) static COMMANDS: &[Spec] = {
    use Arg::{Count, Key, Millis, Node, Nodes, Value, Word};
    &[
        NODES,
        Spec {
            name: "rpc",
            forms: &[
                &[Node, Word("read"), Key],
                &[Node, Word("write"), Key, Value],
            ],
            summary: "read or write at one node",
            details: "",
        },
        Spec {
            name: "ucast",
            forms: &[&[Node, Key, Value]],
            summary: "write to one node, one-way",
            details: "The node does not answer: the command is done when the write was handed to the\n\
                      connection.",
        },
        Spec {
            name: "mcast",
            forms: &[&[Key, Value]],
            summary: "write to all nodes, one-way",
            details: "The nodes do not answer: the command is done when the write was handed to every\n\
                      connection. If some nodes could not be reached the command has failed, and the\n\
                      others have the write.",
        },
        Spec {
            name: "qc",
            forms: &[
                &[Word("read"), Key],
                &[Word("write"), Key, Value],
                &[Word("cread"), Key],
                &[Word("nread"), Key],
                &[Word("nwrite"), Key, Value],
            ],
            summary: "quorum call: read or write at a majority",
            details: "read    the newest value that a majority of the nodes has\n\
                      write   done when a majority has answered; the others are sent the write too\n\
                      cread   correctable read: prints each answer that is better than the one before,\n        \
                      with the number of nodes that have answered, and ends when all have\n\
                      nread   nested read: each node asks the others before it answers\n\
                      nwrite  nested write: each node passes the write on to the others, which may\n        \
                      have it before they are asked\n\
                      \n\
                      A write is taken where it is newer than the value that is there. Its time is\n\
                      given by this client.",
        },
        Spec {
            name: "cfg",
            forms: &[
                &[Nodes, Word("read"), Key],
                &[Nodes, Word("write"), Key, Value],
                &[Nodes, Word("cread"), Key],
                &[Nodes, Word("nread"), Key],
                &[Nodes, Word("nwrite"), Key, Value],
                &[Nodes, Word("mcast"), Key, Value],
            ],
            summary: "the same on some of the nodes",
            details: "NODES is a list of ids and ranges: \"1,3\" is nodes 1 and 3; \"2:4\" is nodes 2, 3\n\
                      and 4, both ends included; \"1,3:4\" is nodes 1, 3 and 4.\n\
                      \n\
                      A majority is one of these nodes. Majorities of different sets need not have a\n\
                      node in common, so that a read of one set may miss a write to another.",
        },
        Spec {
            name: "explain",
            forms: &[
                &[Word("qc"), Word("read"), Key],
                &[Word("qc"), Word("write"), Key, Value],
                &[Word("qc"), Word("nread"), Key],
                &[Word("qc"), Word("nwrite"), Key, Value],
                &[Word("cfg"), Nodes, Word("read"), Key],
                &[Word("cfg"), Nodes, Word("write"), Key, Value],
                &[Word("cfg"), Nodes, Word("nread"), Key],
                &[Word("cfg"), Nodes, Word("nwrite"), Key, Value],
            ],
            summary: "the same, and when each node answered",
            details: "Makes the call, and shows which node answered when, whose answer was enough, and\n\
                      which failed. When the call is done it waits up to a second more for those that\n\
                      have not answered, to tell how late they are; that does not change the result.",
        },
        Spec {
            name: "load",
            forms: &[&[Count, Millis]],
            summary: "write as fast as a majority acknowledges",
            details: "Keeps COUNT writes to a majority in flight for MS milliseconds, each to a key of\n\
                      its own (load-0, load-1, …), and tells how many were acknowledged in a second,\n\
                      and how long one took. With 1 in flight, that is what a write costs; with 64,\n\
                      how far writes share the work of the disk. Some may fail meanwhile.",
        },
        CALL,
        STOP,
        START,
        PAUSE,
        RESUME,
        DELAY,
        CLEAR,
        HELP,
        EXIT,
    ]
};

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cluster_shell::command::{Action, Command as Any, find, parse};

    use super::*;
    use crate::cli::session::Storage;

    fn parsed(line: &str) -> Any<Command> {
        match parse::<Storage>(line) {
            Ok(Some(command)) => command,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn error(line: &str) -> String {
        match parse::<Storage>(line) {
            Err(error) => error.to_string(),
            Ok(command) => panic!("{line}: {command:?}"),
        }
    }

    fn write(key: &str, value: &str) -> Write {
        Write {
            key: key.to_owned(),
            value: value.to_owned(),
        }
    }

    fn many(on: Option<&[(u32, u32)]>, call: Many, explained: bool) -> Any<Command> {
        let part = |&(first, last): &(u32, u32)| Part { first, last };
        Any::Own(Command::Many {
            on: on.map(|parts| Selection(parts.iter().map(part).collect())),
            call,
            explained,
        })
    }

    fn qc(call: Many) -> Any<Command> {
        many(None, call, false)
    }

    fn cfg(parts: &[(u32, u32)], call: Many) -> Any<Command> {
        many(Some(parts), call, false)
    }

    fn explain(on: Option<&[(u32, u32)]>, call: Many) -> Any<Command> {
        many(on, call, true)
    }

    fn rpc(node: u32, call: Rpc) -> Any<Command> {
        Any::Own(Command::Rpc { node, call })
    }

    fn replica(id: u32, action: Action) -> Any<Command> {
        Any::Replica { id, action }
    }

    #[test]
    fn commands_become_what_they_say() {
        let key = || "k".to_owned();
        let kv = || write("k", "v");
        let delay = Action::Delay(Duration::from_millis(250));
        let unicast = Any::Own(Command::Unicast {
            node: 1,
            write: kv(),
        });
        let cases = [
            ("nodes", Any::Nodes),
            ("exit", Any::Exit),
            ("quit", Any::Exit),
            ("help", Any::Help(None)),
            ("help qc", Any::Help(find(COMMANDS, "qc"))),
            ("rpc 2 read k", rpc(2, Rpc::Read(key()))),
            ("rpc 10 write k v", rpc(10, Rpc::Write(kv()))),
            ("ucast 1 k v", unicast),
            ("mcast k v", qc(Many::Multicast(kv()))),
            ("qc read k", qc(Many::Read(key()))),
            ("qc write k v", qc(Many::Write(kv()))),
            ("qc cread k", qc(Many::CorrectableRead(key()))),
            ("qc nread k", qc(Many::NestedRead(key()))),
            ("qc nwrite k v", qc(Many::NestedWrite(kv()))),
            ("explain qc read k", explain(None, Many::Read(key()))),
            (
                "explain cfg 1:2 write k v",
                explain(Some(&[(1, 2)]), Many::Write(kv())),
            ),
            ("cfg 1,3 read k", cfg(&[(1, 1), (3, 3)], Many::Read(key()))),
            ("cfg 2:4 write k v", cfg(&[(2, 4)], Many::Write(kv()))),
            (
                "cfg 1,3:4 mcast k v",
                cfg(&[(1, 1), (3, 4)], Many::Multicast(kv())),
            ),
            ("stop 1", replica(1, Action::Stop)),
            ("start 2", replica(2, Action::Start)),
            ("pause 3", replica(3, Action::Pause)),
            ("resume 4", replica(4, Action::Resume)),
            ("delay 1 250", replica(1, delay)),
        ];
        for (line, command) in cases {
            assert_eq!(parsed(line), command, "{line}");
        }
    }

    #[test]
    fn quotes_make_one_word_of_what_they_hold() {
        let cases = [
            (r#"qc write k """#, ("k", "")),
            ("qc write k ''", ("k", "")),
            (r#"qc write "" ''"#, ("", "")),
            (r#"qc write "a key" 'a value'"#, ("a key", "a value")),
            (r#"qc write k "it's""#, ("k", "it's")),
            (r#"qc write k 'say "hi"'"#, ("k", r#"say "hi""#)),
            (
                r#"qc write k "say \"hi\" \\ \n""#,
                ("k", r#"say "hi" \ \n"#),
            ),
            (r"qc write k 'a\b'", ("k", r"a\b")),
            (r"qc write a\ key a\\b", ("a key", r"a\b")),
            (r#"qc write k a"b c"'d e'"#, ("k", "ab cd e")),
            ("  qc\twrite   k  v  ", ("k", "v")),
            ("qc write k '#1' # a comment", ("k", "#1")),
            ("qc write k a#b", ("k", "a#b")),
            ("qc write nøkkel 値", ("nøkkel", "値")),
        ];
        for (line, (key, value)) in cases {
            assert_eq!(parsed(line), qc(Many::Write(write(key, value))), "{line}");
        }
    }

    #[test]
    fn empty_lines_and_comments_are_no_command() {
        for line in ["", "   ", "\t", "# qc read k", "   # x", "#"] {
            assert_eq!(parse::<Storage>(line), Ok(None), "{line:?}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let rpc = "\nusage: rpc N read KEY\n       rpc N write KEY VALUE";
        let list = "\n\"help\" lists the commands";
        let cases = [
            ("qc read 'k", "a quote is not closed", ""),
            ("qc read \"k", "a quote is not closed", ""),
            (
                "nods",
                "unknown command \"nods\"; did you mean \"nodes\"?",
                list,
            ),
            ("frobnicate", "unknown command \"frobnicate\"", list),
            ("''", "unknown command \"\"", list),
            (
                "help stopp",
                "unknown command \"stopp\"; did you mean \"stop\"?",
                list,
            ),
            (
                "rpc 1 raed k",
                "rpc has no operation \"raed\"; did you mean \"read\"?",
                rpc,
            ),
            ("rpc 1", "the operation (read, write) is missing", rpc),
            ("rpc 1 read", "KEY is missing", "\nusage: rpc N read KEY"),
            (
                "qc write k",
                "VALUE is missing",
                "\nusage: qc write KEY VALUE",
            ),
            (
                "cfg 1,3 write k",
                "VALUE is missing",
                "\nusage: cfg NODES write KEY VALUE",
            ),
            ("stop", "N, the id of a node, is missing", "\nusage: stop N"),
            (
                "stop one",
                "\"one\" is not the id of a node, which is a number from 1",
                "\nusage: stop N",
            ),
            (
                "rpc 0 read k",
                "\"0\" is not the id of a node, which is a number from 1",
                rpc,
            ),
            (
                "qc write k two words",
                "nothing more was expected at \"words\"; a value with spaces needs quotes",
                "\nusage: qc write KEY VALUE",
            ),
            (
                "delay 1 soon",
                "\"soon\" is not a number of milliseconds",
                "\nusage: delay N MS",
            ),
            (
                "delay 1 -5",
                "\"-5\" is not a number of milliseconds",
                "\nusage: delay N MS",
            ),
            (
                "nodes all",
                "nothing more was expected at \"all\"",
                "\nusage: nodes",
            ),
        ];
        for (line, message, more) in cases {
            assert_eq!(error(line), format!("{message}{more}"), "{line}");
        }
    }

    #[test]
    fn a_malformed_selection_is_named() {
        for word in ["4:2", "1,", ",", ":", "1:2:3", "a", "''", "1;2", "-1"] {
            let message = error(&format!("cfg {word} read k"));
            let expected = "is not a list of ids like 1,3 or a range like 2:4";
            assert!(message.contains(expected), "{message}");
        }
    }

    /// The table is what help, completion and usage messages show; the parser must agree with it.
    #[test]
    fn every_form_of_the_table_is_understood_and_needs_each_of_its_words() {
        for spec in COMMANDS {
            assert!(!spec.forms.is_empty(), "{}", spec.name);
            for form in spec.forms {
                let words: Vec<&str> = form
                    .iter()
                    .map(|arg| match arg {
                        Arg::Word(word) => word,
                        Arg::Command => "help",
                        _ => "7",
                    })
                    .collect();
                let line = |count: usize| format!("{} {}", spec.name, words[..count].join(" "));
                let full = line(words.len());
                parsed(&full);
                assert!(
                    error(&format!("{full} more")).contains("nothing more was expected"),
                    "{full}"
                );
                if form != &[Arg::Command] {
                    for count in 0..words.len() {
                        let line = line(count);
                        assert!(error(&line).contains(" is missing\nusage: "), "{line}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_selection_is_what_was_typed_and_what_exists_between() {
        let ids =
            |word: &str, known: &[u32]| Selection::parse(word).expect("a selection").ids(known);
        let known = [1, 2, 3, 4];
        assert_eq!(ids("1,3", &known), [1, 3]);
        assert_eq!(ids("2:4", &known), [2, 3, 4]);
        assert_eq!(ids("4,1:2", &known), [4, 1, 2]);
        assert_eq!(ids("3", &known), [3]);
        assert_eq!(ids("3:3", &known), [3]);
        assert_eq!(
            ids("10:4000000000", &[10, 20, 4_000_000_000]),
            [10, 20, 4_000_000_000]
        );
        // What does not exist or comes twice is left for the configuration to refuse.
        assert_eq!(ids("2:6", &known), [2, 3, 4, 6]);
        assert_eq!(ids("2,1:3", &known), [2, 1, 2, 3]);
    }

    #[test]
    fn a_command_tells_its_key() {
        for line in [
            "rpc 1 read k",
            "rpc 1 write k v",
            "ucast 1 k v",
            "mcast k v",
            "qc cread k",
            "cfg 1 nwrite k v",
        ] {
            let Any::Own(command) = parsed(line) else {
                panic!("{line}");
            };
            assert_eq!(command.key(), "k", "{line}");
        }
    }
}
