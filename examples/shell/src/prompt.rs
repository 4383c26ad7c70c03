//! The prompt: editing, history, completion and hints.

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustyline::completion::{Completer, Pair};
use rustyline::config::Configurer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::{Hint, Hinter};
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{
    Cmd, CompletionType, ConditionalEventHandler, Context, Editor, Event, EventContext,
    EventHandler, Helper, KeyEvent, RepeatCount,
};

use crate::above::Above;
use crate::command::{Arg, Spec, find};
use crate::history::{self, History};
use crate::screen::{BOLD, REMARK};

/// How many keys are remembered for completion.
const KEYS: usize = 1000;

/// What the prompt is, without its style.
const PROMPT: &str = "> ";

/// Reads lines from a terminal.
///
/// What is typed or pasted while there is no prompt waits: the system has it, or the editor has
/// read it ahead and keeps it for the next line.
pub(super) struct Prompt {
    editor: Editor<Assistant, DefaultHistory>,
    history: History,
    /// Lines that came at once and are still to be handed out.
    pasted: VecDeque<String>,
    /// The line that was handed over was given up by Ctrl-C.
    interrupted: Arc<AtomicBool>,
    /// There was a Ctrl-C on an empty line just before.
    leaving: bool,
}

/// What came from the prompt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// A line.
    Line(String),
    /// Bytes that are no text.
    Encoding,
    /// Ctrl-C on an empty line, for the first time.
    Interrupted,
    /// Ctrl-D, or Ctrl-C again: the user wants to leave.
    End,
}

impl Prompt {
    /// A prompt for these commands, that completes the ids of these nodes and these methods, and has the lines of
    /// earlier sessions of this program. The text says why there are none, if so.
    pub(super) fn new(
        program: &str,
        commands: &'static [Spec],
        ids: impl IntoIterator<Item = u32>,
        methods: Vec<String>,
    ) -> rustyline::Result<(Self, Option<String>)> {
        let mut editor = Editor::new()?;
        editor.set_completion_type(CompletionType::List);
        editor.set_max_history_size(history::LINES)?;
        editor.set_helper(Some(Assistant {
            commands,
            ids: ids.into_iter().collect(),
            methods,
            keys: BTreeSet::new(),
            // A hint that looks like what was typed would mislead.
            hints: anstream::stdout().current_choice() != anstream::ColorChoice::Never,
            above: Above::new(),
        }));
        let interrupted = Arc::new(AtomicBool::new(false));
        let interrupt = Interrupt(Arc::clone(&interrupted));
        editor.bind_sequence(
            KeyEvent::ctrl('C'),
            EventHandler::Conditional(Box::new(interrupt)),
        );
        let (history, lines, why) = History::open(program);
        for line in lines {
            editor.add_history_entry(line)?;
        }
        let prompt = Self {
            editor,
            history,
            pasted: VecDeque::new(),
            interrupted,
            leaving: false,
        };
        Ok((prompt, why))
    }

    /// Shows a text above the prompt, also while somebody types.
    pub(super) fn printer(&self) -> impl FnMut(String) + Send + use<> {
        let above = self
            .editor
            .helper()
            .map(|assistant| assistant.above.clone());
        move |text| {
            if let Some(above) = &above {
                above.show(&text);
            }
        }
    }

    /// Remembers a key for completion.
    pub(super) fn remember(&mut self, key: &str) {
        if let Some(assistant) = self.editor.helper_mut()
            && assistant.keys.len() < KEYS
        {
            assistant.keys.insert(key.to_owned());
        }
    }

    /// The next line. Ctrl-C clears a line that is not empty.
    ///
    /// Lines that were pasted at once come one by one, each shown at a prompt of its own.
    pub(super) fn read(&mut self) -> rustyline::Result<Input> {
        if let Some(line) = self.pasted.pop_front() {
            self.show(&line);
            return Ok(Input::Line(line));
        }
        let prompt = (PROMPT.to_owned(), format!("{BOLD}>{BOLD:#} "));
        loop {
            let leaving = std::mem::replace(&mut self.leaving, false);
            let read = self.editor.readline(&prompt);
            if let Some(assistant) = self.editor.helper() {
                assistant.above.end_line();
            }
            let interrupted = self.interrupted.swap(false, Ordering::Relaxed);
            match read {
                Ok(line) if interrupted && !line.is_empty() => {}
                Ok(_) if interrupted && leaving => return Ok(Input::End),
                Ok(_) if interrupted => {
                    self.leaving = true;
                    return Ok(Input::Interrupted);
                }
                Ok(text) => return self.take(&text).map(Input::Line),
                Err(ReadlineError::Eof) => return Ok(Input::End),
                // Ctrl-\, where that is the system's key for leaving.
                Err(ReadlineError::Interrupted) => return Ok(Input::End),
                Err(ReadlineError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                    return Ok(Input::Encoding);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The first line of what was entered. The others are to come.
    fn take(&mut self, text: &str) -> rustyline::Result<String> {
        for line in text.lines() {
            if self.editor.add_history_entry(line)? {
                self.history.add(line);
            }
        }
        self.pasted.extend(text.lines().map(str::to_owned));
        let first = self.pasted.pop_front().unwrap_or_default();
        if !self.pasted.is_empty() {
            // All lines were shown together; each is shown again before what comes of it.
            self.show(&first);
        }
        Ok(first)
    }

    /// Shows a line as it looks at the prompt.
    fn show(&self, line: &str) {
        if io::stdout().is_terminal() {
            anstream::println!("{BOLD}>{BOLD:#} {line}");
        }
    }
}

/// What Ctrl-C does at the prompt: it ends the line. The editor's own way of doing that forgets what
/// was typed after it.
struct Interrupt(Arc<AtomicBool>);

impl ConditionalEventHandler for Interrupt {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, _: &EventContext<'_>) -> Option<Cmd> {
        self.0.store(true, Ordering::Relaxed);
        Some(Cmd::AcceptLine)
    }
}

/// Knows what may be typed where.
struct Assistant {
    commands: &'static [Spec],
    ids: Vec<u32>,
    /// The names of the methods that `call` knows.
    methods: Vec<String>,
    /// The keys of earlier commands.
    keys: BTreeSet<String>,
    hints: bool,
    /// What is shown meanwhile. The editor asks for a hint at every change of the line, so that it
    /// is known how long that is.
    above: Above,
}

impl Assistant {
    /// Where the last word begins, and what it may become.
    fn candidates(&self, line: &str) -> (usize, Vec<Pair>) {
        let (before, word) = split_last(line);
        let Some(words) = words(before) else {
            return (line.len(), Vec::new());
        };
        let mut start = before.len();
        let mut candidates = BTreeSet::new();
        let Some((name, given)) = words.split_first() else {
            candidates.extend(self.commands.iter().map(|spec| format!("{} ", spec.name)));
            return (start, pairs(candidates, word));
        };
        for form in forms(find(self.commands, name), given) {
            let Some(arg) = form.get(given.len()) else {
                continue;
            };
            let end = if given.len() + 1 < form.len() {
                " "
            } else {
                ""
            };
            match arg {
                Arg::Word(word) => {
                    candidates.insert(format!("{word}{end}"));
                }
                Arg::Node => candidates.extend(self.ids.iter().map(|id| format!("{id}{end}"))),
                // Only the id at the end of the list; there may be more to come.
                Arg::Nodes => {
                    start = before.len() + word.rfind([',', ':']).map_or(0, |comma| comma + 1);
                    candidates.extend(self.ids.iter().map(u32::to_string));
                }
                Arg::Key => {
                    let keys = self.keys.iter().map(|key| shell_words::quote(key));
                    candidates.extend(keys.map(|key| format!("{key}{end}")));
                }
                Arg::Command => {
                    candidates.extend(self.commands.iter().map(|spec| spec.name.to_owned()))
                }
                Arg::Method => {
                    candidates.extend(self.methods.iter().map(|name| format!("{name}{end}")))
                }
                Arg::Value | Arg::Json | Arg::Count | Arg::Millis => {}
            }
        }
        (start, pairs(candidates, &line[start..]))
    }

    /// What is still to be typed after a space.
    fn hint(&self, line: &str) -> Option<String> {
        let (before, word) = split_last(line);
        if !word.is_empty() {
            return None;
        }
        let words = words(before)?;
        let (name, given) = words.split_first()?;
        let forms: Vec<_> = forms(find(self.commands, name), given).collect();
        let rest = |form: &&[Arg]| {
            let args = form.get(given.len()..)?;
            let args: Vec<_> = args.iter().map(Arg::to_string).collect();
            (!args.is_empty()).then(|| args.join(" "))
        };
        match forms.as_slice() {
            [form] => rest(form),
            forms => {
                // What comes next in each, and what follows where that is the same in all.
                let next: Vec<_> = forms
                    .iter()
                    .filter_map(|form| form.get(given.len()))
                    .collect();
                let operations = next.iter().all(|arg| matches!(arg, Arg::Word(_)));
                let mut next: Vec<_> = next.into_iter().map(Arg::to_string).collect();
                next.dedup();
                let more = if operations { "" } else { " …" };
                (!next.is_empty()).then(|| format!("{}{more}", next.join("|")))
            }
        }
    }
}

/// The line up to its last word, and that word, which is empty after a space.
fn split_last(line: &str) -> (&str, &str) {
    let start = line.rfind([' ', '\t']).map_or(0, |space| space + 1);
    line.split_at(start)
}

/// The words of an unfinished line; none within quotes and comments.
fn words(line: &str) -> Option<Vec<String>> {
    let words = shell_words::split(line).ok()?;
    // A word that follows must come out as a word.
    let more = shell_words::split(&format!("{line} x")).ok()?;
    (more.len() == words.len() + 1).then_some(words)
}

/// The forms of a command that go with the words given.
fn forms<'a>(
    spec: Option<&'static Spec>,
    given: &'a [String],
) -> impl Iterator<Item = &'static [Arg]> + use<'a> {
    let forms = spec.map_or(&[][..], |spec| spec.forms);
    forms.iter().copied().filter(move |form| {
        given.len() <= form.len()
            && form.iter().zip(given).all(|(arg, word)| match arg {
                Arg::Word(expected) => expected == word,
                _ => true,
            })
    })
}

fn pairs(candidates: BTreeSet<String>, word: &str) -> Vec<Pair> {
    let fitting = candidates.into_iter().filter(|text| text.starts_with(word));
    let pair = |replacement: String| Pair {
        display: replacement.trim_end().to_owned(),
        replacement,
    };
    fitting.map(pair).collect()
}

impl Completer for Assistant {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _ctx: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        Ok(self.candidates(&line[..pos]))
    }
}

/// What is still to be typed. Showing it is all that it is for.
struct Usage(String);

impl Hint for Usage {
    fn display(&self) -> &str {
        &self.0
    }

    fn completion(&self) -> Option<&str> {
        None
    }
}

impl Hinter for Assistant {
    type Hint = Usage;

    fn hint(&self, line: &str, pos: usize, _ctx: &Context<'_>) -> Option<Usage> {
        let hint = (self.hints && pos == line.len())
            .then(|| self.hint(line))
            .flatten();
        self.above
            .set_line(&[PROMPT, line, hint.as_deref().unwrap_or_default()]);
        hint.map(Usage)
    }
}

impl Highlighter for Assistant {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        format!("{REMARK}{hint}{REMARK:#}").into()
    }
}

impl Validator for Assistant {}

impl Helper for Assistant {}

#[cfg(test)]
mod tests {
    use Arg::{Key, Node, Nodes, Value, Word};

    use super::*;
    use crate::command::{CALL, CLEAR, DELAY, EXIT, HELP, NODES, PAUSE, RESUME, START, STOP};

    static COMMANDS: &[Spec] = &[
        NODES,
        own(
            "rpc",
            &[
                &[Node, Word("read"), Key],
                &[Node, Word("write"), Key, Value],
            ],
        ),
        own("ucast", &[&[Node, Key, Value]]),
        own(
            "qc",
            &[
                &[Word("read"), Key],
                &[Word("write"), Key, Value],
                &[Word("cread"), Key],
                &[Word("nread"), Key],
                &[Word("nwrite"), Key, Value],
            ],
        ),
        own(
            "cfg",
            &[
                &[Nodes, Word("read"), Key],
                &[Nodes, Word("mcast"), Key, Value],
            ],
        ),
        CALL,
        STOP,
        START,
        PAUSE,
        RESUME,
        DELAY,
        CLEAR,
        HELP,
        EXIT,
    ];

    const fn own(name: &'static str, forms: &'static [&'static [Arg]]) -> Spec {
        Spec {
            name,
            forms,
            summary: "",
            details: "",
        }
    }

    fn assistant() -> Assistant {
        Assistant {
            commands: COMMANDS,
            ids: vec![1, 2, 13],
            methods: ["Read", "Write", "WriteAll"].map(str::to_owned).into(),
            keys: ["greeting", "grid", "two words"].map(str::to_owned).into(),
            hints: true,
            above: Above::new(),
        }
    }

    fn completions(line: &str) -> (usize, Vec<String>) {
        let (start, pairs) = assistant().candidates(line);
        let texts = pairs.into_iter().map(|pair| pair.replacement);
        (start, texts.collect())
    }

    #[test]
    fn what_fits_is_offered() {
        let cases: &[(&str, usize, &[&str])] = &[
            ("n", 0, &["nodes "]),
            ("st", 0, &["start ", "stop "]),
            ("  re", 2, &["resume "]),
            ("xyz", 0, &[]),
            (
                "qc ",
                3,
                &["cread ", "nread ", "nwrite ", "read ", "write "],
            ),
            ("qc n", 3, &["nread ", "nwrite "]),
            ("rpc ", 4, &["1 ", "13 ", "2 "]),
            ("rpc 1", 4, &["1 ", "13 "]),
            ("rpc 1 ", 6, &["read ", "write "]),
            ("rpc 1 read g", 11, &["greeting", "grid"]),
            ("rpc 1 write gre", 12, &["greeting "]),
            ("qc read ", 8, &["'two words'", "greeting", "grid"]),
            ("cfg ", 4, &["1", "13", "2"]),
            ("cfg 1,", 6, &["1", "13", "2"]),
            ("cfg 2:1", 6, &["1", "13"]),
            ("cfg 1,2 m", 8, &["mcast "]),
            ("call 1", 5, &["1 ", "13 "]),
            ("call 1 W", 7, &["Write ", "WriteAll "]),
            ("call 1 Read ", 12, &[]),
            ("stop ", 5, &["1", "13", "2"]),
            ("delay 2", 6, &["2 "]),
            ("help res", 5, &["resume"]),
            ("qc write greeting ", 18, &[]),
            ("nodes ", 6, &[]),
            ("unknown ", 8, &[]),
            ("qc read 'two w", 14, &[]),
            ("qc # r", 6, &[]),
        ];
        for (line, start, candidates) in cases {
            let candidates: Vec<String> = candidates.iter().map(|&text| text.to_owned()).collect();
            assert_eq!(completions(line), (*start, candidates), "{line:?}");
        }
    }

    #[test]
    fn what_is_still_to_be_typed_is_shown() {
        let cases = [
            ("qc ", Some("read|write|cread|nread|nwrite")),
            ("qc read ", Some("KEY")),
            ("qc write ", Some("KEY VALUE")),
            ("qc write k ", Some("VALUE")),
            ("qc write k v ", None),
            ("qc", None),
            ("rpc ", Some("N …")),
            ("rpc 1 ", Some("read|write")),
            ("ucast ", Some("N KEY VALUE")),
            ("call 1 ", Some("METHOD JSON")),
            ("cfg ", Some("NODES …")),
            ("help ", Some("[COMMAND]")),
            ("nodes ", None),
            ("unknown ", None),
            ("", None),
            ("qc write 'k ", None),
        ];
        for (line, hint) in cases {
            assert_eq!(assistant().hint(line).as_deref(), hint, "{line:?}");
        }
    }
}
