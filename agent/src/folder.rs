//! The agent's data folder: where each file lies, and how files are replaced so that a crash leaves
//! the old one or the new one, never a part.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// A data folder.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

/// A file that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct FolderError {
    path: PathBuf,
    source: io::Error,
}

impl FolderError {
    /// Whether the file is not there.
    pub fn is_missing(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// A file whose content is not what it should be.
    pub fn damaged(path: &Path, why: impl std::fmt::Display) -> Self {
        Self { path: path.to_owned(), source: io::Error::new(io::ErrorKind::InvalidData, why.to_string()) }
    }
}

impl Folder {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// agent.toml, see [`crate::config::Config`].
    pub fn config(&self) -> PathBuf {
        self.0.join("agent.toml")
    }

    /// The certificate chain, PEM, leaf first.
    pub fn certificate(&self) -> PathBuf {
        self.0.join("agent.pem")
    }

    /// The certificate's private key, PEM.
    pub fn tls_key(&self) -> PathBuf {
        self.0.join("agent.key")
    }

    /// The domain's CA certificates, PEM.
    pub fn roots(&self) -> PathBuf {
        self.0.join("roots.pem")
    }

    /// The Ed25519 key with which the gateway signs, hexadecimal.
    pub fn gateway_key(&self) -> PathBuf {
        self.0.join("gateway.pub")
    }

    /// The Ed25519 key with which the heads of the domain's log are signed, hexadecimal.
    pub fn log_key(&self) -> PathBuf {
        self.0.join("log.pub")
    }

    /// Signing, KEM and vault keys, see [`crate::custody`].
    pub fn keys(&self) -> PathBuf {
        self.0.join("keys")
    }

    pub fn database(&self) -> PathBuf {
        self.0.join("agent.db")
    }

    /// The bearer token of the case API.
    pub fn api_token(&self) -> PathBuf {
        self.0.join("api-token")
    }
}

/// Makes a folder that only its owner may enter, with those above it.
pub fn create_private_dir(path: &Path) -> Result<(), FolderError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at(path))
}

/// Reads a whole file.
pub fn read(path: &Path) -> Result<Vec<u8>, FolderError> {
    fs::read(path).map_err(at(path))
}

/// Reads a text file.
pub fn read_text(path: &Path) -> Result<String, FolderError> {
    fs::read_to_string(path).map_err(at(path))
}

/// Writes or replaces a file that only its owner may read: durable, and whole or not at all.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), FolderError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&part, path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(at(path))
}

/// Overwrites and removes a secret; it is no fault if it is not there.
pub fn destroy(path: &Path) -> Result<(), FolderError> {
    let destroy = || -> io::Result<()> {
        let length = fs::metadata(path)?.len();
        let mut file = OpenOptions::new().write(true).open(path)?;
        file.write_all(&vec![0; usize::try_from(length).unwrap_or(0)])?;
        file.sync_all()?;
        fs::remove_file(path)
    };
    match destroy() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(at(path)),
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    move |source| FolderError { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_private_file_is_private_replaced_whole_and_destroyed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys/secret");
        create_private_dir(path.parent().unwrap()).unwrap();
        write_private(&path, b"one").unwrap();
        write_private(&path, b"two").unwrap();
        assert_eq!(read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no part is left");
        destroy(&path).unwrap();
        destroy(&path).unwrap();
        assert!(read(&path).unwrap_err().is_missing());
    }
}
