//! The domains that this one has peered with, as they stand now.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use liaison_proto::{
    admin::v1::peer_state::Code as State,
    federation::v1::SignedBundle,
    message::v1::{Refusal, error_code::Code as ErrorCode},
};
use liaison_trust::names::{AgencyAddress, Domain};
use metrics::{counter, gauge};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tracing::warn;

use super::{bundle::Bundle, told::Told};
use crate::{
    limits,
    store::{KnownPeer, Store},
};

/// All peers, and this domain's own bundle.
#[derive(Default)]
pub struct Peers {
    peers: ArcSwap<BTreeMap<Domain, Arc<Peer>>>,
    /// This domain's own bundle as it stands now.
    own: watch::Sender<SignedBundle>,
    /// Changes when there are other peers, or one of them is another.
    changed: watch::Sender<()>,
}

/// A peer at one moment.
#[derive(Clone)]
pub struct Peer {
    pub domain: Domain,
    pub state: State,
    pub bundle: Bundle,
    /// Countries that an administrator believes it to speak for.
    pub countries: BTreeSet<String>,
    pub live: Arc<Live>,
}

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
    violations: AtomicU64,
    previews: Mutex<(Instant, u32)>,
    /// Previews that agencies of this domain had asked of it since then.
    asked: Mutex<(Instant, BTreeMap<AgencyAddress, u32>)>,
    standing: Mutex<Standing>,
    connections: Arc<Semaphore>,
    links: Arc<Semaphore>,
}

struct Standing {
    /// The connection of the link to it, while it stands.
    channel: Option<Channel>,
    /// When there was such a link last.
    linked_at: Instant,
    /// Replaces the link from it that stands.
    link_from: Option<CancellationToken>,
    /// What is wrong with the link to it.
    problem: Option<String>,
    /// What this gateway refuses of what comes from it.
    refused: Option<String>,
    /// Cuts all connections with it.
    cut: CancellationToken,
    cut_at: Option<Instant>,
    /// Violations of the running window.
    window: (Instant, u32),
}

impl Peers {
    /// The peers that the store knows.
    ///
    /// # Errors
    /// A bundle that was kept can't be read.
    pub fn new(known: Vec<KnownPeer>) -> Result<Self, Refusal> {
        let peers = known.into_iter().map(|known| {
            let bundle = Bundle::read(&known.bundle)?;
            let peer = Peer {
                domain: known.domain,
                state: known.state,
                bundle,
                countries: known.countries,
                live: Arc::default(),
            };
            Ok((peer.domain.clone(), Arc::new(peer)))
        });
        let peers = peers.collect::<Result<BTreeMap<_, _>, Refusal>>()?;
        Ok(Self { peers: ArcSwap::from_pointee(peers), ..Self::default() })
    }

    /// The peer of a domain, in whatever state.
    pub fn get(&self, domain: &Domain) -> Option<Arc<Peer>> {
        self.peers.load().get(domain).cloned()
    }

    /// All peers, in whatever state.
    pub fn all(&self) -> Vec<Arc<Peer>> {
        self.peers.load().values().cloned().collect()
    }

    /// The peer of a domain that messages can be addressed to, even if it takes none at present.
    ///
    /// # Errors
    /// There is none.
    pub fn known(&self, domain: &Domain) -> Result<Arc<Peer>, Refusal> {
        self.get(domain).filter(|peer| peer.state != State::Removed).ok_or_else(|| {
            Refusal::new(
                ErrorCode::UnknownDomain,
                format!("this gateway has no peering with {domain}"),
                "choose an agency that is listed, or ask the gateway's administrator to peer with that domain",
            )
        })
    }

    /// The peer of a domain, if traffic with it flows.
    ///
    /// # Errors
    /// It doesn't.
    pub fn active(&self, domain: &Domain) -> Result<Arc<Peer>, Refusal> {
        let peer = self.known(domain)?;
        if peer.state == State::Active {
            return Ok(peer);
        }
        Err(Refusal::new(
            ErrorCode::Suspended,
            format!("the peering with {domain} is suspended"),
            "ask the gateway's administrator; what waits is kept until it is resumed",
        ))
    }

    /// The domains whose peering was ended.
    pub fn removed(&self) -> Vec<Domain> {
        let peers = self.peers.load();
        let removed = peers.values().filter(|peer| peer.state == State::Removed);
        removed.map(|peer| peer.domain.clone()).collect()
    }

    /// Puts a peer in the place of what it was, and cuts its connections: what flows goes on by new ones.
    pub fn set(&self, peer: Peer) {
        let live = Arc::clone(&peer.live);
        self.peers.rcu(|peers| {
            let mut peers = BTreeMap::clone(peers);
            peers.insert(peer.domain.clone(), Arc::new(peer.clone()));
            peers
        });
        live.cut();
        self.changed.send_replace(());
    }

    /// Takes over a newer bundle of a peer.
    pub(super) fn renew(&self, domain: &Domain, bundle: &Bundle) {
        self.peers.rcu(|peers| {
            let mut peers = BTreeMap::clone(peers);
            if let Some(peer) = peers.get_mut(domain) {
                *peer = Arc::new(Peer { bundle: bundle.clone(), ..Peer::clone(peer) });
            }
            peers
        });
        self.changed.send_replace(());
    }

    /// Tells the link to a domain, if there is one, that something waits for it.
    pub fn wake(&self, domain: &Domain) {
        if let Some(peer) = self.peers.load().get(domain) {
            peer.live.wake.notify_one();
        }
    }

    /// This domain's own bundle, as it changes.
    pub fn own(&self) -> watch::Receiver<SignedBundle> {
        self.own.subscribe()
    }

    /// Makes a bundle this domain's own.
    pub fn set_own(&self, bundle: SignedBundle) {
        self.own.send_replace(bundle);
    }

    /// Changes when there are other peers, or one of them is another.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Active peers that have not taken the bundle of this sequence, nor a later one.
    pub fn behind(&self, sequence: u64) -> Vec<String> {
        let all = self.all();
        let behind = all.iter().filter(|peer| peer.state == State::Active && peer.live.taken() < sequence);
        behind.map(|peer| peer.domain.to_string()).collect()
    }

    /// Sets the gauges of all peers.
    pub fn measure(&self, store: &Store) {
        for peer in self.all() {
            let domain = peer.domain.to_string();
            let queued = store.load_for(&peer.domain).deliveries;
            gauge!("liaison_gateway_peer_queued", "peer" => domain.clone()).set(queued as f64);
            let linked = f64::from(u8::from(peer.live.is_linked()));
            gauge!("liaison_gateway_peer_linked", "peer" => domain).set(linked);
        }
    }
}

impl Peer {
    /// Counts and logs what a peer did against the rules.
    pub(super) fn violation(&self, refusal: &Refusal) {
        let kind = refusal.code().as_str_name();
        warn!(peer = %self.domain, kind, "a peer keeps to no rule: {}", refusal.message);
        counter!("liaison_gateway_peer_violations_total", "peer" => self.domain.to_string(), "kind" => kind)
            .increment(1);
        self.live.violations.fetch_add(1, Ordering::Relaxed);
        let mut standing = self.live.standing();
        let now = Instant::now();
        if now.duration_since(standing.window.0) >= limits::VIOLATIONS_WINDOW {
            standing.window = (now, 0);
        }
        standing.window.1 = standing.window.1.saturating_add(1);
    }

    /// Keeps what this gateway refuses of the peer for administrators to see, until a link from it stands again or it
    /// is refused nothing more.
    pub(super) fn refuses(&self, refusal: Option<&Refusal>) {
        // What fails here is nothing that the peer does.
        let refusal = refusal.filter(|refusal| refusal.code() != ErrorCode::Internal);
        let refused = refusal.map(|Refusal { message, action, .. }| {
            format!(
                "this gateway refuses what comes from {}: {message}; have that domain's administrator mend it, whose \
                 gateway is told: {action}",
                self.domain
            )
        });
        self.live.standing().refused = refused;
    }

    /// Passes a peer that kept to the rules in the running window, more or less.
    ///
    /// # Errors
    /// It did not, and is not listened to until the window's end.
    pub(super) fn may_speak(&self) -> Result<(), Refusal> {
        let standing = self.live.standing();
        let (began, count) = standing.window;
        let left = limits::VIOLATIONS_WINDOW.saturating_sub(began.elapsed());
        if count < limits::VIOLATIONS || left.is_zero() {
            return Ok(());
        }
        Err(Refusal::new(
            ErrorCode::RateLimited,
            format!("{} broke the rules {count} times within a minute", self.domain),
            "look at what its gateway's log says that was refused, and mend it",
        )
        .retry_after(left))
    }
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

    fn cut(&self) {
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
        if !replaced.is_cancelled() {
            self.standing().link_from = None;
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

    fn taken(&self) -> u64 {
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

    fn standing(&self) -> MutexGuard<'_, Standing> {
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
