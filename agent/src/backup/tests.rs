use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::{
    agent::Agent,
    testing::{CANARY, Domain, add, referral, reopened},
};

const PASSPHRASE: &str = "correct horse battery";

/// An agent with one referral in its outbox, and a folder for what is made of it.
async fn agent() -> (tempfile::TempDir, tempfile::TempDir, Agent, uuid::Uuid) {
    let (dir, agent) = Domain::new().agent("shelter").await;
    let id = add(&agent.store, referral(&"be/clinic".parse().unwrap())).await;
    (dir, tempfile::tempdir().unwrap(), agent, id)
}

#[tokio::test]
async fn a_running_agent_is_backed_up_and_restored() {
    let (_dir, elsewhere, agent, id) = agent().await;
    let file = elsewhere.path().join("backup");
    // The database is open and its write-ahead log not merged.
    backup(&agent.folder, &file, PASSPHRASE).await.unwrap();
    let sealed = fs::read(&file).unwrap();
    for secret in [CANARY, b"be/clinic", agent.api_token.as_bytes()] {
        assert!(!sealed.windows(secret.len()).any(|window| window == secret));
    }
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!agent.folder.path().join("backup.part").exists());

    let later = add(&agent.store, referral(&"be/clinic".parse().unwrap())).await;
    let restored = Folder::new(elsewhere.path().join("restored"));
    restore(&restored, &file, PASSPHRASE).await.unwrap();
    let copy = Agent::open(restored.clone()).await.unwrap();
    assert_eq!((&copy.address, &*copy.api_token), (&agent.address, &*agent.api_token));
    assert!(copy.store.waiting(id).await.unwrap().is_some(), "its draft opens with the restored keys");
    assert!(copy.store.message(later).await.unwrap().is_none());
    for secret in [restored.path().to_owned(), restored.keys(), restored.tls_key(), restored.database()] {
        let mode = fs::metadata(&secret).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", secret.display());
    }
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 2, "nothing else is left");
}

#[tokio::test]
async fn nothing_is_overwritten() {
    let (_dir, elsewhere, agent, id) = agent().await;
    let file = elsewhere.path().join("backup");
    backup(&agent.folder, &file, PASSPHRASE).await.unwrap();
    let again = backup(&agent.folder, &file, PASSPHRASE).await.unwrap_err();
    assert!(matches!(again, BackupError::Exists(_)), "{again}");
    let into = restore(&agent.folder, &file, PASSPHRASE).await.unwrap_err();
    assert!(matches!(into, BackupError::NotEmpty(_)), "{into}");
    let agent = reopened(agent).await;
    assert!(agent.store.message(id).await.unwrap().is_some());

    let empty = Folder::new(elsewhere.path().join("empty"));
    fs::create_dir(empty.path()).unwrap();
    restore(&empty, &file, PASSPHRASE).await.unwrap();
    assert!(empty.config().exists());
}

#[tokio::test]
async fn what_does_not_open_leaves_nothing_behind() {
    let (_dir, elsewhere, agent, _) = agent().await;
    let file = elsewhere.path().join("backup");
    backup(&agent.folder, &file, PASSPHRASE).await.unwrap();
    let target = Folder::new(elsewhere.path().join("restored"));

    let wrong = restore(&target, &file, "incorrect horse battery").await.unwrap_err();
    assert!(matches!(wrong, BackupError::Sealed(SealError::Passphrase)), "{wrong}");

    let sealed = fs::read(&file).unwrap();
    let mut changed = sealed.clone();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(&file, &changed).unwrap();
    let damaged = restore(&target, &file, PASSPHRASE).await.unwrap_err();
    assert!(matches!(damaged, BackupError::Sealed(SealError::Damaged(_))), "{damaged}");
    fs::write(&file, &sealed[..sealed.len() / 2]).unwrap();
    let cut = restore(&target, &file, PASSPHRASE).await.unwrap_err();
    assert!(matches!(cut, BackupError::Sealed(SealError::Damaged(_))), "{cut}");

    assert!(!target.path().exists());
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1, "the backup alone");
}

#[tokio::test]
async fn a_damaged_database_is_not_backed_up() {
    let (_dir, elsewhere, agent, _) = agent().await;
    let folder = agent.folder.clone();
    agent.store.close().await;
    let mut database = fs::read(folder.database()).unwrap();
    let middle = database.len() / 2;
    database[middle..].fill(0x5a);
    fs::write(folder.database(), &database).unwrap();
    let file = elsewhere.path().join("backup");
    assert!(backup(&folder, &file, PASSPHRASE).await.is_err());
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

#[test]
fn only_the_names_of_a_backup_are_written() {
    for name in ["agent.db", "agent.toml", "keys/signing.seed", "keys/0.kem"] {
        assert!(is_known(name), "{name}");
    }
    for name in ["", "..", "../agent.db", "keys/", "keys/../x", "keys/a/b", "keys/.x", "/etc/passwd", "other"]
    {
        assert!(!is_known(name), "{name}");
    }
}
