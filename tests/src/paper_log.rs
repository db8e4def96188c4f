//! A log of evidence that a test makes by itself, as a gateway would.

use std::{collections::HashMap, fs, path::Path};

use anyhow::{Context, Result};
use liaison_proto::{
    log::v1::{Accepted, Record, record::Event},
    times,
};
use liaison_trust::{
    digest::Digest,
    keys::SigningKey,
    log::{
        Checkpoint, Continuation, Frontier, LogSigner, Node, Note, Receipt, SaltedRecord, Signer,
        consistency, inclusion, leaf_hash, new_bundles, new_tiles,
    },
};
use prost::Message;
use time::OffsetDateTime;
use uuid::Uuid;

/// A log with so many acceptances.
pub struct PaperLog {
    pub signer: LogSigner,
    records: Vec<SaltedRecord>,
    hashes: HashMap<Node, Digest>,
    frontier: Frontier,
}

impl PaperLog {
    /// The log `origin`, by the key that follows from this seed.
    pub fn new(origin: &str, seed: u8, leaves: usize) -> Result<Self> {
        let signer = LogSigner::new(origin.parse()?, SigningKey::from_seed(&[seed; 32]));
        let mut log = Self { signer, records: Vec::new(), hashes: HashMap::new(), frontier: Frontier::new() };
        log.grow(leaves)?;
        Ok(log)
    }

    /// Appends acceptances.
    pub fn grow(&mut self, leaves: usize) -> Result<()> {
        for _ in 0..leaves {
            let accepted = Accepted {
                sender: "be/hospital".to_owned(),
                message_id: Uuid::now_v7().as_bytes().to_vec().into(),
                manifest_digest: Digest([3; 32]).into(),
                ..Accepted::default()
            };
            let at = Some(times::to_wire(OffsetDateTime::now_utc()));
            self.append(Record { at, event: Some(Event::Accepted(accepted)) }.encode_to_vec())?;
        }
        Ok(())
    }

    /// Appends a record, whatever it is.
    pub fn append(&mut self, record: Vec<u8>) -> Result<()> {
        let record = SaltedRecord::new(record)?;
        self.hashes.extend(self.frontier.append(record.entry().leaf_hash())?);
        self.records.push(record);
        Ok(())
    }

    /// The number of its leaves.
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The newest head.
    pub fn head(&self) -> Result<Note> {
        let key = self.signer.key();
        let checkpoint = Checkpoint::new(key.name(), self.frontier.size(), self.frontier.root())?;
        Ok(self.signer.sign_checkpoint(&checkpoint.with_extension(&key.to_string())?)?)
    }

    /// The receipt of a leaf under the newest head.
    pub fn receipt(&self, index: u64) -> Result<Receipt> {
        let record = self.records.get(usize::try_from(index)?).context("no such leaf")?.clone();
        let proof = inclusion(index, self.frontier.size(), |node| self.hashes.get(&node).copied())?;
        Ok(Receipt { record, index, proof, checkpoint: self.head()?, signer: None })
    }

    /// The receipt of a leaf with the last of these entries of a log of keys, whose name this is, as who signed it.
    pub fn signed(&self, index: u64, keys: &str, seed: u8, entries: &[Vec<u8>]) -> Result<Receipt> {
        let signer = LogSigner::new(keys.parse()?, SigningKey::from_seed(&[seed; 32]));
        let (mut frontier, mut hashes) = (Frontier::new(), HashMap::new());
        for entry in entries {
            hashes.extend(frontier.append(leaf_hash(entry))?);
        }
        let key = entries.last().context("no entries")?.clone();
        let (size, last) = (frontier.size(), frontier.size() - 1);
        let proof = inclusion(last, size, |node: Node| hashes.get(&node).copied())?;
        let checkpoint = signer.sign(size, frontier.root())?;
        let signer = Some(Signer { key, index: last, proof, checkpoint });
        Ok(Receipt { signer, ..self.receipt(index)? })
    }

    /// The proof that it only grew since an earlier head.
    pub fn continuation(&self, old: &Note) -> Result<Continuation> {
        let old: Checkpoint = old.text().parse()?;
        let (size, hash) = (self.frontier.size(), |node| self.hashes.get(&node).copied());
        Ok(Continuation {
            old: old.size(),
            old_root: old.root(),
            proof: consistency(old.size(), size, hash)?,
            checkpoint: self.head()?,
        })
    }

    /// Writes it into a folder, as tlog-tiles has it.
    pub fn export(&self, folder: &Path) -> Result<()> {
        let write = |path: String, content: Vec<u8>| -> Result<()> {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().context("no folder")?)?;
            Ok(fs::write(path, content)?)
        };
        write("checkpoint".to_owned(), self.head()?.to_string().into_bytes())?;
        for tile in new_tiles(0, self.frontier.size()) {
            write(tile.to_string(), tile.content(|node| self.hashes.get(&node).copied())?)?;
        }
        for bundle in new_bundles(0, self.frontier.size()) {
            let entries = self.records.iter().skip(usize::try_from(bundle.start())?);
            let entries: Vec<_> = entries.take(bundle.width().into()).map(SaltedRecord::entry).collect();
            write(bundle.to_string(), bundle.encode(&entries)?)?;
        }
        Ok(())
    }
}
