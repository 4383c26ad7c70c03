//! What a request changes, and how its call is answered.

use std::fmt;

use gorums::Status;
use gorums::server::KeyedCall;
use prost::Message;
use tokio::sync::oneshot;

use super::room::Place;
use super::{Answer, Coming, Disk, Record, Request};

/// How long an answer may be, in bytes of its message. All that are kept have to fit on the disk.
pub const ANSWER: usize = 1024;

/// What comes of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed<E, T> {
    /// These take the place of whatever is there for their keys.
    pub records: Vec<(String, E)>,
    /// The answer: a message, of which [so many](ANSWER) bytes are kept at most.
    pub answer: T,
}

type Work<E> = dyn FnOnce(Option<&E>) -> Result<Changed<E, Vec<u8>>, Status> + Send;

type Give = dyn FnOnce(Result<&[u8], Status>) + Send;

/// A change that somebody waits for.
pub(super) struct Change<E> {
    /// It depends on what is there for this key.
    pub(super) key: String,
    pub(super) call: Option<KeyedCall>,
    pub(super) work: Box<Work<E>>,
    pub(super) giving: Giving,
}

/// The way of an answer to who waits for it. Dropped where the disk fails before that.
pub(super) struct Giving {
    give: Box<Give>,
    /// Where the bytes of the request are counted while they are here.
    _place: Place,
}

impl Giving {
    pub(super) fn give(self, answer: Result<&[u8], Status>) {
        (self.give)(answer);
    }
}

impl<E> fmt::Debug for Change<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Change")
            .field("key", &self.key)
            .field("call", &self.call)
            .finish_non_exhaustive()
    }
}

impl<E: Record> Disk<E> {
    /// Takes a value if it is newer. Whether it was taken comes when it is on disk.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read).
    pub async fn write(&self, key: String, record: E) -> Result<Coming<bool, E>, Status> {
        self.write_once(None, key, record).await
    }

    /// The same for a call: its answer is kept with the value, so that the call is answered by it when
    /// it comes again, and changes nothing then.
    ///
    /// # Errors
    ///
    /// As for [`change`](Self::change).
    pub async fn write_once(
        &self,
        call: Option<KeyedCall>,
        key: String,
        record: E,
    ) -> Result<Coming<bool, E>, Status> {
        let bytes = record.size();
        let take_newer = newer(&key, record);
        self.change(call, key, bytes, take_newer).await
    }

    /// Changes records by what is there for this key. All that was asked before has had its effect
    /// then, and nothing that is asked later. The answer comes when all of it is on disk.
    ///
    /// Where it is of a call, its answer is kept in the same commit, and the call is answered by it when
    /// it comes again, over a restart as well: nothing is changed a second time. A change that fails is
    /// not kept, since it has changed nothing. Of each client [so many](super::CALLS_OF_CLIENT) answers
    /// are kept, and of [so many](super::CLIENTS) clients; the oldest go. `bytes` is how much it holds,
    /// about.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read). What comes may fail with `Aborted`, where the call is so old that
    /// what it was answered has gone: it may have had its effect. So does one that is sent again by a
    /// client of which nothing is kept any more, since so many others were answered after it.
    pub async fn change<T: Message + Default + 'static>(
        &self,
        call: Option<KeyedCall>,
        key: String,
        bytes: usize,
        change: impl FnOnce(Option<&E>) -> Result<Changed<E, T>, Status> + Send + 'static,
    ) -> Result<Coming<T, E>, Status> {
        let place = self.room.take(key.len() + bytes).await;
        self.ask(|reply| {
            Request::Change(Change {
                key,
                call,
                work: Box::new(move |known| encoded(change(known)?)),
                giving: Giving {
                    give: Box::new(move |answer| give(reply, answer)),
                    _place: place,
                },
            })
        })
        .await
    }
}

/// Takes a value if it is newer than what is there. The answer is whether it is.
pub(crate) fn newer<E: Record>(
    key: &str,
    record: E,
) -> impl FnOnce(Option<&E>) -> Result<Changed<E, bool>, Status> + use<E> {
    let key = key.to_owned();
    move |known| {
        let answer = record.is_newer_than(known);
        let records = match answer {
            true => vec![(key, record)],
            false => Vec::new(),
        };
        Ok(Changed { records, answer })
    }
}

/// A change with its answer as it is kept.
pub(crate) fn encoded<E, T: Message>(
    changed: Changed<E, T>,
) -> Result<Changed<E, Vec<u8>>, Status> {
    let Changed { records, answer } = changed;
    let answer = answer.encode_to_vec();
    if answer.len() > ANSWER {
        let (has, most) = (answer.len(), ANSWER);
        let text = format!("the answer has {has} bytes, and {most} are kept at most");
        return Err(Status::internal(text));
    }
    Ok(Changed { records, answer })
}

/// An answer as it was kept.
pub(crate) fn decoded<T: Message + Default>(answer: &[u8]) -> Result<T, Status> {
    let other = |_| Status::invalid_argument("this call was another one when it was answered");
    T::decode(answer).map_err(other)
}

/// What a call is told whose answer has gone.
pub(crate) fn forgotten() -> Status {
    Status::aborted(
        "this call may have had its effect: what was answered to calls of this client, or to those as old as \
         this one, is not kept any more",
    )
}

fn give<T: Message + Default>(
    reply: oneshot::Sender<Result<Answer<T>, Status>>,
    answer: Result<&[u8], Status>,
) {
    let answer = answer.and_then(decoded).map(|result| Answer {
        result,
        _place: None,
    });
    // Nobody waits for the result of a one-way message.
    drop(reply.send(answer));
}
