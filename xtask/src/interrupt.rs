//! Ctrl-C ends a long job with what there is.

use std::process::exit;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};

/// What a shell says of a program that Ctrl-C has ended.
pub(crate) const INTERRUPTED: u8 = 130;

/// Set by Ctrl-C. Programs that run get it from the terminal as well, and end.
static INTERRUPT: AtomicBool = AtomicBool::new(false);

pub(crate) fn interrupted() -> bool {
    INTERRUPT.load(Ordering::Relaxed)
}

pub(crate) fn watch_for_interrupt() -> Result<()> {
    static ONCE: OnceLock<Result<(), ctrlc::Error>> = OnceLock::new();
    let set = ONCE.get_or_init(|| {
        ctrlc::set_handler(|| {
            // The second one ends this program.
            if INTERRUPT.swap(true, Ordering::Relaxed) {
                exit(INTERRUPTED.into());
            }
        })
    });
    if let Err(error) = set {
        bail!("Ctrl-C cannot be watched for: {error}");
    }
    Ok(())
}
