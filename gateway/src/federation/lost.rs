//! What a peer accepted and may have lost: it signs another log than then, since it was restored from an older copy of its
//! database.

use futures_util::future::try_join_all;
use liaison_proto::message::v1::Refusal;
use liaison_trust::names::Domain;
use metrics::counter;
use time::OffsetDateTime;
use tracing::warn;

use crate::{
    delivery::{self, internal},
    gateway::Gateway,
    store::{Change, Next},
};

/// Puts back into their lanes the copies that a peer accepted under a log before the one that it signs now, of this number,
/// and whose end it has not told. They keep their places, so that a thread keeps its order. Before anything is given over
/// a link, for a lane that is being given is not read from its beginning.
///
/// # Errors
/// The store failed; what was put back stays so, and the next link goes on.
pub(super) async fn offer_again(gateway: &Gateway, domain: &Domain, log: u32) -> Result<(), Refusal> {
    let now = OffsetDateTime::now_utc();
    let mut copies = 0;
    loop {
        let lost = gateway.store.lost_at(domain, log, now).await.map_err(internal)?;
        if lost.is_empty() {
            break;
        }
        let changes = lost.iter().map(|head| {
            let lane = delivery::queue(&gateway.domain, &head.sender, &head.recipient);
            gateway.store.change(Change { delivery: head.delivery, to: Next::Again(lane), notice: None })
        });
        let changed = try_join_all(changes).await.map_err(internal)?;
        copies += changed.into_iter().filter(|changed| *changed).count();
    }
    if copies > 0 {
        counter!("liaison_gateway_offered_again_total", "peer" => domain.to_string())
            .increment(copies as u64);
        warn!(
            peer = %domain,
            log,
            copies,
            "a peer has opened another log, and may have lost what it accepted before: what it has not told the end of is offered to it again"
        );
    }
    Ok(())
}
