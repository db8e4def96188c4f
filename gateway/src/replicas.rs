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
    sync::Notify,
    time::{MissedTickBehavior, interval, sleep},
};
use tracing::{error, info};

use crate::{
    authority::Authority,
    federation,
    gateway::Gateway,
    limits,
    policy::{PolicyFile, PolicySet},
    revoked::{Peering, Revocations},
    run::RunError,
    store::{Heard, Lead, Told},
};

/// Goes on with the other gateways of the domain until this one stops.
///
/// # Errors
/// The database can't be listened to.
pub(crate) async fn run(
    gateway: Arc<Gateway>,
    authority: Arc<Authority>,
    lead: Option<Lead>,
    revoked: Revocations,
) -> Result<(), RunError> {
    let (Some(lead), Some(told)) = (lead, gateway.store.told().await?) else {
        gateway.stop.cancelled().await;
        return Ok(());
    };
    let changed = Notify::new();
    let mut view = View { gateway: Arc::clone(&gateway), authority, revoked: Known::new(&revoked) };
    tokio::select! {
        () = gateway.stop.cancelled() => {}
        () = contend(&gateway, lead) => {}
        () = hear(&gateway, told, &changed) => {}
        () = view.keep(&changed) => {}
    }
    Ok(())
}

/// Leads as soon as no other gateway does.
async fn contend(gateway: &Gateway, mut lead: Lead) {
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

/// Passes on what the other gateways tell.
async fn hear(gateway: &Gateway, mut told: Told, changed: &Notify) {
    loop {
        match told.next().await {
            Heard::Queues(queues) => queues.iter().for_each(|queue| gateway.wake(queue)),
            Heard::State => changed.notify_one(),
            Heard::Head => follow(gateway).await,
            Heard::Session(agency) => gateway.sessions.replace(&agency),
            Heard::Anything => {
                changed.notify_one();
                follow(gateway).await;
                gateway.sessions.wake_all();
                gateway.peers.wake_all();
            }
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

/// What this gateway holds in memory and beside its database.
struct View {
    gateway: Arc<Gateway>,
    authority: Arc<Authority>,
    revoked: Known,
}

/// What stands in the file of revocations.
struct Known {
    agencies: BTreeSet<AgencyAddress>,
    certificates: HashSet<Vec<u8>>,
    peerings: Vec<Peering>,
}

impl Known {
    fn new(revocations: &Revocations) -> Self {
        Self {
            agencies: revocations.agencies.iter().map(|(agency, _)| agency.clone()).collect(),
            certificates: revocations.certificates.iter().map(|one| one.certificate.serial.clone()).collect(),
            peerings: revocations.peerings.clone(),
        }
    }
}

impl View {
    /// Reads it anew whenever another gateway has changed it.
    async fn keep(&mut self, changed: &Notify) {
        loop {
            changed.notified().await;
            if let Err(fault) = self.refresh().await {
                error!(
                    error = &fault as &dyn std::error::Error,
                    "what another gateway changed was not taken over"
                );
                sleep(limits::DATABASE_RETRY).await;
                changed.notify_one();
            }
            // Many changes are read at once.
            sleep(limits::STATE_REST).await;
        }
    }

    async fn refresh(&mut self) -> Result<(), RunError> {
        let gateway = &self.gateway;
        gateway.peers.refresh(&gateway.store).await.map_err(RunError::Peers)?;
        let left = self.directory().await?;
        self.policy().await?;
        if !*gateway.leads.borrow()
            && let Some(bundle) = gateway.store.shared_bundle().await?
            && bundle != *gateway.peers.own().borrow()
        {
            gateway.peers.set_own(bundle);
        }
        let now = OffsetDateTime::now_utc();
        self.authority.publish(&gateway.store, now).await?;
        left.iter().for_each(|agency| gateway.sessions.cut(agency));
        self.revocations(now).await?;
        self.gateway.revised.send_replace(());
        self.gateway.sweep.notify_one();
        Ok(())
    }

    /// Takes over the directory; the agencies that were active and are no more.
    async fn directory(&self) -> Result<Vec<AgencyAddress>, RunError> {
        let gateway = &self.gateway;
        loop {
            let before = gateway.directory.load_full();
            let (foreign, peers) = (gateway.store.peer_agencies().await?, gateway.peers.all());
            let foreign = federation::from_store(&foreign, &peers, &before);
            let directory = Arc::new(gateway.store.directory(&before).await?.with_all(foreign));
            // What this gateway changed meanwhile may not have been read yet.
            let replaced = gateway.directory.compare_and_swap(&before, Arc::clone(&directory));
            if !Arc::ptr_eq(&replaced, &before) {
                continue;
            }
            let is_active = |agency: &AgencyAddress| {
                directory.get(agency).is_some_and(|agency| agency.state == AgencyState::Active)
            };
            let left = before.iter().filter(|agency| agency.state == AgencyState::Active);
            let left = left.map(|agency| &agency.address).filter(|agency| !is_active(agency));
            return Ok(left.cloned().collect());
        }
    }

    async fn policy(&self) -> Result<(), RunError> {
        let gateway = &self.gateway;
        loop {
            let before = gateway.policy.load_full();
            if gateway.store.active_policy_hash().await?.is_none_or(|hash| hash == before.hash()) {
                return Ok(());
            }
            let files = gateway.store.active_policy().await?.ok_or(RunError::NoPolicy)?.files;
            let files: Vec<_> = files.into_iter().map(PolicyFile::from).collect();
            let set = tokio::task::spawn_blocking(move || PolicySet::load(&files)).await;
            let set = set.map_err(|_| RunError::Ended)??;
            let replaced = gateway.policy.compare_and_swap(&before, Arc::new(set));
            if Arc::ptr_eq(&replaced, &before) {
                return Ok(());
            }
        }
    }

    /// Cuts off whom another gateway has revoked, and writes into the file beside this gateway's database what that one
    /// wrote into its own.
    async fn revocations(&mut self, now: OffsetDateTime) -> Result<(), RunError> {
        let directory = self.gateway.directory.load_full();
        for agency in directory.of(&self.gateway.domain).filter(|agency| agency.state == AgencyState::Revoked)
        {
            if !self.revoked.agencies.contains(&agency.address) {
                self.authority.remember(Some(&agency.address), Vec::new(), now).await?;
                self.revoked.agencies.insert(agency.address.clone());
            }
        }
        let certificates = self.gateway.store.revocations(now).await?.into_iter().map(|one| one.certificate);
        let new: Vec<_> =
            certificates.filter(|one| !self.revoked.certificates.contains(&one.serial)).collect();
        for certificate in &new {
            self.gateway.sessions.cut(&certificate.agency);
            self.revoked.certificates.insert(certificate.serial.clone());
        }
        if !new.is_empty() {
            self.authority.remember(None, new, now).await?;
        }
        for peer in self.gateway.peers.all() {
            let last = self.revoked.peerings.iter().rfind(|peering| peering.domain == peer.domain);
            let with = (peer.state != PeerState::Removed).then_some(peer.bundle.signing);
            // Of a peer of which nothing stands there, its end alone is to.
            if last.map_or(with.is_none(), |last| last.with != with) {
                let peering = Peering { domain: peer.domain.clone(), with, at: now };
                self.authority.remember_peering(peering.clone()).await?;
                self.revoked.peerings.push(peering);
            }
        }
        Ok(())
    }
}
