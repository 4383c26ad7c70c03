//! How far it is, for whoever waits.

use std::fmt;
use std::io::IsTerminal;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often the bar moves.
const STEP: Duration = Duration::from_millis(100);

/// A bar on standard error where that is a terminal, and nothing elsewhere. It is moved by a thread
/// of its own, so that what is measured is not disturbed by more than a few microseconds.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    mover: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    /// For what takes about so long.
    pub(crate) fn of(total: Duration) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::none();
        }
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let target = ProgressDrawTarget::stderr_with_hz(10);
        let bar = ProgressBar::with_draw_target(Some(millis(total)), target);
        let style =
            ProgressStyle::with_template("{msg:28} [{bar:40}] {elapsed} of about {eta_total}");
        bar.set_style(
            style
                .expect("the template is sound")
                .with_key("eta_total", move |_: &_, text: &mut dyn fmt::Write| {
                    // A text that cannot be written is not shown.
                    let _ = write!(text, "{} s", total.as_secs());
                })
                .progress_chars("=> "),
        );
        let (stop, stopped) = mpsc::channel();
        let moved = bar.clone();
        let mover = std::thread::spawn(move || {
            let start = Instant::now();
            while stopped.recv_timeout(STEP) == Err(RecvTimeoutError::Timeout) {
                moved.set_position(millis(start.elapsed().min(total)));
            }
        });
        Self {
            bar,
            mover: Some((stop, mover)),
        }
    }

    /// For what another process shows.
    pub(crate) fn none() -> Self {
        Self {
            bar: ProgressBar::hidden(),
            mover: None,
        }
    }

    /// What is done now.
    pub(crate) fn phase(&self, what: impl fmt::Display) {
        if self.mover.is_some() {
            self.bar.set_message(what.to_string());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((stop, mover)) = self.mover.take() {
            drop(stop);
            // It has nothing to say.
            let _ = mover.join();
        }
        self.bar.finish_and_clear();
    }
}
