//! Why messages wait for another domain, and telling it to their senders.

use std::sync::Arc;

use futures_util::future::try_join_all;
use liaison_proto::message::v1::{Refusal, error_code::Code as ErrorCode};
use liaison_trust::names::Domain;
use time::OffsetDateTime;

use super::forward::gate;
use crate::{
    delivery::{Event, internal, notice},
    gateway::{Gateway, to_the_end},
    limits,
    store::{Change, Head, Next, Queue, StoreError},
};

/// Tells senders why their messages wait for domains that nothing goes to.
///
/// # Errors
/// The store failed.
pub async fn tell_all(gateway: &Arc<Gateway>) -> Result<(), Refusal> {
    for peer in gateway.peers.all() {
        let Some(why) = why(gateway, &peer.domain) else { continue };
        for lane in gateway.store.lanes(&peer.domain) {
            // A page at a time, so that the last of a long lane does not keep other domains' senders waiting.
            if matches!(lane, Queue::Lane { .. }) {
                let untold = gateway.store.untold(&lane, why.code()).await.map_err(internal)?;
                tell(gateway, untold.iter(), &why, false).await?;
            }
        }
    }
    Ok(())
}

/// Why nothing goes to a domain; none where it goes, or its link has only just ended.
fn why(gateway: &Gateway, domain: &Domain) -> Option<Refusal> {
    // What waits for a domain that was removed returns.
    let peer = gateway.peers.known(domain).ok()?;
    if let Err(refusal) = gateway.peers.active(domain) {
        return Some(refusal);
    }
    match peer.live.apart() {
        Some(apart) if apart >= limits::APART => Some(Refusal::new(
            ErrorCode::GatewayUnreachable,
            format!("the gateway of {domain} is not connected"),
            "it is delivered when that gateway is back; the gateway's administrator sees why in `peer show`",
        )),
        Some(_) => None,
        None => gate(gateway, &peer).err(),
    }
}

/// Tells the senders of copies why they wait: of each copy a reason that was not the last one told. `is_back` says
/// that the peer has not taken what it was just offered: what it was not offered before either, it does not have.
///
/// # Errors
/// The store failed.
pub(super) async fn tell<'a>(
    gateway: &Arc<Gateway>,
    copies: impl Iterator<Item = &'a Head>,
    why: &Refusal,
    is_back: bool,
) -> Result<(), Refusal> {
    let changes = copies.filter_map(|head| {
        let (last, times) = head.waiting;
        let is_back = is_back && !head.offered;
        let is_news = last != why.code() && times < limits::WAITINGS;
        (is_news || is_back).then(|| {
            let told = || notice(gateway, head, Event::Waiting(why.clone()), OffsetDateTime::now_utc());
            let word = is_news.then(told).transpose()?;
            let code = if is_news { why.code() } else { last };
            let to = Next::Waiting { why: code, is_back };
            Ok(Change { delivery: head.delivery, to, notice: word })
        })
    });
    let changes: Vec<Change> = changes.collect::<Result<_, StoreError>>().map_err(internal)?;
    let gateway = Arc::clone(gateway);
    // To the end even if the link ends meanwhile, so that no word lies there of which its reader is not told.
    to_the_end(async move {
        let changed = changes.into_iter().map(async |change| {
            let queue = change.notice.as_ref().map(|word| word.queue.clone());
            if gateway.store.change(change).await?
                && let Some(queue) = queue
            {
                gateway.wake(&queue);
            }
            Ok::<_, StoreError>(())
        });
        try_join_all(changed).await.map_err(internal)?;
        Ok(())
    })
    .await
}
