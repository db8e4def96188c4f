//! From an agency's queue to its session, in order: each copy is looked at once more before it goes.

use std::sync::Arc;

use bytes::Bytes;
use liaison_proto::{
    exchange::v1::{Delivery, DeliveryChunk, delivery::Content, session_response::Frame as Response},
    limits::CHUNK_BYTES,
    message::v1::{
        Facts, Manifest, RecipientDecision, Refusal, ReleaseRecord, SealedCopy, kind::Code as Kind,
        notice::Expired,
    },
    strict,
};
use liaison_trust::{envelope, statement};
use metrics::counter;
use prost::Message;
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tracing::{error, info};
use uuid::Uuid;

use super::{
    session::{Attempt, Delivered, Gone, Session},
    submission::internal,
};
use crate::{
    delivery::{self, Event, Recheck, notice, sweep},
    directory::Directory,
    policy::PolicySet,
    store::{Change, DeliveryId, Item, Next, Queued, QueuedCopy, Released, StoreError},
};

/// Hands over an agency's queue while its session lasts.
pub(super) async fn run(session: &Session, window: u32) -> Result<(), Refusal> {
    let turns = Arc::new(Semaphore::new(window as usize));
    let mut last = DeliveryId::default();
    loop {
        let page = session.gateway.store.queue(&session.agency, last).await.map_err(internal)?;
        if page.is_empty() {
            session.place.wake.notified().await;
        }
        for queued in page {
            let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return Ok(()) };
            last = queued.id;
            let Some((what, delivery)) = prepare(session, queued).await? else { continue };
            let id = Uuid::now_v7();
            session.remember(id, Attempt { what, _turn: turn });
            if let Err(Gone) = send(session, id, &delivery).await {
                return Ok(());
            }
        }
    }
}

async fn send(session: &Session, attempt: Uuid, delivery: &Delivery) -> Result<(), Gone> {
    let attempt = Bytes::copy_from_slice(attempt.as_bytes());
    let mut rest = Bytes::from(delivery.encode_to_vec());
    loop {
        let data = rest.split_to(rest.len().min(CHUNK_BYTES));
        let last = rest.is_empty();
        session.send(Response::Delivery(DeliveryChunk { attempt: attempt.clone(), data, last })).await?;
        if last {
            return Ok(());
        }
    }
}

/// What is delivered; none where the copy ended instead.
async fn prepare(session: &Session, queued: Queued) -> Result<Option<(Delivered, Delivery)>, Refusal> {
    let (what, content) = match queued.item {
        Item::Notice(notice) => (Delivered::Notice(queued.id), Content::Notice(notice)),
        Item::Copy(copy) => {
            let head = copy.head.clone();
            let Some(copy) = copy_of(session, *copy).await? else { return Ok(None) };
            (Delivered::Copy(head), Content::Copy(copy))
        }
    };
    let kind = if matches!(content, Content::Copy(_)) { "copy" } else { "notice" };
    counter!("liaison_gateway_handovers_total", "what" => kind).increment(1);
    Ok(Some((what, Delivery { content: Some(content) })))
}

async fn copy_of(session: &Session, mut queued: QueuedCopy) -> Result<Option<SealedCopy>, Refusal> {
    let gateway = &session.gateway;
    let now = OffsetDateTime::now_utc();
    // Suspended or revoked since the session began: nothing more goes to it.
    delivery::recipient(&gateway.directory.load(), &session.agency)?;
    if queued.head.expires <= now {
        sweep::end(gateway, &queued.head, Event::Expired(Expired {}), now).await.map_err(internal)?;
        return Ok(None);
    }
    let policies = gateway.policy.load_full();
    if queued.released.policy_hash != policies.hash() {
        let rechecked = recheck(&gateway.directory.load(), &policies, &queued, now)?;
        match rechecked {
            Recheck::Same(record) => queued.released.release = statement::sign(&record, &gateway.signing),
            Recheck::Narrowed(record, told) => {
                let released = Released {
                    bases: queued.released.bases.clone(),
                    decision: told.clone(),
                    release: statement::sign(&record, &gateway.signing),
                    policy_hash: policies.hash(),
                };
                if !narrow(session, &queued, released.clone(), told, now).await.map_err(internal)? {
                    return Ok(None);
                }
                queued.released = released;
            }
            Recheck::Withheld(told) => {
                info!(message = %queued.head.message, recipient = %session.agency, "policies withhold a message since it was accepted");
                sweep::end(gateway, &queued.head, Event::Narrowed(told), now).await.map_err(internal)?;
                return Ok(None);
            }
        }
    }
    let QueuedCopy { content, proof, released, .. } = queued;
    let record: ReleaseRecord = strict::decode(&released.release.record)?;
    Ok(Some(envelope::copy(
        content.manifest,
        content.signature,
        content.sender_key.unwrap_or_default(),
        proof,
        content.sections.into_iter(),
        released.release,
        &delivery::positions(&record),
    )))
}

/// Commits what a copy still releases, with a word to its sender. False if it has left the queue.
async fn narrow(
    session: &Session,
    queued: &QueuedCopy,
    released: Released,
    told: RecipientDecision,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let gateway = &session.gateway;
    info!(message = %queued.head.message, recipient = %session.agency, "policies release less of a message since it was accepted");
    let change = Change {
        delivery: queued.head.delivery,
        to: Next::Narrowed(Box::new(released)),
        notice: Some(notice(&queued.head, Event::Narrowed(told), &gateway.signing, now)),
    };
    let is_queued = gateway.store.change(change).await?;
    gateway.sessions.wake(&queued.head.sender);
    Ok(is_queued)
}

/// Asks the policies of now about a copy that others released.
fn recheck(
    directory: &Directory,
    policies: &PolicySet,
    queued: &QueuedCopy,
    now: OffsetDateTime,
) -> Result<Recheck, Refusal> {
    let QueuedCopy { head, content, released, .. } = queued;
    let manifest: Manifest = strict::decode(&content.manifest)?;
    let old: ReleaseRecord = strict::decode(&released.release.record)?;
    if manifest.kind() == Kind::State {
        return Ok(Recheck::Same(old));
    }
    let facts: Facts = strict::decode(&content.facts)?;
    let (Some(from), Some(to)) = (directory.get(&head.sender), directory.get(&head.recipient)) else {
        error!(message = %head.message, "a party of a queued message is not in the directory");
        return Err(Refusal::internal());
    };
    let bases = delivery::bases_from_wire(&released.bases)?;
    let decision = delivery::decide(policies, from, to, &delivery::head(&manifest, Some(&facts)), &bases);
    let sections = content
        .sections
        .iter()
        .map(|section| Ok((delivery::category(section)?, section.position)))
        .collect::<Result<Vec<_>, strict::StrictError>>()?;
    let record =
        delivery::release((head.message, head.digest), &head.recipient, &sections, &decision, policies, now);
    Ok(delivery::recheck((&old, &released.decision), (record, decision.to_wire(&head.recipient))))
}
