//! How redb divides a file, as far as it does not check that by itself.

use redb::StorageBackend;

use super::error::{FileError, damaged};
use super::held::Held;
use crate::planted::{Bug, Planted};

/// How redb divides a file: the size of a page, and how many pages of a region are its header and
/// its data.
const LAYOUT: [u32; 3] = [4096, 130, 1 << 20];

/// Where these are in the file, and behind them how many regions are full, and how many pages the
/// last one has.
const LAYOUT_AT: u64 = 12;

/// Looks at the part of the header that no checksum covers, and by which redb goes: with some other
/// values there it neither opens the file nor refuses it.
///
/// A file may be shorter than its header says, where the power was lost while it grew: a disk may
/// keep the header and lose the length, and with it nothing that was committed. Then it gets the
/// length, in memory as yet, and its checksums say whether it is whole.
pub(super) fn extend_to_layout(file: &Held, planted: Planted<Bug>) -> Result<(), FileError> {
    let bytes = file.read(LAYOUT_AT, 20)?;
    let mut fields = bytes.chunks_exact(4).map(|field| {
        let number = field.iter().rev();
        number.fold(0, |number, byte| number << 8 | u64::from(*byte))
    });
    let layout: Vec<u64> = fields.by_ref().take(3).collect();
    if layout != LAYOUT.map(u64::from) {
        return Err(damaged("its header does not say how it is divided"));
    }
    let [page, header, data] = LAYOUT.map(u64::from);
    let (full, last) = (fields.next().unwrap_or(0), fields.next().unwrap_or(0));
    let last_region = if last == 0 { 0 } else { header + last };
    // The file's own first page, and the regions. After a crash there may be more of it.
    let pages = 1 + full * (header + data) + last_region;
    let (needed, has) = (pages.saturating_mul(page), file.len()?);
    // redb makes a file twice as large when it grows, or larger by a region.
    let most = has
        .saturating_mul(2)
        .max(has.saturating_add((header + data) * page));
    if last > data || needed > most {
        return Err(damaged("it is much shorter than its header says"));
    }
    if needed > has {
        if planted.is(Bug::UnsyncedGrowth) {
            return Err(damaged("it is shorter than its header says"));
        }
        file.set_len(needed)?;
    }
    Ok(())
}
