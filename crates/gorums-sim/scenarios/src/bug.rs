//! Mistakes that the simulation has to find.

use clap::ValueEnum;
use gorums_sim::Scenario;

use crate::peers::Streams;
use crate::{ledger, once, order, peers, register, store};

/// Mistakes that can be planted. They exist in this program only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Bug {
    /// Register: a read returns without having a majority take what it found
    NoWriteBack,
    /// Register: half of the replicas are taken for a quorum
    HalfQuorum,
    /// Register: versions have no writer, so that two writes may have the same
    NoWriterId,
    /// Register: a replica answers before what it has is durable
    ReplyBeforeDurable,
    /// Register: a replica releases its turn before it has given the request to its store
    ReleaseBeforeStore,
    /// Store: half of the replicas are taken for a quorum
    StoreHalfQuorum,
    /// Store: a replica's disk says that it has what it has not
    StoreReplyBeforeDurable,
    /// Store: a commit ends without its last sync
    StoreNoCommitSync,
    /// Store: the length of a growing file is not synced, and a file that is too short is refused
    StoreUnsyncedGrowth,
    /// Rejoin: a replica that has lost its data answers at once
    AnswersWithoutData,
    /// Rejoin: a replica that has lost its data counts as one from whom others get theirs
    CountsWhoHasNoData,
    /// Store, rejoin: a replica that has lost its data answers at once
    StoreAnswersWithoutData,
    /// Order: what was lost with a connection is sent again behind what was queued later
    FifoBrokenOnReconnect,
    /// Order: a handler releases its turn before its ordered part
    ReleaseBeforeOrder,
    /// Once: calls that may not be handled twice are sent again where there are no sessions
    OnceSentAgain,
    /// Ledger: a replica does not keep what it has answered
    LedgerForgetsAnswers,
    /// Ledger: a replica's disk has what was answered one commit later than what was done
    LedgerAnswersLate,
    /// Peers: nobody is pinged, whatever is owed
    PeersNoKeepAlive,
    /// Peers: whatever a node sends by itself counts as the answer to a ping
    PeersForgivenPing,
    /// Pairs: nobody is pinged, whatever is owed
    PairsNoKeepAlive,
}

impl Bug {
    /// Its name on the command line.
    pub(crate) fn name(self) -> String {
        let value = self.to_possible_value();
        let value = value.expect("no mistake is hidden from the command line");
        value.get_name().to_owned()
    }

    /// The name of a scenario with a mistake in it, or without one.
    pub(crate) fn name_of(bug: Option<Self>, scenario: &str) -> String {
        bug.map_or_else(|| scenario.to_owned(), Self::name)
    }

    /// The scenario in which it is, and which has to fail for it.
    pub(crate) fn scenario(self) -> Scenario {
        match self {
            Self::NoWriteBack
            | Self::HalfQuorum
            | Self::NoWriterId
            | Self::ReplyBeforeDurable
            | Self::ReleaseBeforeStore => register::scenario(Some(self)),
            Self::StoreHalfQuorum
            | Self::StoreReplyBeforeDurable
            | Self::StoreNoCommitSync
            | Self::StoreUnsyncedGrowth => store::scenario(Some(self)),
            Self::AnswersWithoutData | Self::CountsWhoHasNoData => register::rejoin(Some(self)),
            Self::StoreAnswersWithoutData => store::rejoin(Some(self)),
            Self::FifoBrokenOnReconnect | Self::ReleaseBeforeOrder => order::scenario(Some(self)),
            Self::OnceSentAgain => once::scenario(Some(self)),
            Self::LedgerForgetsAnswers | Self::LedgerAnswersLate => ledger::scenario(Some(self)),
            Self::PeersNoKeepAlive | Self::PeersForgivenPing => {
                peers::scenario(Streams::Two, Some(self))
            }
            Self::PairsNoKeepAlive => peers::scenario(Streams::One, Some(self)),
        }
    }

    /// The same, as the register calls it.
    pub(crate) fn of_register(self) -> Option<::register::Bug> {
        Some(match self {
            Self::NoWriteBack => ::register::Bug::NoWriteBack,
            Self::HalfQuorum => ::register::Bug::HalfQuorum,
            Self::NoWriterId => ::register::Bug::NoWriterId,
            Self::ReplyBeforeDurable => ::register::Bug::ReplyBeforeDurable,
            Self::ReleaseBeforeStore => ::register::Bug::ReleaseBeforeOrder,
            _ => return None,
        })
    }

    /// The same, as the ledger calls it.
    pub(crate) fn of_ledger(self) -> Option<::ledger::Bug> {
        Some(match self {
            Self::LedgerForgetsAnswers => ::ledger::Bug::ForgetsAnswers,
            _ => return None,
        })
    }

    /// The same, as what writes to disks calls it.
    pub(crate) fn of_storage(self) -> Option<storage::Bug> {
        Some(match self {
            Self::StoreNoCommitSync => storage::Bug::NoCommitSync,
            Self::StoreUnsyncedGrowth => storage::Bug::UnsyncedGrowth,
            Self::AnswersWithoutData | Self::StoreAnswersWithoutData => {
                storage::Bug::AnswersWithoutData
            }
            Self::CountsWhoHasNoData => storage::Bug::CountsWhoHasNoData,
            _ => return None,
        })
    }
}
