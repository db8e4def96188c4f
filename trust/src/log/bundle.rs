//! Entry bundles (C2SP tlog-tiles): the entries below one tile of level 0, each with its length before
//! it.

use std::{fmt, str::FromStr};

use super::{
    tile::{TileError, grown},
    tile_path::{self, FULL, INDEXES, PathError},
};

/// Where a bundle stands, and how many entries it has. Written as its path:
/// `tile/entries/x001/x234/067`, and with `.p/<width>` where it is not full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryBundle {
    index: u64,
    width: u16,
}

/// Why bytes are not a bundle, or entries can't be put into one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// The number of entries is not the bundle's.
    #[error("the bundle has {expected} entries, this has {got}")]
    Width { expected: u16, got: usize },
    /// An entry's length does not fit its 16 bits.
    #[error("an entry in a bundle has at most 65,535 bytes, this has {0}")]
    EntryTooLong(usize),
    /// The bytes end inside an entry or its length.
    #[error("the bundle is cut off: its store or whoever sent it is at fault")]
    CutOff,
    /// There are bytes after the last entry.
    #[error("{0} bytes follow the bundle's last entry: its store or whoever sent it is at fault")]
    Trailing(usize),
}

/// The bundles that are new, or fuller than before, when the log grows from `old` entries to `new`.
pub fn new_bundles(old: u64, new: u64) -> impl Iterator<Item = EntryBundle> {
    grown(old, new).map(|(index, width)| EntryBundle { index, width })
}

impl EntryBundle {
    /// The bundle with this index (below 2^55) and width (1 to 256).
    ///
    /// # Errors
    /// [`TileError::Coordinates`] outside of these.
    pub fn new(index: u64, width: u16) -> Result<Self, TileError> {
        let valid = index < INDEXES && (1..=FULL).contains(&width);
        if valid { Ok(Self { index, width }) } else { Err(TileError::Coordinates) }
    }

    /// The index of its first entry in the log.
    pub fn start(&self) -> u64 {
        self.index * u64::from(FULL)
    }

    /// How many entries it has, 1 to 256.
    pub fn width(&self) -> u16 {
        self.width
    }

    /// The bundle's bytes: each entry with its length before it, 16 bits, big-endian.
    ///
    /// # Errors
    /// There are more entries or fewer than its width, or one is too long.
    pub fn encode<E: AsRef<[u8]>>(&self, entries: &[E]) -> Result<Vec<u8>, BundleError> {
        if entries.len() != usize::from(self.width) {
            return Err(BundleError::Width { expected: self.width, got: entries.len() });
        }
        let mut bytes = Vec::new();
        for entry in entries.iter().map(AsRef::as_ref) {
            let length = u16::try_from(entry.len()).map_err(|_| BundleError::EntryTooLong(entry.len()))?;
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(entry);
        }
        Ok(bytes)
    }

    /// The entries in a bundle's bytes.
    ///
    /// # Errors
    /// The bytes are not exactly as many entries as its width.
    pub fn decode<'b>(&self, bytes: &'b [u8]) -> Result<Vec<&'b [u8]>, BundleError> {
        let mut rest = bytes;
        let mut entries = Vec::with_capacity(self.width.into());
        for _ in 0..self.width {
            let (length, after) = rest.split_first_chunk().ok_or(BundleError::CutOff)?;
            let length = u16::from_be_bytes(*length).into();
            let (entry, after) = after.split_at_checked(length).ok_or(BundleError::CutOff)?;
            entries.push(entry);
            rest = after;
        }
        if rest.is_empty() { Ok(entries) } else { Err(BundleError::Trailing(rest.len())) }
    }
}

impl fmt::Display for EntryBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tile/entries/{}", tile_path::write(self.index, self.width))
    }
}

impl FromStr for EntryBundle {
    type Err = PathError;

    fn from_str(path: &str) -> Result<Self, PathError> {
        let (index, width) = tile_path::read(path.strip_prefix("tile/entries/").ok_or(PathError)?)?;
        Ok(Self { index, width })
    }
}
