//! Telling how far a run has come.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::interval;

use crate::say;

/// How often it is told.
pub const EVERY: Duration = Duration::from_secs(10);

/// Says now and then how far the run has come. Dropping it ends that.
#[derive(Debug)]
pub struct Progress(JoinHandle<()>);

impl Progress {
    /// Begins now. The function makes what is said, behind how many seconds it is since then.
    pub fn start(mut text: impl FnMut() -> String + Send + 'static) -> Self {
        Self(tokio::spawn(async move {
            let begun = Instant::now();
            let mut ticks = interval(EVERY);
            // The first one comes at once.
            ticks.tick().await;
            loop {
                ticks.tick().await;
                say(format_args!(
                    "{:4} s  {}",
                    begun.elapsed().as_secs(),
                    text()
                ));
            }
        }))
    }

    /// Says no more.
    pub fn end(&self) {
        self.0.abort();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}
