//! The agency's private keys, made here and never sent anywhere: the key that signs, the keys that
//! messages are sealed to (one a key record), and the vault key over what is stored.
//!
//! `keys/`: `signing.seed`, `vault.key`, and for each record `<sequence>.record` (a `SignedKeyRecord`) and
//! `<sequence>.kem` (its private key), which is destroyed once nothing sealed to it can be delivered
//! any more.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use liaison_proto::{
    limits::LIFETIME,
    message::v1::{SignedKeyRecord, kem::Code as Kem},
};
use liaison_trust::{
    digest::Digest,
    key_record::{self, KeyRecordError, ProvenKey},
    keys::{KemKey, SigningKey, UnknownKem},
    names::AgencyAddress,
    vault::Vault,
};
use prost::Message as _;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::{
    folder::{self, Folder, FolderError},
    limits,
};

/// The agency's private keys.
pub struct Custody {
    folder: PathBuf,
    signing: SigningKey,
    vault_key: Zeroizing<[u8; 32]>,
    ring: ArcSwap<Ring>,
}

/// The key records of this agency, and the private keys that are still here.
pub struct Ring {
    /// From the first record on; never empty.
    chain: Vec<ProvenKey>,
    current: ProvenKey,
    kem: BTreeMap<Digest, KemKey>,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum CustodyError {
    #[error(transparent)]
    File(#[from] FolderError),
    #[error("the key records in keys/ don't hold: {0}; restore the folder from its backup")]
    Record(#[from] KeyRecordError),
    #[error("the key records in keys/ are those of {0}; restore the right backup")]
    OtherAgency(AgencyAddress),
    #[error(
        "keys/signing.seed is not the key that the newest key record names; restore the folder from its backup"
    )]
    OtherSigningKey,
    #[error(transparent)]
    Kem(#[from] UnknownKem),
}

impl Custody {
    /// Makes whatever keys are not there yet, and opens them.
    pub fn create(
        folder: &Folder,
        agency: &AgencyAddress,
        now: OffsetDateTime,
    ) -> Result<Self, CustodyError> {
        let keys = folder.keys();
        folder::create_private_dir(&keys)?;
        let signing = keys.join("signing.seed");
        if !signing.exists() {
            folder::write_private(&signing, SigningKey::generate().seed().as_slice())?;
        }
        let vault = keys.join("vault.key");
        if !vault.exists() {
            folder::write_private(&vault, Zeroizing::new(rand::random::<[u8; 32]>()).as_slice())?;
        }
        if !record_path(&keys, 0).exists() {
            let kem = KemKey::generate(Kem::XWing)?;
            let signing = SigningKey::from_seed(&*secret(&signing)?);
            let record = key_record::first(agency, &signing, &kem, since(now), now + limits::KEY_VALIDITY);
            store(&keys, 0, &record, &kem)?;
        }
        Self::open(folder, agency)
    }

    /// Opens the keys in the folder.
    pub fn open(folder: &Folder, agency: &AgencyAddress) -> Result<Self, CustodyError> {
        let keys = folder.keys();
        let signing = SigningKey::from_seed(&*secret(&keys.join("signing.seed"))?);
        let vault_key = secret(&keys.join("vault.key"))?;
        let ring = Ring::open(&keys)?;
        if ring.current.agency != *agency {
            return Err(CustodyError::OtherAgency(ring.current.agency.clone()));
        }
        if ring.current.signing != signing.public() {
            return Err(CustodyError::OtherSigningKey);
        }
        Ok(Self { folder: keys, signing, vault_key, ring: ArcSwap::from_pointee(ring) })
    }

    /// The key that signs for this agency.
    pub fn signing(&self) -> &SigningKey {
        &self.signing
    }

    /// The vault over what is stored.
    pub fn vault(&self) -> Vault {
        Vault::from_key(*self.vault_key)
    }

    /// The key records and keys as of now.
    pub fn ring(&self) -> Arc<Ring> {
        self.ring.load_full()
    }

    /// Takes over the records of this agency that the gateway lists and that are not here: those that
    /// this agent's own signing key made after the backup that it was restored from. Their private keys
    /// are lost, so that the next [`Self::rotate`] replaces them. Gives them; none if the records are not its own.
    pub fn adopt(&self, listed: &[SignedKeyRecord]) -> Result<Option<Vec<ProvenKey>>, CustodyError> {
        let ring = self.ring();
        if !ring.chain.iter().zip(listed).all(|(own, listed)| own.signed.record == listed.record) {
            return Ok(None);
        }
        let mut last = ring.current.clone();
        let mut lost = Vec::new();
        for listed in listed.iter().skip(ring.chain.len()) {
            match key_record::follows(&last, listed) {
                Ok(key) if key.signing == self.signing.public() => last = key.clone(),
                _ => return Ok(None),
            }
            lost.push(last.clone());
        }
        for key in &lost {
            folder::write_private(&record_path(&self.folder, key.sequence), &key.signed.encode_to_vec())?;
        }
        if !lost.is_empty() {
            self.ring.store(Arc::new(Ring::open(&self.folder)?));
        }
        Ok(Some(lost))
    }

    /// Whether this agent was restored from a backup and has not published its keys since: it may find records that it
    /// made after the backup.
    pub fn is_restored(&self) -> bool {
        self.folder.join(RESTORED).exists()
    }

    /// Its keys are published: from now on it knows all that it made.
    pub fn settle_restored(&self) -> Result<(), FolderError> {
        if self.is_restored() { folder::destroy(&self.folder.join(RESTORED)) } else { Ok(()) }
    }

    /// Notes that a data folder is restored from a backup.
    pub fn note_restored(folder: &Folder) -> Result<(), FolderError> {
        folder::write_private(&folder.keys().join(RESTORED), b"")
    }

    /// Makes the next key record when the current one is old enough or its private key is lost, and
    /// destroys private keys that nothing can be sealed to any more. True if there is a new record.
    pub fn rotate(&self, now: OffsetDateTime) -> Result<bool, CustodyError> {
        let ring = self.ring();
        let current = &ring.current;
        let made = current.not_after - limits::KEY_VALIDITY;
        let due = now - made >= limits::KEY_ROTATION || !ring.kem.contains_key(&current.id);
        if due {
            let kem = KemKey::generate(Kem::XWing)?;
            let record = key_record::next(
                &current.signed,
                &self.signing,
                &self.signing,
                &kem,
                since(now),
                now + limits::KEY_VALIDITY,
            )?;
            store(&self.folder, current.sequence.saturating_add(1), &record, &kem)?;
        }
        let dead: Vec<_> = ring
            .chain
            .iter()
            .filter(|key| key.not_after + LIFETIME < now && ring.kem.contains_key(&key.id))
            .filter(|key| key.id != current.id || due)
            .collect();
        for key in &dead {
            folder::destroy(&kem_path(&self.folder, key.sequence))?;
        }
        if due || !dead.is_empty() {
            self.ring.store(Arc::new(Ring::open(&self.folder)?));
        }
        Ok(due)
    }
}

impl Ring {
    fn open(keys: &Path) -> Result<Self, CustodyError> {
        let mut records = Vec::new();
        for sequence in 0.. {
            match folder::read(&record_path(keys, sequence)) {
                Ok(bytes) => records.push(
                    SignedKeyRecord::decode(bytes.as_slice())
                        .map_err(|error| FolderError::damaged(&record_path(keys, sequence), error))?,
                ),
                Err(error) if error.is_missing() => break,
                Err(error) => return Err(error.into()),
            }
        }
        let chain = key_record::prove_chain(&records)?;
        let current = chain.last().cloned().ok_or(KeyRecordError::NoFirst)?;
        let mut kem = BTreeMap::new();
        for key in &chain {
            match secret(&kem_path(keys, key.sequence)) {
                Ok(seed) => {
                    kem.insert(key.id, KemKey::from_seed(key.kem, &seed)?);
                }
                Err(error) if error.is_missing() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self { chain, current, kem })
    }

    /// The key records from the first on.
    pub fn chain(&self) -> &[ProvenKey] {
        &self.chain
    }

    /// The newest key record.
    pub fn current(&self) -> &ProvenKey {
        &self.current
    }

    /// The private key of a record, while it lives.
    pub fn kem(&self, record: &Digest) -> Option<&KemKey> {
        self.kem.get(record)
    }
}

/// In the folder of keys: it was restored from a backup, and has not published its keys since.
const RESTORED: &str = "restored";

/// From when on a record made now holds: drafts that waited their longest are sealed under it as well.
fn since(now: OffsetDateTime) -> OffsetDateTime {
    now - LIFETIME
}

/// The private key first: a record without its key could be published and sealed to.
fn store(keys: &Path, sequence: u32, record: &SignedKeyRecord, kem: &KemKey) -> Result<(), FolderError> {
    folder::write_private(&kem_path(keys, sequence), kem.seed().as_slice())?;
    folder::write_private(&record_path(keys, sequence), &record.encode_to_vec())
}

fn record_path(keys: &Path, sequence: u32) -> PathBuf {
    keys.join(format!("{sequence:04}.record"))
}

fn kem_path(keys: &Path, sequence: u32) -> PathBuf {
    keys.join(format!("{sequence:04}.kem"))
}

fn secret(path: &Path) -> Result<Zeroizing<[u8; 32]>, FolderError> {
    let bytes = Zeroizing::new(folder::read(path)?);
    let secret = <[u8; 32]>::try_from(bytes.as_slice())
        .map_err(|_| FolderError::damaged(path, "not a key of 32 bytes"))?;
    Ok(Zeroizing::new(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agency() -> AgencyAddress {
        "be/shelter".parse().unwrap()
    }

    #[test]
    fn keys_are_made_once_rotate_in_a_chain_and_die_when_nothing_can_use_them() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path());
        let day = time::Duration::DAY;
        let now = OffsetDateTime::now_utc();
        let first = Custody::create(&folder, &agency(), now).unwrap().ring().current().clone();
        let custody = Custody::create(&folder, &agency(), now).unwrap();
        assert_eq!(*custody.ring().current(), first, "created again, nothing changes");

        assert!(!custody.rotate(now + 29 * day).unwrap());
        assert!(custody.rotate(now + 30 * day).unwrap());
        assert!(!custody.rotate(now + 30 * day).unwrap());
        let ring = custody.ring();
        assert_eq!(ring.chain().len(), 2);
        assert_eq!(ring.current().previous, Some(first.id));
        assert!(ring.kem(&first.id).is_some(), "what was sealed to the old key still opens");

        custody.rotate(now + 119 * day).unwrap();
        assert!(custody.ring().kem(&first.id).is_some());
        custody.rotate(now + 121 * day).unwrap();
        assert!(custody.ring().kem(&first.id).is_none());
        assert!(!folder.keys().join("0000.kem").exists());
        let reopened = Custody::open(&folder, &agency()).unwrap();
        assert_eq!(reopened.ring().current().id, custody.ring().current().id);
    }

    #[test]
    fn an_agent_of_an_old_backup_takes_over_its_own_later_records_and_no_others() {
        let (dir, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (folder, old) = (Folder::new(dir.path()), Folder::new(backup.path()));
        let now = OffsetDateTime::now_utc();
        let custody = Custody::create(&folder, &agency(), now).unwrap();
        folder::create_private_dir(&old.keys()).unwrap();
        for entry in std::fs::read_dir(folder.keys()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), old.keys().join(entry.file_name())).unwrap();
        }
        custody.rotate(now + time::Duration::days(30)).unwrap();
        let listed: Vec<_> = custody.ring().chain().iter().map(|key| key.signed.clone()).collect();

        let restored = Custody::open(&old, &agency()).unwrap();
        assert!(restored.adopt(&listed).unwrap().is_some());
        assert!(restored.rotate(now).unwrap(), "nobody can open what is sealed to a lost key");
        let chain = restored.ring().chain().to_vec();
        assert_eq!(chain.len(), 3);
        assert_eq!(chain[1].signed, listed[1]);
        assert!(restored.ring().kem(&restored.ring().current().id).is_some());

        let stranger = tempfile::tempdir().unwrap();
        let stranger = Custody::create(&Folder::new(stranger.path()), &agency(), now).unwrap();
        assert!(stranger.adopt(&listed).unwrap().is_none());
        let mut forged = listed.clone();
        forged[1] = key_record::next(
            &listed[0],
            custody.signing(),
            &SigningKey::generate(),
            &KemKey::generate(Kem::XWing).unwrap(),
            now,
            now + time::Duration::DAY,
        )
        .unwrap();
        assert!(Custody::open(&folder, &agency()).unwrap().adopt(&forged).unwrap().is_none());
    }

    #[test]
    fn keys_that_do_not_belong_together_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path());
        let now = OffsetDateTime::now_utc();
        Custody::create(&folder, &agency(), now).unwrap();
        let other = "be/police".parse().unwrap();
        assert!(matches!(Custody::open(&folder, &other), Err(CustodyError::OtherAgency(_))));
        folder::write_private(&folder.keys().join("signing.seed"), &[7; 32]).unwrap();
        assert!(matches!(Custody::open(&folder, &agency()), Err(CustodyError::OtherSigningKey)));
        folder::write_private(&folder.keys().join("0000.record"), b"?").unwrap();
        assert!(Custody::open(&folder, &agency()).is_err());
    }
}
