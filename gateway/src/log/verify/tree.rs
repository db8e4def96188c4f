//! A tree made anew from its leaves, tile by tile: to compare with what is kept, or to write elsewhere.

use liaison_trust::{
    digest::Digest,
    log::{Frontier, FrontierError, Tile},
};

/// A full tile.
const FULL: usize = 256 * 32;

/// A tree that grows leaf by leaf and gives its tiles.
#[derive(Debug, Default)]
pub struct Grown {
    frontier: Frontier,
    /// What the last tile of each level has so far.
    open: [Vec<u8>; 8],
}

impl Grown {
    /// Leaves so far.
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The root over them.
    pub fn root(&self) -> Digest {
        self.frontier.root()
    }

    /// Appends a leaf by its hash, and gives the tiles that are full by it.
    ///
    /// # Errors
    /// A log has no more leaves.
    pub fn append(&mut self, leaf: Digest) -> Result<Vec<(Tile, Vec<u8>)>, FrontierError> {
        let mut full = Vec::new();
        for (node, hash) in self.frontier.append(leaf)? {
            let level = node.level / 8;
            let Some(open) = self.open.get_mut(usize::from(level)).filter(|_| node.level.is_multiple_of(8))
            else {
                continue;
            };
            open.extend_from_slice(hash.as_bytes());
            if open.len() == FULL
                && let Ok(tile) = Tile::new(level, node.index / 256, 256)
            {
                full.push((tile, std::mem::take(open)));
            }
        }
        Ok(full)
    }

    /// The last tile of each level, where it is not full.
    pub fn partial(&self) -> Vec<(Tile, Vec<u8>)> {
        let levels = (0_u8..).zip(&self.open).filter(|(_, open)| !open.is_empty());
        let tiles = levels.filter_map(|(level, open)| {
            let index = (self.size() >> (8 * level)) / 256;
            let tile = Tile::new(level, index, u16::try_from(open.len() / 32).ok()?).ok()?;
            Some((tile, open.clone()))
        });
        tiles.collect()
    }
}

#[cfg(test)]
mod tests {
    use liaison_trust::log::{leaf_hash, new_tiles};

    use super::*;

    #[test]
    fn every_tile_of_every_size_comes_once() {
        for size in [0, 1, 255, 256, 257, 70_000] {
            let mut grown = Grown::default();
            let mut tiles = Vec::new();
            for leaf in 0..size {
                tiles.extend(grown.append(leaf_hash(&u64::to_be_bytes(leaf))).unwrap());
            }
            tiles.extend(grown.partial());
            let mut tiles: Vec<Tile> = tiles.into_iter().map(|(tile, _)| tile).collect();
            tiles.sort();
            let mut expected: Vec<Tile> = new_tiles(0, size).collect();
            expected.sort();
            assert_eq!(tiles, expected, "{size}");
        }
    }
}
