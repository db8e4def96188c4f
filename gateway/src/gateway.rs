//! What every part of a running gateway shares.

use std::sync::Arc;

use arc_swap::ArcSwap;
use liaison_trust::{keys::SigningKey, names::Domain};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    directory::{Agency, Directory},
    exchange::sessions::Sessions,
    limits,
    store::Store,
};

/// A running gateway.
pub struct Gateway {
    pub domain: Domain,
    /// Signs acceptances, release records and notices.
    pub signing: SigningKey,
    pub store: Store,
    pub directory: ArcSwap<Directory>,
    pub sessions: Arc<Sessions>,
    /// Room for submissions under way, KiB.
    pub submissions: Arc<Semaphore>,
    /// Cancelled when the gateway is to stop.
    pub stop: CancellationToken,
}

impl Gateway {
    /// A gateway of a domain with this store, these agencies and these policies.
    pub fn new(domain: Domain, signing: SigningKey, store: Store, directory: Directory) -> Self {
        Self {
            domain,
            signing,
            store,
            directory: ArcSwap::from_pointee(directory),
            sessions: Arc::default(),
            submissions: Arc::new(Semaphore::new(limits::SUBMISSION_BYTES >> 10)),
            stop: CancellationToken::new(),
        }
    }

    /// Puts an agency into the directory, in place of what it was.
    pub fn update(&self, agency: Agency) {
        self.directory.rcu(|directory| directory.with(agency.clone()));
    }
}
