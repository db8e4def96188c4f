//! From the lanes to a peer onto the link: each agency's in order, one after the other's turn, so that none holds
//! up the others; what belongs to one thread never overtakes one another.

use std::{
    collections::{BTreeMap, HashMap, VecDeque, btree_map::OccupiedEntry, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use liaison_proto::{
    admin::v1::agency_state::Code as AgencyState,
    federation::v1::{RelayNotice, link_request::Frame as Request},
    message::v1::{Envelope, Manifest, Notice, Refusal, SignedNotice, error_code::Code as ErrorCode},
};
use prost::Message;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::warn;
use uuid::Uuid;

use super::{
    forward::{self, Full},
    link::{Answer, Gone, Link},
};
use crate::{
    delivery::internal,
    limits,
    store::{Change, DeliveryId, Next, Queue, QueuedCopy, StoreError, Unit},
};

/// What became of something that was given.
pub(super) enum Given {
    /// It left its lane, or ended.
    Settled,
    /// The peer takes it later.
    Postponed(Duration),
    /// The link is over.
    Gone,
}

/// What goes on with the lanes while a link stands.
struct Lanes<'a> {
    link: &'a Arc<Link>,
    lanes: BTreeMap<Queue, Lane>,
    /// Threads of which something is under way or postponed, with what waits behind it.
    threads: HashMap<Uuid, VecDeque<Ticket>>,
    under_way: JoinSet<(Ticket, Result<Given, Refusal>)>,
    full: Arc<Full>,
    /// Room for messages under way, KiB.
    room: Arc<Semaphore>,
}

/// How far a lane was given.
#[derive(Default)]
struct Lane {
    last: DeliveryId,
    /// Given and not settled.
    open: usize,
    /// To be offered again, by when.
    postponed: BTreeMap<(Instant, DeliveryId), Ticket>,
}

/// Something that was given of a lane.
struct Ticket {
    lane: Queue,
    first: DeliveryId,
    last: DeliveryId,
    /// What it must not overtake others of: the thread of a message, the message of a notice.
    thread: Uuid,
    /// How often it was offered in vain.
    attempts: u32,
}

/// Gives until the link ends.
pub(super) async fn run(link: &Arc<Link>) -> Result<(), Refusal> {
    let mut lanes = Lanes {
        link,
        lanes: BTreeMap::new(),
        threads: HashMap::new(),
        under_way: JoinSet::new(),
        full: Arc::default(),
        room: Arc::new(Semaphore::new(limits::LINK_BYTES >> 10)),
    };
    loop {
        while let Some(done) = lanes.under_way.try_join_next() {
            lanes.finished(done)?;
        }
        if lanes.turn().await? {
            continue;
        }
        // Whether messages may go is looked at again even where nothing happens.
        let at_latest = Instant::now() + limits::FORWARD_RETRY;
        let next = lanes.next().map_or(at_latest, |next| next.clamp(Instant::now(), at_latest));
        tokio::select! {
            Some(done) = lanes.under_way.join_next() => lanes.finished(done)?,
            () = link.peer.live.wake.notified() => {}
            () = sleep_until(next) => {}
        }
    }
}

impl Lanes<'_> {
    /// Of each lane what is to be offered again, and what comes next. Whether there was any.
    async fn turn(&mut self) -> Result<bool, Refusal> {
        let store = &self.link.gateway.store;
        for queue in store.lanes(&self.link.peer.domain) {
            self.lanes.entry(queue).or_default();
        }
        self.lanes.retain(|queue, lane| lane.open > 0 || store.load(queue).deliveries > 0);
        let queues: Vec<Queue> = self.lanes.keys().filter(|queue| self.may_go(queue)).cloned().collect();
        let mut gave = false;
        for queue in queues {
            gave |= self.again(&queue).await?;
            gave |= self.go_on(&queue).await?;
        }
        Ok(gave)
    }

    /// Notices may go where messages may not: of an agency that is suspended they wait.
    fn may_go(&self, queue: &Queue) -> bool {
        let Queue::Lane { of, .. } = queue else { return true };
        let gateway = &self.link.gateway;
        let directory = gateway.directory.load();
        let is_suspended = directory.get(of).is_some_and(|sender| sender.state == AgencyState::Suspended);
        !is_suspended && forward::gate(gateway, &self.link.peer()).is_ok()
    }

    /// When the first of what was postponed may go.
    fn next(&self) -> Option<Instant> {
        let lanes = self.lanes.iter().filter(|(queue, _)| self.may_go(queue));
        lanes.filter_map(|(_, lane)| lane.postponed.first_key_value()).map(|((until, _), _)| *until).min()
    }

    /// Offers again what was postponed until now: one of it, so that other lanes have their turn.
    async fn again(&mut self, queue: &Queue) -> Result<bool, Refusal> {
        let Some(lane) = self.lanes.get_mut(queue) else { return Ok(false) };
        let first = lane.postponed.first_entry().filter(|first| first.key().0 <= Instant::now());
        let Some(ticket) = first.map(OccupiedEntry::remove) else { return Ok(false) };
        let unit = self.link.gateway.store.unit(queue, ticket.first.before()).await.map_err(internal)?;
        match unit {
            // Copies that ended meanwhile are not there any more.
            Some(unit) if ids(&unit).0 <= ticket.last => self.give(ticket, unit).await?,
            _ => self.let_go(&ticket),
        }
        Ok(true)
    }

    /// Gives what comes next in a lane, or lets it wait for its thread.
    async fn go_on(&mut self, queue: &Queue) -> Result<bool, Refusal> {
        let Some(lane) = self.lanes.get_mut(queue) else { return Ok(false) };
        if lane.open >= limits::LANE_OPEN {
            return Ok(false);
        }
        let unit = self.link.gateway.store.unit(queue, lane.last).await.map_err(internal)?;
        let Some(unit) = unit else { return Ok(false) };
        let (first, last) = ids(&unit);
        lane.last = last;
        lane.open += 1;
        let ticket = Ticket { lane: queue.clone(), first, last, thread: thread(&unit)?, attempts: 0 };
        match self.threads.entry(ticket.thread) {
            Entry::Occupied(mut others) => others.get_mut().push_back(ticket),
            Entry::Vacant(free) => {
                free.insert(VecDeque::new());
                self.give(ticket, unit).await?;
            }
        }
        Ok(true)
    }

    async fn give(&mut self, ticket: Ticket, unit: Unit) -> Result<(), Refusal> {
        let Ok(turn) = Arc::clone(&self.link.window).acquire_owned().await else { return Ok(()) };
        match unit {
            Unit::Notice { id, notice } => {
                let link = Arc::clone(self.link);
                self.under_way.spawn(async move {
                    let outcome = relay(&link, id, notice).await;
                    drop(turn);
                    (ticket, outcome)
                });
                Ok(())
            }
            Unit::Message { copies, content, .. } => self.give_message(ticket, turn, copies, *content).await,
        }
    }

    async fn give_message(
        &mut self,
        ticket: Ticket,
        turn: OwnedSemaphorePermit,
        copies: Vec<QueuedCopy>,
        content: Envelope,
    ) -> Result<(), Refusal> {
        let kib = u32::try_from(content.encoded_len() >> 10).unwrap_or(u32::MAX) + 1;
        let Ok(room) = Arc::clone(&self.room).acquire_many_owned(kib).await else { return Ok(()) };
        let (link, full) = (Arc::clone(self.link), Arc::clone(&self.full));
        self.under_way.spawn(async move {
            let outcome = forward::forward(&link, &full, copies, content).await;
            drop((turn, room));
            (ticket, outcome)
        });
        Ok(())
    }

    fn finished(
        &mut self,
        done: Result<(Ticket, Result<Given, Refusal>), tokio::task::JoinError>,
    ) -> Result<(), Refusal> {
        let Ok((ticket, outcome)) = done else { return Err(Refusal::internal()) };
        match outcome? {
            Given::Settled => self.let_go(&ticket),
            Given::Postponed(wait) => {
                let wait = backoff(wait, ticket.attempts);
                self.postpone(Ticket { attempts: ticket.attempts + 1, ..ticket }, wait);
            }
            // The link's own end tells why.
            Given::Gone => {}
        }
        Ok(())
    }

    fn postpone(&mut self, ticket: Ticket, wait: Duration) {
        if let Some(lane) = self.lanes.get_mut(&ticket.lane) {
            lane.postponed.insert((Instant::now() + wait, ticket.first), ticket);
        }
    }

    /// It is settled: the next of its thread has its turn.
    fn let_go(&mut self, ticket: &Ticket) {
        if let Some(lane) = self.lanes.get_mut(&ticket.lane) {
            lane.open = lane.open.saturating_sub(1);
        }
        let next = self.threads.get_mut(&ticket.thread).and_then(VecDeque::pop_front);
        match next {
            Some(next) => self.postpone(next, Duration::ZERO),
            None => {
                self.threads.remove(&ticket.thread);
            }
        }
    }
}

/// Sends a notice about what an agency of this domain received.
async fn relay(link: &Link, id: DeliveryId, notice: SignedNotice) -> Result<Given, Refusal> {
    let frame = |number| vec![Request::Notice(RelayNotice { number, notice: Some(notice.clone()) })];
    let to = match link.ask(frame).await {
        Ok(Answer::Done) => Next::Gone,
        // What a newer version says, an older one may learn to read.
        Ok(Answer::Refused(refusal)) if passes(&refusal) || refusal.code() == ErrorCode::UnknownValue => {
            return Ok(Given::Postponed(wait(&refusal)));
        }
        Ok(Answer::Refused(refusal)) => {
            warn!(peer = %link.peer.domain, code = refusal.code().as_str_name(), "a notice was refused, and is kept as evidence");
            Next::Quarantined(refusal)
        }
        Ok(Answer::Accepted(_)) => return Err(link.protocol("an answer of another kind")),
        Err(Gone) => return Ok(Given::Gone),
    };
    let change = Change { delivery: id, to, notice: None };
    link.gateway.store.change(change).await.map_err(internal)?;
    Ok(Given::Settled)
}

/// Whether it makes sense to offer the same again.
pub(super) fn passes(refusal: &Refusal) -> bool {
    // Known with the next page of the directory, where the peer says so.
    let is_early = refusal.code() == ErrorCode::UnknownKey && refusal.retry_after_ms > 0;
    is_early
        || matches!(
            refusal.code(),
            ErrorCode::QueueFull
                | ErrorCode::ClockSkew
                | ErrorCode::RateLimited
                | ErrorCode::GatewayUnreachable
                | ErrorCode::ShuttingDown
                | ErrorCode::SchemeMismatch
                | ErrorCode::StaleBundle
                | ErrorCode::Suspended
                | ErrorCode::Internal
        )
}

/// How long to wait before the same is offered again.
pub(super) fn wait(refusal: &Refusal) -> Duration {
    let asked = Duration::from_millis(refusal.retry_after_ms.into());
    if asked.is_zero() { limits::FORWARD_RETRY } else { asked.min(limits::QUEUE_RETRY) }
}

/// Twice as long after each attempt, and a random part more, so that what waits does not come all at once.
fn backoff(wait: Duration, attempts: u32) -> Duration {
    let wait = wait.saturating_mul(1 << attempts.min(10)).min(limits::QUEUE_RETRY);
    wait.mul_f64(rand::random_range(1.0..1.5))
}

/// The first and the last delivery of a unit.
fn ids(unit: &Unit) -> (DeliveryId, DeliveryId) {
    match unit {
        Unit::Message { first, last, .. } => (*first, *last),
        Unit::Notice { id, .. } => (*id, *id),
    }
}

/// What a unit must not overtake others of: the thread of a message, the message of a notice.
fn thread(unit: &Unit) -> Result<Uuid, Refusal> {
    let id = match unit {
        Unit::Message { content, .. } => {
            Manifest::decode(content.manifest.clone()).map(|manifest| manifest.thread)
        }
        Unit::Notice { notice, .. } => Notice::decode(notice.notice.clone()).map(|notice| notice.message_id),
    };
    id.ok()
        .and_then(|id| Uuid::from_slice(&id).ok())
        .ok_or_else(|| internal(StoreError::Corrupt("a queued message or notice")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_by_itself_is_offered_again() {
        let refusal = |code| Refusal::new(code, "what it is", "what to do");
        for code in [ErrorCode::QueueFull, ErrorCode::Suspended, ErrorCode::ClockSkew] {
            assert!(passes(&refusal(code)), "{}", code.as_str_name());
        }
        for code in [ErrorCode::Expired, ErrorCode::UnknownKey, ErrorCode::NotAParty] {
            assert!(!passes(&refusal(code)), "{}", code.as_str_name());
        }
    }
}
