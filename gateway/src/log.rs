//! The logs of the domain: what happened, so that nobody can take it back, and the key records, so that nobody is shown
//! others. Leaves are staged by the store with what they record; here they get into the tree, under a signed head, and
//! proofs are made.

pub mod disclosure;
pub mod export;
mod guard;
pub mod reopen;
mod sequencer;
pub mod serve;
pub mod verify;
pub mod witness;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use liaison_trust::{
    digest::Digest,
    keys::{SigningKey, VerifyingKey},
    log::{
        Checkpoint, CheckpointError, Frontier, FrontierError, KeyName, LogKey, LogSigner, Node, Note,
        NoteError, NoteSignature, OpenError, Tile, TileError, TileHashes, TreeError, VkeyError, consistency,
        consistency_nodes, inclusion, inclusion_nodes, root_nodes,
    },
    names::Domain,
};
use tokio::sync::watch;

use crate::{
    data::DataError,
    limits,
    store::{LogHead, LogId, LogKind, Store, StoreError},
};

pub use guard::{Guard, Shown};
pub use sequencer::run;

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
    id: LogId,
    number: u32,
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

/// Why a log can't be read or does not grow.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the name of a log can't be made of the domain: {0}")]
    Name(#[from] VkeyError),
    #[error("the checkpoint in the database is none: {0}")]
    Note(#[from] NoteError),
    #[error("the checkpoint in the database is not this log's: {0}")]
    Open(#[from] OpenError),
    #[error("the log can't be signed: {0}")]
    Checkpoint(#[from] CheckpointError),
    #[error("the log's tree in the database is damaged: {0}")]
    Tree(#[from] TreeError),
    #[error("the log's tree in the database is damaged: {0}")]
    Frontier(#[from] FrontierError),
    #[error("the log's tree in the database is damaged: {0}")]
    Tile(#[from] TileError),
    #[error("the guard file: {0}")]
    Guard(#[from] DataError),
    #[error(
        "the database is an older copy, or another one: it does not hold the head of {0} that this gateway signed; \
         restore the newest copy, or run `liaison-gateway log reopen`, which opens a new log that names that head"
    )]
    Ahead(String),
    #[error(
        "the log's tiles lead to another root than its checkpoint says: the database was changed by hand"
    )]
    OtherRoot,
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
        if let Some(note) = Guard::read(this.guard.file())?
            && this.stands(&note).await? == Shown::Ahead
        {
            return Err(LogError::Ahead(this.signer.key().name().to_string()));
        }
        Ok(this)
    }

    /// A log as the database has it.
    async fn load(
        store: &Store,
        kind: LogKind,
        domain: &Domain,
        gateway: &SigningKey,
        folder: &Path,
    ) -> Result<Self, LogError> {
        let LogHead { log, number, size, checkpoint } = store.log_head(kind).await?;
        let secret = gateway.derived(SIGNER);
        let public = secret.public();
        let signer = LogSigner::new(origin(domain, kind, number)?, secret);
        let note = checkpoint.map(|note| Note::parse(&note)).transpose()?;
        let this = Self {
            id: log,
            number,
            signer,
            public,
            store: store.clone(),
            candidate: Mutex::default(),
            guard: Guard::new(guard_file(folder, kind)),
            head: watch::Sender::new(Head { size, root: Frontier::new().root(), note }),
        };
        let frontier = this.frontier().await?;
        let signed = this.checkpoint()?;
        let is_signed = signed.is_none_or(|signed| (signed.size(), signed.root()) == (size, frontier.root()));
        if !is_signed || (size > 0 && this.head().note.is_none()) {
            return Err(LogError::OtherRoot);
        }
        this.head.send_modify(|head| head.root = frontier.root());
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
        Ok(self.store.keep_cosigned(self.id, cosigned.as_bytes()).await?)
    }

    /// What signs its heads.
    pub fn signer(&self) -> &LogSigner {
        &self.signer
    }

    /// Its number: one that takes the place of another has the next.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// In the database.
    pub fn id(&self) -> LogId {
        self.id
    }

    /// The newest head.
    pub fn head(&self) -> Head {
        self.head.borrow().clone()
    }

    /// Tells of every new head.
    pub fn heads(&self) -> watch::Receiver<Head> {
        self.head.subscribe()
    }

    /// The inclusion proofs of leaves, each in the tree of `size` leaves.
    ///
    /// # Errors
    /// There are no such leaves, or the store lacks tiles.
    pub async fn inclusion(&self, leaves: &[u64], size: u64) -> Result<Vec<Vec<Digest>>, LogError> {
        let mut nodes = Vec::new();
        for leaf in leaves {
            nodes.extend(inclusion_nodes(*leaf, size)?);
        }
        let hashes = self.hashes(nodes, size).await?;
        let proof = |leaf: &u64| inclusion(*leaf, size, |node| hashes.hash(node));
        Ok(leaves.iter().map(proof).collect::<Result<_, _>>()?)
    }

    /// The proof that the tree of `old` leaves is the beginning of the tree of `size`.
    ///
    /// # Errors
    /// `old` is larger, or the store lacks tiles.
    pub async fn consistency(&self, old: u64, size: u64) -> Result<Vec<Digest>, LogError> {
        let hashes = self.hashes(consistency_nodes(old, size)?, size).await?;
        Ok(consistency(old, size, |node| hashes.hash(node))?)
    }

    /// The checkpoint of the newest head, if it is this log's.
    fn checkpoint(&self) -> Result<Option<Checkpoint>, OpenError> {
        self.head.borrow().note.as_ref().map(|note| self.signer.key().open(note)).transpose()
    }

    /// The right edge of the tree under the newest head.
    async fn frontier(&self) -> Result<Frontier, LogError> {
        let size = self.head.borrow().size;
        let hashes = self.hashes(root_nodes(size), size).await?;
        Ok(Frontier::read(size, |node| hashes.hash(node))?)
    }

    /// The hashes of nodes, with whatever else their tiles hold.
    async fn hashes(&self, nodes: Vec<Node>, size: u64) -> Result<TileHashes, LogError> {
        let tiles: BTreeSet<Tile> = nodes.into_iter().filter_map(|node| Tile::holding(node, size)).collect();
        Ok(self.store.tiles(self.id, tiles).await?)
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
