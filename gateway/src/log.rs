//! The logs of the domain: what happened, so that nobody can take it back, and the key records, so that nobody is shown
//! others. Leaves are staged by the store with what they record; here they get into the tree, under a signed head, and
//! proofs are made.

pub mod disclosure;
pub mod export;
mod fault;
mod guard;
pub mod reopen;
mod sequencer;
pub mod serve;
mod tree;
pub mod verify;
pub mod witness;

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use liaison_trust::{
    digest::Digest,
    keys::{SigningKey, VerifyingKey},
    log::{KeyName, LogKey, LogSigner, Note, NoteSignature, VkeyError, empty_root},
    names::Domain,
};
use tokio::sync::watch;

use crate::{
    limits,
    store::{LogHead, LogKind, Store},
};

pub use fault::{Behind, LogError};
pub use guard::{Guard, Shown};
pub use sequencer::run;
pub use tree::Tree;

/// Under this label the key that signs heads follows from the gateway's.
pub const SIGNER: &str = "log-key/v1";
/// The administrative act by which a record is erased; its subject is [`subject`].
pub const ERASE: &str = "erase_record";
/// Under this label the key that cosigns others' heads follows from the gateway's.
pub const WITNESS: &str = "witness-key/v1";

/// The logs of a domain, those that grow.
pub struct Logs {
    /// What happened to messages, and what administrators did.
    pub evidence: Log,
    /// Key records, in clear.
    pub keys: Log,
}

/// A log that grows.
pub struct Log {
    domain: Domain,
    kind: LogKind,
    number: u32,
    tree: Tree,
    signer: LogSigner,
    public: VerifyingKey,
    store: Store,
    head: watch::Sender<Head>,
    /// The head that witnesses are asked to cosign, with what they did; and since when.
    candidate: Mutex<Option<(Instant, Note)>>,
    guard: Guard,
}

/// The newest head of a log.
#[derive(Debug, Clone)]
pub struct Head {
    pub size: u64,
    pub root: Digest,
    /// The signed checkpoint; none while the log is empty.
    pub note: Option<Note>,
}

impl Logs {
    /// Opens the logs of a domain, whose gateway signs with this key, and whose guard files are in this folder.
    ///
    /// # Errors
    /// What the database holds of them is not what was signed.
    pub async fn open(
        store: &Store,
        domain: &Domain,
        gateway: &SigningKey,
        folder: &Path,
    ) -> Result<Self, LogError> {
        Ok(Self {
            evidence: Log::open(store, LogKind::Evidence, domain, gateway, folder).await?,
            keys: Log::open(store, LogKind::Keys, domain, gateway, folder).await?,
        })
    }

    /// Both.
    pub fn all(&self) -> [&Log; 2] {
        [&self.evidence, &self.keys]
    }
}

impl Log {
    /// A log that goes on from every head that the guard file has.
    async fn open(
        store: &Store,
        kind: LogKind,
        domain: &Domain,
        gateway: &SigningKey,
        folder: &Path,
    ) -> Result<Self, LogError> {
        let this = Self::load(store, kind, domain, gateway, folder).await?;
        if let Some(note) = Guard::read(this.guard.file())? {
            this.stands(&note).await?.known()?;
        }
        Ok(this)
    }

    /// Whether it is the first of its kind, or begins with a leaf that this gateway staged when it took the place of
    /// another one.
    ///
    /// # Errors
    /// It does not, or the store failed.
    async fn begins(&self) -> Result<(), LogError> {
        if self.number == 1 {
            return Ok(());
        }
        let first = self.store.staged((self.tree.id(), (self.kind, self.number)), 0, 1).await?;
        // Where there was no key, none was taken over.
        let may_be_empty = self.kind == LogKind::Keys && self.store.keys().await?.is_empty();
        if first.is_empty() && !may_be_empty { Err(LogError::NotOpened(self.origin())) } else { Ok(()) }
    }

    /// A log as the database has it.
    async fn load(
        store: &Store,
        kind: LogKind,
        domain: &Domain,
        gateway: &SigningKey,
        folder: &Path,
    ) -> Result<Self, LogError> {
        let LogHead { log, number, .. } = store.log_head(kind).await?;
        let secret = gateway.derived(SIGNER);
        let public = secret.public();
        let signer = LogSigner::new(origin(domain, kind, number)?, secret);
        let this = Self {
            domain: domain.clone(),
            kind,
            number,
            tree: Tree::new(store, log),
            signer,
            public,
            store: store.clone(),
            candidate: Mutex::default(),
            guard: Guard::new(guard_file(folder, kind)),
            head: watch::Sender::new(Head { size: 0, root: empty_root(), note: None }),
        };
        this.begins().await?;
        if let Some((tree, head)) = this.read(number).await? {
            if tree.frontier(head.size).await?.root() != head.root {
                return Err(LogError::OtherRoot(this.origin()));
            }
            this.head.send_replace(head);
        }
        Ok(this)
    }

    /// What keeps it from going on from an older copy.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// The head that witnesses are to cosign: the newest, but none sooner than [`limits::LOG_COSIGN`] after another.
    pub fn candidate(&self) -> Option<Note> {
        let mut candidate = self.candidate.lock().unwrap_or_else(PoisonError::into_inner);
        if candidate.as_ref().is_none_or(|(since, _)| since.elapsed() >= limits::LOG_COSIGN) {
            *candidate = self.head().note.map(|note| (Instant::now(), note));
        }
        candidate.as_ref().map(|(_, note)| note.clone())
    }

    /// A witness cosigned a head; it is kept with its cosignatures if it is still the one that they are asked for.
    ///
    /// # Errors
    /// The database failed, or the note has no room.
    pub async fn cosigned(&self, text: &str, signature: NoteSignature) -> Result<(), LogError> {
        let cosigned = {
            let mut candidate = self.candidate.lock().unwrap_or_else(PoisonError::into_inner);
            let Some((_, note)) = candidate.as_mut().filter(|(_, note)| note.text() == text) else {
                return Ok(());
            };
            *note = note.clone().with(signature)?;
            note.to_string()
        };
        Ok(self.store.keep_cosigned(self.tree.id(), cosigned.as_bytes()).await?)
    }

    /// What signs its heads.
    pub fn signer(&self) -> &LogSigner {
        &self.signer
    }

    /// Its tree.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Its number: 1, or the moment at which it took the place of another one, in Unix seconds.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Of which domain and kind it is: its origin without the number.
    pub fn kind_of(&self) -> String {
        format!("{}/{}", self.domain, self.kind.name())
    }

    /// Its origin.
    fn origin(&self) -> String {
        self.signer.key().name().to_string()
    }

    /// The newest head.
    pub fn head(&self) -> Head {
        self.head.borrow().clone()
    }

    /// Tells of every new head.
    pub fn heads(&self) -> watch::Receiver<Head> {
        self.head.subscribe()
    }

    /// A log of this kind by its number: this one, or one whose place another has taken, which is never signed again,
    /// under the head that the database holds of it.
    ///
    /// # Errors
    /// Its head is not what this gateway signed, or the database failed.
    pub async fn numbered(&self, number: u32) -> Result<Option<(Tree, Head)>, LogError> {
        // The database shows a new head a moment before this log stands by it.
        if number == self.number {
            return Ok(Some((self.tree.clone(), self.head())));
        }
        self.read(number).await
    }

    async fn read(&self, number: u32) -> Result<Option<(Tree, Head)>, LogError> {
        let Some(LogHead { log, size, checkpoint, .. }) = self.store.log(self.kind, number).await? else {
            return Ok(None);
        };
        let origin = origin(&self.domain, self.kind, number)?;
        let note = checkpoint.map(|note| Note::parse(&note)).transpose()?;
        let key = LogKey::new(origin, self.public);
        let signed = note.as_ref().map(|note| key.open(note)).transpose()?;
        let root = match &signed {
            Some(signed) if signed.size() == size => signed.root(),
            None if size == 0 => empty_root(),
            Some(_) => return Err(LogError::OtherSize(key.name().to_string())),
            None => return Err(LogError::NoCheckpoint(key.name().to_string())),
        };
        Ok(Some((Tree::new(&self.store, log), Head { size, root, note })))
    }
}

/// The key by which others verify the heads of a domain's log.
///
/// # Errors
/// The domain is too long for the name of a log.
pub fn log_key(
    domain: &Domain,
    kind: LogKind,
    number: u32,
    gateway: &SigningKey,
) -> Result<LogKey, VkeyError> {
    Ok(LogKey::new(origin(domain, kind, number)?, gateway.derived(SIGNER).public()))
}

/// How an act names a leaf.
pub fn subject(origin: &str, index: u64) -> String {
    format!("{origin} {index}")
}

/// Where the guard of a log is kept.
pub fn guard_file(folder: &Path, kind: LogKind) -> PathBuf {
    folder.join(format!("{}.head", kind.name()))
}

/// The origin of a domain's log.
pub fn origin(domain: &Domain, kind: LogKind, number: u32) -> Result<KeyName, VkeyError> {
    format!("{domain}/{}/{number}", kind.name()).parse()
}
