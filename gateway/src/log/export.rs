//! A log as files (C2SP tlog-tiles), which other tools read: `<folder>/<origin>/checkpoint`, `tile/<L>/<N>[.p/<W>]` and
//! `tile/entries/<N>[.p/<W>]`. All is made anew from the leaves, and the checkpoint is written last, once it has been
//! read back that everything leads to its root: what has a checkpoint is whole. Records are not in it.

use std::{fs, io, path::Path};

use liaison_trust::log::{BundleError, Checkpoint, EntryBundle, LogKey, Note, TileError, leaf_hash};

use super::{LogError, verify::Grown};
use crate::{
    data::{DataError, write_private},
    limits,
    store::{LogHead, Snapshot},
};

/// Entries of a full bundle.
const FULL: usize = 256;

/// What was exported of a log.
#[derive(Debug)]
pub struct Exported {
    pub checkpoint: Checkpoint,
    /// Files that were written; those of an earlier export that are still right stay.
    pub written: u64,
    pub kept: u64,
}

/// Why a log is not exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    File(#[from] DataError),
    #[error("{path} can't be written ({source})")]
    Folder { path: String, source: io::Error },
    #[error(
        "{0} is there with another content: the folder holds another history of the log; keep it as evidence, and export into an empty one"
    )]
    OtherHistory(String),
    #[error("leaf {0} is missing: `liaison-gateway log verify` tells more")]
    MissingLeaf(u64),
    #[error(
        "the leaves lead to another root than the checkpoint says: `liaison-gateway log verify` tells more"
    )]
    OtherRoot,
    #[error("the entries can't be put into a bundle: {0}")]
    Bundle(#[from] BundleError),
    #[error("the entries can't be put into a bundle: {0}")]
    Tile(#[from] TileError),
}

/// Exports a log into a folder of its own; none if it has no head yet. Begun again, it goes on where it was.
///
/// # Errors
/// The log is not whole, the folder holds another history, or a file can't be written.
pub async fn export(
    snapshot: &mut Snapshot,
    head: &LogHead,
    key: &LogKey,
    folder: &Path,
) -> Result<Option<Exported>, ExportError> {
    let Some(note) = &head.checkpoint else { return Ok(None) };
    let checkpoint = key.open(&Note::parse(note).map_err(LogError::from)?).map_err(LogError::from)?;
    let earlier = earlier(&folder.join("checkpoint"), key)?;
    if earlier.as_ref().is_some_and(|earlier| earlier.size() > checkpoint.size()) {
        return Err(ExportError::OtherHistory(folder.join("checkpoint").display().to_string()));
    }
    let mut files = Files { folder, written: 0, kept: 0 };
    let mut grown = Grown::default();
    // The root under the head of an earlier export, now and as it was signed.
    let mut begun = None;
    let mut bundle: Vec<Vec<u8>> = Vec::with_capacity(FULL);
    while grown.size() < checkpoint.size() {
        let page = snapshot.leaves(head.log, grown.size(), limits::LOG_PAGE).await.map_err(LogError::from)?;
        let left = checkpoint.size() - grown.size();
        if page.is_empty() {
            return Err(ExportError::MissingLeaf(grown.size()));
        }
        for row in page.into_iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
            if row.index() != grown.size() {
                return Err(ExportError::MissingLeaf(grown.size()));
            }
            for (tile, content) in grown.append(leaf_hash(&row.entry)).map_err(LogError::from)? {
                files.put(&tile.to_string(), &content)?;
            }
            if let Some(earlier) = earlier.as_ref().filter(|earlier| earlier.size() == grown.size()) {
                begun = Some((grown.root(), earlier.root()));
            }
            bundle.push(row.entry);
            if bundle.len() == FULL {
                files.put_bundle(&grown, &bundle)?;
                bundle.clear();
            }
        }
    }
    for (tile, content) in grown.partial() {
        files.put(&tile.to_string(), &content)?;
    }
    files.put_bundle(&grown, &bundle)?;
    if begun.is_some_and(|(root, signed)| root != signed) {
        return Err(ExportError::OtherHistory(folder.join("checkpoint").display().to_string()));
    }
    if grown.root() != checkpoint.root() {
        return Err(ExportError::OtherRoot);
    }
    write_private(&folder.join("checkpoint"), note)?;
    if let Some(cosigned) = &head.cosigned {
        write_private(&folder.join("cosigned"), cosigned)?;
    }
    Ok(Some(Exported { checkpoint, written: files.written, kept: files.kept }))
}

/// The head of an earlier export into the same folder.
fn earlier(file: &Path, key: &LogKey) -> Result<Option<Checkpoint>, ExportError> {
    let note = match fs::read(file) {
        Ok(note) => note,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ExportError::Folder { path: file.display().to_string(), source }),
    };
    let opened = Note::parse(&note).ok().and_then(|note| key.open(&note).ok());
    opened.map(Some).ok_or_else(|| ExportError::OtherHistory(file.display().to_string()))
}

struct Files<'a> {
    folder: &'a Path,
    written: u64,
    kept: u64,
}

impl Files<'_> {
    fn put_bundle(&mut self, grown: &Grown, entries: &[Vec<u8>]) -> Result<(), ExportError> {
        let Some(before) = u16::try_from(entries.len()).ok().filter(|width| *width > 0) else {
            return Ok(());
        };
        let bundle = EntryBundle::new((grown.size() - u64::from(before)) / FULL as u64, before)?;
        self.put(&bundle.to_string(), &bundle.encode(entries)?)
    }

    /// Writes a file and reads it back; one that is there already has to be the same.
    fn put(&mut self, path: &str, content: &[u8]) -> Result<(), ExportError> {
        let file = self.folder.join(path);
        let failed = |source| ExportError::Folder { path: file.display().to_string(), source };
        match fs::read(&file) {
            Ok(there) if there == content => {
                self.kept += 1;
                return Ok(());
            }
            Ok(_) => return Err(ExportError::OtherHistory(file.display().to_string())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        fs::create_dir_all(file.parent().unwrap_or(self.folder)).map_err(failed)?;
        write_private(&file, content)?;
        if fs::read(&file).map_err(failed)? != content {
            return Err(ExportError::OtherHistory(file.display().to_string()));
        }
        self.written += 1;
        Ok(())
    }
}
