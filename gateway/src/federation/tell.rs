//! Tells a peer of this domain's agencies, as far as policies let it see them: what changed, as soon as it
//! changes.

use std::sync::Arc;

use liaison_proto::{
    federation::v1::{DirectoryChange, Welcome, link_request::Frame as Request},
    message::v1::Refusal,
};
use liaison_trust::statement;
use tokio::time::sleep;

use super::{
    link::{Answer, Gone, Link},
    told,
};
use crate::limits;

/// Tells until the link ends.
pub(super) async fn run(link: &Arc<Link>, welcome: &Welcome) -> Result<(), Refusal> {
    let (gateway, peer) = (&link.gateway, &link.peer);
    let mut revised = gateway.revised.subscribe();
    let mut known = peer.live.told.lock().await.known(&welcome.directory_epoch, welcome.directory_sequence);
    loop {
        revised.mark_unchanged();
        let visible = {
            let (directory, policies) = (gateway.directory.load(), gateway.policy.load());
            told::visible(&directory, &policies, &gateway.domain, &peer.domain)
        };
        let pages = peer.live.told.lock().await.pages(&visible, known, &gateway.domain, &peer.domain);
        for page in pages {
            let sequence = page.complete.then_some(page.sequence);
            let signed = statement::sign(&page, &gateway.signing);
            let change =
                |number| vec![Request::Directory(DirectoryChange { number, page: Some(signed.clone()) })];
            match link.ask(change).await {
                Ok(Answer::Done) => known = sequence.or(known),
                Ok(Answer::Refused(refusal)) => return Err(refusal),
                Ok(Answer::Accepted(_)) => return Err(link.protocol("an answer of another kind")),
                // The link's own end tells why.
                Err(Gone) => std::future::pending().await,
            }
        }
        if revised.changed().await.is_err() {
            return Ok(());
        }
        sleep(limits::TELL_WAIT).await;
    }
}
