//! The leaves of a log one after another, beside what was signed of them.

use liaison_trust::{
    digest::Digest,
    log::{LogKey, Tile, leaf_hash},
};

use super::{
    Examined, Grown,
    fault::{CHANGED, Faults, TILES},
    head::FOREIGN,
    head::checkpoint,
};
use crate::{
    limits,
    log::LogError,
    store::{LeafRow, LogHead, Snapshot, Stager},
};

/// A walk through the leaves of a log, in which its tree is made anew.
pub(super) struct Walk<'a> {
    head: &'a LogHead,
    key: &'a LogKey,
    stager: &'a Stager,
    pub(super) origin: String,
    page: std::vec::IntoIter<LeafRow>,
    /// The index that comes next.
    next: u64,
    /// The tile of level 0 over the present leaf, as it is kept.
    kept: Option<(u64, Option<Vec<u8>>)>,
    /// The tree that the leaves make, and the one that the lowest tiles make; none once it can't be made.
    leaves: Option<Grown>,
    tiles: Option<Grown>,
    /// Leaves whose entry is not what the tiles have, so many as are listed.
    differ: Vec<u64>,
    /// Tiles that are not what the leaves make, and not what the lowest tiles make.
    unlike_leaves: Vec<Tile>,
    unlike_tiles: Vec<Tile>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(head: &'a LogHead, key: &'a LogKey, stager: &'a Stager) -> Self {
        Self {
            head,
            key,
            stager,
            origin: key.name().to_string(),
            page: Vec::new().into_iter(),
            next: 0,
            kept: None,
            leaves: Some(Grown::default()),
            tiles: Some(Grown::default()),
            differ: Vec::new(),
            unlike_leaves: Vec::new(),
            unlike_tiles: Vec::new(),
        }
    }

    pub(super) fn place(&self, index: u64) -> String {
        format!("{}, leaf {index}", self.origin)
    }

    /// Tells of a leaf that the gateway did not stage, where nothing else is wrong with it.
    pub(super) fn examine_code(&self, row: &LeafRow, signed: Option<Digest>, faults: &mut Faults) {
        let is_exchanged = signed.is_some_and(|signed| signed != leaf_hash(&row.entry));
        if is_exchanged || row.is_staged(self.stager, (self.head.kind, self.head.number)) {
            return;
        }
        faults.add("foreign_leaf", self.place(row.index()), FOREIGN, CHANGED);
    }

    /// The next leaf with the hash that the tiles have of it. Leaves that are missing are told.
    pub(super) async fn next(
        &mut self,
        snapshot: &mut Snapshot,
        faults: &mut Faults,
    ) -> Result<Option<(LeafRow, Option<Digest>)>, LogError> {
        if self.page.len() == 0 {
            self.page = snapshot.leaves(self.head.log, self.next, limits::LOG_PAGE).await?.into_iter();
        }
        let Some(row) = self.page.next() else {
            self.miss(self.head.size, snapshot, faults).await?;
            return Ok(None);
        };
        self.miss(row.index(), snapshot, faults).await?;
        let signed = self.signed(snapshot).await?;
        self.grow(Some(leaf_hash(&row.entry)), signed, snapshot).await?;
        Ok(Some((row, signed)))
    }

    /// Tells of the leaves that are missing before an index, and goes on with what the tiles have of them.
    async fn miss(
        &mut self,
        until: u64,
        snapshot: &mut Snapshot,
        faults: &mut Faults,
    ) -> Result<(), LogError> {
        if self.next >= until {
            return Ok(());
        }
        let (first, last) = (self.next, until - 1);
        let place = if first == last {
            self.place(first)
        } else {
            format!("{}, leaves {first} to {last}", self.origin)
        };
        let found = if until == self.head.size && until > first {
            "gone: the log was cut off, and its head says that it has more"
        } else {
            "gone: removed by hand"
        };
        faults.add("missing_leaf", place, found, CHANGED);
        while self.next < until.min(self.head.size) {
            let signed = self.signed(snapshot).await?;
            self.grow(signed, signed, snapshot).await?;
        }
        self.next = until;
        Ok(())
    }

    /// The hash that the tiles have of the next leaf, if it is under the head.
    async fn signed(&mut self, snapshot: &mut Snapshot) -> Result<Option<Digest>, LogError> {
        if self.next >= self.head.size {
            return Ok(None);
        }
        let (tile, place) = (self.next / 256, (self.next % 256) as usize * 32);
        if self.kept.as_ref().is_none_or(|(kept, _)| *kept != tile) {
            self.kept = Some((tile, snapshot.tile(self.head.log, 0, tile).await?));
        }
        let content = self.kept.as_ref().and_then(|(_, content)| content.as_deref());
        Ok(content.and_then(|content| Digest::try_from(content.get(place..place + 32)?).ok()))
    }

    async fn grow(
        &mut self,
        leaf: Option<Digest>,
        signed: Option<Digest>,
        snapshot: &mut Snapshot,
    ) -> Result<(), LogError> {
        if self.next < self.head.size {
            if leaf != signed && self.differ.len() < limits::LOG_FAULTS {
                self.differ.push(self.next);
            }
            for is_of_leaves in [true, false] {
                let (grown, hash) =
                    if is_of_leaves { (&mut self.leaves, leaf) } else { (&mut self.tiles, signed) };
                let full = match (grown.as_mut(), hash) {
                    (Some(grown), Some(hash)) => grown.append(hash)?,
                    _ => {
                        *grown = None;
                        Vec::new()
                    }
                };
                self.compare(full, is_of_leaves, snapshot).await?;
            }
        }
        self.next += 1;
        Ok(())
    }

    async fn compare(
        &mut self,
        tiles: Vec<(Tile, Vec<u8>)>,
        is_of_leaves: bool,
        snapshot: &mut Snapshot,
    ) -> Result<(), LogError> {
        for (tile, content) in tiles {
            let kept = snapshot.tile(self.head.log, tile.level(), tile.index()).await?;
            let unlike = if is_of_leaves { &mut self.unlike_leaves } else { &mut self.unlike_tiles };
            if kept.as_ref() != Some(&content) && unlike.len() < limits::LOG_FAULTS {
                unlike.push(tile);
            }
        }
        Ok(())
    }

    /// Compares what was made with what was signed, and tells which of leaves, tiles and head were changed.
    pub(super) async fn end(
        mut self,
        snapshot: &mut Snapshot,
        erased: u64,
        faults: &mut Faults,
    ) -> Result<Examined, LogError> {
        for is_of_leaves in [true, false] {
            let grown = if is_of_leaves { &self.leaves } else { &self.tiles };
            let partial = grown.as_ref().map(Grown::partial).unwrap_or_default();
            self.compare(partial, is_of_leaves, snapshot).await?;
        }
        let signed = checkpoint(self.head, self.key, faults).filter(|signed| signed.size() == self.head.size);
        let root_of = |grown: &Option<Grown>| grown.as_ref().map(Grown::root);
        let (leaves, tiles) = (root_of(&self.leaves), root_of(&self.tiles));
        let signed = signed.map(|signed| signed.root());
        let is_signed = |root: Option<Digest>| root.is_some() && root == signed;
        if is_signed(leaves) || signed.is_none() {
            self.tell_tiles(&self.unlike_leaves, "it is not what the leaves below it make", faults);
        } else {
            for index in &self.differ {
                let found = "its entry is not the one that was signed: the leaf was exchanged";
                faults.add("changed_entry", self.place(*index), found, CHANGED);
            }
            self.tell_tiles(&self.unlike_tiles, "it is not what the tiles below it make", faults);
            if !is_signed(tiles) {
                let found = "neither its leaves nor its tiles lead to the root that its checkpoint says";
                faults.add("other_root", self.origin.clone(), found, CHANGED);
            }
        }
        for (level, index) in snapshot.tiles_outside(self.head.log, self.head.size, limits::LOG_PAGE).await? {
            let place = format!("{}, tile of level {level} with index {index}", self.origin);
            faults.add(
                "foreign_tile",
                place,
                "a log of this size has no such tile: it was put in by hand",
                TILES,
            );
        }
        Ok(Examined {
            size: self.head.size,
            staged: self.next.saturating_sub(self.head.size),
            erased,
            root: leaves,
            origin: self.origin,
        })
    }

    fn tell_tiles(&self, tiles: &[Tile], found: &str, faults: &mut Faults) {
        for tile in tiles {
            let found = format!("{found}: it was changed, exchanged or removed");
            faults.add("changed_tile", format!("{}, {tile}", self.origin), found, TILES);
        }
    }
}
