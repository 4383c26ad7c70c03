//! What the pages of a file were when they were last read or written.

use std::{fmt, io};

/// How many bytes have a checksum of their own.
pub(super) const PAGE: u64 = 4096;

/// A checksum for each page that is known, by which one that a disk gives back otherwise is found.
///
/// redb has checksums in the file and looks at them when it opens it, and not at each read. These
/// are in memory, take eight bytes for each page of the file, and are looked at each time.
#[derive(Debug, Default)]
pub(super) struct Sums(Vec<Option<u32>>);

impl Sums {
    /// Remembers what is there from now on. Of a page that this has in part, nothing is known then.
    pub(super) fn set(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        let pages = end.div_ceil(PAGE) as usize;
        if self.0.len() < pages {
            self.0.resize(pages, None);
        }
        for page in offset / PAGE..end.div_ceil(PAGE) {
            self.0[page as usize] = within(page, offset, bytes).map(crc32fast::hash);
        }
    }

    /// Compares what was read with what is known, and remembers the rest.
    pub(super) fn check(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DamagedPage> {
        for page in offset.div_ceil(PAGE)..(offset + bytes.len() as u64) / PAGE {
            let Some(whole) = within(page, offset, bytes) else {
                continue;
            };
            let known = self.0.get(page as usize).copied().flatten();
            match known {
                None => self.set(page * PAGE, whole),
                Some(known) if known != crc32fast::hash(whole) => {
                    let offset = page * PAGE;
                    return Err(DamagedPage { offset });
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Forgets what is behind the end of a file of this length.
    pub(super) fn truncate(&mut self, len: u64) {
        self.0.truncate((len / PAGE) as usize);
    }

    /// Whether something is known of a page.
    pub(super) fn knows(&self, page: u64) -> bool {
        self.0.get(page as usize).is_some_and(Option::is_some)
    }
}

/// The bytes of a page, where all of it is among these.
fn within(page: u64, offset: u64, bytes: &[u8]) -> Option<&[u8]> {
    let start = (page * PAGE).checked_sub(offset)? as usize;
    bytes.get(start..start + PAGE as usize)
}

/// A page that is not as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DamagedPage {
    pub(super) offset: u64,
}

impl fmt::Display for DamagedPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset } = self;
        write!(
            f,
            "the {PAGE} bytes at offset {offset} are not as they were written"
        )
    }
}

impl std::error::Error for DamagedPage {}

impl From<DamagedPage> for io::Error {
    fn from(damaged: DamagedPage) -> Self {
        Self::new(io::ErrorKind::InvalidData, damaged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(numbers: &[u8]) -> Vec<u8> {
        let page = |number: &u8| vec![*number; PAGE as usize];
        numbers.iter().flat_map(page).collect()
    }

    #[test]
    fn a_page_is_compared_with_what_was_last_read_or_written_there() {
        let mut sums = Sums::default();
        assert_eq!(sums.check(0, &pages(&[1, 2, 3])), Ok(()));
        assert_eq!(sums.check(PAGE, &pages(&[2])), Ok(()));
        let damaged = DamagedPage { offset: 2 * PAGE };
        assert_eq!(sums.check(PAGE, &pages(&[2, 4])), Err(damaged));
        sums.set(2 * PAGE, &pages(&[4]));
        assert_eq!(sums.check(0, &pages(&[1, 2, 4])), Ok(()));
        // Of a page that was written in part, nothing is known before it is read again.
        sums.set(PAGE + 1, &[9; 10]);
        assert!(!sums.knows(1));
        assert_eq!(sums.check(PAGE, &pages(&[7])), Ok(()));
        let damaged = DamagedPage { offset: PAGE };
        assert_eq!(sums.check(PAGE, &pages(&[8])), Err(damaged));
        // Nor of what was cut off.
        sums.truncate(2 * PAGE + 5);
        assert!(sums.knows(1) && !sums.knows(2));
        assert_eq!(sums.check(0, &pages(&[1, 7, 3])), Ok(()));
    }
}
