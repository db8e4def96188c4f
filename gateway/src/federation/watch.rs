//! A peer's logs, read as far as this gateway has cosigned them. That of keys: whoever publishes keys in the name of an
//! agency of this domain is caught. That of evidence, where it took the place of another: see `succession`.

use liaison_proto::{message::v1::SignedKeyRecord, strict};
use liaison_trust::{
    key_record::{self, ProvenKey},
    log::{BundleError, Checkpoint, FrontierError, Note, leaf_hash, new_bundles},
};
use metrics::counter;
use time::OffsetDateTime;
use tokio::time::sleep;
use tonic::transport::Channel;
use tracing::{error, warn};

use super::{
    call::{CallError, get},
    link::Link,
    succession,
};
use crate::{
    gateway::Gateway,
    limits,
    store::{ForeignKey, LogKind, StoreError},
};

/// Why a peer's log of keys can't be read. Nothing else stops for it.
#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("the peer's entries are none: {0}")]
    Bundle(#[from] BundleError),
    #[error("the peer's log is too long: {0}")]
    Frontier(#[from] FrontierError),
    #[error("the peer's log has more than {most} entries that were not read yet", most = limits::KEYS_WATCHED)]
    TooMany,
    #[error("the entries that the peer shows are not those under the head that it signed")]
    OtherRoot,
}

/// Reads the peer's logs while the link lasts.
pub(super) async fn run(link: &Link, channel: Channel) {
    loop {
        sleep(limits::KEYS_WATCH).await;
        if let Err(fault) = succession::compare(link, &channel).await {
            warn!(peer = %link.peer.domain, "a peer's new log was not compared with the one before: {fault}");
        }
        if let Err(fault) = look(link, &channel).await {
            counter!("liaison_gateway_keys_unread_total", "peer" => link.peer.domain.to_string())
                .increment(1);
            warn!(peer = %link.peer.domain, "a peer's log of keys was not read: {fault}");
            sleep(limits::LOG_COSIGN).await;
        }
    }
}

/// Reads what is new under the largest head that was cosigned.
async fn look(link: &Link, channel: &Channel) -> Result<(), WatchError> {
    let store = &link.gateway.store;
    let Some(note) = store.witnessed_newest(&link.peer.domain, LogKind::Keys).await? else { return Ok(()) };
    let Some(head) = Note::parse(&note).ok().and_then(|note| note.text().parse::<Checkpoint>().ok()) else {
        return Ok(());
    };
    let mut frontier = store.watched(head.origin()).await?;
    let from = frontier.size();
    if head.size() <= from {
        return Ok(());
    }
    if head.size() - from > limits::KEYS_WATCHED {
        return Err(WatchError::TooMany);
    }
    let mut foreign = Vec::new();
    for bundle in new_bundles(from, head.size()) {
        let path = format!("/{}/{bundle}", head.origin());
        let content = get(channel, &path, limits::KEY_BUNDLE_BYTES).await?;
        for (index, entry) in (bundle.start()..).zip(bundle.decode(&content)?) {
            if index < from {
                continue;
            }
            frontier.append(leaf_hash(entry))?;
            if let Some(key) =
                in_our_name(&link.gateway, entry).filter(|_| foreign.len() < limits::FOREIGN_KEYS)
            {
                foreign.push((index, key));
            }
        }
    }
    if frontier.root() != head.root() {
        counter!("liaison_gateway_log_conflicts_total", "log" => head.origin().to_owned()).increment(1);
        error!(log = head.origin(), "{}", WatchError::OtherRoot);
        return Err(WatchError::OtherRoot);
    }
    for (_, key) in &foreign {
        counter!("liaison_gateway_foreign_keys_total", "peer" => link.peer.domain.to_string()).increment(1);
        error!(
            peer = %link.peer.domain, agency = %key.agency, key = %key.id,
            "a peer's log of keys holds a key of an agency of this domain that this gateway does not know: the peer may read \
             in the agency's name, or this database is an older copy; the evidence is kept"
        );
    }
    let foreign: Vec<_> =
        foreign.iter().map(|(index, key)| ForeignKey { index: *index, record: &key.signed }).collect();
    store.keys_watched(head.origin(), &frontier, (&note, &foreign), OffsetDateTime::now_utc()).await?;
    Ok(())
}

/// The key in an entry, if it is one of an agency of this domain that was not published here.
fn in_our_name(gateway: &Gateway, entry: &[u8]) -> Option<ProvenKey> {
    let record: SignedKeyRecord = strict::decode(entry).ok()?;
    let key = key_record::prove(&record).ok().filter(|key| *key.agency.domain() == gateway.domain)?;
    let directory = gateway.directory.load();
    let known = directory.get(&key.agency);
    let is_known = known.is_some_and(|known| known.keys.iter().any(|known| known.id == key.id));
    (!is_known).then_some(key)
}
