//! The lines of earlier sessions, in a file.
//!
//! The editor has such a file of its own, which our oldest supported compiler does not build.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// How many lines are brought back, and left in the file when a session begins.
pub(super) const LINES: usize = 1000;

/// The longest line that is kept, in bytes.
const LONGEST: usize = 4096;

/// How much of the end of the file is read.
const BYTES: u64 = 1024 * 1024;

/// A file with the lines of earlier sessions, the newest one last. Several sessions may add to it.
#[derive(Debug)]
pub(super) struct History {
    /// None where it cannot be used.
    path: Option<PathBuf>,
}

impl History {
    /// The file of this program, and the lines in it. Where there can be none, the reason is told,
    /// unless it is that the user has no home.
    pub(super) fn open(program: &str) -> (Self, Vec<String>, Option<String>) {
        let Some(directory) = directory(|name| std::env::var_os(name)) else {
            return (Self { path: None }, Vec::new(), None);
        };
        Self::at(&directory.join(format!("{program}_history")))
    }

    fn at(path: &Path) -> (Self, Vec<String>, Option<String>) {
        match read(path) {
            Ok(lines) => {
                let path = Some(path.to_owned());
                (Self { path }, lines, None)
            }
            Err(error) => {
                let why = format!(
                    "the lines of this session are not kept: {}: {error}",
                    path.display()
                );
                (Self { path: None }, Vec::new(), Some(why))
            }
        }
    }

    /// Adds a line. One that is very long is left out, and after an error so are all others.
    pub(super) fn add(&mut self, line: &str) {
        if line.len() > LONGEST || line.contains('\n') {
            return;
        }
        let Some(path) = &self.path else { return };
        // Opened each time, since another session may put a shorter file in its place.
        let added = open(path).and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
        if added.is_err() {
            // What is kept for convenience only is not worth a message between two results.
            self.path = None;
        }
    }
}

/// The folder for what programs keep between sessions.
fn directory(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    // A relative one is to be ignored, says the XDG Base Directory Specification.
    let absolute = |name| {
        variable(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let state = absolute("XDG_STATE_HOME");
    let state = match cfg!(windows) {
        true => state.or_else(|| absolute("LOCALAPPDATA")),
        false => state.or_else(|| absolute("HOME").map(|home| home.join(".local/state"))),
    };
    state.map(|state| state.join("gorums"))
}

/// Opens the file for adding to it. It is made where there is none.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // Values may be nobody else's business.
        options.mode(0o600);
    }
    options.open(path)
}

/// The newest lines of the file. The others are taken out of it.
fn read(path: &Path) -> io::Result<Vec<String>> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut file = open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("this is not a file"));
    }
    let skipped = file.metadata()?.len().saturating_sub(BYTES);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    (&file).take(BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // Where the beginning was left out, the first line is a part of one.
    let lines = text.lines().skip(usize::from(skipped > 0));
    let lines = lines.filter(|line| {
        let kept = !line.is_empty() && line.len() <= LONGEST;
        kept && !line.chars().any(char::is_control)
    });
    let lines: Vec<_> = lines.map(str::to_owned).collect();
    let newest = lines[lines.len().saturating_sub(LINES)..].to_vec();
    // Twice as many may be there, so that not each session writes all of them.
    if skipped > 0 || lines.len() > 2 * LINES {
        let shorter = path.with_extension(std::process::id().to_string());
        let mut text = newest.join("\n");
        text.push('\n');
        open(&shorter)?.write_all(text.as_bytes())?;
        fs::rename(&shorter, path)?;
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &Path) -> Vec<String> {
        let (_, lines, why) = History::at(path);
        assert_eq!(why, None);
        lines
    }

    #[test]
    fn lines_of_one_session_are_there_in_the_next() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("state/gorums/test_history");
        let (mut one, ..) = History::at(&path);
        let (mut other, ..) = History::at(&path);
        one.add("qc write k 'a value'");
        other.add("nodes");
        one.add(&"x".repeat(LONGEST + 1));
        one.add("two\nlines");
        one.add("exit");
        assert_eq!(lines(&path), ["qc write k 'a value'", "nodes", "exit"]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(&path)
                .expect("it is there")
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn the_file_stays_short_however_often_it_is_used() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("history");
        for session in 0..3 {
            let (mut history, ..) = History::at(&path);
            for line in 0..LINES {
                history.add(&format!("{session} {line}"));
            }
        }
        let (mut history, newest, _) = History::at(&path);
        assert_eq!(newest.len(), LINES);
        assert_eq!(newest.last().map(String::as_str), Some("2 999"));
        history.add("one more");
        let text = fs::read_to_string(&path).expect("it is there");
        assert_eq!(text.lines().count(), LINES + 1);
        assert_eq!(
            fs::read_dir(directory.path()).expect("it is there").count(),
            1
        );
    }

    #[test]
    fn what_is_no_line_in_the_file_is_passed_over() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("history");
        fs::write(&path, b"nodes\n\n\xff\xfe\n\x1b[2J\nexit").expect("it is written");
        assert_eq!(lines(&path), ["nodes", "\u{fffd}\u{fffd}", "exit"]);
        // Much more than is read, without any end of a line.
        fs::write(&path, vec![b'x'; 3 << 20]).expect("it is written");
        assert_eq!(lines(&path), [""; 0]);
    }

    #[test]
    fn without_a_place_for_it_there_is_a_reason_and_no_history() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        fs::write(&file, "").expect("it is written");
        for path in [file.join("gorums/history"), directory.path().to_owned()] {
            let (mut history, lines, why) = History::at(&path);
            let why = why.expect("it cannot be there");
            assert!(
                why.starts_with("the lines of this session are not kept: "),
                "{why}"
            );
            assert_eq!(lines, [""; 0]);
            history.add("nodes");
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_folder_is_that_of_the_xdg_specification() {
        let found = |variables: &[(&str, &str)]| {
            let variables: Vec<(String, OsString)> = variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).into()))
                .collect();
            directory(move |name| {
                let found = variables.iter().find(|(known, _)| known == name);
                found.map(|(_, value)| value.clone())
            })
        };
        let (home, state) = (("HOME", "/home/me"), ("XDG_STATE_HOME", "/state"));
        let relative = ("XDG_STATE_HOME", "state");
        for (variables, expected) in [
            (&[home][..], Some("/home/me/.local/state/gorums")),
            (&[home, state], Some("/state/gorums")),
            (&[home, relative], Some("/home/me/.local/state/gorums")),
            (&[("HOME", "")], None),
            (&[], None),
        ] {
            assert_eq!(found(variables), expected.map(PathBuf::from));
        }
    }
}
