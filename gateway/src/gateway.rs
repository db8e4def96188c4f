//! What every part of a running gateway shares.

use arc_swap::ArcSwap;
use liaison_trust::names::Domain;
use tokio_util::sync::CancellationToken;

use crate::{directory::Directory, store::Store};

/// A running gateway.
pub struct Gateway {
    pub domain: Domain,
    pub store: Store,
    pub directory: ArcSwap<Directory>,
    /// Cancelled when the gateway is to stop.
    pub stop: CancellationToken,
}
