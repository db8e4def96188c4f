//! The gateway's data folder: what lies where, who may read it, and writing that a crash can't halve.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use zeroize::Zeroizing;

/// Nobody but the owner.
pub const PRIVATE_FILE: u32 = 0o600;
/// Nobody but the owner.
pub const PRIVATE_FOLDER: u32 = 0o700;
const OTHERS: u32 = 0o077;

/// A data folder, made by `init`.
#[derive(Debug, Clone)]
pub struct DataFolder {
    path: PathBuf,
}

/// Why a file of the data folder is not usable.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("{} can't be read ({source})", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} can't be written ({source})", path.display())]
    Unwritable { path: PathBuf, source: io::Error },
    #[error("{} can be read by others; run `chmod go= {}` and find out who has", .0.display(), .0.display())]
    Exposed(PathBuf),
    #[error("a gateway or a command runs on {} already; stop it, or let it end, first", .0.display())]
    Taken(PathBuf),
    #[error("{} is damaged ({fault}); restore it from a backup", path.display())]
    Damaged { path: PathBuf, fault: String },
}

impl DataFolder {
    /// The folder at a path, which need not exist.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes this process the only gateway on the folder, for as long as it keeps what it gets.
    ///
    /// # Errors
    /// Another process is that already.
    pub fn lock(&self) -> Result<File, DataError> {
        let unreadable = |source| DataError::Unreadable { path: self.path.clone(), source };
        let folder = File::open(&self.path).map_err(unreadable)?;
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(folder),
            Err(Errno::WOULDBLOCK) => Err(DataError::Taken(self.path.clone())),
            Err(error) => Err(unreadable(error.into())),
        }
    }

    /// Settings.
    pub fn config(&self) -> PathBuf {
        self.path.join("gateway.toml")
    }

    /// The CA's certificate, PEM: the domain's root.
    pub fn ca_certificate(&self) -> PathBuf {
        self.path.join("ca.pem")
    }

    /// The CA's private key, PEM. A secret.
    pub fn ca_key(&self) -> PathBuf {
        self.path.join("ca.key")
    }

    /// The certificate of the CA that is to issue next, PEM, while a change of the CA is prepared.
    pub fn next_ca_certificate(&self) -> PathBuf {
        self.path.join("ca-next.pem")
    }

    /// Its private key, PEM. A secret.
    pub fn next_ca_key(&self) -> PathBuf {
        self.path.join("ca-next.key")
    }

    /// The certificate of the CA that issued before, PEM, until it is retired.
    pub fn former_ca_certificate(&self) -> PathBuf {
        self.path.join("ca-former.pem")
    }

    /// Its private key, PEM. A secret.
    pub fn former_ca_key(&self) -> PathBuf {
        self.path.join("ca-former.key")
    }

    /// The seed of the key with which the gateway signs, hexadecimal. A secret.
    pub fn signing_key(&self) -> PathBuf {
        self.path.join("signing.key")
    }

    /// The database, unless it is a server's.
    pub fn database(&self) -> PathBuf {
        self.path.join("liaison.db")
    }

    /// The folder of policies that administrators edit; `policy load` makes it the active set.
    pub fn policies(&self) -> PathBuf {
        self.path.join("policies")
    }

    /// The admin API's socket.
    pub fn admin_socket(&self) -> PathBuf {
        self.path.join("admin.sock")
    }

    /// Revocations, kept apart from the database.
    pub fn revoked(&self) -> PathBuf {
        self.path.join("revoked")
    }

    /// Every file that only the owner may read; the keys of CAs as far as they are there.
    pub fn secrets(&self) -> Vec<PathBuf> {
        let cas = [self.ca_key(), self.next_ca_key(), self.former_ca_key()];
        let cas = cas.into_iter().filter(|key| key.exists());
        cas.chain([self.signing_key()]).collect()
    }
}

/// Makes a folder that only its owner can enter.
///
/// # Errors
/// It exists, or can't be made.
pub fn make_private_folder(path: &Path) -> Result<(), DataError> {
    let made = DirBuilder::new().mode(PRIVATE_FOLDER).create(path);
    // The mode above is subject to the umask, which may be stricter than the owner's own rights.
    made.and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(PRIVATE_FOLDER)))
        .map_err(|source| DataError::Unwritable { path: path.to_owned(), source })
}

/// Writes a file as a whole or not at all, readable by its owner alone, and durably.
///
/// # Errors
/// It could not be written; what was there before still is.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    let new = path.with_added_extension("new");
    let write = || {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(PRIVATE_FILE).open(&new)?;
        file.set_permissions(fs::Permissions::from_mode(PRIVATE_FILE))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    write().map_err(|source| DataError::Unwritable { path: path.to_owned(), source })
}

/// Reads a text file.
///
/// # Errors
/// It can't be read.
pub fn read_text(path: &Path) -> Result<String, DataError> {
    fs::read_to_string(path).map_err(|source| DataError::Unreadable { path: path.to_owned(), source })
}

/// Reads a secret. One that others could have read is refused.
///
/// # Errors
/// It can't be read, or others can read it.
pub fn read_secret(path: &Path) -> Result<Zeroizing<String>, DataError> {
    if is_exposed(path)? {
        return Err(DataError::Exposed(path.to_owned()));
    }
    read_text(path).map(Zeroizing::new)
}

/// Whether anybody but the owner has any right to a file or folder.
///
/// # Errors
/// It can't be looked at.
pub fn is_exposed(path: &Path) -> Result<bool, DataError> {
    let metadata =
        fs::metadata(path).map_err(|source| DataError::Unreadable { path: path.to_owned(), source })?;
    Ok(metadata.mode() & OTHERS != 0)
}
