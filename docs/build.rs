//! Prepares the pages for `lib.rs`: the services in their `proto` blocks are generated, and each
//! Rust block gets hidden lines around it that bring them into scope. So a reader of the page sees
//! neither, and what the page shows is what is compiled.

use std::error::Error;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

const PAGES: [&str; 11] = [
    "../README.md",
    "calls.md",
    "membership.md",
    "observability.md",
    "ordering.md",
    "quorums.md",
    "registers.md",
    "service.md",
    "simulation.md",
    "testing.md",
    "tls.md",
];

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    for page in PAGES {
        println!("cargo:rerun-if-changed={page}");
        let path = Path::new(page);
        let name = path.file_name().ok_or("a page is a file")?;
        let text = fs::read_to_string(path)?;
        let packages = generate(&text, &out)?;
        fs::write(out.join(name), with_hidden_lines(&text, &packages)?)?;
    }
    Ok(())
}

/// Generates the services of a page, and returns the names of their packages.
fn generate(page: &str, out: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let mut packages = Vec::new();
    for block in page.split("\n```proto\n").skip(1) {
        let (proto, _) = block.split_once("\n```").ok_or("a block does not end")?;
        let package = proto
            .lines()
            .find_map(|line| line.strip_prefix("package ")?.strip_suffix(';'))
            .ok_or("a proto block states no package")?;
        let file = out.join(format!("{package}.proto"));
        fs::write(&file, proto)?;
        gorums_build::configure().compile_protos(&[file], &[out])?;
        packages.push(package.to_owned());
    }
    Ok(packages)
}

/// Adds a hidden line to each Rust block that is not a whole program already: the services that the
/// block does not bring in itself, and `main`. The empty line after such a block goes, so that the
/// compiler's line numbers are those of the page.
fn with_hidden_lines(page: &str, packages: &[String]) -> Result<String, Box<dyn Error>> {
    const START: &str = "\n```rust,no_run\n";
    const END: &str = "\n```\n";

    let mut parts = page.split(START);
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_once(END).ok_or("a block does not end")?;
        // Where the compiler builds no tests, it leaves them out and looks at none.
        text.extend([START, &code.replace("#[test]\n", "#[allow(dead_code)]\n")]);
        if code.contains("fn main()") {
            text.extend([END, rest]);
            continue;
        }
        text.push_str("\n# ");
        for package in packages {
            if !code.contains(&format!("mod {package} {{")) {
                write!(
                    text,
                    "mod {package} {{ gorums::include_proto!(\"{package}\"); }} "
                )?;
            }
        }
        text.extend(["fn main() {}", END, rest.strip_prefix('\n').unwrap_or(rest)]);
    }
    Ok(text)
}
