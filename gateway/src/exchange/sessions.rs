//! Who is connected: live sessions to wake, and connections to cut.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use liaison_trust::names::AgencyAddress;
use metrics::gauge;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The live sessions and connections of a gateway.
#[derive(Default)]
pub struct Sessions {
    live: Mutex<Live>,
}

#[derive(Default)]
struct Live {
    opened: u64,
    sessions: HashMap<AgencyAddress, Open>,
    /// Cuts all connections of an agency. One for each agency that ever connected.
    cuts: HashMap<AgencyAddress, CancellationToken>,
}

struct Open {
    number: u64,
    wake: Arc<Notify>,
    replaced: CancellationToken,
}

/// A session's place among the live ones, which it leaves when dropped.
pub(super) struct Place {
    sessions: Arc<Sessions>,
    agency: AgencyAddress,
    number: u64,
    /// Told when something was queued for the agency.
    pub(super) wake: Arc<Notify>,
    /// Cancelled when a newer session of the agency took this one's place.
    pub(super) replaced: CancellationToken,
}

impl Sessions {
    /// Tells an agency's session, if there is one, that something waits for it.
    pub fn wake(&self, agency: &AgencyAddress) {
        if let Some(open) = self.lock().sessions.get(agency) {
            open.wake.notify_one();
        }
    }

    /// Ends all connections of an agency at once. Nothing else is left to do for those that come later:
    /// they meet the certificate revocation list and the directory.
    pub fn cut(&self, agency: &AgencyAddress) {
        if let Some(cut) = self.lock().cuts.remove(agency) {
            cut.cancel();
        }
    }

    /// Whether an agency has a session.
    pub fn is_connected(&self, agency: &AgencyAddress) -> bool {
        self.lock().sessions.contains_key(agency)
    }

    /// How many sessions there are.
    pub fn count(&self) -> usize {
        self.lock().sessions.len()
    }

    /// What cuts a new connection of an agency.
    pub(super) fn connection(&self, agency: &AgencyAddress) -> CancellationToken {
        self.lock().cuts.entry(agency.clone()).or_default().child_token()
    }

    /// Gives a session its place, and takes it from an older one of the same agency.
    pub(super) fn open(self: &Arc<Self>, agency: &AgencyAddress) -> Place {
        let mut live = self.lock();
        live.opened += 1;
        let place = Place {
            sessions: Arc::clone(self),
            agency: agency.clone(),
            number: live.opened,
            wake: Arc::default(),
            replaced: CancellationToken::new(),
        };
        let open =
            Open { number: place.number, wake: Arc::clone(&place.wake), replaced: place.replaced.clone() };
        if let Some(older) = live.sessions.insert(agency.clone(), open) {
            older.replaced.cancel();
        }
        gauge!("liaison_gateway_sessions").set(live.sessions.len() as f64);
        drop(live);
        place
    }

    fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut live = self.sessions.lock();
        if live.sessions.get(&self.agency).is_some_and(|open| open.number == self.number) {
            live.sessions.remove(&self.agency);
        }
        gauge!("liaison_gateway_sessions").set(live.sessions.len() as f64);
    }
}
