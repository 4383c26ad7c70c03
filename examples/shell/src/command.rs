//! What a person types: one line becomes one [`Command`].
//!
//! [`Program::COMMANDS`] is the one table of all commands; usage messages, help, completion and
//! hints come from it.

use std::fmt;
use std::time::Duration;

use super::Program;

/// A command, ready to be carried out. `O` are the program's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command<O> {
    /// Show the state of the nodes.
    Nodes,
    /// Something done to a replica that this program has started.
    Replica {
        /// Which replica.
        id: u32,
        /// What is done to it.
        action: Action,
    },
    /// Call a method of one node.
    Call(ByHand),
    /// Clear the screen.
    Clear,
    /// Explain all commands, or one.
    Help(Option<&'static Spec>),
    /// Leave.
    Exit,
    /// What only this program knows.
    Own(O),
}

/// A key and its new value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
}

/// A method of one node, called by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByHand {
    /// Which node.
    pub node: u32,
    /// The method, as it was typed.
    pub method: String,
    /// The request, as JSON.
    pub json: String,
}

/// What can be done to a replica that this program has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
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

/// Reads a line. An empty line and a comment, which starts with `#`, are no command.
///
/// # Errors
///
/// Where it is neither. The error says how the command is used.
pub fn parse<P: Program>(line: &str) -> Result<Option<Command<P::Own>>, ParseError> {
    let words = shell_words::split(line).map_err(|_| ParseError::Quote)?;
    let mut words = words.into_iter();
    let Some(name) = words.next() else {
        return Ok(None);
    };
    let Some(spec) = find(P::COMMANDS, &name) else {
        let nearest = nearest(&name, P::COMMANDS.iter().map(|spec| spec.name));
        return Err(ParseError::UnknownCommand { name, nearest });
    };
    let mut words = Words {
        commands: P::COMMANDS,
        spec,
        operation: Vec::new(),
        rest: words,
    };
    let command = match spec.name {
        "nodes" => Command::Nodes,
        "stop" => words.replica(Action::Stop)?,
        "start" => words.replica(Action::Start)?,
        "pause" => words.replica(Action::Pause)?,
        "resume" => words.replica(Action::Resume)?,
        "delay" => Command::Replica {
            id: words.node()?,
            action: Action::Delay(words.millis()?),
        },
        "call" => Command::Call(ByHand {
            node: words.node()?,
            method: words.next("METHOD, the name of a method,")?,
            json: words.next("JSON, the request,")?,
        }),
        "clear" => Command::Clear,
        "help" => Command::Help(words.topic()?),
        "exit" => Command::Exit,
        _ => Command::Own(P::parse(&mut words)?),
    };
    words.end()?;
    Ok(Some(command))
}

/// Why a line is not a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParseError {
    /// A quote is not closed.
    Quote,
    /// There is no command with this name.
    UnknownCommand {
        /// What was typed.
        name: String,
        /// What was probably meant.
        nearest: Option<&'static str>,
    },
    /// The command has no operation with this name.
    UnknownOperation {
        /// The command.
        spec: &'static Spec,
        /// What was typed.
        name: String,
        /// What was probably meant.
        nearest: Option<&'static str>,
    },
    /// A word is missing.
    Missing {
        /// The command.
        spec: &'static Spec,
        /// Its operation, where that is known.
        operation: Option<&'static str>,
        /// What it is to be.
        what: String,
    },
    /// A word is not what it should be.
    Bad {
        /// The command.
        spec: &'static Spec,
        /// Its operation, where that is known.
        operation: Option<&'static str>,
        /// What was typed.
        word: String,
        /// What it should be.
        expected: &'static str,
    },
    /// There are words left.
    TooMany {
        /// The command.
        spec: &'static Spec,
        /// Its operation, where that is known.
        operation: Option<&'static str>,
        /// What was typed.
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
                if spec.forms.iter().any(|form| form.contains(&Arg::Json)) {
                    f.write_str("; the JSON needs single quotes around it")?;
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
pub struct Spec {
    /// The first word of the line.
    pub name: &'static str,
    /// The ways of going on after it.
    pub forms: &'static [&'static [Arg]],
    /// One line for the list of all commands.
    pub summary: &'static str,
    /// What more there is to say about it.
    pub details: &'static str,
}

/// A word of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arg {
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
    /// The name of a method.
    Method,
    /// A request as JSON.
    Json,
    /// A number from 1.
    Count,
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
            Self::Method => "METHOD",
            Self::Json => "JSON",
            Self::Count => "COUNT",
            Self::Millis => "MS",
            Self::Command => "[COMMAND]",
        })
    }
}

impl Spec {
    /// One line for each form.
    pub fn usages(&self) -> impl Iterator<Item = String> {
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

    /// The words that name an operation of this command, behind those that were given.
    #[must_use]
    pub fn operations(&self, given: &[&str]) -> Vec<&'static str> {
        let mut operations = Vec::new();
        for form in self.forms {
            let words = form.iter().filter_map(|arg| match arg {
                Arg::Word(word) => Some(*word),
                _ => None,
            });
            let words: Vec<_> = words.collect();
            if words.starts_with(given)
                && let Some(word) = words.get(given.len())
                && !operations.contains(word)
            {
                operations.push(word);
            }
        }
        operations
    }
}

/// The command with this name.
#[must_use]
pub fn find(commands: &'static [Spec], name: &str) -> Option<&'static Spec> {
    // What people type out of habit.
    let name = if name == "quit" { "exit" } else { name };
    commands.iter().find(|spec| spec.name == name)
}

/// `nodes`, which shows the state of the nodes.
pub const NODES: Spec = Spec {
    name: "nodes",
    forms: &[&[]],
    summary: "show state, latency and last error",
    details: "State, latency and last error are what this client knows of its connection to\n\
              the node. For replicas that were started from here, one more column says what\n\
              was done to them.",
};

/// `call`, which calls a method of one node.
pub const CALL: Spec = Spec {
    name: "call",
    forms: &[&[Arg::Node, Arg::Method, Arg::Json]],
    summary: "call any method of one node, with JSON",
    details: "Sends the request as it is written, and prints each reply as JSON on a line of\n\
              its own, with fields that are empty, too. Nothing is asked of other nodes.\n\
              METHOD is the name of a method, with its service or package where that is\n\
              needed (Read, Storage/Read, proto.Storage/Read); a wrong one lists all that\n\
              there are. '{}' is a request in which nothing is set. A one-way method is not\n\
              answered, and is done when the request was handed to the connection.\n\
              \n\
              call 2 Read '{\"key\": \"greeting\"}'   the quotes around it keep its own",
};

/// `stop`, which stops a replica.
pub const STOP: Spec = Spec {
    name: "stop",
    forms: &[&[Arg::Node]],
    summary: "stop a replica at once, as by kill -9",
    details: "Closes its listener and its connections, and drops what it has in memory. The\n\
              process of a replica that has one of its own is killed. What is on disk stays.",
};

/// `start`, which starts one again.
pub const START: Spec = Spec {
    name: "start",
    forms: &[&[Arg::Node]],
    summary: "start it again, with what is on disk",
    details: "",
};

/// `pause`, which freezes one.
pub const PAUSE: Spec = Spec {
    name: "pause",
    forms: &[&[Arg::Node]],
    summary: "freeze a replica, as by SIGSTOP",
    details: "It accepts, reads and writes nothing. Its connections stay open, and what is\n\
              sent to it waits in the buffers of the system. The process of a replica that\n\
              has one of its own does nothing at all.",
};

/// `resume`, which ends that.
pub const RESUME: Spec = Spec {
    name: "resume",
    forms: &[&[Arg::Node]],
    summary: "end a pause",
    details: "",
};

/// `delay`, which makes one answer late.
pub const DELAY: Spec = Spec {
    name: "delay",
    forms: &[&[Arg::Node, Arg::Millis]],
    summary: "make a replica answer late",
    details: "The replica reads and writes its values in order and at once, lets the next\n\
              request start, and then waits that long before it answers. 0 ends it.",
};

/// `clear`, which clears the screen.
pub const CLEAR: Spec = Spec {
    name: "clear",
    forms: &[&[]],
    summary: "clear the screen (also Ctrl-L)",
    details: "",
};

/// `help`, which explains the commands.
pub const HELP: Spec = Spec {
    name: "help",
    forms: &[&[Arg::Command]],
    summary: "list the commands, or explain one",
    details: "",
};

/// `exit`, which leaves.
pub const EXIT: Spec = Spec {
    name: "exit",
    forms: &[&[]],
    summary: "leave (also quit, Ctrl-D)",
    details: "",
};

/// The words of a line while they are being understood.
#[derive(Debug)]
pub struct Words {
    commands: &'static [Spec],
    spec: &'static Spec,
    /// The words that name the operation, as far as they are known: usage messages then show only those
    /// with the last one.
    operation: Vec<&'static str>,
    rest: std::vec::IntoIter<String>,
}

impl Words {
    /// The name of the command.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.spec.name
    }

    fn replica<O>(&mut self, action: Action) -> Result<Command<O>, ParseError> {
        let id = self.node()?;
        Ok(Command::Replica { id, action })
    }

    /// The next two words: a key and a value.
    ///
    /// # Errors
    ///
    /// Where it is missing, or something else.
    pub fn write(&mut self) -> Result<Write, ParseError> {
        Ok(Write {
            key: self.key()?,
            value: self.next("VALUE")?,
        })
    }

    /// The next word: a key.
    ///
    /// # Errors
    ///
    /// Where it is missing, or something else.
    pub fn key(&mut self) -> Result<String, ParseError> {
        self.next("KEY")
    }

    /// The next word: the id of a node.
    ///
    /// # Errors
    ///
    /// Where it is missing, or something else.
    pub fn node(&mut self) -> Result<u32, ParseError> {
        let word = self.next("N, the id of a node,")?;
        match word.parse() {
            Ok(id) if id > 0 => Ok(id),
            _ => Err(self.bad(word, "the id of a node, which is a number from 1")),
        }
    }

    /// The next word: a number from 1 to this one.
    ///
    /// # Errors
    ///
    /// Where it is missing, or something else.
    pub fn count(&mut self, most: u32) -> Result<u32, ParseError> {
        let word = self.next("COUNT, a number,")?;
        match word.parse() {
            Ok(count) if (1..=most).contains(&count) => Ok(count),
            Ok(0) | Err(_) => Err(self.bad(word, "a number from 1")),
            Ok(_) => Err(self.bad(word, "a number that small")),
        }
    }

    /// The next word: a number of milliseconds.
    ///
    /// # Errors
    ///
    /// Where it is missing, or something else.
    pub fn millis(&mut self) -> Result<Duration, ParseError> {
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
        match find(self.commands, &name) {
            Some(spec) => Ok(Some(spec)),
            None => {
                let nearest = nearest(&name, self.commands.iter().map(|spec| spec.name));
                Err(ParseError::UnknownCommand { name, nearest })
            }
        }
    }

    /// The next word: one that the table names for this command.
    ///
    /// # Errors
    ///
    /// Where it is missing, or something else.
    pub fn operation(&mut self) -> Result<&'static str, ParseError> {
        let names = self.spec.operations(&self.operation);
        let name = self.next(&format!("the operation ({})", names.join(", ")))?;
        match names.iter().find(|known| **known == name) {
            Some(known) => {
                self.operation.push(known);
                Ok(known)
            }
            None => Err(ParseError::UnknownOperation {
                spec: self.spec,
                nearest: nearest(&name, names.into_iter()),
                name,
            }),
        }
    }

    /// The next word. `what` it is to be is told where there is none.
    ///
    /// # Errors
    ///
    /// Where it is missing, or something else.
    pub fn next(&mut self, what: &str) -> Result<String, ParseError> {
        self.rest.next().ok_or_else(|| ParseError::Missing {
            spec: self.spec,
            operation: self.operation.last().copied(),
            what: what.to_owned(),
        })
    }

    fn end(&mut self) -> Result<(), ParseError> {
        match self.rest.next() {
            None => Ok(()),
            Some(word) => Err(ParseError::TooMany {
                spec: self.spec,
                operation: self.operation.last().copied(),
                word,
            }),
        }
    }

    /// The error for a word that is not what was expected.
    #[must_use]
    pub fn bad(&self, word: String, expected: &'static str) -> ParseError {
        ParseError::Bad {
            spec: self.spec,
            operation: self.operation.last().copied(),
            word,
            expected,
        }
    }
}

/// The name that was probably meant.
pub(crate) fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|name| (strsim::damerau_levenshtein(word, name), name))
        .filter(|&(distance, name)| distance <= 2 && distance < name.len())
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, name)| name)
}
