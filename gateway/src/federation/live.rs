//! What goes on with a peer: its links, what it does against the rules, what it and this domain ask of one another.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use liaison_proto::message::v1::{Refusal, error_code::Code as ErrorCode};
use liaison_trust::names::AgencyAddress;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::told::Told;
use crate::limits;

/// What goes on with a peer, whatever its bundle.
pub struct Live {
    /// Told when something was queued for it.
    pub(super) wake: Notify,
    /// What it was told of this domain's directory.
    pub(super) told: tokio::sync::Mutex<Told>,
    /// Taken one after another, so that an older bundle never follows a newer one.
    pub(super) renewing: tokio::sync::Mutex<()>,
    /// The newest bundle of this domain that it has taken: its sequence.
    taken: AtomicU64,
    pub(super) violations: AtomicU64,
    previews: Mutex<(Instant, u32)>,
    /// Previews that agencies of this domain had asked of it since then.
    asked: Mutex<(Instant, BTreeMap<AgencyAddress, u32>)>,
    standing: Mutex<Standing>,
    connections: Arc<Semaphore>,
    links: Arc<Semaphore>,
}

pub(super) struct Standing {
    /// The connection of the link to it, while it stands.
    channel: Option<Channel>,
    /// When there was such a link last.
    linked_at: Instant,
    /// Replaces the link from it that stands.
    link_from: Option<CancellationToken>,
    /// What is wrong with the link to it.
    problem: Option<String>,
    /// What this gateway refuses of what comes from it.
    pub(super) refused: Option<String>,
    /// Cuts all connections with it.
    cut: CancellationToken,
    cut_at: Option<Instant>,
    /// Violations of the running window.
    pub(super) window: (Instant, u32),
}

impl Live {
    /// A place for a connection of the peer whose handshake began at that moment, with what cuts it; none if
    /// the peer was cut since, or has enough.
    pub(super) fn connection(&self, began: Instant) -> Option<(OwnedSemaphorePermit, CancellationToken)> {
        let standing = self.standing();
        if standing.cut_at.is_some_and(|cut_at| cut_at >= began) {
            return None;
        }
        let place = Arc::clone(&self.connections).try_acquire_owned().ok()?;
        Some((place, standing.cut.child_token()))
    }

    /// A place for a link from the peer; none if it has enough.
    pub(super) fn link(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.links).try_acquire_owned().ok()
    }

    /// What cuts a connection that is about to be made.
    pub(super) fn token(&self) -> CancellationToken {
        self.standing().cut.child_token()
    }

    pub(super) fn cut(&self) {
        let mut standing = self.standing();
        standing.cut_at = Some(Instant::now());
        standing.set_channel(None);
        standing.refused = None;
        std::mem::take(&mut standing.cut).cancel();
        // Whoever is linked next may have nothing of what the one before had.
        self.taken.store(0, Ordering::Relaxed);
    }

    /// Whether the link to the peer stands.
    pub fn is_linked(&self) -> bool {
        self.standing().channel.is_some()
    }

    /// Whether a link from the peer stands.
    pub fn is_linked_from(&self) -> bool {
        self.standing().link_from.is_some()
    }

    /// The connection of the link to the peer.
    pub(super) fn channel(&self) -> Option<Channel> {
        self.standing().channel.clone()
    }

    /// The link to the peer stands, or no longer does.
    pub(super) fn set_channel(&self, channel: Option<Channel>) {
        self.standing().set_channel(channel);
    }

    /// How long the link to the peer is gone, where it is.
    pub(super) fn apart(&self) -> Option<Duration> {
        let standing = self.standing();
        standing.channel.is_none().then(|| standing.linked_at.elapsed())
    }

    /// A link from the peer stands, and takes the place of an older one; what tells that it was replaced.
    pub(super) fn begin_link_from(&self) -> CancellationToken {
        let replaced = CancellationToken::new();
        let mut standing = self.standing();
        standing.refused = None;
        if let Some(older) = standing.link_from.replace(replaced.clone()) {
            older.cancel();
        }
        replaced
    }

    /// The link from the peer that this token was for no longer stands.
    pub(super) fn end_link_from(&self, replaced: &CancellationToken) {
        let mut standing = self.standing();
        if !replaced.is_cancelled() {
            standing.link_from = None;
        }
    }

    /// Who is at fault, what is wrong and what to do, where something is.
    pub fn problem(&self) -> Option<String> {
        let standing = self.standing();
        standing.problem.as_ref().or(standing.refused.as_ref()).cloned()
    }

    /// Something is wrong with the link to the peer, or no longer is.
    pub(super) fn set_problem(&self, problem: Option<String>) {
        self.standing().problem = problem;
    }

    /// What the peer did against the rules since this gateway started.
    pub fn violations(&self) -> u64 {
        self.violations.load(Ordering::Relaxed)
    }

    /// The peer has this domain's bundle of this sequence.
    pub(super) fn took(&self, sequence: u64) {
        self.taken.fetch_max(sequence, Ordering::Relaxed);
    }

    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Counts a preview that the peer asks for.
    ///
    /// # Errors
    /// It has asked for too many in this second.
    pub(super) fn admit_preview(&self, now: Instant) -> Result<(), Refusal> {
        let mut previews = self.previews.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(previews.0).as_secs() >= 1 {
            *previews = (now, 0);
        }
        if previews.1 >= limits::PEER_PREVIEWS {
            let message = format!("a peer may ask for {} previews in a second", limits::PEER_PREVIEWS);
            return Err(Refusal::new(ErrorCode::RateLimited, message, "ask again in a second")
                .retry_after(Duration::from_secs(1)));
        }
        previews.1 += 1;
        Ok(())
    }

    /// Counts a preview that an agency of this domain has asked of the peer, so that none uses up what all may ask.
    ///
    /// # Errors
    /// It has asked for too many in this second.
    pub(super) fn admit_asking(&self, agency: &AgencyAddress, now: Instant) -> Result<(), Refusal> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(asked.0).as_secs() >= 1 {
            *asked = (now, BTreeMap::new());
        }
        let count = asked.1.entry(agency.clone()).or_default();
        *count += 1;
        if *count <= limits::AGENCY_PREVIEWS {
            return Ok(());
        }
        let message =
            format!("an agency may ask a domain for {} previews in a second", limits::AGENCY_PREVIEWS);
        Err(Refusal::new(ErrorCode::RateLimited, message, "ask again in a second")
            .retry_after(Duration::from_secs(1)))
    }

    pub(super) fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Standing {
    fn set_channel(&mut self, channel: Option<Channel>) {
        if self.channel.is_some() {
            self.linked_at = Instant::now();
        }
        self.channel = channel;
    }
}

impl Default for Live {
    fn default() -> Self {
        Self {
            wake: Notify::new(),
            told: tokio::sync::Mutex::default(),
            renewing: tokio::sync::Mutex::default(),
            taken: AtomicU64::new(0),
            violations: AtomicU64::new(0),
            previews: Mutex::new((Instant::now(), 0)),
            asked: Mutex::new((Instant::now(), BTreeMap::new())),
            standing: Mutex::new(Standing {
                channel: None,
                linked_at: Instant::now(),
                link_from: None,
                problem: None,
                refused: None,
                cut: CancellationToken::new(),
                cut_at: None,
                window: (Instant::now(), 0),
            }),
            connections: Arc::new(Semaphore::new(limits::PEER_CONNECTIONS)),
            links: Arc::new(Semaphore::new(limits::PEER_LINKS)),
        }
    }
}
