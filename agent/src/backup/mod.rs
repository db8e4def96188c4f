//! Backup and restore: the keys, the configuration, the inbox and the outbox in one encrypted file, for
//! the day the machine dies.

mod sealed;

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

pub use sealed::SealError;
use sealed::{Opener, Sealer, from_read};

use crate::{
    config::{Config, ConfigError},
    custody::{Custody, CustodyError},
    folder::{self, Folder, FolderError},
};

/// A passphrase may not be shorter, characters.
pub const PASSPHRASE_CHARS: usize = 12;
/// Files in one backup.
const FILES: usize = 4_096;
/// The database as it stands in a backup.
const DATABASE: &str = "agent.db";
/// The files of the data folder that a backup holds beside the database and what is in `keys`.
const FILES_OF_FOLDER: [&str; 6] =
    ["agent.toml", "agent.pem", "agent.key", "roots.pem", "gateway.pub", "api-token"];
/// The same, where the gateway has told the key of its log.
const LOG_KEY: &str = "log.pub";

/// Why there is no backup, or nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("{} exists already; give another name", .0.display())]
    Exists(PathBuf),
    #[error("{} is not empty; restore into a folder that is not there yet, or move the old one away", .0.display())]
    NotEmpty(PathBuf),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Keys(#[from] CustodyError),
    #[error("the agent's database failed: {0}")]
    Database(#[from] sqlx::Error),
    #[error("the agent's database is damaged: {0}")]
    Integrity(String),
    #[error(transparent)]
    Sealed(#[from] SealError),
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
}

/// Backs a data folder up into `target`, which must not exist yet. The agent may run meanwhile.
pub async fn backup(folder: &Folder, target: &Path, passphrase: &str) -> Result<(), BackupError> {
    Config::load(folder)?;
    if target.exists() {
        return Err(BackupError::Exists(target.to_owned()));
    }
    // Beside the database: on the same disk, and in a folder that nobody else may enter.
    let scratch = Scratch::new(folder.path().join("backup.part"))?;
    let snapshot = scratch.0.join(DATABASE);
    take_snapshot(&folder.database(), &snapshot).await?;
    let mut files = vec![(DATABASE.to_owned(), snapshot)];
    // After the database, so that no key is missing which it needs.
    for name in FILES_OF_FOLDER {
        files.push((name.to_owned(), folder.path().join(name)));
    }
    if folder.log_key().exists() {
        files.push((LOG_KEY.to_owned(), folder.log_key()));
    }
    for entry in fs::read_dir(folder.keys()).map_err(at(&folder.keys()))? {
        let path = entry.map_err(at(&folder.keys()))?.path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|name| is_plain(name)) {
            files.push((format!("keys/{name}"), path));
        }
    }
    let mut part = target.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let written =
        write(&part, &files, passphrase).and_then(|()| fs::rename(&part, target).map_err(at(target)));
    if written.is_err() {
        // What is incomplete is of no use; the error says why it is.
        let _ = fs::remove_file(&part);
    }
    written
}

/// Restores a backup into a data folder that is empty or not there. Nothing is there before all of it
/// was checked.
pub async fn restore(folder: &Folder, source: &Path, passphrase: &str) -> Result<(), BackupError> {
    let target = folder.path();
    let empty = fs::read_dir(target).map(|mut entries| entries.next().is_none());
    if !empty.as_ref().map_or_else(|error| error.kind() == io::ErrorKind::NotFound, |empty| *empty) {
        return Err(BackupError::NotEmpty(target.to_owned()));
    }
    let mut part = target.as_os_str().to_owned();
    part.push(".restore");
    let scratch = Scratch::new(PathBuf::from(part))?;
    read(source, &scratch.0, passphrase)?;

    let restored = Folder::new(&scratch.0);
    let config = Config::load(&restored)?;
    Custody::open(&restored, &config.agency)?;
    Custody::note_restored(&restored)?;
    check_database(&restored.database()).await?;
    File::open(&scratch.0).and_then(|folder| folder.sync_all()).map_err(at(&scratch.0))?;
    // An empty folder gives way to the one that is put in its place.
    fs::rename(&scratch.0, target).map_err(at(target))
}

/// A folder that nobody else may enter, and that is gone in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(path: PathBuf) -> Result<Self, BackupError> {
        // What an earlier attempt left that was killed.
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&path)(error)),
            _ => {}
        }
        folder::create_private_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It is not there any more where it was put in its place.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A copy of the database as of one moment, while others may write to it.
async fn take_snapshot(database: &Path, snapshot: &Path) -> Result<(), BackupError> {
    let mut connection = connect(database).await?;
    let path = snapshot
        .to_str()
        .ok_or_else(|| at(snapshot)(io::Error::new(io::ErrorKind::InvalidInput, "the path is not UTF-8")))?;
    sqlx::query("VACUUM INTO ?").bind(path).execute(&mut connection).await?;
    connection.close().await?;
    check_database(snapshot).await
}

/// Checks that a database is whole.
pub async fn check_database(path: &Path) -> Result<(), BackupError> {
    let mut connection = connect(path).await?;
    let verdict: String = sqlx::query_scalar("PRAGMA integrity_check(1)").fetch_one(&mut connection).await?;
    connection.close().await?;
    if verdict == "ok" { Ok(()) } else { Err(BackupError::Integrity(verdict)) }
}

async fn connect(path: &Path) -> Result<SqliteConnection, BackupError> {
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(Duration::from_secs(5));
    Ok(SqliteConnection::connect_with(&options).await?)
}

/// Each file as the length of its name, its name, its length, its content; an empty name ends.
fn write(target: &Path, files: &[(String, PathBuf)], passphrase: &str) -> Result<(), BackupError> {
    let create = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(target);
    let sink = io::BufWriter::new(create.map_err(at(target))?);
    let mut sealer = Sealer::new(sink, passphrase.as_bytes())?;
    for (name, path) in files {
        let mut file = File::open(path).map_err(at(path))?;
        let length = file.metadata().map_err(at(path))?.len();
        let name = name.as_bytes();
        let mut put = || -> io::Result<()> {
            sealer.write_all(&u16::try_from(name.len()).map_err(io::Error::other)?.to_be_bytes())?;
            sealer.write_all(name)?;
            sealer.write_all(&length.to_be_bytes())?;
            if io::copy(&mut (&mut file).take(length), &mut sealer)? == length {
                Ok(())
            } else {
                Err(io::Error::other("it became shorter while it was read"))
            }
        };
        put().map_err(at(path))?;
    }
    sealer.write_all(&[0, 0]).map_err(at(target))?;
    let file = sealer.finish()?.into_inner().map_err(|error| at(target)(error.into_error()))?;
    file.sync_all().map_err(at(target))
}

/// Opens a backup into the folder.
fn read(source: &Path, into: &Path, passphrase: &str) -> Result<(), BackupError> {
    let file = File::open(source).map_err(at(source))?;
    let mut opener = Opener::new(io::BufReader::new(file), passphrase.as_bytes())?;
    folder::create_private_dir(&into.join("keys"))?;
    let mut seen = BTreeSet::new();
    while let Some((name, length)) = next_file(&mut opener)? {
        if !is_known(&name) || !seen.insert(name.clone()) || seen.len() > FILES {
            return Err(SealError::Damaged("it holds what no backup holds").into());
        }
        let path = into.join(&name);
        let create = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let mut file = create.map_err(at(&path))?;
        let copied = io::copy(&mut (&mut opener).take(length), &mut file).map_err(from_read)?;
        if copied != length {
            return Err(SealError::Damaged("it ends too early").into());
        }
        file.sync_all().map_err(at(&path))?;
    }
    opener.finish()?;
    if FILES_OF_FOLDER.iter().any(|name| !seen.contains(*name)) || !seen.contains(DATABASE) {
        return Err(SealError::Damaged("a file is missing in it").into());
    }
    Ok(())
}

fn next_file(from: &mut impl Read) -> Result<Option<(String, u64)>, BackupError> {
    let mut length = [0; 2];
    from.read_exact(&mut length).map_err(from_read)?;
    if length == [0, 0] {
        return Ok(None);
    }
    let mut name = vec![0; usize::from(u16::from_be_bytes(length))];
    from.read_exact(&mut name).map_err(from_read)?;
    let name = String::from_utf8(name).map_err(|_| SealError::Damaged("a name in it is no text"))?;
    let mut length = [0; 8];
    from.read_exact(&mut length).map_err(from_read)?;
    Ok(Some((name, u64::from_be_bytes(length))))
}

/// Only names that a backup holds are written to the disk.
fn is_known(name: &str) -> bool {
    name == DATABASE
        || name == LOG_KEY
        || FILES_OF_FOLDER.contains(&name)
        || name.strip_prefix("keys/").is_some_and(is_plain)
}

fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && !name.ends_with(".part")
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    move |source| BackupError::File { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
