//! What a person types: one line becomes one [`Command`].
//!
//! [`COMMANDS`] is the one table of all commands; usage messages, help, completion and hints come from it.

use std::fmt;
use std::time::Duration;

/// A command, ready to be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Show the state of the nodes.
    Nodes,
    /// An RPC to one node.
    Rpc { node: u32, call: Rpc },
    /// A one-way write to one node.
    Unicast { node: u32, write: Write },
    /// A call to all nodes, or to some of them.
    Many { on: Option<Selection>, call: Many },
    /// Something done to a replica that this program has started.
    Replica { id: u32, action: Action },
    /// Explain all commands, or one.
    Help(Option<&'static Spec>),
    /// Leave.
    Exit,
}

/// What one node is asked by RPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rpc {
    /// Read a key.
    Read(String),
    /// Write a key.
    Write(Write),
}

/// What several nodes are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Many {
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

/// A key and its new value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Write {
    /// The key.
    pub(crate) key: String,
    /// The value.
    pub(crate) value: String,
}

/// What can be done to a replica that this program has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Close its listener and its connections, and forget what is in memory only.
    Stop,
    /// Start it again on the same port, with what it has on disk.
    Start,
    /// Accept, read and write nothing.
    Pause,
    /// End a pause.
    Resume,
    /// Answer later.
    Delay(Duration),
}

/// Some of the nodes, as it was typed: single ids and ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selection(Vec<Part>);

/// The nodes from the first to the last id, both included. A single id is a range of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    first: u32,
    last: u32,
}

impl Command {
    /// Reads a line. An empty line and a comment, which starts with `#`, are no command.
    pub(crate) fn parse(line: &str) -> Result<Option<Self>, ParseError> {
        let words = shell_words::split(line).map_err(|_| ParseError::Quote)?;
        let mut words = words.into_iter();
        let Some(name) = words.next() else {
            return Ok(None);
        };
        let Some(spec) = find(&name) else {
            let nearest = nearest(&name, COMMANDS.iter().map(|spec| spec.name));
            return Err(ParseError::UnknownCommand { name, nearest });
        };
        let mut words = Words {
            spec,
            operation: None,
            rest: words,
        };
        let command = words.command()?;
        words.end()?;
        Ok(Some(command))
    }

    /// The key that it is about, if it is about one.
    pub(crate) fn key(&self) -> Option<&str> {
        match self {
            Self::Rpc { call, .. } => match call {
                Rpc::Read(key) => Some(key),
                Rpc::Write(write) => Some(&write.key),
            },
            Self::Unicast { write, .. } => Some(&write.key),
            Self::Many { call, .. } => match call {
                Many::Read(key) | Many::CorrectableRead(key) | Many::NestedRead(key) => Some(key),
                Many::Write(write) | Many::NestedWrite(write) | Many::Multicast(write) => {
                    Some(&write.key)
                }
            },
            Self::Nodes | Self::Replica { .. } | Self::Help(_) | Self::Exit => None,
        }
    }
}

impl Selection {
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

/// Why a line is not a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ParseError {
    /// A quote is not closed.
    Quote,
    /// There is no command with this name.
    UnknownCommand {
        name: String,
        nearest: Option<&'static str>,
    },
    /// The command has no operation with this name.
    UnknownOperation {
        spec: &'static Spec,
        name: String,
        nearest: Option<&'static str>,
    },
    /// A word is missing.
    Missing {
        spec: &'static Spec,
        operation: Option<&'static str>,
        what: String,
    },
    /// A word is not what it should be.
    Bad {
        spec: &'static Spec,
        operation: Option<&'static str>,
        word: String,
        expected: &'static str,
    },
    /// There are words left.
    TooMany {
        spec: &'static Spec,
        operation: Option<&'static str>,
        word: String,
    },
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quote => f.write_str("a quote is not closed"),
            Self::UnknownCommand { name, nearest } => {
                write!(f, "unknown command {name:?}")?;
                did_you_mean(f, *nearest)?;
                f.write_str("\n\"help\" lists the commands")
            }
            Self::UnknownOperation {
                spec,
                name,
                nearest,
            } => {
                write!(f, "{} has no operation {name:?}", spec.name)?;
                did_you_mean(f, *nearest)?;
                spec.write_usage(f, None)
            }
            Self::Missing {
                spec,
                operation,
                what,
            } => {
                write!(f, "{what} is missing")?;
                spec.write_usage(f, *operation)
            }
            Self::Bad {
                spec,
                operation,
                word,
                expected,
            } => {
                write!(f, "{word:?} is not {expected}")?;
                spec.write_usage(f, *operation)
            }
            Self::TooMany {
                spec,
                operation,
                word,
            } => {
                write!(f, "nothing more was expected at {word:?}")?;
                if spec.forms.iter().any(|form| form.contains(&Arg::Value)) {
                    f.write_str("; a value with spaces needs quotes")?;
                }
                spec.write_usage(f, *operation)
            }
        }
    }
}

impl std::error::Error for ParseError {}

fn did_you_mean(f: &mut fmt::Formatter<'_>, nearest: Option<&str>) -> fmt::Result {
    match nearest {
        Some(nearest) => write!(f, "; did you mean {nearest:?}?"),
        None => Ok(()),
    }
}

/// A command as the table describes it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    /// The first word of the line.
    pub(crate) name: &'static str,
    /// The ways of going on after it.
    pub(crate) forms: &'static [&'static [Arg]],
    /// One line for the list of all commands.
    pub(crate) summary: &'static str,
    /// What more there is to say about it.
    pub(crate) details: &'static str,
}

/// A word of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arg {
    /// Exactly this word.
    Word(&'static str),
    /// The id of a node.
    Node,
    /// Ids and ranges of ids.
    Nodes,
    /// A key.
    Key,
    /// A value.
    Value,
    /// A number of milliseconds.
    Millis,
    /// The name of a command, which may be left out.
    Command,
}

impl fmt::Display for Arg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Word(word) => word,
            Self::Node => "N",
            Self::Nodes => "NODES",
            Self::Key => "KEY",
            Self::Value => "VALUE",
            Self::Millis => "MS",
            Self::Command => "[COMMAND]",
        })
    }
}

impl Spec {
    /// One line for each form.
    pub(crate) fn usages(&self) -> impl Iterator<Item = String> {
        self.forms.iter().map(|form| self.usage(form))
    }

    fn usage(&self, form: &[Arg]) -> String {
        let mut usage = self.name.to_owned();
        for arg in form {
            usage.push_str(&format!(" {arg}"));
        }
        usage
    }

    /// The forms with this operation, or all of them.
    fn write_usage(
        &self,
        f: &mut fmt::Formatter<'_>,
        operation: Option<&'static str>,
    ) -> fmt::Result {
        let mut lead = "usage:";
        for form in self.forms {
            if operation.is_none_or(|operation| form.contains(&Arg::Word(operation))) {
                write!(f, "\n{lead} {}", self.usage(form))?;
                lead = "      ";
            }
        }
        Ok(())
    }

    /// The words that name an operation of this command.
    pub(crate) fn operations(&self) -> impl Iterator<Item = &'static str> {
        let args = self.forms.iter().flat_map(|form| form.iter());
        args.filter_map(|arg| match arg {
            Arg::Word(word) => Some(*word),
            _ => None,
        })
    }
}

/// The command with this name.
pub(crate) fn find(name: &str) -> Option<&'static Spec> {
    // What people type out of habit.
    let name = if name == "quit" { "exit" } else { name };
    COMMANDS.iter().find(|spec| spec.name == name)
}

/// All commands.
pub(crate) static COMMANDS: &[Spec] = {
    use Arg::{Command, Key, Millis, Node, Nodes, Value, Word};
    &[
        Spec {
            name: "nodes",
            forms: &[&[]],
            summary: "show state, latency and last error",
            details: "State, latency and last error are what this client knows of its connection to\n\
                      the node. For replicas that were started from here, one more column says what\n\
                      was done to them.",
        },
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
                      nwrite  nested write: each node passes the write on to the others\n\
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
            name: "stop",
            forms: &[&[Node]],
            summary: "stop a replica at once, as by kill -9",
            details: "Closes its listener and its connections, and drops what it has in memory. The\n\
                      process of a replica that has one of its own is killed. What is on disk stays.",
        },
        Spec {
            name: "start",
            forms: &[&[Node]],
            summary: "start it again, with what is on disk",
            details: "",
        },
        Spec {
            name: "pause",
            forms: &[&[Node]],
            summary: "freeze a replica, as by SIGSTOP",
            details: "It accepts, reads and writes nothing. Its connections stay open, and what is\n\
                      sent to it waits in the buffers of the system. The process of a replica that\n\
                      has one of its own does nothing at all.",
        },
        Spec {
            name: "resume",
            forms: &[&[Node]],
            summary: "end a pause",
            details: "",
        },
        Spec {
            name: "delay",
            forms: &[&[Node, Millis]],
            summary: "make a replica answer late",
            details: "The replica reads and writes its values in order and at once, lets the next\n\
                      request start, and then waits that long before it answers. 0 ends it.",
        },
        Spec {
            name: "help",
            forms: &[&[Command]],
            summary: "list the commands, or explain one",
            details: "",
        },
        Spec {
            name: "exit",
            forms: &[&[]],
            summary: "leave (also quit, Ctrl-D)",
            details: "",
        },
    ]
};

/// The words of a line while they are being understood.
struct Words {
    spec: &'static Spec,
    /// The operation, once it is known: usage messages then show only that one.
    operation: Option<&'static str>,
    rest: std::vec::IntoIter<String>,
}

impl Words {
    fn command(&mut self) -> Result<Command, ParseError> {
        let all = None;
        Ok(match self.spec.name {
            "nodes" => Command::Nodes,
            "rpc" => {
                let node = self.node()?;
                let call = match self.operation()? {
                    "read" => Rpc::Read(self.key()?),
                    _ => Rpc::Write(self.write()?),
                };
                Command::Rpc { node, call }
            }
            "ucast" => Command::Unicast {
                node: self.node()?,
                write: self.write()?,
            },
            "mcast" => Command::Many {
                on: all,
                call: Many::Multicast(self.write()?),
            },
            "qc" => Command::Many {
                on: all,
                call: self.many()?,
            },
            "cfg" => Command::Many {
                on: Some(self.selection()?),
                call: self.many()?,
            },
            "stop" => self.replica(Action::Stop)?,
            "start" => self.replica(Action::Start)?,
            "pause" => self.replica(Action::Pause)?,
            "resume" => self.replica(Action::Resume)?,
            "delay" => Command::Replica {
                id: self.node()?,
                action: Action::Delay(self.millis()?),
            },
            "help" => Command::Help(self.topic()?),
            _ => Command::Exit,
        })
    }

    fn many(&mut self) -> Result<Many, ParseError> {
        Ok(match self.operation()? {
            "read" => Many::Read(self.key()?),
            "cread" => Many::CorrectableRead(self.key()?),
            "nread" => Many::NestedRead(self.key()?),
            "nwrite" => Many::NestedWrite(self.write()?),
            "mcast" => Many::Multicast(self.write()?),
            _ => Many::Write(self.write()?),
        })
    }

    fn replica(&mut self, action: Action) -> Result<Command, ParseError> {
        let id = self.node()?;
        Ok(Command::Replica { id, action })
    }

    fn write(&mut self) -> Result<Write, ParseError> {
        Ok(Write {
            key: self.key()?,
            value: self.next("VALUE")?,
        })
    }

    fn key(&mut self) -> Result<String, ParseError> {
        self.next("KEY")
    }

    fn node(&mut self) -> Result<u32, ParseError> {
        let word = self.next("N, the id of a node,")?;
        match word.parse() {
            Ok(id) if id > 0 => Ok(id),
            _ => Err(self.bad(word, "the id of a node, which is a number from 1")),
        }
    }

    fn selection(&mut self) -> Result<Selection, ParseError> {
        let word = self.next("NODES, a list of ids,")?;
        match Selection::parse(&word) {
            Some(selection) => Ok(selection),
            None => Err(self.bad(word, "a list of ids like 1,3 or a range like 2:4")),
        }
    }

    fn millis(&mut self) -> Result<Duration, ParseError> {
        let word = self.next("MS, a number of milliseconds,")?;
        match word.parse::<u32>() {
            Ok(millis) => Ok(Duration::from_millis(millis.into())),
            Err(_) => Err(self.bad(word, "a number of milliseconds")),
        }
    }

    fn topic(&mut self) -> Result<Option<&'static Spec>, ParseError> {
        let Some(name) = self.rest.next() else {
            return Ok(None);
        };
        match find(&name) {
            Some(spec) => Ok(Some(spec)),
            None => {
                let nearest = nearest(&name, COMMANDS.iter().map(|spec| spec.name));
                Err(ParseError::UnknownCommand { name, nearest })
            }
        }
    }

    fn operation(&mut self) -> Result<&'static str, ParseError> {
        let names: Vec<_> = self.spec.operations().collect();
        let name = self.next(&format!("the operation ({})", names.join(", ")))?;
        match names.iter().find(|known| **known == name) {
            Some(known) => {
                self.operation = Some(known);
                Ok(known)
            }
            None => Err(ParseError::UnknownOperation {
                spec: self.spec,
                nearest: nearest(&name, names.into_iter()),
                name,
            }),
        }
    }

    fn next(&mut self, what: &str) -> Result<String, ParseError> {
        self.rest.next().ok_or_else(|| ParseError::Missing {
            spec: self.spec,
            operation: self.operation,
            what: what.to_owned(),
        })
    }

    fn end(&mut self) -> Result<(), ParseError> {
        match self.rest.next() {
            None => Ok(()),
            Some(word) => Err(ParseError::TooMany {
                spec: self.spec,
                operation: self.operation,
                word,
            }),
        }
    }

    fn bad(&self, word: String, expected: &'static str) -> ParseError {
        ParseError::Bad {
            spec: self.spec,
            operation: self.operation,
            word,
            expected,
        }
    }
}

/// The name that was probably meant.
fn nearest(word: &str, names: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    names
        .map(|name| (strsim::damerau_levenshtein(word, name), name))
        .filter(|&(distance, name)| distance <= 2 && distance < name.len())
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Command {
        match Command::parse(line) {
            Ok(Some(command)) => command,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn error(line: &str) -> String {
        match Command::parse(line) {
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

    fn qc(call: Many) -> Command {
        Command::Many { on: None, call }
    }

    fn cfg(parts: &[(u32, u32)], call: Many) -> Command {
        let parts = parts.iter().map(|&(first, last)| Part { first, last });
        Command::Many {
            on: Some(Selection(parts.collect())),
            call,
        }
    }

    fn rpc(node: u32, call: Rpc) -> Command {
        Command::Rpc { node, call }
    }

    fn replica(id: u32, action: Action) -> Command {
        Command::Replica { id, action }
    }

    #[test]
    fn commands_become_what_they_say() {
        let key = || "k".to_owned();
        let kv = || write("k", "v");
        let delay = Action::Delay(Duration::from_millis(250));
        let unicast = Command::Unicast {
            node: 1,
            write: kv(),
        };
        let cases = [
            ("nodes", Command::Nodes),
            ("exit", Command::Exit),
            ("quit", Command::Exit),
            ("help", Command::Help(None)),
            ("help qc", Command::Help(find("qc"))),
            ("rpc 2 read k", rpc(2, Rpc::Read(key()))),
            ("rpc 10 write k v", rpc(10, Rpc::Write(kv()))),
            ("ucast 1 k v", unicast),
            ("mcast k v", qc(Many::Multicast(kv()))),
            ("qc read k", qc(Many::Read(key()))),
            ("qc write k v", qc(Many::Write(kv()))),
            ("qc cread k", qc(Many::CorrectableRead(key()))),
            ("qc nread k", qc(Many::NestedRead(key()))),
            ("qc nwrite k v", qc(Many::NestedWrite(kv()))),
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
            assert_eq!(Command::parse(line), Ok(None), "{line:?}");
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
            assert_eq!(parsed(line).key(), Some("k"), "{line}");
        }
        for line in ["nodes", "stop 1", "help", "exit"] {
            assert_eq!(parsed(line).key(), None, "{line}");
        }
    }
}
