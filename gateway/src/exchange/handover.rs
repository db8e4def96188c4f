//! From an agency's queue to its session, in order: each copy is looked at once more before it goes.

use std::{collections::BTreeSet, pin::pin, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use liaison_proto::{
    admin::v1::agency_state::Code as AgencyState,
    chunks,
    exchange::v1::{Delivery, DeliveryChunk, delivery::Content, session_response::Frame as Response},
    message::v1::{Refusal, ReleaseRecord, SealedCopy},
    strict,
};
use liaison_trust::envelope;
use metrics::counter;
use prost::Message;
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::session::{Attempt, Delivered, Gone, Session};
use crate::{
    delivery::{self, evidence, internal},
    gateway::Gateway,
    limits,
    store::{Change, DeliveryId, Head, Item, Next, Page, Queue, Queued, QueuedCopy, StoreError},
};

/// Hands over an agency's queue while its session lasts.
pub(super) async fn run(session: &Session, window: u32) -> Result<(), Refusal> {
    let turns = Arc::new(Semaphore::new(window as usize));
    let queue = Queue::Agency(session.agency.clone());
    let mut revised = session.gateway.revised.subscribe();
    let (mut last, mut furthest) = (DeliveryId::default(), DeliveryId::default());
    // Copies of senders that are suspended: looked at again when the directory changes.
    let mut held = BTreeSet::new();
    loop {
        let page = session.gateway.store.queue(&queue, last).await.map_err(internal)?;
        let Page { queued: mut page, may_be_more } = page;
        if let Some(queued) = page.last() {
            last = queued.id;
        }
        page.retain(|queued| {
            let is_new = queued.id > furthest || held.remove(&queued.id);
            furthest = furthest.max(queued.id);
            let is_held = is_new && is_held(&session.gateway, queued);
            if is_held {
                held.insert(queued.id);
            }
            is_new && !is_held
        });
        // Side by side, since each is logged before it goes, but one after another onto the stream.
        let most = page.len().max(1);
        let logged = stream::iter(page).map(async |queued| {
            let turn = Arc::clone(&turns).acquire_owned().await.map_err(|_| Refusal::internal())?;
            Ok::<_, Refusal>((turn, logged(session, queued).await?))
        });
        let mut logged = pin!(logged.buffered(most));
        while let Some(logged) = logged.next().await {
            let (turn, queued) = match logged? {
                // It may have waited for its turn.
                (_, Logged::Goes(queued)) if is_held(&session.gateway, &queued) => {
                    held.insert(queued.id);
                    continue;
                }
                (turn, Logged::Goes(queued)) => (turn, queued),
                (_, Logged::Held(id)) => {
                    held.insert(id);
                    continue;
                }
                (_, Logged::Ended) => continue,
            };
            let Some((what, delivery)) = prepare(session, queued).await? else { continue };
            let id = Uuid::now_v7();
            session.remember(id, Attempt { what, _turn: turn });
            if let Err(Gone) = send(session, id, &delivery).await {
                return Ok(());
            }
        }
        if may_be_more {
            continue;
        }
        tokio::select! {
            () = session.place.wake.notified() => {}
            _ = revised.changed(), if !held.is_empty() => {
                last = held.first().map_or(last, |first: &DeliveryId| first.before());
            }
        }
    }
}

/// Whether it is a copy whose sender is suspended.
fn is_held(gateway: &Gateway, queued: &Queued) -> bool {
    matches!(&queued.item, Item::Copy(copy) if is_suspended(gateway, &copy.head))
}

fn is_suspended(gateway: &Gateway, head: &Head) -> bool {
    let directory = gateway.directory.load();
    directory.get(&head.sender).is_some_and(|sender| sender.state == AgencyState::Suspended)
}

async fn send(session: &Session, attempt: Uuid, delivery: &Delivery) -> Result<(), Gone> {
    let attempt = Bytes::copy_from_slice(attempt.as_bytes());
    for (data, last) in chunks(delivery.encode_to_vec().into()) {
        session.send(Response::Delivery(DeliveryChunk { attempt: attempt.clone(), data, last })).await?;
    }
    Ok(())
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

async fn copy_of(session: &Session, queued: QueuedCopy) -> Result<Option<SealedCopy>, Refusal> {
    let gateway = &session.gateway;
    // Suspended or revoked since the session began: nothing more goes to it.
    delivery::recipient(&gateway.directory.load(), &session.agency)?;
    let Some(QueuedCopy { head, content, proof, released, .. }) = delivery::fresh(gateway, queued).await?
    else {
        return Ok(None);
    };
    let record: ReleaseRecord = strict::decode(&released.release.record)?;
    let copy = envelope::copy(
        content.manifest,
        content.signature,
        content.sender_key.unwrap_or_default(),
        proof,
        content.sections.into_iter(),
        released.release,
        &delivery::positions(&record),
    );
    let directory = gateway.directory.load();
    let hidden = directory.get(&head.sender).filter(|sender| !sender.listed);
    let sender_keys = hidden.map_or_else(Vec::new, |sender| sender.newest_keys(limits::HIDDEN_KEYS));
    Ok(Some(SealedCopy { sender_keys, ..copy }))
}

/// What has become of a delivery before it goes.
enum Logged {
    /// The log says that it goes to its recipient.
    Goes(Queued),
    /// Its sender is suspended.
    Held(DeliveryId),
    /// It has ended.
    Ended,
}

/// Logs that a delivery goes to its recipient, before it does.
async fn logged(session: &Session, queued: Queued) -> Result<Logged, Refusal> {
    let Queued { id, item } = queued;
    let mut copy = match item {
        Item::Copy(copy) if !copy.head.handed_over => *copy,
        item => return Ok(Logged::Goes(Queued { id, item })),
    };
    let gateway = &session.gateway;
    loop {
        let view = gateway.store.known();
        delivery::recipient(&gateway.directory.load(), &session.agency)?;
        if is_suspended(gateway, &copy.head) {
            return Ok(Logged::Held(id));
        }
        let Some(fresh) = delivery::fresh(gateway, copy).await? else { return Ok(Logged::Ended) };
        let leaf = Box::new(evidence::handed_over(&fresh, OffsetDateTime::now_utc()).map_err(internal)?);
        let to = Next::HandedOver { leaf, view };
        match gateway.store.change(Change { delivery: id, to, notice: None }).await {
            Ok(true) => return Ok(Logged::Goes(Queued { id, item: Item::Copy(Box::new(fresh)) })),
            Ok(false) => return Ok(Logged::Ended),
            // Decided once more, by what another gateway changed meanwhile.
            Err(StoreError::Outdated) => gateway.store.fresh().await.map_err(internal)?,
            Err(fault) => return Err(internal(fault)),
        }
        copy = fresh;
    }
}
