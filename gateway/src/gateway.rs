//! What every part of a running gateway shares.

use std::{sync::Arc, time::Instant};

use arc_swap::ArcSwap;
use liaison_proto::{admin::v1::agency_state::Code as AgencyState, message::v1::Refusal};
use liaison_trust::{
    keys::SigningKey,
    names::{AgencyAddress, Domain},
};
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::{
    directory::{Agency, Directory},
    exchange::sessions::Sessions,
    federation::peers::Peers,
    limits,
    log::Logs,
    policy::PolicySet,
    store::{Queue, Store},
};

/// A running gateway.
pub struct Gateway {
    pub domain: Domain,
    /// Signs acceptances, release records and notices.
    pub signing: SigningKey,
    pub store: Store,
    /// The logs of the domain.
    pub logs: Logs,
    pub directory: ArcSwap<Directory>,
    /// The active policy set.
    pub policy: ArcSwap<PolicySet>,
    pub sessions: Arc<Sessions>,
    /// The domains that this one has peered with.
    pub peers: Peers,
    /// Changes when the directory or the policies do.
    pub revised: watch::Sender<()>,
    /// Room for submissions under way, KiB.
    pub submissions: Arc<Semaphore>,
    /// Whether this gateway leads those of the domain: it signs the logs, sweeps, and has the links to peers.
    pub leads: watch::Sender<bool>,
    /// Told when something is to be swept before its time, such as the queue of a revoked agency.
    pub sweep: Notify,
    pub started: Instant,
    /// Cancelled when the gateway is to stop.
    pub stop: CancellationToken,
}

impl Gateway {
    /// A gateway of a domain with this store, the logs that it holds, these agencies and these policies.
    pub fn new(
        domain: Domain,
        signing: SigningKey,
        (store, logs): (Store, Logs),
        directory: Directory,
        policy: PolicySet,
        peers: Peers,
    ) -> Self {
        Self {
            domain,
            signing,
            store,
            logs,
            directory: ArcSwap::from_pointee(directory),
            policy: ArcSwap::from_pointee(policy),
            sessions: Arc::default(),
            peers,
            revised: watch::Sender::default(),
            submissions: Arc::new(Semaphore::new(limits::SUBMISSION_BYTES >> 10)),
            leads: watch::Sender::new(true),
            sweep: Notify::new(),
            started: Instant::now(),
            stop: CancellationToken::new(),
        }
    }

    /// Puts an agency into the directory, in place of what it was.
    pub fn update(&self, agency: Agency) {
        self.directory.rcu(|directory| directory.with(agency.clone()));
        self.changed();
    }

    /// Makes a policy set the active one.
    pub fn activate(&self, policies: PolicySet) {
        self.policy.store(Arc::new(policies));
        self.changed();
    }

    /// Tells whoever goes by the directory and the policies. What another gateway made of them meanwhile is read once more.
    fn changed(&self) {
        self.revised.send_replace(());
        self.store.changed();
    }

    /// Deliveries that wait for agencies of this domain.
    pub fn queued(&self) -> u64 {
        let directory = self.directory.load();
        let queues = directory.of(&self.domain).map(|agency| Queue::Agency(agency.address.clone()));
        queues.map(|queue| self.store.load(&queue).deliveries).sum()
    }

    /// Tells whoever takes from a queue that something waits in it.
    pub fn wake(&self, queue: &Queue) {
        match queue {
            Queue::Agency(agency) => self.sessions.wake(agency),
            Queue::Lane { to, .. } | Queue::Notices { to, .. } => self.peers.wake(to),
        }
    }

    /// Changes an agency in the directory, whatever else changes at the same time.
    pub fn change(&self, address: &AgencyAddress, change: impl Fn(&mut Agency)) {
        self.directory.rcu(|directory| match directory.get(address) {
            Some(agency) => {
                let mut agency = Agency::clone(agency);
                change(&mut agency);
                Arc::new(directory.with(agency))
            }
            None => Arc::clone(directory),
        });
        self.changed();
    }

    /// Changes the state of an agency in the directory, if it is one of these.
    pub fn set_state(&self, address: &AgencyAddress, from: &[AgencyState], state: AgencyState) {
        self.change(address, |agency| {
            if from.contains(&agency.state) {
                agency.state = state;
            }
        });
    }
}

/// Does something to its end, even if whoever asked for it goes away meanwhile: a server drops what it
/// does for a caller that hangs up, and a change must not stop between the database and what runs.
///
/// # Errors
/// What the work refused; `internal` if it panicked.
pub async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::spawn(work).await.unwrap_or_else(|panic| {
        error!(%panic, "a change ended by itself");
        Err(Refusal::internal())
    })
}
