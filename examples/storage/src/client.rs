//! What a client does: it dates what it writes, and takes the newest of what it reads.

use gorums::{QuorumError, Replies};

use crate::proto::storage_client::StorageClient;
use crate::proto::{ReadRequest, ReadResponse, WriteRequest, WriteResponse};
use crate::rejoin::count_together;
use crate::store::{Entry, Time, Times};

/// A client of the replicas of a configuration.
///
/// Its calls are queued in the order of the method calls, before anything is awaited.
#[derive(Debug)]
pub struct Client {
    storage: StorageClient,
    times: Times,
}

/// A write that a majority has answered.
#[derive(Debug)]
pub struct Written {
    /// The time that it was given.
    pub time: Time,
    /// What the replicas answered.
    pub replies: Replies<WriteResponse>,
}

impl Client {
    /// A client that calls these replicas, and dates its writes so.
    pub fn new(storage: StorageClient, times: Times) -> Self {
        Self { storage, times }
    }

    /// The calls that it makes, of which it offers but two.
    pub fn storage(&self) -> &StorageClient {
        &self.storage
    }

    /// A write with the next time of this client's clock, for any of the writing calls.
    pub fn request(&mut self, key: impl Into<String>, value: impl Into<String>) -> WriteRequest {
        WriteRequest {
            key: key.into(),
            value: value.into(),
            time: Some(self.times.next().to_wire()),
        }
    }

    /// Writes to a majority.
    ///
    /// # Errors
    ///
    /// Where no majority answers. The value may be written nevertheless, now or later.
    pub fn write(
        &mut self,
        key: &str,
        value: &str,
    ) -> impl Future<Output = Result<Written, QuorumError>> + Send + use<> {
        let request = self.request(key, value);
        let time = Time::from_wire(request.time);
        let replies = self.storage.write_qc(request).majority().replies();
        async move {
            let replies = replies.await?;
            Ok(Written { time, replies })
        }
    }

    /// Reads the newest value of a majority. `None` where none of it has one.
    ///
    /// # Errors
    ///
    /// Where no majority answers.
    pub fn read(
        &self,
        key: &str,
    ) -> impl Future<Output = Result<Option<Entry>, QuorumError>> + Send + use<> {
        let request = ReadRequest { key: key.into() };
        let replies = self.storage.read_qc(request).majority().replies();
        async move { Ok(newest(replies.await?.values()).cloned().and_then(entry)) }
    }
}

impl Written {
    /// Whether all that answered took it, and [have it](Self::is_kept). Then every read of a majority
    /// that begins from now on returns this value or one with a later time. Otherwise some replica has
    /// a value that is newer by its time, perhaps of a client whose clock is ahead.
    pub fn is_new(&self) -> bool {
        self.is_kept() && self.replies.values().all(|reply| reply.new)
    }

    /// Whether their answers [count together](count_together). Otherwise one of them has lost its
    /// data while this was written, and may have got them again without the value.
    pub fn is_kept(&self) -> bool {
        count_together(self.replies.values().map(|reply| reply.standing.as_ref()))
    }
}

/// Orders answers: one without a value is older than any with one.
pub fn version(response: &ReadResponse) -> Option<Time> {
    response.ok.then(|| Time::from_wire(response.time))
}

/// The newest of several answers; none if there are none.
pub fn newest<'a>(
    responses: impl IntoIterator<Item = &'a ReadResponse>,
) -> Option<&'a ReadResponse> {
    responses
        .into_iter()
        .max_by_key(|response| version(response))
}

/// The value of an answer, if it has one.
fn entry(response: ReadResponse) -> Option<Entry> {
    let time = version(&response)?;
    let value = response.value;
    Some(Entry { value, time })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_is_older_than_any() {
        let response = |ok, time| ReadResponse {
            ok,
            value: String::new(),
            time,
        };
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let nothing = version(&response(false, None));
        let timeless = version(&response(true, None));
        let ancient = version(&response(true, at(-1)));
        let recent = version(&response(true, at(1)));
        assert!(nothing < ancient && ancient < timeless && timeless < recent);
    }
}
