//! Which call of which client a request is of, and what a service has answered.

use std::collections::BTreeMap;

/// Names a call of a client: what the client sends again has the same one, on another connection and
/// to a server that was started anew as well.
///
/// Of clients with [sessions](crate::ConfigurationBuilder::sessions), as
/// [`ServerCtx::keyed_call`](crate::ServerCtx::keyed_call) has it. All nodes of a quorum call are told
/// the same key. A client that was started anew is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallKey {
    client: u128,
    call: u64,
}

impl CallKey {
    /// The key of this call of this client, as [`client`](Self::client) and [`call`](Self::call) have
    /// told them: for a service that has kept both on disk.
    #[must_use]
    pub fn new(client: u128, call: u64) -> Self {
        Self { client, call }
    }

    /// A number that no other client has.
    #[must_use]
    pub fn client(self) -> u128 {
        self.client
    }

    /// A number that no other call of the client has. Later calls have higher ones, as far as one is
    /// later than the other.
    #[must_use]
    pub fn call(self) -> u64 {
        self.call
    }
}

/// A call of a client, as [`ServerCtx::keyed_call`](crate::ServerCtx::keyed_call) has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyedCall {
    /// Its name.
    pub key: CallKey,
    /// Whether the client has sent it before, and has not heard what became of it: the service may have
    /// answered it. A service need not ask where it keeps all answers.
    pub is_resent: bool,
}

impl KeyedCall {
    /// A call that is sent for the first time.
    #[must_use]
    pub fn first(key: CallKey) -> Self {
        Self {
            key,
            is_resent: false,
        }
    }

    /// A call that is sent again.
    #[must_use]
    pub fn resent(key: CallKey) -> Self {
        Self {
            key,
            is_resent: true,
        }
    }
}

/// What a service has answered to the calls of its clients, so that each is handled once although it
/// is sent again to a server that was started anew.
///
/// A service keeps the key with the effect of a call and its answer, in one transaction: then a call
/// has either had its effect and is here, or has had none. It makes this anew from what it has kept
/// when it starts. Its methods are declared as `IDEMPOTENT` then, since they are: so clients
/// [send them again](crate::call::Rpc::idempotent) when they have lost their sessions with the server.
///
/// ```
/// use gorums::server::{Answered, AnsweredCalls};
/// use gorums::{ServerCtx, Status};
///
/// struct Counter {
///     count: u64,
///     answered: AnsweredCalls<u64>,
/// }
///
/// impl Counter {
///     fn add(&mut self, ctx: &ServerCtx) -> Result<u64, Status> {
///         let call = ctx.keyed_call();
///         match call.map_or(Answered::No, |call| self.answered.find(call)) {
///             Answered::Yes(count) => return Ok(*count),
///             Answered::Forgotten => return Err(Status::aborted("it may have been counted")),
///             Answered::No => {}
///         }
///         self.count += 1;
///         // Here a service would write the count, the key and the answer, in one transaction.
///         if let Some(call) = call {
///             self.answered.insert(call.key, self.count);
///         }
///         Ok(self.count)
///     }
/// }
/// ```
///
/// It is bounded: of each client the answers to so many calls are kept, and of so many clients. The
/// oldest go, those of the client that was answered the longest time ago. What is sent again is
/// [forgotten](Answered::Forgotten) where its answer may have gone, and is not taken for new: a call as
/// old as one of which the answer has gone; and, as soon as a client has gone, any call that is
/// [sent again](KeyedCall::is_resent) by a client that is not here, or came after that. What such a client
/// sends for the first time is handled. So with fewer places than there are clients no call is handled twice, and
/// some have an unknown outcome of which the first answer was lost.
#[derive(Debug, Clone)]
pub struct AnsweredCalls<R> {
    calls_of_client: usize,
    max_clients: usize,
    clients: BTreeMap<u128, Answers<R>>,
    /// The clients, those first that were answered the longest time ago.
    by_use: BTreeMap<u64, u128>,
    uses: u64,
    has_forgotten_clients: bool,
}

#[derive(Debug, Clone)]
struct Answers<R> {
    answers: BTreeMap<u64, R>,
    /// Answers to calls up to this have gone.
    forgotten: Option<u64>,
    /// Others may have gone, with an earlier entry of the client.
    may_have_had_more: bool,
    used: u64,
}

/// What is known of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered<R> {
    /// It was not answered.
    No,
    /// It was, by this.
    Yes(R),
    /// It may have been: what was answered to calls as old as this one has gone, or to those of its
    /// client.
    Forgotten,
}

impl<R> AnsweredCalls<R> {
    /// Keeps the answers to so many calls of each client, and to those of so many clients; one of each
    /// at the least.
    #[must_use]
    pub fn new(calls_of_client: usize, max_clients: usize) -> Self {
        Self {
            calls_of_client: calls_of_client.max(1),
            max_clients: max_clients.max(1),
            clients: BTreeMap::new(),
            by_use: BTreeMap::new(),
            uses: 0,
            has_forgotten_clients: false,
        }
    }

    /// Whether the answers of clients have gone, since there were too many others.
    ///
    /// A service keeps this with the answers, and [says](Self::forget_clients) it where it makes this
    /// anew, before it puts the answers in.
    #[must_use]
    pub fn has_forgotten_clients(&self) -> bool {
        self.has_forgotten_clients
    }

    /// Answers of clients have gone before this was made.
    pub fn forget_clients(&mut self) {
        self.has_forgotten_clients = true;
    }

    /// What is known of this call.
    #[must_use]
    pub fn find(&self, call: KeyedCall) -> Answered<&R> {
        let KeyedCall { key, is_resent } = call;
        let Some(client) = self.clients.get(&key.client) else {
            return match self.has_forgotten_clients && is_resent {
                true => Answered::Forgotten,
                false => Answered::No,
            };
        };
        match client.answers.get(&key.call) {
            Some(answer) => Answered::Yes(answer),
            None if client.forgotten.is_some_and(|last| key.call <= last) => Answered::Forgotten,
            None if client.may_have_had_more && is_resent => Answered::Forgotten,
            None => Answered::No,
        }
    }

    /// A call was answered by this.
    pub fn insert(&mut self, key: CallKey, answer: R) {
        self.uses += 1;
        let client = self.clients.entry(key.client).or_insert_with(|| Answers {
            answers: BTreeMap::new(),
            forgotten: None,
            may_have_had_more: self.has_forgotten_clients,
            used: 0,
        });
        self.by_use.remove(&client.used);
        client.used = self.uses;
        self.by_use.insert(self.uses, key.client);
        client.answers.insert(key.call, answer);
        if client.answers.len() > self.calls_of_client
            && let Some((oldest, _)) = client.answers.pop_first()
        {
            client.forgotten = client.forgotten.max(Some(oldest));
        }
        if self.clients.len() > self.max_clients
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.clients.remove(&oldest);
            self.has_forgotten_clients = true;
        }
    }
}

impl<R> Default for AnsweredCalls<R> {
    /// With 1,024 calls of each of 65,536 clients.
    fn default() -> Self {
        Self::new(1024, 64 * 1024)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_found_until_they_are_the_oldest_of_their_client() {
        let mut answered = AnsweredCalls::new(2, 2);
        let key = CallKey::new;
        let call = |client, call| KeyedCall::resent(key(client, call));
        assert_eq!(answered.find(call(1, 1)), Answered::No);
        for number in 1..=3 {
            answered.insert(key(1, number), number * 10);
        }
        assert_eq!(answered.find(call(1, 1)), Answered::Forgotten);
        assert_eq!(answered.find(call(1, 2)), Answered::Yes(&20));
        assert_eq!(answered.find(call(1, 3)), Answered::Yes(&30));
        assert_eq!(answered.find(call(1, 4)), Answered::No);
        assert_eq!(answered.find(call(2, 1)), Answered::No);
        // An answer that comes late does not bring back older ones.
        answered.insert(key(1, 1), 11);
        assert_eq!(answered.find(call(1, 1)), Answered::Forgotten);
    }

    #[test]
    fn the_client_goes_that_was_answered_the_longest_time_ago() {
        let mut answered = AnsweredCalls::new(0, 2);
        let key = CallKey::new;
        for client in [1, 2, 1, 3] {
            assert!(!answered.has_forgotten_clients());
            answered.insert(key(client, 7), client);
        }
        assert!(answered.has_forgotten_clients());
        let call = KeyedCall::first;
        assert_eq!(answered.find(call(key(1, 7))), Answered::Yes(&1));
        assert_eq!(answered.find(call(key(3, 7))), Answered::Yes(&3));
        assert_eq!((answered.clients.len(), answered.by_use.len()), (2, 2));
    }

    #[test]
    fn what_a_client_that_has_gone_sends_again_is_not_taken_for_new() {
        let key = CallKey::new;
        let mut answered = AnsweredCalls::new(1, 1);
        answered.insert(key(1, 7), ());
        assert_eq!(answered.find(KeyedCall::resent(key(2, 7))), Answered::No);
        answered.insert(key(2, 7), ());
        let mut made_anew = AnsweredCalls::new(1, 1);
        made_anew.forget_clients();
        made_anew.insert(key(2, 7), ());
        for (answered, of_known) in [(answered, Answered::No), (made_anew, Answered::Forgotten)] {
            let find = |call| answered.find(call);
            assert_eq!(find(KeyedCall::resent(key(1, 7))), Answered::Forgotten);
            assert_eq!(find(KeyedCall::first(key(1, 8))), Answered::No);
            assert_eq!(find(KeyedCall::resent(key(2, 8))), of_known);
        }
    }

    #[test]
    fn a_client_that_comes_back_may_have_had_answers_before() {
        let key = CallKey::new;
        let mut answered = AnsweredCalls::new(8, 1);
        answered.insert(key(1, 7), ());
        answered.insert(key(2, 7), ());
        answered.insert(key(1, 9), ());
        let find = |call| answered.find(call);
        assert_eq!(find(KeyedCall::resent(key(1, 7))), Answered::Forgotten);
        assert_eq!(find(KeyedCall::resent(key(1, 9))), Answered::Yes(&()));
        assert_eq!(find(KeyedCall::first(key(1, 8))), Answered::No);
    }
}
