//! The inputs that are kept, and a fixed number of inputs that are made of them, the same in each
//! run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs, thread};

use fastrand::Rng;
use gorums_fuzz::{TARGETS, Target};

/// A test for each target, with so many inputs that are made of those that are kept.
macro_rules! fixed {
    ($($name:ident: $count:literal,)+) => {
        $(#[test]
        fn $name() {
            run(stringify!($name), $count);
        })+

        /// The targets that have a test here.
        const TESTED: &[&str] = &[$(stringify!($name)),+];
    };
}

fixed! {
    frames: 20_000,
    envelopes: 40_000,
    inbound: 4_000,
    headers: 20_000,
    addresses: 20_000,
    descriptors: 300,
    prompt: 20_000,
    disk: 200,
}

#[test]
fn every_target_has_a_test() {
    let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(TESTED, names);
}

#[test]
fn every_target_has_inputs_that_are_kept() {
    let folders = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus"));
    let mut folders: Vec<_> = folders
        .expect("a folder")
        .map(|folder| folder.expect("an entry").path())
        .collect();
    folders.sort();
    let mut expected: Vec<_> = TARGETS.iter().map(Target::corpus).collect();
    expected.sort();
    assert_eq!(folders, expected);
}

/// Runs a target with its corpus and with so many inputs that are made of it.
fn run(name: &str, count: u64) {
    let target = Target::named(name).expect("a target");
    let corpus = corpus(target);
    assert!(!corpus.is_empty(), "{name} has no inputs");
    for (path, input) in &corpus {
        let _failed = Failed::at(target, path.clone(), None);
        target.run(input);
    }
    let inputs: Vec<_> = corpus.into_values().collect();
    let mut rng = Rng::with_seed(asked_for("GORUMS_SEED").unwrap_or(7));
    let count = asked_for("GORUMS_FUZZ_INPUTS").unwrap_or(count);
    for _ in 0..count {
        let input = made_of(&inputs, &mut rng);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("failed-{name}"));
        let _failed = Failed::at(target, path, Some(&input));
        target.run(&input);
    }
}

/// What the environment says instead.
fn asked_for(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is a number, and not {text:?}")))
}

/// The inputs that are kept, in an order that is always the same.
fn corpus(target: &Target) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(target.corpus()).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let inputs = paths.map(|path| {
        let input = fs::read(&path).expect("a file");
        (path, input)
    });
    inputs.collect()
}

/// An input that is like one or two others, or like none.
fn made_of(inputs: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut input = inputs[rng.usize(..inputs.len())].clone();
    for _ in 0..rng.usize(1..6) {
        let at = rng.usize(..=input.len());
        match rng.u8(..8) {
            0 => input.truncate(at),
            1 => input.insert(at, rng.u8(..)),
            2 => {
                // Of numbers, these are the ones that matter most.
                let odd = [0, 1, 0x7f, 0x80, 0xff];
                let odd = vec![odd[rng.usize(..odd.len())]; rng.usize(1..9)];
                input.splice(at..at, odd);
            }
            3 => {
                let end = (at + rng.usize(..16)).min(input.len());
                input.drain(at..end);
            }
            4 => {
                let other = &inputs[rng.usize(..inputs.len())];
                let from = rng.usize(..=other.len());
                let len = rng.usize(..=(other.len() - from).min(64));
                input.splice(at..at, other[from..from + len].to_vec());
            }
            5 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << rng.u8(..8);
                }
            }
            _ => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = rng.u8(..);
                }
            }
        }
    }
    input.truncate(64 * 1024);
    input
}

/// Says how an input is run again that the target fails with.
struct Failed<'a> {
    target: &'a Target,
    path: PathBuf,
    /// It is nowhere yet.
    input: Option<&'a [u8]>,
}

impl<'a> Failed<'a> {
    fn at(target: &'a Target, path: PathBuf, input: Option<&'a [u8]>) -> Self {
        Self {
            target,
            path,
            input,
        }
    }
}

impl Drop for Failed<'_> {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        let (name, path) = (self.target.name, self.path.display());
        match self.input.map(|input| fs::write(&self.path, input)) {
            Some(Err(error)) => println!("the input cannot be kept at {path}: {error}"),
            _ => println!("run it again: cargo run -p gorums-fuzz -- {name} {path}"),
        }
    }
}
