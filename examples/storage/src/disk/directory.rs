//! Where the files of replicas are.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The file of a replica.
pub(super) fn path(directory: &Path, id: u32) -> PathBuf {
    directory.join(format!("replica-{id}.redb"))
}

/// The seal of the file at this path.
pub(super) fn seal(path: &Path) -> PathBuf {
    path.with_extension("seal")
}

/// The reserve beside the file at this path.
pub(super) fn reserve(path: &Path) -> PathBuf {
    path.with_extension("reserve")
}

/// The slate of a replica.
pub(crate) fn slate(directory: &Path, id: u32) -> PathBuf {
    directory.join(format!("replica-{id}.rejoin"))
}

/// The directory that this is in.
pub(crate) fn above(path: &Path) -> &Path {
    match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    }
}

/// Replaces a small file as a whole, or makes it. A crash leaves the old one or the new one.
///
/// # Errors
///
/// Where it cannot be written. Then either is there.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = with_end(path, "-new");
    let written = || {
        let mut file = fs::File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&new, path)?;
        sync(above(path))
    };
    written().inspect_err(|_| {
        // What is left of it takes room.
        let _ = fs::remove_file(&new);
    })
}

/// Gives the file at this path and its seal, as far as they are there, other names, and returns these.
/// What had them before is gone.
pub(super) fn set_aside(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut aside = Vec::new();
    // The file last: if this is interrupted there is one without a seal, which is refused as well.
    for from in [seal(path), path.to_owned()] {
        let to = with_end(&from, ".lost");
        match fs::rename(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => {
                renamed?;
                aside.push(to);
            }
        }
    }
    if !aside.is_empty() {
        sync(above(path))?;
    }
    Ok(aside)
}

/// The path with something behind its name.
fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut path = path.to_owned().into_os_string();
    path.push(end);
    path.into()
}

/// Makes a directory, and those above it, so that their names last.
pub(crate) fn make(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let above = above(directory);
    make(above)?;
    match fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Another process may have been quicker.
            if !directory.is_dir() {
                return Err(io::ErrorKind::NotADirectory.into());
            }
        }
        made => made?,
    }
    sync(above)
}

/// Makes the names in a directory last.
pub(crate) fn sync(directory: &Path) -> io::Result<()> {
    // Elsewhere a directory cannot be opened, and need not be.
    if cfg!(unix) {
        fs::File::open(directory)?.sync_all()?;
    }
    Ok(())
}
