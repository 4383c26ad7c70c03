use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use storage::disk::Disk;
use storage::store::{Entry, Time};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// The replica whose files they are.
const ID: u32 = 1;

/// What is known of a replica: the files of its folder, by name.
type Files = BTreeMap<String, Vec<u8>>;

/// Files as they were left, and what was done to them: they are refused by their name and stay as
/// they are, or nothing is read that was not written, and they are written to as before.
pub(super) fn check(input: &[u8]) {
    let Some((image, damage)) = input.split_first() else {
        return;
    };
    let images = &*IMAGES;
    let mut files = images[usize::from(*image) % images.len()].clone();
    apply(damage, &mut files);
    let scratch = scratch();
    let folder = scratch.path().join("replica");
    write(&folder, &files);
    match Disk::<Entry>::open(&folder, ID) {
        Ok(disk) => runtime().block_on(use_it(disk, &folder)),
        Err(error) => {
            let text = error.to_string();
            let named = folder.display().to_string();
            assert!(text.contains(&named), "{text:?} does not name {named}");
            assert!(read(&folder) == files, "what was refused was changed");
        }
    }
}

/// Damage: where, and what is there instead.
fn apply(mut damage: &[u8], files: &mut Files) {
    while let [what, file, rest @ ..] = damage {
        let count = files.len();
        let Some(bytes) = files.values_mut().nth(usize::from(*file) % count.max(1)) else {
            return;
        };
        // Most of what a file has is at its beginning; three bytes reach all of it.
        let (at, rest) = match what >> 4 & 3 {
            0 | 1 => number(rest, 2),
            _ => number(rest, 3),
        };
        let at = at.min(bytes.len());
        let (value, rest) = number(rest, 1);
        let mut rest = rest;
        match what & 7 {
            // Some bytes are others.
            0..=2 => {
                let (new, more) = rest.split_at(value.min(rest.len()).min(64));
                for (byte, new) in bytes[at..].iter_mut().zip(new) {
                    *byte = *new;
                }
                rest = more;
            }
            // A bit is another.
            3 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << (value % 8);
                }
            }
            // The end is missing.
            4 => bytes.truncate(at),
            // A page is zero, or was never written.
            5 => {
                let end = bytes.len().min(at + value * 16);
                bytes[at..end].fill(0);
            }
            // A piece stands at another place, too.
            6 => {
                let (from, more) = number(rest, 3);
                rest = more;
                let from = from.min(bytes.len());
                let len = (value * 16).min(bytes.len() - from).min(bytes.len() - at);
                bytes.copy_within(from..from + len, at);
            }
            // Nothing of ours: all that is left is the file.
            _ => {
                *bytes = rest.to_vec();
                return;
            }
        }
        damage = rest;
    }
}

/// A number of so many bytes.
fn number(bytes: &[u8], len: usize) -> (usize, &[u8]) {
    let (number, rest) = bytes.split_at(len.min(bytes.len()));
    let number = number.iter().rev();
    (
        number.fold(0, |number, byte| number << 8 | usize::from(*byte)),
        rest,
    )
}

/// A file that was opened can be read and written.
async fn use_it(disk: Disk, folder: &Path) {
    for key in KEYS {
        let coming = match disk.read(key.to_owned()).await {
            Ok(coming) => coming,
            Err(status) => return assert_named(status.message()),
        };
        match coming.result().await {
            Ok(None) => {}
            Ok(Some(entry)) => {
                let written = (0..VERSIONS).map(|version| self::entry(key, version));
                assert!(
                    written.into_iter().any(|known| known == entry),
                    "{key}: {entry:?}"
                );
            }
            Err(status) => return assert_named(status.message()),
        }
    }
    let new = Entry {
        value: "new".to_owned(),
        time: Time::from_parts(i64::MAX, 0),
    };
    let written = disk.write("new".to_owned(), new.clone()).await;
    let taken = match written {
        Ok(coming) => coming.result().await,
        Err(status) => Err(status),
    };
    match taken {
        Ok(taken) => assert!(taken, "it is the newest"),
        Err(status) => return assert_named(status.message()),
    }
    disk.close().await;
    let disk = Disk::<Entry>::open(folder, ID).expect("it was open");
    let coming = disk.read("new".to_owned()).await.expect("it is open");
    let found = coming.result().await.expect("it was written");
    assert_eq!(found, Some(new));
    disk.close().await;
}

fn assert_named(message: &str) {
    assert!(message.contains(&format!("replica {ID}")), "{message:?}");
}

/// What the files of the images have.
const KEYS: [&str; 6] = ["", "a", "b", "key", "a longer key than all others", "new"];

/// How often each is written.
const VERSIONS: usize = 4;

fn entry(key: &str, version: usize) -> Entry {
    Entry {
        // Some take more than a page.
        value: format!("{key} {version} ").repeat(1 + version * 200),
        time: Time::from_parts(version as i64, 0),
    }
}

/// Files of a replica that was closed after one write and after all of them, and of one that was not
/// closed.
static IMAGES: LazyLock<Vec<Files>> = LazyLock::new(|| {
    runtime().block_on(async {
        vec![
            image(1, true).await,
            image(VERSIONS, true).await,
            image(VERSIONS, false).await,
        ]
    })
});

async fn image(versions: usize, is_closed: bool) -> Files {
    let scratch = scratch();
    let disk = Disk::open(scratch.path(), ID).expect("an empty folder");
    for version in 0..versions {
        for key in &KEYS[..KEYS.len() - 1] {
            let written = disk.write((*key).to_owned(), entry(key, version)).await;
            let coming = written.expect("it is open");
            assert!(coming.result().await.expect("the disk works"));
        }
    }
    if is_closed {
        disk.close().await;
        return read(scratch.path());
    }
    let files = read(scratch.path());
    disk.close().await;
    files
}

/// In memory where the system has that: files are synced.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    made.expect("a folder for temporary files")
}

fn read(folder: &Path) -> Files {
    let entries = fs::read_dir(folder).expect("a folder");
    let files = entries.map(|entry| {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("it has one").to_string_lossy();
        (name.into_owned(), fs::read(&path).expect("a file"))
    });
    files.collect()
}

fn write(folder: &Path, files: &Files) {
    fs::create_dir_all(folder).expect("a folder");
    for (name, bytes) in files {
        fs::write(folder.join(name), bytes).expect("there is room");
    }
}

fn runtime() -> Runtime {
    let runtime = Builder::new_current_thread().build();
    runtime.expect("it needs nothing of the system")
}
