//! Tiles (C2SP tlog-tiles): 256 neighbouring hashes of every eighth level, the form in which the tree
//! is stored and handed out.

use std::{collections::BTreeMap, fmt, str::FromStr};

use super::{
    tile_path::{self, FULL, INDEXES, PathError},
    tree::{Node, TreeError, node_hash},
};
use crate::digest::Digest;

/// The levels of the tree from one tile level to the next.
const HEIGHT: u8 = 8;
/// The tile levels that a tree of 64-bit size has.
const LEVELS: u8 = 8;

/// Where a tile stands, and how many hashes it has. Written as its path: `tile/0/x001/x234/067`, and
/// with `.p/<width>` where it is not full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    level: u8,
    index: u64,
    width: u16,
}

/// What is no tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TileError {
    /// Not the coordinates of a tile.
    #[error("a tile has a level of 0 to 63, an index below 2^55 and 1 to 256 hashes")]
    Coordinates,
    /// The content is not the tile's hashes.
    #[error("the tile has {expected} bytes, this has {got}: its store or whoever sent it is at fault")]
    Content { expected: usize, got: usize },
}

/// Hashes of nodes, read from tiles. Tiles are believed as they come: what is made from them has to be
/// verified against a root, as every proof is.
#[derive(Debug, Clone, Default)]
pub struct TileHashes {
    tiles: BTreeMap<(u8, u64), Vec<Digest>>,
}

/// The tiles that are new, or fuller than before, when the tree grows from `old` leaves to `new`: what
/// to write before the checkpoint of the `new` is signed. None if `new` is not larger.
pub fn new_tiles(old: u64, new: u64) -> impl Iterator<Item = Tile> {
    (0..LEVELS).flat_map(move |level| {
        let [old, new] = [old, new].map(|size| size >> (HEIGHT * level));
        grown(old, new).map(move |(index, width)| Tile { level, index, width })
    })
}

/// The tiles or bundles that change when what they hold grows from `old` hashes or entries to `new`.
pub(super) fn grown(old: u64, new: u64) -> impl Iterator<Item = (u64, u16)> {
    let full = u64::from(FULL);
    let last = (new > old && !new.is_multiple_of(full)).then_some((new / full, (new % full) as u16));
    (old / full..new / full).map(|index| (index, FULL)).chain(last)
}

impl Tile {
    /// The tile at these coordinates of tlog-tiles: level (0 to 63), index on it, width (1 to 256).
    ///
    /// # Errors
    /// [`TileError::Coordinates`] outside of these.
    pub fn new(level: u8, index: u64, width: u16) -> Result<Self, TileError> {
        let valid = level <= 63 && index < INDEXES && (1..=FULL).contains(&width);
        if valid { Ok(Self { level, index, width }) } else { Err(TileError::Coordinates) }
    }

    /// The tile from which a node's hash is read, as it is in the tree of `size` leaves; none if the
    /// node is not complete there.
    pub fn holding(node: Node, size: u64) -> Option<Self> {
        if node.level >= HEIGHT * LEVELS {
            return None;
        }
        // A node is complete where the next of its level begins inside the tree or at its end.
        if node.index >= size >> node.level {
            return None;
        }
        let (level, index, _, _) = place(node);
        let width = (size >> (HEIGHT * level)) - index * u64::from(FULL);
        Some(Self { level, index, width: width.min(FULL.into()) as u16 })
    }

    /// The same tile as it was in the tree of `size` leaves; none if it had no hashes then.
    pub fn before(self, size: u64) -> Option<Self> {
        let level = HEIGHT.checked_mul(self.level).filter(|level| *level < 64)?;
        let width = (size >> level).checked_sub(self.index * u64::from(FULL))?;
        let width = width.min(self.width.into()) as u16;
        (width > 0).then_some(Self { width, ..self })
    }

    /// The level among tiles: its hashes are those of the tree's level `8 * level`.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// The place among the tiles of its level.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// How many hashes it has, 1 to 256.
    pub fn width(&self) -> u16 {
        self.width
    }

    /// Whether it has all its 256 hashes, so that it never changes.
    pub fn is_full(&self) -> bool {
        self.width == FULL
    }

    /// The nodes whose hashes it holds, in their order; none above the levels of a 64-bit tree.
    pub fn nodes(&self) -> impl Iterator<Item = Node> + use<> {
        let (level, first) = (self.level, self.index * u64::from(FULL));
        let width = if level < LEVELS { self.width.into() } else { 0 };
        (first..first + width).map(move |index| Node { level: level * HEIGHT, index })
    }

    /// The tile's content: its hashes in a row, 32 bytes each.
    ///
    /// # Errors
    /// [`TreeError::Missing`] if `hash` does not know one of [`Self::nodes`].
    pub fn content(&self, hash: impl Fn(Node) -> Option<Digest>) -> Result<Vec<u8>, TreeError> {
        let mut content = Vec::with_capacity(self.bytes());
        for node in self.nodes() {
            content.extend_from_slice(&hash(node).ok_or(TreeError::Missing(node))?.0);
        }
        Ok(content)
    }

    /// How long its content is, in bytes.
    fn bytes(&self) -> usize {
        usize::from(self.width) * 32
    }
}

impl TileHashes {
    /// Of no tile yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tile with its content. Of two widths of one tile the wider stays.
    ///
    /// # Errors
    /// [`TileError::Content`] if the content is not as long as the tile's width demands.
    pub fn insert(&mut self, tile: Tile, content: &[u8]) -> Result<(), TileError> {
        let (hashes, rest) = content.as_chunks::<32>();
        if content.len() != tile.bytes() || !rest.is_empty() {
            return Err(TileError::Content { expected: tile.bytes(), got: content.len() });
        }
        let kept = self.tiles.entry((tile.level, tile.index)).or_default();
        if kept.len() < hashes.len() {
            *kept = hashes.iter().copied().map(Digest).collect();
        }
        Ok(())
    }

    /// The hash of a node; none if its tile is not here, or not as wide.
    pub fn hash(&self, node: Node) -> Option<Digest> {
        if node.level >= HEIGHT * LEVELS {
            return None;
        }
        let (level, index, first, count) = place(node);
        let mut hashes = self.tiles.get(&(level, index))?.get(first..first + count)?.to_vec();
        while hashes.len() > 1 {
            hashes = hashes.as_chunks().0.iter().map(|[left, right]| node_hash(left, right)).collect();
        }
        hashes.pop()
    }
}

/// A node below level 64: the level and index of its tile, and which of the tile's hashes are below it,
/// from where and how many.
fn place(node: Node) -> (u8, u64, usize, usize) {
    let above = node.level % HEIGHT;
    let full = u64::from(FULL);
    let index = node.index >> (HEIGHT - above);
    let first = (node.index << above) % full;
    (node.level / HEIGHT, index, first as usize, 1 << above)
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tile/{}/{}", self.level, tile_path::write(self.index, self.width))
    }
}

impl FromStr for Tile {
    type Err = PathError;

    fn from_str(path: &str) -> Result<Self, PathError> {
        let (level, rest) =
            path.strip_prefix("tile/").and_then(|rest| rest.split_once('/')).ok_or(PathError)?;
        let level = tile_path::decimal(level).and_then(|level| level.try_into().ok()).ok_or(PathError)?;
        let (index, width) = tile_path::read(rest)?;
        Self::new(level, index, width).map_err(|_| PathError)
    }
}
