//! The terminal while a command is carried out.

/// As long as this lives, what is typed is not shown and waits as it was typed: lines of any length,
/// and keys that mean something only at the prompt. Ctrl-C still comes as a signal, and takes nothing
/// away from what waits.
#[must_use = "it ends at once"]
pub(super) struct Quiet {
    #[cfg(unix)]
    before: Option<rustix::termios::Termios>,
}

#[cfg(unix)]
impl Quiet {
    pub(super) fn new() -> Self {
        use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex};
        use rustix::termios::{tcgetattr, tcsetattr};

        let stdin = std::io::stdin();
        let set = || {
            let before = tcgetattr(&stdin)?;
            let mut quiet = before.clone();
            quiet.local_modes -= LocalModes::ECHO | LocalModes::ICANON;
            quiet.local_modes |= LocalModes::NOFLSH;
            quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
            quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
            tcsetattr(&stdin, OptionalActions::Now, &quiet)?;
            Ok::<_, rustix::io::Errno>(before)
        };
        // Where the terminal cannot do that, what is typed is shown twice, and that is all.
        Self { before: set().ok() }
    }
}

#[cfg(unix)]
impl Drop for Quiet {
    fn drop(&mut self) {
        use rustix::termios::{OptionalActions, tcsetattr};

        if let Some(before) = &self.before {
            // As above.
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

#[cfg(not(unix))]
impl Quiet {
    pub(super) fn new() -> Self {
        Self {}
    }
}
