//! The domains that this one has peered with, as they stand now.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Instant,
};

use arc_swap::ArcSwap;
use liaison_proto::{
    admin::v1::peer_state::Code as State,
    federation::v1::SignedBundle,
    message::v1::{Refusal, error_code::Code as ErrorCode},
};
use liaison_trust::names::Domain;
use metrics::{counter, gauge};
use time::OffsetDateTime;
use tokio::sync::{Notify, watch};
use tracing::warn;

use super::{bundle::Bundle, live::Live};
use crate::{
    delivery::internal,
    limits,
    revoked::Revocations,
    store::{KnownPeer, Store},
};

/// All peers, and this domain's own bundle.
#[derive(Default)]
pub struct Peers {
    peers: ArcSwap<BTreeMap<Domain, Arc<Peer>>>,
    /// This domain's own bundle as it stands now.
    own: watch::Sender<SignedBundle>,
    /// Told when a peer does not take it, because it knows a later one.
    not_taken: Notify,
    /// Changes when there are other peers, or one of them is another.
    changed: watch::Sender<()>,
    held: Mutex<BTreeSet<Domain>>,
}

/// A peer at one moment.
#[derive(Clone)]
pub struct Peer {
    pub domain: Domain,
    pub state: State,
    pub bundle: Bundle,
    /// Countries that an administrator believes it to speak for.
    pub countries: BTreeSet<String>,
    /// When the peering ended last, if it did, or began anew after that.
    pub removed: Option<OffsetDateTime>,
    pub live: Arc<Live>,
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
                removed: known.removed,
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

    /// Takes over what another gateway of the domain made of the peers. Of one whose peering has `ended` later than the
    /// store knows, or that this gateway holds, that stands. False, and nothing is taken over, if this gateway changed them
    /// meanwhile.
    ///
    /// # Errors
    /// The store failed, or holds a bundle that can't be read; the other peers are taken over.
    pub async fn refresh(
        &self,
        store: &Store,
        ended: impl Fn() -> Revocations + Send,
    ) -> Result<bool, Refusal> {
        let before = self.peers.load_full();
        let mut peers = BTreeMap::clone(&before);
        let (mut cut, mut unread) = (Vec::new(), None);
        let known = store.peers().await.map_err(internal)?;
        let (ended, held) = (ended(), self.held().clone());
        for KnownPeer { domain, state, bundle, countries, removed, .. } in known {
            let bundle = match Bundle::read(&bundle) {
                Ok(bundle) => bundle,
                Err(refusal) => {
                    unread = Some(refusal);
                    continue;
                }
            };
            let state = if ended.ended_since(&domain, bundle.signing.as_bytes(), removed).is_some() {
                State::Removed
            } else if state == State::Active && held.contains(&domain) {
                State::Suspended
            } else {
                state
            };
            let live = peers.get(&domain).map(|peer| Arc::clone(&peer.live)).unwrap_or_default();
            let peer = Peer { domain: domain.clone(), state, bundle, countries, removed, live };
            let is_same = |before: &Peer| {
                (before.state, before.removed, &before.countries)
                    == (peer.state, peer.removed, &peer.countries)
            };
            if !peers.get(&domain).is_some_and(|before| is_same(before)) {
                cut.push(Arc::clone(&peer.live));
            }
            peers.insert(domain, Arc::new(peer));
        }
        let replaced = self.peers.compare_and_swap(&before, Arc::new(peers));
        let is_taken = Arc::ptr_eq(&replaced, &before);
        if is_taken {
            cut.iter().for_each(|live| live.cut());
            self.changed.send_replace(());
        }
        unread.map_or(Ok(is_taken), Err)
    }

    /// Peers that were suspended here, whatever the store says, until it says so as well.
    pub fn held(&self) -> MutexGuard<'_, BTreeSet<Domain>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// A peer refused a bundle of this domain as older than the one that it knows: where no newer one is there, the
    /// next is to be made.
    pub(super) fn refused_own(&self, bundle: &SignedBundle, refusal: &Refusal) {
        if refusal.code() == ErrorCode::StaleBundle && *bundle == *self.own.borrow() {
            self.not_taken.notify_one();
        }
    }

    /// Waits until a peer refused this domain's newest bundle as older than the one that it knows.
    pub(super) async fn not_taken(&self) {
        self.not_taken.notified().await;
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
    pub fn violation(&self, refusal: &Refusal) {
        let kind = refusal.code().as_str_name();
        warn!(peer = %self.domain, kind, "a peer keeps to no rule: {}", refusal.message);
        counter!("liaison_gateway_peer_violations_total", "peer" => self.domain.to_string(), "kind" => kind)
            .increment(1);
        self.live.violations.fetch_add(1, Ordering::Relaxed);
        if !is_a_gateways_alone(refusal.code()) {
            return;
        }
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
    pub fn may_speak(&self) -> Result<(), Refusal> {
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

/// Whether what is refused so is a gateway's doing alone. What an agency can bring about by itself, such as keys that
/// it changes often, an id that it uses again or two referrals at once in one thread, is not to silence its whole
/// domain; nor is what an honest gateway of a newer version says.
fn is_a_gateways_alone(code: ErrorCode) -> bool {
    !matches!(
        code,
        ErrorCode::UnknownKey
            | ErrorCode::TransitionNotAllowed
            | ErrorCode::IdReused
            | ErrorCode::UnknownValue
            | ErrorCode::Unsupported
    )
}

#[cfg(test)]
mod tests {
    use super::{super::testing, *};

    fn violations(peer: &Peer, code: ErrorCode) {
        for _ in 0..limits::VIOLATIONS {
            peer.violation(&Refusal::new(code, "what it did", "what to do"));
        }
    }

    #[test]
    fn what_an_agency_does_silences_no_domain() {
        let peer = testing::peer("hu", &["hu"], &["hu"]);
        let codes = [
            ErrorCode::UnknownKey,
            ErrorCode::TransitionNotAllowed,
            ErrorCode::IdReused,
            ErrorCode::UnknownValue,
            ErrorCode::Unsupported,
        ];
        for code in codes {
            violations(&peer, code);
        }
        let counted = peer.live.violations.load(Ordering::Relaxed);
        assert_eq!(counted, 5 * u64::from(limits::VIOLATIONS), "they are counted");
        peer.may_speak().unwrap();

        violations(&peer, ErrorCode::BadSignature);
        let refusal = peer.may_speak().unwrap_err();
        assert_eq!(refusal.code(), ErrorCode::RateLimited);
        assert!(refusal.retry_after_ms > 0);
    }
}
