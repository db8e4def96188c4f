//! Tells a peer of this domain's agencies, as far as policies let it see them: what changed, as soon as it
//! changes.

use std::sync::Arc;

use liaison_proto::{
    federation::v1::{DirectoryChange, DirectoryPage, Welcome, link_request::Frame as Request},
    message::v1::Refusal,
};
use liaison_trust::statement;
use tokio::{sync::oneshot, time::sleep};
use tracing::warn;

use super::{
    link::{Answer, Gone, Link},
    told,
};
use crate::limits;

/// Tells until the link ends; `told` hears when what there was at its beginning has been answered.
pub(super) async fn run(
    link: &Arc<Link>,
    welcome: &Welcome,
    told: oneshot::Sender<()>,
) -> Result<(), Refusal> {
    let (gateway, peer) = (&link.gateway, &link.peer);
    let mut revised = gateway.revised.subscribe();
    let mut known = peer.live.told.lock().await.known(&welcome.directory_epoch, welcome.directory_sequence);
    let mut told = Some(told);
    loop {
        revised.mark_unchanged();
        let visible = {
            let (directory, policies) = (gateway.directory.load(), gateway.policy.load());
            told::visible(&directory, &policies, &gateway.domain, &peer.domain)
        };
        let pages = peer.live.told.lock().await.pages(&visible, known, &gateway.domain, &peer.domain);
        let refused = tell(link, pages, &mut known).await?;
        let problem = refused.as_ref().map(|refusal| {
            format!("not all of this domain's directory is taken: {}; {}", refusal.message, refusal.action)
        });
        peer.live.set_problem(problem);
        if let Some(told) = told.take() {
            // Whoever waits for it ends with the link as well.
            let _ = told.send(());
        }
        tokio::select! {
            changed = revised.changed() => if changed.is_err() { return Ok(()) },
            () = sleep(limits::QUEUE_RETRY), if refused.is_some() => {}
        }
        sleep(limits::TELL_WAIT).await;
    }
}

/// Sends pages and says how much is known then. One that is refused holds up no other; but then the peer has not
/// been told all, and is told again.
async fn tell(
    link: &Link,
    pages: Vec<DirectoryPage>,
    known: &mut Option<u64>,
) -> Result<Option<Refusal>, Refusal> {
    let mut refused = None;
    for mut page in pages {
        page.complete &= refused.is_none();
        let signed = statement::sign(&page, &link.gateway.signing);
        let change =
            |number| vec![Request::Directory(DirectoryChange { number, page: Some(signed.clone()) })];
        match link.ask(change).await {
            Ok(Answer::Done) if page.complete => *known = Some(page.sequence),
            Ok(Answer::Done) => {}
            Ok(Answer::Refused(refusal)) => {
                let code = refusal.code().as_str_name();
                warn!(peer = %link.peer.domain, code, "a page of the directory was refused: {}", refusal.message);
                refused = Some(refusal);
            }
            Ok(Answer::Accepted(_)) => return Err(link.protocol("an answer of another kind")),
            // The link's own end tells why.
            Err(Gone) => std::future::pending().await,
        }
    }
    Ok(refused)
}
