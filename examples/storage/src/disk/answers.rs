//! What was answered to calls, kept in the file beside the records.

use gorums::server::{Answered, CallKey, KeyedCall};
use redb::{
    ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition,
    TableError, WriteTransaction,
};

use super::error::FileError;

/// Of each client the answers to so many calls are kept.
pub const CALLS_OF_CLIENT: usize = 1024;

/// Of so many clients answers are kept.
pub const CLIENTS: usize = 1024;

/// The answers, by client and call.
const ANSWERS: TableDefinition<'static, (u128, u64), &[u8]> = TableDefinition::new("answers");

/// Of each client: when it was last answered, how many answers there are, and up to which call
/// answers have gone.
const OF_CLIENTS: TableDefinition<'static, u128, (u64, u64, Option<u64>)> =
    TableDefinition::new("answers of clients");

/// The clients by when they were last answered, in a count of its own.
const BY_USE: TableDefinition<'static, u64, u128> = TableDefinition::new("answers by use");

/// How many clients have gone with their answers, once there has been one.
const FORGOTTEN: TableDefinition<'static, (), u64> = TableDefinition::new("clients forgotten");

/// The clients of which answers may have gone before the first that is here: those that came when others
/// had gone.
const CAME_LATER: TableDefinition<'static, u128, ()> =
    TableDefinition::new("clients that came later");

/// What was committed of answers, for reading.
pub(super) struct Answers {
    answers: ReadOnlyTable<(u128, u64), &'static [u8]>,
    clients: ReadOnlyTable<u128, (u64, u64, Option<u64>)>,
    has_forgotten_clients: bool,
    /// None where no client has gone.
    came_later: Option<ReadOnlyTable<u128, ()>>,
}

impl Answers {
    /// None in a file in which none was ever kept, as in those from before there were any.
    pub(super) fn of(transaction: &ReadTransaction) -> Result<Option<Self>, FileError> {
        let answers = match transaction.open_table(ANSWERS) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            opened => opened?,
        };
        let clients = transaction.open_table(OF_CLIENTS)?;
        let has_forgotten_clients = match transaction.open_table(FORGOTTEN) {
            Err(TableError::TableDoesNotExist(_)) => false,
            opened => !opened?.is_empty()?,
        };
        let came_later = match transaction.open_table(CAME_LATER) {
            Err(TableError::TableDoesNotExist(_)) => None,
            opened => Some(opened?),
        };
        Ok(Some(Self {
            answers,
            clients,
            has_forgotten_clients,
            came_later,
        }))
    }

    /// How many there are.
    pub(super) fn count(&self) -> Result<u64, FileError> {
        Ok(self.answers.len()?)
    }

    /// What is known of a call, as [`AnsweredCalls`](gorums::server::AnsweredCalls) would have it.
    pub(super) fn find(&self, call: KeyedCall) -> Result<Answered<Vec<u8>>, FileError> {
        let KeyedCall { key, is_resent, .. } = call;
        if let Some(answer) = self.answers.get((key.client(), key.call()))? {
            return Ok(Answered::Yes(answer.value().to_owned()));
        }
        let is_forgotten = match self.clients.get(key.client())? {
            Some(client) if client.value().2.is_some_and(|last| key.call() <= last) => true,
            Some(_) => is_resent && self.came_later(key.client())?,
            None => self.has_forgotten_clients && is_resent,
        };
        Ok(match is_forgotten {
            true => Answered::Forgotten,
            false => Answered::No,
        })
    }
}

impl Answers {
    /// Whether answers to this client may have gone, with an earlier entry of it.
    fn came_later(&self, client: u128) -> Result<bool, FileError> {
        Ok(match &self.came_later {
            Some(clients) => clients.get(client)?.is_some(),
            None => false,
        })
    }
}

/// Keeps answers, and lets go of the oldest where there are too many then.
pub(super) fn keep(
    transaction: &WriteTransaction,
    answers: &[(CallKey, &[u8])],
) -> Result<(), FileError> {
    if answers.is_empty() {
        return Ok(());
    }
    let mut kept = transaction.open_table(ANSWERS)?;
    let mut clients = transaction.open_table(OF_CLIENTS)?;
    let mut by_use = transaction.open_table(BY_USE)?;
    for of_client in answers.chunk_by(|one, other| one.0.client() == other.0.client()) {
        let client = of_client[0].0.client();
        let known = clients.get(client)?.map(|known| known.value());
        let (used, mut count, mut forgotten) = known.unwrap_or_default();
        if known.is_none() && !transaction.open_table(FORGOTTEN)?.is_empty()? {
            let mut came_later = transaction.open_table(CAME_LATER)?;
            came_later.insert(client, ())?;
        }
        for (call, answer) in of_client {
            let before = kept.insert((client, call.call()), *answer)?;
            count += u64::from(before.is_none());
        }
        while count > CALLS_OF_CLIENT as u64 {
            let oldest = kept.range((client, 0)..=(client, u64::MAX))?.next();
            let Some(oldest) = oldest.transpose()?.map(|(key, _)| key.value()) else {
                break;
            };
            kept.remove(oldest)?;
            forgotten = forgotten.max(Some(oldest.1));
            count -= 1;
        }
        if known.is_some() {
            by_use.remove(used)?;
        }
        let last = by_use.last()?.map(|(used, _)| used.value());
        let used = last.map_or(0, |last| last + 1);
        by_use.insert(used, client)?;
        clients.insert(client, (used, count, forgotten))?;
    }
    while clients.len()? > CLIENTS as u64 {
        let Some(oldest) = by_use.pop_first()?.map(|(_, client)| client.value()) else {
            break;
        };
        let mut forgotten = transaction.open_table(FORGOTTEN)?;
        let before = forgotten.get(())?.map_or(0, |before| before.value());
        forgotten.insert((), before + 1)?;
        transaction.open_table(CAME_LATER)?.remove(oldest)?;
        clients.remove(oldest)?;
        kept.retain_in((oldest, 0)..=(oldest, u64::MAX), |_, _| false)?;
    }
    Ok(())
}
