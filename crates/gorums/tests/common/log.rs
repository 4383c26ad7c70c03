//! Takes down what is logged on the test's thread.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::fmt::{self, Write};
use std::sync::{Arc, LazyLock, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};

/// What was logged since this was made, by tasks of a runtime with this thread alone.
pub struct Log {
    notes: Arc<Mutex<Notes>>,
    _guard: DefaultGuard,
}

/// While there is no more than one subscriber, `tracing` asks that of the present thread alone
/// whether anybody wants an event, and remembers the answer for all threads: a test that takes down
/// nothing would silence one that does.
static OTHER: LazyLock<Dispatch> = LazyLock::new(|| {
    Dispatch::new(Taker {
        level: Level::TRACE,
        notes: Arc::default(),
    })
});

#[derive(Default)]
struct Notes {
    lines: Vec<Line>,
    /// The text of each span.
    spans: Vec<String>,
    entered: Vec<u64>,
}

#[derive(Debug, Clone)]
pub struct Line {
    pub level: Level,
    pub target: &'static str,
    /// The message and the fields. Times and the ids of calls are not the same in each run.
    pub text: String,
    pub call: Option<u64>,
    /// The spans around it, the outermost first.
    pub spans: Vec<String>,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = self.target.strip_prefix("gorums::").unwrap_or(self.target);
        write!(f, "{} {target}: {}", self.level, self.text)
    }
}

impl Log {
    /// Takes down all events that are at least of this level.
    pub fn of(level: Level) -> Self {
        LazyLock::force(&OTHER);
        let notes = Arc::default();
        let taker = Taker {
            level,
            notes: Arc::clone(&notes),
        };
        Self {
            notes,
            _guard: tracing::subscriber::set_default(taker),
        }
    }

    /// What this library has logged since this was last asked.
    pub fn take(&self) -> Vec<Line> {
        let mut lines = std::mem::take(&mut lock(&self.notes).lines);
        lines.retain(|line| line.target.starts_with("gorums::"));
        lines
    }

    /// The same with these targets, as text.
    pub fn told(&self, targets: &[&str]) -> Vec<String> {
        let lines = self.take().into_iter();
        lines
            .filter(|line| targets.contains(&line.target))
            .map(|line| line.to_string())
            .collect()
    }

    /// All events of a program's own, with the spans around them.
    pub fn own(&self) -> Vec<Line> {
        let mut lines = std::mem::take(&mut lock(&self.notes).lines);
        lines.retain(|line| line.target == "test");
        lines
    }
}

struct Taker {
    level: Level,
    notes: Arc<Mutex<Notes>>,
}

impl Subscriber for Taker {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut text = Text {
            text: span.metadata().name().to_owned(),
            call: None,
        };
        span.record(&mut text);
        let mut notes = lock(&self.notes);
        notes.spans.push(text.text);
        Id::from_u64(notes.spans.len() as u64)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let mut notes = lock(&self.notes);
        let spans = notes.entered.iter();
        let spans = spans.map(|id| notes.spans[*id as usize - 1].clone());
        let line = Line {
            level: *event.metadata().level(),
            target: event.metadata().target(),
            text: text.text,
            call: text.call,
            spans: spans.collect(),
        };
        notes.lines.push(line);
    }

    fn enter(&self, span: &Id) {
        lock(&self.notes).entered.push(span.into_u64());
    }

    fn exit(&self, _: &Id) {
        lock(&self.notes).entered.pop();
    }
}

/// `message name=value name=value`.
#[derive(Default)]
struct Text {
    text: String,
    call: Option<u64>,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let name = field.name();
        let done = if name == "message" {
            write!(self.text, "{value:?}")
        } else if name == "call" || name.ends_with("_ms") {
            write!(self.text, " {name}=N")
        } else {
            write!(self.text, " {name}={value:?}")
        };
        done.expect("a string takes everything");
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "call" {
            self.call = Some(value);
        }
        self.record_debug(field, &value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics with it")
}
