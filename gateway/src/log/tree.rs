//! The tree of a log, as its tiles in the database make it: whether the log grows or another one took its place.

use std::collections::BTreeSet;

use liaison_trust::{
    digest::Digest,
    log::{
        Frontier, Node, Tile, TileHashes, consistency, consistency_nodes, inclusion, inclusion_nodes, root,
        root_nodes,
    },
};

use super::LogError;
use crate::store::{LogId, Store};

/// The tree of one log.
#[derive(Clone)]
pub struct Tree {
    store: Store,
    id: LogId,
}

impl Tree {
    pub(super) fn new(store: &Store, id: LogId) -> Self {
        Self { store: store.clone(), id }
    }

    /// The log in the database.
    pub fn id(&self) -> LogId {
        self.id
    }

    /// The inclusion proofs of leaves, each in the tree of `size` leaves.
    ///
    /// # Errors
    /// There are no such leaves, or the store lacks tiles.
    pub async fn inclusion(&self, leaves: &[u64], size: u64) -> Result<Vec<Vec<Digest>>, LogError> {
        let mut nodes = Vec::new();
        for leaf in leaves {
            nodes.extend(inclusion_nodes(*leaf, size)?);
        }
        let hashes = self.hashes(nodes, size).await?;
        let proof = |leaf: &u64| inclusion(*leaf, size, |node| hashes.hash(node));
        Ok(leaves.iter().map(proof).collect::<Result<_, _>>()?)
    }

    /// The proof that the tree of `old` leaves is the beginning of the tree of `size`.
    ///
    /// # Errors
    /// `old` is larger, or the store lacks tiles.
    pub async fn consistency(&self, old: u64, size: u64) -> Result<Vec<Digest>, LogError> {
        let hashes = self.hashes(consistency_nodes(old, size)?, size).await?;
        Ok(consistency(old, size, |node| hashes.hash(node))?)
    }

    /// The root over the first `size` leaves of a tree of `known`.
    pub(super) async fn root(&self, size: u64, known: u64) -> Result<Digest, LogError> {
        let hashes = self.hashes(root_nodes(size), known).await?;
        Ok(root(size, |node| hashes.hash(node))?)
    }

    /// The right edge of the tree of `size` leaves.
    pub(super) async fn frontier(&self, size: u64) -> Result<Frontier, LogError> {
        let hashes = self.hashes(root_nodes(size), size).await?;
        Ok(Frontier::read(size, |node| hashes.hash(node))?)
    }

    /// The hashes of nodes, with whatever else their tiles hold.
    async fn hashes(&self, nodes: Vec<Node>, size: u64) -> Result<TileHashes, LogError> {
        let tiles: BTreeSet<Tile> = nodes.into_iter().filter_map(|node| Tile::holding(node, size)).collect();
        Ok(self.store.tiles(self.id, tiles).await?)
    }
}
