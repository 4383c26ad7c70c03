//! A seed that failed: how it is run again, and what is written of it.

use std::fmt::{self, Write as _};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{env, io, thread};

use crate::cluster::Run;

/// The variables by which a program's campaigns run one seed, and of its faults only some.
const SEED: &str = "GORUMS_SIM_SEED";
const FAULTS: &str = "GORUMS_SIM_FAULTS";

/// The folder, below that of what is built.
const FOLDER: &str = "gorums-sim";

/// No history is written that has more operations. A line has some 150 bytes.
const MOST_OPERATIONS: usize = 100_000;

/// How many characters of a scenario's name a file's name has.
const NAME: usize = 60;

/// Some of the faults of a seed, by their places in its plan: `1,4`, or `none`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultSet(Vec<usize>);

/// What was written of a run that failed: where it is, or why it is not there.
#[derive(Debug)]
pub struct Files {
    picture: io::Result<PathBuf>,
    /// None where it is too long.
    history: Option<io::Result<PathBuf>>,
}

impl FaultSet {
    /// The places in the plan.
    #[must_use]
    pub fn places(&self) -> &[usize] {
        &self.0
    }
}

impl From<Vec<usize>> for FaultSet {
    fn from(places: Vec<usize>) -> Self {
        Self(places)
    }
}

impl fmt::Display for FaultSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (at, place) in self.0.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(f, "{comma}{place}")?;
        }
        Ok(())
    }
}

impl FromStr for FaultSet {
    type Err = String;

    /// # Errors
    ///
    /// What is not the number of a fault.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(Vec::new()));
        }
        let places = text.split(',').map(|place| {
            let place = place.trim();
            place
                .parse()
                .map_err(|_| format!("{place:?} is not the number of a fault"))
        });
        places.collect::<Result<_, _>>().map(Self)
    }
}

/// The seed that is to be run in the place of all others, and the faults of it, as the environment
/// says.
pub(crate) fn asked_for() -> Result<Option<(u64, Option<FaultSet>)>, String> {
    let variable = |name| match env::var(name) {
        Ok(text) => Ok(Some(text)),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(error) => Err(format!("{name}: {error}")),
    };
    let faults = variable(FAULTS)?;
    let faults = faults.map(|text| text.parse::<FaultSet>());
    let faults = faults.transpose().map_err(|error| {
        format!("{FAULTS} is the numbers of faults, as in 1,4, or none: {error}")
    })?;
    let Some(seed) = variable(SEED)? else {
        return match faults {
            Some(_) => Err(format!("{FAULTS} is of no use without {SEED}")),
            None => Ok(None),
        };
    };
    let seed = seed
        .trim()
        .parse()
        .map_err(|_| format!("{SEED} is one seed, a number, and not {seed:?}"))?;
    Ok(Some((seed, faults)))
}

/// How the test, or the program, in whose thread this is runs a seed again.
pub(crate) fn command(seed: u64, faults: Option<&FaultSet>) -> String {
    let mut command = format!("{SEED}={seed}");
    if let Some(faults) = faults {
        write!(command, " {FAULTS}={faults}").expect("a string takes everything");
    }
    let thread = thread::current();
    // The threads of tests have their names. Those of a program have not, nor has a test that runs
    // in the first thread.
    match (thread.name(), env::var("CARGO_PKG_NAME")) {
        (Some(test), Ok(package)) if test != "main" => {
            command.push_str(&format!(" cargo test -p {package} {test}"));
        }
        _ => {
            for argument in env::args() {
                command.push(' ');
                command.push_str(&quoted(&argument));
            }
        }
    }
    command
}

impl Files {
    /// Writes them, in the place of those that an earlier run of that seed has left.
    pub(crate) fn write(name: &str, run: &Run) -> Option<Self> {
        let svg = run.svg()?;
        let folder = folder();
        let path = |extension| folder.join(format!("{}-{}.{extension}", plain(name), run.seed()));
        let picture = path("svg");
        let picture = fs::create_dir_all(&folder)
            .and_then(|()| fs::write(&picture, svg))
            .map(|()| picture);
        let history = (run.history().len() <= MOST_OPERATIONS).then(|| {
            let history = path("jsonl");
            let file = File::create(&history)?;
            let written = run.history().write_json_lines(io::BufWriter::new(file));
            written.map(|()| history)
        });
        Some(Self { picture, history })
    }

    /// Where the picture is, if it could be written.
    #[must_use]
    pub fn picture(&self) -> Option<&Path> {
        self.picture.as_deref().ok()
    }

    /// Where the history is, as lines of JSON, if it could be written and is not too long.
    #[must_use]
    pub fn history(&self) -> Option<&Path> {
        self.history.as_ref()?.as_deref().ok()
    }
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |what, path: &io::Result<PathBuf>| match path {
            Ok(path) => writeln!(f, "  {what}: {}", path.display()),
            Err(error) => writeln!(f, "  {what}: not written, {error}"),
        };
        line("picture", &self.picture)?;
        self.history
            .iter()
            .try_for_each(|history| line("history", history))
    }
}

/// Below cargo's target folder if this program is in one, or else below that of temporary files.
fn folder() -> PathBuf {
    let program = env::current_exe().unwrap_or_default();
    let mut above = program.ancestors().skip(1);
    // Cargo marks it as what need not be backed up.
    let target = above.find(|folder| folder.join("CACHEDIR.TAG").is_file());
    target
        .map_or_else(env::temp_dir, Path::to_owned)
        .join(FOLDER)
}

/// A scenario's name as that of a file.
fn plain(name: &str) -> String {
    let mut plain = String::new();
    for character in name.chars().take(NAME) {
        let fits = character.is_alphanumeric() || "_-".contains(character);
        match fits {
            true => plain.push(character),
            false if plain.is_empty() || plain.ends_with('-') => {}
            false => plain.push('-'),
        }
    }
    plain.truncate(plain.trim_end_matches('-').len());
    plain
}

/// A word of a command, as a shell reads it.
fn quoted(word: &str) -> String {
    let is_plain = |character: char| character.is_alphanumeric() || "_-./:=,".contains(character);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_faults_are_written_as_they_are_read() {
        for text in ["none", "0", "1,4"] {
            let faults: FaultSet = text.parse().expect(text);
            assert_eq!(faults.to_string(), text);
        }
        assert_eq!(" 1, 4".parse(), Ok(FaultSet(vec![1, 4])));
        for (text, wrong) in [("", "\"\""), ("1,x", "\"x\""), ("-1", "\"-1\"")] {
            let expected = format!("{wrong} is not the number of a fault");
            assert_eq!(text.parse::<FaultSet>(), Err(expected));
        }
    }

    #[test]
    fn names_are_those_of_files_and_words_of_a_shell() {
        assert_eq!(
            plain("one register, on one replica"),
            "one-register-on-one-replica"
        );
        assert_eq!(plain("../a/b/"), "a-b");
        assert_eq!(plain(&"x".repeat(100)).len(), NAME);
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted("--seeds=3"), "--seeds=3");
        assert_eq!(quoted(""), "''");
    }
}
