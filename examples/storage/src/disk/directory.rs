//! Where the files of replicas are.

use std::path::{Path, PathBuf};
use std::{fs, io};

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

/// Gives the file at this path and its seal, as far as they are there, other names, and returns these.
/// What had them before is gone.
pub(super) fn set_aside(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut aside = Vec::new();
    // The file last: if this is interrupted there is one without a seal, which is refused as well.
    for from in [seal(path), path.to_owned()] {
        let mut to = from.clone().into_os_string();
        to.push(".lost");
        let to = PathBuf::from(to);
        match fs::rename(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => {
                renamed?;
                aside.push(to);
            }
        }
    }
    if !aside.is_empty() {
        sync(path.parent().unwrap_or(Path::new(".")))?;
    }
    Ok(aside)
}

/// Makes a directory, and those above it, so that their names last.
pub(crate) fn make(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let above = match directory.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
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
