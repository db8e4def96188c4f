//! The logs in the store: they grow by what was staged, prove it, and refuse to go on from what was changed by hand.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod engine;

use liaison_gateway::{
    data::DataFolder,
    log::{Behind, Head, LogError, Logs, SIGNER, reopen::reopen, verify::verify},
    store::{
        Act as Done, Company, Database, Leaf, LogKind, NewLeaf, QueueBound, Snapshot, Store, StoreError,
    },
};
use liaison_proto::log::v1::{Act, Opened, Record, Refused, record::Event};
use liaison_trust::{
    digest::{Digest, sha256},
    keys::SigningKey,
    log::{Checkpoint, Entry, LogSigner, Note, verify_consistency},
    names::Domain,
};
use tempfile::TempDir;
use time::OffsetDateTime;

struct Place {
    folder: TempDir,
    domain: Domain,
    signing: SigningKey,
}

impl Place {
    fn new() -> Self {
        Self {
            folder: TempDir::new().unwrap(),
            domain: "be".parse().unwrap(),
            signing: SigningKey::generate(),
        }
    }

    async fn open(&self) -> (Store, Result<Logs, LogError>) {
        let store = Store::open(&self.database().await, Company::None, QueueBound::default(), &self.signing)
            .await
            .unwrap();
        let logs = Logs::open(&store, &self.domain, &self.signing, self.folder.path()).await;
        (store, logs)
    }

    async fn database(&self) -> Database {
        engine::database(self.folder.path()).await
    }
}

/// Changes the database as somebody would who has it.
async fn by_hand(place: &Place, change: &str) {
    assert!(engine::by_hand(&place.database().await, change).await > 0, "{change}");
}

async fn stage(store: &Store, leaves: usize) {
    for number in 0..leaves {
        let act = Act { act: "test".to_owned(), subject: number.to_string() };
        store.append(NewLeaf::new(Event::Act(act), OffsetDateTime::now_utc()).unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn every_leaf_is_proven_in_every_later_head() {
    let place = Place::new();
    let (store, logs) = place.open().await;
    let log = logs.unwrap().evidence;
    assert!(log.head().note.is_none());
    log.grow().await.unwrap();
    assert!(log.head().note.is_none(), "nothing to sign");
    let mut heads = Vec::new();
    for grown in [1, 1, 5, 249, 1, 300] {
        stage(&store, grown).await;
        log.grow().await.unwrap();
        heads.push(log.head());
    }
    let last = heads.last().unwrap();
    assert_eq!(last.size, 557);
    let signed = log.signer().key().open(last.note.as_ref().unwrap()).unwrap();
    assert_eq!((signed.size(), signed.root(), signed.origin()), (557, last.root, "be/log/1"));
    for head in &heads {
        let proof = log.tree().consistency(head.size, last.size).await.unwrap();
        verify_consistency(head.size, &head.root, last.size, &last.root, &proof).unwrap();
        let checkpoint = log.signer().key().open(head.note.as_ref().unwrap()).unwrap();
        let leaves = store.leaves(log.tree().id(), 0, 1_000).await.unwrap();
        let indexes: Vec<u64> = (0..head.size).collect();
        for (index, proof) in indexes.iter().zip(log.tree().inclusion(&indexes, head.size).await.unwrap()) {
            let leaf = &leaves[*index as usize];
            let entry = leaf.record.as_ref().unwrap().entry();
            assert_eq!(entry, Entry::from(<[u8; 32]>::try_from(leaf.entry.as_slice()).unwrap()));
            entry.verify_in(&checkpoint, *index, &proof).unwrap();
        }
    }
}

#[tokio::test]
async fn a_log_goes_on_where_it_was_after_a_restart() {
    let place = Place::new();
    let (store, logs) = place.open().await;
    let log = logs.unwrap().evidence;
    stage(&store, 3).await;
    log.grow().await.unwrap();
    let before = log.head();
    stage(&store, 2).await;
    store.close().await;
    let (_store, logs) = place.open().await;
    let log = logs.unwrap().evidence;
    assert_eq!((log.head().size, log.head().root), (3, before.root));
    log.grow().await.unwrap();
    let after = log.head();
    let proof = log.tree().consistency(3, 5).await.unwrap();
    verify_consistency(3, &before.root, 5, &after.root, &proof).unwrap();
}

#[tokio::test]
async fn nothing_is_signed_on_top_of_what_was_changed_by_hand() {
    for change in [
        &format!("UPDATE tile SET hashes = x'{}'", "00".repeat(96)),
        "DELETE FROM tile",
        "UPDATE log SET size = size - 1",
        "UPDATE log SET checkpoint = NULL",
        "DELETE FROM leaf WHERE idx = 4",
    ] {
        let place = Place::new();
        let (store, logs) = place.open().await;
        let log = logs.unwrap().evidence;
        stage(&store, 3).await;
        log.grow().await.unwrap();
        stage(&store, 3).await;
        by_hand(&place, change).await;
        let grown = log.grow().await;
        // That is written anew with the next head, whatever was there.
        let is_replaced = change.ends_with("checkpoint = NULL");
        assert_eq!(grown.is_err(), !is_replaced, "{change}: {grown:?}");
        if is_replaced {
            // The head in memory stands; at the next start the file's is looked at.
            by_hand(&place, change).await;
        }
        store.close().await;
        let (_store, logs) = place.open().await;
        let refused = logs.err().is_some();
        assert_eq!(refused, !change.starts_with("DELETE FROM leaf"), "{change} at start");
    }
}

/// Whoever can write the database and has no key puts leaves in.
#[tokio::test]
async fn a_leaf_that_this_gateway_did_not_stage_is_not_signed() {
    let (digest, id) = ("5a".repeat(32), "5a".repeat(16));
    for change in [
        // A copy of an honest one at the end; a code of nobody's; none; another entry, thread or message under an honest code.
        "INSERT INTO leaf SELECT log, 6, entry, salt, record, message, thread, readers, mac FROM leaf WHERE idx = 5",
        &format!(
            "INSERT INTO leaf SELECT log, 6, entry, salt, record, message, thread, readers, x'{digest}' FROM leaf WHERE idx = 5"
        ),
        "UPDATE leaf SET mac = x'' WHERE idx = 4",
        &format!("UPDATE leaf SET entry = x'{digest}' WHERE idx = 4"),
        &format!("UPDATE leaf SET message = x'{id}' WHERE idx = 4"),
        &format!("UPDATE leaf SET thread = x'{id}' WHERE idx = 4"),
    ] {
        let place = Place::new();
        let (store, logs) = place.open().await;
        let log = logs.unwrap().evidence;
        stage(&store, 3).await;
        log.grow().await.unwrap();
        stage(&store, 3).await;
        by_hand(&place, change).await;
        let index = if change.starts_with("INSERT") { 6 } else { 4 };
        let refused = log.grow().await.unwrap_err();
        assert!(
            matches!(refused, LogError::Store(StoreError::ForeignLeaf(at)) if at == index),
            "{change}: {refused}"
        );
        assert_eq!(log.head().size, 3, "{change}");
        // Nor once it was started anew, with honest leaves behind it.
        store.close().await;
        let (store, logs) = place.open().await;
        let log = logs.unwrap().evidence;
        stage(&store, 1).await;
        log.grow().await.unwrap_err();
        assert_eq!(log.head().size, 3, "{change}");
    }
}

/// What `log verify` finds of a head that a new log names as the one before it.
async fn named_as_previous(previous: impl Fn(&Head, &Place) -> String) -> Vec<&'static str> {
    let place = Place::new();
    let (store, logs) = place.open().await;
    let log = logs.unwrap().evidence;
    stage(&store, 3).await;
    log.grow().await.unwrap();
    let opened = Opened { previous: previous(&log.head(), &place) };
    let now = OffsetDateTime::now_utc();
    let first = NewLeaf::new(Event::Opened(opened), now).unwrap();
    let act = Done { at: now, actor: "test", act: "reopen_log", subject: "be" };
    store.reopen_log(LogKind::Evidence, 2, Some(first), act).await.unwrap();
    store.close().await;
    let (store, logs) = place.open().await;
    logs.unwrap().evidence.grow().await.unwrap();
    store.close().await;
    let mut snapshot = Snapshot::of(&place.database().await).await.unwrap();
    let key = (&place.signing, place.folder.path());
    let report = verify(&mut snapshot, &place.domain, key, now).await.unwrap();
    let faults = report.faults.listed.iter().map(|fault| fault.code);
    // There is no policy set here, and what was staged for the test stands in no audit.
    faults.filter(|code| !matches!(*code, "changed_policy" | "audit_removed")).collect()
}

#[tokio::test]
async fn a_log_names_the_head_before_it_that_this_gateway_signed() {
    let other = SigningKey::generate();
    let signed = |key: &SigningKey, origin: &str, (size, root): (u64, Digest)| {
        let checkpoint = Checkpoint::new(&origin.parse().unwrap(), size, root).unwrap();
        let signer = LogSigner::new(origin.parse().unwrap(), key.derived(SIGNER));
        signer.sign_checkpoint(&checkpoint).unwrap().to_string()
    };
    let named = async |origin: &str, size: Option<u64>, root: Option<Digest>, is_other: bool| {
        named_as_previous(|head, place| {
            let key = if is_other { &other } else { &place.signing };
            signed(key, origin, (size.unwrap_or(head.size), root.unwrap_or(head.root)))
        })
        .await
    };
    let root = Some(sha256(b"another"));
    assert!(named("be/log/1", None, None, false).await.is_empty());
    // A longer one that was lost can't be compared.
    assert!(named("be/log/1", Some(9), root, false).await.is_empty());
    for wrong in [
        named("be/log/1", None, None, true).await,
        named("be/log/1", None, root, false).await,
        named("be/log/1", Some(2), root, false).await,
        named("be/log/2", None, None, false).await,
        named("hu/log/1", None, None, false).await,
        named_as_previous(|_, _| "nothing".to_owned()).await,
    ] {
        assert_eq!(wrong, ["wrong_previous"]);
    }
}

/// A head that the gateway signed of a log, whatever it has.
fn signed(place: &Place, origin: &str, size: u64) -> Note {
    let signer = LogSigner::new(origin.parse().unwrap(), place.signing.derived("log-key/v1"));
    signer.sign(size, Digest([9; 32])).unwrap()
}

fn refused(number: u8) -> NewLeaf {
    let event = Refused {
        sender: "be/police".to_owned(),
        message_id: vec![number; 16].into(),
        thread: vec![number; 16].into(),
        ..Refused::default()
    };
    NewLeaf::new(Event::Refused(event), OffsetDateTime::now_utc()).unwrap()
}

fn event(leaf: &Leaf) -> Event {
    let record: Record = prost::Message::decode(leaf.record.as_ref().unwrap().record()).unwrap();
    record.event.unwrap()
}

#[tokio::test]
async fn what_was_staged_behind_the_last_head_goes_into_the_new_log() {
    let place = Place::new();
    let (store, logs) = place.open().await;
    let log = logs.unwrap().evidence;
    stage(&store, 3).await;
    log.grow().await.unwrap();
    let before = log.head();
    for number in [1, 2] {
        store.append(refused(number)).await.unwrap();
    }
    let file = place.folder.path().join("log.head");
    std::fs::write(&file, signed(&place, "be/log/1", 40).to_string()).unwrap();
    store.close().await;
    let (store, ahead) = place.open().await;
    assert!(matches!(ahead.err(), Some(LogError::Ahead { size: 40, behind: Behind::Fewer(3), .. })));

    let folder = DataFolder::new(place.folder.path().to_owned());
    let at = OffsetDateTime::now_utc();
    let act = Done { at, actor: "test", act: "reopen_log", subject: "be" };
    let opened = reopen(&folder, (&store, &place.domain, &place.signing), act).await.unwrap();
    let origin = format!("be/log/{}", at.unix_timestamp());
    assert_eq!((opened[0].origin.clone(), opened[0].before.clone()), (origin, ("be/log/1".to_owned(), 40)));
    store.close().await;
    let (store, logs) = place.open().await;
    let log = logs.unwrap().evidence;
    let leaves = store.leaves(log.tree().id(), 0, 10).await.unwrap();
    assert_eq!((leaves.len(), log.head().size), (4, 4), "all are under its head");
    assert!(matches!(event(&leaves[0]), Event::Opened(opened) if opened.previous.contains("be/log/1\n40\n")));
    for (leaf, number) in leaves[1..3].iter().zip([1_u8, 2]) {
        assert!(matches!(event(leaf), Event::Refused(refused) if refused.message_id == vec![number; 16]));
        assert_eq!(leaf.about, refused(number).about);
    }
    assert!(matches!(event(&leaves[3]), Event::Act(act) if act.act == "reopen_log"));
    // The log before is as it was signed.
    let (tree, head) = log.numbered(1).await.unwrap().unwrap();
    assert_eq!(
        (head.size, head.root, store.leaves(tree.id(), 0, 10).await.unwrap().len()),
        (3, before.root, 3)
    );

    // Whatever the clock says, the next one is higher than all that are known.
    std::fs::write(&file, signed(&place, "be/log/4000000000", 1).to_string()).unwrap();
    let opened = reopen(&folder, (&store, &place.domain, &place.signing), act).await.unwrap();
    let number: u32 = opened[0].origin.strip_prefix("be/log/").unwrap().parse().unwrap();
    assert!((4_000_000_001..=4_000_065_536).contains(&number), "{number}");
}

/// What is staged anew gets a new code: only what the code of before was over.
#[tokio::test]
async fn no_log_is_opened_with_what_was_changed_by_hand() {
    for change in [
        "UPDATE leaf SET record = x'00' WHERE idx = 4",
        &format!("UPDATE leaf SET salt = x'{}' WHERE idx = 4", "00".repeat(32)),
        "UPDATE leaf SET (salt, record) = (SELECT salt, record FROM leaf WHERE idx = 5) WHERE idx = 4",
        "UPDATE leaf SET salt = NULL, record = NULL, readers = '' WHERE idx = 4",
        "UPDATE leaf SET entry = (SELECT entry FROM leaf WHERE idx = 5) WHERE idx = 4",
        "DELETE FROM leaf WHERE idx = 4",
    ] {
        let place = Place::new();
        let (store, logs) = place.open().await;
        let log = logs.unwrap().evidence;
        stage(&store, 3).await;
        log.grow().await.unwrap();
        stage(&store, 3).await;
        by_hand(&place, change).await;
        std::fs::write(place.folder.path().join("log.head"), signed(&place, "be/log/1", 40).to_string())
            .unwrap();
        let folder = DataFolder::new(place.folder.path().to_owned());
        let act = Done { at: OffsetDateTime::now_utc(), actor: "test", act: "reopen_log", subject: "be" };
        let refused = reopen(&folder, (&store, &place.domain, &place.signing), act).await.err();
        let missing = change.starts_with("DELETE");
        match refused {
            Some(LogError::Store(StoreError::ForeignLeaf(4))) if !missing => {}
            Some(LogError::Store(StoreError::Corrupt(_))) if missing => {}
            other => panic!("{change}: {other:?}"),
        }
        assert_eq!(store.log_head(LogKind::Evidence).await.unwrap().number, 1, "{change}");
    }
}

/// The highest number is taken: none can follow.
#[tokio::test]
async fn a_log_of_the_highest_number_has_none_that_follows() {
    let place = Place::new();
    let (store, logs) = place.open().await;
    let log = logs.unwrap().evidence;
    stage(&store, 3).await;
    log.grow().await.unwrap();
    let last = signed(&place, "be/log/4294967295", 40).to_string();
    std::fs::write(place.folder.path().join("log.head"), last).unwrap();
    let folder = DataFolder::new(place.folder.path().to_owned());
    let act = Done { at: OffsetDateTime::now_utc(), actor: "test", act: "reopen_log", subject: "be" };
    let refused = reopen(&folder, (&store, &place.domain, &place.signing), act).await.err();
    assert!(matches!(refused, Some(LogError::NoNumber(_))), "{refused:?}");
}

#[tokio::test]
async fn the_guard_keeps_the_highest_head_that_is_shown() {
    let place = Place::new();
    let (store, logs) = place.open().await;
    let log = logs.unwrap().evidence;
    stage(&store, 3).await;
    log.grow().await.unwrap();
    let file = place.folder.path().join("log.head");
    let kept = || std::fs::read_to_string(&file).unwrap().lines().take(2).collect::<Vec<_>>().join(" ");
    for (origin, size, expected) in [
        ("be/log/1", 5, "be/log/1 5"),
        ("be/log/1", 9, "be/log/1 9"),
        ("be/log/1", 7, "be/log/1 9"),
        ("be/log/1700000000", 2, "be/log/1700000000 2"),
        ("be/log/1", 80, "be/log/1700000000 2"),
    ] {
        log.shown(&signed(&place, origin, size)).await.unwrap().known().unwrap_err();
        assert_eq!(kept(), expected, "{origin} {size}");
    }
    // What is none of this gateway's changes nothing.
    let other = LogSigner::new("be/log/1".parse().unwrap(), SigningKey::generate());
    log.shown(&other.sign(900, Digest([1; 32])).unwrap()).await.unwrap().known().unwrap();
    assert_eq!(kept(), "be/log/1700000000 2");
}

#[tokio::test]
async fn each_way_of_being_behind_is_told_for_itself() {
    let place = Place::new();
    let (store, logs) = place.open().await;
    let log = logs.unwrap().evidence;
    stage(&store, 3).await;
    log.grow().await.unwrap();
    for (origin, size, says) in [
        ("be/log/9", 1, "no such log"),
        ("be/log/1", 4, "has 3 of them"),
        ("be/log/1", 3, "other leaves in their place"),
        ("be/log/1", 2, "other leaves in their place"),
    ] {
        let fault = log.shown(&signed(&place, origin, size)).await.unwrap().known().unwrap_err().to_string();
        assert!(fault.contains(says) && fault.contains("older copy"), "{fault}");
    }
}
