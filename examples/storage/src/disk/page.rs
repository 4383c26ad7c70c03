//! All that is on a disk, page by page.

use super::room::Place;
use super::{Answer, Coming, Disk, READ_BYTES, Record, Reply, Request};
use gorums::Status;

/// How many bytes of records a page has, unless it is a single one.
const PAGE_BYTES: usize = 128 << 10;

/// How many records a page has.
const PAGE_RECORDS: usize = 512;

/// Some records of a disk, in the order of their keys.
#[derive(Debug)]
pub struct Page<E> {
    /// Each with its key.
    pub records: Vec<(String, E)>,
    /// Nothing is behind them.
    pub is_last: bool,
}

impl<E: Record> Page<E> {
    /// A page of those that come first. Not more of them are looked at than it has, and one.
    ///
    /// # Errors
    ///
    /// The first that there is among them.
    pub fn of<X>(records: impl IntoIterator<Item = Result<(String, E), X>>) -> Result<Self, X> {
        let mut page = Self {
            records: Vec::new(),
            is_last: true,
        };
        let mut bytes = 0;
        for record in records {
            let (key, record) = record?;
            bytes += key.len() + record.size();
            let is_full = bytes > PAGE_BYTES || page.records.len() == PAGE_RECORDS;
            if is_full && !page.records.is_empty() {
                page.is_last = false;
                break;
            }
            page.records.push((key, record));
        }
        Ok(page)
    }
}

/// A page that was asked for.
#[derive(Debug)]
pub(super) struct Paging<E> {
    /// The key behind which it begins.
    pub(super) after: Option<String>,
    reply: Reply<Page<E>>,
    /// Where it is counted until it is taken.
    place: Place,
}

impl<E> Paging<E> {
    pub(super) fn give(self, page: Page<E>) {
        let answer = Answer {
            result: page,
            _place: Some(self.place),
        };
        // Whoever has asked may have gone.
        drop(self.reply.send(Ok(answer)));
    }
}

impl<E: Record> Disk<E> {
    /// The records behind this key, or the first ones. They come when all that was asked before is
    /// on disk, and what is written from then on is not among them.
    ///
    /// # Errors
    ///
    /// When the disk has failed or is closed.
    pub async fn page(&self, after: Option<String>) -> Result<Coming<Page<E>, E>, Status> {
        // As much as a page has, and its key.
        let place = self.room.take(READ_BYTES).await;
        let page = |reply| {
            Request::Page(Paging {
                after,
                reply,
                place,
            })
        };
        self.ask(page).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Entry, Time};

    fn record(number: usize, bytes: usize) -> Result<(String, Entry), &'static str> {
        let value = "v".repeat(bytes);
        let time = Time::default();
        Ok((format!("{number:05}"), Entry { value, time }))
    }

    #[test]
    fn a_page_ends_at_its_bounds_and_has_one_record_at_least() {
        let few = Page::of((0..3).map(|number| record(number, 10))).expect("no error");
        assert_eq!((few.records.len(), few.is_last), (3, true));
        let many = Page::of((0..10_000).map(|number| record(number, 10))).expect("no error");
        assert_eq!((many.records.len(), many.is_last), (PAGE_RECORDS, false));
        let large = Page::of((0..9).map(|number| record(number, 50 << 10))).expect("no error");
        assert_eq!((large.records.len(), large.is_last), (2, false));
        let huge = Page::of((0..2).map(|number| record(number, 1 << 20))).expect("no error");
        assert_eq!((huge.records.len(), huge.is_last), (1, false));
        let none = Page::<Entry>::of([] as [Result<_, &str>; 0]).expect("no error");
        assert!(none.records.is_empty() && none.is_last);
        let failed = Page::of([record(1, 1), Err("it is broken")]);
        assert_eq!(failed.expect_err("an error"), "it is broken");
    }
}
