//! What proofs show of a log together: as it only grows, each of its subtrees has one hash for ever, so that two proofs
//! that give one subtree two hashes are of two histories, whatever the sizes of their heads.

use std::{collections::BTreeMap, ops::Range};

use super::{proof::Subtree, tree::subtree};
use crate::digest::Digest;

/// The subtrees of one log that proofs have shown.
#[derive(Debug, Default)]
pub struct History(BTreeMap<(u64, u64), Digest>);

/// Proofs of one log that contradict one another: it has two histories.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it shows other leaves from {} up to {} than another proof of it: the log has two histories", .0.start, .0.end)]
pub struct Contradiction(pub Range<u64>);

impl History {
    /// Adds what a proof shows, all of it or, where it contradicts those before, nothing.
    ///
    /// # Errors
    /// The first subtree that has another hash.
    pub fn add(&mut self, shown: &[Subtree]) -> Result<(), Contradiction> {
        let place = |leaves: &Range<u64>| (leaves.start, leaves.end);
        let other =
            |shown: &&Subtree| self.0.get(&place(&shown.leaves)).is_some_and(|known| *known != shown.hash);
        if let Some(other) = shown.iter().find(other) {
            return Err(Contradiction(other.leaves.clone()));
        }
        self.0.extend(shown.iter().map(|shown| (place(&shown.leaves), shown.hash)));
        Ok(())
    }

    /// Compares what a proof shows with what follows from all others: of subtrees at the right edge of its tree, which a
    /// larger tree does not have, the complete ones that they are made of may be known.
    ///
    /// # Errors
    /// The first subtree whose parts are others.
    pub fn check(&self, shown: &[Subtree]) -> Result<(), Contradiction> {
        let other = |shown: &&Subtree| {
            let known = subtree(shown.leaves.clone(), &|node| {
                let Range { start, end } = node.leaves();
                self.0.get(&(start, end)).copied()
            });
            known.is_ok_and(|known| known != shown.hash)
        };
        shown.iter().find(other).map_or(Ok(()), |other| Err(Contradiction(other.leaves.clone())))
    }
}
