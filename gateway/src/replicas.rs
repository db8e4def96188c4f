//! Several gateways of one domain on one database. Each serves agents and peers; one of them leads: it signs the logs,
//! sweeps, and has the links to peers. Each hears what the others change, and takes it over.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use liaison_proto::admin::v1::{agency_state::Code as AgencyState, peer_state::Code as PeerState};
use liaison_trust::names::AgencyAddress;
use metrics::gauge;
use time::OffsetDateTime;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};
use tracing::{error, info, warn};

use crate::{
    authority::Authority,
    directory::Agency,
    federation,
    gateway::Gateway,
    limits,
    policy::{PolicyFile, PolicySet},
    revoked::{Peering, Revocations},
    run::RunError,
    store::{Heard, Lead, RevokedCertificate, Told},
};

/// Goes on with the other gateways of the domain until this one stops.
///
/// # Errors
/// The database can't be listened to.
pub(crate) async fn run(
    gateway: Arc<Gateway>,
    authority: Arc<Authority>,
    lead: Option<Lead>,
) -> Result<(), RunError> {
    let (Some(lead), Some(told)) = (lead, gateway.store.told().await?) else {
        gateway.stop.cancelled().await;
        return Ok(());
    };
    let changed = Arc::new(Notify::new());
    let (words, heard) = mpsc::channel(limits::TOLD);
    let mut parts = JoinSet::new();
    parts.spawn(contend(Arc::clone(&gateway), lead));
    parts.spawn(listen(told, words));
    parts.spawn(hear(Arc::clone(&gateway), heard, Arc::clone(&changed)));
    parts.spawn(live(Arc::clone(&gateway)));
    parts.spawn(keep_account(Arc::clone(&gateway)));
    parts.spawn(keep_state(Arc::clone(&gateway), authority, changed));
    tokio::select! {
        () = gateway.stop.cancelled() => Ok(()),
        _ = parts.join_next() => Err(RunError::Ended),
    }
}

/// Leads as soon as no other gateway does.
async fn contend(gateway: Arc<Gateway>, mut lead: Lead) {
    let mut ticks = interval(limits::DATABASE_RETRY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let leads = lead.leads().await;
        gauge!("liaison_gateway_leads").set(f64::from(u8::from(leads)));
        let changed = gateway.leads.send_if_modified(|led| std::mem::replace(led, leads) != leads);
        if changed {
            info!(leads, "another gateway of the domain leads, or this one");
        }
    }
}

/// Passes on what the other gateways tell, in order.
async fn listen(mut told: Told, words: mpsc::Sender<Heard>) {
    while words.send(told.next().await).await.is_ok() {}
}

/// Takes over what the other gateways told: all that has come at once.
async fn hear(gateway: Arc<Gateway>, mut heard: mpsc::Receiver<Heard>, changed: Arc<Notify>) {
    let mut words = Vec::new();
    while heard.recv_many(&mut words, limits::TOLD).await > 0 {
        let (mut queues, mut is_all, mut is_head) = (Vec::new(), false, false);
        for word in words.drain(..) {
            match word {
                Heard::Queues(named) => queues.extend(named),
                Heard::State => changed.notify_one(),
                Heard::Head => is_head = true,
                Heard::Session(agency) => {
                    gateway.sessions.replace(&agency);
                    gateway.store.forget_recent(Some(&agency));
                }
                Heard::Anything => is_all = true,
            }
        }
        if is_head || is_all {
            follow(&gateway).await;
        }
        queues.sort_unstable();
        queues.dedup();
        // A session reads its queue whatever the account says; a link goes by that.
        queues.iter().filter(|queue| queue.peer().is_none()).for_each(|queue| gateway.wake(queue));
        let account = gateway.store.refresh_account((!is_all).then_some(&queues));
        if let Err(fault) = account.await {
            // The next look at all of it finds it.
            warn!(error = &fault as &dyn std::error::Error, "the account of the queues was not read");
        }
        queues.iter().filter(|queue| queue.peer().is_some()).for_each(|queue| gateway.wake(queue));
        if is_all {
            gateway.store.forget_recent(None);
            changed.notify_one();
            wake_all(&gateway);
        }
    }
}

async fn follow(gateway: &Gateway) {
    for log in gateway.logs.all() {
        if let Err(fault) = log.follow().await {
            error!(
                error = &fault as &dyn std::error::Error,
                "the head of another gateway was not taken over"
            );
        }
    }
}

/// Wakes whoever takes from a queue that holds something.
fn wake_all(gateway: &Gateway) {
    gateway.store.filled().iter().for_each(|queue| gateway.wake(queue));
}

/// Says that this gateway is there.
async fn live(gateway: Arc<Gateway>) {
    loop {
        sleep(limits::ALIVE).await;
        // Where the database does not answer, the ears find out.
        _ = gateway.store.tell_alive().await;
    }
}

/// Looks at the account of the queues, and whether the state has changed, whatever was told.
async fn keep_account(gateway: Arc<Gateway>) {
    loop {
        sleep(limits::ACCOUNT).await;
        // Whoever takes it over says what keeps it from that.
        _ = gateway.store.fresh().await;
        if gateway.store.refresh_account(None).await.is_ok() {
            wake_all(&gateway);
        }
    }
}

/// Reads what this gateway holds in memory, and beside its database, whenever it was changed.
async fn keep_state(gateway: Arc<Gateway>, authority: Arc<Authority>, changed: Arc<Notify>) {
    let mut view = View { gateway, authority, left: BTreeSet::new(), is_written: true };
    loop {
        let is_wanted = tokio::select! {
            () = changed.notified() => false,
            () = view.gateway.store.was_changed() => false,
            () = view.gateway.store.wanted() => true,
            () = sleep(limits::ACCOUNT), if !view.is_written => false,
        };
        if let Err(fault) = view.refresh().await {
            error!(
                error = &fault as &dyn std::error::Error,
                "what another gateway changed was not taken over"
            );
            sleep(limits::DATABASE_RETRY).await;
            changed.notify_one();
        } else if !is_wanted {
            // Many changes are read at once, unless something waits for them.
            tokio::select! {
                () = sleep(limits::STATE_REST) => {}
                () = view.gateway.store.wanted() => changed.notify_one(),
            }
        }
    }
}

/// What this gateway holds in memory, and beside its database.
struct View {
    gateway: Arc<Gateway>,
    authority: Arc<Authority>,
    /// Agencies that were active, are no more, and may still be connected.
    left: BTreeSet<AgencyAddress>,
    /// Whether the file of revocations has all that the database has.
    is_written: bool,
}

impl View {
    /// Reads all of it anew. What fails keeps nothing else from being read, least of all who is to be cut off.
    async fn refresh(&mut self) -> Result<(), RunError> {
        let gateway = Arc::clone(&self.gateway);
        let state = gateway.store.state().await?;
        let now = OffsetDateTime::now_utc();
        let peers = self.peers().await;
        let directory = self.directory().await;
        let published = self.authority.publish(&gateway.store, now).await;
        let cut = self.cut_off(now).await;
        let bundle = self.bundle().await;
        let policy = policy(&gateway).await;
        gateway.revised.send_replace(());
        gateway.sweep.notify_one();
        let is_taken = peers? && directory?;
        published?;
        cut?;
        bundle?;
        policy?;
        if is_taken {
            gateway.store.knows(state);
        } else {
            // This gateway changes it itself just now.
            gateway.store.changed();
        }
        Ok(())
    }

    /// Takes over the peers; false if this gateway changed them each time meanwhile.
    async fn peers(&self) -> Result<bool, RunError> {
        let gateway = &self.gateway;
        for _ in 0..limits::VIEW_ATTEMPTS {
            let ended = || self.authority.ended();
            if gateway.peers.refresh(&gateway.store, ended).await.map_err(RunError::Peers)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes over the directory; false if this gateway changed it each time meanwhile.
    async fn directory(&mut self) -> Result<bool, RunError> {
        let gateway = &self.gateway;
        for _ in 0..limits::VIEW_ATTEMPTS {
            let before = gateway.directory.load_full();
            let (foreign, peers) = (gateway.store.peer_agencies().await?, gateway.peers.all());
            let foreign = federation::from_store(&foreign, &peers, &before);
            let directory = gateway.store.directory(&before).await?.with_all(foreign);
            // Whatever the database says, which may be of before.
            let ended = self.authority.ended();
            let revoked = ended.agencies.iter().filter_map(|(agency, _)| directory.get(agency));
            let revoked =
                revoked.map(|agency| Agency { state: AgencyState::Revoked, ..Agency::clone(agency) });
            let directory = Arc::new(directory.with_all(revoked.collect::<Vec<_>>()));
            // What this gateway changed meanwhile may not have been read yet.
            let replaced = gateway.directory.compare_and_swap(&before, Arc::clone(&directory));
            if !Arc::ptr_eq(&replaced, &before) {
                continue;
            }
            let is_active = |agency: &AgencyAddress| {
                directory.get(agency).is_some_and(|agency| agency.state == AgencyState::Active)
            };
            let active = before.iter().filter(|agency| agency.state == AgencyState::Active);
            let left = active.map(|agency| &agency.address).filter(|agency| !is_active(agency));
            self.left.extend(left.cloned());
            return Ok(true);
        }
        Ok(false)
    }

    /// Cuts off whom another gateway suspended or revoked, and writes into the file beside this gateway's database what that
    /// one wrote into its own.
    async fn cut_off(&mut self, now: OffsetDateTime) -> Result<(), RunError> {
        let gateway = &self.gateway;
        self.left.iter().for_each(|agency| gateway.sessions.cut(agency));
        self.left.clear();
        let certificates = gateway.store.revocations(now).await?;
        let written = self.authority.written().await;
        let known: HashSet<&[u8]> =
            written.certificates.iter().map(|one| one.certificate.serial.as_slice()).collect();
        let is_new = |one: &RevokedCertificate| !known.contains(one.certificate.serial.as_slice());
        let certificates: Vec<_> = certificates.into_iter().filter(is_new).collect();
        certificates.iter().for_each(|revoked| gateway.sessions.cut(&revoked.certificate.agency));
        let known: BTreeSet<&AgencyAddress> = written.agencies.iter().map(|(agency, _)| agency).collect();
        let directory = gateway.directory.load_full();
        let revoked = directory.of(&gateway.domain).filter(|agency| agency.state == AgencyState::Revoked);
        let agencies = revoked.filter(|agency| !known.contains(&agency.address));
        let agencies = agencies.map(|agency| (agency.address.clone(), now)).collect();
        let peers = gateway.peers.all();
        let peerings = peers.iter().filter_map(|peer| {
            // Of a peering that never ended, nothing needs to stand there.
            let at = peer.removed?;
            let with = (peer.state != PeerState::Removed).then_some(peer.bundle.signing);
            let last = written.peerings.iter().rfind(|peering| peering.domain == peer.domain);
            let is_new =
                last.is_none_or(|last| last.with != with && last.at.unix_timestamp() <= at.unix_timestamp());
            is_new.then(|| Peering { domain: peer.domain.clone(), with, at })
        });
        let new = Revocations { agencies, certificates, peerings: peerings.collect() };
        let written = if new == Revocations::default() { Ok(()) } else { self.authority.append(&new).await };
        self.is_written = written.is_ok();
        if let Err(fault) = written {
            // It keeps nobody in who is cut off, and is tried again.
            error!(
                error = &fault as &dyn std::error::Error,
                "what ended was not written into the file of revocations"
            );
        }
        Ok(())
    }

    /// Takes over the domain's own bundle from the gateway that leads.
    async fn bundle(&self) -> Result<(), RunError> {
        let gateway = &self.gateway;
        if !*gateway.leads.borrow()
            && let Some(bundle) = gateway.store.shared_bundle().await?
            && bundle != *gateway.peers.own().borrow()
        {
            gateway.peers.set_own(bundle);
        }
        Ok(())
    }
}

/// Takes over the active policy set.
async fn policy(gateway: &Gateway) -> Result<(), RunError> {
    loop {
        let before = gateway.policy.load_full();
        if gateway.store.active_policy_hash().await?.is_none_or(|hash| hash == before.hash()) {
            return Ok(());
        }
        let files = gateway.store.active_policy().await?.ok_or(RunError::NoPolicy)?.files;
        let files: Vec<_> = files.into_iter().map(PolicyFile::from).collect();
        let set = tokio::task::spawn_blocking(move || PolicySet::load(&files)).await;
        let set = Arc::new(set.map_err(|_| RunError::Ended)??);
        let replaced = gateway.policy.compare_and_swap(&before, set);
        if Arc::ptr_eq(&replaced, &before) {
            return Ok(());
        }
    }
}
