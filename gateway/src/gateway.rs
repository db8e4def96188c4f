//! What every part of a running gateway shares.

use std::sync::Arc;

use arc_swap::ArcSwap;
use liaison_proto::admin::v1::agency_state::Code as AgencyState;
use liaison_trust::{
    keys::SigningKey,
    names::{AgencyAddress, Domain},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    directory::{Agency, Directory},
    exchange::sessions::Sessions,
    limits,
    policy::PolicySet,
    store::Store,
};

/// A running gateway.
pub struct Gateway {
    pub domain: Domain,
    /// Signs acceptances, release records and notices.
    pub signing: SigningKey,
    pub store: Store,
    pub directory: ArcSwap<Directory>,
    /// The active policy set.
    pub policy: ArcSwap<PolicySet>,
    pub sessions: Arc<Sessions>,
    /// Room for submissions under way, KiB.
    pub submissions: Arc<Semaphore>,
    /// Cancelled when the gateway is to stop.
    pub stop: CancellationToken,
}

impl Gateway {
    /// A gateway of a domain with this store, these agencies and these policies.
    pub fn new(
        domain: Domain,
        signing: SigningKey,
        store: Store,
        directory: Directory,
        policy: PolicySet,
    ) -> Self {
        Self {
            domain,
            signing,
            store,
            directory: ArcSwap::from_pointee(directory),
            policy: ArcSwap::from_pointee(policy),
            sessions: Arc::default(),
            submissions: Arc::new(Semaphore::new(limits::SUBMISSION_BYTES >> 10)),
            stop: CancellationToken::new(),
        }
    }

    /// Puts an agency into the directory, in place of what it was.
    pub fn update(&self, agency: Agency) {
        self.directory.rcu(|directory| directory.with(agency.clone()));
    }
    /// Changes the state of an agency in the directory; its other parts stay as they are now.
    pub fn set_state(&self, address: &AgencyAddress, state: AgencyState) {
        self.directory.rcu(|directory| match directory.get(address) {
            Some(agency) => Arc::new(directory.with(Agency { state, ..Agency::clone(agency) })),
            None => Arc::clone(directory),
        });
    }
}
