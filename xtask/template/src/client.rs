//! Asks the replicas, and counts.

use std::collections::HashMap;
use std::time::Duration;

use gorums::call::VoteError;
use gorums::{Configuration, QuorumError};

use crate::proto::claims_client::ClaimsClient;
use crate::proto::{Ballot, LookRequest, VoteRequest};

/// A client of the replicas of a configuration.
#[derive(Debug, Clone)]
pub struct Claims {
    replicas: ClaimsClient,
}

impl Claims {
    /// A client whose calls take at most so long.
    pub fn new(replicas: &Configuration, timeout: Duration) -> Self {
        Self {
            replicas: ClaimsClient::new(replicas).with_timeout(timeout),
        }
    }

    /// Claims a name. When it returns, the candidate owns the name for ever.
    ///
    /// # Errors
    ///
    /// No majority has voted for the candidate: others have the votes, which the error names, or too
    /// few replicas answered. In the latter case the votes that it did get stay, so trying again is
    /// right.
    pub async fn claim(&self, name: &str, candidate: &str) -> Result<(), VoteError<Ballot>> {
        let request = VoteRequest {
            name: name.to_owned(),
            candidate: candidate.to_owned(),
        };
        // Not `majority()` alone, which counts every answer, also of those who voted for others.
        let vote = self.replicas.vote(request).majority();
        vote.votes(|ballot| ballot.candidate == candidate).await?;
        Ok(())
    }

    /// Who owns a name: none where nobody has the votes of a majority of the replicas.
    ///
    /// # Errors
    ///
    /// So few replicas answered that another answer is possible.
    pub async fn owner(&self, name: &str) -> Result<Option<String>, QuorumError> {
        let (total, request) = (
            self.replicas.configuration().len(),
            LookRequest {
                name: name.to_owned(),
            },
        );
        let look = self.replicas.look(request);
        look.quorum_fn(move |_, ballots| {
            let mut votes = HashMap::new();
            for ballot in ballots
                .values()
                .filter(|ballot| !ballot.candidate.is_empty())
            {
                *votes.entry(&ballot.candidate).or_insert(0) += 1;
            }
            let leader = votes.into_iter().max_by_key(|(_, votes)| *votes);
            let most = leader.map_or(0, |(_, votes)| votes);
            let silent = total - ballots.len();
            if most > total / 2 {
                Some(leader.map(|(candidate, _)| candidate.clone()))
            } else if most + silent <= total / 2 {
                Some(None)
            } else {
                None
            }
        })
        .await
    }
}
