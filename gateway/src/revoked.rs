//! The file of revocations beside the database. A database restored from a backup forgets what was
//! revoked since; this file is only ever appended to, is not part of a database backup, and is merged
//! at every start, so that a revoked agency and a removed peer stay out whatever database they meet.
//!
//! One fact a line, in the order in which they were decided, moments in Unix seconds:
//! `agency <address> <at>` ends a membership; `certificate <serial> <address> <not after> <at>` one
//! certificate; `peer <domain> removed <at>` the peering with a domain, and
//! `peer <domain> <signing key> <at>` begins one with the gateway that has this key.

use std::{
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use liaison_trust::{
    keys::VerifyingKey,
    names::{AgencyAddress, Domain},
};
use time::OffsetDateTime;

use crate::{
    data::{DataError, PRIVATE_FILE},
    store::{IssuedCertificate, RevokedCertificate},
};

/// What is revoked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revocations {
    pub agencies: Vec<(AgencyAddress, OffsetDateTime)>,
    pub certificates: Vec<RevokedCertificate>,
    /// What became of peerings, in that order.
    pub peerings: Vec<Peering>,
}

/// The beginning of a peering with a domain, or its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peering {
    pub domain: Domain,
    /// With which its gateway signs; none where the peering ended.
    pub with: Option<VerifyingKey>,
    pub at: OffsetDateTime,
}

/// The file, open for appending.
#[derive(Debug)]
pub struct RevokedFile {
    file: File,
    /// What stands in it.
    written: Revocations,
    /// Bytes of whole lines: what a write that failed left behind them goes with the next one.
    whole: u64,
    path: PathBuf,
}

impl RevokedFile {
    /// Opens the file, makes it if it isn't there, and reads it. A last line without an end is what a
    /// crash left of a revocation that was never confirmed, and goes.
    ///
    /// # Errors
    /// It can't be read or written, or a line is not one of ours: going on without it could let
    /// somebody in again.
    pub fn open(path: &Path) -> Result<(Self, Revocations), DataError> {
        let unreadable = |source| DataError::Unreadable { path: path.to_owned(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE_FILE)
            .open(path)
            .map_err(unreadable)?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(unreadable)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let revocations = Revocations::parse(path, text.get(..whole).unwrap_or_default())?;
        let whole = u64::try_from(whole).unwrap_or(u64::MAX);
        let written = revocations.clone();
        Ok((Self { file, written, whole, path: path.to_owned() }, revocations))
    }

    /// Adds revocations durably.
    ///
    /// # Errors
    /// They could not be written.
    pub fn append(&mut self, revocations: &Revocations) -> Result<(), DataError> {
        let lines = revocations.to_lines();
        let mut write = || -> io::Result<()> {
            self.file.set_len(self.whole)?;
            self.file.seek(SeekFrom::End(0))?;
            self.file.write_all(lines.as_bytes())?;
            self.file.sync_all()
        };
        write().map_err(|source| DataError::Unwritable { path: self.path.clone(), source })?;
        self.whole += lines.len() as u64;
        self.written.extend(revocations.clone());
        Ok(())
    }

    /// What stands in it.
    pub fn written(&self) -> &Revocations {
        &self.written
    }
}

impl Revocations {
    /// Reads the file and leaves it as it is; nothing is revoked where there is none.
    ///
    /// # Errors
    /// It can't be read, or a line is not one of ours.
    pub fn read_file(path: &Path) -> Result<Self, DataError> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read.map_err(|source| DataError::Unreadable { path: path.to_owned(), source })?,
        };
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        Self::parse(path, text.get(..whole).unwrap_or_default())
    }

    /// Adds others behind these.
    pub fn extend(&mut self, more: Self) {
        self.agencies.extend(more.agencies);
        self.certificates.extend(more.certificates);
        self.peerings.extend(more.peerings);
    }

    /// When the peering with the gateway of a domain that signs with `key` ended, if it did. The order of the
    /// lines decides and not their moments, so that a clock that was set back changes nothing.
    pub fn end_of_peering(&self, domain: &Domain, key: &[u8]) -> Option<OffsetDateTime> {
        let last = self.peerings.iter().rfind(|peering| peering.domain == *domain)?;
        let goes_on = last.with.is_some_and(|with| with.as_bytes() == key);
        (!goes_on).then_some(last.at)
    }

    /// The same, unless a database knows of an end that was no earlier.
    pub fn ended_since(
        &self,
        domain: &Domain,
        key: &[u8],
        known: Option<OffsetDateTime>,
    ) -> Option<OffsetDateTime> {
        let ended = self.end_of_peering(domain, key)?;
        let is_known = known.is_some_and(|known| known.unix_timestamp() >= ended.unix_timestamp());
        (!is_known).then_some(ended)
    }

    /// Whether the last that is known of a peering is that it ended.
    pub fn has_ended(&self, domain: &Domain) -> bool {
        let last = self.peerings.iter().rfind(|peering| peering.domain == *domain);
        last.is_some_and(|last| last.with.is_none())
    }

    fn parse(path: &Path, lines: &str) -> Result<Self, DataError> {
        let mut revocations = Self::default();
        for (number, line) in lines.lines().enumerate() {
            revocations.read(line).ok_or_else(|| DataError::Damaged {
                path: path.to_owned(),
                fault: format!("line {} is no revocation", number + 1),
            })?;
        }
        Ok(revocations)
    }

    fn read(&mut self, line: &str) -> Option<()> {
        let moment = |text: &str| OffsetDateTime::from_unix_timestamp(text.parse().ok()?).ok();
        let words: Vec<_> = line.split(' ').collect();
        match words.as_slice() {
            ["agency", address, at] => self.agencies.push((address.parse().ok()?, moment(at)?)),
            ["certificate", serial, agency, not_after, at] => {
                let certificate = IssuedCertificate {
                    serial: hex::decode(serial).ok()?,
                    agency: agency.parse().ok()?,
                    not_after: moment(not_after)?,
                };
                self.certificates.push(RevokedCertificate { certificate, at: moment(at)? });
            }
            ["peer", domain, with, at] => {
                let with = match *with {
                    "removed" => None,
                    key => Some(VerifyingKey::try_from(hex::decode(key).ok()?.as_slice()).ok()?),
                };
                self.peerings.push(Peering { domain: domain.parse().ok()?, with, at: moment(at)? });
            }
            _ => return None,
        }
        Some(())
    }

    fn to_lines(&self) -> String {
        let mut lines = String::new();
        for (agency, at) in &self.agencies {
            _ = writeln!(lines, "agency {agency} {}", at.unix_timestamp());
        }
        for RevokedCertificate { certificate, at } in &self.certificates {
            let IssuedCertificate { serial, agency, not_after } = certificate;
            let (serial, not_after) = (hex::encode(serial), not_after.unix_timestamp());
            _ = writeln!(lines, "certificate {serial} {agency} {not_after} {}", at.unix_timestamp());
        }
        for Peering { domain, with, at } in &self.peerings {
            let with = with.map_or_else(|| "removed".to_owned(), |key| hex::encode(key.as_bytes()));
            _ = writeln!(lines, "peer {domain} {with} {}", at.unix_timestamp());
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use liaison_trust::keys::SigningKey;

    use super::*;

    fn revocations() -> Revocations {
        let at = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let agency: AgencyAddress = "be/shelter".parse().unwrap();
        let certificate = IssuedCertificate { serial: vec![0x4a, 7], agency: agency.clone(), not_after: at };
        Revocations {
            agencies: vec![(agency, at)],
            certificates: vec![RevokedCertificate { certificate, at }],
            peerings: vec![peering(Some(key(1)), 1), peering(None, 0)],
        }
    }

    fn key(seed: u8) -> VerifyingKey {
        SigningKey::from_seed(&[seed; 32]).public()
    }

    /// Of `hu`, so many seconds after a beginning.
    fn peering(with: Option<VerifyingKey>, after: i64) -> Peering {
        let at = OffsetDateTime::from_unix_timestamp(1_800_000_000 + after).unwrap();
        Peering { domain: "hu".parse().unwrap(), with, at }
    }

    #[test]
    fn the_last_act_about_a_peering_counts_for_its_key() {
        let ended = |peerings: &[Peering], key: VerifyingKey| {
            let revocations = Revocations { peerings: peerings.to_vec(), ..Revocations::default() };
            revocations.end_of_peering(&"hu".parse().unwrap(), key.as_bytes()).is_some()
        };
        let (old, new) = (key(1), key(2));
        assert!(!ended(&[], old), "a peering of before the file knew of any");
        assert!(!ended(&[peering(Some(old), 1)], old));
        // By a clock that was set back in between.
        let removed = [peering(Some(old), 2), peering(None, 1)];
        assert!(ended(&removed, old));
        let anew = |with| [&removed[..], &[peering(Some(with), 0)]].concat();
        assert!(!ended(&anew(old), old));
        assert!(ended(&anew(new), old) && !ended(&anew(new), new));
        let other = Peering { domain: "at".parse().unwrap(), ..peering(None, 3) };
        assert!(!ended(&[other], old));
    }

    #[test]
    fn remembers_and_drops_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revoked");
        let (mut file, before) = RevokedFile::open(&path).unwrap();
        assert_eq!(before, Revocations::default());
        file.append(&revocations()).unwrap();
        file.file.write_all(b"agency be/oth").unwrap();
        drop(file);

        let (mut file, after) = RevokedFile::open(&path).unwrap();
        assert_eq!(after, revocations());
        file.append(&revocations()).unwrap();
        // As a full disk leaves it, that has room again for the next one.
        file.file.write_all(b"agency be/oth").unwrap();
        file.append(&revocations()).unwrap();
        let (_, thrice) = RevokedFile::open(&path).unwrap();
        assert_eq!(thrice.agencies.len(), 3);
        assert!(!crate::data::is_exposed(&path).unwrap());
    }

    #[test]
    fn a_foreign_line_stops_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revoked");
        std::fs::write(&path, "agency be/a 1800000000\nagency nobody\n").unwrap();
        let fault = RevokedFile::open(&path).unwrap_err();
        assert!(matches!(fault, DataError::Damaged { .. }));
        assert!(fault.to_string().contains("line 2"), "{fault}");
    }
}
