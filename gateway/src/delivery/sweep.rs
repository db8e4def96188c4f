//! What happens by itself: messages expire, the queues of agencies that left return to their senders,
//! and what need not be remembered any more is forgotten.

use std::sync::Arc;

use futures_util::future::join_all;
use liaison_proto::{
    admin::v1::agency_state::Code as AgencyState,
    message::v1::{Refusal, error_code::Code as ErrorCode, notice::Expired},
};
use time::OffsetDateTime;
use tracing::{error, info};

use super::{Event, notice};
use crate::{
    gateway::Gateway,
    limits,
    store::{Change, DeliveryId, Head, Next, StoreError},
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
        if let Err(fault) = sweep(&gateway, OffsetDateTime::now_utc()).await {
            error!(error = &fault as &dyn std::error::Error, "a sweep failed; the next one tries again");
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
        let ends = expired.iter().map(|head| end(gateway, head, Event::Expired(Expired {}), now));
        join_all(ends).await.into_iter().collect::<Result<(), _>>()?;
    }
    let left: Vec<_> = {
        let directory = gateway.directory.load();
        let left = directory.iter().filter(|agency| agency.state == AgencyState::Revoked);
        left.map(|agency| agency.address.clone()).collect()
    };
    for agency in left {
        while gateway.store.load(&agency).deliveries > 0 {
            let waiting = gateway.store.waiting(&agency).await?;
            if waiting.is_empty() {
                break;
            }
            info!(%agency, deliveries = waiting.len(), "the queue of an agency that left returns");
            let ends =
                waiting.iter().map(|(delivery, head)| undeliverable(gateway, *delivery, head.as_ref(), now));
            join_all(ends).await.into_iter().collect::<Result<(), _>>()?;
        }
    }
    for agency in gateway.store.overfull_quarantines().await? {
        let dropped = gateway.store.trim_quarantine(&agency).await?;
        info!(%agency, dropped, "the oldest quarantined copies were dropped");
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
    let notice = notice(copy, event, &gateway.signing, now);
    let change = Change { delivery: copy.delivery, to: Next::Gone, notice: Some(notice) };
    if gateway.store.change(change).await? {
        gateway.sessions.wake(&copy.sender);
    }
    Ok(())
}

async fn undeliverable(
    gateway: &Gateway,
    delivery: DeliveryId,
    copy: Option<&Head>,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    match copy {
        Some(copy) => {
            let refusal = Refusal::new(
                ErrorCode::Revoked,
                format!("the membership of {} was ended", copy.recipient),
                "address the message to another agency",
            );
            end(gateway, copy, Event::Undeliverable(refusal), now).await
        }
        // A notice to an agency that is no longer there concerns nobody else.
        None => gateway.store.change(Change { delivery, to: Next::Gone, notice: None }).await.map(|_| ()),
    }
}
