//! What the compiler says of the usual mistakes.
//!
//! Each file of `tests/compile_errors` has one, and says in lines that begin with `//~` what is to
//! be found in the compiler's output, which differs from version to version in everything else. A
//! file without such lines has to compile.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;
use std::{env, fs};

#[test]
fn each_mistake_is_told_what_mends_it() {
    let mut wrong = Vec::new();
    let fixtures = files(Path::new("tests/compile_errors"), "", ".rs");
    assert!(fixtures.len() > 1, "tests run in the folder of the crate");
    for fixture in fixtures {
        let source = fs::read_to_string(&fixture).expect("a text");
        let wanted: Vec<_> = source
            .lines()
            .filter_map(|line| line.strip_prefix("//~ "))
            .collect();
        let (compiled, output) = compile(&fixture);
        let missing: Vec<_> = wanted
            .iter()
            .filter(|text| !output.contains(**text))
            .collect();
        if compiled != wanted.is_empty() || !missing.is_empty() {
            let name = fixture.display();
            wrong.push(format!("{name}: {missing:?} is missing in\n{output}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether the file compiles with this library, and what the compiler says.
fn compile(file: &Path) -> (bool, String) {
    let test = env::current_exe().expect("this program is a file");
    let dependencies = test.parent().expect("in a folder");
    let mut libraries = files(dependencies, "libgorums-", ".rlib");
    libraries.sort_by_key(|path| std::cmp::Reverse(modified(path)));
    let mut output = format!("no library is in {}", dependencies.display());
    for library in libraries {
        let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        rustc
            .args(["--edition=2024", "--crate-type=lib", "--emit=metadata"])
            .args(["--out-dir", env!("CARGO_TARGET_TMPDIR")])
            .arg(format!("-Ldependency={}", dependencies.display()))
            .arg(format!("--extern=gorums={}", library.display()))
            .arg(file);
        let ran = rustc.output().expect("the compiler is on the path");
        output = String::from_utf8_lossy(&ran.stderr).into_owned();
        // A library that another build has left, by another compiler or with other dependencies.
        let is_other = ["E0514", "E0460", "E0463"]
            .iter()
            .any(|code| output.contains(&format!("error[{code}]")));
        if !is_other {
            return (ran.status.success(), output);
        }
    }
    (false, output)
}

/// The files of a folder with such names, in their order.
fn files(folder: &Path, start: &str, end: &str) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("readable"))
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with(start) && name.ends_with(end)
        })
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths
}

fn modified(path: &Path) -> SystemTime {
    let metadata = fs::metadata(path).expect("it was there just now");
    metadata.modified().expect("the system keeps that")
}
