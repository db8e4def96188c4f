//! What administrators do about peers. Every act is recorded with who did it.

use std::{collections::BTreeSet, sync::Arc};

use liaison_proto::{
    admin::v1::{
        AcceptPeerRequest, ListPeersResponse, PeerInvitation, PeerRequest, PeerStatus,
        peer_state::Code as PeerState,
    },
    limits::CLOCK_AHEAD,
    message::v1::{Refusal, error_code::Code as ErrorCode},
    times,
};
use liaison_trust::names::Domain;
use time::{Duration, OffsetDateTime};
use tracing::info;

use super::desk::{Desk, count, internal};
use crate::{
    directory::Agency,
    federation::{bundle::Bundle, gate, live::Live, peers::Peer},
    limits,
    revoked::{Peering, Revocations},
    store::{Act, KnownPeer},
};

/// The act by which a domain becomes a peer.
const ACCEPT: &str = "accept_peer";

impl Desk {
    /// This domain's own bundle.
    pub(super) fn invite(&self) -> Result<PeerInvitation, Refusal> {
        let signed = self.gateway.peers.own().borrow().clone();
        if signed.bundle.is_empty() {
            return Err(Refusal::new(
                ErrorCode::Unsupported,
                "this gateway has no address where peers could connect",
                "add `federation = \"ADDRESS:PORT\"` to gateway.toml and restart it",
            ));
        }
        let own = Bundle::read(&signed)?;
        Ok(PeerInvitation { bundle: own.to_text(), fingerprint: own.fingerprint() })
    }

    /// Believes a bundle whose fingerprint was compared.
    pub(super) async fn accept(&self, request: AcceptPeerRequest, by: &str) -> Result<PeerStatus, Refusal> {
        let bundle = Bundle::from_text(&request.bundle)?;
        let domain = bundle.domain.clone();
        if domain == self.gateway.domain {
            return Err(Refusal::new(
                ErrorCode::ToOneself,
                format!("this is the bundle of {domain}, which this gateway serves itself"),
                "accept the bundle that the other domain's administrator sent",
            ));
        }
        if !bundle.has_fingerprint(&request.fingerprint) {
            return Err(Refusal::new(
                ErrorCode::BadSignature,
                format!("the bundle of {domain} has another fingerprint than the one given"),
                "have the other administrator read it out again by telephone; if it still differs, somebody \
                 changed the bundle on its way: don't accept it",
            ));
        }
        let now = OffsetDateTime::now_utc();
        if bundle.is_stale(now) {
            return Err(Refusal::new(
                ErrorCode::StaleBundle,
                format!("the bundle of {domain} is more than a week old"),
                "ask that domain's administrator for a new one",
            ));
        }
        // Every later one would seem older than this one.
        if bundle.issued > now + CLOCK_AHEAD {
            return Err(Refusal::new(
                ErrorCode::ClockSkew,
                format!(
                    "the bundle of {domain} is from the future: a clock is wrong, this gateway's or its own"
                ),
                "set the clock that is wrong; if it was that domain's, ask its administrator for a new bundle",
            ));
        }
        let _one_at_a_time = self.one_act().await?;
        let known = self.gateway.peers.get(&domain);
        self.may_replace(known.as_deref(), &bundle)?;
        let state = match &known {
            Some(known) if known.state == PeerState::Suspended => PeerState::Suspended,
            _ => PeerState::Active,
        };
        // Whoever compared this bundle's fingerprint saw its countries, and not those of a newer one.
        let countries = bundle.countries.clone();
        // Of two bundles of the same key the newer one stays, unless the peering was ended in between.
        let newer = known.as_ref().filter(|known| {
            known.state != PeerState::Removed
                && known.bundle.signing == bundle.signing
                && known.bundle.sequence > bundle.sequence
        });
        let bundle = newer.map_or(bundle.clone(), |known| known.bundle.clone());
        let peer = Peer {
            domain: domain.clone(),
            state,
            countries,
            bundle,
            removed: known.as_ref().and_then(|known| known.removed),
            live: known.map_or_else(Arc::default, |known| Arc::clone(&known.live)),
        };
        // Outside the database as well, so that no removal of before counts for it after a restore.
        let at = self.after_all(&peer);
        let begun = Peering { domain: domain.clone(), with: Some(peer.bundle.signing), at };
        let begun = Revocations { peerings: vec![begun], ..Revocations::default() };
        self.authority.append(&begun).await.map_err(internal)?;
        self.keep(peer, ACCEPT, (by, at)).await?;
        self.authority.note(begun);
        self.show_peer(&domain).await
    }

    fn may_replace(&self, known: Option<&Peer>, bundle: &Bundle) -> Result<(), Refusal> {
        let all = self.gateway.peers.all();
        let count = all.iter().filter(|peer| peer.state != PeerState::Removed).count();
        // Who was removed is as good as new.
        match known.filter(|known| known.state != PeerState::Removed) {
            None if count >= limits::PEERS => Err(Refusal::new(
                ErrorCode::QueueFull,
                format!("the domain has {} peers, as many as it may", limits::PEERS),
                "remove one first",
            )),
            // Whoever has another key is somebody else.
            Some(known) if known.bundle.signing != bundle.signing => Err(Refusal::new(
                ErrorCode::KeyChainBroken,
                format!("{} is a peer with another key than this bundle's", bundle.domain),
                "find out from its administrator why; to peer anew, `peer remove` it first",
            )),
            _ => Ok(()),
        }
    }

    /// Active peers that have not taken this domain's bundle as it is now, with its roots; all of them while it does
    /// not hold the roots of now itself.
    pub(super) fn peers_behind(&self) -> Vec<String> {
        let peers = &self.gateway.peers;
        let own = Bundle::read(&peers.own().borrow()).ok();
        let own = own.filter(|own| own.roots == self.authority.roots());
        peers.behind(own.map_or(u64::MAX, |own| own.sequence))
    }

    /// All peers as they are now.
    pub(super) async fn list_peers(&self) -> Result<ListPeersResponse, Refusal> {
        self.look().await;
        let mut peers = Vec::new();
        for peer in self.gateway.peers.all() {
            peers.push(self.status_of_peer(&peer).await?);
        }
        Ok(ListPeersResponse { peers })
    }

    /// Stops all traffic with a peer until it is resumed.
    pub(super) async fn suspend_peer(&self, request: PeerRequest, by: &str) -> Result<PeerStatus, Refusal> {
        self.set_peer_state(&request.domain, PeerState::Suspended, "suspend_peer", by).await
    }

    /// Lets traffic with a suspended peer flow again.
    pub(super) async fn resume_peer(&self, request: PeerRequest, by: &str) -> Result<PeerStatus, Refusal> {
        self.set_peer_state(&request.domain, PeerState::Active, "resume_peer", by).await
    }

    /// Ends a peering: in what runs first, so that a full disk doesn't keep it alive.
    pub(super) async fn remove_peer(&self, request: PeerRequest, by: &str) -> Result<PeerStatus, Refusal> {
        let status = self.set_peer_state(&request.domain, PeerState::Removed, "remove_peer", by).await?;
        self.gateway.sweep.notify_one();
        Ok(status)
    }

    async fn set_peer_state(
        &self,
        domain: &str,
        state: PeerState,
        act: &'static str,
        by: &str,
    ) -> Result<PeerStatus, Refusal> {
        let _one_at_a_time =
            if state == PeerState::Active { self.one_act().await? } else { self.one_cut().await };
        let peer = self.peer(domain)?;
        if peer.state == PeerState::Removed && state != PeerState::Removed {
            return Err(ended(&peer.domain));
        }
        // What was cut stands so on disk only if that worked the last time.
        if peer.state != state || state != PeerState::Active {
            let ends = state == PeerState::Removed;
            let at = if ends { self.after_all(&peer) } else { OffsetDateTime::now_utc() };
            self.keep(Peer { state, ..Peer::clone(&peer) }, act, (by, at)).await?;
        }
        self.show_peer(&peer.domain).await
    }

    /// Puts a peer to work as it is to be, and keeps it so.
    async fn keep(
        &self,
        mut peer: Peer,
        act: &'static str,
        (by, at): (&str, OffsetDateTime),
    ) -> Result<(), Refusal> {
        let gateway = &self.gateway;
        let (domain, state, countries) = (peer.domain.clone(), peer.state, peer.countries.clone());
        let is_anew = act == ACCEPT
            && (self.peer(domain.as_str()).is_ok_and(|before| before.state == PeerState::Removed)
                || self.authority.ended().has_ended(&domain));
        if is_anew || state == PeerState::Removed {
            peer.removed = Some(at);
        }
        let known = KnownPeer {
            domain: domain.clone(),
            state,
            bundle: peer.bundle.signed.clone(),
            countries: peer.countries.clone(),
            removed: peer.removed,
            directory: Default::default(),
        };
        let subject = domain.to_string();
        let act = Act { at, actor: by, act, subject: &subject };
        if state == PeerState::Active {
            if !gateway.store.set_peer(&known, is_anew, act).await.map_err(internal)? {
                return Err(ended(&domain));
            }
            if is_anew {
                // It may have been rebuilt, and its agencies have other keys.
                gateway.directory.rcu(|directory| directory.without(&domain));
            }
            gateway.peers.held().remove(&domain);
            gateway.peers.set(peer);
            self.forget_agencies(&domain, |agency| !countries.contains(&agency.country));
        } else {
            // Cut first, so that a full disk lets nothing pass, nor a database of before.
            let end = Peering { domain: domain.clone(), with: None, at };
            let end = Revocations { peerings: vec![end], ..Revocations::default() };
            if state == PeerState::Removed {
                self.authority.note(end.clone());
            }
            gateway.peers.held().insert(domain.clone());
            gateway.peers.set(peer);
            if state == PeerState::Removed {
                self.forget_agencies(&domain, |_| true);
                // Outside the database before in it, so that no crash and no restore brings it back.
                self.authority.append(&end).await.map_err(internal)?;
            }
            if !gateway.store.set_peer(&known, is_anew, act).await.map_err(internal)? {
                return Err(ended(&domain));
            }
            gateway.peers.held().remove(&domain);
        }
        gateway.store.changed();
        info!(peer = %domain, by, state = state.as_str_name(), "a peering changed");
        Ok(())
    }

    /// A moment after all that is known of the peering: the order of its acts is that of their moments, whatever a clock says.
    fn after_all(&self, peer: &Peer) -> OffsetDateTime {
        let ended = self.authority.ended();
        let written = ended.peerings.iter().filter(|peering| peering.domain == peer.domain);
        let last = written.map(|peering| peering.at).chain(peer.removed).max();
        // Whole seconds, as the file has them.
        let now = OffsetDateTime::now_utc().truncate_to_second();
        last.map_or(now, |last| now.max(last.truncate_to_second() + Duration::SECOND))
    }

    /// These agencies of a domain can't be addressed any more.
    fn forget_agencies(&self, domain: &Domain, which: impl Fn(&Agency) -> bool) {
        self.gateway.directory.rcu(|directory| {
            let gone = directory.of(domain).filter(|agency| which(agency));
            let gone = gone.map(|agency| Agency { listed: false, ..Agency::clone(agency) });
            directory.with_all(gone.collect::<Vec<_>>())
        });
    }

    fn peer(&self, domain: &str) -> Result<Arc<Peer>, Refusal> {
        let parsed: Option<Domain> = domain.parse().ok();
        parsed.and_then(|domain| self.gateway.peers.get(&domain)).ok_or_else(|| {
            Refusal::new(
                ErrorCode::UnknownDomain,
                format!("{domain} is no peer of this domain"),
                "see `liaison-gateway peer list`",
            )
        })
    }

    /// A peer as it is now.
    pub(super) async fn show_peer(&self, domain: &Domain) -> Result<PeerStatus, Refusal> {
        let peer = self.peer(domain.as_str())?;
        self.status_of_peer(&peer).await
    }

    async fn status_of_peer(&self, peer: &Peer) -> Result<PeerStatus, Refusal> {
        let gateway = &self.gateway;
        let outstanding = gateway.store.count_outstanding(&peer.domain).await.map_err(internal)?;
        let unconfirmed: BTreeSet<_> = peer.bundle.countries.difference(&peer.countries).cloned().collect();
        let live: &Live = &peer.live;
        let refused =
            gate(gateway, peer).err().map(|refusal| format!("{}; {}", refusal.message, refusal.action));
        let unconfirmed_here = live.is_linked()
            && gateway.store.waits(&peer.domain, ErrorCode::Suspended).await.map_err(internal)?;
        let waits = (unconfirmed_here && peer.state == PeerState::Active).then(|| {
            format!(
                "messages wait until {} has confirmed the country of their senders; have its administrator accept \
                 this domain's bundle anew",
                peer.domain
            )
        });
        let directory = gateway.directory.load();
        Ok(PeerStatus {
            domain: peer.domain.to_string(),
            state: peer.state.into(),
            fingerprint: peer.bundle.fingerprint(),
            addresses: peer.bundle.addresses.clone(),
            countries: peer.countries.iter().cloned().collect(),
            unconfirmed_countries: unconfirmed.into_iter().collect(),
            linked: live.is_linked(),
            linked_from: live.is_linked_from(),
            problem: live.problem().or(refused).or(waits).unwrap_or_default(),
            same_scheme: peer.bundle.scheme_hash == gateway.policy.load().scheme_hash(),
            bundle_issued: Some(times::to_wire(peer.bundle.issued)),
            roots: count(peer.bundle.roots.len()),
            agencies: count(directory.of(&peer.domain).filter(|agency| agency.listed).count()),
            queued: gateway.store.load_for(&peer.domain).deliveries,
            outstanding,
            violations: live.violations(),
        })
    }
}

fn ended(domain: &Domain) -> Refusal {
    Refusal::new(
        ErrorCode::TransitionNotAllowed,
        format!("the peering with {domain} was ended"),
        "accept a bundle of that domain to peer with it anew",
    )
}
