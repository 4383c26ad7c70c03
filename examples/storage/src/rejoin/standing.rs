//! Which answers count together.

use std::collections::BTreeMap;

use super::proto::{Loss, Standing};

impl Standing {
    /// That of this replica, which has lost its data so often and knows how often others have.
    pub(super) fn new(
        replica: u32,
        losses: u64,
        known: impl IntoIterator<Item = (u32, u64)>,
    ) -> Self {
        let known = known.into_iter();
        Self {
            replica,
            losses,
            known: known
                .map(|(replica, losses)| Loss { replica, losses })
                .collect(),
        }
    }
}

/// Whether answers of different replicas count together: none of them knows of a newer life of
/// another's replica. Those of replicas that say nothing of themselves always do.
///
/// An acknowledgement may outlast what it acknowledges, where its replica has lost its data since and
/// got it again from others that did not have it yet. Whoever acknowledges the same afterwards knows
/// of that loss, so that the two do not make a quorum.
pub fn count_together<'a>(answers: impl IntoIterator<Item = Option<&'a Standing>>) -> bool {
    let answers: Vec<_> = answers.into_iter().flatten().collect();
    let lives: BTreeMap<_, _> = answers
        .iter()
        .map(|answer| (answer.replica, answer.losses))
        .collect();
    let mut known = answers.iter().flat_map(|answer| &answer.known);
    known.all(|Loss { replica, losses }| lives.get(replica).is_none_or(|counted| losses <= counted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_count_together_unless_one_knows_of_a_newer_life_of_another() {
        let first = Standing::new(1, 0, []);
        let knows_nothing = Standing::new(2, 0, []);
        let knows_the_loss = Standing::new(2, 0, [(1, 1)]);
        let second = Standing::new(1, 1, []);
        let of_a_third = Standing::new(2, 3, [(3, 9)]);
        for (answers, together) in [
            (&[&first, &knows_nothing][..], true),
            (&[&first, &knows_the_loss], false),
            (&[&knows_the_loss, &first], false),
            (&[&second, &knows_the_loss], true),
            (&[&second, &knows_nothing], true),
            (&[&first, &of_a_third], true),
            (&[&first], true),
            (&[], true),
        ] {
            let found = count_together(answers.iter().copied().map(Some));
            assert_eq!(found, together, "{answers:?}");
        }
        assert!(count_together([None, Some(&knows_the_loss), None]));
    }
}
