//! Who is connected: live sessions to wake, and connections to cut.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use liaison_trust::names::AgencyAddress;
use metrics::gauge;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::limits;

/// The live sessions and connections of a gateway.
#[derive(Default)]
pub struct Sessions {
    live: Mutex<Live>,
}

#[derive(Default)]
struct Live {
    opened: u64,
    sessions: HashMap<AgencyAddress, Open>,
    /// One for each agency that ever connected.
    connections: HashMap<AgencyAddress, Connections>,
}

/// The connections of one agency.
struct Connections {
    /// Cuts all of them.
    cut: CancellationToken,
    /// When they were last cut.
    cut_at: Option<Instant>,
    places: Arc<Semaphore>,
    streams: Arc<Semaphore>,
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

    /// Ends all connections of an agency at once, those whose handshake is under way included: they may
    /// have met the certificate revocation list of before.
    pub fn cut(&self, agency: &AgencyAddress) {
        let mut live = self.lock();
        let connections = live.connections.entry(agency.clone()).or_default();
        connections.cut_at = Some(Instant::now());
        std::mem::take(&mut connections.cut).cancel();
    }

    /// Ends the session of an agency, which has opened another one with another gateway of the domain.
    pub fn replace(&self, agency: &AgencyAddress) {
        if let Some(open) = self.lock().sessions.get(agency) {
            open.replaced.cancel();
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

    /// A place for a connection of an agency whose handshake began at that moment, with what cuts it;
    /// none if the agency was cut since, or has enough.
    pub(super) fn connection(
        &self,
        agency: &AgencyAddress,
        began: Instant,
    ) -> Option<(OwnedSemaphorePermit, CancellationToken)> {
        let mut live = self.lock();
        let connections = live.connections.entry(agency.clone()).or_default();
        if connections.cut_at.is_some_and(|cut_at| cut_at >= began) {
            return None;
        }
        let place = Arc::clone(&connections.places).try_acquire_owned().ok()?;
        Some((place, connections.cut.child_token()))
    }

    /// A place for the stream of a session; none if the agency has enough. One whose session is over
    /// keeps it, with the frames that were on their way, until its connection lets it go.
    pub(super) fn stream(&self, agency: &AgencyAddress) -> Option<OwnedSemaphorePermit> {
        let streams = Arc::clone(&self.lock().connections.entry(agency.clone()).or_default().streams);
        streams.try_acquire_owned().ok()
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

impl Default for Connections {
    fn default() -> Self {
        Self {
            cut: CancellationToken::new(),
            cut_at: None,
            places: Arc::new(Semaphore::new(limits::AGENCY_CONNECTIONS)),
            streams: Arc::new(Semaphore::new(limits::AGENCY_STREAMS)),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_reaches_handshakes_under_way_and_no_later_ones() {
        let sessions = Sessions::default();
        let agency: AgencyAddress = "be/a".parse().unwrap();
        let other: AgencyAddress = "be/b".parse().unwrap();
        let began = Instant::now();
        let (_place, live) = sessions.connection(&agency, began).unwrap();
        let (_other_place, untouched) = sessions.connection(&other, began).unwrap();
        sessions.cut(&agency);
        assert!(live.is_cancelled());
        assert!(!untouched.is_cancelled());
        assert!(sessions.connection(&agency, began).is_none());
        let later = Instant::now() + std::time::Duration::from_secs(1);
        let (_place, later) = sessions.connection(&agency, later).unwrap();
        assert!(!later.is_cancelled());
    }

    #[test]
    fn an_agency_has_so_many_connections_and_no_more() {
        let sessions = Sessions::default();
        let agency: AgencyAddress = "be/a".parse().unwrap();
        let now = Instant::now();
        let mut places: Vec<_> =
            (0..limits::AGENCY_CONNECTIONS).map(|_| sessions.connection(&agency, now).unwrap()).collect();
        assert!(sessions.connection(&agency, now).is_none());
        places.pop();
        assert!(sessions.connection(&agency, now).is_some());
    }
}
