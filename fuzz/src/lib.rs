//! Fuzz targets: each is a function that takes any bytes and panics where the code breaks a promise
//! that it makes of all of them.
//!
//! `cargo test -p gorums-fuzz` runs the inputs that are kept in the folder `corpus`, and a fixed
//! number of inputs that are made of them. `cargo xtask fuzz` looks for others, as long as it is let.
//! A single input is run again by `cargo run -p gorums-fuzz -- TARGET FILE`.

mod targets;

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::{Cell, RefCell};
use std::fmt::Write;
use std::panic::{self, AssertUnwindSafe, Location, PanicHookInfo};
use std::path::{Path, PathBuf};
use std::sync::Once;

pub use targets::TARGETS;

/// What takes bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// How it is called, which is also the name of its folder in `corpus`.
    pub name: &'static str,
    /// What it looks at.
    pub about: &'static str,
    check: fn(&[u8]),
}

impl Target {
    /// The one with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// Where the inputs are that are kept.
    #[must_use]
    pub fn corpus(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("corpus")
            .join(self.name)
    }

    /// Takes an input.
    ///
    /// # Panics
    ///
    /// Where the target does, and where code of this workspace has panicked though something caught
    /// it. Other code may panic where that is caught: the program that generates code and the
    /// program that keeps files make errors of it.
    pub fn run(&self, input: &[u8]) {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let others = panic::take_hook();
            panic::set_hook(Box::new(move |info| note(info, &*others)));
        });
        RUNNING.set(true);
        OURS.take();
        let done = panic::catch_unwind(AssertUnwindSafe(|| (self.check)(input)));
        RUNNING.set(false);
        let caught = OURS.take();
        if let Err(panic) = done {
            let text = caught.unwrap_or_else(|| text(&*panic).to_owned());
            panic!("{}: {text}", self.name);
        }
        if let Some(text) = caught {
            panic!("{}: a panic that was caught: {text}", self.name);
        }
    }
}

thread_local! {
    static RUNNING: Cell<bool> = const { Cell::new(false) };
    /// The first panic of this workspace's code.
    static OURS: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Notes a panic within a target, which tells of it. Any other is told as it always is.
fn note(info: &PanicHookInfo<'_>, others: &dyn Fn(&PanicHookInfo<'_>)) {
    if !RUNNING.get() {
        return others(info);
    }
    // Cargo compiles the workspace with relative paths, and nothing else.
    let is_ours = |location: &Location<'_>| Path::new(location.file()).is_relative();
    if !info.location().is_some_and(is_ours) {
        return;
    }
    let mut told = text(info.payload()).to_owned();
    if let Some(location) = info.location() {
        // A string takes everything.
        let _ = write!(told, "\n  at {location}");
    }
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        let _ = write!(told, "\n{backtrace}");
    }
    OURS.with_borrow_mut(|first| {
        first.get_or_insert(told);
    });
}

fn text(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        (None, None) => "a panic without words",
    }
}
