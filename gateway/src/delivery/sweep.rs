//! What happens by itself: messages expire, the queues of agencies that left return to their senders, these are told
//! why messages wait, and what need not be remembered any more is forgotten.

use std::sync::Arc;

use futures_util::future::join_all;
use liaison_proto::{
    admin::v1::agency_state::Code as AgencyState,
    limits::{CLOCK_AHEAD, LIFETIME, REPLAY_MEMORY},
    message::v1::{Notice, Refusal, error_code::Code as ErrorCode, notice::Expired},
    times,
};
use liaison_trust::names::{AgencyAddress, Domain};
use prost::Message;
use time::OffsetDateTime;
use tracing::{error, info};

use super::{Event, about, internal, notice};
use crate::{
    federation::tell_waiting,
    gateway::Gateway,
    limits,
    store::{Change, DeliveryId, ForwardedCopy, Head, Next, Queue, Settled, Settlement, StoreError, Unit},
};

/// Sweeps every [`limits::SWEEP`] until the gateway stops.
pub async fn run(gateway: Arc<Gateway>) {
    let mut ticks = tokio::time::interval(limits::SWEEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = gateway.stop.cancelled() => return,
            _ = ticks.tick() => {}
            () = gateway.sweep.notified() => {}
        }
        if !*gateway.leads.borrow() {
            continue;
        }
        let swept = sweep(&gateway, OffsetDateTime::now_utc()).await.map_err(internal);
        if tell_waiting(&gateway).await.and(swept).is_err() {
            error!("a sweep failed; the next one tries again");
        }
    }
}

/// One sweep as of a moment.
///
/// # Errors
/// The store failed; what was done stays done.
pub async fn sweep(gateway: &Gateway, now: OffsetDateTime) -> Result<(), StoreError> {
    loop {
        let expired = gateway.store.expired(now).await?;
        if expired.is_empty() {
            break;
        }
        info!(copies = expired.len(), "copies expired");
        let ends = expired.iter().map(async |head| {
            // One that a peer was offered, and that it never answered as long as it could have.
            if head.offered {
                let why = if head.accepted { no_word() } else { no_answer() };
                end(gateway, head, Event::Undeliverable(why), now).await
            } else {
                expire(gateway, head, now).await
            }
        });
        join_all(ends).await.into_iter().collect::<Result<(), _>>()?;
    }
    for agency in left(gateway) {
        let why = membership_ended(&agency);
        give_back(gateway, &Queue::Agency(agency), (&why, &why), now).await?;
    }
    for domain in gateway.peers.removed() {
        for lane in gateway.store.lanes(&domain) {
            if matches!(lane, Queue::Notices { .. }) {
                drop_old(gateway, &lane, now).await?;
                continue;
            }
            give_back(gateway, &lane, (&peering_ended(&domain), &peering_ended_offered(&domain)), now)
                .await?;
        }
        settle_all(gateway, &peering_ended_after(&domain), now, || gateway.store.outstanding_at(&domain))
            .await?;
    }
    settle_all(gateway, &no_word(), now, || gateway.store.overdue(now)).await?;
    for queue in gateway.store.overfull_quarantines().await? {
        let dropped = gateway.store.trim_quarantine(&queue).await?;
        info!(%queue, dropped, "the oldest quarantined copies were dropped");
    }
    while gateway.store.forget(now).await? > 0 {}
    Ok(())
}

/// Ends a copy with a word to its sender.
///
/// # Errors
/// The store failed.
pub async fn end(
    gateway: &Gateway,
    copy: &Head,
    event: Event,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    end_as(gateway, copy, Next::Gone, event, now).await
}

/// Ends a copy that expired and was offered to nobody, with a word to its sender.
///
/// # Errors
/// The store failed.
pub async fn expire(gateway: &Gateway, copy: &Head, now: OffsetDateTime) -> Result<(), StoreError> {
    end_as(gateway, copy, Next::Expired, Event::Expired(Expired { why: waited(copy) }), now).await
}

/// Why a copy waited, as its sender was told last.
fn waited(copy: &Head) -> Option<Refusal> {
    let domain = copy.recipient.domain();
    let (code, _) = copy.waiting;
    let what = match code {
        ErrorCode::Unspecified => return None,
        ErrorCode::GatewayUnreachable => format!("the gateway of {domain} was not connected"),
        ErrorCode::Suspended => {
            format!("the peering with {domain} was suspended, or waited for its administrator")
        }
        ErrorCode::StaleBundle => format!("{domain} was not heard of for a week"),
        ErrorCode::SchemeMismatch => format!("this domain and {domain} had different schemes"),
        ErrorCode::QueueFull => format!("the queue of {} was full", copy.recipient),
        _ => format!("the gateway of {domain} did not take it"),
    };
    Some(Refusal::new(
        code,
        what,
        "ask the gateway's administrator about the peer, then send the message again",
    ))
}

/// Ends a copy in some way, with a word to its sender.
///
/// # Errors
/// The store failed.
pub async fn end_as(
    gateway: &Gateway,
    copy: &Head,
    to: Next,
    event: Event,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let notice = notice(gateway, copy, event, now)?;
    let answers = notice.queue.clone();
    let change = Change { delivery: copy.delivery, to, notice: Some(notice) };
    if gateway.store.change(change).await? {
        gateway.wake(&answers);
    }
    Ok(())
}

/// Agencies of the domain that left it.
fn left(gateway: &Gateway) -> Vec<AgencyAddress> {
    let directory = gateway.directory.load();
    let left = directory.of(&gateway.domain).filter(|agency| agency.state == AgencyState::Revoked);
    left.map(|agency| agency.address.clone()).collect()
}

/// Returns what waits in a queue to its senders, with why: the second is for what a peer was offered.
async fn give_back(
    gateway: &Gateway,
    queue: &Queue,
    (why, why_offered): (&Refusal, &Refusal),
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    while gateway.store.load(queue).deliveries > 0 {
        let waiting = gateway.store.waiting(queue).await?;
        if waiting.is_empty() {
            break;
        }
        info!(%queue, deliveries = waiting.len(), "a queue that nobody takes any more returns");
        let ends = waiting.iter().map(|(delivery, head)| {
            let is_offered = head.as_ref().is_some_and(|head| head.offered);
            let why = if is_offered { why_offered } else { why };
            undeliverable(gateway, *delivery, head.as_ref(), why, now)
        });
        join_all(ends).await.into_iter().collect::<Result<(), _>>()?;
    }
    Ok(())
}

/// Drops the words for a removed domain whose messages nobody remembers any more. The others wait: its own
/// administrator may not have ended the peering, and takes them when the domain is accepted anew.
async fn drop_old(gateway: &Gateway, queue: &Queue, now: OffsetDateTime) -> Result<(), StoreError> {
    // The oldest stand first.
    while let Some(Unit::Notice { id, notice }) = gateway.store.unit(queue, DeliveryId::default()).await? {
        let at = Notice::decode(notice.notice.clone()).ok().and_then(|notice| times::from_wire(&notice.at?));
        // A message was made before what is said of it.
        if at.is_some_and(|at| now < at + CLOCK_AHEAD + LIFETIME + REPLAY_MEMORY) {
            break;
        }
        gateway.store.change(Change { delivery: id, to: Next::Gone, notice: None }).await?;
    }
    Ok(())
}

/// Tells the senders of copies that peers accepted that no more will be heard of them.
async fn settle_all<F: Future<Output = Result<Vec<ForwardedCopy>, StoreError>>>(
    gateway: &Gateway,
    why: &Refusal,
    now: OffsetDateTime,
    page: impl Fn() -> F,
) -> Result<(), StoreError> {
    loop {
        let copies = page().await?;
        if copies.is_empty() {
            return Ok(());
        }
        info!(copies = copies.len(), "no more will be heard of copies that a peer accepted");
        let mut any = false;
        for copy in copies {
            let event = Event::Undeliverable(why.clone());
            let notice = about(gateway, &copy, event, None, now)?;
            let queue = notice.queue.clone();
            if gateway.store.settle(Settlement { copy, is_end: true, notice }).await? == Settled::Done {
                gateway.wake(&queue);
                any = true;
            }
        }
        // What is in the way of all of them is gone by the next sweep.
        if !any {
            return Ok(());
        }
    }
}

async fn undeliverable(
    gateway: &Gateway,
    delivery: DeliveryId,
    copy: Option<&Head>,
    why: &Refusal,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    match copy {
        Some(copy) => end(gateway, copy, Event::Undeliverable(why.clone()), now).await,
        // A notice to somebody who is no longer there concerns nobody else.
        None => gateway.store.change(Change { delivery, to: Next::Gone, notice: None }).await.map(|_| ()),
    }
}

fn membership_ended(agency: &AgencyAddress) -> Refusal {
    Refusal::new(
        ErrorCode::Revoked,
        format!("the membership of {agency} was ended"),
        "address the message to another agency",
    )
}

fn peering_ended(domain: &Domain) -> Refusal {
    Refusal::new(
        ErrorCode::UnknownDomain,
        format!("the peering with {domain} was ended before the message reached it"),
        "reach the agency another way, or ask the gateway's administrator",
    )
}

fn peering_ended_offered(domain: &Domain) -> Refusal {
    Refusal::new(
        ErrorCode::UnknownDomain,
        format!(
            "{domain} was offered the message and may have it, and the peering was ended before it answered"
        ),
        "ask the agency itself",
    )
}

fn peering_ended_after(domain: &Domain) -> Refusal {
    Refusal::new(
        ErrorCode::UnknownDomain,
        format!(
            "{domain} accepted the message, and the peering was ended before it told whether the agency has it"
        ),
        "ask the agency itself",
    )
}

fn no_answer() -> Refusal {
    Refusal::new(
        ErrorCode::GatewayUnreachable,
        "the recipient's domain was offered the message and may have it, and never answered for good",
        "ask the agency itself, or send the message again",
    )
}

fn no_word() -> Refusal {
    Refusal::new(
        ErrorCode::GatewayUnreachable,
        "the recipient's domain had the message, and never told whether the agency has it",
        "ask the agency itself, or send the message again",
    )
}
