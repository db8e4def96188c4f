//! The domain's CAs on disk: the one that issues, and beside it, while it is being changed, the one that
//! follows or the one before.
//!
//! A key is written before its certificate and goes after it. The change of the issuing one is four
//! renames: the issuing key, its certificate, the next key, the next certificate. Whatever the moment of
//! a crash, what lies there tells how far they came, and the next start goes on from it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use liaison_trust::{
    ca::{Authority as Ca, CaError},
    certificate::Certificate,
    digest::{Digest, sha256},
    names::Domain,
};

use crate::data::{DataError, DataFolder, read_secret, read_text, write_private};

/// The CAs of a domain, as they lie in its data folder.
#[derive(Debug, Clone)]
pub struct Cas {
    folder: DataFolder,
    issuing: Arc<Ca>,
    other: Option<Other>,
}

/// The CA beside the one that issues: believed and told as well.
#[derive(Debug, Clone)]
pub enum Other {
    /// It will issue.
    Next(Arc<Ca>),
    /// It has issued.
    Former(Arc<Ca>),
}

/// How far a change of the CA is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// One CA.
    Settled,
    /// The next one is made known.
    Prepared,
    /// The next one was being made the one that issues; the next start finishes that.
    Switching,
    /// The former one is still believed.
    Switched,
}

/// Why the CAs are not usable, or were not changed.
#[derive(Debug, thiserror::Error)]
pub enum CasError {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error("the CA's files are not usable ({0}); restore ca.pem and ca.key from a backup")]
    Ca(#[from] CaError),
    #[error(
        "the CA in {other} is of the domain {found}, that in ca.pem of {domain}; use the files of one domain"
    )]
    Domain { other: &'static str, found: Domain, domain: Domain },
}

impl Stage {
    /// What lies in a folder; nothing is changed.
    pub fn of(folder: &DataFolder) -> Self {
        match (folder.next_ca_certificate().exists(), folder.former_ca_key().exists()) {
            (true, true) => Self::Switching,
            (true, false) => Self::Prepared,
            (false, true) if folder.former_ca_certificate().exists() => Self::Switched,
            // A former key alone is one whose removal was interrupted.
            (false, _) => Self::Settled,
        }
    }
}

impl Cas {
    /// Reads them, once what a crash interrupted is finished.
    ///
    /// # Errors
    /// The files are damaged, or not writable where something was to be finished.
    pub fn open(folder: &DataFolder) -> Result<Self, CasError> {
        if Stage::of(folder) == Stage::Switching {
            switch(folder)?;
        }
        let cas = Self::read(folder)?;
        if cas.other.is_none() {
            // Left by a `prepare` or a `retire` that did not finish: nobody was ever told of the one, and
            // nobody believes the other.
            destroy(&folder.next_ca_key())?;
            destroy(&folder.former_ca_key())?;
        }
        Ok(cas)
    }

    /// Reads them as they are.
    ///
    /// # Errors
    /// The files are damaged.
    pub fn read(folder: &DataFolder) -> Result<Self, CasError> {
        let issuing = Arc::new(read(&folder.ca_certificate(), &folder.ca_key())?);
        let (other, name) = match Stage::of(folder) {
            Stage::Settled | Stage::Switching => (None, ""),
            Stage::Prepared => {
                let next = read(&folder.next_ca_certificate(), &folder.next_ca_key())?;
                (Some(Other::Next(Arc::new(next))), "ca-next.pem")
            }
            Stage::Switched => {
                let former = read(&folder.former_ca_certificate(), &folder.former_ca_key())?;
                (Some(Other::Former(Arc::new(former))), "ca-former.pem")
            }
        };
        let cas = Self { folder: folder.clone(), issuing, other };
        let domain = cas.issuing.domain();
        if let Some(foreign) = cas.all().find(|ca| ca.domain() != domain) {
            let found = foreign.domain().clone();
            return Err(CasError::Domain { other: name, found, domain: domain.clone() });
        }
        Ok(cas)
    }

    /// The one that issues.
    pub fn issuing(&self) -> &Ca {
        &self.issuing
    }

    /// The one beside it, while the CA is being changed.
    pub fn other(&self) -> Option<&Other> {
        self.other.as_ref()
    }

    /// All of them, the one that issues first.
    pub fn all(&self) -> impl Iterator<Item = &Ca> {
        let other = self.other.as_ref().map(Other::ca);
        std::iter::once(self.issuing()).chain(other)
    }

    /// The fingerprints of all, one behind the other.
    pub fn fingerprints(&self) -> Vec<u8> {
        self.all().flat_map(|ca| *fingerprint(ca).as_bytes()).collect()
    }

    /// The one that issued a certificate, with the certificate read.
    ///
    /// # Errors
    /// [`CaError::Foreign`] if it was none of these.
    pub fn recognise(&self, certificate: &[u8]) -> Result<(&Ca, Certificate), CaError> {
        let mut refusal = CaError::Foreign;
        for ca in self.all() {
            match ca.recognise(certificate) {
                Ok(read) => return Ok((ca, read)),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    /// Makes the next CA.
    ///
    /// # Errors
    /// The files could not be written; nothing changed.
    pub(super) fn prepare(&self) -> Result<Self, CasError> {
        let next = Ca::create(self.issuing.domain())?;
        // Of an attempt that failed: a key and a certificate of two attempts must never stand side by side.
        remove(&self.folder.next_ca_certificate())?;
        write_private(&self.folder.next_ca_key(), next.key_pem().as_bytes())?;
        write_private(&self.folder.next_ca_certificate(), next.certificate_pem().as_bytes())?;
        Self::read(&self.folder)
    }

    /// Makes the next CA the one that issues.
    ///
    /// # Errors
    /// A file could not be renamed: doing it again, or the next start, goes on from there.
    pub(super) fn switch(&self) -> Result<Self, CasError> {
        switch(&self.folder)?;
        Self::read(&self.folder)
    }

    /// Destroys the former CA.
    ///
    /// # Errors
    /// A file could not be removed: doing it again, or the next start, goes on from there.
    pub(super) fn retire(&self) -> Result<Self, CasError> {
        remove(&self.folder.former_ca_certificate())?;
        destroy(&self.folder.former_ca_key())?;
        Self::read(&self.folder)
    }
}

impl Other {
    /// The CA itself.
    pub fn ca(&self) -> &Ca {
        match self {
            Self::Next(ca) | Self::Former(ca) => ca,
        }
    }
}

/// What tokens and people name a CA by: the SHA-256 of its certificate, DER.
pub(super) fn fingerprint(ca: &Ca) -> Digest {
    sha256(ca.certificate_der())
}

fn read(certificate: &Path, key: &Path) -> Result<Ca, CasError> {
    Ok(Ca::from_pem(&read_text(certificate)?, &read_secret(key)?)?)
}

/// The four renames, from wherever they were left: each takes away what calls for it.
fn switch(folder: &DataFolder) -> Result<(), DataError> {
    if !folder.former_ca_key().exists() {
        rename(&folder.ca_key(), &folder.former_ca_key())?;
    }
    if !folder.former_ca_certificate().exists() {
        rename(&folder.ca_certificate(), &folder.former_ca_certificate())?;
    }
    if folder.next_ca_key().exists() {
        rename(&folder.next_ca_key(), &folder.ca_key())?;
    }
    if folder.next_ca_certificate().exists() {
        rename(&folder.next_ca_certificate(), &folder.ca_certificate())?;
    }
    Ok(())
}

/// Renames durably, so that what comes after it never is there without it.
fn rename(from: &Path, to: &Path) -> Result<(), DataError> {
    let renamed = fs::rename(from, to).and_then(|()| sync_folder_of(to));
    renamed.map_err(|source| DataError::Unwritable { path: to.to_owned(), source })
}

/// Removes a file durably, if it is there.
fn remove(path: &Path) -> Result<(), DataError> {
    let removed = match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.and_then(|()| sync_folder_of(path)),
    };
    removed.map_err(|source| DataError::Unwritable { path: path.to_owned(), source })
}

/// Overwrites a secret and removes it, if it is there. Where the disk keeps old blocks, only its
/// encryption helps.
fn destroy(path: &Path) -> Result<(), DataError> {
    let overwrite = || -> io::Result<()> {
        let mut file = match OpenOptions::new().write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file?,
        };
        let length = file.metadata()?.len();
        io::copy(&mut io::Read::take(io::repeat(0), length), &mut file)?;
        file.flush()?;
        file.sync_all()
    };
    overwrite().map_err(|source| DataError::Unwritable { path: path.to_owned(), source })?;
    remove(path)
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, ffi::OsString};

    use tempfile::TempDir;

    use super::*;

    fn settled() -> (TempDir, DataFolder, Cas) {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::new(folder.path().to_owned());
        let ca = Ca::create(&"be".parse().unwrap()).unwrap();
        write_private(&data.ca_key(), ca.key_pem().as_bytes()).unwrap();
        write_private(&data.ca_certificate(), ca.certificate_pem().as_bytes()).unwrap();
        let cas = Cas::open(&data).unwrap();
        (folder, data, cas)
    }

    fn files(folder: &TempDir) -> BTreeMap<OsString, Vec<u8>> {
        let entries = fs::read_dir(folder.path()).unwrap().map(Result::unwrap);
        entries.map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap())).collect()
    }

    fn roots(cas: &Cas) -> Vec<Digest> {
        cas.all().map(fingerprint).collect()
    }

    #[test]
    fn a_change_goes_from_one_ca_to_the_other() {
        let (folder, data, settled) = settled();
        let before = files(&folder);
        let prepared = settled.prepare().unwrap();
        assert_eq!(Stage::of(&data), Stage::Prepared);
        assert_eq!(roots(&prepared)[0], roots(&settled)[0]);
        assert_eq!(roots(&Cas::open(&data).unwrap()), roots(&prepared));
        let switched = prepared.switch().unwrap();
        assert_eq!(Stage::of(&data), Stage::Switched);
        let (was, is) = (roots(&prepared), roots(&switched));
        assert_eq!([was[1], was[0]], is[..]);
        let retired = switched.retire().unwrap();
        assert_eq!((Stage::of(&data), roots(&retired)), (Stage::Settled, vec![is[0]]));
        let after = files(&folder);
        assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
        assert_ne!(after, before);
    }

    #[test]
    fn a_crash_between_any_two_renames_is_recovered_from() {
        for done in 0..=4 {
            let (_folder, data, settled) = settled();
            let prepared = settled.prepare().unwrap();
            let renames = [
                (data.ca_key(), data.former_ca_key()),
                (data.ca_certificate(), data.former_ca_certificate()),
                (data.next_ca_key(), data.ca_key()),
                (data.next_ca_certificate(), data.ca_certificate()),
            ];
            for (from, to) in renames.iter().take(done) {
                fs::rename(from, to).unwrap();
            }
            let opened = Cas::open(&data).unwrap();
            let mut expected = roots(&prepared);
            if done > 0 {
                expected.reverse();
            }
            assert_eq!(roots(&opened), expected, "{done} renames");
            let stage = if done > 0 { Stage::Switched } else { Stage::Prepared };
            assert_eq!(Stage::of(&data), stage, "{done} renames");
        }
    }

    #[test]
    fn a_crash_while_a_ca_is_made_or_destroyed_leaves_one() {
        let (folder, data, settled) = settled();
        let before = files(&folder);
        write_private(&data.next_ca_key(), b"half of a pair").unwrap();
        assert_eq!(roots(&Cas::open(&data).unwrap()), roots(&settled));
        assert_eq!(files(&folder), before);

        settled.prepare().unwrap().switch().unwrap();
        fs::remove_file(data.former_ca_certificate()).unwrap();
        let opened = Cas::open(&data).unwrap();
        assert!(opened.other().is_none());
        assert!(!data.former_ca_key().exists());
    }

    #[test]
    fn a_ca_of_another_domain_is_refused() {
        let (_folder, data, settled) = settled();
        settled.prepare().unwrap();
        let foreign = Ca::create(&"hu".parse().unwrap()).unwrap();
        write_private(&data.next_ca_key(), foreign.key_pem().as_bytes()).unwrap();
        write_private(&data.next_ca_certificate(), foreign.certificate_pem().as_bytes()).unwrap();
        let refused = Cas::open(&data).unwrap_err();
        assert!(matches!(refused, CasError::Domain { other: "ca-next.pem", .. }), "{refused}");
    }
}
