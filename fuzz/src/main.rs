//! Runs inputs again: `cargo run -p gorums-fuzz -- TARGET FILE...`. Built by `cargo xtask fuzz`, it
//! looks for new ones.

#![cfg_attr(gorums_fuzz, no_main)]

#[cfg(gorums_fuzz)]
mod guided {
    use std::env;
    use std::sync::LazyLock;

    use gorums_fuzz::Target;

    static TARGET: LazyLock<&Target> = LazyLock::new(|| {
        let name = env::var("GORUMS_FUZZ_TARGET").unwrap_or_default();
        Target::named(&name).expect("GORUMS_FUZZ_TARGET names a target")
    });

    libfuzzer_sys::fuzz_target!(|input: &[u8]| TARGET.run(input));
}

#[cfg(not(gorums_fuzz))]
fn main() -> std::process::ExitCode {
    use std::process::ExitCode;
    use std::{env, fs};

    use gorums_fuzz::{TARGETS, Target};

    let mut args = env::args().skip(1);
    let Some(name) = args.next() else {
        println!("usage: gorums-fuzz TARGET FILE...\n\nTargets:");
        for Target { name, about, .. } in TARGETS {
            println!("  {name:12} {about}");
        }
        return ExitCode::from(2);
    };
    let Some(target) = Target::named(&name) else {
        eprintln!("there is no target {name:?}; without arguments all of them are listed");
        return ExitCode::from(2);
    };
    for file in args {
        let input = match fs::read(&file) {
            Ok(input) => input,
            Err(error) => {
                eprintln!("{file}: {error}");
                return ExitCode::from(2);
            }
        };
        println!("{file}: {} bytes", input.len());
        target.run(&input);
    }
    ExitCode::SUCCESS
}
